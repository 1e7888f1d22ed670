//! Commands of artifacts and of the cluster.

mod common;

use common::*;
use raftgrid_manifest::{apply, command, encode_batch, views, ApplyError, MACHINE_VERSION};
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

#[test]
fn an_artifact_is_begun_committed_and_deleted_in_two_phases() {
    let mut world = World::new();
    let id = world.ok(begin("", "file", "weights", "w")).number;
    assert_eq!(id, world.index << 16, "the id is the position");
    assert!(views::find_artifact(&world.rows, "weights").expect("memory").is_none(), "not before it is committed");
    world.must(delete_artifact(id, true), Outcome::PRECONDITION);
    world.ok(commit_artifact(id, "w"));
    world.must(commit_artifact(id, "w"), Outcome::EXISTING);
    for name in ["weights".to_owned(), id.to_string()] {
        assert_eq!(views::find_artifact(&world.rows, &name).expect("memory").expect("found").artifact_id, id);
    }
    world.must(delete_artifact(id, true), Outcome::PRECONDITION);
    world.ok(delete_artifact(id, false));
    world.must(delete_artifact(id, false), Outcome::EXISTING);
    assert!(views::find_artifact(&world.rows, "weights").expect("memory").is_none());
    world.must(commit_artifact(id, "w"), Outcome::PRECONDITION);
    world.ok(delete_artifact(id, true));
    world.must(delete_artifact(id, true), Outcome::NOT_FOUND);
    world.must(commit_artifact(id, "w"), Outcome::NOT_FOUND);
    world.ok(begin("", "file", "weights", "other"));
}

#[test]
fn an_artifact_that_is_wrong_names_the_field() {
    let mut world = World::new();
    let Kind::begin_artifact(right) = begin("", "file", "n", "x") else { unreachable!() };
    type Change = fn(&mut BeginArtifact);
    let cases: [(Change, Outcome, &str); 8] = [
        (|b| b.name = "../etc".into(), Outcome::INVALID, "name:"),
        (|b| b.name = "17".into(), Outcome::INVALID, "name:"),
        (|b| b.digest.truncate(31), Outcome::INVALID, "digest:"),
        (|b| b.code_id = 1, Outcome::INVALID, "code_id:"),
        (|b| b.placement.clear(), Outcome::INVALID, "placement:"),
        (|b| b.placement = vec![1, 1], Outcome::INVALID, "placement:"),
        (|b| b.placement = vec![0, 1], Outcome::INVALID, "placement:"),
        (|b| b.job_id = "none".into(), Outcome::NOT_FOUND, "job none"),
    ];
    for (change, outcome, field) in cases {
        let mut wrong = right.clone();
        change(&mut wrong);
        let reply = world.must(Kind::begin_artifact(wrong), outcome);
        assert!(reply.message.starts_with(field), "{}", reply.message);
    }
}

#[test]
fn a_name_has_one_content() {
    let mut world = World::new();
    let first = world.ok(begin("", "file", "n", "x")).number;
    let second = world.ok(begin("", "file", "n", "y")).number;
    world.ok(commit_artifact(first, "x"));
    world.must(commit_artifact(second, "y"), Outcome::ALREADY_EXISTS);
    assert_eq!(world.must(begin("", "file", "n", "x"), Outcome::EXISTING).number, first);
    world.must(begin("", "file", "n", "y"), Outcome::ALREADY_EXISTS);
}

#[test]
fn receipts_are_counted_by_replica_and_must_hold_the_announced_bytes() {
    let member = |node_id, removed| Kind::put_member(PutMember { node_id, removed, ..PutMember::default() });
    let receipt = |node_id, text: &str| Receipt { node_id, digest: sha(text), ..Receipt::default() };
    // members, placement, receipts → outcome: F+1 of the members, never more than were placed; without members: all that were placed.
    let cases: [(u64, &[u64], &[u64], Outcome); 9] = [
        (0, &[1, 2], &[1], Outcome::PRECONDITION),
        (0, &[1, 2], &[1, 1], Outcome::PRECONDITION),
        (0, &[1, 2], &[1, 0], Outcome::PRECONDITION),
        (0, &[1, 2], &[2, 1], Outcome::OK),
        (0, &[1, 2], &[1, 3], Outcome::OK),
        (3, &[1, 2, 3], &[3], Outcome::PRECONDITION),
        (3, &[1, 2, 3], &[3, 2], Outcome::OK),
        (5, &[1, 2, 3], &[3, 2], Outcome::PRECONDITION),
        (1, &[1], &[1], Outcome::OK),
    ];
    for (members, placement, holders, outcome) in cases {
        let mut world = World::new();
        (1..=members).for_each(|id| drop(world.ok(member(id, false))));
        let Kind::begin_artifact(mut begin) = begin("", "file", "", "x") else { unreachable!() };
        begin.placement = placement.to_vec();
        let id = world.ok(Kind::begin_artifact(begin)).number;
        let commit = |receipts: Vec<Receipt>| {
            let receipts = receipts.into();
            Kind::commit_artifact(CommitArtifact { artifact_id: id, receipts, ..CommitArtifact::default() })
        };
        world.must(commit(vec![receipt(1, "x"), receipt(2, "y"), receipt(3, "x")]), Outcome::MISMATCH);
        world.must(commit(holders.iter().map(|&node| receipt(node, "x")).collect()), outcome);
        let row = views::artifact_row(&world.rows, id).expect("memory").expect("the row stands");
        assert_eq!(row.state == ArtifactState::ARTIFACT_COMMITTED, outcome == Outcome::OK);
    }
}

