//! A snapshot install, and a founding, stopped after each single change of the disk: the next boot finds the old pair
//! of log and tables or the new pair, and nothing between (durability rule 5).

mod common;

use common::{
    advance, append, donor, found, join, mark_of, transfer, Budget, Crash, FaultDisk, Machine, RocksMachine, SimMachine,
};
use raftgrid_driver::{HardState, LogBatch, LogReader, LogStore, Snapshot, Syncer};
use raftgrid_manifest::{Rows, Table};
use raftgrid_store::{BootMode, Booted, Disk, Store, StoreError};

const PLENTY: i64 = 1 << 40;

fn fault<M: Machine>(machine: &M) -> FaultDisk<M::D> {
    FaultDisk { inner: machine.disk(), budget: Budget::new(PLENTY) }
}

/// How far an install got before the machine stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    Nothing,
    Staged,
    Written,
    Synced,
    Restored,
}

fn install<A: Disk, D: Disk>(donor: &Booted<A>, made: &Snapshot, to: &mut Booted<D>) -> Reached {
    let Ok(snapshot) = transfer(&donor.snapshots, made, &to.snapshots) else { return Reached::Nothing };
    let hard_state = HardState { term: 4, vote: 0, commit: 20 };
    let batch = LogBatch { snapshot: Some(snapshot.clone()), hard_state: Some(hard_state), ..LogBatch::default() };
    if to.log.write(batch).is_err() {
        return Reached::Staged;
    }
    let mark = mark_of(&to.log, 9, hard_state);
    if to.log.syncer().sync(mark).is_err() {
        return Reached::Written;
    }
    match to.tables.restore(&snapshot) {
        Ok(()) => Reached::Restored,
        Err(_) => Reached::Synced,
    }
}

fn check_pair<D: Disk>(booted: &Booted<D>, reached: Reached, mode: &BootMode) {
    let reader = booted.log.reader();
    let initial = booted.log.initial_state();
    let (applied, _) = booted.tables.applied();
    let row = booted.tables.get(Table::Task, b"from").unwrap();
    assert_eq!(initial.applied, applied);
    if reader.first_index() == 21 {
        assert!(reached >= Reached::Staged, "new pair before the log was written");
        assert_eq!((applied, reader.last_index(), initial.hard_state.commit), (20, 20, 20));
        assert_eq!(row.as_deref(), Some(&b"donor"[..]));
        assert_eq!(initial.conf.voters, [1, 2, 3]);
    } else {
        assert!(reached <= Reached::Written, "old pair after the install was durable");
        assert_eq!(row, None);
        match mode {
            BootMode::Found { .. } => {
                assert_eq!((reader.first_index(), reader.last_index()), (2, 10));
                assert!((1..=5).contains(&applied));
            }
            BootMode::Join { .. } => {
                assert_eq!((reader.first_index(), reader.last_index(), applied), (1, 0, 0));
                assert_eq!(initial.conf.voters.len(), 0);
            }
        }
    }
}

fn leftovers<M: Machine>(machine: &M, booted: &Booted<M::D>) -> Vec<String> {
    let names = machine.disk().list(&machine.dir()).unwrap().into_iter().map(|entry| entry.name);
    let extra = |name: &String| name.starts_with("state-") || name.starts_with("staging-");
    names.filter(extra).filter(|name| *name != booted.log.state_dir()).collect()
}

type Faulty<M> = FaultDisk<<M as Machine>::D>;

fn prepared<M: Machine>(mode: &BootMode) -> (M, Faulty<M>, Booted<Faulty<M>>) {
    let machine = M::new();
    let disk = fault(&machine);
    let mut booted = Store::open(disk.clone(), &machine.dir(), mode.clone()).unwrap();
    if let BootMode::Found { .. } = mode {
        advance(&mut booted, 5, 2);
        booted.log.write(append((6..=10).map(|index| (index, 3)), 3)).unwrap();
        common::sync(&booted, 2);
    }
    (machine, disk, booted)
}

