//! Reads coded artifacts: any k fragments, of this disk and of others at the same time, each verified by its SHA-256, become the artifact in a
//! file of the cache, held against its own. A replica that is slow has the next one asked beside it. What is lost or rotten here is mended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use raftgrid_blob::coding::{Coding, Layout};
use raftgrid_blob::stripes::{decode, rebuild, FragmentOf, StripesError};
use raftgrid_blob::{FragmentReader, FragmentWriter};
use raftgrid_proto::v1::ArtifactRow;
use slog::{info, warn};

use crate::artifacts::{blob_failed, digest_of, patience, Artifacts, Files};
use crate::limits::DECODE_PIECE_BYTES;
use crate::ports::{Attempt, CallError};
use crate::spread::stripes_failed;

/// One decodes an artifact; whoever wants it meanwhile waits, and finds it decoded.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    busy: Mutex<BTreeMap<u64, Arc<Mutex<()>>>>,
}

impl Gates {
    fn one_at_a_time<T>(&self, artifact_id: u64, work: impl FnOnce() -> T) -> T {
        let gate = self.busy.lock().unwrap_or_else(PoisonError::into_inner).entry(artifact_id).or_default().clone();
        let outcome = {
            let _held = gate.lock().unwrap_or_else(PoisonError::into_inner);
            work()
        };
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        drop(gate);
        if busy.get(&artifact_id).is_some_and(|gate| Arc::strong_count(gate) == 1) {
            busy.remove(&artifact_id);
        }
        outcome
    }
}

/// Fragments with their numbers, as files.
type Gathered = Vec<(usize, FragmentReader)>;

/// SHA-256 of each fragment that the row knows: by its receipts.
fn fragment_digests(row: &ArtifactRow) -> BTreeMap<u32, [u8; 32]> {
    let known = row.receipts.iter();
    known.filter_map(|it| Some((it.fragment, it.digest.as_slice().try_into().ok()?))).collect()
}

/// SHA-256 of one fragment, by the row.
pub(crate) fn fragment_digest(row: &ArtifactRow, fragment: u32) -> Result<[u8; 32], CallError> {
    let found = fragment_digests(row).get(&fragment).copied();
    found.ok_or_else(|| unknown_digest(row.artifact_id, fragment))
}

fn unknown_digest(artifact_id: u64, fragment: u32) -> CallError {
    CallError::Internal(format!("artifact {artifact_id} has no receipt for fragment {fragment}"))
}

impl Artifacts {
    /// The whole artifact, from the cache or decoded into it. Blocks.
    pub(crate) fn decoded(&self, row: &ArtifactRow, coding: Coding) -> Result<FragmentReader, CallError> {
        let digest = digest_of(row)?;
        let known = || self.files.cache().get(row.artifact_id).filter(|reader| reader.digest() == digest);
        if let Some(reader) = known() {
            return Ok(reader);
        }
        self.gates.one_at_a_time(row.artifact_id, || match known() {
            Some(reader) => Ok(reader),
            None => self.decode(row, Layout::new(coding, row.total_bytes), digest),
        })
    }

    fn decode(&self, row: &ArtifactRow, layout: Layout, digest: [u8; 32]) -> Result<FragmentReader, CallError> {
        self.room_to_decode(row)?;
        let mut without: BTreeSet<usize> = BTreeSet::new();
        let (written, used) = loop {
            let sources = self.gather(row, layout, &without)?;
            let mut target = self.files.create_for(row.total_bytes).map_err(blob_failed)?;
            match decode(layout, &sources, &mut target) {
                Ok(()) => {
                    let used: Vec<usize> = sources.iter().map(|(number, _)| *number).collect();
                    match target.finish(Some(row.total_bytes), Some(&digest)) {
                        Ok(_) => break (target, used),
                        // Each block was what its file says, so a file says the wrong thing: only one of this disk can.
                        Err(error) => {
                            let own: Vec<usize> =
                                self.own_fragments(row, layout, &without).into_iter().map(|it| it.0).collect();
                            if own.is_empty() {
                                return Err(CallError::Unavailable(format!("artifact {}: {error}", row.artifact_id)));
                            }
                            self.damaged.note(row.artifact_id);
                            without.extend(own);
                        }
                    }
                }
                Err(StripesError::Source { source_number, cause }) => {
                    let fragment = sources[source_number].0;
                    warn!(self.logger, "fragment damaged, going on without it";
                        "artifact" => row.artifact_id, "fragment" => fragment, "cause" => %cause);
                    // Those of others are in files that were whole a moment ago.
                    self.damaged.note(row.artifact_id);
                    without.insert(fragment);
                }
                Err(error) => return Err(stripes_failed(error)),
            }
        };
        let whole = Arc::new(written.reader().map_err(blob_failed)?);
        let mine = row.receipts.iter().find(|receipt| receipt.node_id == self.node).map(|receipt| receipt.fragment);
        if let Some(fragment) = mine.filter(|fragment| !used.contains(&(*fragment as usize))) {
            self.mend(row, layout, fragment, &whole);
        }
        let reader = written.reader().map_err(blob_failed)?;
        self.files.cache().keep(written, row.artifact_id).map_err(blob_failed)?;
        Ok(reader)
    }

