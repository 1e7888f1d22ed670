//! Names of artifacts and their versions, from machine version 6 on.

mod common;

use common::*;
use raftgrid_manifest::{command, fields_version, views, Table};
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

fn versioned(name: &str, text: &str, keep: u32) -> Kind {
    let Kind::begin_artifact(mut begin) = begin("", "file", name, text) else { unreachable!() };
    (begin.versioned, begin.keep) = (true, keep);
    Kind::begin_artifact(begin)
}

fn commit_as(name: &str, artifact_id: u64, text: &str) -> Kind {
    let Kind::commit_artifact(mut commit) = commit_artifact(artifact_id, text) else { unreachable!() };
    (commit.name, commit.digest) = (name.into(), sha(text));
    Kind::commit_artifact(commit)
}

/// Brings the bytes under the name; gives (artifact, version).
fn push(world: &mut World, name: &str, text: &str, keep: u32) -> (u64, u64) {
    let id = world.ok(versioned(name, text, keep)).number;
    let reply = world.ok(commit_artifact(id, text));
    assert_eq!(reply.id, id.to_string());
    (id, reply.number)
}

fn remove(artifact: &str, all: bool) -> Kind {
    Kind::remove_artifact(RemoveArtifact { artifact: artifact.into(), all, ..RemoveArtifact::default() })
}

fn name_it(from: &str, name: &str, keep: u32) -> Kind {
    Kind::name_artifact(NameArtifact { from: from.into(), name: name.into(), keep, ..NameArtifact::default() })
}

fn found(world: &World, artifact: &str) -> Option<u64> {
    views::find_artifact(&world.rows, artifact).expect("memory").map(|row| row.artifact_id)
}

fn versions(world: &World, name: &str) -> Vec<u64> {
    let all = views::artifact_versions(&world.rows, name).expect("memory");
    all.iter().map(|info| info.versions[0].version).collect()
}

fn state(world: &World, id: u64) -> ArtifactState {
    views::artifact_row(&world.rows, id).expect("memory").expect("the row stands").state
}

fn at(version: u64) -> Kind {
    Kind::set_machine_version(SetMachineVersion { version, ..SetMachineVersion::default() })
}

#[test]
fn other_bytes_are_the_next_version_and_equal_ones_are_none() {
    let mut world = World::newest();
    let (first, one) = push(&mut world, "net", "a", 0);
    let (second, two) = push(&mut world, "net", "b", 0);
    assert_eq!((one, two), (1, 2));
    assert_eq!(world.must(versioned("net", "b", 0), Outcome::EXISTING).number, second, "as the newest");
    let (third, three) = push(&mut world, "net", "a", 0);
    assert_eq!(three, 3, "equal to an older one only");
    for (artifact, id) in [("net", third), ("net@latest", third), ("net@1", first), ("net@2", second), ("net@3", third)]
    {
        assert_eq!(found(&world, artifact), Some(id), "{artifact}");
    }
    for absent in ["net@0", "net@4", "net@", "net@newest", "ne"] {
        assert_eq!(found(&world, absent), None, "{absent}");
    }
    assert_eq!(world.must(begin("", "file", "net", "a"), Outcome::EXISTING).number, third);
    world.must(begin("", "file", "net", "c"), Outcome::ALREADY_EXISTS);
}

#[test]
fn a_number_is_never_given_twice() {
    let mut world = World::newest();
    push(&mut world, "net", "a", 0);
    let (second, _) = push(&mut world, "net", "b", 0);
    world.ok(remove("net@2", false));
    assert_eq!(state(&world, second), ArtifactState::ARTIFACT_DELETING);
    world.ok(delete_artifact(second, true));
    assert_eq!((versions(&world, "net"), found(&world, "net@2")), (vec![1], None));
    assert_eq!(push(&mut world, "net", "b", 0).1, 3);
    world.must(remove("net", false), Outcome::PRECONDITION);
    let reply = world.ok(remove("net", true));
    assert_eq!(reply.number, 2, "versions 1 and 3");
    world.must(remove("net", true), Outcome::NOT_FOUND);
    assert_eq!(found(&world, "net"), None);
    assert_eq!(push(&mut world, "net", "c", 0).1, 4);
}

