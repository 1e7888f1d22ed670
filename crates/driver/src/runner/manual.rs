//! A replica without threads: whoever holds it decides when the raft side, the fsync and the apply side take a turn, and when a tick has
//! passed. The simulator runs replicas so: the same turns as on threads, in any order that threads could bring about.

use slog::Logger;

use super::apply_turn::ApplyTurn;
use super::raft_turn::RaftTurn;
use super::sync_thread::SyncTurn;
use super::{Config, Fatal, Parts, RaftHandle};
use crate::error::StartError;
use crate::traits::{LogStore, Observer, StateMachine, SyncMark, Transport};

/// A replica that is run by hand. Dropping it is a crash: what was not made durable is up to the store.
pub struct ManualRunner<L: LogStore, M, T, O> {
    raft: RaftTurn<L, T, O>,
    sync: SyncTurn<L::Syncer>,
    apply: ApplyTurn<M, L::Reader>,
    syncing: Option<SyncMark>,
}

impl<L: LogStore, M: StateMachine, T: Transport, O: Observer> ManualRunner<L, M, T, O> {
    /// Puts a replica together; nothing runs. `machine` must stand where `log` says that it stands.
    pub fn start(
        config: &Config,
        log: L,
        machine: M,
        transport: T,
        observer: O,
        logger: &Logger,
    ) -> Result<(RaftHandle, Self), StartError> {
        let Parts { handle, raft, sync, apply, .. } = Parts::new(config, log, machine, transport, observer, logger)?;
        Ok((handle, Self { raft, sync, apply, syncing: None }))
    }

    /// One tick of time; a turn follows.
    pub fn tick(&mut self) {
        self.raft.tick();
    }

    /// Whether the raft side has something to do.
    pub fn has_input(&self) -> bool {
        self.raft.has_input()
    }

    /// Takes what has arrived, drains the core once, hands its effects on. An error ends the process.
    pub fn turn(&mut self) -> Result<(), Fatal> {
        // Nobody stops a replica that is run by hand: it is dropped.
        self.raft.take_inputs();
        self.raft.turn()
    }

    /// Whether an fsync is wanted and none is under way.
    pub fn wants_sync(&self) -> bool {
        self.syncing.is_none() && self.sync.is_wanted()
    }

    /// An fsync begins: it covers what was handed over by now. False: none is wanted, or one is under way.
    pub fn begin_sync(&mut self) -> bool {
        if self.syncing.is_some() {
            return false;
        }
        self.syncing = self.sync.take();
        let begins = self.syncing.is_some();
        if begins {
            self.sync.begin();
        }
        begins
    }

    /// The fsync that is under way ends. An error ends the process.
    pub fn end_sync(&mut self) -> Result<(), Fatal> {
        if let Some(mark) = self.syncing.take() {
            self.sync.sync(mark)?;
        }
        Ok(())
    }

    /// Whether the apply side has something to do.
    pub fn has_job(&self) -> bool {
        self.apply.has_job()
    }

    /// Carries out one queued task of the apply side, if there is one. An error ends the process.
    pub fn apply(&mut self) -> Result<(), Fatal> {
        match self.apply.held.pop_front().or_else(|| self.apply.jobs.try_recv().ok()) {
            Some(job) => self.apply.run_job(job),
            None => Ok(()),
        }
    }

    /// What an idle apply thread does now and then: tells the raft side how far the tables are durable.
    pub fn look_at_flushed(&mut self) {
        self.apply.tell_flushed();
    }
}

impl<L: LogStore, M, T, O> Drop for ManualRunner<L, M, T, O> {
    fn drop(&mut self) {
        self.raft.shared.stop();
    }
}
