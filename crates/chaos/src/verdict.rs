//! Judges a run: both checkers, the lives of tasks, and the count of what was accepted, lost and duplicated.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use raftgrid_proto::v1::Task;
use raftgrid_simulator::linearizability::{
    check_lives, check_positions, search, Answer, Done, History, Kind, Op, Outcome, Violation,
};

use crate::calls::{tag_in, Caller};
use crate::record::Record;

/// Stale reads that are planted in the history of a run.
const SPOILED_MAX: usize = 20;

/// What came out of a run.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Everything that is wrong, in words; empty: nothing is.
    pub wrong: Vec<String>,
    /// Operations on registers, and on how many keys.
    pub ops: usize,
    /// Keys.
    pub keys: usize,
    /// Writes without an answer.
    pub unknown: usize,
    /// Reads with one.
    pub reads: usize,
    /// Steps of the search.
    pub steps: u64,
    /// Events of tasks' lives.
    pub lives: usize,
    /// Acknowledged writes of all kinds.
    pub acknowledged: usize,
    /// Submissions that were acknowledged.
    pub accepted: usize,
    /// Of those, not there.
    pub lost: usize,
    /// Of all submissions, there more than once; copies beyond what was asked for.
    pub duplicated: usize,
}

/// Looks at what was recorded.
pub fn judge(record: &Record) -> Verdict {
    let history = record.history();
    let searched = search(&history);
    let mut verdict = Verdict {
        ops: history.ops.len(),
        keys: searched.keys,
        unknown: history.ops.iter().filter(|op| op.kind != Kind::Read && op.done().is_none()).count(),
        reads: history.ops.iter().filter(|op| op.kind == Kind::Read).count(),
        steps: searched.steps,
        acknowledged: record.acks().len(),
        wrong: record.alarms(),
        ..Verdict::default()
    };
    let mut note = |who: &str, violations: &[Violation], lines: &dyn Fn(&Violation) -> String| {
        verdict.wrong.extend(violations.iter().map(|it| format!("{who}: {it}\n{}", lines(it))));
    };
    let of_key = |violation: &Violation| history.lines(&violation.ops);
    note("search", &searched.violations, &of_key);
    note("positions", &check_positions(&history), &of_key);
    let events = record.lives();
    let of_task = |violation: &Violation| {
        let lines = violation.ops.iter().filter_map(|place| events.get(*place)).map(|event| format!("    {event:?}\n"));
        lines.collect::<String>()
    };
    note("life", &check_lives(&events), &of_task);
    verdict.wrong.extend(searched.undecided.iter().map(|key| format!("search: {key} is undecided")));
    verdict.lives = events.len();
    verdict.wrong.extend(blind(&history));
    verdict
}

/// Spoils the history of the run in one place after another: each checker must see each. What they miss is told.
fn blind(history: &History) -> Vec<String> {
    let mut created: BTreeMap<&str, u64> = BTreeMap::new();
    let mut missed = Vec::new();
    let mut reads: Vec<(usize, &Op)> = history.ops.iter().enumerate().collect();
    reads.sort_by_key(|(_, op)| op.invoked);
    let mut tried = 0;
    for (place, op) in reads {
        let Some(done) = op.done() else { continue };
        let Answer::Found(Some(_)) = done.answer else { continue };
        let known = *created.entry(&op.key).or_insert(done.at);
        // It was there for certain before this read was asked.
        if op.invoked <= known || tried == SPOILED_MAX {
            continue;
        }
        tried += 1;
        let mut ops: Vec<Op> = history.ops.iter().filter(|other| other.key == op.key).cloned().collect();
        let stale = Done { answer: Answer::Found(None), version: None, ..*done };
        ops.push(Op { outcome: Outcome::Done(stale), ..op.clone() });
        let spoiled = History { ops };
        if search(&spoiled).ok() || check_positions(&spoiled).is_empty() {
            missed.push(format!("the checkers do not see a stale read that was planted beside operation {place}"));
        }
        created.remove(op.key.as_str());
    }
    missed
}

/// Counts what is there, at every replica; the load is over and the cluster healed.
pub fn audit(record: &Record, caller: &Caller, endpoints: &[String], verdict: &mut Verdict) -> Result<()> {
    // Leases may still run out meanwhile: states change, what there is does not.
    let lasting = |tasks: &[Task]| -> Vec<(String, Vec<u8>, String)> {
        tasks.iter().map(|it| (it.task_id.clone(), it.task_data.clone(), it.parent_task_id.clone())).collect()
    };
    let mut first: Option<Vec<Task>> = None;
    for endpoint in endpoints {
        let tasks = caller.all_tasks(endpoint)?;
        match &first {
            None => first = Some(tasks),
            Some(other) if lasting(other) != lasting(&tasks) => {
                verdict.wrong.push(format!("{endpoint} and {} list different tasks", endpoints[0]));
            }
            Some(_) => {}
        }
    }
    let tasks = first.context("failed to audit: there is no replica")?;
    let mut by_tag: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    let mut copies: BTreeMap<&str, u64> = BTreeMap::new();
    let ids: BTreeSet<&str> = tasks.iter().map(|task| task.task_id.as_str()).collect();
    if ids.len() != tasks.len() {
        verdict.wrong.push("a task is listed twice".to_owned());
    }
    for task in &tasks {
        if task.parent_task_id.is_empty() {
            by_tag.entry(tag_in(&task.task_data).unwrap_or(0)).or_default().push(&task.task_id);
        } else {
            *copies.entry(&task.parent_task_id).or_default() += 1;
        }
    }
    for submission in record.submissions() {
        let there = by_tag.get(&submission.tag).map(Vec::as_slice).unwrap_or_default();
        if let Some(id) = &submission.accepted {
            verdict.accepted += 1;
            if !there.contains(&id.as_str()) {
                verdict.lost += 1;
                verdict.wrong.push(format!("{id} was accepted and is lost; with its tag there is {there:?}"));
            }
        }
        if there.len() > 1 {
            verdict.duplicated += 1;
            verdict.wrong.push(format!("one submission became {there:?}"));
        }
    }
    for (task, asked) in record.copies() {
        let made = copies.get(task.as_str()).copied().unwrap_or(0);
        if made < asked.acknowledged {
            verdict.lost += 1;
            verdict
                .wrong
                .push(format!("{task}: {} retries were acknowledged, {made} copies are there", asked.acknowledged));
        }
        if made > asked.acknowledged + asked.unknown {
            verdict.duplicated += 1;
            verdict.wrong.push(format!("{task}: {asked:?} retries made {made} copies"));
        }
    }
    Ok(())
}
