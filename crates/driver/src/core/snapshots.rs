//! When a snapshot is made, and how far the log may be cut.

use std::collections::BTreeMap;

use raft::ProgressState;

use super::{ApplyTask, Core, Fatal, Ticket};
use crate::error::SnapshotError;
use crate::mutant;
use crate::traits::{LogReader, LogStore};
use crate::types::{Index, NodeId, Snapshot};

pub(super) struct Snapshots {
    /// One is being made, for these.
    building: Option<Vec<Ticket>>,
    /// Asked for after that one was started.
    waiting: Vec<Ticket>,
    /// Index of the newest one made here, or where the tables stood at boot.
    newest: Index,
    next_tick: u64,
    /// Followers to whom one is on its way, with the tick at which that began.
    sending: BTreeMap<NodeId, u64>,
}

impl Snapshots {
    pub(super) fn new(applied: Index) -> Self {
        Self { building: None, waiting: Vec::new(), newest: applied, next_tick: 0, sending: BTreeMap::new() }
    }
}

impl<L: LogStore> Core<L> {
    /// Makes a snapshot of what is applied by now.
    pub fn snapshot_now(&mut self, ticket: Ticket) {
        self.snapshots.waiting.push(ticket);
        if self.snapshots.building.is_none() {
            self.build_snapshot();
        }
    }

    /// The snapshot that was ordered is there; the store serves it from now on.
    pub fn snapshot_built(&mut self, result: Result<Snapshot, String>) {
        let tickets = self.snapshots.building.take().unwrap_or_default();
        let outcome = match result {
            Ok(snapshot) => {
                self.snapshots.newest = self.snapshots.newest.max(snapshot.meta.index);
                slog::info!(self.logger, "made a snapshot"; "index" => snapshot.meta.index);
                Ok(snapshot.meta)
            }
            Err(cause) => {
                slog::error!(self.logger, "failed to make a snapshot"; "error" => &cause);
                Err(SnapshotError::Failed(cause))
            }
        };
        self.effects.snapshots.extend(tickets.into_iter().map(|ticket| (ticket, outcome.clone())));
        if !self.snapshots.waiting.is_empty() {
            self.build_snapshot();
        }
    }

    fn build_snapshot(&mut self) {
        self.snapshots.building = Some(std::mem::take(&mut self.snapshots.waiting));
        self.effects.apply.push(ApplyTask::BuildSnapshot);
    }

    /// Raft asked for a snapshot and there is none that fits. It asks again at the follower's next heartbeat.
    pub(super) fn order_wanted_snapshot(&mut self) {
        if self.node.store().take_snapshot_wanted() && self.snapshots.building.is_none() {
            self.build_snapshot();
        }
    }

    pub(super) fn tick_snapshots(&mut self) {
        self.fail_unreported();
        let interval = self.config.snapshot_interval_ticks;
        if interval == 0 || self.ticks < self.snapshots.next_tick {
            return;
        }
        self.snapshots.next_tick = self.ticks + interval;
        let fresh = self.applied.saturating_sub(self.snapshots.newest);
        if fresh >= self.config.snapshot_threshold_entries.max(1) && self.snapshots.building.is_none() {
            self.build_snapshot();
        }
    }

    /// A report that never comes would leave the follower without entries for ever.
    fn fail_unreported(&mut self) {
        let progress = self.node.raft.prs().iter();
        let sending: Vec<NodeId> =
            progress.filter(|(_, p)| self.leads() && p.state == ProgressState::Snapshot).map(|(id, _)| *id).collect();
        self.snapshots.sending.retain(|node, _| sending.contains(node));
        for node in sending {
            let since = *self.snapshots.sending.entry(node).or_insert(self.ticks);
            if self.ticks - since > self.config.snapshot_report_ticks {
                slog::error!(self.logger, "a snapshot was never reported as sent"; "to" => node);
                self.snapshots.sending.remove(&node);
                self.snapshot_sent(node, false);
            }
        }
    }

    /// Cuts the log: never past what is durable in the tables, never the tail for slow followers, never what a follower needs
    /// after the snapshot on its way to it. Not at each entry, but a piece at a time.
    pub fn compact(&mut self) -> Result<(), Fatal> {
        if self.installing.is_some() {
            return Ok(());
        }
        let truncated = self.reader.first_index() - 1;
        let tail = self.config.log_tail_entries;
        let flushed = if mutant::on("compaction_past_flushed") { self.applied } else { self.flushed };
        let mut target = flushed.min(self.applied).min(self.applied.saturating_sub(tail));
        // raft's own applied index may stand lower for a moment; `hup` reads from there.
        target = target.min(self.node.raft.raft_log.applied);
        if self.leads() {
            let on_the_way = self.node.raft.prs().iter().filter(|(_, p)| p.state == ProgressState::Snapshot);
            target = on_the_way.map(|(_, p)| p.pending_snapshot).fold(target, Index::min);
        }
        let piece = (tail / 8).clamp(1, 4096);
        if target < truncated + piece {
            return Ok(());
        }
        self.log.compact(target)?;
        let first = self.reader.first_index();
        assert!(first > truncated && first - 1 <= flushed, "the log is never cut past the durable tables");
        Ok(())
    }
}
