//! Linearizability by search: J. Wing, C. Gong, "Testing and verifying concurrent objects" (JPDC 1993), with the memoisation of
//! G. Lowe, "Testing for linearizability" (2017). One key at a time, which is enough: linearizability is local (Herlihy, Wing 1990).
//!
//! An operation may be put next if no other one returned before it was invoked and still waits. A configuration (the set of operations
//! done, the state) that was tried once in vain is not tried again. One without an answer never returns, so it never forces anything,
//! and a search that has put every answered operation is over, whatever waits.

use std::collections::BTreeSet;

use crate::linearizability::history::{Answer, Done, History, Kind, Op, Outcome, Tag, Time};
use crate::linearizability::limits::{NAMED_OPS_MAX, SEARCH_STEPS_MAX};
use crate::linearizability::model::{step, State};
use crate::linearizability::Violation;

/// What came out for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// In this order everything happened, one after another (places in the history; those that never took effect are not in it).
    Linearizable(Vec<usize>),
    /// No order explains the answers.
    Impossible(Violation),
    /// The search was given up after so many steps.
    Undecided(u64),
}

/// What came out for all keys.
#[derive(Clone, Debug, Default)]
pub struct Searched {
    /// Keys that were looked at.
    pub keys: usize,
    /// Keys that no order explains.
    pub violations: Vec<Violation>,
    /// Keys that were given up: no verdict, so no success either.
    pub undecided: Vec<String>,
    /// Steps of all searches.
    pub steps: u64,
}

impl Searched {
    /// Every key was decided, and is linearizable.
    pub fn ok(&self) -> bool {
        self.violations.is_empty() && self.undecided.is_empty()
    }
}

/// Every key of the history.
pub fn search(history: &History) -> Searched {
    let mut out = Searched::default();
    for (key, places) in history.by_key() {
        let (judgement, steps) = search_key(history, key, &places, SEARCH_STEPS_MAX);
        out.keys += 1;
        out.steps += steps;
        match judgement {
            Judgement::Linearizable(_) => {}
            Judgement::Impossible(violation) => out.violations.push(violation),
            Judgement::Undecided(_) => out.undecided.push(key.to_owned()),
        }
    }
    out
}

/// One key: the operations at `places`, all of `key`. Also says how many steps it took.
pub fn search_key(history: &History, key: &str, places: &[usize], steps_max: u64) -> (Judgement, u64) {
    let all: Vec<(usize, &Op)> =
        places.iter().filter_map(|place| history.ops.get(*place).map(|op| (*place, op))).collect();
    let seen = seen_tags(&all);
    // A read without an answer changed nothing and says nothing.
    let counts = |op: &Op| op.kind != Kind::Read || op.done().is_some();
    let mut ops: Vec<(usize, &Op)> = all.into_iter().filter(|(_, op)| counts(op)).collect();
    ops.sort_by_key(|(place, op)| (op.invoked, *place));
    let mut run = Run::new(&ops, &seen);
    let judgement = match run.go(steps_max) {
        Some(true) => Judgement::Linearizable(run.order().map(|at| ops[at].0).collect()),
        Some(false) => {
            // Where the longest explanation stuck: the answers that it could not place are those to look at.
            let stuck = run.stuck.iter().take(NAMED_OPS_MAX).map(|at| ops[*at].0).collect();
            let cause = format!(
                "no order of its {} operations explains the answers; {} of {} answered ones were explained at best",
                ops.len(),
                run.best,
                run.answered
            );
            Judgement::Impossible(Violation { key: key.to_owned(), ops: stuck, cause })
        }
        None => Judgement::Undecided(run.steps),
    };
    (judgement, run.steps)
}

/// Stands for every value that nobody saw.
const UNSEEN: Tag = Tag::MAX;