#[test]
fn the_ledgers_bytes_are_not_deleted_while_the_job_goes_on() {
    let mut world = World::with_nodes();
    let epochs = world.training("digits", |train| train.rounds = 1);
    let unused = world.begin("digits", "gradient", "unused");
    world.ok(delete_artifact(unused, false));
    let gradient = world.gradient("digits", 0, 0, 0, epochs[0], "g").number;
    world.must(delete_artifact(gradient, false), Outcome::PRECONDITION);
    let model: u64 = world.job("digits").model_artifact.parse().expect("an id");
    world.must(delete_artifact(model, false), Outcome::PRECONDITION);
    world.gradient("digits", 0, 1, 0, epochs[0], "h");
    let next = world.next_model("digits", 0);
    world.ok(Kind::commit_model(next));
    world.unchecked = true;
    world.ok(delete_artifact(gradient, false));
    assert_eq!(world.audit("digits").lost, 1, "the audit says that its bytes are gone");
}

#[test]
fn models_are_found_by_job_and_version() {
    let mut world = World::with_nodes();
    let epochs = world.training("digits", |_| ());
    world.whole_round("digits", 0, epochs[0]);
    let digest = |name: &str| views::find_artifact(&world.rows, name).expect("memory").map(|row| row.digest);
    assert_eq!(digest("digits/model@0"), Some(sha("m0")));
    assert_eq!(digest("digits/model@1"), Some(sha("digits m1")));
    assert_eq!(digest("digits/model@latest"), Some(sha("digits m1")));
    for none in ["digits/model@2", "digits/model@x", "none/model@0", "digits", "1"] {
        assert_eq!(digest(none), None, "{none}");
    }
}

