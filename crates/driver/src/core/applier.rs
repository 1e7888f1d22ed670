//! The apply side, pure: takes committed entries in order, feeds the state machine, and says what happened.
//!
//! Owned by whoever runs the state machine (the apply thread, or the simulator). It keeps the configuration as of the applied
//! index, because the state machine records it in the same place as the entry that made it.

use bytes::Bytes;

use super::conf;
use super::ApplyTask;
use crate::mutant;
use crate::pack::{unpack, UnpackError};
use crate::traits::StateMachine;
use crate::types::{ConfState, Entry, EntryKind, Index, InitialState, Snapshot, Term};

/// Why a committed entry cannot be applied; the replica must stop, for it would differ from the others.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The entry's payloads.
    #[error("failed to apply entry {index}: {cause}")]
    Payloads {
        /// The entry.
        index: Index,
        /// What is wrong with it.
        cause: UnpackError,
    },
    /// Entries were handed over with a gap, or twice.
    #[error("failed to apply entry {index}: the tables stand at {applied}")]
    OutOfOrder {
        /// The entry.
        index: Index,
        /// Where the tables stand.
        applied: Index,
    },
    /// The state machine gave another number of replies than it got payloads.
    #[error("failed to apply entry {index}: the state machine gave {replies} replies for {payloads} payloads")]
    Replies {
        /// The entry.
        index: Index,
        /// Replies given.
        replies: usize,
        /// Payloads in the entry.
        payloads: usize,
    },
}

/// A configuration that was applied, for the raft side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedChange {
    /// Index of the entry.
    pub index: Index,
    /// Form of the entry.
    pub kind: EntryKind,
    /// The encoded change.
    pub data: Bytes,
    /// The configuration that came out.
    pub conf: ConfState,
}

/// What the apply side tells the raft side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The tables stand here.
    pub index: Index,
    /// Changes among the applied entries, in order.
    pub changes: Vec<AppliedChange>,
    /// A snapshot was installed, and `index` is its index.
    pub restored: bool,
    /// Highest index whose rows are durable.
    pub flushed: Index,
}

/// What became of one entry, for those who wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A normal entry: one reply for each payload.
    Normal(Vec<Bytes>),
    /// A membership change: made, or why it could not be made.
    Change(Result<(), String>),
}

/// An applied entry with its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedEntry {
    /// Index of the entry.
    pub index: Index,
    /// Term of the entry.
    pub term: Term,
    /// What it did.
    pub outcome: Outcome,
}

/// See the module's head.
#[derive(Debug)]
pub struct Applier {
    conf: ConfState,
    applied: Index,
}

impl Applier {
    /// Stands where the tables stand at boot.
    pub(super) fn new(initial: &InitialState) -> Self {
        Self { conf: initial.conf.clone(), applied: initial.applied }
    }

    /// Where the tables stand.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// Applies entries in order.
    pub fn entries<M: StateMachine>(
        &mut self,
        machine: &mut M,
        entries: &[Entry],
    ) -> Result<(Applied, Vec<AppliedEntry>), ApplyError> {
        let mut changes = Vec::new();
        let mut outcomes = Vec::with_capacity(entries.len());
        let mut rest = entries;
        while let Some(first) = rest.first() {
            let normal = rest.iter().take_while(|e| e.kind == EntryKind::Normal).count();
            if normal > 0 {
                let (head, tail) = rest.split_at(normal);
                self.normal(machine, head, &mut outcomes)?;
                rest = tail;
            } else {
                self.change(machine, first, &mut changes, &mut outcomes)?;
                rest = &rest[1..];
            }
        }
        Ok((Applied { index: self.applied, changes, restored: false, flushed: machine.flushed() }, outcomes))
    }

    /// Changes over to an installed snapshot.
    pub fn restore<M: StateMachine>(&mut self, machine: &mut M, snapshot: &Snapshot) -> Applied {
        machine.restore(snapshot);
        assert_eq!(
            machine.applied(),
            (snapshot.meta.index, snapshot.meta.term),
            "the tables stand where the installed snapshot stands"
        );
        self.applied = snapshot.meta.index;
        self.conf = snapshot.meta.conf.clone();
        Applied { index: self.applied, changes: Vec::new(), restored: true, flushed: machine.flushed() }
    }

    /// Runs a task of the core, except the making of a snapshot, which the caller starts with its own callback.
    pub fn run<M: StateMachine>(
        &mut self,
        machine: &mut M,
        task: &ApplyTask,
    ) -> Result<Option<(Applied, Vec<AppliedEntry>)>, ApplyError> {
        match task {
            ApplyTask::Entries(entries) => self.entries(machine, entries).map(Some),
            ApplyTask::Restore(snapshot) => Ok(Some((self.restore(machine, snapshot), Vec::new()))),
            ApplyTask::BuildSnapshot => Ok(None),
        }
    }

    fn step_to(&mut self, index: Index) -> Result<(), ApplyError> {
        if index != self.applied + 1 {
            return Err(ApplyError::OutOfOrder { index, applied: self.applied });
        }
        self.applied = index;
        Ok(())
    }

    fn normal<M: StateMachine>(
        &mut self,
        machine: &mut M,
        entries: &[Entry],
        outcomes: &mut Vec<AppliedEntry>,
    ) -> Result<(), ApplyError> {
        let mut committed = Vec::with_capacity(entries.len());
        for entry in entries {
            self.step_to(entry.index)?;
            let payloads = unpack(&entry.data).map_err(|cause| ApplyError::Payloads { index: entry.index, cause })?;
            committed.push(crate::traits::Committed { index: entry.index, term: entry.term, payloads });
        }
        let mut replies = machine.apply(&committed).into_iter();
        for entry in &committed {
            let replies = replies.next().unwrap_or_default();
            if replies.len() != entry.payloads.len() {
                let (index, payloads) = (entry.index, entry.payloads.len());
                return Err(ApplyError::Replies { index, replies: replies.len(), payloads });
            }
            outcomes.push(AppliedEntry { index: entry.index, term: entry.term, outcome: Outcome::Normal(replies) });
        }
        Ok(())
    }

    /// A change that cannot be made leaves the configuration as it was, and the raft side never hears of it.
    fn change<M: StateMachine>(
        &mut self,
        machine: &mut M,
        entry: &Entry,
        changes: &mut Vec<AppliedChange>,
        outcomes: &mut Vec<AppliedEntry>,
    ) -> Result<(), ApplyError> {
        self.step_to(entry.index)?;
        let before = mutant::on("conf_of_before_recorded").then(|| self.conf.clone());
        let made = if mutant::on("empty_change_skipped") && entry.data.is_empty() {
            Err("it is empty".to_owned())
        } else {
            conf::after_entry(&self.conf, entry)
        };
        if let Ok(conf) = &made {
            self.conf = conf.clone();
            let (index, kind, data) = (entry.index, entry.kind, entry.data.clone());
            changes.push(AppliedChange { index, kind, data, conf: conf.clone() });
        }
        let recorded = before.as_ref().unwrap_or(&self.conf);
        machine.apply_membership(entry.index, entry.term, recorded, &entry.context);
        let outcome = Outcome::Change(made.map(|_| ()));
        outcomes.push(AppliedEntry { index: entry.index, term: entry.term, outcome });
        Ok(())
    }
}
