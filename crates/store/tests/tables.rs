//! The state tables: whole commits only, in views, in snapshots, and after a crash; snapshots on the shelf and on
//! their way.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{
    advance, append, apply_to, donor, found, put, transfer, voters, Budget, FaultDisk, Machine, RocksMachine,
    SimMachine,
};
use raftgrid_driver::{HardState, LogBatch, LogReader, LogStore, Snapshot, SnapshotAnswer};
use raftgrid_manifest::{Change, MemRows, Rows, Table};
use raftgrid_store::{Booted, Disk, RoomWatch, StateTables, Store, StoreError};

/// One entry's changes: three rows that must always agree, with some weight so that flushes happen by themselves.
fn triple(index: u64) -> Vec<Change> {
    let value = format!("{index:020}{}", "x".repeat(500));
    vec![
        put(Table::Task, b"a", value.as_bytes()),
        put(Table::Node, b"b", value.as_bytes()),
        put(Table::Digest, b"c", value.as_bytes()),
        put(Table::TaskByStatus, format!("{:04}", index % 5_000).as_bytes(), value.as_bytes()),
    ]
}

fn number(rows: &impl Rows, table: Table, key: &[u8]) -> u64 {
    rows.get(table, key).unwrap().map_or(1, |value| String::from_utf8_lossy(&value[..20]).parse().unwrap())
}

#[test]
fn a_view_stands_still_and_sees_whole_commits_only() {
    let machine = RocksMachine::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    let reader = booted.tables.reader();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for index in 2..=20_000 {
                booted.tables.commit(&triple(index), (index, 1), None).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let mut seen = 0;
        let mut rounds = 0u64;
        while !done.load(Ordering::Acquire) || rounds == 0 {
            let view = reader.view();
            let (index, _) = view.applied().unwrap();
            assert!(index >= seen, "views go forward");
            seen = index;
            for (table, key) in [(Table::Task, b"a"), (Table::Node, b"b"), (Table::Digest, b"c")] {
                assert_eq!(number(&view, table, key), index);
            }
            let copy = view.clone();
            assert_eq!(thread::spawn(move || copy.applied().unwrap().0).join().unwrap(), index);
            rounds += 1;
        }
        assert_eq!(reader.view().applied().unwrap().0, 20_000);
    });
    assert!(booted.tables.flushed().unwrap() <= 20_000);
}

#[test]
fn rows_read_as_they_do_from_rows_in_memory() {
    fn check<M: Machine>() {
        let machine = M::new();
        let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
        let mut oracle = MemRows::default();
        let keys: [&[u8]; 7] = [b"", b"a", b"ab", b"b", b"\x00", b"\xff", b"\xff\xff"];
        let mut changes = Vec::new();
        for table in [Table::Meta, Table::Task, Table::TaskById, Table::Digest] {
            changes.extend(keys.iter().map(|key| put(table, key, &[&[table as u8], *key].concat())));
        }
        changes.push(Change { table: Table::Task, key: b"ab".to_vec(), value: None });
        oracle.write(&changes);
        booted.tables.commit(&changes, (2, 1), None).unwrap();
        let view = booted.tables.view();
        for table in [Table::Meta, Table::Task, Table::TaskById, Table::Node, Table::Digest] {
            for from in keys {
                assert_eq!(booted.tables.get(table, from).unwrap(), oracle.get(table, from).unwrap());
                // MemRows, like any sorted map, wants from <= to.
                for to in keys.into_iter().filter(|to| to.is_empty() || from <= *to) {
                    let all = |rows: &dyn Rows, back: bool, limit: usize| {
                        let mut out = Vec::new();
                        let mut visit = |key: &[u8], value: &[u8]| {
                            out.push((key.to_vec(), value.to_vec()));
                            out.len() < limit
                        };
                        if back {
                            rows.scan_back(table, from, to, &mut visit).unwrap();
                        } else {
                            rows.scan(table, from, to, &mut visit).unwrap();
                        }
                        out
                    };
                    for (back, limit) in [(false, 99), (true, 99), (false, 2), (true, 2)] {
                        let want = all(&oracle, back, limit);
                        assert_eq!(all(&booted.tables, back, limit), want, "{table:?} {from:?}..{to:?}");
                        assert_eq!(all(&view, back, limit), want, "{table:?} {from:?}..{to:?}");
                    }
                }
            }
        }
    }
    check::<SimMachine>();
    check::<RocksMachine>();
}

