//! The hash over everything that a round's model is made from. Whoever leads computes the same one, and an audit compares it.

use raftgrid_proto::v1::Optimizer;
use sha2::{Digest, Sha256};

use crate::ALGORITHM_ID;

/// One accepted contribution as the ledger has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerLine<'a> {
    /// Shard.
    pub shard: u32,
    /// SHA-256 of the gradient's file.
    pub digest: &'a [u8],
    /// Bits of the weight, an f64.
    pub weight_bits: u64,
}

/// SHA-256 over: "raftgrid/inputs/v1", algorithm id, digest of model r, digest of state r (empty before the first step), each line in shard
/// order, the hyper-parameters, the bundle's digest. Variable parts are preceded by their length, so that no two inputs read alike.
pub fn inputs_hash(
    model_digest: &[u8],
    state_digest: &[u8],
    ledger: &[LedgerLine<'_>],
    optimizer: &Optimizer,
    bundle_digest: &[u8],
) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(b"raftgrid/inputs/v1");
    part(ALGORITHM_ID.as_bytes());
    part(model_digest);
    part(state_digest);
    part(&(ledger.len() as u64).to_le_bytes());
    for line in ledger {
        part(&line.shard.to_le_bytes());
        part(line.digest);
        part(&line.weight_bits.to_le_bytes());
    }
    part(optimizer.get_algorithm().as_bytes());
    part(&optimizer.get_learning_rate().to_bits().to_le_bytes());
    part(&optimizer.get_momentum().to_bits().to_le_bytes());
    part(&[u8::from(optimizer.get_nesterov())]);
    part(&optimizer.get_weight_decay().to_bits().to_le_bytes());
    part(bundle_digest);
    hash.finalize().into()
}
