//! What keeps its redundancy: copies and fragments of committed artifacts are brought to replicas that stay, in a code that survives as many
//! failures as the group does. Called before a replica leaves, and by the leader's mender now and then.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use raftgrid_blob::coding::{Coding, Layout};
use raftgrid_blob::placement;
use raftgrid_manifest::limits::{GENERATION_MAX, PLACEMENT_MAX};
use raftgrid_manifest::views;
use raftgrid_proto::v1::{
    AddReceipts, ArtifactRow, ArtifactState, Command, Command_oneof_kind, Outcome, Receipt, RecodeArtifact,
};
use slog::{info, Logger};

use crate::artifacts::{blob_failed, code_of, digest_of, Artifacts, Files};
use crate::copies::{receipt, OnDisk};
use crate::gather::fragment_digest;
use crate::polls::rows_failed;
use crate::ports::CallError;
use crate::spread::{fragment_receipt, Spread};

/// Artifacts that one look takes down; the next look finds the rest.
const SHORT_MAX: usize = 1_024;
/// A generation is the leader's term and, within it, a number of so many bits: no two leaders ever write files of one name.
const GENERATIONS_A_TERM_BITS: u32 = 6;

/// What an artifact is short of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    /// Plain copies.
    Copies,
    /// These fragments have no holder among those that stay, and there are replicas that hold none.
    Fragments(Vec<u32>),
    /// Its code does not fit those that stay: this one would, if all of them live.
    Code(Coding),
}

/// Makes what would be missing.
pub(crate) struct Evacuation {
    /// The bytes.
    pub artifacts: Arc<Artifacts>,
    /// Log.
    pub logger: Logger,
}

impl Evacuation {
    /// Carries bytes over to `staying` (voters after the change) until no committed artifact is short of anything. Blocks for as long as that
    /// takes; what is done is done, another try goes on from there.
    pub(crate) fn run(&self, staying: &[u64]) -> Result<(), CallError> {
        let mut made = 0_usize;
        loop {
            let short = self.short(staying)?;
            if short.is_empty() {
                if made > 0 {
                    info!(self.logger, "redundancy carried over"; "artifacts" => made);
                }
                return Ok(());
            }
            for artifact_id in short {
                // One that was deleted meanwhile needs nothing.
                if self.settle(artifact_id, staying)? {
                    made += 1;
                }
            }
        }
    }

