//! Where an artifact's bytes are: fragments or copies on this disk, or fetched from replicas that hold some. Here: which road it takes.
//! `copies` is that of plain copies; `spread` writes coded ones, `gather` reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use raftgrid_blob::coding::{Coding, Layout, CODE_PLAIN_COPIES};
use raftgrid_blob::{file_number, placement, BlobError, FragmentReader, FragmentStore, FragmentWriter};
use raftgrid_driver::RaftHandle;
use raftgrid_manifest::limits::PLACEMENT_MAX;
use raftgrid_manifest::{views, Code, NAMES_SINCE};
use raftgrid_proto::v1::{
    ArtifactRow, ArtifactState, BeginArtifact, Command, Command_oneof_kind, DeleteArtifact, Outcome, Receipt,
};
use slog::{warn, Logger};

use crate::budget::{self, BlobSettings};
use crate::clock::Clock;
use crate::damaged::Damaged;
use crate::gather::Gates;
use crate::limits::{HEDGE_AFTER_MS, HEDGE_BYTES_PER_MS, UPLOAD_BYTES_PER_MS, UPLOAD_EXPIRES_MS};
use crate::polls::rows_failed;
use crate::ports::{CallError, Peers};
use crate::proposals::Proposals;
use crate::silent::SilentPeers;
use crate::spread::Spread;
use crate::views::Views;

/// The machine version from which on artifacts may be coded.
pub(crate) const CODED_SINCE: u64 = 5;

/// The files of an artifact, wherever they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// Whose they are.
    pub artifact_id: u64,
    /// It rises when the artifact is coded anew, so that no file has another's name.
    pub generation: u32,
}

impl Files {
    /// Those that the row names.
    pub(crate) fn of(row: &ArtifactRow) -> Self {
        Self { artifact_id: row.artifact_id, generation: row.generation }
    }

    /// The number under which a fragment is kept and asked for.
    pub(crate) fn number(self, fragment: u32) -> u32 {
        file_number(self.generation, fragment)
    }
}

/// What BeginArtifact answered.
pub(crate) enum Begun {
    /// A new artifact, nothing of it is anywhere.
    New(u64),
    /// The name has this very content already.
    Committed(u64),
}

impl Begun {
    /// Of one that is committed: its commit needs no receipts any more.
    pub(crate) fn placed(&self, digest: [u8; 32], total_bytes: u64) -> Placed {
        let (Self::New(artifact_id) | Self::Committed(artifact_id)) = *self;
        Placed { artifact_id, digest, total_bytes, receipts: Vec::new() }
    }
}

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
    /// What was found to be damaged here.
    pub damaged: Damaged,
    /// One decodes, the others wait for it.
    pub gates: Gates,
    /// One at a time moves or codes anew what is committed.
    pub settling: Mutex<()>,
    /// How much may be begun, and how.
    pub settings: BlobSettings,
    /// Log.
    pub logger: Logger,
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
    /// Other bytes than the name's newest version's are its next one.
    pub versioned: bool,
    /// Older versions than so many go; 0: none.
    pub keep: u32,
    /// What the leader makes of what is there already: no budget stops a round, since only its commit lets go of what it was made of.
    pub unbudgeted: bool,
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
        // Nothing is wrong with the call: another replica's disk does what this one does not (`gridctl sim --seed 471`).
        BlobError::Io { .. } => CallError::Unavailable(error.to_string()),
        BlobError::Rotten { .. } => CallError::Internal(error.to_string()),
        BlobError::NotFound { .. } => CallError::NotFound(error.to_string()),
        BlobError::Refused(reason) => CallError::Invalid(reason),
    }
}

