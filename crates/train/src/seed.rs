//! The seed of a step: a function of the job's seed, the round and the shard; never of attempt, node or time.

use sha2::{Digest, Sha256};

/// First eight bytes, little-endian, of SHA-256("raftgrid/seed/v1" ‖ job seed u64 LE ‖ round u64 LE ‖ shard u32 LE), without the top bit: 63
/// bits fit the signed integers of every client.
pub fn shard_seed(job_seed: u64, round: u64, shard: u32) -> u64 {
    let mut hash = Sha256::new();
    hash.update(b"raftgrid/seed/v1");
    hash.update(job_seed.to_le_bytes());
    hash.update(round.to_le_bytes());
    hash.update(shard.to_le_bytes());
    let digest = hash.finalize();
    let head: [u8; 8] = digest[..8].try_into().expect("a digest has 32 bytes");
    u64::from_le_bytes(head) & (u64::MAX >> 1)
}
