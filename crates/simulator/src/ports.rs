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

/// What a node asks of another.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// A read index; the answer is eight bytes, little-endian.
    Index,
    /// That it proposes a batch.
    Proposal(Vec<u8>),
}

/// A call to another node.
pub struct Question {
    /// To whom.
    pub node: u64,
    /// What is asked.
    pub wanted: Wanted,
    /// How long the answer is waited for.
    pub timeout: Duration,
    /// Gets it.
    pub done: Callback<Vec<u8>>,
}

/// Calls to other nodes: the world carries them, and their answers.
#[derive(Clone, Default)]
pub struct SimPeers(pub Outbox<Question>);

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

    fn forward(&self, _node: u64, _method: &str, _request: Vec<u8>, _timeout: Duration) -> Result<Vec<u8>, CallError> {
        Err(CallError::Unavailable("in the simulator nobody blocks".to_owned()))
    }

    fn forward_then(&self, node: u64, _method: &str, request: Vec<u8>, timeout: Duration, done: Callback<Vec<u8>>) {
        self.0.push([Question { node, wanted: Wanted::Proposal(request), timeout, done }]);
    }

    fn read_index(&self, node: u64, timeout: Duration, done: Callback<u64>) {
        let done = Box::new(move |answer: Result<Vec<u8>, CallError>| {
            let index = |bytes: Vec<u8>| <[u8; 8]>::try_from(bytes).map(u64::from_le_bytes);
            done(answer.and_then(|bytes| index(bytes).map_err(|_| CallError::Internal("no index".to_owned()))));
        });
        self.0.push([Question { node, wanted: Wanted::Index, timeout, done }]);
    }
}
