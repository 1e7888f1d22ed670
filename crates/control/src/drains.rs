//! Nodes that drain: what runs on them is given back with grace, and a maintenance ends at its time. Proposes PreemptTask and SetMaintenance.
//!
//! A cordoned node keeps what it runs and gets nothing new. A draining one gets nothing new either, and its attempts are ordered to leave: SIGTERM,
//! the grace of a cancel, then the queue again, with no failure counted.

use raftgrid_proto::v1::{Command_oneof_kind, Eligibility, Phase, SetMaintenance};

use crate::limits::DRAINED_PER_STEP_MAX;
use crate::moment::Moment;
use crate::outbox::{Outbox, Subject};
use crate::scheduler::preempt;
use crate::types::Millis;

/// The machine version that knows these commands.
const SINCE: u64 = 3;

/// One step; the answer is when to look again.
pub(crate) fn step(moment: &Moment<'_>, outbox: &mut Outbox) -> Option<Millis> {
    let view = moment.view;
    if view.machine_version < SINCE {
        return None;
    }
    let mut wake: Option<Millis> = None;
    let mut left = DRAINED_PER_STEP_MAX;
    for node_id in &view.draining {
        let Some(row) = view.nodes.get(node_id) else { continue };
        let node = row.get_node();
        let until = node.maintenance_until_ms;
        if until != 0 && moment.cluster_ms() >= until {
            let subject = Subject::Node(node_id.clone());
            if outbox.free(&subject) {
                outbox.put(subject, end(node_id, until));
            }
            continue;
        }
        if until != 0 {
            let at = moment.local(until);
            wake = Some(wake.map_or(at, |wake| wake.min(at)));
        }
        if node.eligibility != Eligibility::DRAINING {
            continue;
        }
        for task in view.leases_of_node(node_id) {
            let Some(row) = view.tasks.get(&task) else { continue };
            let subject = Subject::Task(task);
            if row.get_task().phase == Phase::PHASE_STOPPING || !outbox.free(&subject) || left == 0 {
                continue;
            }
            left -= 1;
            outbox.put(subject, preempt(row, row.open_epoch, &format!("node {node_id} drains")));
        }
    }
    wake
}

fn end(node_id: &str, until_ms: u64) -> Command_oneof_kind {
    Command_oneof_kind::set_maintenance(SetMaintenance {
        node_id: node_id.to_owned(),
        until_ms,
        off: true,
        ..SetMaintenance::default()
    })
}
