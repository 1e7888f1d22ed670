//! The inputs hash changes with everything that a model is made from.

use crate::common::sgd;
use raftgrid_train::inputs::{inputs_hash, LedgerLine};

#[test]
fn every_input_changes_the_hash() {
    let line =
        |shard: u32, digest: &'static [u8], weight: f64| LedgerLine { shard, digest, weight_bits: weight.to_bits() };
    let ledger = [line(0, b"a", 1.0), line(1, b"b", 2.0)];
    let optimizer = sgd(0.1, 0.9, false, 0.0);
    let hashes = [
        inputs_hash(b"model", b"state", &ledger, &optimizer, b"bundle"),
        inputs_hash(b"models", b"tate", &ledger, &optimizer, b"bundle"),
        inputs_hash(b"model", b"", &ledger, &optimizer, b"bundle"),
        inputs_hash(b"model", b"state", &ledger[..1], &optimizer, b"bundle"),
        inputs_hash(b"model", b"state", &[ledger[1], ledger[0]], &optimizer, b"bundle"),
        inputs_hash(b"model", b"state", &[line(0, b"a", 1.5), ledger[1]], &optimizer, b"bundle"),
        inputs_hash(b"model", b"state", &[line(2, b"a", 1.0), ledger[1]], &optimizer, b"bundle"),
        inputs_hash(b"model", b"state", &[line(0, b"x", 1.0), ledger[1]], &optimizer, b"bundle"),
        inputs_hash(b"model", b"state", &ledger, &sgd(0.2, 0.9, false, 0.0), b"bundle"),
        inputs_hash(b"model", b"state", &ledger, &sgd(0.1, 0.8, false, 0.0), b"bundle"),
        inputs_hash(b"model", b"state", &ledger, &sgd(0.1, 0.9, true, 0.0), b"bundle"),
        inputs_hash(b"model", b"state", &ledger, &sgd(0.1, 0.9, false, 0.1), b"bundle"),
        inputs_hash(b"model", b"state", &ledger, &optimizer, b""),
    ];
    for (first, left) in hashes.iter().enumerate() {
        for right in &hashes[first + 1..] {
            assert_ne!(left, right);
        }
    }
    assert_eq!(hashes[0], inputs_hash(b"model", b"state", &ledger, &optimizer, b"bundle"));
}
