//! The trainers on a worker's machine, and what its agent does when they are dead.

use raftgrid_worker::executor::{Exit, LeaseId};

use super::{Pending, Worker, CALL_MS};
use crate::ask::Ask;
use crate::calls::{Request, Response};
use crate::check::Checks;
use crate::course::Course;
use crate::trainer::Trainer;

/// How long model 0 and gradients wait for their Ack.
const UPLOAD_MS: u64 = 5_000;
/// Pushes of dead trainers that a machine keeps.
const LEFT_MAX: usize = 8;
/// How long a gradient takes when nobody dawdles, in milliseconds.
const QUICK_GRADIENT_MS: u64 = 5;

impl Worker {
    /// What a dead trainer was about to push comes nonetheless, half of the time.
    pub(super) fn leave_push(&mut self, trainer: &Trainer) {
        if let Some(push) = trainer.push().filter(|_| self.left.len() < LEFT_MAX && self.rng.chance(500)) {
            self.left.push((push.clone(), trainer.push_request(push)));
        }
    }

    pub(super) fn wake_trainers(&mut self, now: u64, nodes: &[u64], checks: &mut Checks, asks: &mut Vec<Ask>) {
        for (push, request) in std::mem::take(&mut self.left) {
            self.ask_of_any(now + UPLOAD_MS, Pending::Left(Box::new(push)), request, nodes, asks);
        }
        let compute_ms = if self.quick { QUICK_GRADIENT_MS } else { self.process_ms / 4 };
        let due: Vec<LeaseId> =
            self.trainers.iter().filter(|(_, it)| it.due_ms() <= now).map(|(lease, _)| lease.clone()).collect();
        for lease in due {
            let request = self.trainers.get_mut(&lease).and_then(|it| it.wake(now, compute_ms, checks));
            if let Some(request) = request {
                let patience_ms = if matches!(request, Request::Upload(_)) { UPLOAD_MS } else { CALL_MS };
                self.ask_of_any(now + patience_ms, Pending::Trainer(lease), request, nodes, asks);
            }
        }
    }

    /// Any replica serves bytes: half of the calls go to whichever.
    fn ask_of_any(&mut self, deadline: u64, pending: Pending, request: Request, nodes: &[u64], asks: &mut Vec<Ask>) {
        self.ask(deadline, pending, request, nodes, asks);
        if let (true, Some(ask), Some(node)) = (self.rng.chance(500), asks.last_mut(), self.rng.pick(nodes)) {
            ask.node = *node;
        }
    }

    pub(super) fn trainer_answered(
        &mut self,
        now: u64,
        lease: &LeaseId,
        response: Option<&Response>,
        checks: &mut Checks,
    ) {
        let Some(trainer) = self.trainers.get_mut(lease) else { return };
        trainer.answered(now, response, checks);
        if let (Some(code), Some((at, exit))) = (trainer.exit(), self.processes.get_mut(lease)) {
            let reason = if code == 0 { String::new() } else { format!("exit code {code}") };
            (*at, *exit) = (now, Exit { code, reason, ..Exit::default() });
        }
    }

    /// It ends when its job needs no more of it.
    pub(super) fn launch_trainer(&mut self, now: u64, lease: LeaseId, course: Course) {
        self.launched.push(lease.clone());
        self.processes.insert(lease.clone(), (u64::MAX, Exit::default()));
        let trainer = Trainer::new(lease.clone(), self.id(), course, now, self.rng.split());
        self.trainers.insert(lease, trainer);
    }
}