/// Values that some answer names, or some operation expects.
fn seen_tags(ops: &[(usize, &Op)]) -> BTreeSet<Tag> {
    let named = |(_, op): &(usize, &Op)| match (op.kind, op.done().map(|done| done.answer)) {
        (Kind::Swap { expect, .. }, _) => expect,
        (_, Some(Answer::Found(found))) => found.map(|value| value.tag),
        (Kind::Write { .. } | Kind::Read | Kind::Seal, _) => None,
    };
    ops.iter().filter_map(named).collect()
}

/// The operation as it matters here: values of changes without an answer that nobody saw are all the same.
fn plain(op: &Op, seen: &BTreeSet<Tag>) -> Kind {
    let plain = |tag: Tag| if op.done().is_some() || seen.contains(&tag) { tag } else { UNSEEN };
    match op.kind {
        Kind::Write { tag } => Kind::Write { tag: plain(tag) },
        Kind::Swap { expect, tag } => Kind::Swap { expect, tag: plain(tag) },
        Kind::Read | Kind::Seal => op.kind,
    }
}

/// For each operation without an answer, the one before it that does the same: that one goes first, since whatever it is good for, the
/// earlier one is, too.
fn twins(ops: &[(usize, &Op)], kinds: &[Kind]) -> Vec<Option<usize>> {
    let mut newest: Vec<(Kind, usize)> = Vec::new();
    let twin = |at: usize| {
        if ops[at].1.done().is_some() {
            return None;
        }
        match newest.iter_mut().find(|(kind, _)| *kind == kinds[at]) {
            Some((_, before)) => Some(std::mem::replace(before, at)),
            None => {
                newest.push((kinds[at], at));
                None
            }
        }
    };
    (0..ops.len()).map(twin).collect()
}

/// A moment of the history. Calls stand in the list of events, and so do returns of those that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A call comes before a return of the same moment: two operations that touch are taken to overlap.
    Call(usize),
    Return(usize),
}

/// Operations that are done, a bit each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn clear(&mut self, at: usize) {
        self.0[at / 64] &= !(1 << (at % 64));
    }
}

/// A doubly linked list of events by place; 0 is the head, an event at place i is node i + 1.
struct Links {
    next: Vec<usize>,
    previous: Vec<usize>,
}

impl Links {
    fn new(events: usize) -> Self {
        Self { next: (1..=events + 1).collect(), previous: (0..=events + 1).map(|at| at.saturating_sub(1)).collect() }
    }

    fn lift(&mut self, node: usize) {
        let (before, after) = (self.previous[node], self.next[node]);
        self.next[before] = after;
        self.previous[after] = before;
    }

    fn put_back(&mut self, node: usize) {
        let (before, after) = (self.previous[node], self.next[node]);
        self.next[before] = node;
        self.previous[after] = node;
    }
}

struct Run<'a> {
    ops: &'a [(usize, &'a Op)],
    kinds: Vec<Kind>,
    twins: Vec<Option<usize>>,
    events: Vec<Event>,
    /// Node of the return of an operation; None: it has none.
    return_node: Vec<Option<usize>>,
    links: Links,
    /// (call node, operation, state before it).
    done: Vec<(usize, usize, State)>,
    bits: Bits,
    tried: BTreeSet<(Bits, State)>,
    /// Operations with an answer, and how many of them wait.
    answered: usize,
    waiting: usize,
    best: usize,
    stuck: Vec<usize>,
    steps: u64,
}