impl Artifacts {
    /// Begins an artifact and makes it durable: coded over the voters that live, or in copies here and on enough others, so that the failures
    /// which the group survives leave it readable. `written` is finished. Blocks.
    pub(crate) fn place(
        &self,
        description: &Description,
        written: FragmentWriter,
        digest: [u8; 32],
    ) -> Result<Placed, CallError> {
        let total_bytes = written.total_bytes();
        let conf = self.handle.status().conf.clone();
        let failures = placement::failures_survived(conf.voters.len());
        let (staying, version) = self.staying(&conf.voters)?;
        let spread = placement::candidates(self.node, &staying, salt(&digest));
        let left = self.check_budget(description, total_bytes, &spread)?;
        let mut broken = BTreeSet::new();
        let mut full: BTreeSet<u64> = BTreeSet::new();
        loop {
            let mut away = self.silent.silent(self.clock.monotonic_ms());
            away.append(&mut broken.clone());
            let mut candidates: Vec<u64> = spread.iter().copied().filter(|node| !full.contains(node)).collect();
            candidates.sort_by_key(|node| away.contains(node));
            let live = candidates.iter().filter(|node| !away.contains(node)).count().min(PLACEMENT_MAX);
            let coding = Coding::choose(live, failures, total_bytes);
            let copies = coding.is_copies() || version < CODED_SINCE || !self.settings.coded;
            let each = if copies { total_bytes } else { Layout::new(coding, total_bytes).fragment_bytes() };
            let before = full.len();
            full.extend(candidates.iter().filter(|node| left.get(*node).is_some_and(|left| *left < each)));
            if full.len() > before {
                let others = spread.len() - full.len();
                if others < placement::copies(conf.voters.len()) {
                    let why = format!("artifacts may take no {each} bytes more on replicas {full:?}, and {others} others are too few; delete some, or raise blob.bytes_max");
                    return Err(CallError::Exhausted(why));
                }
                continue;
            }
            if copies {
                return self.place_copies(
                    description,
                    written,
                    digest,
                    &candidates,
                    placement::copies(conf.voters.len()),
                );
            }
            let layout = Layout::new(coding, total_bytes);
            let placement = &candidates[..coding.fragments()];
            let begun = self.begin(description, total_bytes, digest, placement, coding)?;
            let Begun::New(artifact_id) = begun else { return Ok(begun.placed(digest, total_bytes)) };
            let whole = Arc::new(written.reader().map_err(blob_failed)?);
            match self.spread(&whole, layout, Files { artifact_id, generation: 0 }, &candidates[..live])? {
                Spread::Whole(receipts) => {
                    // It was just here: whoever reads it from this replica needs no fragment of others.
                    self.files.cache().keep(written, artifact_id).map_err(blob_failed)?;
                    return Ok(Placed { artifact_id, digest, total_bytes, receipts });
                }
                Spread::Broken(nodes) => {
                    // One of these less: a narrower code, and copies in the end. What was begun goes, or expires.
                    broken.extend(nodes);
                    self.abandon(artifact_id);
                }
            }
        }
    }

    /// Whether the principal may begin so many bytes; what each of `nodes` may get.
    fn check_budget(
        &self,
        description: &Description,
        total_bytes: u64,
        nodes: &[u64],
    ) -> Result<BTreeMap<u64, u64>, CallError> {
        let (rows, _) = self.views.view();
        if !description.unbudgeted {
            self.settings.check_principal(rows.as_ref(), &description.principal, total_bytes)?;
        }
        budget::left(rows.as_ref(), nodes)
    }

    /// The version that the state is at, as applied here.
    pub(crate) fn version(&self) -> u64 {
        self.proposals.versions.current()
    }

    /// The voters without those that are about to leave, whose copies would not count; and the version that the state is at.
    fn staying(&self, voters: &[u64]) -> Result<(Vec<u64>, u64), CallError> {
        let (rows, _) = self.views.view();
        let members = views::members(rows.as_ref()).map_err(rows_failed)?;
        let version = views::meta(rows.as_ref()).map_err(rows_failed)?.machine_version;
        let leaves = |node: &u64| members.iter().any(|member| member.node_id == *node && member.leaving);
        Ok((voters.iter().copied().filter(|node| !leaves(node)).collect(), version))
    }

    /// The voters that stay.
    pub(crate) fn voters_that_stay(&self) -> Result<Vec<u64>, CallError> {
        Ok(self.staying(&self.handle.status().conf.voters)?.0)
    }

    /// What was begun is not needed: its fragments may go at once. If this is lost, it expires.
    pub(crate) fn abandon(&self, artifact_id: u64) {
        let mut delete = DeleteArtifact::new();
        delete.set_artifact_id(artifact_id);
        let mut command = Command::new();
        command.kind = Some(Command_oneof_kind::delete_artifact(delete));
        let _ = self.proposals.propose_one(command);
    }

    pub(crate) fn begin(
        &self,
        description: &Description,
        total_bytes: u64,
        digest: [u8; 32],
        placement: &[u64],
        coding: Coding,
    ) -> Result<Begun, CallError> {
        let mut begin = BeginArtifact::new();
        begin.set_name(description.name.clone());
        begin.set_kind(description.kind.clone());
        begin.set_job_id(description.job_id.clone());
        begin.set_total_bytes(total_bytes);
        begin.set_digest(digest.to_vec());
        begin.set_placement(placement.to_vec());
        begin.set_code_id(coding.code_id());
        let (rows, _) = self.views.view();
        let cluster_time = views::meta(rows.as_ref()).map_err(rows_failed)?.cluster_time_ms;
        begin.set_expires_ms(expires_ms(cluster_time, self.clock.wall_ms(), total_bytes));
        begin.set_versioned(description.versioned);
        begin.set_keep(description.keep);
        if !description.unbudgeted && self.version() >= NAMES_SINCE {
            begin.set_principal_bytes_max(self.settings.principal_bytes_max);
        }
        let mut command = Command::new();
        command.set_principal(description.principal.clone());
        command.kind = Some(Command_oneof_kind::begin_artifact(begin));
        let reply = self.proposals.propose_one(command)?;
        match reply.outcome {
            Outcome::OK if reply.number != 0 => Ok(Begun::New(reply.number)),
            Outcome::EXISTING if reply.number != 0 => Ok(Begun::Committed(reply.number)),
            Outcome::EXHAUSTED => Err(CallError::Exhausted(reply.message)),
            _ => Err(CallError::Precondition(reply.message)),
        }
    }

