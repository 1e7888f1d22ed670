//! The state tables of all nodes: equal at equal index, whole by the invariants of the design, and never going back in time.

use std::collections::BTreeMap;

use raftgrid_driver::{Index, NodeId};
use raftgrid_manifest::{check_invariants, views, Rows, RowsError};
use raftgrid_proto::v1::TaskStatus;

/// What was seen of the tables.
#[derive(Debug, Default)]
pub struct States {
    digests: BTreeMap<Index, Vec<u8>>,
    times: BTreeMap<Index, u64>,
}

impl States {
    /// The tables of `node` at `applied`. Gives what cannot be.
    pub fn saw(&mut self, node: NodeId, applied: Index, rows: &dyn Rows) -> Result<(), String> {
        let digest = views::digest(rows).map_err(|error| error.to_string())?;
        let first = self.digests.entry(applied).or_insert_with(|| digest.clone());
        if *first != digest {
            return Err(format!("10: node {node} has another state at index {applied} than another node had"));
        }
        let time = views::meta(rows).map_err(|error| error.to_string())?.cluster_time_ms;
        self.times.entry(applied).or_insert(time);
        let before = self.times.range(..applied).next_back().map_or(0, |(_, time)| *time);
        if time < before {
            return Err(format!("12: cluster time fell from {before} to {time} at index {applied}"));
        }
        Ok(())
    }

    /// Everything that rows can tell.
    pub fn invariants(node: NodeId, rows: &dyn Rows) -> Vec<String> {
        let told = check_invariants(rows).and_then(|mut broken| {
            broken.extend(by_other_leases(rows)?);
            Ok(broken)
        });
        match told {
            Ok(broken) => broken.into_iter().map(|line| format!("node {node}: {line}")).collect(),
            Err(error) => vec![format!("node {node}: {error}")],
        }
    }
}

/// Tasks that were ended by the report of a lease that was not their last one.
fn by_other_leases(rows: &dyn Rows) -> Result<Vec<String>, RowsError> {
    let mut broken = Vec::new();
    views::task_rows(rows, TaskStatus::COMPLETED, |row| {
        let (task, epoch) = (row.get_task(), row.get_last_report().epoch);
        if epoch != task.lease_epoch {
            broken
                .push(format!("1: {} was ended by lease {epoch}, and had {} by then", task.task_id, task.lease_epoch));
        }
        true
    })?;
    Ok(broken)
}
