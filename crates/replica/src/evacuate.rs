//! Copies that must not go with the replica that holds them: each committed artifact keeps its full redundancy among those that stay.

use std::sync::Arc;

use raftgrid_blob::placement;
use raftgrid_manifest::views;
use raftgrid_proto::v1::{AddReceipts, ArtifactRow, ArtifactState, Command, Command_oneof_kind, Outcome};
use slog::{info, Logger};

use crate::artifacts::{receipt, Artifacts};
use crate::polls::rows_failed;
use crate::ports::CallError;

/// Artifacts that one look takes down; the next look finds the rest.
const SHORT_OF_COPIES_MAX: usize = 1_024;

/// Makes the copies that would be missing.
pub(crate) struct Evacuation {
    /// The bytes.
    pub artifacts: Arc<Artifacts>,
    /// Log.
    pub logger: Logger,
}

impl Evacuation {
    /// Carries copies over to `staying` (voters after the change) until no committed artifact is short of any. Blocks for as long as that
    /// takes; what is done is done, another try goes on from there.
    pub(crate) fn run(&self, staying: &[u64]) -> Result<(), CallError> {
        let mut made = 0_usize;
        loop {
            let short = self.short_of_copies(staying)?;
            if short.is_empty() {
                if made > 0 {
                    info!(self.logger, "copies carried over"; "artifacts" => made);
                }
                return Ok(());
            }
            for row in &short {
                // One that was deleted meanwhile needs no copies.
                if self.carry_over(row, staying)? {
                    made += 1;
                }
            }
        }
    }

    /// Committed artifacts with fewer copies among `staying` than failures are survived there, plus one.
    fn short_of_copies(&self, staying: &[u64]) -> Result<Vec<ArtifactRow>, CallError> {
        let needed = placement::copies(staying.len());
        let (rows, _) = self.artifacts.views.view();
        let mut short = Vec::new();
        views::artifact_rows(rows.as_ref(), |row| {
            if row.state == ArtifactState::ARTIFACT_COMMITTED && holders(&row, staying).len() < needed {
                short.push(row);
            }
            short.len() < SHORT_OF_COPIES_MAX
        })
        .map_err(rows_failed)?;
        Ok(short)
    }

    /// Whether copies were recorded; false: the artifact is gone.
    fn carry_over(&self, row: &ArtifactRow, staying: &[u64]) -> Result<bool, CallError> {
        let id = row.artifact_id;
        let digest: [u8; 32] = row
            .digest
            .as_slice()
            .try_into()
            .map_err(|_| CallError::Internal(format!("artifact {id} has no SHA-256 in its row")))?;
        // Fetched from a holder if it is not here; verified either way.
        drop(self.artifacts.open(row)?);
        let mut have = holders(row, staying);
        let mut receipts = Vec::new();
        let mut last_error = None;
        for node in placement::candidates(self.artifacts.node, staying, id) {
            if have.len() >= placement::copies(staying.len()) {
                break;
            }
            if have.contains(&node) {
                continue;
            }
            match self.artifacts.copy_to(node, id, digest) {
                Ok(()) => {
                    have.push(node);
                    receipts.push(receipt(node, digest));
                }
                Err(error) => last_error = Some(error),
            }
        }
        if have.len() < placement::copies(staying.len()) {
            let cause = last_error.map_or_else(String::new, |error| format!(": {error}"));
            return Err(CallError::Precondition(format!(
                "artifact {id} would be left with {} of {} copies{cause}",
                have.len(),
                placement::copies(staying.len())
            )));
        }
        let mut add = AddReceipts::new();
        add.set_artifact_id(id);
        add.set_receipts(receipts.into());
        let mut command = Command::new();
        command.kind = Some(Command_oneof_kind::add_receipts(add));
        let reply = self.artifacts.proposals.propose_one(command)?;
        match reply.outcome {
            Outcome::OK | Outcome::EXISTING => Ok(true),
            // Deleted, or about to be.
            Outcome::NOT_FOUND | Outcome::PRECONDITION => Ok(false),
            _ => Err(CallError::Precondition(reply.message)),
        }
    }
}

fn holders(row: &ArtifactRow, among: &[u64]) -> Vec<u64> {
    let mut holders: Vec<u64> =
        row.receipts.iter().map(|receipt| receipt.node_id).filter(|node| among.contains(node)).collect();
    holders.sort_unstable();
    holders.dedup();
    holders
}