    /// Opens a committed artifact, whole: from this disk, else fetched and kept. Blocks.
    pub(crate) fn open(&self, row: &ArtifactRow) -> Result<FragmentReader, CallError> {
        self.newest(row, &|row| match code_of(row)? {
            Some(coding) => self.decoded(row, coding),
            None => self.open_copy(row),
        })
    }

    /// Fetches a committed artifact anew and keeps it, in place of what may be here. Blocks.
    pub(crate) fn fetch(&self, row: &ArtifactRow) -> Result<FragmentReader, CallError> {
        self.newest(row, &|row| match code_of(row)? {
            Some(coding) => {
                self.files.cache().forget(row.artifact_id);
                self.decoded(row, coding)
            }
            None => self.fetch_copy(row),
        })
    }

    /// What was read by a row of a moment ago may have been coded anew since.
    fn newest<T>(
        &self,
        row: &ArtifactRow,
        read: &dyn Fn(&ArtifactRow) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        read(row).or_else(|error| match self.committed(row.artifact_id) {
            Ok(newer) if newer.generation != row.generation => read(&newer),
            _ => Err(error),
        })
    }

    /// Remembers whether the peer was silent.
    pub(crate) fn heard_of(
        &self,
        node: u64,
        artifact_id: u64,
        outcome: Result<(), CallError>,
    ) -> Result<(), CallError> {
        match &outcome {
            Ok(()) => self.silent.heard(node),
            Err(error) => {
                self.silent.note(node, self.clock.monotonic_ms());
                warn!(self.logger, "fragment not carried"; "peer" => node, "artifact" => artifact_id, "cause" => %error);
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
}

pub(crate) fn digest_of(row: &ArtifactRow) -> Result<[u8; 32], CallError> {
    let digest = row.digest.as_slice().try_into();
    digest.map_err(|_| CallError::Internal(format!("artifact {} has no SHA-256 in its row", row.artifact_id)))
}

/// The code of the row; None: plain copies.
pub(crate) fn code_of(row: &ArtifactRow) -> Result<Option<Coding>, CallError> {
    if row.code_id == CODE_PLAIN_COPIES {
        return Ok(None);
    }
    let fragments = Code::of(row.code_id).map_or(0, Code::fragments);
    let coding = Coding::from_code_id(row.code_id, fragments);
    coding.map(Some).map_err(|error| CallError::Internal(format!("artifact {}: {error}", row.artifact_id)))
}

/// What spreads artifacts over the replicas.
fn salt(digest: &[u8; 32]) -> u64 {
    u64::from_le_bytes([digest[0], digest[1], digest[2], digest[3], 0, 0, 0, 0])
}

/// When an upload that begins now is given up, in cluster time. The rows here may be behind, or have no time at all in a group that was founded
/// a moment ago; then the wall clock is nearer. An expiry that is too late only keeps leftovers longer, one that is too early ends the upload.
fn expires_ms(cluster_time_ms: u64, wall_ms: u64, total_bytes: u64) -> u64 {
    cluster_time_ms.max(wall_ms).saturating_add(UPLOAD_EXPIRES_MS + total_bytes / UPLOAD_BYTES_PER_MS)
}

/// How long a peer may be silent before the next one is tried beside it: the more bytes there are to sync, the longer.
pub(crate) fn patience(total_bytes: u64) -> Duration {
    Duration::from_millis(HEDGE_AFTER_MS + total_bytes / HEDGE_BYTES_PER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_on_a_replica_that_knows_no_time_yet_is_not_over_at_once() {
        let wall = 1_700_000_000_000;
        assert_eq!(expires_ms(0, wall, 100), wall + UPLOAD_EXPIRES_MS);
        assert!(expires_ms(0, wall, 4 << 30) >= wall + UPLOAD_EXPIRES_MS + 4_096_000, "at 1 MiB/s");
        assert_eq!(
            expires_ms(wall + 5, wall, 100),
            wall + 5 + UPLOAD_EXPIRES_MS,
            "the group's time counts where it is ahead"
        );
    }
}
