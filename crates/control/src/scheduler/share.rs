//! Queues as the leader sees them: their settings, what their tasks hold, and whose turn it is. Owned by the planner.
//!
//! Dominant-resource fairness (Ghodsi et al., NSDI 2011): a queue's share is the largest part that it holds of any resource of the cluster,
//! divided by its weight; the queue with the least share is served next. What is planned counts as held.

use std::collections::{BTreeMap, BTreeSet};

use raftgrid_manifest::{within_quota, OverQuota};
use raftgrid_proto::v1::{Queue, Resources};

use super::hosts::Taken;
use super::shapes::{Rank, ShapeId};

/// A share in parts of 2^-32, divided by the weight.
pub(super) type Share = u64;

/// What part of `of` is held, in parts of 2^-32, to 31 binary digits.
fn part(held: u64, of: u64) -> u64 {
    if of == 0 {
        return 0;
    }
    let excess = (u64::BITS - of.leading_zeros()).saturating_sub(31);
    let (held, of) = ((held >> excess).min(u64::from(u32::MAX)), of >> excess);
    (held << 32) / of
}

/// One queue.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Settings; the default queue has a weight of 1 and no limits.
    pub(super) settings: Queue,
    /// What its tasks hold, and what is planned for them.
    pub(super) held: Taken,
    /// The first waiting task of each shape, by rank.
    pub(super) heads: BTreeSet<(Rank, ShapeId)>,
    /// The sweep has come so far.
    pub(super) at: Option<(Rank, ShapeId)>,
}

impl Line {
    pub(super) fn share(&self, capacity: &Taken) -> Share {
        self.share_with(capacity, Taken::default(), Taken::default())
    }

    /// The share if it held `more`, and `less` not.
    pub(super) fn share_with(&self, capacity: &Taken, more: Taken, less: Taken) -> Share {
        let mut held = self.held;
        held.add(more);
        held.subtract(less);
        let parts = [
            part(held.slots, capacity.slots),
            part(held.gpus, capacity.gpus),
            part(held.cpu_milli, capacity.cpu_milli),
            part(held.memory_bytes, capacity.memory_bytes),
        ];
        parts.into_iter().max().unwrap_or(0) / u64::from(self.settings.weight.max(1))
    }

    /// Whether `tasks` more that ask for `demand` each are within the limits.
    pub(super) fn admits(&self, demand: &Resources, tasks: u64) -> Result<(), OverQuota> {
        // The default queue has none, and others need not.
        if self.settings.max_running == 0 && self.settings.quota.is_none() {
            return Ok(());
        }
        let mut wanted = Taken::default();
        (0..tasks).for_each(|_| wanted.add(Taken::task(demand)));
        within_quota(&self.settings, &self.held.resources(), self.held.tasks, &wanted.resources(), tasks)
    }

    /// The next candidate of the sweep.
    pub(super) fn next(&self) -> Option<(Rank, ShapeId)> {
        use std::ops::Bound::{Excluded, Unbounded};
        match self.at {
            None => self.heads.first().copied(),
            Some(at) => self.heads.range((Excluded(at), Unbounded)).next().copied(),
        }
    }
}

/// All queues that have settings or tasks.
#[derive(Debug, Default)]
pub(super) struct Lines {
    by_name: BTreeMap<String, Line>,
}

impl Lines {
    pub(super) fn get(&self, name: &str) -> Option<&Line> {
        self.by_name.get(name)
    }

    /// The line of a queue that has, or had, tasks.
    pub(super) fn known(&mut self, name: &str) -> &mut Line {
        self.by_name.get_mut(name).expect("the line of a queue stays once a task named it")
    }

    pub(super) fn entry(&mut self, name: &str) -> &mut Line {
        if !self.by_name.contains_key(name) {
            let settings = Queue { name: name.to_owned(), weight: 1, ..Queue::default() };
            self.by_name.insert(name.to_owned(), Line { settings, ..Line::default() });
        }
        self.by_name.get_mut(name).expect("it was just put in")
    }

    /// New settings; None: the queue is gone.
    pub(super) fn set(&mut self, name: &str, settings: Option<Queue>) {
        let line = self.entry(name);
        line.settings = settings.unwrap_or_else(|| Queue { name: name.to_owned(), weight: 1, ..Queue::default() });
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Line)> {
        self.by_name.iter().map(|(name, line)| (name.as_str(), line))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Line> {
        self.by_name.values_mut()
    }
}
