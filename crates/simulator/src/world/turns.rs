//! A node's loops: ordered when they have something to do, each after a wait for the processor that is drawn anew, so that any order that
//! threads could bring about comes about.

use std::panic::{catch_unwind, AssertUnwindSafe};

use raftgrid_driver::{Fatal, Role};

use super::event::{Event, Turn};
use super::World;
use crate::check::promise::durable_term;
use crate::hands::Work;
use crate::limits::{FLUSH_LOOK_MS, ROOM_LOOK_MS};
use crate::node::Live;

/// Begins a job that waits for others.
pub(super) fn begin(live: &mut Live, work: Work) {
    or_panic(live.jobs.begin(work));
}

/// A panic of a job is one of its process.
fn or_panic(outcome: Result<(), String>) {
    if let Err(cause) = outcome {
        panic!("{cause}");
    }
}

impl World {
    /// Orders the loops that run by the clock.
    pub(super) fn order_loops(&mut self, node: u64) {
        for turn in [Turn::Tick, Turn::Flushed, Turn::Room] {
            let first = self.rng.below(self.plan.tick_ms * 1_000);
            self.order_turn(node, first, turn);
        }
    }

    pub(super) fn order_turn(&mut self, node: u64, delay_us: u64, turn: Turn) {
        if let Some(machine) = self.nodes.get(&node) {
            let life = machine.life;
            self.after(delay_us, Event::Turn { node, life, turn });
        }
    }

    /// How long a thread waits for a processor.
    fn wait(&mut self) -> u64 {
        let wait = 1 + self.rng.around(self.plan.turn_us);
        if !self.healing && self.rng.chance(self.plan.stalls) {
            if self.rng.chance(250) {
                wait + self.rng.around(2_000_000)
            } else {
                wait * 100
            }
        } else {
            wait
        }
    }

    fn fsync(&mut self) -> u64 {
        let takes = 20 + self.rng.around(self.plan.fsync_us);
        if !self.healing && self.rng.chance(self.plan.slow_fsyncs) {
            takes * 100
        } else {
            takes
        }
    }

    /// Runs something of a node's process; a failure or a panic ends the process.
    pub(super) fn within(&mut self, node: u64, run: impl FnOnce(&mut Live) -> Result<(), Fatal>) {
        let Some(machine) = self.nodes.get_mut(&node) else { return };
        let Some(live) = machine.live.as_mut() else { return };
        let outcome = catch_unwind(AssertUnwindSafe(|| run(live)));
        let blown = machine.disk.has_blown();
        match outcome {
            Ok(Ok(())) if !blown => self.settle(node),
            Ok(Ok(())) => self.died(node, "the fuse"),
            Ok(Err(error)) => self.died(node, &error.to_string()),
            Err(_) => self.died(node, &crate::panics::last()),
        }
    }

    pub(super) fn turn(&mut self, node: u64, turn: Turn) {
        match turn {
            Turn::Tick => {
                let Some(machine) = self.nodes.get(&node) else { return };
                let tick = machine.clock.span_us(self.plan.tick_ms * 1_000).max(1);
                self.order_turn(node, tick, Turn::Tick);
                self.within(node, |live| {
                    live.hand.group.tick();
                    live.hand.group.turn()
                });
            }
            Turn::Raft => self.within(node, |live| {
                live.ordered.raft = false;
                live.hand.group.turn()
            }),
            Turn::Apply => self.within(node, |live| {
                live.ordered.apply = false;
                live.moved = true;
                live.hand.group.apply()
            }),
            Turn::SyncBegin => {
                let takes = self.fsync();
                let Some(machine) = self.nodes.get_mut(&node) else { return };
                let Some(live) = machine.live.as_mut() else { return };
                if live.hand.group.begin_sync() {
                    machine.disk.begin_log_sync();
                    let doomed = std::mem::take(&mut live.doomed);
                    self.order_turn(node, takes, Turn::SyncEnd);
                    if doomed {
                        // Somewhere around the end of the fsync.
                        let delay = self.rng.below(2 * takes);
                        self.order_turn(node, delay, Turn::PowerLoss);
                    }
                } else {
                    live.ordered.sync = false;
                }
            }
            Turn::PowerLoss => self.crash(node, crate::disk::Crash::Power),
            Turn::SyncEnd => self.within(node, |live| {
                live.ordered.sync = false;
                live.hand.group.end_sync()
            }),
            Turn::Leader => self.within(node, |live| {
                live.ordered.leader = false;
                live.hand.run_leader();
                Ok(())
            }),
            Turn::LeaderDue(at) => self.leader_due(node, at),
            Turn::Timer(at) => self.timer(node, at),
            Turn::Pool => {
                let first = usize::try_from(self.rng.below(8)).unwrap_or(0);
                self.within(node, |live| {
                    live.ordered.pool = false;
                    match live.hand.take_pool_job(first) {
                        Some(job) if job.blocks => begin(live, job.work),
                        Some(job) => (job.work)(),
                        None => {}
                    }
                    Ok(())
                });
            }
            Turn::Job(number, waits) => self.within(node, |live| {
                or_panic(live.jobs.step(number, waits));
                Ok(())
            }),
            Turn::Janitor => self.within(node, |live| {
                live.ordered.janitor = false;
                live.hand.run_janitor();
                Ok(())
            }),
            Turn::Flushed => {
                self.order_turn(node, FLUSH_LOOK_MS * 1_000, Turn::Flushed);
                if let Some(machine) = self.nodes.get(&node) {
                    machine.disk.background();
                }
                self.within(node, |live| {
                    // A busy apply side does not look.
                    if !live.hand.group.has_job() {
                        live.hand.group.look_at_flushed();
                    }
                    Ok(())
                });
            }
            Turn::Room => {
                self.order_turn(node, ROOM_LOOK_MS * 1_000, Turn::Room);
                self.within(node, |live| {
                    live.hand.look_at_room();
                    Ok(())
                });
            }
        }
    }

