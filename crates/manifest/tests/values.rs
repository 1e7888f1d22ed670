//! Values of keys beside the log: committed with the command that sets the key, and released when the key has another value.

mod common;

use common::*;
use raftgrid_manifest::{command, fields_version, limits, views};
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

const SIZE: u64 = 300_000;

fn begun(world: &mut World, text: &str) -> u64 {
    let Kind::begin_artifact(mut begin) = begin("", "value", "", text) else { unreachable!() };
    begin.total_bytes = SIZE;
    world.ok(Kind::begin_artifact(begin)).number
}

fn put_command(key: &str, artifact_id: u64, text: &str) -> KvPut {
    KvPut { key: key.into(), artifact_id, receipts: receipts(text), digest: sha(text), ..KvPut::default() }
}

fn put(key: &str, artifact_id: u64, text: &str) -> Kind {
    Kind::kv_put(put_command(key, artifact_id, text))
}

fn swap(key: &str, artifact_id: u64, text: &str, expected: u64) -> Kind {
    Kind::kv_compare_and_set(KvCompareAndSet {
        key: key.into(),
        expected,
        artifact_id,
        receipts: receipts(text),
        digest: sha(text),
        ..KvCompareAndSet::default()
    })
}

fn small(key: &str) -> Kind {
    Kind::kv_put(KvPut { key: key.into(), value: b"small".to_vec(), ..KvPut::default() })
}

fn delete(key: &str) -> Kind {
    Kind::kv_delete(KvDelete { key: key.into(), ..KvDelete::default() })
}

fn row(world: &World, key: &str) -> KvRow {
    views::kv(&world.rows, key).expect("memory").expect("the key stands")
}

fn state(world: &World, id: u64) -> ArtifactState {
    views::artifact_row(&world.rows, id).expect("memory").expect("the row stands").state
}

const BEGUN: ArtifactState = ArtifactState::ARTIFACT_BEGUN;
const COMMITTED: ArtifactState = ArtifactState::ARTIFACT_COMMITTED;
const DELETING: ArtifactState = ArtifactState::ARTIFACT_DELETING;

#[test]
fn the_command_that_sets_the_key_commits_the_bytes_and_whatever_ends_them_releases_them() {
    let mut world = World::newest();
    type End = fn(&mut World);
    let ends: [End; 4] = [
        |world| drop(world.ok(small("k"))),
        |world| drop(world.ok(delete("k"))),
        |world| {
            let other = begun(world, "other");
            world.ok(put("k", other, "other"));
            assert_eq!(state(world, other), COMMITTED);
        },
        |world| {
            let (other, expected) = (begun(world, "swapped"), row(world, "k").revision);
            world.ok(swap("k", other, "swapped", expected));
            assert_eq!(state(world, other), COMMITTED);
        },
    ];
    for end in ends {
        let id = begun(&mut world, "v");
        world.ok(put("k", id, "v"));
        let stands = row(&world, "k");
        assert_eq!((stands.artifact_id, stands.value_bytes, stands.value.len()), (id, SIZE, 0));
        assert_eq!(state(&world, id), COMMITTED);
        let listed = views::list_kv(&world.rows, "", &[], 0, true).expect("memory");
        assert_eq!((listed.keys[0].bytes, &*listed.beside), (SIZE, &[id][..]));
        end(&mut world);
        assert_eq!(state(&world, id), DELETING);
    }
}

#[test]
fn a_key_that_is_not_at_the_revision_leaves_the_bytes_to_be_given_up() {
    let mut world = World::newest();
    let first = begun(&mut world, "first");
    world.ok(put("k", first, "first"));
    let late = begun(&mut world, "late");
    world.must(swap("k", late, "late", 0), Outcome::MISMATCH);
    assert_eq!((row(&world, "k").artifact_id, state(&world, late)), (first, BEGUN));
    world.ok(delete_artifact(late, false));
    world.must(delete_artifact(first, false), Outcome::PRECONDITION);
    let id = RemoveArtifact { artifact: first.to_string(), all: true, ..RemoveArtifact::default() };
    let reply = world.must(Kind::remove_artifact(id), Outcome::PRECONDITION);
    assert!(reply.message.contains("the value of key k"), "{}", reply.message);
}

#[test]
fn a_second_try_with_the_same_request_id_is_told_the_first_one_s_revision() {
    let mut world = World::newest();
    let id = uuid(world.now_ms, 1);
    let (one, two) = (begun(&mut world, "v"), begun(&mut world, "v"));
    let first = world.run_as("ann", &id, put("k", one, "v"));
    let second = world.run_as("ann", &id, put("k", two, "v"));
    assert_eq!((first.outcome, second.outcome, first.number), (Outcome::OK, Outcome::EXISTING, second.number));
    assert_eq!((row(&world, "k").artifact_id, state(&world, two)), (one, BEGUN));
    let other = begun(&mut world, "other");
    assert_eq!(world.run_as("ann", &id, put("k", other, "other")).outcome, Outcome::ALREADY_EXISTS);
}

