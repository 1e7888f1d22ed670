//! Histories of a register that is linearizable because it is one, and ways to spoil them.

use crate::linearizability::{step, Answer, Done, History, Kind, Op, Outcome, State, Value};

/// SplitMix64: enough chance for tests, the same for the same seed.
pub(super) struct Chance(pub u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What a history is made of.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub ops: usize,
    pub keys: u64,
    /// Longest time between call and effect, and between effect and return.
    pub overlap: u64,
    /// One in so many gets no answer; 0: every one does.
    pub unknown: u64,
    pub seals: bool,
    pub versions: bool,
}

struct Register {
    state: State,
    version: Option<u64>,
}

fn kind(chance: &mut Chance, tag: u64, state: State, seals: bool) -> Kind {
    match chance.below(if seals { 10 } else { 9 }) {
        0..=3 => Kind::Read,
        4 | 5 => Kind::Write { tag },
        6 => Kind::Swap { expect: None, tag },
        // Often right, sometimes not.
        7 | 8 => {
            let expect = if chance.one_in(3) { Some(chance.below(tag)) } else { state.map(|value| value.tag) };
            Kind::Swap { expect, tag }
        }
        _ => Kind::Seal,
    }
}

/// Effects happen one after another in the order of `ops`; calls and returns lie around them.
pub(super) fn real(chance: &mut Chance, shape: Shape) -> History {
    let mut registers: Vec<Register> = (0..shape.keys).map(|_| Register { state: None, version: None }).collect();
    let mut ops = Vec::new();
    // Positions rise by more than one, as they do where others write, too.
    let (mut now, mut position) = (shape.overlap * 2, 10);
    for number in 0..shape.ops {
        now += 1 + chance.below(4);
        let key = chance.below(shape.keys) as usize;
        let register = &mut registers[key];
        let kind = kind(chance, number as u64 + 1, register.state, shape.seals);
        let invoked = now - chance.below(shape.overlap.max(1));
        let unknown = shape.unknown > 0 && chance.one_in(shape.unknown);
        // No effect at all is possible only without an answer.
        if unknown && chance.one_in(2) {
            ops.push(op(number, key, kind, invoked, Outcome::Unknown));
            continue;
        }
        let before = register.state;
        let found_sealed = before.is_some_and(|value| value.sealed);
        register.state = step(before, kind, None).expect("without an answer every operation is possible");
        let answer = answer_of(before, kind);
        let changed = answer == Answer::Taken && !(kind == Kind::Seal && found_sealed);
        position += 1 + chance.below(3);
        if changed {
            register.version = Some(position);
        }
        // A seal that found itself done answers with the place where that was.
        let told = if kind == Kind::Seal && answer == Answer::Taken { register.version } else { Some(position) };
        let done = Done {
            at: now + chance.below(shape.overlap.max(1)),
            answer,
            position: told,
            version: if shape.versions { register.version } else { None },
        };
        ops.push(op(number, key, kind, invoked, if unknown { Outcome::Unknown } else { Outcome::Done(done) }));
    }
    History { ops }
}

fn op(number: usize, key: usize, kind: Kind, invoked: u64, outcome: Outcome) -> Op {
    Op { client: number as u32, key: format!("k{key}"), kind, invoked, outcome }
}

pub(super) fn answer_of(state: State, kind: Kind) -> Answer {
    [Answer::Taken, Answer::Refused, Answer::Found(state)]
        .into_iter()
        .find(|answer| step(state, kind, Some(*answer)).is_some())
        .expect("one of the answers is right")
}

/// Changes one thing about an answer, a time or a position. What comes out may still be linearizable.
pub(super) fn spoil(chance: &mut Chance, history: &mut History) {
    let count = history.ops.len() as u64;
    let tags: Vec<u64> = (1..=count).collect();
    let place = chance.below(count) as usize;
    let op = &mut history.ops[place];
    let found = if chance.one_in(4) { None } else { Some(Value::of(tags[chance.below(count) as usize])) };
    match (&mut op.outcome, chance.below(5)) {
        (Outcome::Done(done), 0..=2) => match done.answer {
            Answer::Found(_) => {
                done.answer = Answer::Found(found);
                done.version = None;
            }
            Answer::Taken if !matches!(op.kind, Kind::Write { .. }) => done.answer = Answer::Refused,
            Answer::Taken => op.invoked = done.at,
            Answer::Refused => done.answer = Answer::Taken,
        },
        (Outcome::Done(done), 3) => done.at = op.invoked,
        (Outcome::Done(done), _) => op.invoked = done.at,
        (Outcome::Unknown, _) => op.invoked += 20,
    }
}

/// Gives every answer the position that this order of one key says; of `History` with one key.
pub(super) fn positions_by(history: &mut History, order: &[usize], versions: bool) {
    let mut state: State = None;
    let mut version = None;
    for (number, place) in order.iter().enumerate() {
        let op = &mut history.ops[*place];
        let position = 10 * (number as u64 + 1);
        let before = state;
        state = step(state, op.kind, None).expect("without an answer every operation is possible");
        if state != before {
            version = Some(position);
        }
        if let Outcome::Done(done) = &mut op.outcome {
            done.position =
                if op.kind == Kind::Seal && done.answer == Answer::Taken { version } else { Some(position) };
            done.version = if versions { version } else { None };
        }
    }
}
