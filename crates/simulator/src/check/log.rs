//! Log matching, and the equality of what is committed: entries are read through the store's own reader after each turn, and each is chained
//! to the one before it, so that one number stands for everything up to an entry.

use std::collections::BTreeMap;

use raftgrid_driver::{Entry, Index, LogReader, NodeId, Term};

use crate::rng::{hash_bytes, mix};

/// Stands for a log up to and including an entry.
type Chain = u64;

/// The log of one process as it was seen last.
#[derive(Debug, Default)]
pub struct LogWatch {
    entries: BTreeMap<Index, (Term, Chain)>,
    applied: Index,
}

/// All logs together.
#[derive(Debug, Default)]
pub struct Logs {
    /// Every entry that was ever seen in a log.
    chains: BTreeMap<(Index, Term), Chain>,
    /// Every entry that was ever applied.
    committed: BTreeMap<Index, (Term, Chain)>,
}

fn chained(before: Chain, entry: &Entry) -> Chain {
    let head = mix(before ^ mix(entry.index)) ^ mix(entry.term.wrapping_add(entry.kind as u64) << 8);
    mix(mix(head) ^ hash_bytes(&entry.data) ^ hash_bytes(&entry.context).rotate_left(17))
}

impl Logs {
    /// Looks at a log after a turn, at its entries of terms below `volatile`. Gives what cannot be.
    ///
    /// A single voter leads, and appends, before its term is durable, and nobody hears of it. After a loss of power it begins the same term
    /// anew, with other entries: those of before have never been.
    pub fn saw_log(
        &mut self,
        node: NodeId,
        watch: &mut LogWatch,
        log: &impl LogReader,
        volatile: Term,
    ) -> Result<(), String> {
        let (first, mut last) = (log.first_index(), log.last_index());
        while last >= first && log.term(last).is_ok_and(|term| term >= volatile) {
            last -= 1;
        }
        watch.entries.split_off(&(last + 1));
        // Behind an installed snapshot nothing is left of what was there.
        watch.entries = watch.entries.split_off(&first);
        // Where the log is still what it was: by its terms alone, which is what log matching promises to be enough.
        let mut known = last;
        while known >= first && watch.entries.get(&known).map(|(term, _)| *term) != log.term(known).ok() {
            known -= 1;
        }
        if known >= last {
            return Ok(());
        }
        let start = known.max(first - 1) + 1;
        watch.entries.split_off(&start);
        let entries = log.entries(start, last + 1, u64::MAX).map_err(|error| error.to_string())?;
        let mut chain = self.chain_before(start, watch, log);
        for entry in entries {
            chain = chain.map(|chain| chained(chain, &entry));
            let Some(chain) = chain else { continue };
            let seen = *self.chains.entry((entry.index, entry.term)).or_insert(chain);
            if seen != chain {
                let (index, term) = (entry.index, entry.term);
                return Err(format!(
                    "log matching: entry {index} of term {term} differs, or what is before it, on {node}"
                ));
            }
            watch.entries.insert(entry.index, (entry.term, chain));
        }
        Ok(())
    }

    /// What stands for everything before `start`; None if nobody ever saw it.
    fn chain_before(&self, start: Index, watch: &LogWatch, log: &impl LogReader) -> Option<Chain> {
        let before = start - 1;
        if before <= 1 {
            return Some(before);
        }
        let kept = watch.entries.get(&before).map(|(_, chain)| *chain);
        let term = log.term(before).ok()?;
        kept.or_else(|| self.chains.get(&(before, term)).copied())
    }

    /// The tables of a process stand at `applied`. Gives what cannot be.
    pub fn saw_applied(&mut self, node: NodeId, watch: &mut LogWatch, applied: Index) -> Result<(), String> {
        if applied < watch.applied {
            return Err(format!("node {node} applied up to {} and stands at {applied} now", watch.applied));
        }
        let before = watch.applied;
        watch.applied = applied;
        for (index, seen) in watch.entries.range(before..=applied).filter(|(index, _)| **index > before) {
            let first = *self.committed.entry(*index).or_insert(*seen);
            if first != *seen {
                return Err(format!(
                    "applied prefix: entry {index} was applied in term {}, and on node {node} in term {}",
                    first.0, seen.0
                ));
            }
        }
        Ok(())
    }

    /// The highest index that anybody applied.
    pub fn last_committed(&self) -> Index {
        self.committed.keys().next_back().copied().unwrap_or(0)
    }
}
