//! Scripted conversations with the executor.

use protobuf::RepeatedField;
use raftgrid_proto::v1::TaskStatus;

use super::*;

const TTL: u64 = 3_000;
const GRACE: u64 = 500;

fn executor() -> Executor {
    Executor::new(Settings { slots: 2, stop_grace_ms: GRACE, lease_ttl_ms: TTL })
}

fn task(id: &str, epoch: u64) -> Task {
    let mut task = Task::new();
    task.set_task_id(id.to_owned());
    task.set_lease_epoch(epoch);
    task
}

fn lease(id: &str, epoch: u64) -> LeaseId {
    LeaseId { task_id: id.to_owned(), epoch }
}

fn answer() -> HeartbeatResponse {
    let mut answer = HeartbeatResponse::new();
    answer.set_acknowledged(true);
    answer.set_incarnation(9);
    answer.set_next_beat_ms(250);
    answer.set_lease_ttl_ms(TTL as u32);
    answer
}

fn beat_number(out: &[Output]) -> u64 {
    out.iter()
        .find_map(|output| match output {
            Output::Beat { number, .. } => Some(*number),
            _ => None,
        })
        .expect("a beat is sent")
}

fn answered(number: u64, answer: HeartbeatResponse) -> Input {
    Input::BeatAnswered { number, answer: Box::new(answer) }
}

fn has_kill(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::Stop { signal: StopSignal::Kill, .. }))
}

fn report(out: &[Output]) -> Option<Report> {
    out.iter().find_map(|output| match output {
        Output::Report { report, .. } => Some(report.clone()),
        _ => None,
    })
}

/// A registered worker whose task `a` (epoch 5) runs since 1,000; the beat that was sent at 1,000 is under way with this number.
fn running() -> (Executor, u64) {
    running_task(task("a", 5))
}

fn running_task(task: Task) -> (Executor, u64) {
    let mut executor = executor();
    let first = beat_number(&executor.step(1_000, Input::Tick));
    let out = executor.step(1_000, answered(first, answer()));
    assert!(out.contains(&Output::Poll { max_tasks: 2, incarnation: 9 }), "{out:?}");
    let out = executor.step(1_000, Input::Polled { tasks: Some(vec![task]) });
    assert!(out.contains(&Output::ConfirmStart { lease: lease("a", 5) }), "{out:?}");
    let number = beat_number(&out);
    let out = executor.step(1_000, Input::StartAnswered { lease: lease("a", 5), answer: Answer::Done });
    assert!(matches!(out[0], Output::Launch { .. }), "{out:?}");
    (executor, number)
}

#[test]
fn the_first_beat_describes_the_node_and_nothing_is_polled_before_it_is_answered() {
    let mut executor = executor();
    let out = executor.step(0, Input::Tick);
    assert!(matches!(&out[..], [Output::Beat { describe: true, incarnation: 0, .. }, ..]), "{out:?}");
    assert!(!out.iter().any(|output| matches!(output, Output::Poll { .. })));
    let number = beat_number(&out);
    executor.step(10, answered(number, answer()));
    let out = executor.step(260, Input::Tick);
    assert!(matches!(&out[..], [Output::Beat { describe: false, incarnation: 9, .. }, ..]), "{out:?}");
}

#[test]
fn a_task_is_killed_two_thirds_of_the_ttl_after_the_sending_of_its_last_renewal() {
    let (mut executor, number) = running();
    executor.step(1_010, answered(number, answer()));
    // The next beat, sent at 1,250, is never answered.
    let out = executor.step(1_250, Input::Tick);
    beat_number(&out);
    assert!(!has_kill(&executor.step(2_999, Input::Tick)), "one millisecond is left");
    let out = executor.step(3_000, Input::Tick);
    let kill = Output::Stop { lease: lease("a", 5), signal: StopSignal::Kill, why: Why::Fenced };
    assert!(out.contains(&kill), "{out:?}");
}

