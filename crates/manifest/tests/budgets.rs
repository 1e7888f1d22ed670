//! Budgets of bytes: what principals and replicas hold is counted with each write, and BeginArtifact is refused before it is too much.

mod common;

use common::*;
use raftgrid_manifest::{command_for, encode_batch, views};
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

/// k = 2, m = 1.
const TWO_ONE: u32 = 0x0001_0201;

fn of_size(bytes: u64, placement: &[u64]) -> BeginArtifact {
    let Kind::begin_artifact(mut begin) = begin("", "file", "", "x") else { unreachable!() };
    (begin.total_bytes, begin.placement) = (bytes, placement.to_vec());
    begin
}

fn at(version: u64) -> Kind {
    Kind::set_machine_version(SetMachineVersion { version, ..SetMachineVersion::default() })
}

fn room(node_id: u64, bytes_max: u64) -> Kind {
    Kind::set_room(SetRoom { node_id, bytes_max, ..SetRoom::default() })
}

/// (bytes, artifacts) of a replica.
fn on(world: &World, node: u64) -> (u64, u64) {
    let row = views::room_of(&world.rows, node).expect("memory");
    (row.bytes, row.artifacts)
}

fn held(world: &World, principal: &str) -> u64 {
    views::bytes_of(&world.rows, principal).expect("memory")
}

fn newest(members: u64) -> World {
    let mut world = World::newest();
    for node_id in 1..=members {
        world.ok(Kind::put_member(PutMember { node_id, ..PutMember::default() }));
    }
    world
}

#[test]
fn a_principal_is_refused_before_anything_is_begun_and_deleting_gives_room() {
    let mut world = newest(3);
    let begin = |world: &mut World, who: &str, bytes: u64| {
        let begin = BeginArtifact { principal_bytes_max: 100, ..of_size(bytes, &[1, 2]) };
        let payload = encode_batch(world.now_ms, vec![command_for(who, "", Kind::begin_artifact(begin))]);
        world.entry(vec![payload]).remove(0).remove(0)
    };
    let first = begin(&mut world, "ann", 60);
    assert_eq!((first.outcome, held(&world, "ann")), (Outcome::OK, 60));
    let refused = begin(&mut world, "ann", 41);
    assert_eq!((refused.outcome, held(&world, "ann")), (Outcome::EXHAUSTED, 60), "{}", refused.message);
    assert!(refused.message.contains("ann hold 60 of 100 bytes"), "{}", refused.message);
    assert_eq!(begin(&mut world, "bob", 100).outcome, Outcome::OK, "each has his own");
    assert_eq!(begin(&mut world, "ann", 40).outcome, Outcome::OK, "to the last byte");
    assert_eq!(begin(&mut world, "ann", u64::MAX >> 21).outcome, Outcome::EXHAUSTED);
    assert_eq!(begin(&mut world, "ann", u64::MAX).outcome, Outcome::INVALID, "no sum overflows");
    world.ok(delete_artifact(first.number, false));
    assert_eq!(held(&world, "ann"), 40, "once nobody may read it");
    world.ok(delete_artifact(first.number, true));
    assert_eq!((held(&world, "ann"), begin(&mut world, "ann", 60).outcome), (40, Outcome::OK));
}

#[test]
fn a_replica_gets_no_more_than_it_said() {
    let mut world = newest(3);
    world.ok(room(2, 100));
    world.must(room(2, 100), Outcome::EXISTING);
    world.must(room(9, 100), Outcome::NOT_FOUND);
    world.ok(Kind::begin_artifact(of_size(60, &[1, 2])));
    let reply = world.must(Kind::begin_artifact(of_size(41, &[1, 2])), Outcome::EXHAUSTED);
    assert_eq!(reply.message, "replica 2 holds 60 of 100 bytes of artifacts, and would get 41 more");
    world.ok(Kind::begin_artifact(of_size(41, &[1, 3])));
    assert_eq!((on(&world, 1), on(&world, 2), on(&world, 3)), ((101, 2), (60, 1), (41, 1)));
    // Of a coded one only the fragment counts: 128 KiB in two and one are three of 64 KiB.
    world.ok(room(2, 60 + 65_536));
    world.ok(Kind::begin_artifact(BeginArtifact { code_id: TWO_ONE, ..of_size(131_072, &[1, 2, 3]) }));
    assert_eq!(on(&world, 2), (60 + 65_536, 2));
    world.ok(room(2, 0));
    world.ok(Kind::begin_artifact(of_size(1_000_000, &[2, 3])));
    world.ok(room(2, 1));
    world.must(Kind::begin_artifact(of_size(0, &[2, 3])), Outcome::EXHAUSTED);
}

#[test]
fn bytes_are_counted_where_the_receipts_say_they_are() {
    let mut world = newest(3);
    let id = world.ok(Kind::begin_artifact(of_size(10, &[1, 2]))).number;
    let receipt = |node_id| Receipt { node_id, digest: sha("x"), ..Receipt::default() };
    let receipts = vec![receipt(1), receipt(3)].into();
    world.ok(Kind::commit_artifact(CommitArtifact { artifact_id: id, receipts, ..CommitArtifact::default() }));
    assert_eq!((on(&world, 1), on(&world, 2), on(&world, 3)), ((10, 1), (0, 0), (10, 1)), "one stepped in");
    let receipts = vec![receipt(2)].into();
    world.ok(Kind::add_receipts(AddReceipts { artifact_id: id, receipts, ..AddReceipts::default() }));
    assert_eq!((on(&world, 2), held(&world, "")), ((10, 1), 10));
    world.ok(delete_artifact(id, false));
    assert_eq!((on(&world, 1), on(&world, 2), on(&world, 3), held(&world, "")), ((0, 0), (0, 0), (0, 0), 0));
}

#[test]
fn what_was_there_before_version_6_is_counted_when_it_is_reached() {
    let mut world = World::new();
    world.ok(at(5));
    world.ok(Kind::begin_artifact(BeginArtifact { principal_bytes_max: 1, ..of_size(10, &[1, 2]) }));
    let second = world.ok(Kind::begin_artifact(of_size(5, &[2, 3]))).number;
    let third = world.ok(Kind::begin_artifact(of_size(7, &[2, 3]))).number;
    world.ok(delete_artifact(third, false));
    assert_eq!(held(&world, ""), 0, "not counted yet, and no budget is looked at");
    world.must(room(1, 100), Outcome::PRECONDITION);
    world.ok(at(6));
    assert_eq!((held(&world, ""), on(&world, 1), on(&world, 2), on(&world, 3)), (15, (10, 1), (15, 2), (5, 1)));
    world.ok(delete_artifact(second, false));
    assert_eq!((held(&world, ""), on(&world, 3)), (10, (0, 0)));
    let usage = views::artifact_usage(&world.rows).expect("memory");
    let shown: Vec<(u64, u64, u64)> = usage.iter().map(|it| (it.node_id, it.bytes, it.artifacts)).collect();
    assert_eq!(shown, [(0, 10, 1), (1, 10, 1), (2, 10, 1)], "who holds nothing has no row");
}
