//! One group's state as the beginning of another: nothing that is here is lost, nothing that was given out is given out again, and the old
//! group's replicas and starts are told apart from the new one's. Stopped after each single change of the disk, too.

mod common;

use std::path::Path;

use bytes::Bytes;
use common::{found, Budget, FaultDisk, Machine, RocksMachine, SimMachine};
use raftgrid_driver::pack::pack_front;
use raftgrid_driver::{Entry, EntryKind, HardState, LogBatch, LogReader, LogStore};
use raftgrid_manifest::{apply, check_invariants, command, encode_batch, refound, views};
use raftgrid_proto::v1::{
    Assign, Assignment, Command, Command_oneof_kind as Kind, MemberRow, PutMember, RegisterNode, SubmitTask, TaskStatus,
};
use raftgrid_store::limits::{BASE_EPOCH_UNIX_S, BASE_GAP};
use raftgrid_store::{
    new_cluster_id, recover, restore, BootMode, Booted, Disk, Recovery, Restoration, RestoreFile, Store, StoreError,
};

const PLENTY: i64 = 1 << 40;
const NOW: u64 = BASE_EPOCH_UNIX_S + 1_000;
const FOUNDERS: [u64; 3] = [1, 2, 3];

fn submit(id: &str) -> Command {
    command(Kind::submit_task(SubmitTask {
        task_id: id.to_owned(),
        task_type: "command".to_owned(),
        task_data: b"{}".to_vec(),
        ..SubmitTask::default()
    }))
}

fn member(node_id: u64) -> Command {
    command(Kind::put_member(PutMember { node_id, raft_address: format!("{node_id}:1"), ..PutMember::default() }))
}

fn node(id: &str) -> Command {
    let mut register = RegisterNode { boot_nonce: 1, ..RegisterNode::default() };
    register.mut_node().node_id = id.to_owned();
    command(Kind::register_node(register))
}

fn assign(task: &str, node: &str) -> Command {
    let one = Assignment { task_id: task.to_owned(), node_id: node.to_owned(), ..Assignment::default() };
    command(Kind::assign(Assign { assignments: vec![one].into(), ..Assign::default() }))
}

fn entry(index: u64, term: u64, commands: Vec<Command>) -> Entry {
    let payload = Bytes::from(encode_batch(1_700_000_000_000, commands));
    let (data, _) = pack_front(std::iter::once(&payload));
    Entry { index, term, kind: EntryKind::Normal, data, context: Bytes::new() }
}

fn change(index: u64, term: u64) -> Entry {
    Entry { index, term, kind: EntryKind::ConfChangeV2, data: Bytes::from_static(b"a change"), context: Bytes::new() }
}

fn write<D: Disk>(booted: &mut Booted<D>, entries: Vec<Entry>, commit: u64) {
    let term = entries.last().expect("some").term;
    let hard_state = Some(HardState { term, vote: 2, commit });
    booted.log.write(LogBatch { entries, hard_state, ..LogBatch::default() }).expect("written");
    common::sync(booted, commit);
}

/// Applied to 4, committed to 5, a log to 9 with a change of the membership in its uncommitted end.
fn member_of_three<D: Disk>(booted: &mut Booted<D>) {
    let first = vec![
        entry(2, 1, vec![member(1), member(2), member(3), node("worker")]),
        entry(3, 1, vec![submit("applied"), submit("leased")]),
        entry(4, 1, vec![assign("leased", "worker")]),
    ];
    for each in &first {
        let payloads = raftgrid_driver::pack::unpack(&each.data).expect("packed above");
        let applied = apply(&booted.tables, each.index, &payloads).expect("they apply");
        booted.tables.commit(&applied.changes, (each.index, each.term), None).expect("written");
    }
    write(booted, first, 4);
    let tail = vec![
        entry(5, 2, vec![submit("committed")]),
        entry(6, 2, vec![submit("perhaps")]),
        change(7, 2),
        Entry { data: Bytes::new(), ..change(8, 2) },
        entry(9, 3, vec![member(4), submit("last")]),
    ];
    write(booted, tail, 5);
}

fn asked() -> Recovery {
    Recovery { node_id: 1, unix_s: NOW, dry_run: false }
}

/// The state after a recovery: everything that was here, alone, above everything that was.
fn check_recovered<D: Disk>(booted: &Booted<D>) {
    for task in ["applied", "leased", "committed", "perhaps", "last"] {
        assert!(views::get_task(&booted.tables, task).expect("readable").is_some(), "{task} is lost");
    }
    assert_eq!(booted.tables.conf().expect("a configuration").voters, [1]);
    let (index, term) = booted.tables.applied();
    assert!(index >= 9 + BASE_GAP && term == 4, "{index} {term}");
    assert_eq!((booted.log.reader().first_index(), booted.log.reader().last_index()), (index + 1, index));
    assert_eq!(booted.log.initial_state().hard_state, HardState { term, vote: 0, commit: index });
    let ever = views::members_ever(&booted.tables).expect("readable");
    let closed: Vec<u64> = ever.iter().filter(|row| row.removed).map(|row| row.node_id).collect();
    assert_eq!(closed, [2, 3, 4]);
    let lease = views::task_row(&booted.tables, "leased").expect("readable").expect("there");
    assert_eq!(lease.open_epoch, 4 << 16, "leases that it knows go on");
    assert_eq!(check_invariants(&booted.tables).expect("readable"), Vec::<String>::new());
}