#[test]
fn the_first_try_s_answer_is_given_again_whatever_came_between() {
    let mut world = World::newest();
    let id = uuid(world.now_ms, 1);
    let begun = world.ok(versioned("net", "a", 0)).number;
    let first = world.run_as("ann", &id, commit_as("net", begun, "a"));
    assert_eq!((first.outcome, first.number), (Outcome::OK, 1));
    push(&mut world, "net", "b", 0);
    // The answer was lost: the bytes come again, and differ from the newest.
    let again = world.ok(versioned("net", "a", 0)).number;
    let second = world.run_as("ann", &id, commit_as("net", again, "a"));
    assert_eq!((second.outcome, &second.id, second.number), (Outcome::EXISTING, &first.id, 1));
    assert_eq!(versions(&world, "net"), [1, 2]);
    let other = world.run_as("ann", &id, commit_as("net", again, "x"));
    assert_eq!(other.outcome, Outcome::ALREADY_EXISTS, "{}", other.message);
    let gone = uuid(world.now_ms, 2);
    let first = world.run_as("ann", &gone, remove("net@1", false));
    let second = world.run_as("ann", &gone, remove("net@1", false));
    assert_eq!((first.outcome, second.outcome), (Outcome::OK, Outcome::EXISTING));
    assert_eq!((first.id, first.number), (second.id, second.number), "a deletion says the same again");
}

#[test]
fn who_is_second_with_the_same_bytes_gets_the_first_s_version() {
    let mut world = World::newest();
    let (one, two) = (world.ok(versioned("net", "a", 0)).number, world.ok(versioned("net", "a", 0)).number);
    world.ok(commit_artifact(two, "a"));
    let reply = world.must(commit_artifact(one, "a"), Outcome::EXISTING);
    assert_eq!((reply.id, reply.number), (two.to_string(), 1));
    assert_eq!(state(&world, one), ArtifactState::ARTIFACT_DELETING);
    assert_eq!(versions(&world, "net"), [1]);
}

#[test]
fn older_versions_than_are_kept_go_in_the_same_apply() {
    let mut world = World::newest();
    let ids: Vec<u64> = ["a", "b", "c"].iter().map(|text| push(&mut world, "net", text, 0).0).collect();
    push(&mut world, "net", "d", 2);
    assert_eq!(versions(&world, "net"), [3, 4]);
    for (id, gone) in ids.into_iter().zip([true, true, false]) {
        assert_eq!(state(&world, id) == ArtifactState::ARTIFACT_DELETING, gone);
    }
    push(&mut world, "net", "e", u32::MAX);
    assert_eq!(versions(&world, "net"), [3, 4, 5]);
}

#[test]
fn what_a_job_was_submitted_with_is_neither_trimmed_nor_removed_before_its_end() {
    let mut world = World::newest();
    let (bundle, _) = push(&mut world, "code", "a", 0);
    let mut spec = train_spec("digits");
    spec.mut_task().bundle_artifact = bundle.to_string();
    spec.bundle_digest = sha("a");
    world.ok(submit_job(spec));
    push(&mut world, "code", "b", 1);
    assert_eq!(versions(&world, "code"), [1, 2], "one more than is kept");
    for artifact in ["code@1".to_owned(), bundle.to_string()] {
        let reply = world.must(remove(&artifact, true), Outcome::PRECONDITION);
        assert!(reply.message.contains("job digits"), "{}", reply.message);
    }
    world.ok(Kind::cancel_job(CancelJob { job_id: "digits".into(), ..CancelJob::default() }));
    world.ok(remove("code@1", false));
    assert_eq!(state(&world, bundle), ArtifactState::ARTIFACT_DELETING);
}

