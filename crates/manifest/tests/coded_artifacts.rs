//! Artifacts under a code: what makes one durable, where its fragments may go, and how its code becomes another.

mod common;

use common::*;
use proptest::prelude::*;
use raftgrid_manifest::{check_invariants, views};
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

const BYTES: u64 = 5 << 20;
/// k = 2, m = 1.
const TWO_ONE: u32 = 0x0001_0201;
/// k = 3, m = 2.
const THREE_TWO: u32 = 0x0001_0302;

/// Of BYTES in two, and in three: stripes of 128 KiB are 40 whole ones; of 192 KiB 26, and 128 KiB are left for three shards.
const HALF: u64 = 40 * 65_536;
const THIRD: u64 = 26 * 65_536 + 43_712;

fn begun(code_id: u32, placement: &[u64]) -> Kind {
    let Kind::begin_artifact(mut begin) = begin("", "file", "", "x") else { unreachable!() };
    begin.total_bytes = BYTES;
    begin.code_id = code_id;
    begin.placement = placement.to_vec();
    Kind::begin_artifact(begin)
}

fn fragment(node_id: u64, fragment: u32, fragment_bytes: u64) -> Receipt {
    Receipt { node_id, fragment, digest: sha(&format!("f{fragment}")), fragment_bytes, ..Receipt::default() }
}

fn commit(artifact_id: u64, receipts: Vec<Receipt>) -> Kind {
    Kind::commit_artifact(CommitArtifact { artifact_id, receipts: receipts.into(), ..CommitArtifact::default() })
}

fn add(artifact_id: u64, receipts: Vec<Receipt>) -> Kind {
    Kind::add_receipts(AddReceipts { artifact_id, receipts: receipts.into(), ..AddReceipts::default() })
}

fn recode(artifact_id: u64, code_id: u32, generation: u32, receipts: Vec<Receipt>) -> Kind {
    let receipts = receipts.into();
    Kind::recode_artifact(RecodeArtifact { artifact_id, code_id, generation, receipts, ..RecodeArtifact::default() })
}

fn member(node_id: u64) -> PutMember {
    PutMember { node_id, ..PutMember::default() }
}

fn newest(members: u64) -> World {
    let mut world = World::newest();
    (1..=members).for_each(|id| drop(world.ok(Kind::put_member(member(id)))));
    world
}

fn row(world: &World, id: u64) -> ArtifactRow {
    views::artifact_row(&world.rows, id).expect("memory").expect("the row stands")
}

fn halves(nodes: [u64; 3]) -> Vec<Receipt> {
    nodes.into_iter().zip(0..).map(|(node, number)| fragment(node, number, HALF)).collect()
}

#[test]
fn only_known_codes_are_begun_with_a_replica_for_each_fragment_and_not_before_version_5() {
    let mut world = World::new();
    let version = |version| Kind::set_machine_version(SetMachineVersion { version, ..SetMachineVersion::default() });
    for old in [1, 4] {
        world.ok(version(old));
        let reply = world.must(begun(TWO_ONE, &[1, 2, 3]), Outcome::INVALID);
        assert_eq!(reply.message, format!("code_id: this version knows plain copies (0) only, is {TWO_ONE}"));
        world.must(recode(1, 0, 1, vec![]), Outcome::PRECONDITION);
    }
    world.ok(version(5));
    for unknown in [1, 0x0002_0201, 0x0001_0101, 0x0001_0200, 0x0001_1102, 0x0101_0201] {
        let reply = world.must(begun(unknown, &[1, 2, 3]), Outcome::INVALID);
        assert!(reply.message.starts_with("code_id:"), "{}", reply.message);
    }
    for placement in [&[1, 2][..], &[1, 2, 3, 4]] {
        let reply = world.must(begun(TWO_ONE, placement), Outcome::INVALID);
        assert!(reply.message.starts_with("placement:"), "{}", reply.message);
    }
    let id = world.ok(begun(TWO_ONE, &[1, 2, 3])).number;
    assert_eq!((row(&world, id).code_id, row(&world, id).generation), (TWO_ONE, 0));
}

