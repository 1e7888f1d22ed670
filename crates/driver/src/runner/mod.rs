//! The core on threads: `raft` owns the core and the log, `raft-sync` only fsyncs, `apply` owns the state machine.
//!
//! Channels: two bounded inboxes (clients, peers; `try_send` only), and completions, which are read first and are bounded by
//! construction. No internal thread ever waits for room in another's queue. Only this folder knows a clock. What the threads
//! do between two waits is in the turns (`raft_turn`, `apply_turn`), which know none and can be run by hand (`manual`).
//!
//! A failed write or fsync, an entry that cannot be applied, and a panic on one of the threads end the process: a replica that
//! went on would acknowledge what it does not have.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam::channel;
use raftgrid_telemetry::Registry;
use slog::Logger;

use crate::core::{Core, CoreConfig};
use crate::error::StartError;
use crate::limits;
use crate::metrics::Metrics;
use crate::traits::{LogStore, Observer, StateMachine, Transport};
use crate::types::NodeId;
use crate::waiters::Waiters;

mod apply_thread;
mod apply_turn;
mod fatal;
mod handle;
mod inline_sync;
pub mod manual;
mod raft_thread;
mod raft_turn;
mod reply;
mod sync_thread;
mod told;

pub use fatal::Fatal;
pub use handle::{ChangeCallback, ProposeCallback, RaftHandle, ReadCallback, SnapshotCallback, TransferCallback};

use apply_turn::ApplyTurn;
use handle::{Completion, Shared};
use raft_turn::RaftTurn;
use sync_thread::SyncTurn;
use told::Told;

/// How a replica runs. `Config::new` gives the defaults; each field may be changed.
#[derive(Clone, Debug)]
pub struct Config {
    /// This replica.
    pub node: NodeId,
    /// Length of a tick, in milliseconds: the resolution of all times below.
    pub tick_ms: u64,
    /// Silence of a leader after which a follower campaigns, in milliseconds; the random spread reaches up to twice this.
    /// Heartbeats are sent every tenth of it.
    pub election_timeout_ms: u64,
    /// Spreads election timeouts.
    pub timeout_seed: u64,
    /// A leader refuses proposals while commit − applied is over this many entries.
    pub apply_lag_max: u64,
    /// Bytes of entries that wait for the apply thread; beyond it the thread reads them from the log itself.
    pub apply_queue_bytes_max: usize,
    /// Applied entries that stay in the log for slow followers.
    pub log_tail_entries: u64,
    /// A flush of the tables is asked for when applied − flushed exceeds this many entries.
    pub flush_after_entries: u64,
    /// Between two snapshots made for their own sake, in milliseconds; 0: none are.
    pub snapshot_interval_ms: u64,
    /// Such a snapshot is made only if this many entries were applied since the last.
    pub snapshot_threshold_entries: u64,
    /// After this long without a report, a snapshot sent to a follower counts as failed, in milliseconds.
    pub snapshot_report_ms: u64,
    /// How long a follower that gets no append may wait until it is told of a commit, in milliseconds; 0: it is told at once.
    pub commit_timeout_ms: u64,
    /// The leader promotes learners that are caught up.
    pub auto_promote: bool,
    /// A learner within this many entries of the commit index is caught up.
    pub promote_lag_entries: u64,
    /// After this long an undecided proposal is answered "unknown", in milliseconds.
    pub proposal_deadline_ms: u64,
    /// Inputs of clients that may wait for the raft thread.
    pub client_inbox_max: usize,
    /// Messages of peers that may wait for the raft thread.
    pub peer_inbox_max: usize,
    /// Another number at every start of a replica, so that contexts of reads are never used twice. None: drawn by the start; the simulator
    /// draws it from its seed.
    pub boot_nonce: Option<u64>,
    /// Ignores requests for votes for an election timeout after the last word of a leader, and after the start. Leases of any replica of the
    /// group stand on it, so it is on unless a test says otherwise.
    pub hold_votes: bool,
    /// How long a leader may answer reads without asking a quorum, counted from the begin of the last question; 0: never. See
    /// [`Config::lease_max_ms`].
    pub lease_ms: u64,
    /// Where the driver counts.
    pub metrics: Registry,
}

