//! What a replica needs of its surroundings: a transport and peers that only write down what is to be sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use raftgrid_driver::{Message, Transport};
use raftgrid_replica::ports::{CallError, Callback, Download, Peers};

/// Things that left a node's process, in order.
pub struct Outbox<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Outbox<T> {
    /// Adds them.
    pub fn push(&self, items: impl IntoIterator<Item = T>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(items);
    }

    /// Takes all.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Raft messages.
#[derive(Clone, Default)]
pub struct SimTransport(pub Outbox<Message>);

impl Transport for SimTransport {
    fn send(&mut self, messages: Vec<Message>) {
        self.0.push(messages);
    }
}

/// A read index is asked of a node.
pub struct Question {
    /// Of whom.
    pub node: u64,
    /// How long the answer is waited for.
    pub timeout: Duration,
    /// Gets it.
    pub done: Callback<u64>,
}

/// Calls to other nodes. A forwarded batch travels on its own: whoever forwarded it is told that the outcome is unknown, which is always
/// true as long as no answer has come.
#[derive(Clone, Default)]
pub struct SimPeers {
    /// Batches, and for whom.
    pub forwards: Outbox<(u64, Vec<u8>)>,
    /// Read indexes that are wanted.
    pub questions: Outbox<Question>,
}

impl Peers for SimPeers {
    fn put_fragment(
        &self,
        _node: u64,
        _artifact_id: u64,
        _fragment: u32,
        _digest: [u8; 32],
        _data: &mut dyn Download,
    ) -> Result<(), CallError> {
        Err(CallError::Unavailable("the simulator carries no bytes".to_owned()))
    }

    fn get_fragment(
        &self,
        _node: u64,
        _artifact_id: u64,
        _fragment: u32,
        _sink: &mut dyn FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        Err(CallError::Unavailable("the simulator carries no bytes".to_owned()))
    }

    fn forward(&self, node: u64, _method: &str, request: Vec<u8>, _timeout: Duration) -> Result<Vec<u8>, CallError> {
        self.forwards.push([(node, request)]);
        Err(CallError::Unknown)
    }

    fn read_index(&self, node: u64, timeout: Duration, done: Callback<u64>) {
        self.questions.push([Question { node, timeout, done }]);
    }
}
