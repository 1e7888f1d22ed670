//! Nodes.

use raftgrid_proto::v1::{Node, NodeRow};

use crate::read;
use crate::rows::{Rows, RowsError, Table};

/// The node; None if it is not registered.
pub fn get_node(rows: &dyn Rows, node_id: &str) -> Result<Option<Node>, RowsError> {
    Ok(read::node(rows, node_id)?.map(|mut row| row.take_node()))
}

/// The node's whole row.
pub fn node_row(rows: &dyn Rows, node_id: &str) -> Result<Option<NodeRow>, RowsError> {
    read::node(rows, node_id)
}

/// All nodes, in order of their id.
pub fn get_nodes(rows: &dyn Rows) -> Result<Vec<Node>, RowsError> {
    Ok(node_rows(rows)?.into_iter().map(|mut row| row.take_node()).collect())
}

/// All rows of nodes, in order of their id.
pub fn node_rows(rows: &dyn Rows) -> Result<Vec<NodeRow>, RowsError> {
    let mut list = Vec::new();
    read::each(rows, Table::Node, &[], &[], |row| {
        list.push(row);
        true
    })?;
    Ok(list)
}
