//! Who waits for which rows. A change is looked up by the starts of its key that somebody waits for, so that ten thousand workers which wait
//! for a task cost an entry that is none of theirs next to nothing.

use std::collections::{BTreeMap, BTreeSet};

use raftgrid_manifest::watched::Watched;
use raftgrid_manifest::{Change, Table};

/// By table, length of a key's start, and the start itself.
type Starts = BTreeMap<Table, BTreeMap<usize, BTreeMap<Vec<u8>, BTreeSet<u64>>>>;

/// Waiters by what they wait for; None: anything.
#[derive(Debug, Default)]
pub(crate) struct Interests {
    by_waiter: BTreeMap<u64, Option<Watched>>,
    anything: BTreeSet<u64>,
    starts: Starts,
}

impl Interests {
    pub(crate) fn insert(&mut self, waiter: u64, watched: Option<Watched>) {
        self.remove(waiter);
        match &watched {
            None => {
                self.anything.insert(waiter);
            }
            Some(list) => {
                for (table, start) in list {
                    let lengths = self.starts.entry(*table).or_default();
                    lengths.entry(start.len()).or_default().entry(start.clone()).or_default().insert(waiter);
                }
            }
        }
        self.by_waiter.insert(waiter, watched);
    }

    pub(crate) fn remove(&mut self, waiter: u64) {
        match self.by_waiter.remove(&waiter) {
            None => {}
            Some(None) => {
                self.anything.remove(&waiter);
            }
            Some(Some(list)) => list.iter().for_each(|(table, start)| self.forget(*table, start, waiter)),
        }
    }

    /// What nobody waits for leaves nothing behind.
    fn forget(&mut self, table: Table, start: &[u8], waiter: u64) {
        let Some(lengths) = self.starts.get_mut(&table) else { return };
        let Some(starts) = lengths.get_mut(&start.len()) else { return };
        if let Some(waiters) = starts.get_mut(start) {
            waiters.remove(&waiter);
            if waiters.is_empty() {
                starts.remove(start);
            }
        }
        if starts.is_empty() {
            lengths.remove(&start.len());
        }
        if lengths.is_empty() {
            self.starts.remove(&table);
        }
    }

    /// Takes out those who wait for one of the changes, in the order in which they came.
    pub(crate) fn take(&mut self, changes: &[Change]) -> BTreeSet<u64> {
        let mut hit = std::mem::take(&mut self.anything);
        for change in changes {
            let Some(lengths) = self.starts.get(&change.table) else { continue };
            for (length, starts) in lengths {
                let waiters = change.key.get(..*length).and_then(|start| starts.get(start));
                hit.extend(waiters.into_iter().flatten());
            }
        }
        hit.iter().for_each(|waiter| self.remove(*waiter));
        hit
    }
}

#[cfg(test)]
mod tests {
    use raftgrid_manifest::watched::touches;

    use super::*;

    fn change(table: Table, key: &[u8]) -> Change {
        Change { table, key: key.to_vec(), value: None }
    }

    #[test]
    fn whoever_waits_for_a_change_is_taken_out_as_looking_at_everybody_would() {
        let (tables, starts) = ([Table::Task, Table::Kv], [&b""[..], b"a", b"ab", b"abc", b"b", b"bc"]);
        let mut draw = 1_u64;
        let mut next = |most: usize| {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (draw >> 33) as usize % most
        };
        let mut interests = Interests::default();
        let mut plain: BTreeMap<u64, Option<Watched>> = BTreeMap::new();
        for waiter in 0..3_000 {
            let mut one = || (tables[next(2)], starts[next(6)].to_vec());
            let watched = match waiter % 7 {
                0 => None,
                1 => Some(vec![one(), one()]),
                _ => Some(vec![one()]),
            };
            interests.insert(waiter, watched.clone());
            plain.insert(waiter, watched);
            if waiter % 5 == 0 {
                let gone = next(waiter as usize + 1) as u64;
                interests.remove(gone);
                plain.remove(&gone);
            }
            if waiter % 3 == 0 {
                let changes = [change(tables[next(2)], starts[next(6)]), change(tables[next(2)], b"abcd")];
                let wanted: BTreeSet<u64> = plain
                    .iter()
                    .filter(|(_, it)| it.as_ref().is_none_or(|watched| touches(watched, &changes)))
                    .map(|(waiter, _)| *waiter)
                    .collect();
                assert_eq!(interests.take(&changes), wanted);
                plain.retain(|waiter, _| !wanted.contains(waiter));
            }
        }
        plain.keys().for_each(|waiter| interests.remove(*waiter));
        assert!(interests.starts.is_empty() && interests.by_waiter.is_empty() && interests.anything.is_empty());
    }
}