#[test]
fn snapshots_made_while_writes_go_on_are_each_one_consistent_cut() {
    let machine = RocksMachine::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    let checkpointer = booted.tables.checkpointer();
    let shelf = booted.snapshots.clone();
    let done = AtomicBool::new(false);
    let made = thread::scope(|scope| {
        let maker = scope.spawn(|| {
            let mut made = Vec::new();
            while !done.load(Ordering::Acquire) || made.is_empty() {
                let snapshot = checkpointer.make().unwrap();
                // Taken out at once, since only three are kept.
                let target = RocksMachine::new();
                let mut joiner = target.open(common::join(4)).unwrap();
                let received = transfer(&shelf, &snapshot, &joiner.snapshots).unwrap();
                let hard_state = HardState { term: 9, vote: 0, commit: received.meta.index };
                let batch =
                    LogBatch { snapshot: Some(received.clone()), hard_state: Some(hard_state), ..LogBatch::default() };
                joiner.log.write(batch).unwrap();
                joiner.tables.restore(&received).unwrap();
                for (table, key) in [(Table::Task, b"a"), (Table::Node, b"b"), (Table::Digest, b"c")] {
                    assert_eq!(number(&joiner.tables, table, key), snapshot.meta.index);
                }
                made.push(snapshot.meta.index);
            }
            made
        });
        let mut index = 1;
        // Until three were made at least: the number of commits is what adapts, not the verdict.
        while booted.snapshots.list().len() < 3 || index < 5_000 {
            index += 1;
            booted.tables.commit(&triple(index), (index, 1), None).unwrap();
        }
        done.store(true, Ordering::Release);
        maker.join().unwrap()
    });
    assert!(made.windows(2).all(|pair| pair[0] <= pair[1]) && made.len() >= 3, "{made:?}");
}

fn flushed_follows_applied<M: Machine>() {
    let machine = M::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    let check = |tables: &StateTables<M::D>, at: u64| {
        assert_eq!(tables.flushed().unwrap(), at);
        assert_eq!(tables.reader().flushed().unwrap(), at);
        assert!(at <= tables.applied().0);
    };
    check(&booted.tables, 1);
    apply_to(&mut booted.tables, 5, 1);
    check(&booted.tables, 1);
    booted.tables.flush().unwrap();
    check(&booted.tables, 5);
    apply_to(&mut booted.tables, 6, 1);
    check(&booted.tables, 5);
    // A snapshot costs a flush.
    booted.tables.checkpointer().make().unwrap();
    check(&booted.tables, 6);
    assert!(booted.tables.commit(&[], (5, 1), None).is_err(), "applied never falls");
    check(&booted.tables, 6);
}

#[test]
fn flushed_is_what_a_crash_would_leave_and_never_above_applied() {
    flushed_follows_applied::<SimMachine>();
    flushed_follows_applied::<RocksMachine>();
}

#[test]
fn a_requested_flush_ends_in_the_background() {
    let machine = RocksMachine::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    apply_to(&mut booted.tables, 5, 1);
    booted.tables.request_flush().unwrap();
    // A waiting flush ends after the one in the background.
    apply_to(&mut booted.tables, 6, 1);
    booted.tables.flush().unwrap();
    assert_eq!(booted.tables.flushed().unwrap(), 6);
}