#[test]
fn a_value_goes_with_the_job_that_its_key_goes_with() {
    let mut world = World::newest();
    world.ok(submit_job(train_spec("digits")));
    let id = begun(&mut world, "v");
    let mut put = put_command("k", id, "v");
    put.mut_writer().job_id = "digits".into();
    world.ok(Kind::kv_put(put));
    world.ok(Kind::cancel_job(CancelJob { job_id: "digits".into(), ..CancelJob::default() }));
    assert_eq!((views::kv(&world.rows, "k").expect("memory"), state(&world, id)), (None, DELETING));
}

#[test]
fn a_value_that_people_gave_a_name_outlives_its_key() {
    let mut world = World::newest();
    let id = begun(&mut world, "v");
    world.ok(put("k", id, "v"));
    let name = NameArtifact { from: id.to_string(), name: "kept".into(), ..NameArtifact::default() };
    world.ok(Kind::name_artifact(name));
    world.ok(delete("k"));
    assert_eq!(state(&world, id), COMMITTED);
    let gone = RemoveArtifact { artifact: "kept".into(), ..RemoveArtifact::default() };
    world.ok(Kind::remove_artifact(gone));
    assert_eq!(state(&world, id), DELETING);
}

#[test]
fn what_is_no_value_is_refused_and_changes_nothing() {
    let mut world = World::newest();
    world.ok(small("k"));
    let id = begun(&mut world, "v");
    let file = world.begin("", "file", "v");
    let committed = begun(&mut world, "w");
    world.ok(put("other", committed, "w"));
    let Kind::begin_artifact(mut large) = begin("", "value", "", "v") else { unreachable!() };
    large.total_bytes = limits::KV_BESIDE_BYTES_MAX as u64 + 1;
    let large = world.ok(Kind::begin_artifact(large)).number;
    let twice = KvPut { value: b"x".to_vec(), ..put_command("k", id, "v") };
    let short = KvPut { receipts: vec![receipts("v")[0].clone()].into(), ..put_command("k", id, "v") };
    let cases = [
        (Kind::kv_put(twice), Outcome::INVALID),
        (Kind::kv_put(short), Outcome::PRECONDITION),
        (put("k", id, "wrong"), Outcome::MISMATCH),
        (put("k", file, "v"), Outcome::PRECONDITION),
        (put("k", committed, "w"), Outcome::PRECONDITION),
        (put("k", large, "v"), Outcome::INVALID),
        (put("k", 1 << 40, "v"), Outcome::NOT_FOUND),
    ];
    for (kind, outcome) in cases {
        let before = row(&world, "k");
        world.must(kind, outcome);
        assert_eq!((row(&world, "k"), state(&world, id)), (before, BEGUN));
    }
}

#[test]
fn below_version_6_values_are_as_they_were() {
    let mut world = World::new();
    let at = |version| Kind::set_machine_version(SetMachineVersion { version, ..SetMachineVersion::default() });
    let sized = |bytes| Kind::kv_put(KvPut { key: "k".into(), value: vec![7; bytes], ..KvPut::default() });
    world.ok(at(5));
    world.must(sized(limits::KV_VALUE_BYTES_MAX + 1), Outcome::INVALID);
    world.ok(at(6));
    world.ok(sized(limits::KV_LOGGED_BYTES_MAX));
    world.must(sized(limits::KV_LOGGED_BYTES_MAX + 1), Outcome::INVALID);
    let needs = |kind: Kind| fields_version(command(kind).kind.as_ref().expect("a command"));
    assert_eq!((needs(small("k")), needs(put("k", 1, "v")), needs(swap("k", 1, "v", 0))), (1, 6, 6));
}

#[test]
fn a_page_of_values_is_not_larger_than_a_message_carries() {
    let mut world = World::newest();
    for key in ["a", "b", "c"] {
        let Kind::begin_artifact(mut begin) = begin("", "value", "", key) else { unreachable!() };
        begin.total_bytes = limits::KV_BESIDE_BYTES_MAX as u64;
        let id = world.ok(Kind::begin_artifact(begin)).number;
        world.ok(put(key, id, key));
    }
    world.ok(small("d"));
    let mut token = Vec::new();
    let mut pages = Vec::new();
    loop {
        let page = views::list_kv(&world.rows, "", &token, 0, true).expect("memory");
        pages.push(page.keys.iter().map(|key| key.key.clone()).collect::<Vec<_>>());
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [["a"], ["b"], ["c"], ["d"]]);
    assert_eq!(views::list_kv(&world.rows, "", &[], 0, false).expect("memory").keys.len(), 4);
}