#[test]
fn a_coded_artifact_is_committed_by_every_fragment_on_a_replica_of_its_own_that_stays() {
    let right = halves([1, 2, 3]);
    let changed = |at: usize, change: fn(&mut Receipt)| {
        let mut receipts = right.clone();
        change(&mut receipts[at]);
        receipts
    };
    let cases: [(&str, Vec<Receipt>, Outcome); 9] = [
        ("all", right.clone(), Outcome::OK),
        ("one short", right[..2].to_vec(), Outcome::PRECONDITION),
        ("two on one replica", changed(2, |it| it.node_id = 1), Outcome::PRECONDITION),
        ("one twice", changed(2, |it| *it = fragment(3, 1, HALF)), Outcome::PRECONDITION),
        ("nobody", changed(0, |it| it.node_id = 0), Outcome::PRECONDITION),
        ("a number too high", changed(2, |it| it.fragment = 3), Outcome::INVALID),
        ("cut", changed(1, |it| it.fragment_bytes -= 64), Outcome::MISMATCH),
        ("as long as the whole", changed(1, |it| it.fragment_bytes = BYTES), Outcome::MISMATCH),
        ("no digest", changed(1, |it| it.digest.clear()), Outcome::INVALID),
    ];
    for (what, receipts, outcome) in cases {
        let mut world = newest(3);
        let id = world.ok(begun(TWO_ONE, &[1, 2, 3])).number;
        let reply = world.must(commit(id, receipts), outcome);
        let committed = row(&world, id).state == ArtifactState::ARTIFACT_COMMITTED;
        assert_eq!(committed, outcome == Outcome::OK, "{what}: {}", reply.message);
    }
    let mut world = newest(5);
    let id = world.ok(begun(THREE_TWO, &[1, 2, 3, 4, 5])).number;
    let thirds: Vec<Receipt> = (1..=5).zip(0..).map(|(node, number)| fragment(node, number, THIRD)).collect();
    let leaving = MemberLeaving::LEAVING_YES;
    world.ok(Kind::put_member(PutMember { leaving, ..member(4) }));
    world.must(commit(id, thirds.clone()), Outcome::PRECONDITION);
    world.ok(Kind::put_member(PutMember { leaving: MemberLeaving::LEAVING_NO, ..member(4) }));
    world.ok(commit(id, thirds));
    assert_eq!(row(&world, id).placement, [1, 2, 3, 4, 5]);
}

#[test]
fn the_same_fragment_with_other_bytes_is_refused() {
    let mut world = newest(3);
    let id = world.ok(begun(TWO_ONE, &[1, 2, 3])).number;
    let forged = Receipt { digest: sha("forged"), ..fragment(4, 1, HALF) };
    let mut receipts = halves([1, 2, 3]);
    receipts.push(forged.clone());
    world.must(commit(id, receipts), Outcome::MISMATCH);
    world.ok(commit(id, halves([1, 2, 3])));
    world.must(add(id, vec![forged]), Outcome::MISMATCH);
    assert_eq!(row(&world, id).receipts.len(), 3);
}

#[test]
fn a_fragment_moves_to_a_replica_that_has_none_and_the_gone_ones_are_forgotten() {
    let mut world = newest(4);
    let id = world.ok(begun(TWO_ONE, &[1, 2, 3])).number;
    world.must(add(id, vec![fragment(4, 0, HALF)]), Outcome::PRECONDITION);
    world.ok(commit(id, halves([1, 2, 3])));
    world.must(add(id, vec![fragment(2, 0, HALF)]), Outcome::PRECONDITION);
    world.must(add(id, vec![fragment(4, 0, HALF - 64)]), Outcome::MISMATCH);
    world.must(add(id, vec![fragment(4, 3, HALF)]), Outcome::INVALID);
    world.must(add(id, vec![fragment(2, 1, HALF)]), Outcome::EXISTING);
    world.ok(Kind::put_member(PutMember { removed: true, ..member(1) }));
    assert_eq!(row(&world, id).placement, [1, 2, 3], "who is gone says what its fragment was");
    world.ok(add(id, vec![fragment(4, 0, HALF)]));
    assert_eq!(row(&world, id).placement, [2, 3, 4]);
    assert_eq!(check_invariants(&world.rows).expect("memory"), Vec::<String>::new());
}