#[test]
fn a_job_s_model_goes_by_a_name_without_a_copy_and_outlives_the_ledger_by_it() {
    let mut world = World::newest();
    let epochs = world.training("digits", |train| {
        train.rounds = 200;
        train.retain_rounds = 2;
    });
    let model: u64 = world.job("digits").model_artifact.parse().expect("an id");
    let reply = world.ok(name_it("digits/model@latest", "best", 0));
    assert_eq!((reply.id.as_str(), reply.number), (&*model.to_string(), 1));
    assert_eq!(world.must(name_it("digits/model@0", "best", 0), Outcome::EXISTING).number, 1, "equal bytes");
    world.ok(name_it("best@1", "good", 0));
    world.ok(remove("good", false));
    assert_eq!(state(&world, model), ArtifactState::ARTIFACT_COMMITTED, "the job has it");
    for round in 0..102 {
        world.unchecked = round % 20 != 19;
        world.whole_round("digits", round, epochs[0]);
    }
    world.unchecked = false;
    assert_eq!(found(&world, "digits/model@0"), None, "beyond the rounds that the ledger keeps");
    assert_eq!(found(&world, "best"), Some(model), "its name holds it");
    world.ok(remove("best", false));
    assert_eq!(state(&world, model), ArtifactState::ARTIFACT_DELETING, "the last that held it");
}

#[test]
fn an_artifact_with_several_names_goes_with_the_last_or_by_its_id_if_all_are_meant() {
    let mut world = World::newest();
    let (id, _) = push(&mut world, "net", "a", 0);
    world.ok(name_it("net@1", "other", 0));
    world.ok(remove("net", false));
    assert_eq!((found(&world, "net"), found(&world, "other")), (None, Some(id)));
    world.ok(name_it("other", "net", 0));
    assert_eq!(found(&world, "net@2"), Some(id));
    let reply = world.must(remove(&id.to_string(), false), Outcome::PRECONDITION);
    assert!(reply.message.contains("other@1, net@2"), "{}", reply.message);
    world.ok(remove(&id.to_string(), true));
    assert_eq!(
        (found(&world, "net"), found(&world, "other"), state(&world, id)),
        (None, None, ArtifactState::ARTIFACT_DELETING)
    );
    // One that was begun without a name lives by its id.
    let bare = world.begin("", "file", "bare");
    world.ok(commit_artifact(bare, "bare"));
    world.ok(name_it(&bare.to_string(), "called", 0));
    world.ok(remove("called@latest", false));
    assert_eq!(state(&world, bare), ArtifactState::ARTIFACT_COMMITTED);
}

#[test]
fn a_name_may_go_to_the_same_bytes_twice_with_others_between() {
    let mut world = World::newest();
    let (a, _) = push(&mut world, "net", "a", 0);
    let (b, _) = push(&mut world, "net", "b", 0);
    assert_eq!(world.ok(name_it("net@1", "net", 2)).number, 3);
    assert_eq!(versions(&world, "net"), [2, 3]);
    assert_eq!(
        (state(&world, a), state(&world, b)),
        (ArtifactState::ARTIFACT_COMMITTED, ArtifactState::ARTIFACT_COMMITTED)
    );
    world.ok(remove("net@3", false));
    assert_eq!((found(&world, "net"), state(&world, a)), (Some(b), ArtifactState::ARTIFACT_DELETING));
}

#[test]
fn names_of_before_version_6_have_one_version_and_go_on_from_it() {
    let mut world = World::new();
    world.ok(at(5));
    let old: Vec<u64> = ["kept", "gone", "next"]
        .iter()
        .map(|name| {
            let id = world.ok(begin("", "file", name, name)).number;
            world.ok(commit_artifact(id, name));
            id
        })
        .collect();
    let flagged = world.ok(versioned("flags", "x", 1)).number;
    world.ok(commit_artifact(flagged, "x"));
    world.must(versioned("flags", "y", 1), Outcome::ALREADY_EXISTS);
    world.must(remove("gone", true), Outcome::PRECONDITION);
    world.ok(at(6));
    assert_eq!(found(&world, "kept@1"), Some(old[0]));
    assert_eq!(versions(&world, "kept"), [1]);
    world.ok(remove("gone", false));
    assert_eq!(push(&mut world, "gone", "new", 0).1, 2);
    assert_eq!(push(&mut world, "next", "new", 1).1, 2);
    assert_eq!(versions(&world, "next"), [2]);
    assert_eq!(state(&world, old[2]), ArtifactState::ARTIFACT_DELETING);
    world.ok(name_it("kept", "also", 0));
    world.ok(remove("kept", false));
    assert_eq!((found(&world, "kept"), found(&world, "also")), (None, Some(old[0])));
    world.ok(delete_artifact(old[0], false));
    assert_eq!(found(&world, "also"), None, "DeleteArtifact frees all names");
}

