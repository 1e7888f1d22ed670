//! What a replica needs of its surroundings: a transport and peers that only write down what is to be sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use raftgrid_driver::{Message, Transport};
use raftgrid_replica::ports::{Bytes, CallError, Callback, Download, Peers};
use raftgrid_replica::Replica;

use crate::hands;

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

/// All bytes of a download, verified.
pub fn all_of(data: &mut dyn Download) -> Result<Vec<u8>, CallError> {
    let mut bytes = vec![0; usize::try_from(data.total_bytes()).unwrap_or(0)];
    let got = data.read_at(0, &mut bytes)?;
    if got == bytes.len() {
        Ok(bytes)
    } else {
        Err(CallError::Internal(format!("{got} bytes instead of {}", bytes.len())))
    }
}

/// Takes a fragment as `peer` does: durable when it is told.
pub fn take_fragment(
    replica: &Replica,
    (artifact_id, fragment): (u64, u32),
    digest: [u8; 32],
    bytes: &[u8],
) -> Result<Vec<u8>, CallError> {
    let mut sink = replica.fragment_sink(artifact_id, fragment, bytes.len() as u64, digest)?;
    sink.write(bytes)?;
    sink.finish().map(|()| Vec::new())
}

/// Gives a fragment that is here.
pub fn give_fragment(replica: &Replica, artifact_id: u64, fragment: u32) -> Result<Vec<u8>, CallError> {
    all_of(replica.open_fragment(artifact_id, fragment)?.as_mut())
}

/// What a node asks of another.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// A read index; the answer is eight bytes, little-endian.
    Index,
    /// That it proposes a batch.
    Proposal(Vec<u8>),
    /// That it keeps a fragment, durable when it answers.
    Put {
        /// Of this artifact.
        artifact_id: u64,
        /// Under this number.
        fragment: u32,
        /// SHA-256 of the bytes.
        digest: [u8; 32],
        /// All of it.
        bytes: Vec<u8>,
    },
    /// A fragment; the answer is its bytes.
    Get {
        /// Of this artifact.
        artifact_id: u64,
        /// Under this number.
        fragment: u32,
    },
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

/// Where an answer appears.
type Slot = Arc<Mutex<Option<Result<Vec<u8>, CallError>>>>;

/// How long a peer is waited for that is to take or to give a fragment.
const FRAGMENT_WAIT: Duration = Duration::from_millis(1_500);

impl SimPeers {
    /// Asks, and lets others run until there is an answer: only a job may.
    fn ask(&self, node: u64, wanted: Wanted) -> Result<Vec<u8>, CallError> {
        let answer = Slot::default();
        let (told, there) = (Arc::clone(&answer), Arc::clone(&answer));
        let done = Box::new(move |answer| *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer));
        self.0.push([Question { node, wanted, timeout: FRAGMENT_WAIT, done }]);
        let is_there = move || there.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let waited = hands::stand_by(Box::new(is_there), 2 * FRAGMENT_WAIT);
        assert!(waited, "only jobs carry fragments");
        let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        answer.unwrap_or(Err(CallError::Unknown)).map_err(|error| match error {
            // The stream broke, or nobody answers.
            CallError::Unknown => CallError::Unavailable("the peer is silent".to_owned()),
            other => other,
        })
    }
}

impl Peers for SimPeers {
    fn put_fragment(
        &self,
        node: u64,
        artifact_id: u64,
        fragment: u32,
        digest: [u8; 32],
        data: &mut dyn Download,
    ) -> Result<(), CallError> {
        let bytes = all_of(data)?;
        self.ask(node, Wanted::Put { artifact_id, fragment, digest, bytes }).map(drop)
    }

    fn get_fragment(
        &self,
        node: u64,
        artifact_id: u64,
        fragment: u32,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        sink(&self.ask(node, Wanted::Get { artifact_id, fragment })?)
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
