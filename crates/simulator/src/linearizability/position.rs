//! Linearizability by the positions that answers carry, in O(n log n).
//!
//! A replicated log has already ordered everything: an answer says where its change stands, or how far its read looked. So nothing has to
//! be searched. It is held that (1) positions respect time: what is asked after something was answered stands behind it; (2) no two
//! changes share a place; (3) each change was asked for, fits what was there before it, and happens once; (4) every read, at its place,
//! finds the last change before it.
//!
//! A change whose client got no answer has a place as soon as anyone saw it: the version of what was seen, or else the first place from
//! which it was seen, which explains every other read at least as well as any earlier one. What carries no position is not judged here;
//! `search` judges it. Stricter than `search` where positions are given: an order may exist, and the log's may still be wrong.

use std::collections::BTreeMap;

use crate::linearizability::history::{Answer, History, Kind, Op, Tag, Value};
use crate::linearizability::model::State;
use crate::linearizability::Violation;

/// A place among changes: a position in the log and an order within it. What is only known to be no later than a look at a position is
/// behind the change at it; what a change expected is before it.
type Place = (u64, i64);

const EXACT: i64 = 0;
const SET_BY_THEN: i64 = 1 << 32;
const SEALED_BY_THEN: i64 = SET_BY_THEN + 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Set(Tag),
    Seal,
}

/// Everything that cannot be, in no particular order; empty: the history is linearizable in the order of the log.
pub fn check_positions(history: &History) -> Vec<Violation> {
    let floors = floors(history);
    let mut violations = backwards(history, &floors);
    let mut taken: BTreeMap<u64, (usize, &str, Change)> = BTreeMap::new();
    for (key, places) in history.by_key() {
        let owners = places.iter().filter_map(|place| Some((writes(&history.ops[*place])?, *place))).collect();
        let mut judge = Key { history, floors: &floors, key, places: &places, owners, violations: &mut violations };
        let changes = judge.changes();
        judge.share_no_place(&changes, &mut taken);
        judge.replay(&changes);
    }
    violations
}

/// The farthest position that this answer speaks of.
fn reach(op: &Op) -> Option<u64> {
    op.done().and_then(|done| done.position.max(done.version))
}

/// For each operation, the farthest position of any answer that came before it was asked.
fn floors(history: &History) -> Vec<u64> {
    let mut asked: Vec<usize> = (0..history.ops.len()).collect();
    asked.sort_by_key(|place| history.ops[*place].invoked);
    let mut answers: Vec<(u64, u64)> =
        history.ops.iter().filter_map(|op| Some((op.done()?.at, reach(op).unwrap_or(0)))).collect();
    answers.sort_unstable();
    let mut floors = vec![0; history.ops.len()];
    let (mut floor, mut at) = (0, 0);
    for place in asked {
        while answers.get(at).is_some_and(|(answered, _)| *answered < history.ops[place].invoked) {
            floor = floor.max(answers[at].1);
            at += 1;
        }
        floors[place] = floor;
    }
    floors
}

/// Rule 1: a read looks at least as far as what was known when it was asked, a change stands behind it.
fn backwards(history: &History, floors: &[u64]) -> Vec<Violation> {
    let mut out = Vec::new();
    for (place, op) in history.ops.iter().enumerate() {
        let Some(done) = op.done() else { continue };
        let Some(position) = done.position else { continue };
        let floor = floors[place];
        let wrong = match (op.kind, done.answer) {
            (Kind::Write { .. } | Kind::Swap { .. }, Answer::Taken) => position <= floor,
            // It may have found itself done long ago.
            (Kind::Seal, Answer::Taken) => false,
            _ => position < floor,
        };
        if wrong {
            let cause = format!("position {position}, though {floor} had been answered before it was asked");
            out.push(Violation { key: op.key.clone(), ops: vec![place], cause });
        }
    }
    out
}