fn a_recovered_replica_keeps_all_it_has<M: Machine>() {
    let machine = M::new();
    member_of_three(&mut machine.open(found(1, &FOUNDERS)).expect("founded"));
    let dry = recover(machine.disk(), &machine.dir(), Recovery { dry_run: true, ..asked() }).expect("looked at");
    assert_eq!((dry.committed, dry.last, dry.changes_dropped), (5, (9, 3), 2));
    assert_eq!(dry.voters, FOUNDERS);
    assert_eq!(machine.open(found(1, &FOUNDERS)).expect("untouched").log.reader().last_index(), 9);
    let done = recover(machine.disk(), &machine.dir(), asked()).expect("recovered");
    assert_eq!(done.old_cluster_id, "grid-1");
    // Its usual start opens it, and so does the new id; the id that it gives itself is the new one.
    let mode = BootMode::Join { cluster_id: done.cluster_id.clone(), node_id: 1 };
    check_recovered(&machine.open(mode).expect("the new id opens it"));
    let booted = machine.open(found(1, &FOUNDERS)).expect("its usual start opens it");
    check_recovered(&booted);
    assert_eq!(booted.identity.cluster_id, done.cluster_id);
    assert_ne!(done.cluster_id, done.old_cluster_id);
    drop(booted);
    let again = recover(machine.disk(), &machine.dir(), asked()).expect_err("refused");
    assert!(again.to_string().contains("the only member already"), "{again}");
}

#[test]
fn a_recovered_replica_keeps_all_it_has_on_both_disks() {
    a_recovered_replica_keeps_all_it_has::<SimMachine>();
    a_recovered_replica_keeps_all_it_has::<RocksMachine>();
}

