//! Lives that semantics.md forbids.

use crate::linearizability::{check_lives, Life, ReportAnswer, TaskEvent, TaskSeen};

fn submitted(at: u64) -> TaskEvent {
    TaskEvent::Submitted { task: "t".to_owned(), at }
}

fn row(revision: u64, life: Life, epoch: u64, result: &str) -> TaskSeen {
    TaskSeen { revision, life, epoch, attempt: u32::from(epoch > 0), result: result.to_owned() }
}

fn read(invoked: u64, seen: Option<TaskSeen>) -> TaskEvent {
    TaskEvent::Read { task: "t".to_owned(), invoked, at: invoked + 1, seen }
}

fn reported(epoch: u64, completed: bool, result: &str, at: u64, answer: ReportAnswer) -> TaskEvent {
    TaskEvent::Reported { task: "t".to_owned(), epoch, completed, result: result.to_owned(), at, answer }
}

fn whole_life() -> Vec<TaskEvent> {
    vec![
        read(0, None),
        submitted(5),
        read(6, Some(row(10, Life::Pending, 0, ""))),
        read(8, Some(row(20, Life::Assigned, 20, ""))),
        reported(20, true, "a", 10, ReportAnswer::Accepted),
        reported(20, true, "a", 12, ReportAnswer::Repeated),
        reported(20, true, "b", 13, ReportAnswer::Stale),
        read(14, Some(row(30, Life::Completed, 20, "a"))),
        read(20, Some(row(30, Life::Completed, 20, "a"))),
    ]
}

#[test]
fn a_whole_life_is_allowed() {
    assert_eq!(check_lives(&whole_life()), vec![]);
}

#[test]
fn each_breach_of_a_life_is_found() {
    let with = |what: &str, more: Vec<TaskEvent>| {
        let events: Vec<TaskEvent> = whole_life().into_iter().chain(more).collect();
        assert!(!check_lives(&events).is_empty(), "{what}");
    };
    with("gone", vec![read(30, None)]);
    with("over, and changed", vec![read(30, Some(row(40, Life::Pending, 20, "")))]);
    with("over, and another result", vec![read(30, Some(row(40, Life::Completed, 20, "c")))]);
    with("one revision, two rows", vec![read(30, Some(row(30, Life::Completed, 20, "c")))]);
    with("an old row", vec![read(30, Some(row(20, Life::Assigned, 20, "")))]);
    with("a second result", vec![reported(40, true, "b", 30, ReportAnswer::Accepted)]);
    with("a second report of one lease", vec![reported(20, false, "x", 30, ReportAnswer::Accepted)]);
    with("a repetition that is none", vec![reported(20, true, "b", 30, ReportAnswer::Repeated)]);
    let fell = vec![read(1, Some(row(20, Life::Assigned, 20, ""))), read(3, Some(row(30, Life::Pending, 10, "")))];
    assert!(!check_lives(&fell).is_empty(), "a lease that fell");
    let lost = vec![
        submitted(5),
        reported(20, true, "a", 10, ReportAnswer::Accepted),
        read(14, Some(row(20, Life::Running, 20, ""))),
    ];
    assert!(!check_lives(&lost).is_empty(), "an accepted result that is not there");
}

#[test]
fn a_submission_that_nobody_acknowledged_may_be_missing() {
    assert_eq!(check_lives(&[read(5, None), read(10, None)]), vec![]);
    // Once it was read, it is there.
    assert!(!check_lives(&[read(5, Some(row(10, Life::Pending, 0, ""))), read(10, None)]).is_empty());
}
