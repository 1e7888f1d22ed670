//! Where an artifact's bytes are: copies on this disk, or fetched from a replica that holds one. The plain-copy road.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use raftgrid_blob::{placement, BlobError, FragmentReader, FragmentStore, FragmentWriter};
use raftgrid_driver::RaftHandle;
use raftgrid_manifest::views;
use raftgrid_proto::v1::{ArtifactRow, ArtifactState, BeginArtifact, Command, Command_oneof_kind, Outcome, Receipt};
use slog::{warn, Logger};

use crate::clock::Clock;
use crate::limits::{HEDGE_AFTER_MS, HEDGE_BYTES_PER_MS, SILENT_PEER_MS, UPLOAD_EXPIRES_MS};
use crate::mending::Mending;
use crate::polls::rows_failed;
use crate::ports::{Attempt, CallError, Download, Peers, Steps};
use crate::proposals::Proposals;
use crate::views::Views;

/// The only fragment of a plain copy.
pub(crate) const COPY: u32 = 0;

/// Bytes of one replica.
pub(crate) struct Artifacts {
    /// This replica.
    pub node: u64,
    /// Its files.
    pub files: FragmentStore,
    /// The others.
    pub peers: Arc<dyn Peers>,
    /// Configuration, for placement.
    pub handle: RaftHandle,
    /// Rows.
    pub views: Arc<dyn Views>,
    /// Writes.
    pub proposals: Arc<Proposals>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Peers that did not answer a moment ago.
    pub silent: SilentPeers,
    /// Log.
    pub logger: Logger,
}

/// Peers that did not take a copy a moment ago: they are asked last, so that a dead replica does not slow every upload down.
#[derive(Debug, Default)]
pub(crate) struct SilentPeers {
    since_ms: Mutex<BTreeMap<u64, u64>>,
}

impl SilentPeers {
    fn note(&self, node: u64, now_ms: u64) {
        self.lock().insert(node, now_ms);
    }

    fn heard(&self, node: u64) {
        self.lock().remove(&node);
    }