#[test]
fn a_directory_in_use_of_another_node_or_without_state_is_not_recovered() {
    let machine = RocksMachine::new();
    let mut booted = machine.open(found(1, &FOUNDERS)).expect("founded");
    member_of_three(&mut booted);
    let refused = |recovery, expected: &str| {
        let error = recover(machine.disk(), &machine.dir(), recovery).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(asked(), "another process has it open");
    drop(booted);
    refused(Recovery { node_id: 2, ..asked() }, "belongs to node 1");
    let empty = RocksMachine::new();
    let error = recover(empty.disk(), &empty.dir(), asked()).expect_err("refused").to_string();
    assert!(error.contains("no replica's data"), "{error}");
    drop(empty.open(common::join(1)).expect("joined"));
    let error = recover(empty.disk(), &empty.dir(), asked()).expect_err("refused").to_string();
    assert!(error.contains("never got any state"), "{error}");
}

#[test]
fn a_recovery_that_is_stopped_anywhere_can_be_done_again_and_loses_nothing() {
    let mut ended = Vec::new();
    for changes in 0.. {
        let machine = SimMachine::new();
        let disk = FaultDisk { inner: machine.disk(), budget: Budget::new(PLENTY) };
        member_of_three(&mut Store::open(disk.clone(), &machine.dir(), found(1, &FOUNDERS)).expect("founded"));
        disk.budget.set(changes);
        let first = recover(disk.clone(), &machine.dir(), asked());
        let done = !disk.budget.is_spent();
        assert!(first.is_ok() || !done, "{first:?}");
        for crash in SimMachine::crashes() {
            let next = machine.stopped(crash);
            match recover(next.disk(), &next.dir(), asked()) {
                Ok(_) => ended.push(false),
                Err(StoreError::Refound { cause, .. }) if cause.contains("the only member already") => ended.push(true),
                Err(error) => panic!("after {changes} changes and {crash:?}: {error}"),
            }
            let booted = next.open(found(1, &FOUNDERS)).expect("it opens");
            check_recovered(&booted);
            assert_ne!(booted.identity.cluster_id, "grid-1", "alone, and yet the old group listens to it");
        }
        if done {
            break;
        }
    }
    assert!(ended.contains(&false) && ended.contains(&true), "it was stopped before and after its last step");
}

/// Files of a snapshot by name.
type Files = Vec<(String, Vec<u8>)>;

/// A snapshot: where it stands, and its files.
fn files<D: Disk>(booted: &Booted<D>) -> ((u64, u64), Files) {
    let made = booted.tables.checkpointer().make().expect("made");
    let reader = booted.snapshots.open(&made.name).expect("there");
    let read = |name: &str, bytes: u64| {
        let mut data = Vec::new();
        while (data.len() as u64) < bytes {
            data.extend(reader.read(name, data.len() as u64, 1 << 20).expect("readable"));
        }
        data
    };
    let all = reader.files().iter().map(|file| (file.name.clone(), read(&file.name, file.bytes))).collect();
    ((made.meta.index, made.meta.term), all)
}

fn founders() -> Vec<MemberRow> {
    let row = |node_id| MemberRow { node_id, raft_address: format!("new-{node_id}:1"), ..MemberRow::default() };
    [1, 2].map(row).to_vec()
}

fn restore_to<D: Disk>(
    disk: D,
    dir: &Path,
    node_id: u64,
    stands: (u64, u64),
    files: &[(String, Vec<u8>)],
) -> Result<raftgrid_store::Restored, StoreError> {
    let members = founders();
    let plan = Restoration {
        cluster_id: new_cluster_id("grid-2", 77),
        founded_as: "grid-2".to_owned(),
        node_id,
        founders: &[1, 2],
        stands,
        unix_s: NOW,
        settle: &|rows| refound::settle(rows, &members, &|_| vec![1, 2]),
    };
    let each = |(name, data): &(String, Vec<u8>)| {
        Ok(RestoreFile { name: name.clone(), content: Box::new(std::io::Cursor::new(data.clone())) })
    };
    restore(disk, dir, &plan, files.iter().map(each), || Ok(()))
}

fn a_restored_group_has_the_rows<M: Machine>() {
    let donor = M::new();
    let mut booted = donor.open(found(1, &FOUNDERS)).expect("founded");
    member_of_three(&mut booted);
    let (stands, files) = files(&booted);
    assert_eq!(stands, (4, 1));
    let mut seen = Vec::new();
    for node_id in [1, 2] {
        let machine = M::new();
        let done = restore_to(machine.disk(), &machine.dir(), node_id, stands, &files).expect("restored");
        assert_eq!(done.leases_ended, 1);
        let mode = BootMode::Found { cluster_id: "grid-2".to_owned(), node_id, founders: vec![1, 2] };
        let booted = machine.open(mode).expect("a founder's start opens it");
        assert_eq!(booted.identity.cluster_id, new_cluster_id("grid-2", 77));
        assert_eq!(booted.tables.conf().expect("a configuration").voters, [1, 2]);
        assert_eq!((booted.tables.applied(), booted.log.reader().last_index()), (done.base, done.base.0));
        assert!(done.base.0 >= 4 + BASE_GAP && done.base.1 == 2, "{:?}", done.base);
        let leased = views::task_row(&booted.tables, "leased").expect("readable").expect("there");
        assert_eq!((leased.open_epoch, leased.get_task().status), (0, TaskStatus::PENDING), "tried again");
        assert!(views::get_task(&booted.tables, "applied").expect("readable").is_some());
        let members = views::members_ever(&booted.tables).expect("readable");
        assert_eq!(members, founders(), "the old group's members are not this one's");
        assert_eq!(check_invariants(&booted.tables).expect("readable"), Vec::<String>::new());
        assert_eq!(views::digest(&booted.tables).expect("readable"), done.digest);
        seen.push((done.base, done.digest));
    }
    assert_eq!(seen[0], seen[1], "all founders start from the same");
}

#[test]
fn a_restored_group_has_the_rows_and_a_log_of_its_own_on_both_disks() {
    a_restored_group_has_the_rows::<SimMachine>();
    a_restored_group_has_the_rows::<RocksMachine>();
}

#[test]
fn a_backup_that_is_not_what_it_says_is_not_restored_and_half_a_restore_does_not_start() {
    let donor = RocksMachine::new();
    let mut booted = donor.open(found(1, &FOUNDERS)).expect("founded");
    member_of_three(&mut booted);
    let (stands, files) = files(&booted);
    let founder = BootMode::Found { cluster_id: "grid-2".to_owned(), node_id: 1, founders: vec![1, 2] };
    let refused = |stands, files: &[(String, Vec<u8>)], expected: &str| {
        let machine = RocksMachine::new();
        let error = restore_to(machine.disk(), &machine.dir(), 1, stands, files).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
        assert!(matches!(machine.open(founder.clone()), Err(StoreError::OtherCluster { .. })), "half of it starts");
    };
    refused((5, 1), &files, "stand at (4, 1)");
    let mut bent = files.clone();
    bent[0].0 = "../escape".to_owned();
    refused(stands, &bent, "plain file name");
    let mut rotten = files.clone();
    let table = rotten.iter_mut().find(|(name, _)| name.ends_with(".sst")).expect("a table file");
    table.1[20] ^= 1;
    refused(stands, &rotten, "failed to");
    let machine = RocksMachine::new();
    restore_to(machine.disk(), &machine.dir(), 1, stands, &files).expect("restored");
    let again = restore_to(machine.disk(), &machine.dir(), 1, stands, &files).expect_err("refused").to_string();
    assert!(again.contains("not empty"), "{again}");
}
