//! What the rest of the process holds of a running replica.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, TrySendError};

use super::reply::Reply;
use crate::error::{ChangeError, ProposeDone, ProposeError, ReadError, SnapshotError, TransferError};
use crate::limits::PAYLOAD_BYTES_MAX;
use crate::metrics::Metrics;
use crate::types::{Index, MembershipChange, Message, NodeId, Snapshot, SnapshotMeta, Status};

/// Told what became of a proposal. Called once, on a thread of the driver: it must not block or panic.
pub type ProposeCallback = Box<dyn FnOnce(Result<ProposeDone, ProposeError>) + Send>;
/// Told that the state machine here covers everything that was acknowledged before the read was asked for.
pub type ReadCallback = Box<dyn FnOnce(Result<Index, ReadError>) + Send>;
/// Told the index at which the membership changed.
pub type ChangeCallback = Box<dyn FnOnce(Result<Index, ChangeError>) + Send>;
/// Told who leads now.
pub type TransferCallback = Box<dyn FnOnce(Result<NodeId, TransferError>) + Send>;
/// Told what the snapshot stands for.
pub type SnapshotCallback = Box<dyn FnOnce(Result<SnapshotMeta, SnapshotError>) + Send>;

pub(super) type ProposeReply = Reply<Result<ProposeDone, ProposeError>>;
pub(super) type ReadReply = Reply<Result<Index, ReadError>>;
pub(super) type ChangeReply = Reply<Result<Index, ChangeError>>;
pub(super) type TransferReply = Reply<Result<NodeId, TransferError>>;
pub(super) type SnapshotReply = Reply<Result<SnapshotMeta, SnapshotError>>;

/// Who waits for an entry.
pub(super) enum Waiter {
    Propose(ProposeReply),
    Change(ChangeReply),
}

pub(super) enum ClientInput {
    Propose(Bytes, ProposeReply),
    Read(ReadReply),
    Change(MembershipChange, Bytes, ChangeReply),
    Transfer(Option<NodeId>, TransferReply),
    SnapshotNow(SnapshotReply),
}

pub(super) enum PeerInput {
    Step(Message),
    Unreachable(NodeId),
}

/// Never dropped, and few: each answers something that the raft thread asked for, or is told about once a second at most.
pub(super) enum Completion {
    Synced(u64),
    /// The apply side has told something that is waited for (`Told`).
    Told,
    SnapshotBuilt(Result<Snapshot, String>),
    SnapshotSent(NodeId, bool),
    LowRoom(bool),
    Stop,
}

pub(super) struct Shared {
    pub(super) stopped: AtomicBool,
    /// The other end of the clients' inbox: a bounded channel keeps what nobody receives any more, callbacks included.
    clients_inbox: Receiver<ClientInput>,
    status: Mutex<Arc<Status>>,
    peer_messages_dropped: AtomicU64,
    pub(super) metrics: Metrics,
}

impl Shared {
    pub(super) fn new(status: Status, clients_inbox: Receiver<ClientInput>, metrics: Metrics) -> Self {
        let status = Mutex::new(Arc::new(status));
        let (stopped, peer_messages_dropped) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { stopped, clients_inbox, status, peer_messages_dropped, metrics }
    }

    /// From now on every call is answered "stopped", and so is what waits in the inbox.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.abandon_inbox();
    }

    /// After the stop: drops what is in the inbox, and so calls its callbacks.
    pub(super) fn abandon_inbox(&self) {
        self.clients_inbox.try_iter().for_each(drop);
    }

    pub(super) fn set_status(&self, status: Status) -> Arc<Status> {
        let status = Arc::new(status);
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&status);
        status
    }
}

/// A running replica: cheap to clone, usable from any thread. No call blocks.
#[derive(Clone)]
pub struct RaftHandle {
    shared: Arc<Shared>,
    clients: Sender<ClientInput>,
    peers: Sender<PeerInput>,
    completions: Sender<Completion>,
}

impl RaftHandle {
    pub(super) fn new(
        shared: Arc<Shared>,
        clients: Sender<ClientInput>,
        peers: Sender<PeerInput>,
        completions: Sender<Completion>,
    ) -> Self {
        Self { shared, clients, peers, completions }
    }

    /// Proposes a payload of at most 256 KiB. The callback has the state machine's reply, or why there is none.
    pub fn propose(&self, payload: Bytes, callback: ProposeCallback) {
        let reply = Reply::new(callback, Err(ProposeError::Stopped));
        if payload.len() > PAYLOAD_BYTES_MAX {
            return reply.call(Err(ProposeError::TooLarge));
        }
        if let Some(ClientInput::Propose(_, reply)) = self.send(ClientInput::Propose(payload, reply)) {
            reply.call(Err(ProposeError::Busy));
        }
    }