impl<'a> Run<'a> {
    fn new(ops: &'a [(usize, &'a Op)], seen: &BTreeSet<Tag>) -> Self {
        let mut timed: Vec<(Time, Event)> = Vec::new();
        for (at, (_, op)) in ops.iter().enumerate() {
            timed.push((op.invoked, Event::Call(at)));
            if let Outcome::Done(done) = &op.outcome {
                timed.push((done.at.max(op.invoked), Event::Return(at)));
            }
        }
        timed.sort();
        let events: Vec<Event> = timed.into_iter().map(|(_, event)| event).collect();
        let mut return_node = vec![None; ops.len()];
        for (place, event) in events.iter().enumerate() {
            if let Event::Return(at) = event {
                return_node[*at] = Some(place + 1);
            }
        }
        let answered = return_node.iter().flatten().count();
        let kinds: Vec<Kind> = ops.iter().map(|(_, op)| plain(op, seen)).collect();
        Self {
            twins: twins(ops, &kinds),
            kinds,
            links: Links::new(events.len()),
            bits: Bits(vec![0; ops.len().div_ceil(64)]),
            ops,
            events,
            return_node,
            done: Vec::new(),
            tried: BTreeSet::new(),
            answered,
            waiting: answered,
            best: 0,
            stuck: Vec::new(),
            steps: 0,
        }
    }

    fn order(&self) -> impl Iterator<Item = usize> + '_ {
        self.done.iter().map(|(_, at, _)| *at)
    }

    /// Some(true): explained; Some(false): impossible; None: given up.
    fn go(&mut self, steps_max: u64) -> Option<bool> {
        let mut state: State = None;
        let mut node = self.links.next[0];
        // Those with an answer are tried first: they must go somewhere, the others need not.
        let mut unanswered = false;
        while self.waiting > 0 {
            self.steps += 1;
            if self.steps > steps_max {
                return None;
            }
            // Only calls wait behind the last return, and all of those are without an answer: the end of the list is a dead end, too.
            match self.events.get(node - 1).copied() {
                Some(Event::Call(at)) if self.return_node[at].is_none() != unanswered => node = self.links.next[node],
                Some(Event::Call(at)) => match self.next_state(at, state) {
                    Some(after) if self.take(node, at, state, after) => {
                        state = after;
                        (node, unanswered) = (self.links.next[0], false);
                    }
                    _ => node = self.links.next[node],
                },
                Some(Event::Return(_)) | None if !unanswered => (node, unanswered) = (self.links.next[0], true),
                Some(Event::Return(_)) | None => {
                    self.note_stuck();
                    let Some((call, at, before)) = self.done.pop() else { return Some(false) };
                    self.undo(call, at);
                    state = before;
                    (node, unanswered) = (self.links.next[call], self.return_node[at].is_none());
                }
            }
        }
        Some(true)
    }

    fn next_state(&self, at: usize, state: State) -> Option<State> {
        if self.twins[at].is_some_and(|twin| !self.bits.has(twin)) {
            return None;
        }
        let answer = self.ops[at].1.done().map(|Done { answer, .. }| *answer);
        // One without an answer that changes nothing need not be put at all.
        step(state, self.kinds[at], answer).filter(|after| answer.is_some() || *after != state)
    }

    /// Puts the operation next, unless that was tried before.
    fn take(&mut self, node: usize, at: usize, before: State, after: State) -> bool {
        self.bits.set(at);
        if !self.tried.insert((self.bits.clone(), after)) {
            self.bits.clear(at);
            return false;
        }
        self.done.push((node, at, before));
        self.links.lift(node);
        if let Some(back) = self.return_node[at] {
            self.links.lift(back);
            self.waiting -= 1;
        }
        true
    }

    fn undo(&mut self, node: usize, at: usize) {
        self.bits.clear(at);
        if let Some(back) = self.return_node[at] {
            self.links.put_back(back);
            self.waiting += 1;
        }
        self.links.put_back(node);
    }

    fn note_stuck(&mut self) {
        let explained = self.answered - self.waiting;
        if self.stuck.is_empty() || explained > self.best {
            self.best = explained;
            let mut waiting = Vec::new();
            let mut node = self.links.next[0];
            while let Some(event) = self.events.get(node - 1) {
                if let Event::Return(at) = event {
                    waiting.push(*at);
                }
                node = self.links.next[node];
            }
            self.stuck = waiting;
        }
    }
}