#[test]
fn three_snapshots_are_kept_and_one_that_is_being_sent_stays() {
    let machine = RocksMachine::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    let checkpointer = booted.tables.checkpointer();
    let first = checkpointer.make().unwrap();
    assert_eq!(checkpointer.make().unwrap(), first, "nothing was applied since");
    let sending = booted.snapshots.open(&first.name).unwrap();
    for index in 2..=6 {
        advance(&mut booted, index, 1);
        checkpointer.make().unwrap();
    }
    let kept: Vec<_> = booted.snapshots.list().iter().map(|snapshot| snapshot.meta.index).collect();
    assert_eq!(kept, [4, 5, 6]);
    let on_disk = || std::fs::read_dir(machine.dir().join("snapshots")).unwrap().count();
    assert_eq!(on_disk(), 4);
    let file = &sending.files()[0];
    assert_eq!(sending.read(&file.name, 0, 1 << 20).unwrap().len() as u64, file.bytes);
    assert!(sending.read("../../identity", 0, 10).is_err());
    drop(sending);
    assert_eq!(on_disk(), 3);
    assert!(matches!(booted.snapshots.open(&first.name), Err(StoreError::NoSnapshot { .. })));
    // Whatever holds the tables open keeps the directory.
    drop(booted);
    assert!(matches!(machine.open(found(2, &[1, 2, 3])), Err(StoreError::Busy { .. })));
    drop(checkpointer);
    let booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    let again: Vec<_> = booted.snapshots.list().iter().map(|snapshot| snapshot.meta.clone()).collect();
    assert_eq!(again.iter().map(|meta| meta.index).collect::<Vec<_>>(), kept);
    assert!(again.iter().all(|meta| meta.conf == voters(&[1, 2, 3])));
}

/// A snapshot of a real machine that was sent once.
fn sent_once<D: Disk>(booted: &mut Booted<D>) -> Snapshot {
    advance(booted, 2, 1);
    let made = booted.tables.checkpointer().make().unwrap();
    drop(booted.snapshots.open(&made.name).unwrap());
    made
}

#[test]
fn a_damaged_snapshot_leaves_the_shelf_when_it_is_sent_again_and_the_disk_with_its_last_reader() {
    let machine = RocksMachine::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    let made = sent_once(&mut booted);
    let sending = booted.snapshots.open(&made.name).unwrap();
    let folder = machine.dir().join("snapshots").join(&made.name);
    let table = sending.files().iter().find(|file| file.name.ends_with(".sst")).expect("it has rows").name.clone();
    // The file is one with that of the tables in use: the damage goes into a copy.
    let mut bytes = std::fs::read(folder.join(&table)).unwrap();
    bytes.iter_mut().take(64).for_each(|byte| *byte ^= 0x55);
    std::fs::remove_file(folder.join(&table)).unwrap();
    std::fs::write(folder.join(&table), bytes).unwrap();
    assert!(matches!(booted.snapshots.open(&made.name), Err(StoreError::Disk(_))));
    assert!(booted.snapshots.list().is_empty(), "another is made in its place");
    assert!(folder.exists(), "somebody still reads it");
    assert!(matches!(booted.snapshots.open(&made.name), Err(StoreError::NoSnapshot { .. })));
    drop(sending);
    assert!(!folder.exists());
    let again = booted.tables.checkpointer().make().unwrap();
    assert_eq!(again.meta, made.meta);
}

#[test]
fn a_snapshot_that_could_not_be_looked_at_stays_and_is_looked_at_again() {
    let machine = RocksMachine::new();
    let budget = Budget::new(1 << 40);
    let disk = FaultDisk { inner: machine.disk(), budget: budget.clone() };
    let mut booted = Store::open(disk, &machine.dir(), found(2, &[1, 2, 3])).unwrap();
    let made = sent_once(&mut booted);
    budget.set(-1);
    assert!(matches!(booted.snapshots.open(&made.name), Err(StoreError::Disk(_))), "the medium does not answer");
    assert_eq!(booted.snapshots.newest().as_ref(), Some(&made));
    budget.set(1 << 40);
    assert_eq!(booted.snapshots.open(&made.name).unwrap().snapshot(), &made);
}

