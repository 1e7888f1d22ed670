//! gRPC stubs, channels and marshalling. The services are one table (`methods`), held against `proto/` by a test; no stub is generated.
//!
//! Owned here: how a channel and a server are set up, the certificates that replicas show each other, the size of a chunk, how our errors
//! become gRPC statuses. Never here: what a call means.

pub mod answer;
mod certificate;
pub mod channel;
pub mod chunk;
pub mod core_log;
pub mod methods;
pub mod serve;
pub mod status;
pub mod tls;
pub mod wait;

pub use channel::{bulk_channel, channel, environment, environment_of};
pub use grpcio;
