//! What of the log is in memory: its bounds, every term, the newest entries. A mirror of what is visible in the
//! database.
//!
//! Invariants: `first = truncated + 1`; `last >= truncated`; runs start at `first` when the log is not empty, their
//! starts and terms rise; the cached entries are contiguous and end at `last`.

use std::collections::VecDeque;

use raftgrid_driver::{Entry, HardState, Index, LogBatch, LogReadError, SnapshotMeta, Term};

use crate::disk::Batch;
use crate::limits::{ENTRY_OVERHEAD_BYTES, LOG_CACHE_BYTES_MAX, LOG_CACHE_ENTRIES_MAX};
use crate::log::records::{
    encode_base, encode_entry, encode_hard_state, encode_position, encode_term, entry_key, run_key, Base, BASE,
    ENTRY_END, HARD_STATE, RUN_END, TRUNCATED,
};

/// What an entry counts when an answer is cut to size.
pub(crate) fn weight(entry: &Entry) -> u64 {
    entry.data.len() as u64 + entry.context.len() as u64 + ENTRY_OVERHEAD_BYTES
}

/// The mirror.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// (index, term) up to which the log was cut; the log starts behind it.
    pub(crate) truncated: (Index, Term),
    /// Last index, or the truncated one.
    pub(crate) last: Index,
    /// (first index, term) of each stretch of equal terms.
    pub(crate) runs: Vec<(Index, Term)>,
    pub(crate) hard_state: HardState,
    pub(crate) base: Base,
    cache: VecDeque<Entry>,
    cache_bytes: u64,
}

/// A batch, checked against the window and worked out.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) ops: Batch,
    /// The log is deleted and starts behind this snapshot.
    pub(crate) reset: Option<Base>,
    /// Entries behind this index go first.
    pub(crate) cut: Option<Index>,
    runs: Vec<(Index, Term)>,
}

impl Window {
    pub(crate) fn new(
        base: Base,
        truncated: (Index, Term),
        last: Index,
        runs: Vec<(Index, Term)>,
        hard_state: HardState,
    ) -> Self {
        Self { truncated, last, runs, hard_state, base, cache: VecDeque::new(), cache_bytes: 0 }
    }

    pub(crate) fn first(&self) -> Index {
        self.truncated.0 + 1
    }

    pub(crate) fn term(&self, index: Index) -> Result<Term, LogReadError> {
        if index == self.truncated.0 {
            return Ok(self.truncated.1);
        }
        if index < self.truncated.0 {
            return Err(LogReadError::Compacted);
        }
        if index > self.last {
            return Err(LogReadError::Unavailable);
        }
        let after = self.runs.partition_point(|run| run.0 <= index);
        Ok(self.runs[after - 1].1)
    }

    pub(crate) fn last_term(&self) -> Term {
        self.runs.last().map_or(self.truncated.1, |run| run.1)
    }

