//! The driver's `Transport`: puts messages onto the peers' lanes, and snapshots into the hands of a thread. Never blocks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use raftgrid_driver::{Message, NodeId, Transport};
use raftgrid_telemetry::Registry;
use slog::{warn, Logger};

use crate::book::AddressBook;
use crate::dialer::Dialer;
use crate::hello::Identity;
use crate::lane::Lane;
use crate::limits;
use crate::link::Link;
use crate::metrics::{LinkMetrics, Metrics};
use crate::raft::RaftSeat;
use crate::snapshot_send::{send_snapshot, Report};
use crate::snapshots::SnapshotFiles;

/// Settings of a transport.
#[derive(Clone)]
pub struct TransportConfig {
    /// This replica.
    pub identity: Identity,
    /// Bytes per second of one snapshot on its way out; 0: no limit.
    pub snapshot_bytes_per_second: u64,
    /// A snapshot that takes longer is reported as failed.
    pub snapshot_timeout: Duration,
    /// The process's logger.
    pub logger: Logger,
}

struct Peer {
    lane: Arc<Lane>,
    metrics: LinkMetrics,
    dropped_told: Option<Instant>,
}

/// Sends to the other replicas.
pub struct PeerTransport {
    dialer: Dialer,
    config: TransportConfig,
    book: Arc<AddressBook>,
    seat: RaftSeat,
    snapshots: Arc<dyn SnapshotFiles>,
    peers: BTreeMap<NodeId, Peer>,
    sending: Arc<AtomicUsize>,
    metrics: Metrics,
}

impl PeerTransport {
    /// Connects to nobody yet. Reports go to whoever sits in `seat`.
    pub fn new(
        dialer: impl Into<Dialer>,
        config: TransportConfig,
        book: Arc<AddressBook>,
        seat: RaftSeat,
        snapshots: Arc<dyn SnapshotFiles>,
    ) -> Self {
        let sending = Arc::new(AtomicUsize::new(0));
        let (dialer, peers) = (dialer.into(), BTreeMap::new());
        Self { dialer, config, book, seat, snapshots, peers, sending, metrics: Metrics::default() }
    }

    /// Counts in `registry`.
    pub fn with_metrics(mut self, registry: &Registry) -> Self {
        self.metrics = Metrics::new(registry);
        self
    }

    /// The peer's outbox; its thread is started with the first message.
    fn peer(&mut self, to: NodeId) -> Option<&mut Peer> {
        if !self.peers.contains_key(&to) {
            if self.peers.len() >= limits::PEERS_MAX {
                return None;
            }
            let metrics = self.metrics.link(to);
            let lane = Lane::new(to, self.seat.clone(), metrics.clone());
            let link = Link {
                dialer: self.dialer.clone(),
                identity: self.config.identity.clone(),
                to,
                book: self.book.clone(),
                seat: self.seat.clone(),
                lane: lane.clone(),
                logger: self.config.logger.clone(),
            };
            std::thread::Builder::new().name(format!("peer-{to}")).spawn(move || link.run()).ok()?;
            self.peers.insert(to, Peer { lane, metrics, dropped_told: None });
        }
        self.peers.get_mut(&to)
    }

    fn dropped(&mut self, to: NodeId) {
        let seat = self.seat.clone();
        let Some(peer) = self.peers.get_mut(&to) else { return seat.unreachable(to) };
        peer.metrics.dropped.inc();
        if peer.dropped_told.is_none_or(|told| told.elapsed() >= limits::UNREACHABLE_PAUSE) {
            peer.dropped_told = Some(Instant::now());
            seat.unreachable(to);
        }
    }

    fn snapshot(&self, message: Message) {
        // Whatever happens from here on, dropping the report tells raft that it failed.
        let report = Report::new(self.seat.clone(), message.to, self.sending.clone());
        if self.sending.fetch_add(1, Ordering::AcqRel) >= limits::SNAPSHOTS_SENT_MAX {
            warn!(self.config.logger, "snapshot not sent, others are under way"; "to" => message.to);
            return;
        }
        if self.seat.barred(message.to) {
            return;
        }
        let (dialer, config, book) = (self.dialer.clone(), self.config.clone(), self.book.clone());
        let files = self.snapshots.clone();
        let metrics = self.metrics.clone();
        let body = move || send_snapshot(&dialer, &config, &book, &*files, message, &metrics, report);
        if let Err(error) = std::thread::Builder::new().name("peer-snapshot".to_owned()).spawn(body) {
            warn!(self.config.logger, "failed to start a thread for a snapshot"; "error" => %error);
        }
    }
}

impl Transport for PeerTransport {
    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            if message.snapshot.is_some() {
                self.snapshot(message);
                continue;
            }
            let to = message.to;
            let taken = self.peer(to).is_some_and(|peer| peer.lane.send(message.data));
            if !taken {
                self.dropped(to);
            }
        }
    }
}

impl Drop for PeerTransport {
    fn drop(&mut self) {
        self.peers.values().for_each(|peer| peer.lane.close());
    }
}
