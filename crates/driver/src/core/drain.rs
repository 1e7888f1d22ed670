//! The drain step: the one place where raft-rs is driven, and its order is law.
//!
//! Only `ready` → `advance_append_async` → `on_persist_ready`; never `advance`, never a `LightReady`: the commit index simply
//! arrives in the next Ready.

use raft::eraftpb::ConfChangeV2;
use raft::Ready;

use super::applier::{Applied, AppliedChange};
use super::convert::{conf_from, entry_from, hard_state_from, message_from, snapshot_from, sorted};
use super::{conf, ApplyTask, Core, Effects, Fatal, Unpersisted};
use crate::mutant;
use crate::traits::{LogReader, LogStore, SyncMark};
use crate::types::LogBatch;

impl<L: LogStore> Core<L> {
    /// Does what the inputs since the last call have made due, and gives the effects. An error ends the process.
    pub fn drain(&mut self) -> Result<Effects, Fatal> {
        self.flush_proposals();
        self.start_reads();
        while self.node.has_ready() {
            self.one_ready()?;
        }
        // A proposal that could not be tried, a read that leadership left behind: nobody waits in vain.
        self.flush_proposals();
        self.settle_reads();
        self.settle_transfer();
        self.order_wanted_snapshot();
        self.announce();
        while self.node.has_ready() {
            self.one_ready()?;
        }
        Ok(std::mem::take(&mut self.effects))
    }

    fn one_ready(&mut self) -> Result<(), Fatal> {
        let mut ready = self.node.ready();
        let mut immediate = ready.take_messages();
        let mut after = ready.take_persisted_messages();
        if self.node.raft.term > self.durable_term && !mutant::on("immediate_before_durable_term") {
            // A single voter leads before its vote is on disk. What it sends now, it could send otherwise after a crash.
            immediate.append(&mut after);
            after = std::mem::take(&mut immediate);
        }
        if mutant::on("ack_before_fsync") {
            immediate.append(&mut after);
        }
        self.note_told(&immediate);
        self.note_told(&after);
        self.effects.send.extend(immediate.iter().map(message_from));
        self.confirm_reads(ready.take_read_states());
        let committed = ready.take_committed_entries();
        if !committed.is_empty() {
            self.effects.apply.push(ApplyTask::Entries(committed.iter().map(entry_from).collect()));
        }
        let number = ready.number();
        let must_sync = ready.must_sync();
        let batch = self.batch(&mut ready);
        let snapshot = batch.snapshot.clone();
        if !batch.is_empty() {
            self.log.write(batch)?;
        }
        let term = self.node.raft.term;
        self.node.advance_append_async(ready);
        if must_sync {
            let element = Unpersisted { sync_number: number, persist_number: number, term, after, snapshot };
            self.unpersisted.push_back(element);
            self.effects.sync = Some(self.mark(number));
        } else if let Some(last) = self.unpersisted.back_mut() {
            // A commit index needs no fsync of its own: a lost one is found again after a restart.
            last.persist_number = number;
            last.after.append(&mut after);
        } else {
            assert!(term <= self.durable_term, "a term that is not durable is on its way to the disk");
            self.node.on_persist_ready(number);
            self.effects.send.extend(after.iter().map(message_from));
        }
        self.after_raft();
        Ok(())
    }

    /// One Ready is one batch.
    fn batch(&self, ready: &mut Ready) -> LogBatch {
        let mut batch = LogBatch { hard_state: ready.hs().map(hard_state_from), ..LogBatch::default() };
        if !ready.snapshot().is_empty() {
            batch.snapshot = Some(snapshot_from(ready.snapshot()));
            batch.hard_state = Some(hard_state_from(&self.node.raft.hard_state()));
        }
        if mutant::on("hard_state_skipped") {
            batch.hard_state = None;
        }
        if let (true, Some(state)) = (mutant::on("vote_not_kept"), &mut batch.hard_state) {
            state.vote = 0;
        }
        batch.entries = ready.take_entries().iter().map(entry_from).collect();
        if let (Some(first), None) = (batch.entries.first(), &batch.snapshot) {
            let last = self.reader.last_index();
            assert!(first.index > self.reader.first_index() - 1 && first.index <= last + 1, "the log is contiguous");
            assert!(first.index > self.applied, "an applied entry is never replaced");
            batch.truncate_after = (first.index <= last).then(|| first.index - 1);
        }
        batch
    }