#[test]
fn a_code_becomes_another_when_all_its_fragments_are_there() {
    let mut world = newest(5);
    let id = world.ok(begun(TWO_ONE, &[1, 2, 3])).number;
    let thirds: Vec<Receipt> = (1..=5).zip(0..).map(|(node, number)| fragment(node, number, THIRD)).collect();
    world.must(recode(id, THREE_TWO, 1, thirds.clone()), Outcome::PRECONDITION);
    world.ok(commit(id, halves([1, 2, 3])));
    world.must(recode(id, THREE_TWO, 0, thirds.clone()), Outcome::PRECONDITION);
    world.must(recode(id, THREE_TWO, 1, thirds[..4].to_vec()), Outcome::PRECONDITION);
    world.must(recode(id, THREE_TWO, 1, halves([1, 2, 3])), Outcome::MISMATCH);
    world.must(recode(id, 0x0002_0302, 1, thirds.clone()), Outcome::INVALID);
    world.must(recode(id, THREE_TWO, 1 << 24, thirds.clone()), Outcome::INVALID);
    assert_eq!((row(&world, id).code_id, row(&world, id).generation), (TWO_ONE, 0), "as it was");
    world.ok(recode(id, THREE_TWO, 64, thirds.clone()));
    assert_eq!((row(&world, id).code_id, row(&world, id).generation), (THREE_TWO, 64));
    world.must(recode(id, TWO_ONE, 64, halves([1, 2, 3])), Outcome::PRECONDITION);
    // Copies again, as many as the members could lose and one more.
    let copy = |node_id| Receipt { node_id, digest: sha("x"), ..Receipt::default() };
    world.must(recode(id, 0, 65, vec![copy(1), copy(2)]), Outcome::PRECONDITION);
    world.must(recode(id, 0, 65, thirds), Outcome::MISMATCH);
    world.ok(recode(id, 0, 65, vec![copy(1), copy(2), copy(3)]));
    assert_eq!((row(&world, id).code_id, row(&world, id).placement), (0, vec![1, 2, 3]));
    world.ok(delete_artifact(id, false));
    world.must(recode(id, TWO_ONE, 66, halves([1, 2, 3])), Outcome::PRECONDITION);
}

/// A receipt of a random replica for a random fragment; seldom of a wrong length or with other bytes.
fn receipt() -> impl Strategy<Value = Receipt> {
    (0_u64..8, 0_u32..5, 0_u8..20).prop_map(|(node, number, wrong)| match wrong {
        0 => fragment(node, number, THIRD + 64),
        1 => Receipt { digest: sha("forged"), ..fragment(node, number, THIRD) },
        _ => fragment(node, number, THIRD),
    })
}

/// Fragments that are left when `lost` and all that do not stay are lost.
fn left(row: &ArtifactRow, gone: &[u64], lost: &[u64]) -> usize {
    let there = |receipt: &&Receipt| !gone.contains(&receipt.node_id) && !lost.contains(&receipt.node_id);
    let mut numbers: Vec<u32> = row.receipts.iter().filter(there).map(|receipt| receipt.fragment).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_committed_survives_the_loss_of_any_m_of_the_replicas_that_stay(
        mut receipts in prop::collection::vec(receipt(), 0..14),
        whole in any::<bool>(),
        leaving in 1_u64..9,
        more in prop::collection::vec(receipt(), 0..4),
    ) {
        let mut world = newest(7);
        if whole {
            receipts.splice(0..0, (1..=5).zip(0..).map(|(node, number)| fragment(node, number, THIRD)));
        }
        let gone: Vec<u64> = vec![leaving];
        if leaving <= 7 {
            world.ok(Kind::put_member(PutMember { leaving: MemberLeaving::LEAVING_YES, ..member(leaving) }));
        }
        let id = world.ok(begun(THREE_TWO, &[1, 2, 3, 4, 5])).number;
        world.run(commit(id, receipts));
        let committed = row(&world, id);
        if committed.state == ArtifactState::ARTIFACT_COMMITTED {
            for one in 1..=7 {
                for other in 1..=7 {
                    prop_assert!(left(&committed, &gone, &[one, other]) >= 3, "without {one}, {other}: {committed:?}");
                }
            }
            world.run(add(id, more));
            let added = row(&world, id);
            prop_assert!((1..=7).all(|one| left(&added, &gone, &[one, 1]) >= 3), "{added:?}");
            prop_assert!(added.receipts.iter().all(|it| it.fragment_bytes == THIRD && it.digest != sha("forged") || left(&added, &[], &[]) == 5));
        }
        prop_assert_eq!(check_invariants(&world.rows).expect("memory"), Vec::<String>::new());
    }
}
