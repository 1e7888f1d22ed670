//! The id of a cluster by its founding: what a founder derives from its settings, and a tool that makes founders' directories, too.

use sha2::{Digest, Sha256};

/// Derived from name and founders, so that two different foundings refuse each other. Addresses may change, numbers may not: `founders` are
/// the replicas' numbers in rising order.
pub fn cluster_id(name: &str, founders: &[u64]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"raftgrid/cluster/v1");
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name.as_bytes());
    for founder in founders {
        hash.update(founder.to_le_bytes());
    }
    let digest = hash.finalize();
    let short: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{name}-{short}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_for_ever_the_same_and_another_for_every_other_founding() {
        // On the disks of clusters that exist: it must never change.
        assert_eq!(cluster_id("test", &[1, 2, 3]), "test-434aae7262bda933");
        for other in [cluster_id("test", &[1, 2]), cluster_id("tess", &[1, 2, 3]), cluster_id("", &[1, 2, 3])] {
            assert_ne!(cluster_id("test", &[1, 2, 3]), other);
        }
    }
}
