//! SHA-256, as the ledger has it.

use sha2::{Digest, Sha256};

/// Of bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