    /// What is decoded takes room for a while. Where there is hardly any, others must serve it.
    fn room_to_decode(&self, row: &ArtifactRow) -> Result<(), CallError> {
        let (low, free_bytes) = self.proposals.room.seen();
        if low && row.total_bytes > free_bytes / 4 {
            self.files.cache().clear();
            return self.proposals.room.check();
        }
        Ok(())
    }

    /// The fragment that this replica answers for is not what it was: it is made out of the whole artifact.
    fn mend(&self, row: &ArtifactRow, layout: Layout, fragment: u32, whole: &Arc<FragmentReader>) {
        let made = self.fragment_of(row, layout, fragment, whole).and_then(|writer| {
            self.files.keep(writer, row.artifact_id, Files::of(row).number(fragment)).map_err(blob_failed)
        });
        match made {
            Ok(()) => {
                info!(self.logger, "fragment mended"; "artifact" => row.artifact_id, "fragment" => fragment);
            }
            Err(error) => {
                warn!(self.logger, "fragment not mended";
                    "artifact" => row.artifact_id, "fragment" => fragment, "cause" => %error);
            }
        }
    }

    fn fragment_of(
        &self,
        row: &ArtifactRow,
        layout: Layout,
        fragment: u32,
        whole: &Arc<FragmentReader>,
    ) -> Result<FragmentWriter, CallError> {
        let digest = fragment_digest(row, fragment)?;
        let mut source = FragmentOf::new(whole.clone(), layout, fragment as usize);
        let mut writer = self.files.create_for(source.total_bytes()).map_err(blob_failed)?;
        let (mut at, mut piece) = (0, vec![0; DECODE_PIECE_BYTES]);
        while at < source.total_bytes() {
            let got = source.read_at(at, &mut piece).map_err(stripes_failed)?;
            writer.write(&piece[..got]).map_err(blob_failed)?;
            at += got as u64;
        }
        writer.finish(Some(layout.fragment_bytes()), Some(&digest)).map_err(blob_failed)?;
        Ok(writer)
    }

    /// A fragment made anew: out of the decoded artifact if it is here, else out of any k others. Finished, not kept. Blocks.
    pub(crate) fn remade(&self, row: &ArtifactRow, coding: Coding, fragment: u32) -> Result<FragmentWriter, CallError> {
        let layout = Layout::new(coding, row.total_bytes);
        if let Some(whole) = self.files.cache().get(row.artifact_id) {
            if let Ok(writer) = self.fragment_of(row, layout, fragment, &Arc::new(whole)) {
                return Ok(writer);
            }
            self.files.cache().forget(row.artifact_id);
        }
        let digest = fragment_digest(row, fragment)?;
        let mut without = BTreeSet::from([fragment as usize]);
        loop {
            let sources = self.gather(row, layout, &without)?;
            let mut target = self.files.create_for(layout.fragment_bytes()).map_err(blob_failed)?;
            match rebuild(layout, &sources, fragment as usize, &mut target) {
                Ok(()) => {
                    target.finish(Some(layout.fragment_bytes()), Some(&digest)).map_err(blob_failed)?;
                    return Ok(target);
                }
                Err(StripesError::Source { source_number, .. }) => {
                    self.damaged.note(row.artifact_id);
                    without.insert(sources[source_number].0);
                }
                Err(error) => return Err(stripes_failed(error)),
            }
        }
    }

