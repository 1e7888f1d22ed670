//! Thread `apply`: owns the state machine. It waits for a job, and looks now and then whether the tables were flushed.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::RecvTimeoutError;
use raftgrid_telemetry::Histogram;
use slog::Logger;

use super::apply_turn::ApplyTurn;
use super::die;
use crate::limits::FLUSH_POLL_MS;
use crate::traits::{LogReader, StateMachine};

pub(super) struct ApplyThread<M, R> {
    pub(super) turn: ApplyTurn<M, R>,
    pub(super) apply_seconds: Histogram,
    pub(super) logger: Logger,
}

impl<M: StateMachine, R: LogReader> ApplyThread<M, R> {
    /// Ends when the raft thread has, without applying what is still queued: it is in the log.
    pub(super) fn run(mut self) {
        while !self.turn.stop.load(Ordering::SeqCst) {
            let job = match self.turn.held.pop_front() {
                Some(job) => job,
                None => match self.turn.jobs.recv_timeout(Duration::from_millis(FLUSH_POLL_MS)) {
                    Ok(job) => job,
                    Err(RecvTimeoutError::Timeout) => {
                        self.turn.tell_flushed();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                },
            };
            let began = Instant::now();
            if let Err(error) = self.turn.run_job(job) {
                die(&self.logger, &error.to_string());
            }
            self.apply_seconds.observe(began.elapsed().as_secs_f64());
        }
    }
}
