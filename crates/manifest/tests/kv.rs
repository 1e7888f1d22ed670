//! Replicated keys: compare-and-set, fencing, bounds, keys that go with a job.

mod common;

use common::*;
use protobuf::SingularPtrField;
use raftgrid_manifest::{limits, views};
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

fn world() -> World {
    let mut world = World::with_nodes();
    world.ok(Kind::set_machine_version(SetMachineVersion { version: 3, ..SetMachineVersion::default() }));
    world
}

fn put(key: &str, value: &[u8]) -> Kind {
    Kind::kv_put(KvPut { key: key.into(), value: value.to_vec(), ..KvPut::default() })
}

fn put_by(key: &str, task_id: &str, epoch: u64, job_id: &str) -> Kind {
    let writer = KvWriter { task_id: task_id.into(), epoch, job_id: job_id.into(), ..KvWriter::default() };
    let writer = SingularPtrField::some(writer);
    Kind::kv_put(KvPut { key: key.into(), value: b"v".to_vec(), writer, ..KvPut::default() })
}

fn cas(key: &str, expected: u64, value: &[u8]) -> Kind {
    let (key, value) = (key.into(), value.to_vec());
    Kind::kv_compare_and_set(KvCompareAndSet { key, value, expected, ..KvCompareAndSet::default() })
}

fn delete(key: &str, expected: u64) -> Kind {
    Kind::kv_delete(KvDelete { key: key.into(), expected, ..KvDelete::default() })
}

fn value(world: &World, key: &str) -> Option<Vec<u8>> {
    views::kv(&world.rows, key).expect("memory").map(|row| row.value)
}

#[test]
fn a_cluster_of_an_older_version_refuses_them() {
    let mut world = World::with_nodes();
    for kind in [put("k", b"v"), cas("k", 0, b"v"), delete("k", 0)] {
        let reply = world.must(kind, Outcome::PRECONDITION);
        assert!(reply.message.contains("needs machine version 3"), "{}", reply.message);
    }
    let limited = submit("t", |spec| spec.mut_limits().set_memory_bytes(1));
    world.must(limited, Outcome::PRECONDITION);
    world.must(submit("t", |spec| spec.set_requirements("numpy".into())), Outcome::PRECONDITION);
    assert_eq!(value(&world, "k"), None);
}

#[test]
fn a_value_is_set_only_where_nobody_wrote_since_it_was_read() {
    let mut world = world();
    let first = world.ok(cas("k", 0, b"one")).number;
    let refused = world.must(cas("k", 0, b"two"), Outcome::MISMATCH);
    assert_eq!((refused.number, value(&world, "k")), (first, Some(b"one".to_vec())));
    let second = world.ok(cas("k", first, b"two")).number;
    assert!(second > first);
    world.must(cas("k", first, b"three"), Outcome::MISMATCH);
    world.ok(put("k", b"four"));
    world.must(cas("k", second, b"five"), Outcome::MISMATCH);
    assert_eq!(value(&world, "k"), Some(b"four".to_vec()));
}

#[test]
fn the_same_value_again_is_another_revision() {
    let mut world = world();
    let first = world.ok(put("k", b"same")).number;
    world.ok(put("k", b"same"));
    world.must(cas("k", first, b"new"), Outcome::MISMATCH);
}

#[test]
fn a_deleted_key_made_anew_does_not_pass_for_the_old_one() {
    let mut world = world();
    let first = world.ok(put("k", b"one")).number;
    world.must(delete("k", first + 1), Outcome::MISMATCH);
    world.ok(delete("k", first));
    world.must(delete("k", 0), Outcome::NOT_FOUND);
    world.must(delete("k", first), Outcome::MISMATCH);
    world.must(cas("k", first, b"two"), Outcome::MISMATCH);
    world.ok(cas("k", 0, b"two"));
    world.must(delete("k", first), Outcome::MISMATCH);
    assert_eq!(value(&world, "k"), Some(b"two".to_vec()));
}

