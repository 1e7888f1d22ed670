//! Was it one register after all? Two checkers of what clients saw, and one of the life of tasks.
//!
//! Owned here: the form of a history (`History`), the meaning of its operations (`model`), and the judgements on it. `search` is the
//! algorithm of Wing and Gong with Lowe's memoisation, one key at a time; it looks only at invocations, returns and answers. `position`
//! takes the log positions that answers carry at their word and so needs only sorting. They share nothing but the model's types: each
//! is tested against the other. `task_life` holds what semantics.md says of a task, which is no register.
//!
//! Called by the simulator, with virtual times, and by the harness of real processes, with times of one clock. Pure: no clock, no
//! thread, no random number. Must never know the code that it judges.

mod history;
pub mod limits;
mod model;
mod position;
mod search;
mod task_life;

#[cfg(test)]
mod tests;

pub use history::{Answer, Done, History, Kind, Op, Outcome, Tag, Time, Value};
pub use model::{step, State};
pub use position::check_positions;
pub use search::{search, search_key, Judgement, Searched};
pub use task_life::{check_lives, Life, ReportAnswer, TaskEvent, TaskSeen};

/// What cannot have happened, in words, with the operations that show it (places in the history).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key or the task.
    pub key: String,
    /// Places in the history.
    pub ops: Vec<usize>,
    /// Why it is impossible.
    pub cause: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} (operations {:?})", self.key, self.cause, self.ops)
    }
}
