//! The end of all trouble: from now on everything must converge, in time.

use raftgrid_driver::{Role, Status};
use raftgrid_manifest::views;
use raftgrid_proto::v1::{JobPhase, TaskStatus};

use super::event::Event;
use super::World;
use crate::calls::Caller;
use crate::check::state::States;
use crate::check::tally::tally;
use crate::check::{taken, ticks, told};
use crate::disk::Damage;
use crate::limits::{HEAL_MORE_MS, HEAL_MS, HEAL_PER_TASK_MS};
use crate::linearizability::{Answer, Done, Kind, Op, Outcome, TaskEvent, Value};
use crate::node::{Live, SimNode};
use crate::tasks;

/// How often it is looked whether everything has converged.
const LOOK_US: u64 = 250_000;

impl World {
    pub(super) fn heal(&mut self) {
        self.note("heal", [0; 4]);
        self.healing = true;
        self.healed_us = self.now_us;
        self.converged_until_us = self.now_us + (HEAL_MS + self.plan.tasks * HEAL_PER_TASK_MS) * 1_000;
        self.network.heal();
        let now = self.now_us;
        for machine in self.nodes.values_mut() {
            machine.disk.set_damage(Damage::default());
            machine.disk.set_free_bytes(None);
            if !machine.disk.has_blown() {
                machine.disk.set_fuse(None);
            }
            machine.paused_until_us = machine.paused_until_us.min(now);
            machine.stalled_until_us = machine.stalled_until_us.map(|until| until.min(now));
        }
        let down: Vec<u64> =
            self.nodes.iter().filter(|(_, machine)| !machine.gone && machine.live.is_none()).map(|it| *it.0).collect();
        for node in down {
            self.after(1_000, Event::Start { node });
        }
        for client in &mut self.clients {
            client.finish();
        }
        for number in 0..self.workers.len() {
            self.workers[number].away_until_us = now;
            self.workers[number].hurry(now);
            self.order_wake(Caller::Worker(number), now);
        }
        self.after(LOOK_US, Event::Look);
    }

    /// Whether the plan wants more tasks than were made.
    pub(super) fn is_short_of_tasks(&self) -> bool {
        let made =
            |live: &Live| views::meta(live.hand.replica.view().rows.as_ref()).map_or(0, |it| it.next_task_sequence);
        let up = self.nodes.values().filter_map(|machine| machine.live.as_ref());
        up.map(made).max().unwrap_or(0) < self.plan.tasks
    }

    pub(super) fn look(&mut self) {
        if let Some(reading) = self.reading.take() {
            self.over = self.has_read(&reading);
            self.reading = Some(reading);
            return self.after(LOOK_US, Event::Look);
        }
        match self.unfinished() {
            None => {
                self.finish();
                self.reading = self.begin_reading();
                self.over = self.reading.is_none();
                self.after(LOOK_US, Event::Look);
            }
            Some(why) if self.now_us > self.converged_until_us && !self.has_more_time() => {
                let heal_ms = (self.now_us - self.healed_us) / 1_000;
                self.checks.violated(format!("not converged {heal_ms} ms after the last fault: {why}"));
                self.finish();
            }
            Some(_) => self.after(LOOK_US, Event::Look),
        }
    }

    /// A plan may have more work than its machines can do by then: as long as tasks end, there is more time. Clients make none any more.
    fn has_more_time(&mut self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let Some(live) = self.nodes.get(&leader.node).and_then(|machine| machine.live.as_ref()) else { return false };
        let view = live.hand.replica.view();
        let ended = |status| views::count_tasks(view.rows.as_ref(), status).unwrap_or(0);
        let ended = ended(TaskStatus::COMPLETED) + ended(TaskStatus::FAILED);
        let more = ended > self.ended_late;
        (self.ended_late, self.converged_until_us) = (ended, self.now_us + HEAL_MORE_MS * 1_000);
        more
    }

    /// What is still to come; None: everything has converged.
    fn unfinished(&self) -> Option<String> {
        let Some(leader) = self.leader() else { return Some(self.nobody_leads()) };
        if let Some(client) = self.clients.iter().position(|client| !client.is_done()) {
            return Some(format!("client {client} waits"));
        }
        if leader.conf.is_joint() || leader.applied != leader.last {
            return Some(format!("the leader {} stands at {} of {}", leader.node, leader.applied, leader.last));
        }
        let conf = &leader.conf;
        for node in conf.voters.iter().chain(&conf.learners) {
            if self.nodes.get(node).is_none_or(|machine| machine.gone) {
                continue;
            }
            let Some(status) = self.status(*node) else { return Some(format!("node {node} is down")) };
            if let Some(why) = behind(&leader, &status) {
                return Some(why);
            }
        }
        self.open_tasks(leader.node)
    }

