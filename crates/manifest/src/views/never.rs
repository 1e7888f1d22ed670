//! Whether any node could ever run a task, and a gang: for `fail_fast` and for explanations.

use raftgrid_proto::v1::{NodeRow, Task};

use crate::limits::EXPLAINED_NODES_MAX;
use crate::predicates::{capable_of, ever};
use crate::read;
use crate::rows::{Rows, RowsError, Table};

/// Why no registered node could ever run `members` tasks like this at once: one line for each node, at most as many as an explanation names.
/// None: they could.
pub fn never(rows: &dyn Rows, task: &Task, members: u64) -> Result<Option<Vec<String>>, RowsError> {
    let mut room = 0_u64;
    let mut why = Vec::new();
    read::each(rows, Table::Node, &[], &[], |row: NodeRow| {
        let node = row.get_node();
        match ever(task, node) {
            Ok(()) => {
                let many = capable_of(task, node);
                room = room.saturating_add(many);
                if many < members && why.len() < EXPLAINED_NODES_MAX {
                    why.push(format!(
                        "node {}: has room for {many} of {members} members when it is empty",
                        node.node_id
                    ));
                }
            }
            Err(unfit) if why.len() < EXPLAINED_NODES_MAX => why.push(format!("node {}: {unfit}", node.node_id)),
            Err(_) => {}
        }
        room < members
    })?;
    Ok((room < members).then_some(why))
}
