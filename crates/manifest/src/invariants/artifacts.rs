//! Of artifacts: what is claimed of a coded one is true by its receipts.

use std::collections::BTreeSet;

use raftgrid_proto::v1::{ArtifactRow, ArtifactState};

use crate::coding::Code;
use crate::read;
use crate::rows::{Rows, RowsError, Table};

/// 13, as far as rows tell it: each fragment of a committed coded artifact has a holder, and no replica is counted for two of them.
pub(super) fn check_fragments(rows: &dyn Rows, broken: &mut Vec<String>) -> Result<(), RowsError> {
    read::each(rows, Table::Artifact, &[], &[], |row: ArtifactRow| {
        if let (ArtifactState::ARTIFACT_COMMITTED, Some(code)) = (row.state, Code::of(row.code_id)) {
            let nodes: BTreeSet<u64> = row.receipts.iter().map(|receipt| receipt.node_id).collect();
            let fragments: BTreeSet<u32> = row.receipts.iter().map(|receipt| receipt.fragment).collect();
            if fragments.len() != code.fragments() || nodes.len() != row.receipts.len() {
                broken.push(format!("13: artifact {} has receipts {:?}", row.artifact_id, row.receipts));
            }
        }
        true
    })
}
