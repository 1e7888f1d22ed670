//! gRPC stubs, channels and marshalling. The services are one table (`methods`), held against `proto/` by a test; no stub is generated.
//!
//! Owned here: how a channel and a server are set up, the size of a chunk, how our errors become gRPC statuses. Never here: what a call means.

pub mod answer;
pub mod channel;
pub mod chunk;
pub mod methods;
pub mod serve;
pub mod status;
pub mod wait;

pub use channel::{bulk_channel, channel, environment};
pub use grpcio;
