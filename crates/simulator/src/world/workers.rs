//! The workers' machines: woken, answered, disturbed; and never two processes of one task at once.

use raftgrid_worker::executor::LeaseId;

use super::World;
use crate::ask::Ask;
use crate::calls::Caller;
use crate::rng::hash_bytes;
use crate::worker::{Worker, KILL_TAKES_MS};

impl World {
    pub(super) fn wake_worker(&mut self, number: usize) {
        let Some(worker) = self.workers.get_mut(number) else { return };
        let asks = if worker.away_until_us > self.now_us {
            Vec::new()
        } else {
            worker.wake(self.now_us, &self.known, &mut self.checks)
        };
        self.judge_acks();
        self.after_worker(number, asks);
    }

    pub(super) fn after_worker(&mut self, number: usize, asks: Vec<Ask>) {
        self.judge_processes(number);
        for ask in asks {
            self.send_call(Caller::Worker(number), ask);
        }
        if let Some(at) = self.workers.get(number).map(Worker::wake_us).filter(|at| *at < u64::MAX) {
            self.order_wake(Caller::Worker(number), at.max(self.now_us + 1_000));
        }
    }

    /// A worker that cannot renew a lease ends the process before the lease is over: when another attempt begins, nothing of the task runs any
    /// more. Machines that stand still are left out, until what they kill when they go on again is gone: nobody can promise anything for them, and
    /// what their processes do has no effect.
    fn judge_processes(&mut self, number: usize) {
        let Some(worker) = self.workers.get_mut(number) else { return };
        let launched: Vec<LeaseId> = std::mem::take(&mut worker.launched);
        for lease in launched {
            self.count("process");
            self.note("process", [number as u64, lease.epoch, hash_bytes(lease.task_id.as_bytes()), 0]);
            let moves = |other: &&Worker| other.away_until_us + KILL_TAKES_MS * 1_000 <= self.now_us;
            let twice =
                self.workers.iter().filter(moves).find_map(|other| Some((other.number, other.runs_otherwise(&lease)?)));
            if let Some((other, old)) = twice {
                let (task, epoch, before) = (&lease.task_id, lease.epoch, old.epoch);
                self.checks.violated(format!(
                    "worker {number} starts {task} under lease {epoch}, and worker {other} still runs it under {before}"
                ));
            }
        }
    }

    pub(super) fn disturb_worker(&mut self, dies: bool) {
        let number = self.some_worker();
        let away = 100_000 + self.rng.around(4_000_000);
        self.send_away(number, self.now_us + away, dies);
    }

    fn some_worker(&mut self) -> usize {
        usize::try_from(self.rng.below(self.workers.len() as u64)).unwrap_or(0)
    }

    /// As SIGTERM does.
    pub(super) fn ask_to_leave(&mut self) {
        let number = self.some_worker();
        let Some(worker) = self.workers.get_mut(number).filter(|worker| worker.away_until_us <= self.now_us) else {
            return;
        };
        let asks = worker.leave(self.now_us, &self.known);
        self.note("leave", [number as u64, 0, 0, 0]);
        self.after_worker(number, asks);
    }

    /// A worker stands still until then, or has died and is started anew.
    pub(super) fn send_away(&mut self, number: usize, until: u64, dies: bool) {
        self.note("away", [number as u64, until, u64::from(dies), 0]);
        if let Some(worker) = self.workers.get_mut(number) {
            worker.away_until_us = until;
            if dies {
                worker.die();
            }
            self.wakes.remove(&Caller::Worker(number));
            self.order_wake(Caller::Worker(number), until);
        }
    }
}
