//! Fragments that peers bring: held against what the rows say before a byte is taken, and against the announced SHA-256 after the last one.
//!
//! A peer is believed no more than anybody else. What does not fit would take the place of what does, under the same name: readers would notice,
//! since the row has the SHA-256 of each fragment, but the artifact would have one fragment less.

use std::cmp::Ordering;
use std::sync::Arc;

use raftgrid_blob::coding::SHARD_ALIGN_BYTES;
use raftgrid_blob::{fragment_of, generation_of, FragmentStore, FragmentWriter};
use raftgrid_crashpoint::{reach, Point};
use raftgrid_manifest::{views, Rows};
use raftgrid_proto::v1::{ArtifactRow, ArtifactState};

use crate::artifacts::{blob_failed, code_of, digest_of, Artifacts};
use crate::copies::COPY;
use crate::gather::fragment_digest;
use crate::polls::rows_failed;
use crate::ports::{CallError, FragmentSink};
use crate::views::Views;

/// What a peer says that it brings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announced {
    /// Of this artifact.
    pub artifact_id: u64,
    /// Under this file number.
    pub number: u32,
    /// Bytes.
    pub total_bytes: u64,
    /// SHA-256 of them.
    pub digest: [u8; 32],
}

/// A fragment on its way in.
pub(crate) struct Arriving {
    files: FragmentStore,
    views: Arc<dyn Views>,
    writer: FragmentWriter,
    announced: Announced,
}

impl Arriving {
    /// Errors: `Invalid` and `Precondition` say what does not fit; a peer that says the same again is told the same.
    pub(crate) fn begin(artifacts: &Artifacts, announced: Announced) -> Result<Self, CallError> {
        let (rows, position) = artifacts.views.view();
        check(rows.as_ref(), position, &announced)?;
        let writer = artifacts.files.create_for(announced.total_bytes).map_err(blob_failed)?;
        Ok(Self { files: artifacts.files.clone(), views: artifacts.views.clone(), writer, announced })
    }
}

impl FragmentSink for Arriving {
    fn write(&mut self, data: &[u8]) -> Result<(), CallError> {
        self.writer.write(data).map_err(blob_failed)
    }

    fn finish(mut self: Box<Self>) -> Result<(), CallError> {
        let Announced { artifact_id, number, total_bytes, digest } = self.announced;
        self.writer.finish(Some(total_bytes), Some(&digest)).map_err(blob_failed)?;
        // It took its time, and the artifact may be another by now.
        let (rows, position) = self.views.view();
        check(rows.as_ref(), position, &self.announced)?;
        self.files.keep(self.writer, artifact_id, number).map_err(blob_failed)?;
        reach(Point::PeerFragmentKept);
        Ok(())
    }
}

/// Whether the rows have a place for it.
fn check(rows: &dyn Rows, position: u64, announced: &Announced) -> Result<(), CallError> {
    let id = announced.artifact_id;
    let Some(row) = views::artifact_row(rows, id).map_err(rows_failed)? else {
        if id < position {
            return Err(CallError::Precondition(format!("artifact {id} does not exist any more")));
        }
        // Begun, and not applied here yet: its commit counts receipts, and those who read know what it must be.
        return Ok(());
    };
    let (generation, newest) = (generation_of(announced.number), row.generation);
    match row.state {
        ArtifactState::ARTIFACT_DELETING => Err(CallError::Precondition(format!("artifact {id} is being deleted"))),
        ArtifactState::ARTIFACT_BEGUN | ArtifactState::ARTIFACT_COMMITTED => match generation.cmp(&newest) {
            Ordering::Equal => fits(&row, announced),
            // It is being coded anew; that it is committed may not be applied here yet.
            Ordering::Greater => fits_any_code(&row, announced),
            Ordering::Less => Err(CallError::Precondition(format!(
                "artifact {id} is at generation {newest}, the fragment is of generation {generation}"
            ))),
        },
    }
}

/// The place, the length and, as far as it is known, the SHA-256 that the row has for it.
fn fits(row: &ArtifactRow, announced: &Announced) -> Result<(), CallError> {
    let (id, fragment) = (row.artifact_id, fragment_of(announced.number));
    let (fragments, expected, digest) = match code_of(row)? {
        None => (COPY as usize + 1, row.total_bytes, Some(digest_of(row)?)),
        Some(coding) => {
            let committed = row.state == ArtifactState::ARTIFACT_COMMITTED && (fragment as usize) < coding.fragments();
            let digest = if committed { Some(fragment_digest(row, fragment)?) } else { None };
            (coding.fragments(), coding.fragment_bytes(row.total_bytes), digest)
        }
    };
    if fragment as usize >= fragments {
        return Err(CallError::Invalid(format!("artifact {id} has {fragments} fragments, and no number {fragment}")));
    }
    if announced.total_bytes != expected {
        let found = announced.total_bytes;
        return Err(CallError::Invalid(format!(
            "fragment {fragment} of artifact {id} has {expected} bytes, not {found}"
        )));
    }
    if digest.is_some_and(|digest| digest != announced.digest) {
        return Err(CallError::Invalid(format!("fragment {fragment} of artifact {id} has another SHA-256")));
    }
    Ok(())
}

/// Only the command will say which code it is: no fragment of any code is longer than a copy, but for the zeros at its end.
fn fits_any_code(row: &ArtifactRow, announced: &Announced) -> Result<(), CallError> {
    let most = row.total_bytes.next_multiple_of(SHARD_ALIGN_BYTES as u64);
    if announced.total_bytes > most {
        let (id, found) = (row.artifact_id, announced.total_bytes);
        return Err(CallError::Invalid(format!(
            "no fragment of artifact {id} has more than {most} bytes, this has {found}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