    /// Fragments on this disk that are what the row says, by their footers.
    fn own_fragments(&self, row: &ArtifactRow, layout: Layout, without: &BTreeSet<usize>) -> Gathered {
        let mut own = Vec::new();
        for (fragment, digest) in fragment_digests(row) {
            if without.contains(&(fragment as usize)) {
                continue;
            }
            if let Ok(reader) = self.files.open_fragment(row.artifact_id, Files::of(row).number(fragment)) {
                if reader.digest() == digest && reader.total_bytes() == layout.fragment_bytes() {
                    own.push((fragment as usize, reader));
                }
            }
        }
        own
    }

    /// k different fragments, but for those of `without`: those of this disk, and others', fetched side by side into files without a name.
    fn gather(&self, row: &ArtifactRow, layout: Layout, without: &BTreeSet<usize>) -> Result<Gathered, CallError> {
        let k = layout.coding().k();
        let mut have = self.own_fragments(row, layout, without);
        let mut left: Vec<(u64, u32)> = row
            .receipts
            .iter()
            .map(|receipt| (receipt.node_id, receipt.fragment))
            .filter(|(node, fragment)| *node != self.node && !without.contains(&(*fragment as usize)))
            .collect();
        // Data first: what is not lost needs no arithmetic. Those that were silent last.
        let silent = self.silent.silent(self.clock.monotonic_ms());
        left.sort_by_key(|(node, fragment)| (silent.contains(node), *fragment));
        while have.len() < k {
            let mut asked = BTreeMap::new();
            let mut nodes = Vec::new();
            for (node, fragment) in &left {
                let has = |(number, _): &(usize, FragmentReader)| *number == *fragment as usize;
                if !have.iter().any(has) && !asked.values().any(|other| other == fragment) {
                    asked.insert(*node, *fragment);
                    nodes.push(*node);
                }
            }
            if nodes.len() + have.len() < k {
                let (id, there) = (row.artifact_id, nodes.len() + have.len());
                return Err(CallError::Unavailable(format!("artifact {id}: {there} of {k} fragments can be read")));
            }
            left.retain(|(node, _)| !asked.contains_key(node));
            have.extend(self.fetched(row, layout, &nodes, asked, k - have.len()));
        }
        have.truncate(k);
        Ok(have)
    }

    /// Up to `wanted` fragments of those that `nodes` have; `asked` names each one's.
    fn fetched(
        &self,
        row: &ArtifactRow,
        layout: Layout,
        nodes: &[u64],
        asked: BTreeMap<u64, u32>,
        wanted: usize,
    ) -> Gathered {
        let got: Arc<Mutex<Gathered>> = Arc::default();
        let (files, peers, from, taken) = (self.files.clone(), self.peers.clone(), Files::of(row), got.clone());
        let (digests, bytes) = (fragment_digests(row), layout.fragment_bytes());
        let attempt: Attempt = Arc::new(move |node, steps| {
            let fragment = asked[&node];
            let digest = digests.get(&fragment).ok_or_else(|| unknown_digest(from.artifact_id, fragment))?;
            let mut writer = files.create_for(bytes).map_err(blob_failed)?;
            peers.get_fragment(node, from.artifact_id, from.number(fragment), &mut |data| {
                steps.step()?;
                writer.write(data).map_err(blob_failed)
            })?;
            writer.finish(Some(bytes), Some(digest)).map_err(blob_failed)?;
            let reader = writer.reader().map_err(blob_failed)?;
            taken.lock().unwrap_or_else(PoisonError::into_inner).push((fragment as usize, reader));
            Ok(())
        });
        for (node, outcome) in self.peers.first_of(nodes, wanted, patience(bytes), attempt) {
            // What failed is left out; whether enough is left is for the caller to see. Who has no such fragment is not silent.
            match outcome {
                Err(error @ (CallError::NotFound(_) | CallError::Internal(_))) => {
                    warn!(self.logger, "fragment not there"; "peer" => node, "artifact" => row.artifact_id, "cause" => %error);
                }
                outcome => drop(self.heard_of(node, row.artifact_id, outcome)),
            }
        }
        let mut got = got.lock().unwrap_or_else(PoisonError::into_inner);
        got.drain(..).collect()
    }
}