#[test]
fn members_come_and_go() {
    let mut world = World::new();
    let put = |node_id, removed| {
        let raft_address = format!("10.0.0.{node_id}:50051");
        Kind::put_member(PutMember { node_id, raft_address, removed, ..PutMember::default() })
    };
    world.must(put(0, false), Outcome::INVALID);
    world.ok(put(2, false));
    world.ok(put(1, false));
    world.ok(put(2, true));
    let members = views::members(&world.rows).expect("memory");
    assert_eq!(members.iter().map(|m| m.node_id).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_member_keeps_its_first_store_and_a_removed_one_never_comes_back() {
    let mut world = World::new();
    let put = |change: fn(&mut PutMember)| {
        let mut put = PutMember { node_id: 2, ..PutMember::default() };
        change(&mut put);
        Kind::put_member(put)
    };
    world.ok(put(|put| put.raft_address = "10.0.0.2:1".to_owned()));
    world.must(put(|put| put.store_uuid = vec![1; 15]), Outcome::INVALID);
    world.ok(put(|put| put.store_uuid = vec![1; 16]));
    world.ok(put(|put| put.store_uuid = vec![1; 16]));
    world.must(put(|put| put.store_uuid = vec![2; 16]), Outcome::PRECONDITION);
    world.ok(put(|put| put.leaving = MemberLeaving::LEAVING_YES));
    world.ok(put(|put| put.client_address = "10.0.0.2:2".to_owned()));
    let row = views::members(&world.rows).expect("memory").remove(0);
    assert!(row.leaving, "said of nothing else");
    assert_eq!((row.raft_address.as_str(), row.client_address.as_str()), ("10.0.0.2:1", "10.0.0.2:2"));
    world.ok(put(|put| put.leaving = MemberLeaving::LEAVING_NO));
    assert!(!views::members(&world.rows).expect("memory")[0].leaving);
    world.ok(put(|put| put.removed = true));
    world.must(put(|put| put.removed = true), Outcome::EXISTING);
    world.must(put(|put| put.raft_address = "10.0.0.9:1".to_owned()), Outcome::PRECONDITION);
    assert!(views::members(&world.rows).expect("memory").is_empty());
    assert_eq!(views::members_ever(&world.rows).expect("memory")[0].store_uuid, vec![1; 16]);
}

#[test]
fn a_copy_on_a_replica_that_leaves_does_not_count() {
    let mut world = World::new();
    let receipt = |node_id| Receipt { node_id, digest: sha("x"), ..Receipt::default() };
    for node_id in 1..=3 {
        world.ok(Kind::put_member(PutMember { node_id, ..PutMember::default() }));
    }
    let id = world.ok(begin("", "file", "", "x")).number;
    let leaving = MemberLeaving::LEAVING_YES;
    world.ok(Kind::put_member(PutMember { node_id: 3, leaving, ..PutMember::default() }));
    let commit = |nodes: &[u64]| {
        let receipts = nodes.iter().map(|node| receipt(*node)).collect::<Vec<_>>().into();
        Kind::commit_artifact(CommitArtifact { artifact_id: id, receipts, ..CommitArtifact::default() })
    };
    world.must(commit(&[1, 3]), Outcome::PRECONDITION);
    world.ok(commit(&[1, 2, 3]));
    let row = views::artifact_row(&world.rows, id).expect("memory").expect("the row stands");
    assert_eq!(row.placement, [1, 2]);
}

#[test]
fn further_copies_of_a_committed_artifact_are_counted_once_and_must_hold_its_bytes() {
    let mut world = World::new();
    let id = world.ok(begin("", "file", "", "x")).number;
    let add = |node_id, text: &str| {
        let receipt = Receipt { node_id, digest: sha(text), ..Receipt::default() };
        let receipts = vec![receipt].into();
        Kind::add_receipts(AddReceipts { artifact_id: id, receipts, ..AddReceipts::default() })
    };
    world.must(add(7, "x"), Outcome::PRECONDITION);
    world.ok(commit_artifact(id, "x"));
    world.must(add(7, "y"), Outcome::MISMATCH);
    world.ok(add(7, "x"));
    world.must(add(7, "x"), Outcome::EXISTING);
    let row = views::artifact_row(&world.rows, id).expect("memory").expect("the row stands");
    assert_eq!(row.receipts.iter().filter(|receipt| receipt.node_id == 7).count(), 1);
    assert!(row.placement.contains(&7));
    world.ok(delete_artifact(id, false));
    world.must(add(8, "x"), Outcome::PRECONDITION);
}

#[test]
fn a_version_that_this_binary_does_not_know_stops_it() {
    let mut world = World::new();
    let set = |version| Kind::set_machine_version(SetMachineVersion { version, ..SetMachineVersion::default() });
    world.ok(set(MACHINE_VERSION));
    world.must(set(MACHINE_VERSION - 1), Outcome::PRECONDITION);
    let payload = encode_batch(0, vec![command(set(MACHINE_VERSION + 1))]);
    let stopped = apply(&world.rows, 9, &[payload]);
    let Err(ApplyError::UnknownVersion { index, wanted, known }) = stopped else { panic!("{stopped:?}") };
    assert_eq!((index, wanted, known), (9, MACHINE_VERSION + 1, MACHINE_VERSION));
}

#[test]
fn the_state_says_since_when_it_is_at_its_version_and_saying_it_again_changes_nothing() {
    let mut world = World::new();
    let set = |version| Kind::set_machine_version(SetMachineVersion { version, ..SetMachineVersion::default() });
    let since = |world: &World| {
        let meta = views::meta(&world.rows).expect("memory");
        (meta.machine_version, meta.version_since, meta.version_since_ms)
    };
    // What a program of version 1 writes, byte for byte.
    world.ok(set(1));
    assert_eq!(since(&world), (1, 0, 0));
    let position = world.ok(set(2)).position;
    assert_eq!(since(&world), (2, position, world.now_ms));
    let before = since(&world);
    world.ok(set(2));
    assert_eq!(since(&world), before);
}

#[test]
fn what_cannot_be_decoded_stops_the_process() {
    let world = World::new();
    let good = encode_batch(0, vec![command(submit("t", |_| ()))]);
    let broken = apply(&world.rows, 2, &[good.clone(), good[..good.len() - 1].to_vec()]);
    assert!(matches!(broken, Err(ApplyError::Payload { index: 2, payload: 1, .. })), "{broken:?}");
    let unknown = apply(&world.rows, 2, &[encode_batch(0, vec![Command::default()])]);
    assert!(matches!(unknown, Err(ApplyError::UnknownCommand { index: 2 })), "{unknown:?}");
}

#[test]
fn commands_of_one_entry_see_each_other_and_positions_count_through_it() {
    let mut world = World::with_nodes();
    let first = encode_batch(5, vec![command(submit("a", |_| ())), command(submit("b", |_| ()))]);
    let second = encode_batch(3, vec![command(assign(&[("a", "node-a")])), command(assign(&[("c", "node-a")]))]);
    let replies = world.entry(vec![first, second]);
    let positions: Vec<u64> = replies.iter().flatten().map(|reply| reply.position - (world.index << 16)).collect();
    assert_eq!(positions, [0, 1, 2, 3]);
    let outcomes: Vec<Outcome> = replies.iter().flatten().map(|reply| reply.outcome).collect();
    assert_eq!(outcomes, [Outcome::OK, Outcome::OK, Outcome::OK, Outcome::NOT_FOUND]);
    assert_eq!(world.row("a").open_epoch, (world.index << 16) + 2);
    assert_eq!(views::meta(&world.rows).expect("memory").cluster_time_ms, world.now_ms, "time never falls");
}

#[test]
fn an_empty_entry_changes_nothing() {
    let world = World::with_nodes();
    let applied = apply(&world.rows, 99, &[] as &[Vec<u8>]).expect("it applies");
    assert!(applied.changes.is_empty() && applied.replies.is_empty());
}
