//! Writes coded artifacts: each fragment durable on another replica. The whole artifact is on this disk; every stream codes its own fragment
//! out of it, a stripe at a time, so a stream that breaks is begun anew wherever there is room, and memory does not grow with the artifact.

use std::collections::BTreeMap;
use std::sync::Arc;

use raftgrid_blob::coding::Layout;
use raftgrid_blob::stripes::{digests, FragmentOf, StripesError};
use raftgrid_blob::FragmentReader;
use raftgrid_proto::v1::Receipt;

use crate::artifacts::{blob_failed, patience, Artifacts, Files};
use crate::copies::{receipt, Watched, COPY};
use crate::ports::{Attempt, CallError, Download};

/// How the fragments came to their replicas.
pub(crate) enum Spread {
    /// All of them are durable, each on another replica.
    Whole(Vec<Receipt>),
    /// These replicas did not take theirs, and nobody else was left.
    Broken(Vec<u64>),
}

/// A fragment on its way out.
struct Outgoing {
    fragment: FragmentOf,
    artifact_id: u64,
    digest: [u8; 32],
}

impl Download for Outgoing {
    fn total_bytes(&self) -> u64 {
        self.fragment.total_bytes()
    }

    fn digest(&self) -> [u8; 32] {
        self.digest
    }

    fn artifact_id(&self) -> u64 {
        self.artifact_id
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, CallError> {
        self.fragment.read_at(offset, buffer).map_err(stripes_failed)
    }
}

/// An error between a file and its fragments as an answer.
pub(crate) fn stripes_failed(error: StripesError) -> CallError {
    match error {
        StripesError::Source { cause, .. } | StripesError::Target(cause) => blob_failed(cause),
        StripesError::Coding(error) => CallError::Internal(error.to_string()),
    }
}

impl Artifacts {
    /// Makes fragment i of `whole` durable on `nodes[i]`; those that are more than fragments step in for others. With plain copies all
    /// fragments are the same. Blocks.
    pub(crate) fn spread(
        &self,
        whole: &Arc<FragmentReader>,
        layout: Layout,
        files: Files,
        nodes: &[u64],
    ) -> Result<Spread, CallError> {
        let fragments = layout.coding().fragments();
        let (chosen, spare) = nodes.split_at(fragments.min(nodes.len()));
        let mine = chosen.iter().position(|node| *node == self.node);
        let mut own = match mine {
            Some(fragment) => Some((fragment, self.files.create_for(layout.fragment_bytes()).map_err(blob_failed)?)),
            None => None,
        };
        let kept = own.as_mut().map(|(fragment, writer)| (*fragment, writer));
        let found = Arc::new(digests(whole, layout, kept).map_err(stripes_failed)?);
        let number = move |fragment: usize| match layout.coding().is_copies() {
            true => files.number(COPY),
            false => files.number(fragment as u32),
        };
        let mut holders = BTreeMap::new();
        let assigned: Vec<(u64, usize)> =
            chosen.iter().copied().zip(0..).filter(|(node, _)| *node != self.node).collect();
        let mut broken = Vec::new();
        let send = |assigned: Vec<(u64, usize)>, holders: &mut BTreeMap<usize, u64>, broken: &mut Vec<u64>| {
            let nodes: Vec<u64> = assigned.iter().map(|(node, _)| *node).collect();
            let by_node: BTreeMap<u64, usize> = assigned.into_iter().collect();
            let (peers, whole, found, of) = (self.peers.clone(), whole.clone(), found.clone(), by_node.clone());
            let attempt: Attempt = Arc::new(move |node, steps| {
                let fragment = of[&node];
                let digest = found[fragment];
                let data = FragmentOf::new(whole.clone(), layout, fragment);
                let data = Outgoing { fragment: data, artifact_id: files.artifact_id, digest };
                peers.put_fragment(node, files.artifact_id, number(fragment), digest, &mut Watched { data, steps })
            });
            for (node, outcome) in self.peers.first_of(&nodes, nodes.len(), patience(layout.fragment_bytes()), attempt)
            {
                match self.heard_of(node, files.artifact_id, outcome) {
                    Ok(()) => drop(holders.insert(by_node[&node], node)),
                    Err(_) => broken.push(node),
                }
            }
        };
        // This disk syncs its fragment while the others get theirs.
        std::thread::scope(|scope| -> Result<(), CallError> {
            let keeping = own.map(|(fragment, writer)| {
                let kept = scope.spawn(move || self.files.keep(writer, files.artifact_id, number(fragment)));
                (fragment, kept)
            });
            send(assigned, &mut holders, &mut broken);
            let Some((fragment, kept)) = keeping else { return Ok(()) };
            let failed = |_| CallError::Internal("the thread that keeps a fragment panicked".to_owned());
            kept.join().map_err(failed)?.map_err(blob_failed)?;
            holders.insert(fragment, self.node);
            Ok(())
        })?;
        let missing: Vec<usize> = (0..fragments).filter(|fragment| !holders.contains_key(fragment)).collect();
        if !missing.is_empty() && missing.len() <= spare.len() {
            send(spare.iter().copied().zip(missing).collect(), &mut holders, &mut broken);
        }
        if holders.len() < fragments {
            return Ok(Spread::Broken(broken));
        }
        let receipts = holders.into_iter().map(|(fragment, node)| match layout.coding().is_copies() {
            true => receipt(node, found[fragment]),
            false => fragment_receipt(node, fragment as u32, found[fragment], layout.fragment_bytes()),
        });
        Ok(Spread::Whole(receipts.collect()))
    }
}

/// A receipt for a fragment of a coded artifact.
pub(crate) fn fragment_receipt(node: u64, fragment: u32, digest: [u8; 32], bytes: u64) -> Receipt {
    let mut receipt = Receipt::new();
    receipt.set_node_id(node);
    receipt.set_fragment(fragment);
    receipt.set_digest(digest.to_vec());
    receipt.set_fragment_bytes(bytes);
    receipt
}