fn stop_after_each_change_of_an_install<M: Machine>(mode: BootMode) {
    let (_machine, donor, made) = donor::<M>(20, 4);
    let mut seen = Vec::new();
    for changes in 0.. {
        let (machine, disk, mut booted) = prepared::<M>(&mode);
        disk.budget.set(changes);
        let reached = install(&donor, &made, &mut booted);
        let done = !disk.budget.is_spent();
        seen.push(reached);
        for crash in M::crashes() {
            let next = machine.stopped(crash);
            let booted = next.open(mode.clone()).unwrap_or_else(|error| {
                panic!("after {changes} changes ({reached:?}) and {crash:?}: {error}");
            });
            check_pair(&booted, reached, &mode);
            assert_eq!(leftovers(&next, &booted), Vec::<String>::new());
        }
        if done {
            break;
        }
    }
    seen.dedup();
    // The budget really stopped the install at every stage.
    assert_eq!(seen, [Reached::Nothing, Reached::Staged, Reached::Written, Reached::Synced, Reached::Restored]);
}

#[test]
fn a_crash_after_each_step_of_an_install_boots_the_old_or_the_new_pair_simulated() {
    stop_after_each_change_of_an_install::<SimMachine>(found(2, &[1, 2, 3]));
}

#[test]
fn a_crash_after_each_step_of_an_install_boots_the_old_or_the_new_pair_on_rocksdb() {
    stop_after_each_change_of_an_install::<RocksMachine>(found(2, &[1, 2, 3]));
}

#[test]
fn a_crash_after_each_step_of_a_joiners_first_install_boots_simulated() {
    stop_after_each_change_of_an_install::<SimMachine>(join(4));
}

fn stop_after_each_change_of_a_first_start<M: Machine>(mode: BootMode) {
    for changes in 0.. {
        let machine = M::new();
        let disk = fault(&machine);
        disk.budget.set(changes);
        let first = Store::open(disk.clone(), &machine.dir(), mode.clone());
        let done = !disk.budget.is_spent();
        assert_eq!(first.is_ok(), done);
        let uuid = first.as_ref().ok().map(|booted| booted.identity.store_uuid);
        for crash in M::crashes() {
            let next = machine.stopped(crash);
            let booted = next.open(mode.clone()).unwrap_or_else(|error| {
                panic!("after {changes} changes and {crash:?}: {error}");
            });
            let reader = booted.log.reader();
            let expected = if matches!(mode, BootMode::Found { .. }) { (2, 1, (1, 1)) } else { (1, 0, (0, 0)) };
            assert_eq!((reader.first_index(), reader.last_index(), booted.tables.applied()), expected);
            // Once it was open it may have been in contact: it must be the same directory for ever.
            assert!(uuid.is_none_or(|uuid| uuid == booted.identity.store_uuid && !booted.report.created));
            assert_eq!(leftovers(&next, &booted), Vec::<String>::new());
        }
        if done {
            break;
        }
    }
}

#[test]
fn a_crash_after_each_step_of_a_founding_founds_again_or_boots() {
    stop_after_each_change_of_a_first_start::<SimMachine>(found(2, &[1, 2, 3]));
    stop_after_each_change_of_a_first_start::<RocksMachine>(found(2, &[1, 2, 3]));
}

#[test]
fn a_crash_after_each_step_of_a_joiners_first_start_starts_empty() {
    stop_after_each_change_of_a_first_start::<SimMachine>(join(4));
}

/// A new leader replaces five entries of term 3 by two of term 2: the log's end falls in index and in term.
#[test]
fn a_crash_after_each_step_of_a_shortening_is_not_taken_for_a_loss() {
    let mode = found(2, &[1, 2, 3]);
    for changes in 0.. {
        let machine = SimMachine::new();
        let disk = fault(&machine);
        let mut booted = Store::open(disk.clone(), &machine.dir(), mode.clone()).unwrap();
        advance(&mut booted, 4, 2);
        booted.log.write(append((5..=9).map(|index| (index, 3)), 3)).unwrap();
        common::sync(&booted, 2);
        disk.budget.set(changes);
        let written = booted.log.write(append([(5, 2), (6, 2)], 4)).is_ok();
        let hard_state = booted.log.hard_state();
        let synced = written && booted.log.syncer().sync(mark_of(&booted.log, 3, hard_state)).is_ok();
        for crash in SimMachine::crashes() {
            let next = SimMachine(machine.0.crash(crash));
            let booted =
                next.open(mode.clone()).unwrap_or_else(|error| panic!("{changes} changes, {crash:?}: {error}"));
            let last = booted.log.reader().last_index();
            assert!(if synced { last == 6 } else { last == 9 || last == 6 }, "{last}");
        }
        if !disk.budget.is_spent() {
            break;
        }
    }
}

