//! Ties what followers forward to the two who serve it: the API for whole calls, the proposer for batches of commands.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use raftgrid_api::Forwarded;
use raftgrid_peer::Forwarding;
use raftgrid_replica::ports::Callback;
use raftgrid_replica::Proposals;

/// The leader's side of forwarding.
pub(crate) struct ForwardedHere {
    /// Whole unary calls.
    pub api: Forwarded,
    /// Batches of commands.
    pub proposals: Arc<Proposals>,
}

impl Forwarding for ForwardedHere {
    fn propose(&self, batch: Vec<u8>, done: Callback<Vec<u8>>) {
        self.proposals.propose_forwarded(&batch, done);
    }

    fn call(&self, method: &str, principal: &str, request: Vec<u8>) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send>> {
        self.api.call(method, principal, request)
    }
}