#[test]
fn a_name_that_is_given_once_and_freed_by_its_id_leaves_nothing_behind() {
    let mut world = World::newest();
    let rows = |world: &World| world.rows.iter().filter(|(table, _, _)| *table == Table::Name).count();
    let id = world.ok(begin("", "checkpoint", "task/1", "a")).number;
    world.ok(commit_artifact(id, "a"));
    assert_eq!(rows(&world), 1);
    world.ok(remove(&id.to_string(), false));
    assert_eq!((rows(&world), found(&world, "task/1")), (0, None));
    let id = push(&mut world, "net", "a", 0).0;
    world.ok(remove(&id.to_string(), false));
    assert_eq!((rows(&world), push(&mut world, "net", "a", 0).1), (1, 2), "somebody counts on its numbers");
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let mut world = World::newest();
    push(&mut world, "net", "a", 0);
    let long = "n".repeat(200);
    let cases = [
        (name_it("net", "../x", 0), Outcome::INVALID, "name:"),
        (name_it("net", "7", 0), Outcome::INVALID, "name:"),
        (name_it("net", "a@1", 0), Outcome::INVALID, "name:"),
        (name_it(&long, "b", 0), Outcome::INVALID, "from:"),
        (name_it("absent@1", "b", 0), Outcome::NOT_FOUND, "artifact absent@1"),
        (remove(&long, false), Outcome::INVALID, "artifact:"),
        (remove("net@9", true), Outcome::NOT_FOUND, "artifact net@9"),
        (remove("../x", true), Outcome::NOT_FOUND, "artifact ../x"),
        (remove("99", true), Outcome::NOT_FOUND, "artifact 99"),
    ];
    for (kind, outcome, start) in cases {
        let before = world.rows.clone();
        let reply = world.must(kind, outcome);
        assert!(reply.message.starts_with(start), "{}", reply.message);
        let artifacts = |rows| views::list_artifacts(rows, &[], 0).expect("no token");
        assert_eq!(artifacts(&world.rows), artifacts(&before));
    }
}

#[test]
fn a_name_has_so_many_versions_and_an_artifact_so_many_names() {
    use raftgrid_manifest::limits::{ARTIFACT_NAMES_MAX, NAME_VERSIONS_MAX};
    let mut world = World::newest();
    world.unchecked = true;
    for text in ["a", "b"] {
        push(&mut world, text, text, 0);
    }
    for at in 0..NAME_VERSIONS_MAX {
        world.ok(name_it(["a", "b"][at % 2], "net", 0));
        if at + 1 == ARTIFACT_NAMES_MAX {
            break;
        }
    }
    let mut at = 1;
    let reply = loop {
        at += 1;
        let reply = world.run(name_it("a", &format!("n{at}"), 0));
        if reply.outcome != Outcome::OK {
            break reply;
        }
        assert!(at <= ARTIFACT_NAMES_MAX);
    };
    assert_eq!(reply.outcome, Outcome::EXHAUSTED, "{}", reply.message);
    for at in versions(&world, "net").len()..NAME_VERSIONS_MAX {
        push(&mut world, "net", &format!("text {at}"), 0);
    }
    let more = world.ok(versioned("net", "more", 0)).number;
    world.must(commit_artifact(more, "more"), Outcome::EXHAUSTED);
    world.unchecked = false;
    assert_eq!(push(&mut world, "net", "less", 3).1, NAME_VERSIONS_MAX as u64 + 1);
    assert_eq!(versions(&world, "net").len(), 3);
}

#[test]
fn an_older_replica_is_given_no_version_of_a_name() {
    let kind = |kind: Kind| fields_version(command(kind).kind.as_ref().expect("a command"));
    assert_eq!(kind(begin("", "file", "n", "x")), 1);
    assert_eq!(kind(versioned("n", "x", 0)), 6);
    assert_eq!(kind(commit_artifact(1, "x")), 1);
    assert_eq!(kind(commit_as("n", 1, "x")), 6);
}
