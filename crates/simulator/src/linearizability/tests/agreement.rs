//! Search, positions and exhaustive trial must say the same of the same history.

use super::generator::{positions_by, real, spoil, Chance, Shape};
use crate::linearizability::{check_positions, search, search_key, step, Answer, History, Judgement, Kind, Op, State};

const STEPS: u64 = 1 << 20;

/// Every order of every choice of the unanswered, one by one: too slow for more than a handful, too simple to be wrong.
fn possible(ops: &[&Op], done: &mut Vec<bool>, state: State) -> bool {
    if ops.iter().zip(done.iter()).all(|(op, done)| *done || op.done().is_none()) {
        return true;
    }
    for at in 0..ops.len() {
        let free = !done[at] && ops.iter().zip(done.iter()).all(|(other, done)| *done || !other.precedes(ops[at]));
        let Some(after) = free.then(|| step(state, ops[at].kind, ops[at].done().map(|it| it.answer))).flatten() else {
            continue;
        };
        done[at] = true;
        let found = possible(ops, done, after);
        done[at] = false;
        if found {
            return true;
        }
    }
    false
}

fn searched(history: &History) -> Option<Vec<usize>> {
    let all: Vec<usize> = (0..history.ops.len()).collect();
    match search_key(history, "k0", &all, STEPS).0 {
        Judgement::Linearizable(order) => Some(order),
        Judgement::Impossible(_) => None,
        Judgement::Undecided(steps) => panic!("undecided after {steps} steps"),
    }
}

#[test]
fn the_search_says_what_trying_every_order_says() {
    let mut chance = Chance(1);
    let (mut good, mut bad) = (0, 0);
    for round in 0..20_000 {
        let shape = Shape {
            ops: 1 + (round % 7),
            keys: 1,
            overlap: 1 + chance.below(12),
            unknown: 4,
            seals: true,
            versions: false,
        };
        let mut history = real(&mut chance, shape);
        for _ in 0..chance.below(3) {
            spoil(&mut chance, &mut history);
        }
        let ops: Vec<&Op> = history.ops.iter().collect();
        let expected = possible(&ops, &mut vec![false; ops.len()], None);
        let found = searched(&history);
        assert_eq!(found.is_some(), expected, "round {round}\n{}", history.lines(&(0..ops.len()).collect::<Vec<_>>()));
        *if expected { &mut good } else { &mut bad } += 1;
    }
    assert!(good > 1_000 && bad > 1_000, "{good} good, {bad} bad: one side was hardly tried");
}

#[test]
fn an_order_that_the_search_gives_obeys_time_and_explains_every_answer() {
    let mut chance = Chance(2);
    for _ in 0..500 {
        let shape = Shape { ops: 60, keys: 1, overlap: 20, unknown: 8, seals: true, versions: false };
        let history = real(&mut chance, shape);
        let order = searched(&history).expect("it came from a register");
        let mut state = None;
        for (at, place) in order.iter().enumerate() {
            let op = &history.ops[*place];
            assert!(order[at + 1..].iter().all(|later| !history.ops[*later].precedes(op)), "against time: {op}");
            state = step(state, op.kind, op.done().map(|it| it.answer)).unwrap_or_else(|| panic!("unexplained: {op}"));
        }
        let answered = history.ops.iter().filter(|op| op.done().is_some()).count();
        assert_eq!(order.iter().filter(|place| history.ops[**place].done().is_some()).count(), answered);
    }
}

#[test]
fn both_accept_what_a_register_did_whatever_the_answers_leave_out() {
    let mut chance = Chance(3);
    for round in 0..400 {
        let versions = round % 2 == 0;
        let shape = Shape { ops: 300, keys: 5, overlap: 30, unknown: 10, seals: versions, versions };
        let history = real(&mut chance, shape);
        let found = search(&history);
        assert!(found.ok(), "search: {:?}", found.violations);
        assert_eq!(check_positions(&history), vec![], "round {round}");
    }
}

/// Positions may only be wrong where an order exists; where none exists, no positions are right.
#[test]
fn what_positions_allow_an_order_explains_and_what_an_order_explains_its_positions_allow() {
    let mut chance = Chance(4);
    let (mut allowed, mut refused, mut explained) = (0, 0, 0);
    for round in 0..20_000 {
        let versions = round % 2 == 0;
        let shape = Shape { ops: 12, keys: 1, overlap: 15, unknown: (round % 3) * 3, seals: versions, versions };
        let mut history = real(&mut chance, shape);
        for _ in 0..chance.below(4) {
            spoil(&mut chance, &mut history);
        }
        let wrong = check_positions(&history);
        let order = searched(&history);
        // A refusal or a seal that an unseen change without an answer may explain is left to the search.
        let any = |what: fn(&Op) -> bool| history.ops.iter().any(what);
        let excused = any(|op| op.kind == Kind::Seal || op.done().is_some_and(|it| it.answer == Answer::Refused));
        let comparable = !(excused && any(|op| op.done().is_none()));
        let show = || history.lines(&(0..history.ops.len()).collect::<Vec<_>>());
        assert!(
            !comparable || !wrong.is_empty() || order.is_some(),
            "round {round}: positions allow what no order explains\n{}",
            show()
        );
        *if wrong.is_empty() { &mut allowed } else { &mut refused } += u32::from(comparable);
        if let Some(order) = order {
            positions_by(&mut history, &order, versions);
            let wrong = check_positions(&history);
            assert_eq!(wrong, vec![], "round {round}, order {order:?}\n{}", history.lines(&order));
            explained += 1;
        }
    }
    assert!(allowed > 1_000 && refused > 1_000 && explained > 1_000, "{allowed} {refused} {explained}");
}

#[test]
fn positions_in_the_order_of_time_never_contradict_and_out_of_it_always_do() {
    let mut chance = Chance(5);
    for _ in 0..300 {
        // No overlap: one order only.
        let shape = Shape { ops: 30, keys: 1, overlap: 1, unknown: 0, seals: false, versions: true };
        let mut history = real(&mut chance, shape);
        assert_eq!(check_positions(&history), vec![]);
        let updates: Vec<usize> = (0..history.ops.len()).filter(|at| history.ops[*at].kind != Kind::Read).collect();
        let (one, other) = (updates[0], updates[updates.len() - 1]);
        let position = |history: &History, at: usize| history.ops[at].done().and_then(|it| it.position);
        let (first, last) = (position(&history, one), position(&history, other));
        for (at, position) in [(one, last), (other, first)] {
            if let crate::linearizability::Outcome::Done(done) = &mut history.ops[at].outcome {
                done.position = position;
            }
        }
        assert!(!check_positions(&history).is_empty(), "two answers have changed their positions");
    }
}

#[test]
fn a_long_contended_history_is_decided_within_the_limit() {
    let mut chance = Chance(6);
    for _ in 0..20 {
        let shape = Shape { ops: 2_000, keys: 1, overlap: 15, unknown: 30, seals: false, versions: false };
        let history = real(&mut chance, shape);
        let found = search(&history);
        assert!(found.ok(), "{:?} {:?}", found.violations, found.undecided);
    }
}
