//! What a boot accepts and what it refuses, each refusal with its own line.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{advance, append, apply_to, found, join, mark_of, voters, Machine, RocksMachine, SimMachine};
use raftgrid_driver::{HardState, LogBatch, LogReader, LogStore, SnapshotAnswer, Syncer};
use raftgrid_manifest::{Rows, Table};
use raftgrid_store::{Acquaintance, BootMode, Disk, Store, StoreError, LOST_LOG};

fn founding_writes_the_base<M: Machine>() {
    let machine = M::new();
    let mode = found(2, &[3, 1, 2]);
    for round in 0..2 {
        let booted = machine.open(mode.clone()).unwrap();
        assert_eq!(booted.report.created, round == 0);
        let initial = booted.log.initial_state();
        assert_eq!(initial.hard_state, HardState { term: 1, vote: 0, commit: 1 });
        assert_eq!((initial.applied, initial.conf), (1, voters(&[1, 2, 3])));
        let reader = booted.log.reader();
        assert_eq!((reader.first_index(), reader.last_index(), reader.term(1).unwrap()), (2, 1, 1));
        let meta = booted.log.snapshot_meta();
        assert_eq!((meta.index, meta.term, meta.conf), (1, 1, voters(&[1, 2, 3])));
        assert_eq!((booted.tables.applied(), booted.tables.conf()), ((1, 1), Some(&voters(&[1, 2, 3]))));
        assert_eq!(booted.tables.flushed().unwrap(), 1);
        // A founder without a snapshot orders one; it never hands out the base.
        assert!(matches!(reader.snapshot(1, 2), SnapshotAnswer::Ordered));
        let again = Store::identity(&machine.disk(), &machine.dir()).unwrap().unwrap();
        assert_eq!(again, booted.identity);
        assert_eq!((again.cluster_id.as_str(), again.node_id), ("grid-1", 2));
    }
}

#[test]
fn founding_writes_the_same_base_on_every_founder_and_opens_it_again() {
    founding_writes_the_base::<SimMachine>();
    founding_writes_the_base::<RocksMachine>();
}

/// A power cut takes the mark back to what it was when it was last fsynced; a loss after that must be noticed all the same.
#[test]
fn a_boot_makes_the_mark_of_the_log_that_it_found_durable() {
    let machine = SimMachine::new();
    let mark = |machine: &SimMachine| machine.disk().read(&machine.dir().join("synced")).unwrap().unwrap();
    let mut booted = machine.open(found(1, &[1])).unwrap();
    booted.log.write(append([(2, 1), (3, 1)], 1)).unwrap();
    common::sync(&booted, 1);
    let noted = mark(&machine);
    let cut = machine.stopped(common::Crash::WorstPowerCut);
    assert_ne!(mark(&cut), noted, "it was not fsynced");
    let again = cut.open(found(1, &[1])).unwrap();
    assert_eq!(again.log.reader().last_index(), 3);
    let renewed = mark(&cut);
    assert_eq!(mark(&cut.stopped(common::Crash::WorstPowerCut)), renewed, "now it is");
    // Index and term of the last entry, the hard state's term and vote: all but the number of the Ready.
    assert_eq!(renewed[16..48], noted[16..48]);
}

#[test]
fn a_joiner_starts_empty_and_stays_empty() {
    let machine = RocksMachine::new();
    for _ in 0..2 {
        let booted = machine.open(join(4)).unwrap();
        let initial = booted.log.initial_state();
        assert_eq!((initial.hard_state, initial.applied), (HardState::default(), 0));
        assert_eq!(initial.conf, voters(&[]));
        let reader = booted.log.reader();
        assert_eq!((reader.first_index(), reader.last_index(), reader.term(0).unwrap()), (1, 0, 0));
        assert_eq!(booted.tables.conf(), None);
        assert!(booted.tables.checkpointer().make().is_err(), "nothing to make a snapshot of");
    }
    // A joiner that is told to found would lead alone.
    let refused = machine.open(found(4, &[4])).map(drop);
    assert!(matches!(refused, Err(StoreError::FoundingJoiner { .. })), "{refused:?}");
    machine.open(join(4)).unwrap();
}

