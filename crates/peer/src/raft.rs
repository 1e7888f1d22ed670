//! What the streams need of the driver.

use std::sync::{Arc, OnceLock};

use raftgrid_driver::{Message, NodeId, RaftHandle};
use raftgrid_replica::Versions;

/// The running replica, as its transport sees it. No call blocks.
pub trait Raft: Send + Sync {
    /// A message of a peer; may be dropped.
    fn step(&self, message: Message);
    /// The last message to `node` did not get through.
    fn unreachable(&self, node: NodeId);
    /// How the sending of a snapshot ended; told for each, once.
    fn snapshot_sent(&self, to: NodeId, ok: bool);
}

impl Raft for RaftHandle {
    fn step(&self, message: Message) {
        RaftHandle::step(self, message);
    }
    fn unreachable(&self, node: NodeId) {
        RaftHandle::unreachable(self, node);
    }
    fn snapshot_sent(&self, to: NodeId, ok: bool) {
        RaftHandle::snapshot_sent(self, to, ok);
    }
}

/// The replica's place: a transport is made before the replica that it reports to. Until it is filled, what arrives is dropped.
#[derive(Clone, Default)]
pub struct RaftSeat {
    raft: Arc<OnceLock<Arc<dyn Raft>>>,
    versions: Arc<OnceLock<Versions>>,
}

impl RaftSeat {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The replica runs; the first call counts.
    pub fn fill(&self, raft: Arc<dyn Raft>) {
        let _ = self.raft.set(raft);
    }

    /// From now on who was refused for its version gets no messages either; the first call counts.
    pub fn heed(&self, versions: Versions) {
        let _ = self.versions.set(versions);
    }

    /// Whether `node` was refused because it cannot follow the state here: it could go on with what it is sent, and diverge.
    pub(crate) fn barred(&self, node: NodeId) -> bool {
        self.versions.get().is_some_and(|versions| versions.barred(node))
    }

    pub(crate) fn step(&self, message: Message) {
        if let Some(raft) = self.raft.get() {
            raft.step(message);
        }
    }

    pub(crate) fn unreachable(&self, node: NodeId) {
        if let Some(raft) = self.raft.get() {
            raft.unreachable(node);
        }
    }

    pub(crate) fn snapshot_sent(&self, to: NodeId, ok: bool) {
        if let Some(raft) = self.raft.get() {
            raft.snapshot_sent(to, ok);
        }
    }
}
