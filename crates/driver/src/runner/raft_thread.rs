//! Thread `raft`: owns the core and the log. It waits for an input or the clock, and takes turns. Ticks that were missed collapse into one.

use std::time::{Duration, Instant};

use crossbeam::select;
use raftgrid_telemetry::Histogram;
use slog::Logger;

use super::die;
use super::inline_sync::InlineSync;
use super::raft_turn::RaftTurn;
use super::sync_thread::SyncTurn;
use crate::traits::{LogStore, Observer, SyncMark, Transport};

pub(super) struct RaftThread<L: LogStore, T, O> {
    turn: RaftTurn<L, T, O>,
    sync: SyncTurn<L::Syncer>,
    inline: InlineSync,
    fsync_seconds: Histogram,
    /// When followers are told of a commit that no append has told them of.
    tell_at: Option<Instant>,
    logger: Logger,
}

impl<L: LogStore, T: Transport, O: Observer> RaftThread<L, T, O> {
    pub(super) fn new(
        turn: RaftTurn<L, T, O>,
        sync: SyncTurn<L::Syncer>,
        fsync_seconds: Histogram,
        logger: Logger,
    ) -> Self {
        Self { turn, sync, inline: InlineSync::new(), fsync_seconds, tell_at: None, logger }
    }

    pub(super) fn run(mut self) {
        let tick = Duration::from_millis(self.turn.config.tick_ms);
        let mut next_tick = Instant::now() + tick;
        loop {
            if self.wait(self.tell_at.map_or(next_tick, |at| at.min(next_tick))) {
                break;
            }
            let began = Instant::now();
            if self.turn.take_inputs() {
                break;
            }
            let now = Instant::now();
            if now >= next_tick {
                self.turn.tick();
                // From when it was due, not from now: being woken a little late each time must not make elections a third longer. Of ticks
                // that were missed altogether one is made.
                next_tick += tick;
                if next_tick <= now {
                    next_tick = now + tick;
                }
            }
            if self.tell_at.is_some_and(|at| now >= at) {
                self.turn.core.tell_commit();
            }
            self.turn.may_sync = self.inline.allows();
            let handed = self.turn.handed;
            if let Err(error) = self.turn.turn() {
                die(&self.logger, &error.to_string());
            }
            if self.turn.handed > handed {
                self.inline.note_handed();
            }
            self.note_owed();
            if let Some(mark) = self.turn.sync_due.take() {
                if !self.sync_here(mark) {
                    break;
                }
            }
            self.turn.metrics.turn_seconds.observe(began.elapsed().as_secs_f64());
        }
        self.turn.end();
    }

    /// The next turn finds its end among the completions. False: stop.
    fn sync_here(&mut self, mark: SyncMark) -> bool {
        let began = Instant::now();
        let synced = self.sync.sync(mark);
        let took = began.elapsed();
        self.fsync_seconds.observe(took.as_secs_f64());
        self.inline.note(took, self.turn.has_piled_up());
        match synced {
            Ok(heard) => heard,
            Err(error) => die(&self.logger, &error.to_string()),
        }
    }

    /// From when on a follower waits to be told of a commit.
    fn note_owed(&mut self) {
        if !self.turn.core.owes_commit() {
            self.tell_at = None;
        } else if self.tell_at.is_none() {
            self.tell_at = Some(Instant::now() + Duration::from_millis(self.turn.config.commit_timeout_ms));
        }
    }

    /// Waits for an input or the next tick, and takes that input. True: stop.
    fn wait(&mut self, until: Instant) -> bool {
        let timeout = until.saturating_duration_since(Instant::now());
        let turn = &mut self.turn;
        select! {
            recv(turn.inbox.completions) -> message => match message {
                Ok(completion) => return turn.completion(completion),
                Err(_) => return true,
            },
            recv(turn.inbox.peers) -> message => if let Ok(input) = message { turn.peer(input) },
            recv(turn.inbox.clients) -> message => if let Ok(input) = message { turn.client(input) },
            default(timeout) => {}
        }
        false
    }
}
