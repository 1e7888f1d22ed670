//! A node: its disk and clocks, which outlive it, and its process, which does not.

use std::collections::BTreeMap;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raftgrid_driver::{LogStore, Message};
use raftgrid_replica::ports::{CallError, Callback};
use raftgrid_replica::{ReplicaByHand, ReplicaConfig, SpareLimits};
use raftgrid_store::{BootMode, LogReaderImpl, PeerStores, SnapshotShelf, Store};
use slog::Logger;

use crate::calls::Answers;
use crate::check::log::LogWatch;
use crate::clock::SimClock;
use crate::disk::{Damage, SimDisk};
use crate::jobs::Jobs;
use crate::plan::Plan;
use crate::ports::{Outbox, Question, SimPeers, SimTransport};
use crate::rng::Rng;

/// Where a node's data is on its disk.
const DATA: &str = "/data";
/// Where its fragments are.
pub const BLOBS: &str = "/blobs";

/// The answer to a question: of whom, in which of his lives, its number, and what he is told.
pub type Told = (u64, u64, u64, Result<Vec<u8>, CallError>);

/// Threads of a process, each of which may stand still on its own.
pub const THREADS: usize = 6;

/// Which turns are on their way; a turn is ordered once.
#[derive(Debug, Default)]
pub struct Ordered {
    /// Of the raft side.
    pub raft: bool,
    /// Of the apply side.
    pub apply: bool,
    /// The begin or the end of an fsync.
    pub sync: bool,
    /// Of the leader's loops.
    pub leader: bool,
    /// Of a pool.
    pub pool: bool,
    /// Of the janitor.
    pub janitor: bool,
    /// When the timer is looked at.
    pub timer_us: Option<u64>,
    /// When the leader's loops are looked at.
    pub leader_us: Option<u64>,
}

/// A running process.
pub struct Live {
    /// Jobs that wait for others. The first to be dropped: what they work on must still be there.
    pub jobs: Jobs,
    /// The replica.
    pub hand: ReplicaByHand,
    /// Raft messages that it sent.
    pub messages: Outbox<Message>,
    /// Calls that it made to other nodes.
    pub questions: Outbox<Question>,
    /// Who waits for the answer to one, by number.
    pub asked: BTreeMap<u64, Callback<Vec<u8>>>,
    /// Questions so far.
    pub questions_asked: u64,
    /// Its answers to those of others.
    pub told: Outbox<Told>,
    /// Calls that it answered.
    pub answers: Answers,
    /// Its snapshots.
    pub shelf: SnapshotShelf<SimDisk>,
    /// The stores it knows.
    pub peer_stores: PeerStores<SimDisk>,
    /// Its own.
    pub store_uuid: [u8; 16],
    /// Its log, for the checkers.
    pub log: LogReaderImpl<SimDisk>,
    /// What the checkers saw of it.
    pub watch: LogWatch,
    /// Turns that are ordered.
    pub ordered: Ordered,
    /// Status (term, role, leader, commit, first, last, its term) as judged last.
    pub seen: [u64; 7],
    /// Its machine loses power around the end of the next fsync.
    pub doomed: bool,
    /// The tables may stand elsewhere than when they were judged last.
    pub moved: bool,
}

/// A machine.
pub struct SimNode {
    /// Its id.
    pub id: u64,
    /// Its disk.
    pub disk: SimDisk,
    /// Its clocks.
    pub clock: Arc<SimClock>,
    /// How it starts.
    pub mode: BootMode,
    /// Its process, if it runs.
    pub live: Option<Live>,
    /// Counts its processes.
    pub life: u64,
    /// It stands still until then.
    pub paused_until_us: u64,
    /// So does each of its threads.
    pub stalled_until_us: [u64; THREADS],
    /// Its disk was damaged on purpose: it may refuse to start.
    pub suspect: bool,
    /// It will not come back.
    pub gone: bool,
    /// A start is ordered.
    pub starting: bool,
    rng: Rng,
}

/// Why a start failed.
#[derive(Debug)]
pub struct NoStart(pub String);