#[test]
fn the_log_serves_only_a_snapshot_that_helps_the_one_who_asks() {
    let machine = RocksMachine::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    advance(&mut booted, 10, 2);
    let made = booted.tables.checkpointer().make().unwrap();
    let reader = booted.log.reader();
    let index = |answer| match answer {
        SnapshotAnswer::Ready(snapshot) => Some(snapshot.meta.index),
        SnapshotAnswer::Ordered => None,
    };
    assert_eq!(index(reader.snapshot(0, 3)), Some(10));
    assert_eq!(index(reader.snapshot(10, 3)), Some(10));
    assert_eq!(index(reader.snapshot(11, 3)), None, "too old for the request");
    assert_eq!(index(reader.snapshot(0, 4)), None, "node 4 is not in its configuration");
    advance(&mut booted, 20, 2);
    let with_four = raftgrid_driver::ConfState { learners: vec![4], ..voters(&[1, 2, 3]) };
    booted.log.write(append([(21, 2)], 2)).unwrap();
    booted.tables.commit(&[], (21, 2), Some(&with_four)).unwrap();
    booted.tables.flush().unwrap();
    booted.log.compact(12).unwrap();
    assert_eq!(index(reader.snapshot(0, 3)), None, "the log no longer follows {made:?}");
    booted.tables.checkpointer().make().unwrap();
    assert_eq!(index(reader.snapshot(0, 4)), Some(21));
}

#[test]
fn a_restore_changes_over_and_old_views_stay_good() {
    let (_machine, donor, made) = donor::<RocksMachine>(50, 4);
    let machine = RocksMachine::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    advance(&mut booted, 10, 2);
    booted.tables.flush().unwrap();
    let (old_view, reader, old_dir) = (booted.tables.view(), booted.tables.reader(), booted.log.state_dir());
    let unused = transfer(&donor.snapshots, &made, &booted.snapshots).unwrap();
    let received = transfer(&donor.snapshots, &made, &booted.snapshots).unwrap();
    let hard_state = HardState { term: 4, vote: 0, commit: 50 };
    let batch = LogBatch { snapshot: Some(received.clone()), hard_state: Some(hard_state), ..LogBatch::default() };
    booted.log.write(batch).unwrap();
    common::sync(&booted, 3);
    assert_eq!(booted.tables.applied(), (10, 2), "the tables change over when the apply thread says so");
    booted.tables.restore(&received).unwrap();
    booted.tables.restore(&received).unwrap();
    assert_eq!((booted.tables.applied(), booted.tables.flushed().unwrap()), ((50, 4), 50));
    assert_eq!(reader.view().applied().unwrap(), (50, 4));
    assert_eq!(old_view.applied().unwrap(), (10, 2));
    assert_eq!(old_view.get(Table::Task, b"last").unwrap().as_deref(), Some(&b"10"[..]));
    let exists = |name: &str| machine.dir().join(name).exists();
    assert!(!exists(&old_dir) && exists(&received.name) && !exists(&unused.name));
    advance(&mut booted, 60, 4);
    drop((booted, old_view, reader));
    let booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    assert_eq!((booted.tables.applied(), booted.log.reader().first_index()), ((60, 4), 51));
}

#[test]
fn the_ballast_is_set_aside_only_where_there_is_room() {
    let machine = RocksMachine::new();
    drop(machine.open(found(2, &[1, 2, 3])).unwrap());
    let watch = |low| RoomWatch::with_limits(machine.disk(), &machine.dir(), low, 1 << 20);
    let roomy = watch(1);
    let room = roomy.check().unwrap();
    assert!(!room.low && room.free_bytes > 0);
    assert!(roomy.keep_ballast().unwrap() && roomy.keep_ballast().unwrap());
    assert_eq!(std::fs::metadata(machine.dir().join("ballast")).unwrap().len(), 1 << 20);
    roomy.release_ballast().unwrap();
    assert!(!machine.dir().join("ballast").exists());
    let narrow = watch(u64::MAX);
    assert!(narrow.check().unwrap().low && !narrow.keep_ballast().unwrap());
}