    fn mark(&self, number: u64) -> SyncMark {
        let raft = &self.node.raft;
        SyncMark {
            ready_number: number,
            last_index: raft.raft_log.last_index(),
            last_term: raft.raft_log.last_term(),
            term: raft.term,
            vote: raft.vote,
        }
    }

    /// Everything up to Ready `number` is durable. A number that was told before is ignored.
    pub fn synced(&mut self, number: u64) {
        if number <= self.synced {
            return;
        }
        self.synced = number;
        let all = mutant::on("synced_covers_later_writes");
        while self.unpersisted.front().is_some_and(|element| element.sync_number <= number || all) {
            let Some(element) = self.unpersisted.pop_front() else { break };
            self.durable_term = self.durable_term.max(element.term);
            self.effects.send.extend(element.after.iter().map(message_from));
            self.node.on_persist_ready(element.persist_number);
            if let Some(snapshot) = element.snapshot {
                self.effects.apply.push(ApplyTask::Restore(snapshot));
            }
        }
        self.after_raft();
    }

    /// The tables stand at `applied.index`. Stale reports are ignored.
    pub fn applied(&mut self, applied: Applied) {
        self.flushed = self.flushed.max(applied.flushed);
        if applied.restored && self.installing.is_some_and(|index| index <= applied.index) {
            slog::info!(self.logger, "installed a snapshot"; "index" => applied.index);
            self.installing = None;
        }
        for change in &applied.changes {
            self.applied_change(change);
        }
        self.applied = self.applied.max(applied.index);
        let log = &self.node.raft.raft_log;
        let known = log.committed.min(log.persisted);
        // A report of old entries during an install is of no use to raft; one that moves back would panic it.
        let usable = self.installing.is_none() || applied.restored;
        if usable && applied.index > log.applied && applied.index <= known {
            self.node.advance_apply_to(applied.index);
        }
        if applied.changes.iter().any(|c| c.conf.is_joint()) && self.leads() {
            // The entry that leaves the joint configuration is appended by `advance_apply_to` and sent to nobody.
            self.node.ping();
        }
        self.after_raft();
        self.check_order();
    }

    fn applied_change(&mut self, change: &AppliedChange) {
        if change.index <= self.snapshot_floor && !mutant::on("old_change_over_snapshot") {
            // A newer snapshot has brought a configuration that includes it.
            return;
        }
        let decoded = conf::decode(change.kind, &change.data);
        let decoded: ConfChangeV2 = match decoded {
            Ok(Some(decoded)) => decoded,
            Ok(None) | Err(_) => unreachable!("the apply side decoded this change"),
        };
        let own = self.config.node;
        let loses_itself = self.leads() && !change.conf.contains(own);
        if loses_itself {
            // raft-rs 0.7 stays leader without a progress of its own, and panics at the next entry that is persisted.
            self.abdicate(&change.conf);
        }
        let made = self.node.apply_conf_change(&decoded);
        let made = made.expect("raft and the apply side start from the same configuration");
        assert_eq!(conf_from(&made), change.conf, "raft and the apply side make the same of a change");
        self.note_demotions(&change.conf);
        self.conf = change.conf.clone();
        self.heard.retain(|node, _| change.conf.contains(*node));
        slog::info!(self.logger, "membership changed"; "index" => change.index, "conf" => ?self.conf);
        self.after_raft();
        self.leave_if_no_voter();
    }

    /// The configuration in a snapshot takes effect when it is put into raft.
    pub(super) fn note_restored_conf(&mut self) {
        let conf = sorted(&conf_from(&self.node.raft.prs().conf().to_conf_state()));
        if conf != self.conf {
            self.demoted.clear();
            self.heard.retain(|node, _| conf.contains(*node));
            self.conf = conf;
        }
    }

    /// Durability rule 3.
    fn check_order(&self) {
        if self.installing.is_some() {
            return;
        }
        let log = &self.node.raft.raft_log;
        let truncated = self.reader.first_index() - 1;
        assert!(
            truncated <= self.applied && self.applied <= log.committed && log.committed <= log.last_index(),
            "truncated {truncated}, applied {}, commit {}, last {}",
            self.applied,
            log.committed,
            log.last_index()
        );
    }
}
