//! Workers of the load: they hold leases and report, honestly late, twice, differently, or not at all. No process runs; what is tried is
//! what the control plane makes of reports.

use std::collections::BTreeMap;
use std::time::Duration;

use raftgrid_client::ClientError;
use raftgrid_proto::v1::*;
use raftgrid_rpc::methods::{HEARTBEAT, POLL_TASK, REPORT_TASK_RESULT};
use raftgrid_simulator::linearizability::{ReportAnswer, TaskEvent};

use crate::calls::{Caller, Told};
use crate::limits::READ_TIMEOUT;
use crate::load::{read_life, rest, Shared};

/// Slots of a worker.
const SLOTS: u32 = 8;
/// A stall beyond the lease of the preset `local`: its tasks are given to others meanwhile.
const STALL_MS: u64 = 7_000;

struct Worker<'a> {
    all: &'a Shared,
    caller: Caller,
    name: String,
    nonce: u64,
    incarnation: u64,
    /// Task → lease.
    held: BTreeMap<String, u64>,
    /// Reports that may be sent once more, later.
    old: Vec<(String, u64)>,
}

/// Works until the load ends.
pub fn run(all: &Shared, caller: Caller, number: u64) {
    let name = format!("chaos-worker-{number}");
    let mut worker =
        Worker { all, caller, name, nonce: number + 1, incarnation: 0, held: BTreeMap::new(), old: Vec::new() };
    while !all.stopping() {
        worker.beat();
        worker.poll();
        worker.report_some();
        match worker.caller.chance.below(200) {
            // It falls silent: leases expire, and its reports come too late.
            0 => rest(all, STALL_MS),
            // It starts anew: a new nonce ends all leases of the old incarnation.
            1 => {
                worker.nonce += 1_000;
                worker.incarnation = 0;
                worker.old.extend(std::mem::take(&mut worker.held));
            }
            _ => rest(all, 40),
        }
    }
}

impl Worker<'_> {
    fn beat(&mut self) {
        let mut request = HeartbeatRequest::new();
        request.set_node_id(self.name.clone());
        request.set_boot_nonce(self.nonce);
        request.set_generation(self.nonce);
        request.set_incarnation(self.incarnation);
        for (task, epoch) in &self.held {
            let mut lease = Lease::new();
            lease.set_task_id(task.clone());
            lease.set_epoch(*epoch);
            request.mut_held().push(lease);
        }
        if self.incarnation == 0 {
            let mut node = Node::new();
            node.set_node_id(self.name.clone());
            node.mut_capacity().set_slots(SLOTS);
            request.set_node(node);
        }
        let Ok(response) = self.caller.once(&HEARTBEAT, &request, READ_TIMEOUT) else { return };
        if response.incarnation != 0 {
            self.incarnation = response.incarnation;
        }
        for lease in response.get_revoked() {
            self.held.remove(&lease.task_id);
            // What was taken away is reported all the same, sometimes: it must not count.
            if self.caller.chance.one_in(2) {
                self.old.push((lease.task_id.clone(), lease.epoch));
            }
        }
    }

    fn poll(&mut self) {
        if self.incarnation == 0 {
            return;
        }
        let mut request = PollTaskRequest::new();
        request.set_node_id(self.name.clone());
        request.set_incarnation(self.incarnation);
        request.set_max_tasks(SLOTS);
        request.set_wait_ms(20);
        let Ok(response) = self.caller.once(&POLL_TASK, &request, READ_TIMEOUT) else { return };
        for task in response.get_tasks() {
            self.held.insert(task.task_id.clone(), task.lease_epoch);
        }
    }

    fn report_some(&mut self) {
        let ready: Vec<(String, u64)> = self.held.iter().map(|(task, epoch)| (task.clone(), *epoch)).collect();
        for (task, epoch) in ready {
            if self.all.stopping() {
                return;
            }
            match self.caller.chance.below(8) {
                0 => {}
                1 => self.report(&task, epoch, false),
                _ => self.report(&task, epoch, true),
            }
        }
        if self.old.len() > 64 {
            self.old.drain(..32);
        }
        if !self.old.is_empty() && self.caller.chance.one_in(3) {
            let (task, epoch) = self.caller.chance.pick(&self.old).clone();
            let completed = self.caller.chance.one_in(2);
            self.report(&task, epoch, completed);
            read_life(self.all, &mut self.caller, &task);
        }
    }

    fn report(&mut self, task: &str, epoch: u64, completed: bool) {
        // Another draw says another result: two of one lease must not both count.
        let result = format!(r#"{{"draw":{}}}"#, self.caller.chance.below(2));
        let mut request = ReportTaskResultRequest::new();
        request.set_task_id(task.to_owned());
        request.set_lease_epoch(epoch);
        request.set_final_status(if completed { TaskStatus::COMPLETED } else { TaskStatus::FAILED });
        request.set_exit_code(i32::from(!completed));
        request.set_result_data(result.clone());
        let invoked = self.all.record.now();
        let answer = match self.caller.write(&REPORT_TASK_RESULT, &request) {
            Told::Done(response) => match response.outcome {
                ReportOutcome::REPORT_ACCEPTED => ReportAnswer::Accepted,
                ReportOutcome::REPORT_DUPLICATE => ReportAnswer::Repeated,
                ReportOutcome::REPORT_STALE_LEASE => ReportAnswer::Stale,
            },
            Told::Refused(ClientError::StaleLease(_)) => ReportAnswer::Stale,
            Told::Refused(error) => {
                self.all.record.alarm(format!("a report of {task} was refused: {error}"));
                return;
            }
            Told::Unknown => return,
        };
        let at = self.all.record.now();
        if answer == ReportAnswer::Accepted {
            self.all.record.ack(invoked);
        }
        self.held.remove(task);
        self.old.push((task.to_owned(), epoch));
        let task = task.to_owned();
        self.all.record.life(TaskEvent::Reported { task, epoch, completed, result, at, answer });
        std::thread::sleep(Duration::from_millis(1));
    }
}
