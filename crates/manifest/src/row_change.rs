//! A change of a row, decoded: what control, watches and metrics fold.

use raftgrid_proto::v1::{ArtifactRow, ContributionRow, JobRow, MemberRow, MetaRow, NodeRow, RoundRow, TaskRow};

use crate::keys;
use crate::read::decode;
use crate::rows::{Change, RowsError, Table};

/// One row as a change left it. Tasks and jobs are never deleted.
#[derive(Clone, Debug, PartialEq)]
pub enum RowChange {
    /// Clock and counters.
    Meta(MetaRow),
    /// A task.
    Task(Box<TaskRow>),
    /// A node.
    Node(Box<NodeRow>),
    /// A node is gone.
    NodeGone {
        /// Which.
        node_id: String,
    },
    /// A job.
    Job(Box<JobRow>),
    /// A round of a job.
    Round {
        /// Of the job.
        job_sequence: u64,
        /// The round.
        row: Box<RoundRow>,
    },
    /// A row of the ledger.
    Contribution {
        /// Of the job.
        job_sequence: u64,
        /// The row.
        row: Box<ContributionRow>,
    },
    /// An artifact.
    Artifact(Box<ArtifactRow>),
    /// An artifact is gone, its bytes too.
    ArtifactGone {
        /// Which.
        artifact_id: u64,
    },
    /// A replica's addresses.
    Member(MemberRow),
    /// A replica is gone.
    MemberGone {
        /// Which.
        node_id: u64,
    },
    /// An index, a kept answer, a pruned row of the ledger, the digest: nothing that readers fold.
    Internal,
}

/// Decodes a change.
pub fn row_change(change: &Change) -> Result<RowChange, RowsError> {
    let (table, key) = (change.table, change.key.as_slice());
    let number = |at: usize| {
        let bytes = key.get(at..at + 8).and_then(keys::last_number);
        bytes.ok_or_else(|| RowsError(format!("a key of {table:?} is too short")))
    };
    Ok(match (table, &change.value) {
        (Table::Meta, Some(value)) => RowChange::Meta(decode(table, value)?),
        (Table::Task, Some(value)) => RowChange::Task(Box::new(decode(table, value)?)),
        (Table::Node, Some(value)) => RowChange::Node(Box::new(decode(table, value)?)),
        (Table::Node, None) => RowChange::NodeGone { node_id: String::from_utf8_lossy(key).into_owned() },
        (Table::Job, Some(value)) => RowChange::Job(Box::new(decode(table, value)?)),
        (Table::Round, Some(value)) => {
            RowChange::Round { job_sequence: number(0)?, row: Box::new(decode(table, value)?) }
        }
        (Table::Contribution, Some(value)) => {
            RowChange::Contribution { job_sequence: number(0)?, row: Box::new(decode(table, value)?) }
        }
        (Table::Artifact, Some(value)) => RowChange::Artifact(Box::new(decode(table, value)?)),
        (Table::Artifact, None) => RowChange::ArtifactGone { artifact_id: number(0)? },
        (Table::Member, Some(value)) => RowChange::Member(decode(table, value)?),
        (Table::Member, None) => RowChange::MemberGone { node_id: number(0)? },
        (Table::Meta | Table::Task | Table::Job | Table::Round | Table::Contribution, None)
        | (
            Table::TaskById
            | Table::TaskByStatus
            | Table::TaskByNode
            | Table::TaskByJob
            | Table::JobById
            | Table::ArtifactByName
            | Table::Request
            | Table::RequestByAge
            | Table::Queue
            | Table::TaskByQueue
            | Table::Digest
            | Table::Dependent
            | Table::OpenElement
            | Table::ArrayChunk
            | Table::Schedule
            | Table::Kv
            | Table::KvByJob
            | Table::KvCount
            | Table::RoundHistory
            | Table::Name
            | Table::Usage,
            _,
        ) => RowChange::Internal,
    })
}
