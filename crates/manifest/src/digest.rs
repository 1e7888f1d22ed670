//! The incremental digest of the state: Σ SHA-256(table, key, value) mod 2²⁵⁶ over all rows but its own. Addition commutes, so that a
//! snapshot and a replay agree whatever the order of their writes.

use sha2::{Digest as _, Sha256};

use crate::rows::Table;

/// A number mod 2²⁵⁶; limbs from the lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StateDigest([u64; 4]);

impl StateDigest {
    /// From the row, little-endian; None if it is not 32 bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 32] = bytes.try_into().ok()?;
        let mut limbs = [0; 4];
        for (limb, chunk) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
            *limb = u64::from_le_bytes(chunk.try_into().ok()?);
        }
        Some(Self(limbs))
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        self.0.iter().flat_map(|limb| limb.to_le_bytes()).collect()
    }

    pub(crate) fn add_row(&mut self, table: Table, key: &[u8], value: &[u8]) {
        let other = row_hash(table, key, value);
        let mut carry = false;
        for (limb, add) in self.0.iter_mut().zip(other.0) {
            let (sum, first) = limb.overflowing_add(add);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first || second;
        }
    }

    pub(crate) fn subtract_row(&mut self, table: Table, key: &[u8], value: &[u8]) {
        let other = row_hash(table, key, value);
        let mut borrow = false;
        for (limb, take) in self.0.iter_mut().zip(other.0) {
            let (rest, first) = limb.overflowing_sub(take);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            *limb = rest;
            borrow = first || second;
        }
    }
}

fn row_hash(table: Table, key: &[u8], value: &[u8]) -> StateDigest {
    let mut hash = Sha256::new();
    hash.update([table as u8]);
    hash.update((key.len() as u32).to_be_bytes());
    hash.update(key);
    hash.update(value);
    StateDigest::from_bytes(&hash.finalize()).expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_and_subtracting_the_same_rows_gives_zero_in_any_order() {
        let rows: Vec<(Vec<u8>, Vec<u8>)> =
            (0..200_u32).map(|i| (i.to_be_bytes().to_vec(), vec![i as u8; 9])).collect();
        let mut sum = StateDigest::default();
        rows.iter().for_each(|(key, value)| sum.add_row(Table::Task, key, value));
        assert_ne!(sum, StateDigest::default());
        assert_eq!(StateDigest::from_bytes(&sum.to_bytes()), Some(sum));
        rows.iter().rev().for_each(|(key, value)| sum.subtract_row(Table::Task, key, value));
        assert_eq!(sum, StateDigest::default());
    }

    #[test]
    fn table_key_and_value_all_count() {
        let base = row_hash(Table::Task, b"ab", b"c");
        for other in
            [row_hash(Table::Node, b"ab", b"c"), row_hash(Table::Task, b"a", b"bc"), row_hash(Table::Task, b"ab", b"d")]
        {
            assert_ne!(base, other);
        }
    }
}