    /// A linearizable read (ReadIndex), on the leader only. The callback comes when the state machine here has applied
    /// everything that was acknowledged before this call; what is read after it is at least as new.
    pub fn read(&self, callback: ReadCallback) {
        let reply = Reply::new(callback, Err(ReadError::Stopped));
        if let Some(ClientInput::Read(reply)) = self.send(ClientInput::Read(reply)) {
            reply.call(Err(ReadError::Busy));
        }
    }

    /// Changes the membership; `context` reaches `StateMachine::apply_membership` with the change. The callback comes when the
    /// change is applied here.
    pub fn change_membership(&self, change: MembershipChange, context: Bytes, callback: ChangeCallback) {
        let reply = Reply::new(callback, Err(ChangeError::Stopped));
        if let Some(ClientInput::Change(_, _, reply)) = self.send(ClientInput::Change(change, context, reply)) {
            reply.call(Err(ChangeError::Busy));
        }
    }

    /// Hands leadership to `to`, or to the voter that is furthest. The callback comes when somebody else leads, or in time.
    pub fn transfer_leadership(&self, to: Option<NodeId>, callback: TransferCallback) {
        let reply = Reply::new(callback, Err(TransferError::Stopped));
        if let Some(ClientInput::Transfer(_, reply)) = self.send(ClientInput::Transfer(to, reply)) {
            reply.call(Err(TransferError::Refused { reason: "this replica is busy; try again later".to_owned() }));
        }
    }

    /// Makes a snapshot of what is applied by now.
    pub fn snapshot_now(&self, callback: SnapshotCallback) {
        let reply = Reply::new(callback, Err(SnapshotError::Stopped));
        if let Some(ClientInput::SnapshotNow(reply)) = self.send(ClientInput::SnapshotNow(reply)) {
            reply.call(Err(SnapshotError::Busy));
        }
    }

    /// A message of a peer. Dropped when the inbox is full: raft sends again. A message with a snapshot is stepped when its
    /// files are staged, durable and verified, with `message.snapshot` naming them.
    pub fn step(&self, message: Message) {
        self.peer(PeerInput::Step(message));
    }

    /// The last message to `node` did not get through.
    pub fn unreachable(&self, node: NodeId) {
        self.peer(PeerInput::Unreachable(node));
    }

    /// How the sending of a snapshot ended. Must be told for each, once, the time-out included.
    pub fn snapshot_sent(&self, to: NodeId, ok: bool) {
        // After the stop nobody wants to know.
        let _ = self.completions.send(Completion::SnapshotSent(to, ok));
    }

    /// Whether the disk is almost full; told when it changes. A follower then takes no appends but the smallest.
    pub fn set_low_room(&self, low: bool) {
        // After the stop nothing is written any more.
        let _ = self.completions.send(Completion::LowRoom(low));
    }

    /// The replica's view of its group, as of the raft thread's last turn.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.shared.status.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Messages of peers that found the inbox full.
    pub fn peer_messages_dropped(&self) -> u64 {
        self.shared.peer_messages_dropped.load(Ordering::Relaxed)
    }

    /// Turns that the raft thread has taken; it takes one each tick at least.
    pub fn turns(&self) -> u64 {
        self.shared.metrics.turn_seconds.count()
    }

    /// Inputs that wait for the raft thread: of clients, of peers.
    pub fn queued(&self) -> (usize, usize) {
        (self.clients.len(), self.peers.len())
    }

    /// Gives the input back when the inbox is full. When the replica has stopped it is dropped, and its callback says so.
    fn send(&self, input: ClientInput) -> Option<ClientInput> {
        if self.shared.stopped.load(Ordering::SeqCst) {
            return None;
        }
        match self.clients.try_send(input) {
            Ok(()) => {
                // Either this sees the stop, or the stop comes later and sees this input.
                if self.shared.stopped.load(Ordering::SeqCst) {
                    self.shared.abandon_inbox();
                }
                None
            }
            Err(TrySendError::Full(input)) => {
                self.shared.metrics.client_inbox_full.inc();
                Some(input)
            }
            Err(TrySendError::Disconnected(_)) => None,
        }
    }

    fn peer(&self, input: PeerInput) {
        if self.peers.try_send(input).is_err() {
            self.shared.peer_messages_dropped.fetch_add(1, Ordering::Relaxed);
            self.shared.metrics.peer_inbox_full.inc();
        }
    }
}