/// One key under judgement.
struct Key<'a, 'h> {
    history: &'h History,
    floors: &'a [u64],
    key: &'h str,
    places: &'a [usize],
    /// Who asked for each value.
    owners: BTreeMap<Tag, usize>,
    violations: &'a mut Vec<Violation>,
}

impl<'h> Key<'_, 'h> {
    fn op(&self, place: usize) -> &'h Op {
        &self.history.ops[place]
    }

    fn wrong(&mut self, ops: &[usize], cause: String) {
        self.violations.push(Violation { key: self.key.to_owned(), ops: ops.to_vec(), cause });
    }

    /// All changes that answers tell of, with the operation that told of each first.
    fn changes(&mut self) -> BTreeMap<Place, (Change, usize)> {
        let mut changes: BTreeMap<Place, (Change, usize)> = BTreeMap::new();
        for place in self.places.iter().copied() {
            let op = self.op(place);
            let Some(done) = op.done() else { continue };
            let told = match (op.kind, done.answer) {
                (Kind::Write { tag } | Kind::Swap { tag, .. }, Answer::Taken) => {
                    done.position.map(|at| (at, Change::Set(tag)))
                }
                (Kind::Seal, Answer::Taken) => done.version.or(done.position).map(|at| (at, Change::Seal)),
                (_, Answer::Found(Some(value))) => done.version.map(|at| (at, last_change(value))),
                (_, Answer::Found(None) | Answer::Refused | Answer::Taken) => None,
            };
            let Some((at, change)) = told else { continue };
            match changes.get(&(at, EXACT)).copied() {
                None => {
                    changes.insert((at, EXACT), (change, place));
                }
                Some((other, by)) if other != change => {
                    self.wrong(&[by, place], format!("position {at} is {other:?} to one and {change:?} to another"));
                }
                Some(_) => {}
            }
        }
        self.infer(&mut changes);
        changes
    }

    /// Changes that were seen, though nobody said where they stand: put at the first place from which they were seen.
    fn infer(&self, changes: &mut BTreeMap<Place, (Change, usize)>) {
        let mut sets: BTreeMap<Tag, Place> =
            changes.iter().filter_map(|(at, (change, _))| Some((set_tag(*change)?, *at))).collect();
        let exact = sets.clone();
        let mut seen = self.seen();
        seen.extend(exact.iter().filter_map(|(tag, at)| self.expected(*tag, *at)));
        while let Some((tag, at, place)) = seen.pop() {
            if exact.contains_key(&tag) || sets.get(&tag).is_some_and(|known| *known <= at) {
                continue;
            }
            if let Some(later) = sets.insert(tag, at) {
                changes.remove(&later);
            }
            changes.insert(at, (Change::Set(tag), place));
            seen.extend(self.expected(tag, at));
        }
        self.infer_seals(changes, &sets);
    }

    /// (value, place from which it was seen, operation that saw it).
    fn seen(&self) -> Vec<(Tag, Place, usize)> {
        let mut seen = Vec::new();
        for place in self.places.iter().copied() {
            let Some(done) = self.op(place).done() else { continue };
            let Answer::Found(Some(value)) = done.answer else { continue };
            if let Some(position) = done.position {
                seen.push((value.tag, (position, SET_BY_THEN), place));
            }
            if let (true, Some(version)) = (value.sealed, done.version) {
                seen.push((value.tag, (version, EXACT - 1), place));
            }
        }
        seen
    }

    /// What the change to `tag` at this place found there, if it took effect only on that.
    fn expected(&self, tag: Tag, at: Place) -> Option<(Tag, Place, usize)> {
        let owner = self.owners.get(&tag).copied()?;
        match self.op(owner).kind {
            Kind::Swap { expect: Some(expected), .. } => Some((expected, (at.0, at.1 - 1), owner)),
            Kind::Swap { expect: None, .. } | Kind::Write { .. } | Kind::Read | Kind::Seal => None,
        }
    }

    fn infer_seals(&self, changes: &mut BTreeMap<Place, (Change, usize)>, sets: &BTreeMap<Tag, Place>) {
        let mut sealed: Vec<(u64, usize, Tag)> = Vec::new();
        for place in self.places.iter().copied() {
            let Some(done) = self.op(place).done() else { continue };
            if let (Answer::Found(Some(Value { tag, sealed: true })), Some(position)) = (done.answer, done.position) {
                sealed.push((position, place, tag));
            }
        }
        sealed.sort_unstable();
        for (position, place, tag) in sealed {
            let Some(set) = sets.get(&tag).copied().filter(|set| set.0 <= position) else { continue };
            let known = changes.range(set..=(position, SEALED_BY_THEN)).any(|(_, it)| it.0 == Change::Seal);
            if !known {
                changes.insert((position, SEALED_BY_THEN), (Change::Seal, place));
            }
        }
    }

    /// Rule 2, over all keys.
    fn share_no_place(
        &mut self,
        changes: &BTreeMap<Place, (Change, usize)>,
        taken: &mut BTreeMap<u64, (usize, &'h str, Change)>,
    ) {
        for ((at, rank), (change, by)) in changes {
            if *rank != EXACT {
                continue;
            }
            if let Some((other, key, what)) = taken.insert(*at, (*by, self.key, *change)) {
                self.wrong(&[other, *by], format!("position {at} is {change:?} here and {what:?} of {key}"));
            }
        }
    }

    /// Rules 3 and 4: the changes one after another, and each look at the place where it stands.
    fn replay(&mut self, changes: &BTreeMap<Place, (Change, usize)>) {
        let mut looks: Vec<(u64, usize)> = Vec::new();
        for place in self.places.iter().copied() {
            let Some(done) = self.op(place).done() else { continue };
            match (self.op(place).kind, done.answer) {
                // It found itself sealed at the place that it was told, however long ago: that must have been the last change still.
                (Kind::Seal, Answer::Taken) => {
                    looks.extend(done.version.or(done.position).map(|told| (told.max(self.floors[place]), place)));
                }
                (_, Answer::Found(_) | Answer::Refused) => looks.extend(done.position.map(|at| (at, place))),
                (_, Answer::Taken) => {}
            }
        }
        looks.sort_unstable();
        let mut looks = looks.into_iter().peekable();
        let mut state: State = None;
        let mut version = None;
        let mut set_at: BTreeMap<Tag, Place> = BTreeMap::new();
        for (at, (change, by)) in changes {
            while let Some((_, place)) = looks.next_if(|(position, _)| (*position, SEALED_BY_THEN) < *at) {
                self.look(place, state, version);
            }
            self.asked_for(*at, *change, *by, state, &mut set_at);
            state = match change {
                Change::Set(tag) => Some(Value::of(*tag)),
                Change::Seal => state.map(|value| Value { sealed: true, ..value }),
            };
            version = Some(*at);
        }
        for (_, place) in looks {
            self.look(place, state, version);
        }
    }

    /// Rule 4.
    fn look(&mut self, place: usize, state: State, version: Option<Place>) {
        let op = self.op(place);
        let Some(done) = op.done() else { return };
        match (op.kind, done.answer) {
            (_, Answer::Found(found)) if found != state => {
                let cause = format!("it found {found:?} where the log has {state:?}, changed last at {version:?}");
                self.wrong(&[place], cause);
            }
            (_, Answer::Found(_)) => {
                if let (Some(told), Some((at, EXACT))) = (done.version, version) {
                    if told != at {
                        self.wrong(&[place], format!("it found version {told} where the log has {at}"));
                    }
                }
            }
            (Kind::Swap { expect, .. }, Answer::Refused)
                if state == expect.map(Value::of) && !self.excused(done.position) =>
            {
                self.wrong(&[place], format!("it was refused, though what it expected was there: {state:?}"));
            }
            (Kind::Seal, Answer::Refused) if state.is_some() => {
                self.wrong(&[place], format!("it was refused, though {state:?} was there"));
            }
            (Kind::Seal, Answer::Taken) => {
                let told = done.version.or(done.position).map(|told| (told, EXACT));
                if told != version {
                    self.wrong(&[place], format!("it was told of a seal at {told:?} where the log has {version:?}"));
                }
            }
            (_, Answer::Refused | Answer::Taken) => {}
        }
    }

    /// Whether some change without an answer may have been there at `position`.
    fn excused(&self, position: Option<u64>) -> bool {
        let mut changes = self.places.iter().copied().filter(|place| self.op(*place).kind != Kind::Read);
        changes.any(|place| self.op(place).done().is_none() && Some(self.floors[place]) < position)
    }

    /// Rule 3.
    fn asked_for(&mut self, at: Place, change: Change, by: usize, before: State, set_at: &mut BTreeMap<Tag, Place>) {
        match change {
            Change::Set(tag) => {
                if let Some(first) = set_at.insert(tag, at) {
                    self.wrong(&[by], format!("{tag} took effect at {first:?} and again at {at:?}"));
                }
                match self.owners.get(&tag).copied() {
                    None => self.wrong(&[by], format!("{tag} is there, and nobody wrote it")),
                    Some(owner) => self.by_its_owner(at, tag, owner, by, before),
                }
            }
            Change::Seal => {
                if self.seal_floor(at).is_none_or(|floor| floor >= at.0) {
                    self.wrong(&[by], format!("it was sealed at {at:?}, and nobody had asked for that"));
                }
                if before.is_none_or(|value| value.sealed) && !self.excused(Some(at.0)) {
                    self.wrong(&[by], format!("it was sealed at {at:?}, where {before:?} was there"));
                }
            }
        }
    }

    /// The lowest floor of a seal that can be the one at `at`: one without an answer, or one that was told this very place.
    fn seal_floor(&self, at: Place) -> Option<u64> {
        let can_be = |op: &Op| match op.done() {
            None => true,
            Some(done) if done.answer == Answer::Refused => false,
            Some(done) => done.version.or(done.position).is_none_or(|told| (told, EXACT) == at),
        };
        let seals = self.places.iter().copied().filter(|place| self.op(*place).kind == Kind::Seal);
        seals.filter(|place| can_be(self.op(*place))).map(|place| self.floors[place]).min()
    }

    fn by_its_owner(&mut self, at: Place, tag: Tag, owner: usize, by: usize, before: State) {
        let op = self.op(owner);
        if let Some(done) = op.done() {
            if done.answer == Answer::Refused {
                self.wrong(&[owner, by], format!("{tag} was refused, and is there"));
            }
            if done.position.is_some_and(|position| (position, EXACT) != at) {
                let cause = format!("{tag} was acknowledged at {:?}, and took effect at {at:?}", done.position);
                self.wrong(&[owner, by], cause);
            }
        }
        if at.0 <= self.floors[owner] {
            let floor = self.floors[owner];
            self.wrong(&[owner, by], format!("{tag} took effect at {at:?}, asked for only behind {floor}"));
        }
        if let Kind::Swap { expect, .. } = op.kind {
            if before != expect.map(Value::of) {
                self.wrong(&[owner, by], format!("{tag} replaced {before:?}, it expected {expect:?}"));
            }
        }
    }
}

fn last_change(value: Value) -> Change {
    if value.sealed {
        Change::Seal
    } else {
        Change::Set(value.tag)
    }
}

fn set_tag(change: Change) -> Option<Tag> {
    match change {
        Change::Set(tag) => Some(tag),
        Change::Seal => None,
    }
}

fn writes(op: &Op) -> Option<Tag> {
    match op.kind {
        Kind::Write { tag } | Kind::Swap { tag, .. } => Some(tag),
        Kind::Read | Kind::Seal => None,
    }
}
