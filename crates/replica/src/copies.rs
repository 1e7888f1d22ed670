//! Plain copies: every holder has the whole artifact. Small artifacts, those of older versions, and all as long as too few replicas live.

use std::sync::Arc;

use raftgrid_blob::coding::Coding;
use raftgrid_blob::{BlobError, FragmentReader, FragmentWriter};
use raftgrid_proto::v1::{ArtifactRow, Receipt};
use slog::warn;

use crate::artifacts::{blob_failed, digest_of, patience, Artifacts, Begun, Description, Files, Placed};
use crate::ports::{Attempt, CallError, Download, Steps};

/// The only fragment of plain copies.
pub(crate) const COPY: u32 = 0;

impl Artifacts {
    /// Begins an artifact and makes its copies durable: here and on enough others. `written` is finished. Blocks.
    pub(crate) fn place_copies(
        &self,
        description: &Description,
        written: FragmentWriter,
        digest: [u8; 32],
        candidates: &[u64],
        copies: usize,
    ) -> Result<Placed, CallError> {
        let total_bytes = written.total_bytes();
        let placement = &candidates[..copies.min(candidates.len())];
        let begun = self.begin(description, total_bytes, digest, placement, Coding::copies(copies - 1))?;
        let Begun::New(artifact_id) = begun else { return Ok(begun.placed(digest, total_bytes)) };
        self.files.keep(written, artifact_id, COPY).map_err(blob_failed)?;
        let mut holders: Vec<u64> = candidates.iter().copied().filter(|node| *node == self.node).take(copies).collect();
        let others: Vec<u64> = candidates.iter().copied().filter(|node| *node != self.node).collect();
        let (files, peers) = (self.files.clone(), self.peers.clone());
        let attempt: Attempt = Arc::new(move |node, steps| {
            let copy = OnDisk(files.open_fragment(artifact_id, COPY).map_err(blob_failed)?);
            peers.put_fragment(node, artifact_id, COPY, digest, &mut Watched { data: copy, steps })
        });
        let mut last_error = None;
        let wanted = copies.saturating_sub(holders.len());
        for (node, outcome) in self.peers.first_of(&others, wanted, patience(total_bytes), attempt) {
            match self.heard_of(node, artifact_id, outcome) {
                Ok(()) => holders.push(node),
                Err(_) if raftgrid_driver::mutant::on("receipt_of_silence") => holders.push(node),
                Err(error) => last_error = Some(error),
            }
        }
        if holders.len() < copies {
            let cause = last_error.map_or_else(String::new, |error| format!(": {error}"));
            return Err(CallError::Unavailable(format!(
                "only {} of {copies} copies could be made durable{cause}",
                holders.len()
            )));
        }
        let receipts = holders.into_iter().map(|node| receipt(node, digest)).collect();
        Ok(Placed { artifact_id, digest, total_bytes, receipts })
    }

    /// Makes the copy here durable on `node`, too.
    pub(crate) fn copy_to(&self, node: u64, files: Files, digest: [u8; 32]) -> Result<(), CallError> {
        if node == self.node {
            return Ok(());
        }
        let mut copy = OnDisk(self.files.open_fragment(files.artifact_id, files.number(COPY)).map_err(blob_failed)?);
        self.peers.put_fragment(node, files.artifact_id, files.number(COPY), digest, &mut copy)
    }

    /// The copy here, else one that is fetched. Blocks.
    pub(crate) fn open_copy(&self, row: &ArtifactRow) -> Result<FragmentReader, CallError> {
        let digest = digest_of(row)?;
        match self.files.open_fragment(row.artifact_id, Files::of(row).number(COPY)) {
            Ok(reader) if reader.digest() == digest => return Ok(reader),
            Ok(_) | Err(BlobError::NotFound { .. }) => {}
            Err(error) => {
                warn!(self.logger, "copy not readable, fetching another"; "artifact" => row.artifact_id, "cause" => %error);
            }
        }
        self.fetch_copy(row)
    }