    fn leader_due(&mut self, node: u64, at: u64) {
        self.within(node, |live| {
            if live.ordered.leader_us == Some(at) {
                live.ordered.leader_us = None;
                live.hand.run_leader();
            }
            Ok(())
        });
    }

    fn timer(&mut self, node: u64, at: u64) {
        self.within(node, |live| {
            if live.ordered.timer_us == Some(at) {
                live.ordered.timer_us = None;
                live.hand.run_timer();
            }
            Ok(())
        });
    }

    /// After something ran on a node: what left it is carried away, what it has to do is ordered, what it is now is judged.
    pub(super) fn settle(&mut self, node: u64) {
        self.judge(node);
        self.carry(node);
        let mut due: Vec<Turn> = Vec::new();
        let now = self.now_us;
        let Some(machine) = self.nodes.get_mut(&node) else { return };
        let Some(live) = machine.live.as_mut() else { return };
        let ordered = &mut live.ordered;
        let mut want = |flag: &mut bool, wanted: bool, turn: Turn| {
            if wanted && !*flag {
                *flag = true;
                due.push(turn);
            }
        };
        want(&mut ordered.raft, live.hand.group.has_input(), Turn::Raft);
        want(&mut ordered.apply, live.hand.group.has_job(), Turn::Apply);
        want(&mut ordered.sync, live.hand.group.wants_sync(), Turn::SyncBegin);
        want(&mut ordered.leader, live.hand.leader_has_event(), Turn::Leader);
        want(&mut ordered.pool, live.hand.pool_jobs() > 0, Turn::Pool);
        want(&mut ordered.janitor, live.hand.janitor_is_woken(), Turn::Janitor);
        let mut at = Vec::new();
        let sooner = |ordered: &Option<u64>, at: u64| ordered.is_none_or(|ordered| at < ordered);
        if let Some(local) = live.hand.timer_due_ms() {
            let due_us = machine.clock.world_us(local).max(now + 1);
            if sooner(&ordered.timer_us, due_us) {
                ordered.timer_us = Some(due_us);
                at.push((due_us, Turn::Timer(due_us)));
            }
        }
        if let Some(local) = live.hand.leader_due_ms() {
            let due_us = machine.clock.world_us(local).max(now + 500);
            if sooner(&ordered.leader_us, due_us) {
                ordered.leader_us = Some(due_us);
                at.push((due_us, Turn::LeaderDue(due_us)));
            }
        }
        due.extend(live.jobs.take_due().into_iter().map(|(number, waits)| Turn::Job(number, waits)));
        for (number, waits, most) in live.jobs.take_waits() {
            let most_us = u64::try_from(most.as_micros()).unwrap_or(u64::MAX / 4);
            at.push((now + machine.clock.span_us(most_us), Turn::Job(number, waits)));
        }
        for turn in due {
            let wait = self.wait();
            self.order_turn(node, wait, turn);
        }
        for (due_us, turn) in at {
            self.order_turn(node, due_us - now, turn);
        }
    }

    /// What the judges want to see of a node after each of its turns.
    fn judge(&mut self, node: u64) {
        let Some(machine) = self.nodes.get_mut(&node) else { return };
        let Some(live) = machine.live.as_mut() else { return };
        let status = live.hand.replica.handle().status();
        let mut found = Vec::new();
        let last_term = raftgrid_driver::LogReader::term(&live.log, status.last).unwrap_or(0);
        let mark =
            [status.term, status.role as u64, status.leader, status.commit, status.first, status.last, last_term];
        if live.seen != mark {
            live.seen = mark;
            self.checks.saw_status(&status);
            let mut volatile = u64::MAX;
            if status.role == Role::Leader && durable_term(&machine.disk) < status.term {
                volatile = status.term;
                // It is looked at again after the next turn.
                live.seen[0] = 0;
            }
            found.extend(self.checks.logs.saw_log(node, &mut live.watch, &live.log, volatile).err());
            self.trace.note(
                self.now_us,
                "status",
                [node << 8 | status.role as u64, status.term, status.commit, status.last],
            );
        }
        if std::mem::take(&mut live.moved) {
            let view = live.hand.replica.view();
            let applied = view.position >> 16;
            found.extend(self.checks.logs.saw_applied(node, &mut live.watch, applied).err());
            found.extend(self.checks.states.saw(node, applied, view.rows.as_ref()).err());
            self.trace.note(self.now_us, "applied", [node, applied, 0, 0]);
        }
        found.into_iter().for_each(|violation| self.checks.violated(violation));
    }
}
