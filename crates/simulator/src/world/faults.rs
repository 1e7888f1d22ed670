//! Trouble, as planned.

use super::event::{Event, Fault};
use super::World;
use crate::disk::{Crash, Damage};
use crate::node::THREADS;

/// Threads in the order in which `Plan::stall_threads` takes them: the apply side first, then fsyncs, raft, the leader's loops, the timer, the
/// others.
const STALL_ORDER: [usize; THREADS] = [1, 2, 0, 3, 4, 5];

impl World {
    /// Orders the next trouble of a kind, if the plan has any.
    pub(super) fn order_fault(&mut self, fault: Fault) {
        let every = fault.every(&self.plan);
        if every > 0 {
            let delay = 200_000 + self.rng.around(every * 1_000);
            self.after(delay, Event::Fault(fault));
        }
    }

    /// Nodes whose process runs.
    fn running(&self) -> Vec<u64> {
        self.nodes.iter().filter(|(_, machine)| machine.is_up(self.now_us)).map(|(node, _)| *node).collect()
    }

    fn victim(&mut self) -> Option<u64> {
        let running = self.running();
        self.rng.pick(&running).copied()
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        if self.healing {
            return;
        }
        self.order_fault(fault);
        self.count(fault.name());
        self.note("fault", [fault as u64, 0, 0, 0]);
        match fault {
            Fault::Partition => self.partition(),
            Fault::Crash => {
                if let Some(node) = self.victim() {
                    self.crash_somehow(node);
                }
            }
            Fault::CrashAll => {
                let power = self.rng.chance(500);
                for node in self.running() {
                    if power {
                        self.crash(node, Crash::Power);
                    } else {
                        self.crash_somehow(node);
                    }
                }
            }
            Fault::Pause => {
                if let Some(node) = self.victim() {
                    let pause = 50_000 + self.rng.around(2_000_000);
                    if let Some(machine) = self.nodes.get_mut(&node) {
                        machine.paused_until_us = self.now_us + pause;
                    }
                }
            }
            Fault::Stall => self.stall(),
            Fault::ClockJump => {
                let by = i64::try_from(self.rng.below(7_200_000)).unwrap_or(0) - 3_600_000;
                if let Some(machine) = self.victim().and_then(|node| self.nodes.get(&node)) {
                    machine.clock.jump(by);
                }
            }
            Fault::FullDisk => self.damage(Damage { full: true, sync_fails: false }),
            Fault::FailedSync => self.damage(Damage { full: false, sync_fails: true }),
            Fault::LowDisk => {
                if let Some(node) = self.victim() {
                    if let Some(machine) = self.nodes.get(&node) {
                        machine.disk.set_free_bytes(Some(1 << 20));
                    }
                    self.order_repair(node);
                }
            }
            Fault::LostDisk => self.lose_somehow(),
            Fault::RottenSnapshot => {
                if let Some(machine) = self.victim().and_then(|node| self.nodes.get(&node)) {
                    machine.disk.rot_snapshot();
                }
            }
            Fault::Change => self.change(),
            Fault::Transfer => self.transfer(),
            Fault::Snapshot => {
                if let Some(node) = self.victim() {
                    self.within(node, |live| {
                        live.hand.replica.handle().snapshot_now(Box::new(|_| ()));
                        Ok(())
                    });
                }
            }
            Fault::WorkerDeath | Fault::WorkerPause => self.disturb_worker(fault == Fault::WorkerDeath),
            Fault::WorkerLeave => self.ask_to_leave(),
        }
    }

    /// One thread of a process gets no processor, or waits for its disk, while the others go on.
    fn stall(&mut self) {
        let Some(node) = self.victim() else { return };
        let threads = self.plan.stall_threads;
        let thread = usize::try_from(self.rng.below(threads as u64)).unwrap_or(0);
        let lasts = 50_000 + self.rng.around(self.plan.stall_ms * 1_000);
        self.note("stall", [node, thread as u64, lasts, 0]);
        if let Some(machine) = self.nodes.get_mut(&node) {
            machine.stalled_until_us[STALL_ORDER[thread]] = self.now_us + lasts;
        }
    }

    fn partition(&mut self) {
        let places = self.places();
        let cut = self.network.cut(&places);
        // Some links flap.
        let mean = if self.rng.chance(300) { 200_000 } else { self.plan.cut_ms * 1_000 };
        let lasts = self.rng.around(mean);
        self.note("cut", [cut >> 32, cut & 0xFFFF_FFFF, 0, 0]);
        self.after(10_000 + lasts, Event::Mend);
    }

    /// Now, or in the middle of one of the next steps.
    fn crash_somehow(&mut self, node: u64) {
        if self.rng.chance(self.plan.crash_inside) {
            let changes = self.rng.between(1, 12);
            if let Some(machine) = self.nodes.get(&node) {
                machine.disk.set_fuse(Some(changes));
            }
            return;
        }
        if self.rng.chance(400) {
            if let Some(live) = self.nodes.get_mut(&node).and_then(|machine| machine.live.as_mut()) {
                live.doomed = true;
            }
            return;
        }
        let crash = if self.rng.chance(self.plan.power) { Crash::Power } else { Crash::Process };
        self.crash(node, crash);
    }

    fn damage(&mut self, damage: Damage) {
        let Some(node) = self.victim() else { return };
        if let Some(machine) = self.nodes.get(&node) {
            machine.disk.set_damage(damage);
        }
        self.order_repair(node);
    }

    fn order_repair(&mut self, node: u64) {
        let delay = 100_000 + self.rng.around(3_000_000);
        self.after(delay, Event::Repair { node });
    }

    /// The disk has room again, and works.
    pub(super) fn repair(&mut self, node: u64) {
        self.note("repair", [node, 0, 0, 0]);
        if let Some(machine) = self.nodes.get(&node) {
            machine.disk.set_damage(Damage::default());
            machine.disk.set_free_bytes(None);
        }
    }

    /// A disk is lost, or its log damaged, if the group can bear it: no member is missing yet (a learner may be on its way to a vote), and there
    /// are three voters at least.
    fn lose_somehow(&mut self) {
        let Some(leader) = self.leader() else { return };
        let lost = |node: &u64| self.nodes.get(node).is_none_or(|machine| machine.gone || machine.suspect);
        let voters = &leader.conf.voters;
        if leader.conf.is_joint() || voters.len() < 3 || voters.iter().chain(&leader.conf.learners).any(lost) {
            return;
        }
        let Some(node) = self.victim() else { return };
        let kind = self.rng.below(3);
        self.crash(node, Crash::Process);
        let Some(machine) = self.nodes.get_mut(&node) else { return };
        machine.suspect = true;
        let damaged = match kind {
            0 => machine.disk.lose_log_tail(),
            1 => machine.disk.rot_log(),
            _ => false,
        };
        if !damaged {
            self.lose(node);
        }
    }
}