    /// Entries in `low..high` as far as `bytes_max` goes, when all of them are in memory. Bounds were checked.
    pub(crate) fn cached(&self, low: Index, high: Index, bytes_max: u64) -> Option<Vec<Entry>> {
        let start = self.cache.front()?.index;
        let from = usize::try_from(low.checked_sub(start)?).ok()?;
        let count = usize::try_from(high - low).ok()?;
        let mut out = Vec::new();
        let mut bytes = 0;
        for entry in self.cache.iter().skip(from).take(count) {
            bytes += weight(entry);
            if bytes > bytes_max && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        Some(out)
    }

    /// Checks a batch and works out what it means for the database. The text of an error names the rule that the
    /// caller broke.
    pub(crate) fn plan(&self, batch: &LogBatch) -> Result<Plan, String> {
        let mut plan = Plan::default();
        let mut truncated = self.truncated;
        let mut last = self.last;
        if let Some(snapshot) = &batch.snapshot {
            let meta = &snapshot.meta;
            if meta.index <= self.truncated.0 {
                return Err(format!("snapshot at {} lies below the log's start {}", meta.index, self.first()));
            }
            truncated = (meta.index, meta.term);
            last = meta.index;
            let base = Base { state_dir: snapshot.name.clone(), snapshot: meta.clone() };
            plan.ops.put(BASE, encode_base(&base));
            plan.ops.put(TRUNCATED, encode_position(meta.index, meta.term));
            plan.ops.delete_range(entry_key(0), ENTRY_END);
            plan.ops.delete_range(run_key(0), RUN_END);
            plan.reset = Some(base);
        }
        let append_after = match batch.entries.first() {
            Some(entry) if entry.index == 0 => return Err("an entry has index 0".into()),
            Some(entry) => Some(entry.index - 1),
            None => None,
        };
        let keep = [batch.truncate_after, append_after].into_iter().flatten().min().unwrap_or(last);
        if keep < truncated.0 {
            return Err(format!("entries behind {keep} are to go, but the log starts at {}", truncated.0 + 1));
        }
        if keep < last {
            plan.ops.delete_range(entry_key(keep + 1), entry_key(last + 1));
            plan.ops.delete_range(run_key(keep + 1), run_key(last + 1));
            plan.cut = Some(keep);
            last = keep;
        }
        let last_term = if last == truncated.0 { truncated.1 } else { self.term(last).map_err(|e| e.to_string())? };
        self.plan_entries(&batch.entries, (last, last_term), last == truncated.0, &mut plan)?;
        if let Some(state) = &batch.hard_state {
            if state.term < self.hard_state.term {
                return Err(format!("the term falls from {} to {}", self.hard_state.term, state.term));
            }
            plan.ops.put(HARD_STATE, encode_hard_state(state));
        }
        Ok(plan)
    }

    fn plan_entries(
        &self,
        entries: &[Entry],
        mut previous: (Index, Term),
        mut empty: bool,
        plan: &mut Plan,
    ) -> Result<(), String> {
        for entry in entries {
            if entry.index != previous.0 + 1 {
                return Err(format!("entry {} follows {}: a gap", entry.index, previous.0));
            }
            if entry.term < previous.1 || entry.term == 0 {
                return Err(format!("entry {} has term {} after term {}", entry.index, entry.term, previous.1));
            }
            if empty || entry.term != previous.1 {
                plan.ops.put(run_key(entry.index), encode_term(entry.term));
                plan.runs.push((entry.index, entry.term));
                empty = false;
            }
            plan.ops.put(entry_key(entry.index), encode_entry(entry));
            previous = (entry.index, entry.term);
        }
        Ok(())
    }

    /// Takes over what `plan` has made visible.
    pub(crate) fn take(&mut self, plan: Plan, batch: LogBatch) {
        if let Some(base) = plan.reset {
            self.truncated = (base.snapshot.index, base.snapshot.term);
            self.last = base.snapshot.index;
            self.base = base;
            self.runs.clear();
            self.cache.clear();
            self.cache_bytes = 0;
        }
        if let Some(keep) = plan.cut {
            let runs = self.runs.partition_point(|run| run.0 <= keep);
            self.runs.truncate(runs);
            while self.cache.back().is_some_and(|entry| entry.index > keep) {
                self.drop_from_cache(VecDeque::pop_back);
            }
            self.last = keep;
        }
        self.runs.extend(plan.runs);
        for entry in batch.entries {
            self.last = entry.index;
            self.cache_bytes += weight(&entry);
            self.cache.push_back(entry);
        }
        while self.cache.len() > LOG_CACHE_ENTRIES_MAX
            || (self.cache_bytes > LOG_CACHE_BYTES_MAX && self.cache.len() > 1)
        {
            self.drop_from_cache(VecDeque::pop_front);
        }
        if let Some(state) = batch.hard_state {
            self.hard_state = state;
        }
    }

    fn drop_from_cache(&mut self, pop: fn(&mut VecDeque<Entry>) -> Option<Entry>) {
        if let Some(entry) = pop(&mut self.cache) {
            self.cache_bytes -= weight(&entry);
        }
    }

    /// What cutting the log up to `index` means for the database; None when it is cut there already.
    pub(crate) fn plan_compact(&self, index: Index) -> Result<Option<Batch>, String> {
        if index <= self.truncated.0 {
            return Ok(None);
        }
        if index > self.last {
            return Err(format!("the log ends at {}, it cannot be cut at {index}", self.last));
        }
        let term = self.term(index).map_err(|error| error.to_string())?;
        let mut ops = Batch::default();
        ops.put(TRUNCATED, encode_position(index, term));
        ops.delete_range(entry_key(self.first()), entry_key(index + 1));
        ops.delete_range(run_key(0), run_key(index + 2));
        if index < self.last {
            let next = self.term(index + 1).map_err(|error| error.to_string())?;
            ops.put(run_key(index + 1), encode_term(next));
        }
        Ok(Some(ops))
    }

    /// Takes over a cut that `plan_compact` worked out.
    pub(crate) fn take_compact(&mut self, index: Index) -> Result<(), LogReadError> {
        let term = self.term(index)?;
        let next = if index < self.last { Some(self.term(index + 1)?) } else { None };
        let behind = self.runs.partition_point(|run| run.0 <= index + 1);
        self.runs.drain(..behind);
        if let Some(next) = next {
            self.runs.insert(0, (index + 1, next));
        }
        self.truncated = (index, term);
        while self.cache.front().is_some_and(|entry| entry.index <= index) {
            self.drop_from_cache(VecDeque::pop_front);
        }
        Ok(())
    }

    /// The snapshot that the log starts from.
    pub(crate) fn snapshot(&self) -> &SnapshotMeta {
        &self.base.snapshot
    }
}
