//! The jobs of one process that wait for others, and when each goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::hands::{Job, Step, Work};

/// A job and how often it has waited.
struct Running {
    job: Job,
    waits: u64,
    /// Its next turn is ordered, since what it waits for has come.
    ordered: bool,
}

/// When a job goes on: its number, how often it has waited, and how long it waits at the most.
pub type Wait = (u64, u64, Duration);

/// Jobs that were begun and have not ended.
#[derive(Default)]
pub struct Jobs {
    running: BTreeMap<u64, Running>,
    begun: u64,
    waits: Vec<Wait>,
}

impl Jobs {
    /// Begins a job, and lets it run until it waits. Err: it panicked.
    pub fn begin(&mut self, work: Work) -> Result<(), String> {
        self.begun += 1;
        self.running.insert(self.begun, Running { job: Job::new(work), waits: 0, ordered: false });
        self.step(self.begun, 0)
    }

    /// A job goes on, if it still waits as it did when its turn was ordered. Err: it panicked.
    pub fn step(&mut self, number: u64, waits: u64) -> Result<(), String> {
        let Some(running) = self.running.get_mut(&number).filter(|running| running.waits == waits) else {
            return Ok(());
        };
        running.waits += 1;
        running.ordered = false;
        match running.job.step() {
            Step::Waits(most) => {
                self.waits.push((number, running.waits, most));
                Ok(())
            }
            Step::Ended => {
                self.running.remove(&number);
                Ok(())
            }
            Step::Panicked(cause) => {
                self.running.remove(&number);
                Err(cause)
            }
        }
    }

    /// Those that began to wait since somebody asked.
    pub fn take_waits(&mut self) -> Vec<Wait> {
        std::mem::take(&mut self.waits)
    }

    /// Those for which has come what they wait for, each told once: (number, how often it has waited).
    pub fn take_due(&mut self) -> Vec<(u64, u64)> {
        let mut due = Vec::new();
        for (number, running) in &mut self.running {
            if !running.ordered && running.job.is_due() {
                running.ordered = true;
                due.push((*number, running.waits));
            }
        }
        due
    }
}