    /// Fetches a copy from a holder and keeps it, in place of the one that may be here. Blocks.
    pub(crate) fn fetch_copy(&self, row: &ArtifactRow) -> Result<FragmentReader, CallError> {
        let mut holders: Vec<u64> =
            row.receipts.iter().map(|receipt| receipt.node_id).filter(|node| *node != self.node).collect();
        self.silent.last(&mut holders, self.clock.monotonic_ms());
        let mut last_error = CallError::NotFound(format!("artifact {} has no other copy", row.artifact_id));
        let attempt = self.fetching(Files::of(row), row.total_bytes, digest_of(row)?);
        for (node, outcome) in self.peers.first_of(&holders, 1, patience(row.total_bytes), attempt) {
            match self.heard_of(node, row.artifact_id, outcome) {
                Ok(()) => {
                    let copy = self.files.open_fragment(row.artifact_id, Files::of(row).number(COPY));
                    return copy.map_err(blob_failed);
                }
                Err(error) => last_error = error,
            }
        }
        Err(match last_error {
            CallError::Unavailable(_) => last_error,
            other => CallError::Unavailable(format!("no copy of artifact {} can be read: {other}", row.artifact_id)),
        })
    }

    /// Fetches a copy from one holder and keeps it here. Several at once do no harm: they keep the same bytes.
    fn fetching(&self, from: Files, total_bytes: u64, digest: [u8; 32]) -> Attempt {
        let (files, peers) = (self.files.clone(), self.peers.clone());
        let (artifact_id, number) = (from.artifact_id, from.number(COPY));
        Arc::new(move |holder, steps| {
            let mut writer = files.create_for(total_bytes).map_err(blob_failed)?;
            peers.get_fragment(holder, artifact_id, number, &mut |data| {
                steps.step()?;
                writer.write(data).map_err(blob_failed)
            })?;
            writer.finish(Some(total_bytes), Some(&digest)).map_err(blob_failed)?;
            files.keep(writer, artifact_id, number).map_err(blob_failed)
        })
    }
}

/// A plain copy's.
pub(crate) fn receipt(node: u64, digest: [u8; 32]) -> Receipt {
    let mut receipt = Receipt::new();
    receipt.set_node_id(node);
    receipt.set_fragment(COPY);
    receipt.set_digest(digest.to_vec());
    receipt
}

/// A download that notes each step of its reader.
pub(crate) struct Watched<'a, D> {
    /// The bytes.
    pub data: D,
    /// Noted here.
    pub steps: &'a Steps,
}

impl<D: Download> Download for Watched<'_, D> {
    fn total_bytes(&self) -> u64 {
        self.data.total_bytes()
    }

    fn digest(&self) -> [u8; 32] {
        self.data.digest()
    }

    fn artifact_id(&self) -> u64 {
        self.data.artifact_id()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, CallError> {
        self.steps.step()?;
        self.data.read_at(offset, buffer)
    }
}

/// A fragment on this disk as a peer reads it. That it is damaged here is noted; the peer reads another's meanwhile.
pub(crate) struct Served {
    reader: FragmentReader,
    artifacts: Arc<Artifacts>,
}

impl Served {
    /// Opens the file of this number.
    pub(crate) fn open(artifacts: &Arc<Artifacts>, artifact_id: u64, number: u32) -> Result<Self, CallError> {
        let opened = artifacts.files.open_fragment(artifact_id, number);
        let reader = opened.map_err(|error| blob_failed(artifacts.damaged.heard(error)))?;
        Ok(Self { reader, artifacts: artifacts.clone() })
    }
}

impl Download for Served {
    fn total_bytes(&self) -> u64 {
        self.reader.total_bytes()
    }

    fn digest(&self) -> [u8; 32] {
        self.reader.digest()
    }

    fn artifact_id(&self) -> u64 {
        self.reader.artifact_id()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, CallError> {
        let read = self.reader.read_at(offset, buffer);
        read.map_err(|error| blob_failed(self.artifacts.damaged.heard(error)))
    }
}

/// A fragment on this disk as a download.
pub(crate) struct OnDisk(pub FragmentReader);

impl Download for OnDisk {
    fn total_bytes(&self) -> u64 {
        self.0.total_bytes()
    }

    fn digest(&self) -> [u8; 32] {
        self.0.digest()
    }

    fn artifact_id(&self) -> u64 {
        self.0.artifact_id()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, CallError> {
        self.0.read_at(offset, buffer).map_err(blob_failed)
    }
}
