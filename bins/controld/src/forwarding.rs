//! Ties what followers forward to those who serve it: the API for whole calls, the proposer for batches of commands,
//! the replica for read indexes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use raftgrid_api::Forwarded;
use raftgrid_peer::Forwarding;
use raftgrid_replica::ports::Callback;
use raftgrid_replica::{Proposals, Replica};

/// The leader's side of forwarding.
pub(crate) struct ForwardedHere {
    /// Whole unary calls.
    pub api: Forwarded,
    /// Batches of commands.
    pub proposals: Arc<Proposals>,
    /// Read indexes.
    pub replica: Arc<Replica>,
}

impl Forwarding for ForwardedHere {
    fn propose(&self, batch: Vec<u8>, done: Callback<Vec<u8>>) {
        self.proposals.propose_forwarded(&batch, done);
    }

    fn read_index(&self, done: Callback<u64>) {
        self.replica.read_index(done);
    }

    fn call(&self, method: &str, principal: &str, request: Vec<u8>) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send>> {
        self.api.call(method, principal, request)
    }
}