impl Config {
    /// Defaults for a local network: fails over about a second after a leader falls silent.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            tick_ms: 50,
            election_timeout_ms: 1000,
            timeout_seed: node,
            apply_lag_max: 100_000,
            apply_queue_bytes_max: 64 << 20,
            log_tail_entries: 10_000,
            flush_after_entries: 200_000,
            snapshot_interval_ms: 120_000,
            snapshot_threshold_entries: 8_192,
            snapshot_report_ms: 600_000,
            commit_timeout_ms: 2,
            auto_promote: true,
            promote_lag_entries: 64,
            proposal_deadline_ms: 30_000,
            client_inbox_max: limits::CLIENT_INBOX_MAX,
            peer_inbox_max: limits::PEER_INBOX_MAX,
            boot_nonce: None,
            hold_votes: true,
            lease_ms: 0,
            metrics: Registry::new(),
        }
    }

    /// The longest lease that is safe. A voter is patient for an election timeout, of which the tick under way may be over already, by its own
    /// clock; a fifth is left for clocks that run at different speeds. So the promise holds as long as no voter's clock gains more than a
    /// quarter on the leader's within one election timeout.
    pub fn lease_max_ms(&self) -> u64 {
        let ticks = self.election_timeout_ms.checked_div(self.tick_ms).unwrap_or(0);
        ticks.saturating_sub(1) * self.tick_ms * 4 / 5
    }

    fn to_core(&self) -> Result<CoreConfig, StartError> {
        if self.tick_ms == 0 {
            return Err(StartError::Config("tick_ms is 0".to_owned()));
        }
        if self.lease_ms > self.lease_max_ms() {
            return Err(StartError::Config(format!("a lease is at most {} ms", self.lease_max_ms())));
        }
        if self.client_inbox_max == 0 || self.peer_inbox_max == 0 {
            return Err(StartError::Config("an inbox has no room".to_owned()));
        }
        let election_ticks = self.election_timeout_ms / self.tick_ms;
        Ok(CoreConfig {
            node: self.node,
            election_ticks,
            heartbeat_ticks: (election_ticks / 10).max(1),
            timeout_seed: self.timeout_seed,
            hold_votes: self.hold_votes,
            boot_nonce: self.boot_nonce.unwrap_or_else(|| RandomState::new().build_hasher().finish()),
            apply_lag_max: self.apply_lag_max,
            log_tail_entries: self.log_tail_entries,
            snapshot_interval_ticks: self.snapshot_interval_ms.div_ceil(self.tick_ms),
            snapshot_threshold_entries: self.snapshot_threshold_entries,
            snapshot_report_ticks: self.snapshot_report_ms.div_ceil(self.tick_ms),
            lazy_commit: self.commit_timeout_ms > 0,
            auto_promote: self.auto_promote,
            promote_lag_entries: self.promote_lag_entries,
        })
    }
}

/// The three sides of a replica and the channels between them: what threads, or whoever runs it by hand, take turns with.
struct Parts<L: LogStore, M, T, O> {
    handle: RaftHandle,
    raft: RaftTurn<L, T, O>,
    sync: SyncTurn<L::Syncer>,
    apply: ApplyTurn<M, L::Reader>,
    shared: Arc<Shared>,
    completions: channel::Sender<Completion>,
}

