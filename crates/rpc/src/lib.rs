//! gRPC stubs, channels and marshalling: a table of methods.
