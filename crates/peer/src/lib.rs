//! Streams between replicas, on the Raft port: Raft messages, snapshots, fragments, forwarded calls.
//!
//! Owned here: connections to the other replicas and how they are found again, the hello that every stream begins with, the bounded queue in
//! front of each peer, the checks of every chunk. Called by the driver (as its `Transport`), by the replica (as its `Peers`) and by
//! `controld`, which registers the service. Never here: a decision about membership, terms or artifacts; blocking of the raft thread.

mod book;
mod clients;
mod dialer;
mod fragments;
mod hedge;
mod hello;
mod known;
mod lane;
pub mod limits;
mod link;
mod metrics;
mod outbox;
mod raft;
mod service;
mod shelf;
mod snapshot_receive;
mod snapshot_send;
mod snapshots;
mod transport;
mod wire;

pub use book::AddressBook;
pub use clients::PeerClients;
pub use dialer::Dialer;
pub use hello::{Identity, KnownStores};
pub use known::DurableStores;
pub use metrics::handshakes_failed;
pub use raft::{Raft, RaftSeat};
pub use service::{Forwarding, PeerService};
pub use shelf::ShelfSnapshots;
pub use snapshots::{SnapshotFile, SnapshotFiles, SnapshotSink, SnapshotSource};
pub use transport::{PeerTransport, TransportConfig};
