//! Judges of a run, outside the code that is judged: they know entries, rows and answers, and nothing of how they came about.

pub mod log;
pub mod promise;
pub mod state;
pub mod taken;
pub mod tally;
pub mod ticks;
pub mod training;
pub mod wire;

use std::collections::BTreeMap;

use raftgrid_driver::{NodeId, Role, Status, Term};
use raftgrid_manifest::RowsError;

use crate::linearizability::{check_lives, check_positions, search, History, TaskEvent};

/// What a judge of rows says; rows that cannot be read are no good sign either.
pub fn told(judged: Result<Vec<String>, RowsError>) -> Vec<String> {
    judged.unwrap_or_else(|error| vec![error.to_string()])
}

/// Everything that was seen of a run.
#[derive(Default)]
pub struct Checks {
    /// Who led which term.
    leaders: BTreeMap<Term, NodeId>,
    /// Logs.
    pub logs: log::Logs,
    /// Votes and acknowledgements, against what is durable.
    pub promises: promise::Promises,
    /// State tables.
    pub states: state::States,
    /// Operations of clients.
    pub history: History,
    /// Work besides single tasks that was acknowledged.
    pub taken: Vec<taken::Taken>,
    /// Gradients that were acknowledged.
    pub training: training::Training,
    /// What clients and workers saw of tasks.
    pub lives: Vec<TaskEvent>,
    violations: Vec<String>,
}

impl Checks {
    /// Notes what cannot be.
    pub fn violated(&mut self, what: String) {
        if self.violations.len() < crate::limits::VIOLATIONS_MAX {
            self.violations.push(what);
        }
    }

    /// What could not be and was.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Election safety: at most one leader a term.
    pub fn saw_status(&mut self, status: &Status) {
        if status.role != Role::Leader {
            return;
        }
        let first = *self.leaders.entry(status.term).or_insert(status.node);
        if first != status.node {
            self.violated(format!("term {} has two leaders: {first} and {}", status.term, status.node));
        }
    }

    /// What clients were told, as a whole.
    pub fn judge_history(&mut self) {
        let mut found: Vec<String> = Vec::new();
        found.extend(check_positions(&self.history).iter().map(|violation| format!("history: {violation}")));
        found.extend(check_lives(&self.lives).iter().map(|violation| format!("tasks: {violation}")));
        let searched = search(&self.history);
        found.extend(searched.violations.iter().map(|violation| format!("history: {violation}")));
        found.extend(searched.undecided.iter().map(|key| format!("history of {key}: undecided")));
        found.into_iter().for_each(|violation| self.violated(violation));
    }
}
