//! The mirror's thread: looks for what was committed while this replica leads, and sends it. Nobody waits for it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use raftgrid_telemetry::Registry;
use slog::{info, warn, Logger};
use tokio::sync::watch;

use crate::address::Address;
use crate::backlog::{backoff_ms, Backlog};
use crate::copy::{Copied, Copier, Pace};
use crate::failure::Failure;
use crate::io::{Io, Loop};
use crate::keys::Keys;
use crate::limits::{ASK_AGAIN_MS, LOOK_MS, REMIND_MS, ROWS_AT_ONCE};
use crate::metrics::Metrics;
use crate::source::{Artifact, Seen, Source};
use crate::store::{Reach, Store};

/// What a mirror is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the copies go.
    pub address: Address,
    /// How a bucket is reached.
    pub reach: Reach,
    /// Folder of this cluster below the address.
    pub cluster_id: String,
    /// This replica.
    pub node: u64,
    /// Bytes a second; 0: no limit.
    pub bytes_per_second: u64,
    /// Kinds of artifacts that are not mirrored.
    pub without_kinds: Vec<String>,
}

/// Why a mirror did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Of a thread or its event loop.
    #[error("failed to start the mirror's threads: {0}")]
    Thread(#[from] std::io::Error),
}

/// A running mirror. Dropping it ends its threads; an upload under way is thrown away by the next leader.
pub struct Mirror {
    stop: Arc<watch::Sender<bool>>,
    thread: Option<JoinHandle<()>>,
    /// Ends last: the thread waits by it.
    _events: Loop,
}

