//! Codes of artifacts as the machine sees them: how many fragments there are, how long each is, and which receipts stand for all of them.
//!
//! What the fragments hold is `raftgrid-blob`'s; that both count alike is held by a test of the replica, which knows both. A change here
//! changes what replicas accept: it needs a new machine version.

use std::collections::{BTreeMap, BTreeSet};

use raftgrid_proto::v1::{ArtifactRow, Outcome, Receipt};

use crate::error::Fault;
use crate::limits::{CODE_FRAGMENTS_MAX, CODE_SHARD_ALIGN_BYTES, CODE_UNIT_BYTES, RECEIPTS_MAX};
use crate::reply::{invalid, refuse};
use crate::text::check_digest;

/// Every fragment is the artifact itself.
pub(crate) const CODE_PLAIN_COPIES: u32 = 0;
/// Reed-Solomon; `code_id` is family, k and m, a byte each.
const FAMILY_REED_SOLOMON: u8 = 1;

/// k data fragments and m parity fragments; any k of them are the artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    k: u64,
    m: u64,
}

impl Code {
    /// The code that a row names; None: plain copies, or a code that this version does not know.
    pub fn of(code_id: u32) -> Option<Self> {
        let [zero, family, k, m] = code_id.to_be_bytes();
        let known = zero == 0 && family == FAMILY_REED_SOLOMON;
        let known = known && (2..=CODE_FRAGMENTS_MAX).contains(&k) && (1..=CODE_FRAGMENTS_MAX).contains(&m);
        known.then_some(Self { k: k.into(), m: m.into() })
    }

    /// All fragments.
    pub fn fragments(self) -> usize {
        (self.k + self.m) as usize
    }

    /// Fragments that may be lost.
    pub fn failures(self) -> usize {
        self.m as usize
    }

    /// Bytes of each fragment of an artifact of `total_bytes`.
    pub fn fragment_bytes(self, total_bytes: u64) -> u64 {
        let stripe = self.k * CODE_UNIT_BYTES;
        let last = (total_bytes % stripe).div_ceil(self.k).next_multiple_of(CODE_SHARD_ALIGN_BYTES);
        total_bytes / stripe * CODE_UNIT_BYTES + last
    }
}

/// Checks a `code_id` that a command brings, and how many replicas it is placed on.
pub(crate) fn check(code_id: u32, placement: usize) -> Result<(), Fault> {
    let Some(code) = Code::of(code_id) else {
        return Err(invalid("code_id", format!("this version does not know code {code_id:#x}")));
    };
    if placement != code.fragments() {
        let why = format!("code {code_id:#x} has {} fragments, one a replica; is {placement}", code.fragments());
        return Err(invalid("placement", why));
    }
    Ok(())
}

/// Checks a receipt for a fragment of `row`, which is under `code`.
pub(crate) fn check_receipt(row: &ArtifactRow, code: Code, receipt: &Receipt) -> Result<(), Fault> {
    let (node, id) = (receipt.node_id, row.artifact_id);
    check_digest("receipts.digest", &receipt.digest)?;
    if receipt.fragment as usize >= code.fragments() {
        let why = format!("artifact {id} has {} fragments, and no number {}", code.fragments(), receipt.fragment);
        return Err(invalid("receipts.fragment", why));
    }
    let expected = code.fragment_bytes(row.total_bytes);
    if receipt.fragment_bytes != expected {
        let why = format!("replica {node} holds {} bytes of a fragment of {expected}", receipt.fragment_bytes);
        return Err(refuse(Outcome::MISMATCH, why));
    }
    Ok(())
}

/// Of `receipts` those that count: one a fragment, one a replica, of replicas that stay. In order of the fragments.
pub(crate) fn count(
    row: &ArtifactRow,
    code: Code,
    receipts: &[Receipt],
    stays: &dyn Fn(u64) -> bool,
) -> Result<Vec<Receipt>, Fault> {
    if receipts.len() > RECEIPTS_MAX {
        return Err(invalid("receipts", format!("at most {RECEIPTS_MAX}, is {}", receipts.len())));
    }
    let mut counted: BTreeMap<u32, Receipt> = BTreeMap::new();
    let mut nodes = BTreeSet::new();
    for receipt in receipts {
        check_receipt(row, code, receipt)?;
        match counted.get(&receipt.fragment) {
            Some(other) if other.digest != receipt.digest => return Err(other_bytes(row, receipt)),
            Some(_) => continue,
            None => {}
        }
        if receipt.node_id != 0 && stays(receipt.node_id) && nodes.insert(receipt.node_id) {
            counted.insert(receipt.fragment, receipt.clone());
        }
    }
    Ok(counted.into_values().collect())
}

/// Two replicas hold different bytes of one fragment.
pub(crate) fn other_bytes(row: &ArtifactRow, receipt: &Receipt) -> Fault {
    let (node, fragment, id) = (receipt.node_id, receipt.fragment, row.artifact_id);
    refuse(Outcome::MISMATCH, format!("replica {node} holds other bytes of fragment {fragment} of artifact {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_that_exist_are_known() {
        assert_eq!(Code::of(0x0001_0201), Some(Code { k: 2, m: 1 }));
        assert_eq!(Code::of(0x0001_1010), Some(Code { k: 16, m: 16 }));
        for unknown in [0, 1, 0x0001_0101, 0x0001_0200, 0x0001_1101, 0x0001_0211, 0x0002_0201, 0x0101_0201] {
            assert_eq!(Code::of(unknown), None, "{unknown:#x}");
        }
    }

    #[test]
    fn a_fragment_is_a_share_of_each_stripe_rounded_up() {
        let code = Code::of(0x0001_0201).expect("known");
        let unit = CODE_UNIT_BYTES;
        for (total, expected) in [(0, 0), (1, 64), (129, 128), (2 * unit, unit), (2 * unit + 1, unit + 64)] {
            assert_eq!(code.fragment_bytes(total), expected, "{total} bytes");
        }
    }
}