    /// Committed artifacts that are short of something among `staying`.
    fn short(&self, staying: &[u64]) -> Result<Vec<u64>, CallError> {
        let (rows, _) = self.artifacts.views.view();
        let mut found = Vec::new();
        let mut failed = None;
        views::artifact_rows(rows.as_ref(), |row| {
            match short_of(&row, staying) {
                Ok(Some(_)) => found.push(row.artifact_id),
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
            found.len() < SHORT_MAX && failed.is_none()
        })
        .map_err(rows_failed)?;
        failed.map_or(Ok(found), Err)
    }

    /// Gives an artifact what it is short of. Whether something was recorded; false: there is nothing to do, or it is gone.
    pub(crate) fn settle(&self, artifact_id: u64, staying: &[u64]) -> Result<bool, CallError> {
        let _one = self.artifacts.settling.lock().unwrap_or_else(PoisonError::into_inner);
        let row = match self.artifacts.committed(artifact_id) {
            Ok(row) => row,
            Err(CallError::NotFound(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        match short_of(&row, staying)? {
            None => Ok(false),
            Some(Short::Copies) => self.carry_over(&row, staying),
            Some(Short::Fragments(missing)) => self.give_fragments(&row, &missing, staying),
            Some(Short::Code(_)) => self.recode(&row, staying),
        }
    }

    fn carry_over(&self, row: &ArtifactRow, staying: &[u64]) -> Result<bool, CallError> {
        let (id, digest) = (row.artifact_id, digest_of(row)?);
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
            match self.artifacts.copy_to(node, Files::of(row), digest) {
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
        self.add(id, receipts)
    }

    /// Each missing fragment is made anew and given to a replica that has none.
    fn give_fragments(&self, row: &ArtifactRow, missing: &[u32], staying: &[u64]) -> Result<bool, CallError> {
        let id = row.artifact_id;
        let Some(coding) = code_of(row)? else { return Ok(false) };
        let have = holders(row, staying);
        let mut free = placement::candidates(self.artifacts.node, staying, id);
        free.retain(|node| !have.contains(node));
        let mut receipts = Vec::new();
        for fragment in missing {
            let digest = fragment_digest(row, *fragment)?;
            let mut made = Some(self.artifacts.remade(row, coding, *fragment)?);
            let bytes = coding.fragment_bytes(row.total_bytes);
            let number = Files::of(row).number(*fragment);
            let mut last_error = None;
            let taken = free.iter().position(|node| {
                let Some(writer) = made.take() else { return false };
                let given = if *node == self.artifacts.node {
                    self.artifacts.files.keep(writer, id, number).map_err(blob_failed)
                } else {
                    let given = writer.reader().map_err(blob_failed).and_then(|reader| {
                        self.artifacts.peers.put_fragment(*node, id, number, digest, &mut OnDisk(reader))
                    });
                    made = Some(writer);
                    given
                };
                let good = given.is_ok();
                last_error = given.err();
                good
            });
            let Some(taken) = taken else {
                let cause = last_error.map_or_else(String::new, |error| format!(": {error}"));
                return Err(CallError::Precondition(format!(
                    "artifact {id} would be left without its fragment {fragment}{cause}"
                )));
            };
            receipts.push(fragment_receipt(free.remove(taken), *fragment, digest, bytes));
        }
        self.add(id, receipts)
    }

    fn add(&self, artifact_id: u64, receipts: Vec<Receipt>) -> Result<bool, CallError> {
        let mut add = AddReceipts::new();
        add.set_artifact_id(artifact_id);
        add.set_receipts(receipts.into());
        self.record(Command_oneof_kind::add_receipts(add))
    }

    fn record(&self, kind: Command_oneof_kind) -> Result<bool, CallError> {
        let mut command = Command::new();
        command.kind = Some(kind);
        let reply = self.artifacts.proposals.propose_one(command)?;
        match reply.outcome {
            Outcome::OK | Outcome::EXISTING => Ok(true),
            // Deleted, or about to be; or somebody else was faster.
            Outcome::NOT_FOUND | Outcome::PRECONDITION => Ok(false),
            _ => Err(CallError::Precondition(reply.message)),
        }
    }

    /// The whole artifact is coded anew, into files of a new generation; the old ones are read until it is recorded. Those of `staying` that do
    /// not take a fragment now make the code narrower, as they do for an upload.
    fn recode(&self, row: &ArtifactRow, staying: &[u64]) -> Result<bool, CallError> {
        let id = row.artifact_id;
        let term = self.artifacts.handle.status().term;
        let whole = Arc::new(self.artifacts.open(row)?);
        let mut generation = row.generation;
        let mut nodes = placement::candidates(self.artifacts.node, staying, id);
        let (coding, receipts) = loop {
            let failures = placement::failures_survived(staying.len());
            if nodes.len() <= failures {
                return Err(CallError::Precondition(format!(
                    "artifact {id} would be left with too few fragments: only replicas {nodes:?} take any"
                )));
            }
            let coding = fitting(row, nodes.len(), failures)?;
            // Another one for each try: what a broken one left is older, and goes.
            generation = next_generation(generation, term).ok_or_else(|| {
                CallError::Internal(format!("artifact {id} cannot be coded anew: no generation is left"))
            })?;
            let files = Files { artifact_id: id, generation };
            match self.artifacts.spread(&whole, Layout::new(coding, row.total_bytes), files, &nodes)? {
                Spread::Whole(receipts) => break (coding, receipts),
                Spread::Broken(broken) => nodes.retain(|node| !broken.contains(node)),
            }
        };
        let mut recode = RecodeArtifact::new();
        recode.set_artifact_id(id);
        recode.set_code_id(coding.code_id());
        recode.set_generation(generation);
        recode.set_receipts(receipts.into());
        let recorded = self.record(Command_oneof_kind::recode_artifact(recode))?;
        if recorded {
            info!(self.logger, "artifact coded anew"; "artifact" => id, "k" => coding.k(), "m" => coding.m());
        }
        Ok(recorded)
    }
}

/// The code for so many replicas. Copies are no fewer than what the old code could lose, as far as there are replicas.
fn fitting(row: &ArtifactRow, live: usize, failures: usize) -> Result<Coding, CallError> {
    let old = code_of(row)?.map_or(failures, Coding::m);
    let new = Coding::choose(live.min(PLACEMENT_MAX), failures, row.total_bytes);
    Ok(match new.is_copies() {
        true => Coding::copies(failures.max(old).min(live.saturating_sub(1))),
        false => new,
    })
}

/// What a committed artifact is short of when only `staying` are left; None: nothing, or it is not committed.
pub(crate) fn short_of(row: &ArtifactRow, staying: &[u64]) -> Result<Option<Short>, CallError> {
    if row.state != ArtifactState::ARTIFACT_COMMITTED {
        return Ok(None);
    }
    let failures = placement::failures_survived(staying.len());
    let have = holders(row, staying);
    let Some(coding) = code_of(row)? else {
        return Ok((have.len() < placement::copies(staying.len())).then_some(Short::Copies));
    };
    let held = |receipt: &&Receipt| have.contains(&receipt.node_id);
    let there: BTreeSet<u32> = row.receipts.iter().filter(held).map(|receipt| receipt.fragment).collect();
    let missing: Vec<u32> = (0..coding.fragments() as u32).filter(|fragment| !there.contains(fragment)).collect();
    if coding.m() >= failures && missing.len() <= staying.len() - have.len() {
        return Ok((!missing.is_empty()).then_some(Short::Fragments(missing)));
    }
    fitting(row, staying.len(), failures).map(|new| Some(Short::Code(new)))
}

/// A generation above `current` that nobody else ever uses: a term has one leader, and a leader codes one artifact at a time.
fn next_generation(current: u32, term: u64) -> Option<u32> {
    let first = u32::try_from(term).ok()?.checked_shl(GENERATIONS_A_TERM_BITS)?;
    let next = first.max(current + 1);
    // Beyond its own, a leader would take a name that the next one may take.
    let own = u64::from(next) >> GENERATIONS_A_TERM_BITS == term;
    (own && next <= GENERATION_MAX).then_some(next)
}

fn holders(row: &ArtifactRow, among: &[u64]) -> Vec<u64> {
    let mut holders: Vec<u64> =
        row.receipts.iter().map(|receipt| receipt.node_id).filter(|node| among.contains(node)).collect();
    holders.sort_unstable();
    holders.dedup();
    holders
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftgrid_manifest::Code;

    fn row(code_id: u32, holders: &[(u64, u32)]) -> ArtifactRow {
        let mut row = ArtifactRow::new();
        row.set_state(ArtifactState::ARTIFACT_COMMITTED);
        row.set_total_bytes(5 << 20);
        row.set_code_id(code_id);
        row.receipts = holders.iter().map(|(node, fragment)| fragment_receipt(*node, *fragment, [7; 32], 9)).collect();
        row
    }

    fn code(k: usize, m: usize) -> Coding {
        Coding::new(k, m).expect("it exists")
    }

    #[test]
    fn a_lost_fragment_goes_to_whoever_has_none_and_else_the_code_is_another() {
        let two_one = row(0x0001_0201, &[(1, 0), (2, 1), (3, 2)]);
        let cases: [(&[u64], Option<Short>); 6] = [
            (&[1, 2, 3], None),
            (&[1, 2, 3, 4], None),
            (&[1, 3, 4], Some(Short::Fragments(vec![1]))),
            (&[1, 3], Some(Short::Code(Coding::copies(1)))),
            (&[2], Some(Short::Code(Coding::copies(0)))),
            (&[1, 2, 3, 4, 5], Some(Short::Code(code(3, 2)))),
        ];
        for (staying, expected) in cases {
            assert_eq!(short_of(&two_one, staying).expect("a known code"), expected, "{staying:?}");
        }
        let three_two = row(0x0001_0302, &[(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]);
        assert_eq!(short_of(&three_two, &[1, 2, 3]).expect("known"), Some(Short::Code(code(2, 1))));
        assert_eq!(short_of(&three_two, &[1, 2, 3, 6, 7]).expect("known"), Some(Short::Fragments(vec![3, 4])));
        let plain = row(0, &[(1, 0), (2, 0)]);
        assert_eq!(short_of(&plain, &[1, 2, 3]).expect("known"), None);
        assert_eq!(short_of(&plain, &[1, 3, 4]).expect("known"), Some(Short::Copies));
    }

    #[test]
    fn no_two_leaders_write_files_of_one_generation() {
        assert_eq!(next_generation(0, 3), Some(3 << 6));
        assert_eq!(next_generation(3 << 6, 3), Some((3 << 6) + 1));
        assert_eq!(next_generation((3 << 6) + 63, 3), None, "the next one is the next leader's");
        assert_eq!(next_generation((3 << 6) + 63, 4), Some(4 << 6));
        assert_eq!(next_generation(9 << 6, 3), None, "a deposed one");
        assert_eq!(next_generation(0, 1 << 40), None);
        assert_eq!(next_generation(0, 1 << 18), None, "more bits than a file's number has");
    }

    #[test]
    fn the_machine_counts_fragments_and_their_bytes_as_the_coding_does() {
        for (k, m) in [(2, 1), (3, 2), (4, 3), (16, 16), (5, 1)] {
            let coding = code(k, m);
            let known = Code::of(coding.code_id()).expect("the machine knows it");
            assert_eq!((known.fragments(), known.failures()), (coding.fragments(), coding.m()));
            for total in [0, 1, 63, 64, 65, 131_071, 131_072, 131_073, 196_608, 5 << 20, (5 << 20) + 1, 12_345_678] {
                assert_eq!(known.fragment_bytes(total), coding.fragment_bytes(total), "{k}+{m}, {total} bytes");
            }
        }
    }
}