impl Mirror {
    /// Starts the threads. The destination is opened when this replica leads; that it cannot be is a warning, and is tried again.
    pub fn start(
        config: Config,
        source: Box<dyn Source>,
        registry: &Registry,
        logger: &Logger,
    ) -> Result<Self, StartError> {
        let (stop, stopped) = watch::channel(false);
        let (events, io) = Loop::start(stopped)?;
        let prefix = match &config.address {
            Address::S3 { prefix, .. } => prefix.clone(),
            Address::Directory(_) => Vec::new(),
        };
        let mut worker = Worker {
            keys: Keys::new(&prefix, &config.cluster_id),
            pace: Pace::new(config.bytes_per_second),
            metrics: Metrics::new(registry),
            logger: logger.clone(),
            begun: Instant::now(),
            term: None,
            config,
            source,
            io,
        };
        let body = move || worker.run();
        let thread = std::thread::Builder::new().name("mirror".to_owned()).spawn(body)?;
        Ok(Self { stop: Arc::new(stop), thread: Some(thread), _events: events })
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

/// What is known while this replica leads.
struct Term {
    store: Option<Store>,
    backlog: Backlog,
    /// When the destination is asked again what it has.
    ask_again_ms: u64,
    /// Failures of the store without a success between them.
    failures: u32,
    /// No further try before this.
    retry_ms: u64,
    /// When the log is to say again that it fails.
    remind_ms: u64,
}

struct Worker {
    config: Config,
    source: Box<dyn Source>,
    keys: Keys,
    io: Io,
    pace: Pace,
    metrics: Metrics,
    logger: Logger,
    begun: Instant,
    term: Option<Term>,
}

impl Worker {
    fn run(&mut self) {
        while self.io.pause(Duration::from_millis(LOOK_MS)) {
            let mut term = match self.term.take().filter(|_| self.source.leads()) {
                Some(term) => term,
                None if self.source.leads() => self.new_term(),
                None => {
                    self.idle();
                    continue;
                }
            };
            self.turn(&mut term);
            self.term = Some(term);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn new_term(&self) -> Term {
        let backlog = Backlog::default();
        let ask_again_ms = self.now_ms() + ASK_AGAIN_MS;
        Term { store: None, backlog, ask_again_ms, failures: 0, retry_ms: 0, remind_ms: 0 }
    }

    fn idle(&self) {
        self.metrics.pending((0, 0));
        self.metrics.failing(false);
    }

    /// Sends until nothing is due, or the store fails.
    fn turn(&mut self, term: &mut Term) {
        if self.now_ms() >= term.ask_again_ms {
            *term = self.new_term();
        }
        let mut looked_ms = None;
        loop {
            let now = self.now_ms();
            if looked_ms.is_none_or(|at| now >= at + LOOK_MS) {
                self.look(&mut term.backlog);
                looked_ms = Some(now);
            }
            self.metrics.pending(term.backlog.pending());
            if now < term.retry_ms || !self.source.leads() || self.io.is_over() {
                return;
            }
            let step = match self.open(term) {
                Ok(()) => match term.backlog.next(now) {
                    Some(artifact_id) => self.artifact(term, artifact_id),
                    None => {
                        if term.backlog.pending().0 == 0 {
                            self.went_well(term);
                        }
                        return;
                    }
                },
                Err(failure) => Err(failure),
            };
            match step {
                Ok(()) => self.went_well(term),
                Err(Failure::Over) => return,
                Err(failure) => self.went_wrong(term, &failure),
            }
        }
    }

    /// What was committed since the last look.
    fn look(&self, backlog: &mut Backlog) {
        let wanted = |seen: &Seen| match seen {
            Seen::Committed(artifact) => !self.config.without_kinds.contains(&artifact.kind),
            Seen::Begun | Seen::Gone => false,
        };
        for artifact_id in backlog.begun() {
            match self.source.row(artifact_id) {
                Ok(seen) => backlog.saw(artifact_id, &seen, wanted(&seen)),
                Err(cause) => return self.unread(&cause),
            }
        }
        loop {
            let rows = match self.source.rows(backlog.next_id(), ROWS_AT_ONCE) {
                Ok(rows) => rows,
                Err(cause) => return self.unread(&cause),
            };
            let last = rows.len() < ROWS_AT_ONCE;
            for (artifact_id, seen) in rows {
                backlog.saw(artifact_id, &seen, wanted(&seen));
            }
            if last {
                return;
            }
        }
    }

    fn unread(&self, cause: &str) {
        warn!(self.logger, "rows of artifacts not read for the mirror"; "cause" => cause);
    }

    /// Opens the destination, and clears away what earlier leaders left half done.
    fn open(&self, term: &mut Term) -> Result<(), Failure> {
        if term.store.is_some() {
            return Ok(());
        }
        let store = Store::open(&self.config.address, &self.config.reach, self.io.clone())?;
        let cleared = store.clear_leftovers(&self.keys)?;
        self.metrics.aborted.add(cleared);
        if cleared > 0 {
            info!(self.logger, "half uploads of earlier leaders thrown away"; "uploads" => cleared);
        }
        term.store = Some(store);
        Ok(())
    }

    /// One artifact's turn.
    fn artifact(&mut self, term: &mut Term, artifact_id: u64) -> Result<(), Failure> {
        let Some(store) = &term.store else { return Ok(()) };
        let artifact = match self.source.row(artifact_id) {
            Ok(Seen::Committed(artifact)) => artifact,
            Ok(Seen::Begun | Seen::Gone) => return self.gone(term, artifact_id),
            Err(cause) => return self.failed(term, artifact_id, Failure::Artifact(cause)),
        };
        let mut copier = Copier {
            source: &*self.source,
            store,
            keys: &self.keys,
            node: self.config.node,
            io: &self.io,
            metrics: &self.metrics,
            pace: &mut self.pace,
        };
        match copier.copy(&artifact) {
            Ok(copied) => {
                self.copied(&artifact, copied);
                term.backlog.settled(artifact_id);
                Ok(())
            }
            Err(Failure::Over) => Err(Failure::Over),
            // Deleted while it was read: a job lets its older models go.
            Err(Failure::Artifact(_)) if matches!(self.source.row(artifact_id), Ok(Seen::Gone)) => {
                self.gone(term, artifact_id)
            }
            Err(failure) => self.failed(term, artifact_id, failure),
        }
    }

    fn gone(&self, term: &mut Term, artifact_id: u64) -> Result<(), Failure> {
        self.metrics.gone.inc();
        term.backlog.settled(artifact_id);
        Ok(())
    }

    fn copied(&self, artifact: &Artifact, copied: Copied) {
        match copied {
            Copied::Sent => self.metrics.sent.inc(),
            Copied::Found => self.metrics.found.inc(),
        }
        self.metrics.mirrored_bytes.add(artifact.total_bytes);
    }

    fn failed(&self, term: &mut Term, artifact_id: u64, failure: Failure) -> Result<(), Failure> {
        self.metrics.failed.inc();
        self.metrics.failed_bytes.add(term.backlog.failed(artifact_id, self.now_ms()));
        Err(failure)
    }

    fn went_well(&self, term: &mut Term) {
        self.metrics.failing(false);
        if term.failures > 0 {
            info!(self.logger, "artifacts are mirrored again"; "after_failures" => term.failures);
        }
        (term.failures, term.remind_ms) = (0, 0);
    }

    /// Said once, and again now and then: a store that is away for a day is no reason for a thousand lines.
    fn went_wrong(&self, term: &mut Term, failure: &Failure) {
        let now = self.now_ms();
        self.metrics.failing(true);
        term.failures = term.failures.saturating_add(1);
        if matches!(failure, Failure::Store(_)) {
            // Opened again, it is cleared of what could not be thrown away now.
            term.store = None;
            term.retry_ms = now + backoff_ms(term.failures);
        }
        if now >= term.remind_ms {
            let (artifacts, bytes) = term.backlog.pending();
            warn!(self.logger, "artifacts are not mirrored, it is tried again"; "waiting" => artifacts,
                "waiting_bytes" => bytes, "cause" => %failure);
            term.remind_ms = now + REMIND_MS;
        }
    }
}