    fn nobody_leads(&self) -> String {
        let one = |(node, machine): (&u64, &SimNode)| match self.status(*node) {
            Some(it) => {
                let (voters, outgoing) = (&it.conf.voters, &it.conf.voters_outgoing);
                format!("{node} in term {} at {} of {}, voters {voters:?} {outgoing:?}", it.term, it.applied, it.last)
            }
            None if machine.gone => format!("{node} is gone"),
            None => format!("{node} is down"),
        };
        format!("nobody leads: {}", self.nodes.iter().map(one).collect::<Vec<_>>().join("; "))
    }

    fn open_tasks(&self, node: u64) -> Option<String> {
        let view = self.nodes.get(&node)?.live.as_ref()?.hand.replica.view();
        for status in [TaskStatus::PENDING, TaskStatus::ASSIGNED, TaskStatus::RUNNING] {
            let mut open = None;
            let looked = views::task_rows(view.rows.as_ref(), status, |row| {
                open = Some(row.get_task().task_id.clone());
                false
            });
            if let Err(error) = looked {
                return Some(error.to_string());
            }
            if let Some(task) = open {
                let why = views::explain_task(view.rows.as_ref(), &task).ok().flatten();
                return Some(format!("{task} is {status:?}: {why:?}"));
            }
        }
        // Elements that were no task yet are in no list of tasks.
        let mut live = None;
        let looked = views::job_rows(view.rows.as_ref(), |row| {
            let job = row.get_job();
            let goes_on = matches!(job.phase, JobPhase::JOB_INIT | JobPhase::JOB_RUNNING | JobPhase::JOB_PAUSED);
            live = goes_on.then(|| format!("job {} is not over: {:?}, {job:?}", job.job_id, job.phase));
            live.is_none()
        });
        let late = || ticks::behind(view.rows.as_ref()).unwrap_or_else(|error| Some(error.to_string()));
        looked.err().map(|error| error.to_string()).or(live).or_else(late)
    }

    /// The last look of all judges.
    fn finish(&mut self) {
        self.over = true;
        self.note("finish", [0; 4]);
        let nodes: Vec<u64> = self.nodes.keys().copied().collect();
        for node in nodes {
            let Some(live) = self.nodes.get(&node).and_then(|machine| machine.live.as_ref()) else { continue };
            let view = live.hand.replica.view();
            let broken = States::invariants(node, view.rows.as_ref());
            broken.into_iter().for_each(|line| self.checks.violated(line));
        }
        self.read_everything();
        self.checks.judge_history();
    }

    /// What the leader has in the end counts as a read of every task that somebody ever made.
    fn read_everything(&mut self) {
        let Some(leader) = self.leader() else { return };
        let Some(live) = self.nodes.get(&leader.node).and_then(|machine| machine.live.as_ref()) else { return };
        let view = live.hand.replica.view();
        let rows = view.rows.as_ref();
        let judged =
            [told(taken::lost(&self.checks.taken, rows)), ticks::judge(rows), told(self.checks.training.judge(rows))];
        judged.into_iter().flatten().for_each(|line| self.checks.violated(line));
        match tally(rows) {
            Ok(counts) => counts.into_iter().for_each(|(what, count)| *self.counts.entry(what).or_default() += count),
            Err(error) => return self.checks.violated(error.to_string()),
        }
        let mut keys = self.keys.clone();
        keys.sort_unstable();
        keys.dedup();
        let (invoked, at) = (self.now_us + 1, self.now_us + 2);
        for key in keys {
            let row = match views::task_row(view.rows.as_ref(), &key) {
                Ok(row) => row,
                Err(error) => return self.checks.violated(error.to_string()),
            };
            let value = row.as_ref().and_then(|row| tasks::tag(row.get_task().get_task_data())).map(Value::of);
            let done = Done { at, answer: Answer::Found(value), position: Some(view.position), version: None };
            let outcome = Outcome::Done(done);
            let op = Op { client: u32::MAX, key: key.clone(), kind: Kind::Read, invoked, outcome };
            self.checks.history.ops.push(op);
            self.checks.lives.push(TaskEvent::Read { task: key, invoked, at, seen: row.as_ref().map(tasks::seen) });
        }
    }
}

fn behind(leader: &Status, status: &Status) -> Option<String> {
    let same = status.term == leader.term
        && status.leader == leader.node
        && status.last == leader.last
        && status.applied == leader.applied
        && status.conf == leader.conf
        && (status.role == Role::Leader) == (status.node == leader.node);
    (!same).then(|| {
        format!(
            "node {} is at {} of {} in term {}, the leader {} at {} in term {}",
            status.node, status.applied, status.last, status.term, leader.node, leader.applied, leader.term
        )
    })
}