impl<L: LogStore, M: StateMachine, T: Transport, O: Observer> Parts<L, M, T, O> {
    fn new(
        config: &Config,
        log: L,
        machine: M,
        transport: T,
        observer: O,
        logger: &Logger,
    ) -> Result<Self, StartError> {
        let core_config = config.to_core()?;
        let (reader, syncer) = (log.reader(), log.syncer());
        let core = Core::new(core_config, log, logger.clone())?;
        let applier = core.applier();
        let (tables, opened) = (machine.applied().0, applier.applied());
        if tables != opened {
            return Err(StartError::Inconsistent(format!(
                "the tables stand at {tables}, the log was opened for {opened}"
            )));
        }
        let (clients, clients_inbox) = channel::bounded(config.client_inbox_max);
        let (peers, peers_inbox) = channel::bounded(config.peer_inbox_max);
        let (completions, completions_inbox) = channel::unbounded();
        let (marks, marks_inbox) = channel::unbounded();
        let (jobs, jobs_inbox) = channel::unbounded();
        let metrics = Metrics::new(&config.metrics);
        let shared = Arc::new(Shared::new(core.status(), clients_inbox.clone(), metrics.clone()));
        let waiters = Arc::new(Mutex::new(Waiters::default()));
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::new(Told::default());
        let handle = RaftHandle::new(Arc::clone(&shared), clients, peers, completions.clone());
        let raft = RaftTurn {
            core,
            transport,
            observer,
            shared: Arc::clone(&shared),
            inbox: raft_turn::Inboxes { completions: completions_inbox, peers: peers_inbox, clients: clients_inbox },
            marks,
            may_sync: false,
            sync_due: None,
            handed: 0,
            synced: 0,
            jobs,
            waiters: Arc::clone(&waiters),
            queued_bytes: Arc::clone(&queued_bytes),
            stop: Arc::clone(&stop),
            told: Arc::clone(&told),
            pending: raft_turn::Pending::default(),
            config: config.clone(),
            ticks: 0,
            metrics: metrics.clone(),
            dropped: BTreeMap::new(),
        };
        let apply = ApplyTurn {
            machine,
            reader,
            applier,
            jobs: jobs_inbox,
            completions: completions.clone(),
            told,
            waiters,
            queued_bytes,
            stop,
            flush_after_entries: config.flush_after_entries,
            flush_asked_at: 0,
            flushed_told: 0,
            held: VecDeque::new(),
            metrics,
        };
        let syncer = Arc::new(Mutex::new(syncer));
        let sync = SyncTurn { syncer, marks: marks_inbox, completions: completions.clone() };
        Ok(Self { handle, raft, sync, apply, shared, completions })
    }
}

/// The threads of a running replica. Dropping it stops them.
pub struct Runner {
    shared: Arc<Shared>,
    completions: channel::Sender<Completion>,
    threads: Vec<JoinHandle<()>>,
}

impl Runner {
    /// Starts the three threads. `machine` must stand where `log` says that it stands.
    pub fn start<L, M, T, O>(
        config: Config,
        log: L,
        machine: M,
        transport: T,
        observer: O,
        logger: Logger,
    ) -> Result<(RaftHandle, Runner), StartError>
    where
        L: LogStore,
        M: StateMachine,
        T: Transport,
        O: Observer,
    {
        let Parts { handle, raft, sync, apply, shared, completions } =
            Parts::new(&config, log, machine, transport, observer, &logger)?;
        let (fsync_seconds, apply_seconds) =
            (shared.metrics.fsync_seconds.clone(), shared.metrics.apply_seconds.clone());
        let sync_here = sync.clone();
        let raft = raft_thread::RaftThread::new(raft, sync_here, fsync_seconds.clone(), logger.clone());
        let sync = sync_thread::SyncThread { turn: sync, fsync_seconds, logger: logger.clone() };
        let apply = apply_thread::ApplyThread { turn: apply, apply_seconds, logger: logger.clone() };
        let mut runner = Runner { shared, completions, threads: Vec::new() };
        runner.threads.push(spawn("raft", &logger, move || raft.run())?);
        runner.threads.push(spawn("raft-sync", &logger, move || sync.run())?);
        runner.threads.push(spawn("apply", &logger, move || apply.run())?);
        Ok((handle, runner))
    }

    /// Stops and joins the threads. Who still waits is answered "unknown" (or "stopped", if nothing was tried).
    pub fn stop(mut self) {
        self.stop_threads();
    }

    fn stop_threads(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // The raft thread is gone already if this fails.
        let _ = self.completions.send(Completion::Stop);
        for thread in self.threads.drain(..) {
            // A thread never panics past `spawn`.
            let _ = thread.join();
        }
        self.shared.stop();
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

/// A panic on one of our threads would leave a replica that answers and does nothing: it ends the process instead.
fn spawn(name: &str, logger: &Logger, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    let logger = logger.clone();
    let body = move || {
        if std::panic::catch_unwind(AssertUnwindSafe(run)).is_err() {
            die(&logger, "a thread of the raft driver panicked");
        }
    };
    Ok(std::thread::Builder::new().name(name.to_owned()).spawn(body)?)
}

/// Ends the process at once. Also written to standard error, since an asynchronous logger may not get to it.
fn die(logger: &Logger, cause: &str) -> ! {
    slog::crit!(logger, "the process must end"; "error" => cause);
    eprintln!("the process must end: {cause}");
    std::process::abort();
}