#[test]
fn an_empty_log_beside_tables_with_a_configuration_is_refused() {
    let machine = SimMachine::new();
    let mut booted = machine.open(join(4)).unwrap();
    booted.tables.commit(&[], (0, 0), Some(&voters(&[4]))).unwrap();
    booted.tables.flush().unwrap();
    drop(booted);
    assert!(matches!(machine.open(join(4)), Err(StoreError::Damaged { .. })));

    let machine = SimMachine::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    booted.tables.commit(&[], (1, 1), Some(&voters(&[2]))).unwrap();
    booted.tables.flush().unwrap();
    drop(booted);
    assert!(matches!(machine.open(found(2, &[1, 2, 3])), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_directory_of_another_cluster_or_node_is_refused_in_one_line_and_stays_as_it_is() {
    let machine = RocksMachine::new();
    machine.open(found(2, &[1, 2, 3])).unwrap();
    let other = |cluster: &str, node_id| BootMode::Join { cluster_id: cluster.into(), node_id };
    let cluster = machine.open(other("grid-2", 2)).map(drop).unwrap_err();
    assert!(matches!(cluster, StoreError::OtherCluster { .. }));
    let node = machine.open(other("grid-1", 3)).map(drop).unwrap_err();
    assert!(matches!(node, StoreError::OtherNode { found: 2, wanted: 3, .. }));
    for text in [cluster.to_string(), node.to_string()] {
        assert!(!text.contains('\n') && text.contains("its own data directory"), "{text}");
    }
    // A founder that comes back without the list is still itself.
    machine.open(other("grid-1", 2)).unwrap();
}

#[test]
fn a_second_process_is_kept_out() {
    let machine = RocksMachine::new();
    let first = machine.open(found(2, &[1, 2, 3])).unwrap();
    let second = machine.open(found(2, &[1, 2, 3])).map(drop);
    assert!(matches!(second, Err(StoreError::Busy { .. })), "{second:?}");
    drop(first);
    machine.open(found(2, &[1, 2, 3])).unwrap();
}

#[test]
fn founders_that_make_no_sense_are_refused_before_anything_is_written() {
    let machine = RocksMachine::new();
    let empty = BootMode::Join { cluster_id: String::new(), node_id: 1 };
    for mode in
        [found(0, &[1]), found(4, &[1, 2, 3]), found(1, &[1, 1]), found(1, &[0, 1]), found(1, &[]), join(0), empty]
    {
        assert!(matches!(machine.open(mode.clone()), Err(StoreError::Founders { .. })), "{mode:?}");
    }
    assert!(!machine.dir().exists());
}

#[test]
fn a_restart_without_a_flush_leaves_the_tables_behind_and_the_log_has_the_rest() {
    let machine = RocksMachine::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    advance(&mut booted, 40, 2);
    booted.tables.flush().unwrap();
    advance(&mut booted, 90, 3);
    assert_eq!(booted.tables.applied(), (90, 3));
    assert_eq!(booted.tables.flushed().unwrap(), 40, "flushed is what a crash would leave");
    let hard_state = HardState { term: 3, vote: 1, commit: 35 };
    booted.log.write(LogBatch { hard_state: Some(hard_state), ..LogBatch::default() }).unwrap();

    let next = machine.stopped(common::Crash::Kill);
    let mut again = next.open(found(2, &[1, 2, 3])).unwrap();
    assert_eq!(again.tables.applied(), (40, 2));
    assert_eq!(again.tables.get(Table::Task, b"last").unwrap().as_deref(), Some(&b"40"[..]));
    let initial = again.log.initial_state();
    // The commit index is at least what was applied.
    assert_eq!((initial.applied, initial.hard_state.commit, initial.hard_state.vote), (40, 40, 1));
    let tail = again.log.reader().entries(41, 91, u64::MAX).unwrap();
    assert_eq!(tail.len(), 50);
    for entry in tail {
        apply_to(&mut again.tables, entry.index, entry.term);
    }
    assert_eq!(again.tables.applied(), (90, 3));
    let row = |tables: &dyn Rows| tables.get(Table::Task, b"last").unwrap();
    assert_eq!(row(&again.tables), row(&booted.tables));
}

#[test]
fn tables_behind_the_start_of_the_log_are_refused() {
    let machine = SimMachine::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    advance(&mut booted, 40, 2);
    // The driver never does this before a flush.
    booted.log.compact(30).unwrap();
    drop(booted);
    assert!(matches!(machine.open(found(2, &[1, 2, 3])), Err(StoreError::Damaged { .. })));
}

/// The newest write-ahead file of the log: the one with the entries.
fn wal(dir: &Path) -> PathBuf {
    let names = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = names.filter(|path| path.extension().is_some_and(|kind| kind == "log")).collect();
    files.sort();
    files.pop().unwrap()
}

/// A replica with two hundred synced entries, killed; and the bytes of its write-ahead file.
fn killed_with_a_long_log() -> (RocksMachine, PathBuf, Vec<u8>) {
    let machine = RocksMachine::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    for index in 2..=200 {
        booted.log.write(append([(index, 2)], 2)).unwrap();
        if index % 20 == 0 {
            common::sync(&booted, index);
        }
    }
    let next = machine.stopped(common::Crash::Kill);
    let path = wal(&next.dir());
    let bytes = fs::read(&path).unwrap();
    (next, path, bytes)
}

fn refused_as_lost(machine: &RocksMachine, what: &str) {
    let error = match machine.open(found(2, &[1, 2, 3])) {
        Ok(booted) => panic!("{what}: opened with the log ending at {}", booted.log.reader().last_index()),
        Err(error) => error,
    };
    assert!(matches!(error, StoreError::LostLog { .. }), "{what}: {error}");
    let text = error.to_string();
    assert!(text.starts_with(LOST_LOG) && !text.contains('\n'), "{text}");
}

#[test]
fn a_log_whose_tail_is_cut_off_is_refused() {
    for cut_tenths in 1..=9 {
        let (machine, path, bytes) = killed_with_a_long_log();
        // The file may have been laid out longer than it is filled.
        let filled = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        fs::write(&path, &bytes[..filled * cut_tenths / 10]).unwrap();
        refused_as_lost(&machine, &format!("cut at {cut_tenths} tenths"));
    }
}

#[test]
fn a_log_with_one_bit_flipped_is_refused() {
    for at_tenths in 1..=9 {
        let (machine, path, mut bytes) = killed_with_a_long_log();
        let filled = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        bytes[filled * at_tenths / 10] ^= 4;
        fs::write(&path, &bytes).unwrap();
        refused_as_lost(&machine, &format!("flipped at {at_tenths} tenths"));
    }
}

#[test]
fn a_torn_record_that_was_never_synced_is_no_loss() {
    let machine = RocksMachine::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    advance(&mut booted, 20, 2);
    booted.log.write(append([(21, 2)], 2)).unwrap();
    let next = machine.stopped(common::Crash::Kill);
    let path = wal(&next.dir());
    let bytes = fs::read(&path).unwrap();
    let filled = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    fs::write(&path, &bytes[..filled - 3]).unwrap();
    let booted = next.open(found(2, &[1, 2, 3])).unwrap();
    assert_eq!(booted.log.reader().last_index(), 20);
}

#[test]
fn what_is_written_while_an_fsync_runs_may_be_lost_and_is_not_missed() {
    let machine = RocksMachine::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    advance(&mut booted, 20, 2);
    let before = machine.stopped(common::Crash::Kill);
    let mut syncer = booted.log.syncer();
    let mark = mark_of(&booted.log, 5, booted.log.hard_state());
    syncer.begin();
    booted.log.write(append([(21, 2)], 2)).unwrap();
    syncer.sync(mark).unwrap();
    let noted = fs::read(machine.dir().join("synced")).unwrap();
    fs::write(before.dir().join("synced"), noted).unwrap();
    let booted = before.open(found(2, &[1, 2, 3])).unwrap();
    assert_eq!(booted.log.reader().last_index(), 20, "the mark speaks of what was there when the fsync began");
}

#[test]
fn a_log_that_is_gone_or_whose_mark_is_damaged_is_refused() {
    let (machine, _, _) = killed_with_a_long_log();
    fs::remove_dir_all(machine.dir().join("log")).unwrap();
    refused_as_lost(&machine, "log gone");

    let (machine, _, _) = killed_with_a_long_log();
    fs::remove_file(machine.dir().join("synced")).unwrap();
    refused_as_lost(&machine, "mark gone");

    let (machine, _, _) = killed_with_a_long_log();
    let mut mark = fs::read(machine.dir().join("synced")).unwrap();
    mark[20] ^= 1;
    fs::write(machine.dir().join("synced"), mark).unwrap();
    refused_as_lost(&machine, "mark damaged");
}

#[test]
fn an_older_log_put_back_is_refused() {
    // A backup of the log from before a vote: the replica would vote twice in one term.
    let machine = RocksMachine::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    advance(&mut booted, 20, 2);
    let old = machine.stopped(common::Crash::Kill);
    let hard_state = HardState { term: 3, vote: 1, commit: 20 };
    booted.log.write(LogBatch { hard_state: Some(hard_state), ..LogBatch::default() }).unwrap();
    booted.log.syncer().sync(mark_of(&booted.log, 5, hard_state)).unwrap();
    let mark = fs::read(machine.dir().join("synced")).unwrap();
    fs::write(old.dir().join("synced"), mark).unwrap();
    refused_as_lost(&old, "older hard state");
}

#[test]
fn a_log_without_an_identity_or_without_its_tables_is_refused() {
    let machine = RocksMachine::new();
    let booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    let state = booted.log.state_dir();
    drop(booted);
    let spoiled = machine.stopped(common::Crash::Kill);
    fs::remove_file(spoiled.dir().join("identity")).unwrap();
    assert!(matches!(spoiled.open(found(2, &[1, 2, 3])), Err(StoreError::Damaged { .. })));
    let spoiled = machine.stopped(common::Crash::Kill);
    fs::remove_dir_all(spoiled.dir().join(state)).unwrap();
    assert!(matches!(spoiled.open(found(2, &[1, 2, 3])), Err(StoreError::Damaged { .. })));
    for text in ["", "{", "{\"format\":1}", "{\"format\":2}", "[]"] {
        let spoiled = machine.stopped(common::Crash::Kill);
        fs::write(spoiled.dir().join("identity"), text).unwrap();
        assert!(matches!(spoiled.open(found(2, &[1, 2, 3])), Err(StoreError::Damaged { .. })), "{text:?}");
    }
    let newer = machine.stopped(common::Crash::Kill);
    fs::write(newer.dir().join("identity"), "{\"format\":3,\"shape\":\"unknown\"}").unwrap();
    assert!(matches!(newer.open(found(2, &[1, 2, 3])), Err(StoreError::NewerFormat { found: 3, .. })));
}

#[test]
fn leftovers_go_and_foreign_files_stay() {
    let machine = RocksMachine::new();
    drop(machine.open(found(2, &[1, 2, 3])).unwrap());
    let dir = machine.dir();
    for name in ["state-9-0123456789abcdef", "staging-0123456789abcdef", "snapshots/making-0123456789abcdef", "blobs"] {
        machine.disk().create_dir(&dir.join(name)).unwrap();
        fs::write(dir.join(name).join("x"), "x").unwrap();
    }
    let booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    assert_eq!(booted.report.removed.len(), 3, "{:?}", booted.report);
    assert!(dir.join("blobs/x").exists() && dir.join(booted.log.state_dir()).exists());
    assert!(!dir.join("snapshots/making-0123456789abcdef").exists());
}

#[test]
fn batches_that_break_the_rules_of_the_log_are_refused_and_change_nothing() {
    let machine = SimMachine::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    advance(&mut booted, 10, 3);
    let entries = |list: &[(u64, u64)]| {
        let entries = list.iter().map(|(index, term)| common::entry(*index, *term, "x")).collect();
        LogBatch { entries, ..LogBatch::default() }
    };
    let fallen = HardState { term: 2, vote: 0, commit: 1 };
    let cut = LogBatch { truncate_after: Some(0), ..LogBatch::default() };
    let old = LogBatch { hard_state: Some(fallen), ..LogBatch::default() };
    for bad in [entries(&[(12, 3)]), entries(&[(11, 3), (13, 3)]), entries(&[(11, 2)]), entries(&[(1, 1)]), cut, old] {
        assert!(booted.log.write(bad.clone()).is_err(), "{bad:?}");
    }
    assert!(booted.log.compact(11).is_err());
    let reader = booted.log.reader();
    assert_eq!((reader.first_index(), reader.last_index(), booted.log.hard_state().term), (2, 10, 3));
    booted.log.write(entries(&[(11, 3)])).unwrap();
}

#[test]
fn a_store_that_was_met_is_known_after_a_restart_and_one_that_the_rows_say_is_not_replaced() {
    let machine = SimMachine::new();
    let booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    booted.peer_stores.learn(3, [3; 16]);
    assert_eq!(booted.peer_stores.meet(3, [9; 16]).unwrap(), Acquaintance::Other);
    assert_eq!(booted.peer_stores.meet(1, [1; 16]).unwrap(), Acquaintance::Known);
    booted.peer_stores.learn(1, [8; 16]);
    drop(booted);
    let booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    assert_eq!(booted.peer_stores.meet(1, [8; 16]).unwrap(), Acquaintance::Other);
    assert_eq!(booted.peer_stores.meet(1, [1; 16]).unwrap(), Acquaintance::Known);
}
