//! Property: the raft log answers as raft-rs' own `MemStorage` does, whatever is written, cut, installed or reopened.

mod common;

use bytes::Bytes;
use proptest::prelude::*;
use protobuf::Message;
use raft::eraftpb;
use raft::storage::{MemStorage, Storage};
use raft::GetEntriesContext;

use common::{donor, found, mark_of, transfer, Machine, RocksMachine, SimMachine};
use raftgrid_driver::{
    Entry, EntryKind, HardState, Index, LogBatch, LogReadError, LogReader, LogStore, Snapshot, Syncer, Term,
};
use raftgrid_store::Booted;

#[derive(Clone, Debug)]
enum Step {
    /// Appends `count` entries after dropping `back` of the uncommitted ones; `bump` raises the term.
    Append { back: u64, count: u64, bump: bool, size: usize },
    /// A hard state of its own.
    Vote { bump: bool, vote: u64 },
    /// Applies, flushes and cuts a part of the log.
    Compact { tenths: u64 },
    /// Installs a snapshot that lies `ahead` of the applied index.
    Install { ahead: u64, bump: bool },
    /// One fsync.
    Sync,
    /// The process ends and another starts.
    Reopen { clean: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..6u64, 1..12u64, any::<bool>(), 0..300usize)
            .prop_map(|(back, count, bump, size)| Step::Append { back, count, bump, size }),
        2 => (any::<bool>(), 0..4u64).prop_map(|(bump, vote)| Step::Vote { bump, vote }),
        3 => (0..11u64).prop_map(|tenths| Step::Compact { tenths }),
        1 => (1..20u64, any::<bool>()).prop_map(|(ahead, bump)| Step::Install { ahead, bump }),
        2 => Just(Step::Sync),
        2 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
    ];
    prop::collection::vec(step, 1..30)
}

struct Pair<M: Machine> {
    machine: M,
    booted: Option<Booted<M::D>>,
    oracle: MemStorage,
    hard_state: HardState,
    ready: u64,
}

impl<M: Machine> Pair<M> {
    fn new() -> Self {
        let machine = M::new();
        let booted = machine.open(found(2, &[1, 2, 3])).unwrap();
        let oracle = MemStorage::new();
        oracle.wl().apply_snapshot(oracle_snapshot(1, 1)).unwrap();
        let hard_state = HardState { term: 1, vote: 0, commit: 1 };
        Self { machine, booted: Some(booted), oracle, hard_state, ready: 1 }
    }

    fn booted(&mut self) -> &mut Booted<M::D> {
        self.booted.as_mut().expect("open")
    }

