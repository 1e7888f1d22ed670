//! The model to the last bit: one job, undisturbed once, then many times while leader, followers, workers and Python processes are killed at
//! random and at named points (crate `crashpoint`), with 1, 2, 3 and 5 workers for the same shards. Each run must end with the same model, the
//! same ledger and a clean account; every point that was armed must have been come to in some run, and each kind of kill must have happened.

mod account;
mod crew;
mod plan;
mod python;
mod run;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use raftgrid_crashpoint::{Point, PLACES};

use plan::Kind;
use python::PythonPoint;
use run::Outcome;

/// The job's name, in every run.
const JOB: &str = "bits";
/// Its shards, whatever the number of workers.
const SHARDS: u64 = 6;
/// Snapshots and compaction happen all the time.
const SETTINGS: &str = "[raft]\nlog_tail_entries = 20\nsnapshot_threshold = 40\nsnapshot_interval = '200ms'\n";

/// Programs, the script, and how long the job is.
pub struct Tools {
    /// The replica.
    pub controld: PathBuf,
    /// The worker.
    pub workerd: PathBuf,
    /// The client.
    pub gridctl: PathBuf,
    /// The interpreter of the tasks.
    pub python: PathBuf,
    /// Where the package raftgrid is.
    pub python_path: PathBuf,
    /// What is trained.
    pub script: PathBuf,
    /// Rounds of the job.
    pub rounds: u64,
}

/// How much.
pub struct Campaign {
    /// Of everything that is drawn.
    pub seed: u64,
    /// Disturbed runs.
    pub runs: u64,
    /// More points in each of the few runs.
    pub short: bool,
    /// Of these, only this one: to look at it again. What must have happened in a whole campaign is not asked for.
    pub only: Option<u64>,
}

/// Runs it below `dir`; the number of runs that went wrong, and of things that did not happen. Runs that went well leave nothing.
pub fn prove(tools: &Tools, campaign: &Campaign, dir: &Path) -> Result<usize> {
    let job = crew::lay_out_job(&dir.join("job"), &tools.script, tools.rounds, campaign.seed)?;
    let first = dir.join("undisturbed");
    let undisturbed = run::undisturbed(tools, &first, &job, campaign.seed).context("the undisturbed run")?;
    tidy(&first)?;
    println!("undisturbed, 1 worker, {} s: model {}", undisturbed.seconds, undisturbed.account.model);
    let mut tally = Tally::default();
    let mut rows = Vec::new();
    for plan in plan::campaign(campaign.seed, campaign.runs, tools.rounds, campaign.short) {
        if campaign.only.is_some_and(|only| only != plan.number) {
            continue;
        }
        let folder = dir.join(format!("run-{}", plan.number));
        let outcome = run::run(tools, &plan, &folder, &job).and_then(|outcome| {
            tally.add(&outcome);
            match outcome.account.differs(&undisturbed.account) {
                None => Ok(outcome),
                Some(what) => bail!("{what}"),
            }
        });
        match &outcome {
            Ok(_) => tidy(&folder)?,
            Err(error) => {
                tally.wrong += 1;
                println!("WRONG run {} (kept in {}): {error:#}\nplan: {plan:?}", plan.number, folder.display());
            }
        }
        println!("{}", table::line(&plan, outcome.as_ref().ok()));
        rows.push((plan, outcome.ok()));
    }
    println!("{}", table::runs(&rows));
    println!("{}", table::points(&tally));
    if campaign.only.is_some() {
        return Ok(tally.wrong);
    }
    let missing = tally.missing();
    missing.iter().for_each(|missing| println!("WRONG {missing}"));
    Ok(tally.wrong + missing.len())
}

fn tidy(dir: &Path) -> Result<()> {
    std::fs::remove_dir_all(dir).with_context(|| format!("failed to remove {}", dir.display()))
}

/// What happened in all runs together.
#[derive(Default)]
struct Tally {
    wrong: usize,
    kills: BTreeMap<Kind, u64>,
    armed: BTreeSet<Point>,
    hits: BTreeMap<Point, u64>,
    python: BTreeMap<PythonPoint, (bool, u64)>,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome) {
        outcome.kills.iter().for_each(|(kind, count)| *self.kills.entry(*kind).or_default() += count);
        outcome.hits.iter().for_each(|(point, count)| *self.hits.entry(*point).or_default() += count);
        self.armed.extend(&outcome.armed);
        for (point, (ordered, count)) in &outcome.python {
            let all = self.python.entry(*point).or_default();
            *all = (all.0 || *ordered, all.1 + count);
        }
    }

    /// A proof in which something never happened proves nothing about it.
    fn missing(&self) -> Vec<String> {
        let hits = |point: &Point| self.hits.get(point).copied().unwrap_or(0);
        let points = PLACES.iter().filter(|place| self.armed.contains(&place.point) && hits(&place.point) == 0);
        let mut missing: Vec<String> =
            points.map(|place| format!("nobody came to {}, though it was armed", place.name)).collect();
        let python = PythonPoint::EACH.iter().filter(|point| self.python.get(point) == Some(&(true, 0)));
        missing.extend(python.map(|point| format!("no Python process came to {point}, though it was ordered")));
        let kinds = Kind::EACH.iter().filter(|kind| self.kills.get(kind).copied().unwrap_or(0) == 0);
        missing.extend(kinds.map(|kind| format!("no kill of the kind: {kind}")));
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_armed_and_never_happened_is_missing() {
        let mut tally = Tally::default();
        tally.kills.extend(Kind::EACH.map(|kind| (kind, 1)));
        assert_eq!(tally.missing(), Vec::<String>::new());
        tally.armed.extend([Point::LogSynced, Point::RoundPlaced]);
        tally.hits.insert(Point::LogSynced, 2);
        tally.python.insert(PythonPoint::Uploading, (true, 0));
        tally.python.insert(PythonPoint::Loaded, (false, 0));
        tally.kills.remove(&Kind::Python);
        let missing = tally.missing();
        assert_eq!(missing.len(), 3, "{missing:?}");
        for (said, what) in missing.iter().zip(["round.placed", "python.uploading", "python"]) {
            assert!(said.contains(what), "{said}");
        }
    }
}
