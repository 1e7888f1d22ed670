//! Who waits for which entry. Keyed by (index, term); decided from apply only.
//!
//! A proposal is never failed because leadership was lost: its entry may still be committed by the next leader. It is decided
//! when its index is applied, with the same term (done) or another (superseded), when a snapshot overtakes it (unknown), or
//! by its deadline (unknown).

use std::collections::BTreeMap;

use crate::mutant;
use crate::types::{Index, Term};

/// Waiters of type `T`, several to one entry.
#[derive(Debug)]
pub struct Waiters<T> {
    by_entry: BTreeMap<(Index, Term), Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    since_tick: u64,
    waiters: Vec<T>,
}

/// What became of the waiters up to an applied index.
#[derive(Debug)]
pub struct Settled<T> {
    /// Those of the applied entry, in the order of its payloads.
    pub done: Vec<T>,
    /// Those of entries that lost their place.
    pub superseded: Vec<T>,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self { by_entry: BTreeMap::new() }
    }
}

impl<T> Waiters<T> {
    /// Notes that `waiters` wait for (index, term), since `tick`.
    pub fn insert(&mut self, index: Index, term: Term, waiters: Vec<T>, tick: u64) {
        let old = self.by_entry.insert((index, term), Waiting { since_tick: tick, waiters });
        assert!(old.is_none(), "a leader proposes one entry for each (index, term)");
    }

    /// Decides everything up to `index`, which was applied with `term`. Indexes come without gaps.
    pub fn settle(&mut self, index: Index, term: Term) -> Settled<T> {
        let mut settled = Settled { done: Vec::new(), superseded: Vec::new() };
        while let Some(entry) = self.by_entry.first_entry() {
            let key = *entry.key();
            if key.0 > index {
                break;
            }
            let waiters = entry.remove().waiters;
            if key == (index, term) || (key.0 == index && mutant::on("superseded_counts_as_done")) {
                settled.done = waiters;
            } else {
                settled.superseded.extend(waiters);
            }
        }
        settled
    }

    /// Takes everybody who waits for an index up to `index`: a snapshot overtook them.
    pub fn overtaken(&mut self, index: Index) -> Vec<T> {
        let mut taken = Vec::new();
        while let Some(entry) = self.by_entry.first_entry() {
            if entry.key().0 > index {
                break;
            }
            taken.extend(entry.remove().waiters);
        }
        taken
    }

    /// Takes everybody who has waited since before `tick`.
    pub fn expired(&mut self, tick: u64) -> Vec<T> {
        let keys: Vec<_> = self.by_entry.iter().filter(|(_, w)| w.since_tick < tick).map(|(k, _)| *k).collect();
        keys.into_iter().filter_map(|key| self.by_entry.remove(&key)).flat_map(|w| w.waiters).collect()
    }

    /// Takes everybody.
    pub fn take_all(&mut self) -> Vec<T> {
        std::mem::take(&mut self.by_entry).into_values().flat_map(|w| w.waiters).collect()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.by_entry.is_empty()
    }
}