#[test]
fn the_same_request_twice_swaps_once_and_both_are_told_so() {
    let mut world = world();
    let id = uuid(world.now_ms, 1);
    let first = world.run_as("ann", &id, cas("k", 0, b"one"));
    assert_eq!(first.outcome, Outcome::OK);
    world.ok(put("k", b"two"));
    let again = world.run_as("ann", &id, cas("k", 0, b"one"));
    assert_eq!((again.outcome, again.number), (Outcome::EXISTING, first.number));
    assert_eq!(value(&world, "k"), Some(b"two".to_vec()));
}

#[test]
fn a_write_for_an_attempt_needs_its_open_lease() {
    let mut world = world();
    let epoch = world.running("t", |_| ());
    world.ok(put_by("k", "t", epoch, ""));
    world.must(put_by("k", "t", epoch + 1, ""), Outcome::STALE_LEASE);
    world.must(put_by("k", "t", 0, ""), Outcome::STALE_LEASE);
    world.ok(expire("t", epoch));
    let before = value(&world, "k");
    world.must(put_by("k", "t", epoch, ""), Outcome::STALE_LEASE);
    assert_eq!(value(&world, "k"), before);
}

#[test]
fn keys_of_a_job_go_when_it_is_over_and_others_stay() {
    for done in [true, false] {
        let mut world = world();
        world.ok(submit_job(JobSpec {
            name: "j".into(),
            field_type: "command".into(),
            task_data: b"{\"argv\":[\"true\"]}".to_vec(),
            ..JobSpec::default()
        }));
        world.ok(put("stays", b"v"));
        world.ok(put_by("rdzv/a", "", 0, "j"));
        world.ok(put_by("rdzv/b", "", 0, "j"));
        world.ok(put("rdzv/b", b"again, by nobody"));
        let task_id = world.job("j").task_ids[0].clone();
        let epoch = world.assign(&task_id, "node-a");
        let status = if done { TaskStatus::COMPLETED } else { TaskStatus::FAILED };
        world.ok(report(&task_id, epoch, status, |report| report.exit_code = 64));
        let left = views::list_kv(&world.rows, "", &[], 0, false).expect("memory").keys;
        assert_eq!(left.iter().map(|key| key.key.as_str()).collect::<Vec<_>>(), ["stays"]);
        let late = world.must(put_by("rdzv/a", "", 0, "j"), Outcome::PRECONDITION);
        assert!(late.message.contains("over"), "{}", late.message);
    }
}

#[test]
fn what_is_too_large_or_no_key_is_refused_by_its_field() {
    let mut world = world();
    let long = "k".repeat(limits::KV_KEY_BYTES_MAX + 1);
    let large = vec![0; limits::KV_VALUE_BYTES_MAX + 1];
    for (kind, field) in
        [(put("", b""), "key:"), (put("a\nb", b""), "key:"), (put(&long, b""), "key:"), (put("k", &large), "value:")]
    {
        let reply = world.must(kind, Outcome::INVALID);
        assert!(reply.message.starts_with(field), "{}", reply.message);
    }
    world.must(put_by("k", "", 0, "nobody"), Outcome::NOT_FOUND);
    assert_eq!(views::kv_count(&world.rows).expect("memory").rows, 0);
}

#[test]
fn listings_are_by_prefix_and_go_on_where_a_page_ended() {
    let mut world = world();
    for key in ["a", "b/1", "b/2", "b/3", "c"] {
        world.ok(put(key, key.as_bytes()));
    }
    let (mut token, mut seen) = (Vec::new(), Vec::new());
    loop {
        let page = views::list_kv(&world.rows, "b/", &token, 2, true).expect("memory");
        seen.extend(page.keys.iter().map(|key| (key.key.clone(), key.data.clone())));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let wanted: Vec<_> = ["b/1", "b/2", "b/3"].iter().map(|key| ((*key).to_owned(), key.as_bytes().to_vec())).collect();
    assert_eq!(seen, wanted);
}