    fn write(&mut self, batch: LogBatch) {
        if let Some(state) = batch.hard_state {
            self.hard_state = state;
        }
        self.booted().log.write(batch).unwrap();
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Append { back, count, bump, size } => self.append(back, count, bump, size),
            Step::Vote { bump, vote } => {
                let term = self.hard_state.term + u64::from(bump);
                let vote = if bump || self.hard_state.vote == 0 { vote } else { self.hard_state.vote };
                let state = HardState { term, vote, ..self.hard_state };
                self.write(LogBatch { hard_state: Some(state), ..LogBatch::default() });
            }
            Step::Compact { tenths } => self.compact(tenths),
            Step::Install { ahead, bump } => self.install(ahead, bump),
            Step::Sync => self.sync(),
            Step::Reopen { clean } => {
                self.machine = if clean {
                    self.booted().tables.flush().unwrap();
                    self.booted = None;
                    self.machine.stopped(common::Crash::Kill)
                } else {
                    let next = self.machine.stopped(common::Crash::Kill);
                    self.booted = None;
                    next
                };
                self.booted = Some(self.machine.open(found(2, &[1, 2, 3])).unwrap());
            }
        }
    }

    fn sync(&mut self) {
        self.ready += 1;
        let (ready, state) = (self.ready, self.hard_state);
        let log = &self.booted().log;
        log.syncer().sync(mark_of(log, ready, state)).unwrap();
    }

    fn append(&mut self, back: u64, count: u64, bump: bool, size: usize) {
        let applied = self.booted().tables.applied().0;
        let last = self.oracle.last_index().unwrap();
        let after = last.saturating_sub(back).max(applied.max(self.oracle.first_index().unwrap() - 1));
        // A new leader's entries replace old ones only in a higher term; what it appends first may be of an older
        // one.
        let term = self.hard_state.term + u64::from(bump || after < last);
        let start_term = if after < last { self.oracle.term(after).unwrap() } else { term };
        let entries: Vec<Entry> = (1..=count)
            .map(|at| Entry {
                index: after + at,
                term: if at <= count / 2 { start_term } else { term },
                kind: [EntryKind::Normal, EntryKind::ConfChange, EntryKind::ConfChangeV2][(at % 3) as usize],
                data: Bytes::from(vec![at as u8; if at % 4 == 0 { 0 } else { size }]),
                context: Bytes::from(vec![7; size % 5]),
            })
            .collect();
        self.oracle.wl().append(&entries.iter().map(oracle_entry).collect::<Vec<_>>()).unwrap();
        let vote = if term > self.hard_state.term { 0 } else { self.hard_state.vote };
        let state = HardState { term, vote, commit: self.hard_state.commit };
        let truncate_after = (after < last).then_some(after);
        self.write(LogBatch { truncate_after, entries, hard_state: Some(state), snapshot: None });
    }

    fn compact(&mut self, tenths: u64) {
        let (first, last) = (self.oracle.first_index().unwrap(), self.oracle.last_index().unwrap());
        let applied = self.booted().tables.applied();
        let index = (first - 1) + (last + 1 - first) * tenths / 10;
        if index > applied.0 {
            let term = self.oracle.term(index).unwrap();
            common::apply_to(&mut self.booted().tables, index, term);
        }
        self.booted().tables.flush().unwrap();
        assert!(self.booted().tables.flushed().unwrap() >= index);
        self.booted().log.compact(index).unwrap();
        // MemStorage forgets the term of the truncated index when it forgets the last entry; a snapshot there keeps
        // it.
        if index >= first {
            let term = self.oracle.term(index).unwrap();
            let tail = self.oracle.entries(index + 1, last + 1, None, GetEntriesContext::empty(false));
            let tail = if index < last { tail.unwrap() } else { Vec::new() };
            self.oracle = MemStorage::new();
            self.oracle.wl().apply_snapshot(oracle_snapshot(index, term)).unwrap();
            self.oracle.wl().append(&tail).unwrap();
        }
    }

    fn install(&mut self, ahead: u64, bump: bool) {
        let applied = self.booted().tables.applied().0;
        let index = applied.max(self.oracle.first_index().unwrap()) + ahead;
        let term = self.hard_state.term + u64::from(bump);
        let (_machine, donor, made) = donor::<M>(index, term);
        let snapshot: Snapshot = transfer(&donor.snapshots, &made, &self.booted().snapshots).unwrap();
        let vote = if bump { 0 } else { self.hard_state.vote };
        let state = HardState { term, vote, commit: index };
        self.write(LogBatch { snapshot: Some(snapshot.clone()), hard_state: Some(state), ..LogBatch::default() });
        self.sync();
        self.booted().tables.restore(&snapshot).unwrap();
        self.oracle.wl().apply_snapshot(oracle_snapshot(index, term)).unwrap();
    }

    fn compare(&mut self) {
        let hard_state = self.hard_state;
        let log = &self.booted.as_ref().expect("open").log;
        assert_eq!(log.hard_state(), hard_state);
        let reader = log.reader();
        let (first, last) = (self.oracle.first_index().unwrap(), self.oracle.last_index().unwrap());
        assert_eq!((reader.first_index(), reader.last_index()), (first, last));
        for index in first - 1..=last {
            assert_eq!(reader.term(index).unwrap(), self.oracle.term(index).unwrap(), "term of {index}");
        }
        assert!(first < 2 || matches!(reader.term(first - 2), Err(LogReadError::Compacted)));
        assert!(matches!(reader.term(last + 1), Err(LogReadError::Unavailable)));
        assert!(matches!(reader.entries(first - 1, first, u64::MAX), Err(LogReadError::Compacted)));
        assert!(matches!(reader.entries(last + 1, last + 2, u64::MAX), Err(LogReadError::Unavailable)));
        for low in first..=last {
            let want = self.oracle.entries(low, last + 1, None, GetEntriesContext::empty(false)).unwrap();
            let got = reader.entries(low, last + 1, u64::MAX).unwrap();
            assert_eq!(got.iter().map(oracle_entry).collect::<Vec<_>>(), want, "entries from {low}");
            for limit in [0, 100, 1_000] {
                let some = reader.entries(low, last + 1, limit).unwrap();
                assert!(!some.is_empty() && some[..] == got[..some.len()], "a prefix of at least one");
                let data = |entries: &[Entry]| entries.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
                assert!(some.len() == 1 || data(&some) <= limit);
            }
        }
    }
}

fn oracle_entry(entry: &Entry) -> eraftpb::Entry {
    let mut out = eraftpb::Entry::default();
    out.set_index(entry.index);
    out.set_term(entry.term);
    out.set_entry_type(match entry.kind {
        EntryKind::Normal => eraftpb::EntryType::EntryNormal,
        EntryKind::ConfChange => eraftpb::EntryType::EntryConfChange,
        EntryKind::ConfChangeV2 => eraftpb::EntryType::EntryConfChangeV2,
    });
    out.set_data(entry.data.to_vec().into());
    out.set_context(entry.context.to_vec().into());
    // Sizes are cached in a message; equal entries must compare equal.
    out.compute_size();
    out
}

fn oracle_snapshot(index: Index, term: Term) -> eraftpb::Snapshot {
    let mut out = eraftpb::Snapshot::default();
    out.mut_metadata().set_index(index);
    out.mut_metadata().set_term(term);
    out
}

fn run<M: Machine>(steps: &[Step]) {
    let mut pair = Pair::<M>::new();
    pair.compare();
    for step in steps {
        pair.step(step);
        pair.compare();
    }
    pair.step(&Step::Reopen { clean: false });
    pair.compare();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_log_answers_as_mem_storage_on_the_simulated_disk(steps in steps()) {
        run::<SimMachine>(&steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40, max_shrink_iters: 50, failure_persistence: None, ..ProptestConfig::default()
    })]
    #[test]
    fn the_log_answers_as_mem_storage_on_rocksdb(steps in steps()) {
        run::<RocksMachine>(&steps);
    }
}
