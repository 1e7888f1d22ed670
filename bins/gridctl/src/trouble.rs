//! What the demo does to its cluster while it trains: kills the leader at a third and at two thirds of the rounds, a worker in between, and starts
//! each of them again a little later. A thread of its own, so that the rounds are watched without a break.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::context::Interrupt;
use crate::dev_stop::{kill, restart};
use crate::failure::{Failure, Result};
use crate::limits::PROBE_PAUSE;
use crate::output::{line, thousands};

/// How long a killed process stays away.
const AWAY: Duration = Duration::from_millis(1_500);

/// Whom to kill, and after how many rounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) after_round: u64,
    pub(crate) whom: &'static str,
}

/// The steps of the demo for so many rounds.
pub(crate) fn steps(rounds: u64) -> Vec<Step> {
    vec![
        Step { after_round: rounds / 3, whom: "leader" },
        Step { after_round: rounds / 2, whom: "worker-2" },
        Step { after_round: rounds * 2 / 3, whom: "leader" },
    ]
}

/// What was killed, and how long nobody led.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    pub(crate) leaderless_ms: Option<u128>,
}

/// Runs the steps; `rounds` is the number of rounds committed so far, as the watcher sees it.
pub(crate) fn start(
    directory: PathBuf,
    steps: Vec<Step>,
    rounds: Arc<AtomicU64>,
    interrupt: Interrupt,
) -> Result<JoinHandle<Result<Vec<Hit>>>> {
    thread::Builder::new()
        .name("trouble".to_owned())
        .spawn(move || run(&directory, &steps, &rounds, &interrupt))
        .map_err(|error| Failure::new(format!("failed to start a thread: {error}"), "again with more memory"))
}

fn run(directory: &std::path::Path, steps: &[Step], rounds: &AtomicU64, interrupt: &Interrupt) -> Result<Vec<Hit>> {
    let mut hits = Vec::new();
    for step in steps {
        while rounds.load(Ordering::SeqCst) < step.after_round {
            interrupt.check()?;
            thread::sleep(PROBE_PAUSE);
        }
        let begin = Instant::now();
        let killed = kill(directory, step.whom, interrupt)?;
        let pid = killed.process.pid;
        match (killed.term, &killed.successor) {
            (Some(term), Some((next, ms))) => {
                line(format_args!("  ! SIGKILL {} (process {pid}), the leader of term {term}", killed.name));
                line(format_args!(
                    "  ! {} leads in term {}: {} ms without a leader",
                    next.name,
                    next.term,
                    thousands(*ms)
                ));
            }
            (Some(_), None) | (None, _) => line(format_args!("  ! SIGKILL {} (process {pid})", killed.name)),
        }
        hits.push(Hit { leaderless_ms: killed.successor.map(|(_, ms)| ms) });
        while begin.elapsed() < AWAY {
            interrupt.check()?;
            thread::sleep(PROBE_PAUSE);
        }
        let (name, ms) = restart(directory, &killed.name, interrupt)?;
        line(format_args!("  ! {name} started again, ready after {} ms", thousands(ms)));
    }
    Ok(hits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_dies_at_a_third_and_two_thirds_and_a_worker_in_between() {
        let steps = steps(60);
        let at: Vec<(u64, &str)> = steps.iter().map(|step| (step.after_round, step.whom)).collect();
        assert_eq!(at, [(20, "leader"), (30, "worker-2"), (40, "leader")]);
    }
}