#[test]
fn a_beat_that_is_answered_late_extends_from_its_sending_only() {
    let (mut executor, number) = running();
    // Sent at 1,000 and answered at 2,900: the lease still ends at 3,000, not at 4,900.
    let out = executor.step(2_900, answered(number, answer()));
    assert!(!has_kill(&out));
    let out = executor.step(3_000, Input::Tick);
    assert!(has_kill(&out), "{out:?}");
}

#[test]
fn an_answer_after_the_fence_brings_nothing_back() {
    let (mut executor, number) = running();
    // Stopped and continued: the answer lies in the queue, the clock went on.
    let out = executor.step(60_000, answered(number, answer()));
    assert!(has_kill(&out), "{out:?}");
    let exit = Exit { result_data: "{\"accuracy\":1}".to_owned(), ..Exit::default() };
    let out = executor.step(60_010, Input::Exited { lease: lease("a", 5), exit });
    let report = report(&out).expect("the attempt is given back");
    assert_eq!((report.status, report.exit_code), (TaskStatus::FAILED, 75));
    assert_eq!(report.result_data, "", "a fenced attempt has no result");
}

#[test]
fn a_start_that_is_confirmed_after_the_fence_starts_nothing_before_a_renewal() {
    let mut executor = executor();
    let first = beat_number(&executor.step(1_000, Input::Tick));
    executor.step(1_000, answered(first, answer()));
    let second = beat_number(&executor.step(1_000, Input::Polled { tasks: Some(vec![task("a", 5)]) }));
    executor.step(2_000, Input::BeatFailed { number: second, refused: None });
    let third = beat_number(&executor.step(2_500, Input::Tick));
    let started = |answer| Input::StartAnswered { lease: lease("a", 5), answer };
    let launches = |out: &[Output]| out.iter().any(|output| matches!(output, Output::Launch { .. }));
    let out = executor.step(3_000, started(Answer::Done));
    assert!(!launches(&out), "{out:?}");
    // It asks again, and is told the same; the lease may still be another's by now.
    let out = executor.step(3_600, Input::Tick);
    assert!(out.contains(&Output::ConfirmStart { lease: lease("a", 5) }), "{out:?}");
    assert!(!launches(&executor.step(3_700, started(Answer::Done))));
    executor.step(3_710, answered(third, answer()));
    executor.step(4_400, Input::Tick);
    assert!(
        launches(&executor.step(4_499, started(Answer::Done))),
        "it was renewed at 2,500, which is good until 4,500"
    );
}

#[test]
fn a_lease_that_the_leader_does_not_know_yet_is_kept_but_not_renewed() {
    let (mut executor, number) = running();
    let mut response = answer();
    response.set_not_renewed(RepeatedField::from_vec(vec![lease("a", 5).message()]));
    assert!(!has_kill(&executor.step(1_500, answered(number, response))));
    assert!(has_kill(&executor.step(3_000, Input::Tick)));
}

