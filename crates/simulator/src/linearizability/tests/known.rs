//! Histories that are known to be wrong, each the mark of a well-known defect, and their harmless neighbours.

use crate::linearizability::{
    check_positions, search, Answer, Done, History, Judgement, Kind, Op, Outcome, Tag, Time, Value,
};

fn op(kind: Kind, invoked: Time, answer: Option<(Time, Answer, u64)>) -> Op {
    let outcome = answer.map_or(Outcome::Unknown, |(at, answer, position)| {
        Outcome::Done(Done { at, answer, position: Some(position), version: None })
    });
    Op { client: 0, key: "k".to_owned(), kind, invoked, outcome }
}

fn write(tag: Tag, invoked: Time, at: Time, position: u64) -> Op {
    op(Kind::Write { tag }, invoked, Some((at, Answer::Taken, position)))
}

fn lost_write(tag: Tag, invoked: Time) -> Op {
    op(Kind::Write { tag }, invoked, None)
}

fn read(found: Option<Tag>, invoked: Time, at: Time, position: u64) -> Op {
    op(Kind::Read, invoked, Some((at, Answer::Found(found.map(Value::of)), position)))
}

fn create(tag: Tag, invoked: Time, at: Time, answer: Answer, position: u64) -> Op {
    op(Kind::Swap { expect: None, tag }, invoked, Some((at, answer, position)))
}

/// Both find it, or both find nothing.
fn judge(what: &str, ops: Vec<Op>, right: bool) {
    let history = History { ops };
    assert_eq!(search(&history).ok(), right, "search, {what}");
    let wrong = check_positions(&history);
    assert_eq!(wrong.is_empty(), right, "positions, {what}: {wrong:?}");
}

#[test]
fn a_stale_read_is_found() {
    let stale = |at| vec![write(1, 0, 5, 10), write(2, 10, 15, 20), read(Some(1), at, 30, 15)];
    judge("after the second write", stale(20), false);
    judge("beside the second write", stale(12), true);
    judge("nothing, after a write", vec![write(1, 0, 5, 10), read(None, 6, 7, 5)], false);
}

#[test]
fn a_lost_write_is_found() {
    judge("lost", vec![write(1, 0, 5, 10), write(2, 10, 15, 20), read(Some(1), 20, 25, 30)], false);
    judge("lost on a new leader", vec![write(1, 0, 5, 10), read(None, 20, 25, 30)], false);
    judge("not lost: nobody was told that it was done", vec![lost_write(1, 0), read(None, 20, 25, 30)], true);
}

#[test]
fn a_write_that_took_effect_twice_is_found() {
    let twice = |second: u64| {
        vec![
            write(1, 0, 5, 10),
            read(Some(1), 6, 7, 10),
            write(2, 10, 15, 20),
            read(Some(2), 16, 17, 20),
            read(Some(1), second, second + 1, 30),
        ]
    };
    judge("acknowledged, then again", twice(20), false);
    let unknown = |seen: &[(Option<Tag>, u64)]| {
        let mut ops = vec![lost_write(1, 0), write(2, 10, 15, 20)];
        ops.extend(seen.iter().map(|(tag, at)| read(*tag, *at, at + 1, at + 5)));
        ops
    };
    judge("without an answer: late", unknown(&[(Some(2), 20), (Some(1), 30)]), true);
    judge("without an answer: before", unknown(&[(Some(2), 20), (Some(2), 30)]), true);
    judge("without an answer: there, gone, there", unknown(&[(Some(1), 20), (Some(2), 30), (Some(1), 40)]), false);
}

#[test]
fn a_value_that_is_read_before_it_was_asked_for_is_found() {
    judge("before", vec![read(Some(1), 0, 5, 10), write(1, 10, 15, 12)], false);
    judge("before, and never answered", vec![read(Some(1), 0, 5, 10), lost_write(1, 10)], false);
    judge("meanwhile, before the answer", vec![read(Some(1), 0, 12, 12), write(1, 10, 15, 11)], true);
    judge("of nobody", vec![read(Some(7), 0, 5, 10)], false);
}

#[test]
fn two_winners_and_no_winner_of_one_race_are_found() {
    let race =
        |one, other, found| vec![create(1, 0, 20, one, 10), create(2, 0, 20, other, 20), read(found, 30, 35, 40)];
    judge("two", race(Answer::Taken, Answer::Taken, Some(2)), false);
    judge("none", race(Answer::Refused, Answer::Refused, None), false);
    judge("the loser is there", race(Answer::Taken, Answer::Refused, Some(2)), false);
    judge("one", race(Answer::Taken, Answer::Refused, Some(1)), true);
}

#[test]
fn an_order_of_the_log_that_is_not_that_of_time_is_found_by_positions_alone() {
    let ops = vec![write(1, 0, 5, 20), write(2, 10, 15, 10)];
    let history = History { ops };
    assert!(search(&history).ok(), "no answer contradicts: nobody read");
    assert!(!check_positions(&history).is_empty());
    let shared = History { ops: vec![write(1, 0, 50, 10), write(2, 10, 50, 10)] };
    assert!(!check_positions(&shared).is_empty(), "two changes at one place");
}

#[test]
fn a_version_that_says_two_things_is_found() {
    let seen = |tag: Tag, version, at, position| {
        let mut op = read(Some(tag), at, at + 1, position);
        if let Outcome::Done(done) = &mut op.outcome {
            done.version = Some(version);
        }
        op
    };
    let base = || vec![write(1, 0, 5, 10), write(2, 10, 15, 20)];
    let with = |more: Op| History { ops: base().into_iter().chain([more]).collect() };
    assert_eq!(check_positions(&with(seen(2, 20, 20, 25))), vec![]);
    assert!(!check_positions(&with(seen(2, 19, 20, 25))).is_empty(), "a place where nothing was written");
    assert!(!check_positions(&with(seen(1, 20, 20, 25))).is_empty(), "the place of another write");
}

#[test]
fn seals_are_one_way() {
    let sealed = |tag, invoked: Time, position| {
        let found = Answer::Found(Some(Value { tag, sealed: true }));
        op(Kind::Read, invoked, Some((invoked + 1, found, position)))
    };
    let seal = |at: Time, position| op(Kind::Seal, at, Some((at + 1, Answer::Taken, position)));
    let base = |more: Vec<Op>| {
        let mut ops = vec![create(1, 0, 5, Answer::Taken, 10)];
        ops.extend(more);
        ops
    };
    judge("sealed and seen", base(vec![seal(10, 20), sealed(1, 15, 25), seal(30, 20)]), true);
    judge("sealed, then not", base(vec![seal(10, 20), read(Some(1), 15, 16, 25)]), false);
    judge("sealed by nobody", base(vec![sealed(1, 15, 25)]), false);
    judge("sealed by somebody unheard", base(vec![op(Kind::Seal, 12, None), sealed(1, 15, 25)]), true);
    judge("sealed before it was asked", base(vec![sealed(1, 15, 25), op(Kind::Seal, 18, None)]), false);
}

#[test]
fn a_search_that_is_given_up_is_no_verdict() {
    let ops: Vec<Op> = (1..40).map(|tag| write(tag, 0, 100, tag * 10)).chain([read(None, 200, 201, 1_000)]).collect();
    let history = History { ops };
    let places: Vec<usize> = (0..history.ops.len()).collect();
    let (judgement, steps) = crate::linearizability::search_key(&history, "k", &places, 1_000);
    assert_eq!(judgement, Judgement::Undecided(steps));
}