impl SimNode {
    /// A machine with an empty disk.
    pub fn new(id: u64, mode: BootMode, plan: &Plan, rng: &mut Rng) -> Self {
        let drift = plan.drift_ppm;
        let ppm = i64::try_from(rng.below(2 * drift.unsigned_abs() + 1)).unwrap_or(0) - drift;
        let offset = i64::try_from(rng.below(20_000)).unwrap_or(0) - 10_000;
        Self {
            id,
            disk: SimDisk::new(rng.split()),
            clock: SimClock::new(ppm, offset),
            mode,
            live: None,
            life: 0,
            paused_until_us: 0,
            stalled_until_us: [0; THREADS],
            suspect: false,
            gone: false,
            starting: false,
            rng: rng.split(),
        }
    }

    /// Whether its process runs and does not stand still.
    pub fn is_up(&self, now_us: u64) -> bool {
        self.live.is_some() && self.paused_until_us <= now_us
    }

    /// Whether something is wrong with it, on purpose, that may end its process or keep it from starting.
    pub fn may_fail(&self) -> bool {
        self.suspect || self.disk.damage() != Damage::default() || self.disk.has_blown()
    }

    /// Starts its process.
    pub fn start(&mut self, plan: &Plan, logger: &Logger) -> Result<(), NoStart> {
        self.life += 1;
        let started = catch_unwind(AssertUnwindSafe(|| self.open(plan, logger)));
        match started {
            Ok(Ok(live)) => {
                self.live = Some(live);
                Ok(())
            }
            Ok(Err(cause)) => Err(NoStart(cause)),
            Err(_) => Err(NoStart(crate::panics::last())),
        }
    }

    fn open(&mut self, plan: &Plan, logger: &Logger) -> Result<Live, String> {
        let disk = self.disk.reopened();
        let booted = Store::open(disk, Path::new(DATA), self.mode.clone()).map_err(|error| error.to_string())?;
        let shelf = booted.snapshots.clone();
        let peer_stores = booted.peer_stores.clone();
        let store_uuid = *booted.identity.store_uuid.as_bytes();
        let log = booted.log.reader();
        let transport = SimTransport::default();
        let peers = SimPeers::default();
        let config = self.config(plan);
        let hand = ReplicaByHand::start(
            config,
            booted,
            Arc::new(self.disk.reopened()),
            transport.clone(),
            Arc::new(peers.clone()),
            self.clock.clone(),
            logger,
        )
        .map_err(|error| error.to_string())?;
        Ok(Live {
            jobs: Jobs::default(),
            hand,
            messages: transport.0,
            questions: peers.0,
            asked: BTreeMap::new(),
            questions_asked: 0,
            told: Outbox::default(),
            answers: Answers::default(),
            shelf,
            peer_stores,
            store_uuid,
            log,
            watch: LogWatch::default(),
            ordered: Ordered::default(),
            seen: [0; 7],
            doomed: false,
            moved: true,
        })
    }

    fn config(&mut self, plan: &Plan) -> ReplicaConfig {
        let driver = raftgrid_driver::Config {
            tick_ms: plan.tick_ms,
            election_timeout_ms: plan.tick_ms * plan.election_ticks,
            timeout_seed: self.rng.next(),
            apply_lag_max: 1_000,
            log_tail_entries: plan.log_tail_entries,
            flush_after_entries: plan.flush_after_entries,
            snapshot_interval_ms: plan.snapshot_interval_ms,
            snapshot_threshold_entries: 32,
            snapshot_report_ms: 10_000,
            proposal_deadline_ms: 5_000,
            client_inbox_max: plan.inbox_max,
            peer_inbox_max: plan.inbox_max,
            boot_nonce: Some(self.rng.next()),
            ..raftgrid_driver::Config::new(self.id)
        };
        let control = raftgrid_control::Config { jitter_seed: self.rng.next(), ..raftgrid_control::Config::local() };
        let disk = self.disk.reopened();
        ReplicaConfig {
            driver,
            control,
            blob_dir: PathBuf::from(BLOBS),
            // Everything here is small.
            spare: SpareLimits { file_bytes_min: 1, bytes_max: 1 << 16 },
            members: Vec::new(),
            client_address: format!("node-{}", self.id),
            room: Box::new(move || {
                let free =
                    raftgrid_store::Disk::free_bytes(&disk, Path::new(DATA)).map_err(|error| error.to_string())?;
                Ok((free, free < raftgrid_store::limits::LOW_WATER_BYTES))
            }),
            blob: raftgrid_replica::BlobSettings::default(),
            // Simulated peers open no streams, so nobody says his version: these groups stay at the first.
            machine_version: raftgrid_manifest::MACHINE_VERSION,
        }
    }
}