    /// Moves those that were silent within `SILENT_PEER_MS` behind the others.
    fn last(&self, candidates: &mut [u64], now_ms: u64) {
        let since = self.lock();
        candidates.sort_by_key(|node| since.get(node).is_some_and(|at| now_ms.saturating_sub(*at) < SILENT_PEER_MS));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.since_ms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an artifact is; see `BeginArtifact`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Description {
    /// Name or "".
    pub name: String,
    /// bundle, model, state, gradient, checkpoint, file.
    pub kind: String,
    /// Job that it belongs to, or "".
    pub job_id: String,
    /// Who made it.
    pub principal: String,
}

/// Durable copies of an artifact that was begun: what its commit carries.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    /// The artifact.
    pub artifact_id: u64,
    /// SHA-256.
    pub digest: [u8; 32],
    /// Size in bytes.
    pub total_bytes: u64,
    /// One a copy.
    pub receipts: Vec<Receipt>,
}

/// A blob error as an answer.
pub(crate) fn blob_failed(error: BlobError) -> CallError {
    match error {
        BlobError::Io { ref cause, .. } if cause.kind() == std::io::ErrorKind::StorageFull => {
            CallError::Exhausted(error.to_string())
        }
        BlobError::Io { .. } | BlobError::Rotten { .. } => CallError::Internal(error.to_string()),
        BlobError::NotFound { .. } => CallError::NotFound(error.to_string()),
        BlobError::Refused(reason) => CallError::Invalid(reason),
    }
}

impl Artifacts {
    /// Begins an artifact and makes its copies durable: here and on enough others that the failures which the group survives leave one.
    /// `written` is finished. Blocks.
    pub(crate) fn place(
        &self,
        description: &Description,
        written: FragmentWriter,
        digest: [u8; 32],
    ) -> Result<Placed, CallError> {
        let total_bytes = written.total_bytes();
        let conf = self.handle.status().conf.clone();
        let copies = placement::copies(conf.voters.len());
        let salt = u64::from_le_bytes([digest[0], digest[1], digest[2], digest[3], 0, 0, 0, 0]);
        let mut candidates = placement::candidates(self.node, &self.staying(&conf.voters)?, salt);
        self.silent.last(&mut candidates, self.clock.monotonic_ms());
        let artifact_id = self.begin(description, total_bytes, digest, &candidates, copies)?;
        self.files.keep(written, artifact_id, COPY).map_err(blob_failed)?;
        let mut holders: Vec<u64> = candidates.iter().copied().filter(|node| *node == self.node).take(copies).collect();
        let others: Vec<u64> = candidates.into_iter().filter(|node| *node != self.node).collect();
        let (files, peers) = (self.files.clone(), self.peers.clone());
        let attempt: Attempt = Arc::new(move |node, steps| {
            let copy = OnDisk(files.open_fragment(artifact_id, COPY).map_err(blob_failed)?);
            peers.put_fragment(node, artifact_id, COPY, digest, &mut Watched { copy, steps })
        });
        let mut last_error = None;
        let wanted = copies.saturating_sub(holders.len());
        for (node, outcome) in self.peers.first_of(&others, wanted, patience(total_bytes), attempt) {
            match self.heard_of(node, artifact_id, outcome) {
                Ok(()) => holders.push(node),
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

    /// The voters without those that are about to leave: their copies would not count.
    fn staying(&self, voters: &[u64]) -> Result<Vec<u64>, CallError> {
        let (rows, _) = self.views.view();
        let members = views::members(rows.as_ref()).map_err(rows_failed)?;
        let leaves = |node: &u64| members.iter().any(|member| member.node_id == *node && member.leaving);
        Ok(voters.iter().copied().filter(|node| !leaves(node)).collect())
    }

    /// Makes the copy here durable on `node`, too.
    pub(crate) fn copy_to(&self, node: u64, artifact_id: u64, digest: [u8; 32]) -> Result<(), CallError> {
        if node == self.node {
            return Ok(());
        }
        let mut copy = OnDisk(self.files.open_fragment(artifact_id, COPY).map_err(blob_failed)?);
        self.peers.put_fragment(node, artifact_id, COPY, digest, &mut copy)
    }

    fn begin(
        &self,
        description: &Description,
        total_bytes: u64,
        digest: [u8; 32],
        candidates: &[u64],
        copies: usize,
    ) -> Result<u64, CallError> {
        let mut begin = BeginArtifact::new();
        begin.set_name(description.name.clone());
        begin.set_kind(description.kind.clone());
        begin.set_job_id(description.job_id.clone());
        begin.set_total_bytes(total_bytes);
        begin.set_digest(digest.to_vec());
        begin.set_placement(candidates.iter().copied().take(copies).collect());
        let (rows, _) = self.views.view();
        let cluster_time = views::meta(rows.as_ref()).map_err(rows_failed)?.cluster_time_ms;
        begin.set_expires_ms(expires_ms(cluster_time, self.clock.wall_ms()));
        let mut command = Command::new();
        command.set_principal(description.principal.clone());
        command.kind = Some(Command_oneof_kind::begin_artifact(begin));
        let reply = self.proposals.propose_one(command)?;
        match reply.outcome {
            Outcome::OK | Outcome::EXISTING if reply.number != 0 => Ok(reply.number),
            _ => Err(CallError::Precondition(reply.message)),
        }
    }

    /// Opens a committed artifact: from this disk, else fetched from a holder and kept. Blocks.
    pub(crate) fn open(&self, row: &ArtifactRow) -> Result<FragmentReader, CallError> {
        let digest = digest_of(row)?;
        match self.files.open_fragment(row.artifact_id, COPY) {
            Ok(reader) if reader.digest() == digest => return Ok(reader),
            Ok(_) | Err(BlobError::NotFound { .. }) => {}
            Err(error) => {
                warn!(self.logger, "copy not readable, fetching another"; "artifact" => row.artifact_id, "cause" => %error);
            }
        }
        self.fetch(row)
    }

    /// Fetches a copy from a holder and keeps it, in place of the one that may be here. Blocks.
    pub(crate) fn fetch(&self, row: &ArtifactRow) -> Result<FragmentReader, CallError> {
        let digest = digest_of(row)?;
        let mut holders: Vec<u64> =
            row.receipts.iter().map(|receipt| receipt.node_id).filter(|node| *node != self.node).collect();
        self.silent.last(&mut holders, self.clock.monotonic_ms());
        let mut last_error = CallError::NotFound(format!("artifact {} has no other copy", row.artifact_id));
        let attempt = self.fetching(row.artifact_id, row.total_bytes, digest);
        for (node, outcome) in self.peers.first_of(&holders, 1, patience(row.total_bytes), attempt) {
            match self.heard_of(node, row.artifact_id, outcome) {
                Ok(()) => return self.files.open_fragment(row.artifact_id, COPY).map_err(blob_failed),
                Err(error) => last_error = error,
            }
        }
        Err(match last_error {
            CallError::Unavailable(_) => last_error,
            other => CallError::Unavailable(format!("no copy of artifact {} can be read: {other}", row.artifact_id)),
        })
    }

    /// Fetches a copy from one holder and keeps it here. Several at once do no harm: they keep the same bytes.
    fn fetching(&self, artifact_id: u64, total_bytes: u64, digest: [u8; 32]) -> Attempt {
        let (files, peers) = (self.files.clone(), self.peers.clone());
        Arc::new(move |holder, steps| {
            let mut writer = files.create().map_err(blob_failed)?;
            peers.get_fragment(holder, artifact_id, COPY, &mut |data| {
                steps.step()?;
                writer.write(data).map_err(blob_failed)
            })?;
            writer.finish(Some(total_bytes), Some(&digest)).map_err(blob_failed)?;
            files.keep(writer, artifact_id, COPY).map_err(blob_failed)
        })
    }

    /// Remembers whether the peer was silent.
    fn heard_of(&self, node: u64, artifact_id: u64, outcome: Result<(), CallError>) -> Result<(), CallError> {
        match &outcome {
            Ok(()) => self.silent.heard(node),
            Err(error) => {
                self.silent.note(node, self.clock.monotonic_ms());
                warn!(self.logger, "copy not carried"; "peer" => node, "artifact" => artifact_id, "cause" => %error);
            }
        }
        outcome
    }

    /// The row of a committed artifact.
    pub(crate) fn committed(&self, artifact_id: u64) -> Result<ArtifactRow, CallError> {
        let (rows, _) = self.views.view();
        match views::artifact_row(rows.as_ref(), artifact_id).map_err(rows_failed)? {
            Some(row) if row.state == ArtifactState::ARTIFACT_COMMITTED => Ok(row),
            _ => Err(CallError::NotFound(format!("artifact {artifact_id} does not exist"))),
        }
    }

    /// All bytes of a committed artifact, verified. Blocks.
    pub(crate) fn read(self: &Arc<Self>, artifact_id: u64) -> Result<Vec<u8>, CallError> {
        let mut download = Mending::new(self.clone(), self.committed(artifact_id)?)?;
        let length = usize::try_from(download.total_bytes())
            .map_err(|_| CallError::Invalid("the artifact does not fit into memory".to_owned()))?;
        let mut bytes = vec![0; length];
        let got = download.read_at(0, &mut bytes)?;
        if got == length {
            Ok(bytes)
        } else {
            Err(CallError::Internal(format!("artifact {artifact_id} ends at {got} instead of {length}")))
        }
    }

    /// A new artifact of bytes in memory, placed. Blocks.
    pub(crate) fn place_bytes(&self, description: &Description, bytes: &[u8]) -> Result<Placed, CallError> {
        let mut writer = self.files.create().map_err(blob_failed)?;
        writer.write(bytes).map_err(blob_failed)?;
        let digest = writer.finish(None, None).map_err(blob_failed)?;
        self.place(description, writer, digest)
    }
}

fn digest_of(row: &ArtifactRow) -> Result<[u8; 32], CallError> {
    let digest = row.digest.as_slice().try_into();
    digest.map_err(|_| CallError::Internal(format!("artifact {} has no SHA-256 in its row", row.artifact_id)))
}

pub(crate) fn receipt(node: u64, digest: [u8; 32]) -> Receipt {
    let mut receipt = Receipt::new();
    receipt.set_node_id(node);
    receipt.set_fragment(COPY);
    receipt.set_digest(digest.to_vec());
    receipt
}

/// When an upload that begins now is given up, in cluster time. The rows here may be behind, or have no time at all in a group that was founded
/// a moment ago; then the wall clock is nearer. An expiry that is too late only keeps leftovers longer, one that is too early ends the upload.
fn expires_ms(cluster_time_ms: u64, wall_ms: u64) -> u64 {
    cluster_time_ms.max(wall_ms).saturating_add(UPLOAD_EXPIRES_MS)
}

/// How long a peer may be silent before the next one is tried beside it: the more bytes there are to sync, the longer.
fn patience(total_bytes: u64) -> Duration {
    Duration::from_millis(HEDGE_AFTER_MS + total_bytes / HEDGE_BYTES_PER_MS)
}

/// A copy that notes each step of its reader.
struct Watched<'a> {
    copy: OnDisk,
    steps: &'a Steps,
}

impl Download for Watched<'_> {
    fn total_bytes(&self) -> u64 {
        self.copy.total_bytes()
    }

    fn digest(&self) -> [u8; 32] {
        self.copy.digest()
    }

    fn artifact_id(&self) -> u64 {
        self.copy.artifact_id()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, CallError> {
        self.steps.step()?;
        self.copy.read_at(offset, buffer)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_on_a_replica_that_knows_no_time_yet_is_not_over_at_once() {
        let wall = 1_700_000_000_000;
        assert_eq!(expires_ms(0, wall), wall + UPLOAD_EXPIRES_MS);
        assert_eq!(
            expires_ms(wall + 5, wall),
            wall + 5 + UPLOAD_EXPIRES_MS,
            "the group's time counts where it is ahead"
        );
    }

    #[test]
    fn a_peer_that_was_silent_a_moment_ago_is_asked_last_and_later_as_before() {
        let silent = SilentPeers::default();
        silent.note(2, 1_000);
        let mut candidates = [1, 2, 3];
        silent.last(&mut candidates, 1_000 + SILENT_PEER_MS - 1);
        assert_eq!(candidates, [1, 3, 2]);
        let mut candidates = [1, 2, 3];
        silent.last(&mut candidates, 1_000 + SILENT_PEER_MS);
        assert_eq!(candidates, [1, 2, 3]);
        silent.note(2, 5_000);
        silent.heard(2);
        silent.last(&mut candidates, 5_000);
        assert_eq!(candidates, [1, 2, 3]);
    }
}