#[test]
fn a_staged_state_that_is_not_there_is_never_installed() {
    let (_machine, _disk, mut booted) = prepared::<SimMachine>(&found(2, &[1, 2, 3]));
    for name in ["state-20-0123456789abcdef", "../../etc", ""] {
        let mut snapshot = Snapshot { name: name.into(), ..Snapshot::default() };
        snapshot.meta.index = 20;
        snapshot.meta.term = 4;
        assert!(booted.log.write(LogBatch { snapshot: Some(snapshot), ..LogBatch::default() }).is_err(), "{name}");
    }
    assert_eq!(booted.log.reader().last_index(), 10);
}

fn damaged_transfers_are_refused<M: Machine>() {
    let (_donor_machine, donor, made) = donor::<M>(20, 4);
    let (machine, _disk, booted) = prepared::<M>(&found(2, &[1, 2, 3]));
    let reader = donor.snapshots.open(&made.name).unwrap();
    let full = |name: &str| reader.files().iter().find(|file| file.bytes > 0 && file.name.ends_with(name));
    let data = full(".sst").or(full("TABLE")).expect("a file with rows").name.clone();
    for damage in ["flip", "leave out", "other index"] {
        let index = if damage == "other index" { 21 } else { 20 };
        let mut staging = booted.snapshots.stage(index, 4).unwrap();
        for file in reader.files() {
            if damage == "leave out" && file.name == data {
                continue;
            }
            let mut bytes = reader.read(&file.name, 0, 1 << 20).unwrap();
            if damage == "flip" && file.name == data {
                // Inside the first row: key and value of a small state lie at the start of the file.
                bytes[10] ^= 0x10;
            }
            staging.write(&file.name, 0, &bytes).unwrap();
        }
        let refused = staging.finish();
        assert!(matches!(refused, Err(StoreError::Staged { .. })), "{damage}: {refused:?}");
    }
    let mut staging = booted.snapshots.stage(20, 4).unwrap();
    staging.write("a", 0, b"123").unwrap();
    for (file, offset) in [("a", 0), ("a", 4), ("../a", 0), (".a", 0), ("b/c", 0), ("b", 1), ("SNAPSHOT", 0)] {
        assert!(staging.write(file, offset, b"x").is_err(), "{file} at {offset}");
    }
    drop(staging);
    let names = machine.disk().list(&machine.dir()).unwrap();
    assert!(!names.iter().any(|entry| entry.name.starts_with("staging-")), "{names:?}");
}

#[test]
fn a_damaged_transfer_is_refused_and_leaves_nothing() {
    damaged_transfers_are_refused::<SimMachine>();
    damaged_transfers_are_refused::<RocksMachine>();
}

#[test]
fn a_kill_is_survived_by_everything_visible() {
    let machine = SimMachine::new();
    let mut booted = machine.open(found(2, &[1, 2, 3])).unwrap();
    booted.log.write(append([(2, 2)], 2)).unwrap();
    let killed = machine.stopped(Crash::Kill).open(found(2, &[1, 2, 3])).unwrap();
    assert_eq!(killed.log.reader().last_index(), 2);
    // What was not fsynced may be gone after a power cut: the simulated disk must be able to show that.
    let cut = machine.stopped(Crash::WorstPowerCut).open(found(2, &[1, 2, 3])).unwrap();
    assert_eq!(cut.log.reader().last_index(), 1);
}
