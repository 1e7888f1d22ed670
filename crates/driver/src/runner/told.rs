//! What the apply side has told the raft side. Told here rather than sent: most of it nobody waits for, and waking a thread for each applied
//! entry costs more than taking it with the next input, or the next tick.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::core::Applied;

/// Reports in order, of which those that only move on are one.
#[derive(Default)]
pub(super) struct Told {
    reports: Mutex<VecDeque<Applied>>,
    /// Somebody waits for the next index.
    awaited: AtomicBool,
}

impl Told {
    /// Adds a report. Whether the raft side must be woken for it.
    pub(super) fn add(&self, applied: Applied) -> bool {
        let plain = |report: &Applied| report.changes.is_empty() && !report.restored;
        let urgent = !plain(&applied);
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        match reports.back_mut() {
            // Changes and installs keep their place: raft must see them before what was applied after them.
            Some(last) if !urgent && plain(last) => {
                last.index = last.index.max(applied.index);
                last.flushed = last.flushed.max(applied.flushed);
            }
            Some(_) | None => reports.push_back(applied),
        }
        drop(reports);
        // The raft side notes that somebody waits before it looks a last time: either it sees the report, or this sees the note.
        urgent || self.awaited.load(Ordering::SeqCst)
    }

    /// Takes all reports.
    pub(super) fn take(&self) -> VecDeque<Applied> {
        std::mem::take(&mut *self.reports.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// From now on each report wakes the raft side, or no longer.
    pub(super) fn set_awaited(&self, awaited: bool) {
        self.awaited.store(awaited, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::AppliedChange;
    use crate::types::{ConfState, EntryKind};

    fn at(index: u64, flushed: u64) -> Applied {
        Applied { index, flushed, ..Applied::default() }
    }

    #[test]
    fn plain_reports_become_one_and_changes_keep_their_place() {
        let told = Told::default();
        let change = AppliedChange {
            index: 7,
            kind: EntryKind::ConfChangeV2,
            data: bytes::Bytes::new(),
            conf: ConfState::default(),
        };
        assert!(!told.add(at(5, 2)) && !told.add(at(6, 1)));
        assert!(told.add(Applied { changes: vec![change.clone()], ..at(7, 2) }), "a change wakes");
        assert!(!told.add(at(8, 3)) && !told.add(at(9, 3)));
        let taken: Vec<(u64, u64, usize)> =
            told.take().iter().map(|it| (it.index, it.flushed, it.changes.len())).collect();
        assert_eq!(taken, [(6, 2, 0), (7, 2, 1), (9, 3, 0)]);
        assert!(told.is_empty());
        told.set_awaited(true);
        assert!(told.add(at(10, 3)), "somebody waits");
        assert!(told.add(Applied { restored: true, ..at(20, 20) }), "an install wakes");
    }
}
