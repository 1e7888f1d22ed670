//! What one key does when one operation at a time is done to it.

use crate::linearizability::history::{Answer, Kind, Value};

/// What a key holds; None: nothing yet.
pub type State = Option<Value>;

/// The state after the operation, or None if it could not have answered so. Without an answer: what it does, whatever it says.
pub fn step(state: State, kind: Kind, answer: Option<Answer>) -> Option<State> {
    let (after, told) = match kind {
        Kind::Write { tag } => (Some(Value::of(tag)), Answer::Taken),
        Kind::Read => (state, Answer::Found(state)),
        Kind::Swap { expect, tag } if state == expect.map(Value::of) => (Some(Value::of(tag)), Answer::Taken),
        Kind::Swap { .. } => (state, Answer::Refused),
        Kind::Seal => match state {
            Some(value) => (Some(Value { sealed: true, ..value }), Answer::Taken),
            None => (None, Answer::Refused),
        },
    };
    answer.is_none_or(|answer| answer == told).then_some(after)
}
