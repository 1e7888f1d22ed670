//! The read side: pages, explanations, changes.

mod common;

use common::*;
use raftgrid_manifest::{apply, command, encode_batch, row_change, views, RowChange};
use raftgrid_proto::v1::*;

fn ids(world: &World, filter: &views::TaskFilter, limit: usize) -> Vec<Vec<String>> {
    let (mut pages, mut token) = (Vec::new(), Vec::new());
    loop {
        let page = views::list_tasks(&world.rows, filter, &token, limit).expect("a token of ours");
        pages.push(page.tasks.into_iter().map(|task| task.task_id).collect());
        token = page.next_page_token;
        if token.is_empty() {
            return pages;
        }
    }
}

#[test]
fn pages_hold_every_task_once_whatever_the_filter() {
    let mut world = World::with_nodes();
    (0..5).for_each(|i| drop(world.submit(&format!("t{i}"))));
    world.training("digits", |train| train.workers = 3);
    for id in ["t1", "t3"] {
        world.assign(id, "node-a");
    }
    let filter = |status, job: Option<&str>| views::TaskFilter { status, job_id: job.map(str::to_owned), queue: None };
    assert_eq!(
        ids(&world, &filter(None, None), 3),
        [vec!["t0", "t1", "t2"], vec!["t3", "t4", "digits/trainer-0"], vec!["digits/trainer-1", "digits/trainer-2"],]
    );
    assert_eq!(ids(&world, &filter(Some(TaskStatus::PENDING), None), 2), [vec!["t0", "t2"], vec!["t4"]]);
    assert_eq!(ids(&world, &filter(None, Some("digits")), 3).concat().len(), 3);
    let assigned = filter(Some(TaskStatus::ASSIGNED), Some("digits"));
    assert_eq!(ids(&world, &assigned, 2), [vec!["digits/trainer-0", "digits/trainer-1"], vec!["digits/trainer-2"],]);
    assert!(ids(&world, &filter(Some(TaskStatus::FAILED), Some("digits")), 2).concat().is_empty());
    assert!(ids(&world, &filter(None, Some("none")), 2).concat().is_empty());
    let wrong = views::list_tasks(&world.rows, &filter(None, None), b"x", 1);
    assert!(matches!(wrong, Err(views::ListError::Token)));
}

#[test]
fn jobs_and_artifacts_are_listed_in_pages() {
    let mut world = World::with_nodes();
    for name in ["a", "b", "c"] {
        world.ok(submit_job(train_spec(name)));
        world.begin(name, "model", name);
    }
    let first = views::list_jobs(&world.rows, &[], 2).expect("a token of ours");
    let second = views::list_jobs(&world.rows, &first.next_page_token, 2).expect("a token of ours");
    let names = |page: &views::JobPage| page.jobs.iter().map(|job| job.job_id.clone()).collect::<Vec<_>>();
    assert_eq!((names(&first), names(&second)), (vec!["a".to_owned(), "b".into()], vec!["c".to_owned()]));
    assert!(second.next_page_token.is_empty());
    let first = views::list_artifacts(&world.rows, &[], 2).expect("a token of ours");
    let second = views::list_artifacts(&world.rows, &first.next_page_token, 2).expect("a token of ours");
    assert_eq!((first.artifacts.len(), second.artifacts.len()), (2, 1));
}

#[test]
fn a_waiting_task_is_explained_node_by_node() {
    let mut world = World::new();
    let why = |world: &World, id| views::explain_task(&world.rows, id).expect("memory").expect("there is such a task");
    world.ok(submit("t", |spec| spec.mut_resources().gpus = 1));
    assert_eq!(why(&world, "t").summary, "no node is registered; start a worker");
    world.register("node-a", 1);
    let answer = why(&world, "t");
    assert_eq!(answer.summary, "none of 1 nodes can take it");
    assert_eq!(answer.reasons.to_vec(), ["node node-a: gpus: 0 free, wanted 1"]);
    let epoch = world.running("u", |_| ());
    assert!(why(&world, "u").summary.starts_with("attempt 1 has its lease on node node-a"));
    world.ok(report("u", epoch, TaskStatus::FAILED, |r| (r.reason, r.backoff_ms) = ("boom".into(), 500)));
    assert_eq!(why(&world, "u").summary, "waits 500 ms before the next attempt");
    assert!(why(&world, "u").reasons.contains(&"the last attempt ended: boom".to_owned()));
    assert!(views::explain_task(&world.rows, "none").expect("memory").is_none());
}

#[test]
fn changes_decode_into_rows() {
    let mut world = World::with_nodes();
    let payload = encode_batch(world.now_ms, vec![command(submit("t", |_| ()))]);
    let applied = apply(&world.rows, 50, &[payload]).expect("it applies");
    let rows: Vec<RowChange> = applied.changes.iter().map(|c| row_change(c).expect("a row of ours")).collect();
    let tasks = rows.iter().filter(|row| matches!(row, RowChange::Task(task) if task.get_task().task_id == "t"));
    assert_eq!(tasks.count(), 1);
    let incarnation = world.node("node-a").incarnation;
    let leave = Deregister { node_id: "node-a".into(), incarnation, ..Deregister::default() };
    world.index = 50;
    let payload = encode_batch(0, vec![command(Command_oneof_kind::deregister(leave))]);
    let applied = apply(&world.rows, 51, &[payload]).expect("it applies");
    let gone = RowChange::NodeGone { node_id: "node-a".into() };
    assert!(applied.changes.iter().any(|change| row_change(change).expect("a row of ours") == gone));
}

#[test]
fn a_page_is_the_same_whether_rows_are_looked_up_or_read_over_and_whether_they_are_decoded() {
    use protobuf::Message;
    let mut world = World::with_nodes();
    let total = 60;
    (0..total).for_each(|i| drop(world.submit(&format!("t{i}"))));
    // Far apart, close together, and the last of all.
    for i in [0, 7, 30, 31, 32, 33, total - 1] {
        world.ok(cancel(&format!("t{i}"), false));
    }
    for status in [TaskStatus::FAILED, TaskStatus::PENDING] {
        let filter = views::TaskFilter { status: Some(status), ..views::TaskFilter::default() };
        let mut wanted: Vec<Task> = Vec::new();
        views::task_rows(&world.rows, status, |mut row| {
            wanted.push(row.take_task());
            true
        })
        .expect("memory");
        for limit in [1, 2, 3, 5, 7, 100] {
            let (mut decoded, mut raw, mut token) = (Vec::new(), Vec::new(), Vec::new());
            loop {
                let page = views::list_tasks(&world.rows, &filter, &token, limit).expect("a token of ours");
                let same = views::list_encoded_tasks(&world.rows, &filter, &token, limit).expect("a token of ours");
                assert_eq!(page.next_page_token, same.next_page_token);
                decoded.extend(page.tasks);
                raw.extend(same.tasks.iter().map(|task| Task::parse_from_bytes(&task.bytes).expect("a task")));
                token = page.next_page_token;
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!((&decoded, &raw), (&wanted, &wanted), "{status:?}, {limit} in a page");
        }
    }
}
