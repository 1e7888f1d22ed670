//! Commands in the name of attempts that are over, a thousand generated ones of each kind: each is refused by name, and no row changes.

mod common;

use common::*;
use proptest::prelude::*;
use proptest::sample::{select, Index};
use proptest::test_runner::{Config, TestRunner};
use raftgrid_manifest::Table;
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

const JOB: &str = "digits";
const CASES: u32 = 1_000;
/// Gradients that were begun, and never committed.
const BEGUN: u32 = 20;

/// Attempts at both trainers and at a task of its own, over one after another; then each has a newest one that is open.
struct Past {
    world: World,
    /// (task, epoch), none of them open.
    older: Vec<(String, u64)>,
    /// (artifact, its content).
    begun: Vec<(u64, String)>,
}

impl Past {
    fn new() -> Self {
        let mut world = World::newest();
        let mut newest = world.training(JOB, |_| ());
        newest.push(world.running("alone", |_| ()));
        let tasks = [trainer(JOB, 0), trainer(JOB, 1), "alone".to_owned()];
        let (mut older, mut nonce) = (Vec::new(), 1);
        for attempt in 0..5 {
            for at in 0..tasks.len() {
                if attempt % 2 == 0 {
                    world.ok(expire(&tasks[at], newest[at]));
                } else {
                    // The node is there again, and knows nothing of what it was given.
                    nonce += 1;
                    let node = world.task(&tasks[at]).assigned_node_id.clone();
                    assert_eq!(world.register(&node, nonce).outcome, Outcome::OK);
                }
                world.now_ms += 3_600_000;
                for ((task, epoch), node) in tasks.iter().zip(&mut newest).zip(["node-a", "node-b", "node-c"]) {
                    if world.row(task).open_epoch == 0 {
                        older.push((task.clone(), *epoch));
                        *epoch = world.assign(task, node);
                    }
                }
            }
        }
        assert!(tasks.iter().all(|task| older.iter().filter(|(older, _)| older == task).count() >= 3), "{older:?}");
        let mut begun = Vec::new();
        for number in 0..BEGUN {
            let text = format!("g{number}");
            begun.push((world.begin(JOB, "gradient", &text), text));
        }
        world.ok(Kind::kv_put(KvPut { key: "kept".into(), value: b"as it is".to_vec(), ..KvPut::default() }));
        Self { world, older, begun }
    }

    /// All rows but those that every entry changes.
    fn rows(&self) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
        let rows = self.world.rows.iter().filter(|(table, ..)| ![Table::Meta, Table::Digest].contains(table));
        rows.map(|(table, key, value)| (table, key.to_vec(), value.to_vec())).collect()
    }
}

/// What a case is made of: whose attempt, which place, which number.
type Drawn = (Index, Index, u32);
type Make = fn(&Past, &(String, u64), &Drawn) -> Kind;

fn writer((task, epoch): &(String, u64)) -> protobuf::SingularPtrField<KvWriter> {
    let writer = KvWriter { task_id: task.clone(), epoch: *epoch, ..KvWriter::default() };
    protobuf::SingularPtrField::some(writer)
}

const KINDS: [(&str, Make); 8] = [
    ("gradients of shards", |past, (task, epoch), (_, place, number)| {
        let (artifact, text) = &past.begun[place.index(past.begun.len())];
        gradient(JOB, 0, number % 2, task, *epoch, *artifact, text)
    }),
    ("refusals of shards", |_, (task, epoch), (_, _, number)| {
        let Kind::reject_gradient(mut refused) = reject(JOB, 0, number % 2, 0, *epoch, "g") else { unreachable!() };
        refused.task_id = task.clone();
        Kind::reject_gradient(refused)
    }),
    ("leases of shards", |_, (task, epoch), (_, _, number)| {
        lease_shards(JOB, 0, vec![lease(number % 2, task, *epoch, number % 3 == 0)])
    }),
    ("starts", |_, (task, epoch), _| start(task, *epoch)),
    ("results", |_, (task, epoch), (_, _, number)| {
        let status = if number % 2 == 0 { TaskStatus::COMPLETED } else { TaskStatus::FAILED };
        report(task, *epoch, status, |result| {
            result.result_data = format!("{number}");
            result.exit_code = (number % 256) as i32;
            result.infrastructure = number % 5 == 0;
        })
    }),
    ("ends of leases", |_, (task, epoch), _| expire(task, *epoch)),
    ("keys that are set", |_, older, (_, _, number)| {
        let (key, value) = (format!("older/{}", number % 3), number.to_le_bytes().to_vec());
        match number % 2 {
            0 => Kind::kv_put(KvPut { key, value, writer: writer(older), ..KvPut::default() }),
            _ => Kind::kv_compare_and_set(KvCompareAndSet {
                key,
                value,
                writer: writer(older),
                ..KvCompareAndSet::default()
            }),
        }
    }),
    ("keys that are deleted", |_, older, _| {
        Kind::kv_delete(KvDelete { key: "kept".into(), writer: writer(older), ..KvDelete::default() })
    }),
];

#[test]
fn a_thousand_commands_of_each_kind_by_older_attempts_are_stale_and_change_no_row() {
    let past = std::cell::RefCell::new(Past::new());
    let before = past.borrow().rows();
    for (name, make) in KINDS {
        let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
        // Epochs that were open once, and such as were passed and never given.
        let beside = select(vec![0, 0, 0, 1, -1_i64]);
        let outcome = runner.run(&((any::<Index>(), any::<Index>(), any::<u32>()), beside), |(drawn, beside)| {
            let mut past = past.borrow_mut();
            // What concerns the job is said by its trainers.
            let speaks = |(task, _): &&(String, u64)| task != "alone" || !name.contains("shard");
            let speakers: Vec<&(String, u64)> = past.older.iter().filter(speaks).collect();
            let (task, epoch) = speakers[drawn.0.index(speakers.len())].clone();
            let older = (task, epoch.saturating_add_signed(beside));
            prop_assume!(older.1 != past.world.row(&older.0).open_epoch);
            let command = make(&past, &older, &drawn);
            let reply = past.world.run(command.clone());
            prop_assert_eq!(reply.outcome, Outcome::STALE_LEASE, "{} for {:?}", reply.message, command);
            prop_assert!(past.rows() == before, "{:?} changed a row", command);
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
