//! The whole worker against a scripted control plane: from assignment to report.

mod harness;

use std::sync::Arc;

use harness::*;
use raftgrid_proto::v1::{Lease, TaskStatus};
use raftgrid_worker::{TaskTable, Worker, WorkerDir, WorkerEnd};

fn start(plane: &Arc<Plane>, folder: &tempfile::TempDir) -> Worker {
    let dir = WorkerDir::take(folder.path(), &silent()).expect("free");
    let config = config(folder.path().to_owned());
    Worker::start(config, dir, "127.0.0.1:1".to_owned(), plane.clone(), TaskTable::new(), &silent()).expect("it starts")
}

/// A task that writes its pid and ignores SIGTERM.
fn stubborn(epoch: u64, folder: &tempfile::TempDir) -> (raftgrid_proto::v1::Task, std::path::PathBuf) {
    let pids = folder.path().join(format!("pid-{epoch}"));
    let script = format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.05; done", pids.display());
    let data = serde_json::json!({"argv": ["sh", "-c", script]}).to_string();
    (task(epoch, "command", &data), pids)
}

fn lease(epoch: u64) -> Lease {
    let mut lease = Lease::new();
    lease.set_task_id(format!("task-{epoch}"));
    lease.set_epoch(epoch);
    lease
}

#[test]
fn a_task_is_started_run_logged_and_reported_once() {
    let (plane, folder) = (plane(), tempfile::tempdir().expect("a folder"));
    let worker = start(&plane, &folder);
    plane.change(|script| script.tasks.push_back(task(7, "command", r#"{"argv":["echo","hello"]}"#)));
    let report = plane.report_of(7);
    assert_eq!((report.final_status, report.exit_code), (TaskStatus::COMPLETED, 0), "{report:?}");
    assert!(report.result_data.contains("hello"));
    plane.wait("the log", |script| (script.logs.get(&7).map(Vec::as_slice) == Some(b"hello\n")).then_some(()));
    worker.drain();
    assert!(matches!(worker.join(), WorkerEnd::Drained));
    plane.change(|script| {
        assert_eq!(script.started, [("task-7".to_owned(), 7)]);
        assert_eq!(script.reports.len(), 1);
        assert!(script.deregistered);
        assert!(script.beats[0].node.is_some() && script.beats[0].boot_nonce != 0, "the first beat registers");
        assert!(script.beats.iter().any(|beat| beat.held.iter().any(|held| held.epoch == 7)), "the lease was renewed");
    });
}

#[test]
fn a_worker_that_hears_nothing_kills_its_tasks_and_gives_them_back_later() {
    let (plane, folder) = (plane(), tempfile::tempdir().expect("a folder"));
    let _worker = start(&plane, &folder);
    let (task, pids) = stubborn(7, &folder);
    plane.change(|script| script.tasks.push_back(task));
    let pid = numbers_in(&pids, 1)[0];
    plane.change(|script| script.silent = true);
    gone(pid);
    let report = plane.report_of(7);
    assert_eq!((report.final_status, report.exit_code), (TaskStatus::FAILED, 75));
    assert!(report.reason.contains("fenced"), "{report:?}");
}

#[test]
fn a_revoked_task_is_killed_and_never_reported() {
    let (plane, folder) = (plane(), tempfile::tempdir().expect("a folder"));
    let worker = start(&plane, &folder);
    let (task, pids) = stubborn(7, &folder);
    plane.change(|script| script.tasks.push_back(task));
    let pid = numbers_in(&pids, 1)[0];
    plane.change(|script| script.revoked = vec![lease(7)]);
    gone(pid);
    plane.wait("the slot", |script| script.beats.last().filter(|beat| beat.held.is_empty()).map(|_| ()));
    drop(worker);
    plane.change(|script| assert!(script.reports.is_empty(), "{:?}", script.reports));
}

#[test]
fn a_cancelled_task_that_ignores_sigterm_is_killed_after_the_grace() {
    let (plane, folder) = (plane(), tempfile::tempdir().expect("a folder"));
    let _worker = start(&plane, &folder);
    let (task, pids) = stubborn(7, &folder);
    plane.change(|script| script.tasks.push_back(task));
    let pid = numbers_in(&pids, 1)[0];
    plane.change(|script| script.stopping = vec![lease(7)]);
    gone(pid);
    let report = plane.report_of(7);
    assert_eq!((report.final_status, report.reason.as_str()), (TaskStatus::FAILED, "cancelled"));
}

#[test]
fn a_drained_worker_gives_its_tasks_back_for_another_one() {
    let (plane, folder) = (plane(), tempfile::tempdir().expect("a folder"));
    let worker = start(&plane, &folder);
    let (task, pids) = stubborn(7, &folder);
    plane.change(|script| script.tasks.push_back(task));
    let pid = numbers_in(&pids, 1)[0];
    worker.drain();
    assert!(matches!(worker.join(), WorkerEnd::Drained));
    gone(pid);
    let report = plane.report_of(7);
    assert_eq!((report.exit_code, report.reason.as_str()), (75, "drained"));
    plane.change(|script| assert!(script.deregistered));
}
