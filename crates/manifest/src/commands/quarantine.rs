//! Nodes whose contributions to a job are refused where another node's pass: theirs is a fault of the node, not of the job. They are counted for
//! each job by itself, so a job that diverges everywhere stops itself and makes no node look bad.

use raftgrid_proto::v1::{ContributionRow, JobRow, NodeRefusals};

use crate::limits::{QUARANTINED_NODES_MAX, QUARANTINE_REFUSALS};
use crate::machine::Machine;

/// The machine version from which on nodes are quarantined.
const SINCE: u64 = 6;
const REJECTED: &str = "REJECTED";

/// A contribution passed that was refused from other nodes before.
pub(crate) fn note_passed(machine: &Machine<'_>, job_row: &mut JobRow, passed: &ContributionRow) {
    if machine.meta.machine_version < SINCE {
        return;
    }
    let others = passed.refused.iter().filter(|one| one.outcome == REJECTED && one.node_id != passed.node_id);
    others.for_each(|one| count(job_row, &one.node_id));
}

/// A contribution of `node_id` was refused, for the first time for this (round, shard); another node's may have passed before.
pub(crate) fn note_refused(machine: &Machine<'_>, job_row: &mut JobRow, row: &ContributionRow, node_id: &str) {
    let passed = !row.digest.is_empty() && row.node_id != node_id;
    if machine.meta.machine_version >= SINCE && passed {
        count(job_row, node_id);
    }
}

fn count(job_row: &mut JobRow, node_id: &str) {
    let at = job_row.refusals.iter().position(|known| known.node_id == node_id);
    let at = match at {
        Some(at) => at,
        // A job with that many bad nodes has another problem.
        None if job_row.refusals.len() >= QUARANTINED_NODES_MAX => return,
        None => {
            job_row.refusals.push(NodeRefusals { node_id: node_id.to_owned(), ..NodeRefusals::default() });
            job_row.refusals.len() - 1
        }
    };
    let known = &mut job_row.refusals[at];
    known.refusals = known.refusals.saturating_add(1);
    if known.refusals == QUARANTINE_REFUSALS {
        job_row.mut_job().quarantined_nodes.push(node_id.to_owned());
    }
}