#[test]
fn a_lease_that_the_beat_did_not_name_is_not_renewed_by_its_answer() {
    let (mut executor, number) = running();
    executor.step(1_100, Input::Polled { tasks: Some(vec![task("b", 6)]) });
    // The answer to the beat of 1,000, which named only `a`.
    executor.step(1_200, answered(number, answer()));
    executor.step(1_200, Input::StartAnswered { lease: lease("b", 6), answer: Answer::Done });
    let out = executor.step(3_100, Input::Tick);
    let killed: Vec<_> = out
        .iter()
        .filter_map(|output| match output {
            Output::Stop { lease, signal: StopSignal::Kill, .. } => Some(lease.task_id.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(killed, ["a", "b"], "b came at 1,100 and was never renewed; a was renewed at 1,000");
}

#[test]
fn an_unacknowledged_answer_renews_nothing() {
    let (mut executor, number) = running();
    let number = beat_number(&executor.step(1_250, answered(number, answer())));
    let mut response = answer();
    response.set_acknowledged(false);
    executor.step(1_260, answered(number, response));
    assert!(has_kill(&executor.step(3_000, Input::Tick)));
}

#[test]
fn a_revoked_task_is_killed_at_once_and_nothing_is_reported() {
    let (mut executor, number) = running();
    let mut response = answer();
    response.set_revoked(RepeatedField::from_vec(vec![lease("a", 5).message()]));
    let out = executor.step(1_100, answered(number, response));
    assert!(out.contains(&Output::Stop { lease: lease("a", 5), signal: StopSignal::Kill, why: Why::Revoked }));
    let out = executor.step(1_110, Input::Exited { lease: lease("a", 5), exit: Exit::default() });
    assert!(report(&out).is_none() && out.contains(&Output::Forget { lease: lease("a", 5) }), "{out:?}");
}

#[test]
fn a_cancelled_task_gets_sigterm_then_after_the_grace_sigkill_then_a_report() {
    let (mut executor, number) = running();
    let mut response = answer();
    response.set_stopping(RepeatedField::from_vec(vec![lease("a", 5).message()]));
    let out = executor.step(1_100, answered(number, response.clone()));
    let stop = |signal| Output::Stop { lease: lease("a", 5), signal, why: Why::Cancelled };
    assert!(out.contains(&stop(StopSignal::Terminate)) && !has_kill(&out), "{out:?}");
    // Told again: no second SIGTERM, no longer grace.
    let number = beat_number(&executor.step(1_250, Input::Tick));
    let out = executor.step(1_300, answered(number, response));
    assert!(!out.contains(&stop(StopSignal::Terminate)));
    assert!(!has_kill(&executor.step(1_599, Input::Tick)));
    assert!(executor.step(1_600, Input::Tick).contains(&stop(StopSignal::Kill)));
    let exit = Exit { code: 137, ..Exit::default() };
    let report = report(&executor.step(1_610, Input::Exited { lease: lease("a", 5), exit })).expect("a report");
    assert_eq!((report.status, report.reason.as_str()), (TaskStatus::FAILED, "cancelled"));
}

#[test]
fn a_result_is_reported_until_it_is_taken_and_the_slot_is_free_only_then() {
    let (mut executor, number) = running();
    executor.step(1_010, answered(number, answer()));
    let exit = Exit { result_data: "{}".to_owned(), ..Exit::default() };
    let out = executor.step(1_100, Input::Exited { lease: lease("a", 5), exit });
    assert_eq!(report(&out).expect("reported").status, TaskStatus::COMPLETED);
    let out = executor.step(1_200, Input::ReportAnswered { lease: lease("a", 5), answer: Answer::Unavailable });
    assert!(report(&out).is_none(), "not at once again");
    let out = executor.step(1_250, Input::Tick);
    assert!(report(&out).is_some());
    assert_eq!(executor.held_count(), 1);
    let out = executor.step(1_260, Input::ReportAnswered { lease: lease("a", 5), answer: Answer::Done });
    assert!(out.contains(&Output::Forget { lease: lease("a", 5) }));
    assert_eq!(executor.held_count(), 0);
}

#[test]
fn a_result_that_is_refused_for_what_is_in_it_becomes_a_failure_that_says_so() {
    let (mut executor, _) = running();
    let exit = Exit { result_data: "x".repeat(1_000_000), ..Exit::default() };
    executor.step(1_100, Input::Exited { lease: lease("a", 5), exit });
    let refused = || Input::ReportAnswered { lease: lease("a", 5), answer: Answer::Refused("too long".to_owned()) };
    let second = report(&executor.step(1_110, refused())).expect("another report");
    assert_eq!(second.status, TaskStatus::FAILED);
    assert!(second.reason.contains("too long") && second.result_data.is_empty());
    let out = executor.step(1_120, refused());
    assert!(out.contains(&Output::Forget { lease: lease("a", 5) }), "{out:?}");
}

#[test]
fn a_task_that_is_handed_out_twice_runs_once() {
    let (mut executor, _) = running();
    let out = executor.step(1_300, Input::Polled { tasks: Some(vec![task("a", 5)]) });
    assert!(!out.iter().any(|output| matches!(output, Output::ConfirmStart { .. } | Output::Launch { .. })));
    assert_eq!(executor.held_count(), 1);
}

#[test]
fn a_start_that_is_refused_as_stale_starts_nothing() {
    let mut executor = executor();
    let number = beat_number(&executor.step(0, Input::Tick));
    executor.step(0, answered(number, answer()));
    executor.step(0, Input::Polled { tasks: Some(vec![task("a", 5)]) });
    let out = executor.step(5, Input::StartAnswered { lease: lease("a", 5), answer: Answer::Stale });
    assert!(out.contains(&Output::Forget { lease: lease("a", 5) }));
    assert!(!out.iter().any(|output| matches!(output, Output::Launch { .. })));
}

#[test]
fn a_drain_asks_for_no_tasks_gives_back_what_runs_and_ends() {
    let (mut executor, _) = running();
    let out = executor.step(1_100, Input::Drain);
    assert!(out.contains(&Output::Stop { lease: lease("a", 5), signal: StopSignal::Terminate, why: Why::Drained }));
    // Exit code 0 after SIGTERM is no proof that the work was done.
    let out = executor.step(1_200, Input::Exited { lease: lease("a", 5), exit: Exit::default() });
    let given_back = report(&out).expect("a report");
    assert_eq!((given_back.exit_code, given_back.reason.as_str()), (75, "drained"));
    // A task that comes with a late answer of a poll is given back unstarted.
    let out = executor.step(1_210, Input::Polled { tasks: Some(vec![task("b", 6)]) });
    assert_eq!(report(&out).expect("a report").exit_code, 75);
    executor.step(1_220, Input::ReportAnswered { lease: lease("b", 6), answer: Answer::Done });
    let out = executor.step(1_230, Input::ReportAnswered { lease: lease("a", 5), answer: Answer::Done });
    assert_eq!(out.last(), Some(&Output::Finished { error: None, incarnation: 9 }));
}

#[test]
fn a_worker_that_leaves_takes_no_task_and_lets_those_that_run_finish() {
    let (mut executor, _) = running();
    let out = executor.step(1_100, Input::Leave { wait_ms: 500 });
    assert!(!out.iter().any(|output| matches!(output, Output::Stop { .. } | Output::Poll { .. })), "{out:?}");
    // One that comes with a late answer of a poll is given back unstarted.
    let out = executor.step(1_110, Input::Polled { tasks: Some(vec![task("b", 6)]) });
    assert_eq!(report(&out).expect("a report").exit_code, 75);
    executor.step(1_120, Input::ReportAnswered { lease: lease("b", 6), answer: Answer::Done });
    let out = executor.step(1_200, Input::Exited { lease: lease("a", 5), exit: Exit::default() });
    assert_eq!(report(&out).expect("a report").status, TaskStatus::COMPLETED, "it has finished by itself");
    let out = executor.step(1_210, Input::ReportAnswered { lease: lease("a", 5), answer: Answer::Done });
    assert_eq!(out.last(), Some(&Output::Finished { error: None, incarnation: 9 }));
}

#[test]
fn what_still_runs_when_the_wait_is_over_is_given_back() {
    let (mut executor, _) = running();
    executor.step(1_100, Input::Leave { wait_ms: 500 });
    let out = executor.step(1_600, Input::Tick);
    assert!(out.contains(&Output::Stop { lease: lease("a", 5), signal: StopSignal::Terminate, why: Why::Drained }));
    // Whoever is in a hurry after all need not wait.
    let (mut executor, _) = running();
    executor.step(1_100, Input::Leave { wait_ms: 500 });
    let out = executor.step(1_200, Input::Drain);
    assert!(out.contains(&Output::Stop { lease: lease("a", 5), signal: StopSignal::Terminate, why: Why::Drained }));
}

#[test]
fn a_drain_ends_although_nobody_takes_the_reports() {
    let (mut executor, _) = running();
    executor.step(1_100, Input::Drain);
    let out = executor.step(1_100 + GRACE + DRAIN_EXTRA_MS, Input::Tick);
    assert!(matches!(out.last(), Some(Output::Finished { error: None, .. })), "{out:?}");
}

#[test]
fn a_worker_whose_node_was_registered_again_elsewhere_kills_everything_and_ends_with_the_reason() {
    let (mut executor, number) = running();
    let out = executor.step(1_100, Input::BeatFailed { number, refused: Some("incarnation 9 is over".to_owned()) });
    assert!(has_kill(&out));
    let out = executor.step(1_110, Input::Exited { lease: lease("a", 5), exit: Exit::default() });
    let end = Output::Finished { error: Some("incarnation 9 is over".to_owned()), incarnation: 9 };
    assert_eq!(out.last(), Some(&end));
}

#[test]
fn an_answer_with_another_incarnation_ends_the_worker_before_it_polls_for_somebody_else() {
    let (mut executor, number) = running();
    let mut response = answer();
    response.set_incarnation(12);
    let out = executor.step(1_100, answered(number, response));
    assert!(has_kill(&out) && !out.iter().any(|output| matches!(output, Output::Poll { .. })), "{out:?}");
    let out = executor.step(1_110, Input::Exited { lease: lease("a", 5), exit: Exit::default() });
    assert!(matches!(out.last(), Some(Output::Finished { error: Some(_), .. })), "{out:?}");
}

#[test]
fn a_task_that_runs_too_long_is_stopped_and_says_so() {
    let mut long = task("a", 5);
    long.mut_spec().set_run_timeout_ms(300);
    let (mut executor, number) = running_task(long);
    executor.step(1_010, answered(number, answer()));
    assert!(!has_kill(&executor.step(1_250, Input::Tick)));
    let out = executor.step(1_300, Input::Tick);
    assert!(out.iter().any(|output| matches!(output, Output::Stop { signal: StopSignal::Terminate, .. })), "{out:?}");
    let out = executor.step(1_310, Input::Exited { lease: lease("a", 5), exit: Exit { code: 143, ..Exit::default() } });
    let report = report(&out).expect("a report");
    assert_eq!((report.exit_code, report.reason.as_str()), (124, "ran longer than run_timeout_ms = 300"));
}

#[test]
fn a_failed_beat_is_followed_soon_by_another_one_with_growing_pauses() {
    let mut executor = executor();
    let mut now = 0;
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let number = beat_number(&executor.step(now, Input::Tick));
        let out = executor.step(now, Input::BeatFailed { number, refused: None });
        let Some(Output::WakeAt(at)) = out.last() else { panic!("no wake in {out:?}") };
        pauses.push(at - now);
        now = *at;
    }
    assert_eq!(pauses, [25, 50, 100, 200, 250, 250]);
}

#[test]
fn a_disconnected_task_goes_on_if_its_spec_says_so_until_it_is_revoked() {
    let mut lasting = task("a", 5);
    lasting.mut_spec().set_on_disconnect("continue".to_owned());
    let (mut executor, number) = running_task(lasting);
    assert!(!has_kill(&executor.step(100_000, Input::Tick)));
    let mut response = answer();
    response.set_revoked(RepeatedField::from_vec(vec![lease("a", 5).message()]));
    assert!(has_kill(&executor.step(100_010, answered(number, response))));
}

#[test]
fn a_server_that_answers_polls_at_once_is_not_asked_in_a_tight_loop() {
    let mut executor = executor();
    let number = beat_number(&executor.step(0, Input::Tick));
    executor.step(0, answered(number, answer()));
    let out = executor.step(3, Input::Polled { tasks: Some(Vec::new()) });
    assert!(!out.iter().any(|output| matches!(output, Output::Poll { .. })), "{out:?}");
    let out = executor.step(3 + POLL_PAUSE_MS, Input::Tick);
    assert!(out.iter().any(|output| matches!(output, Output::Poll { .. })), "{out:?}");
}
