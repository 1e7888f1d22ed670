//! Names in a data directory. Only plain names that this file makes, or has checked, are ever joined to a path.

use std::path::{Path, PathBuf};

use raftgrid_driver::{Index, Term};

use crate::limits::FILE_NAME_BYTES_MAX;

/// Prefix of a directory with state tables.
const STATE: &str = "state-";
/// Prefix of a directory into which a snapshot is being received.
const STAGING: &str = "staging-";
/// Prefix of a checkpoint that is being made.
const MAKING: &str = "making-";
/// File in a checkpoint with its meaning; not part of what is sent.
pub(crate) const SNAPSHOT_META: &str = "SNAPSHOT";

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    pub(crate) fn show(&self) -> String {
        self.root.display().to_string()
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    pub(crate) fn identity_new(&self) -> PathBuf {
        self.root.join("identity.new")
    }

    pub(crate) fn peer_stores(&self) -> PathBuf {
        self.root.join("peer-stores")
    }

    pub(crate) fn peer_stores_new(&self) -> PathBuf {
        self.root.join("peer-stores.new")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(crate) fn synced(&self) -> PathBuf {
        self.root.join("synced")
    }

    pub(crate) fn synced_new(&self) -> PathBuf {
        self.root.join("synced.new")
    }

    pub(crate) fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(crate) fn entry(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn snapshot(&self, name: &str) -> PathBuf {
        self.snapshots().join(name)
    }
}

fn short(nonce: u128) -> u64 {
    // 64 of its bits: names need to differ within one directory only.
    (nonce >> 64) as u64 ^ nonce as u64
}

pub(crate) fn state_name(index: Index, nonce: u128) -> String {
    format!("{STATE}{index}-{:016x}", short(nonce))
}

pub(crate) fn staging_name(nonce: u128) -> String {
    format!("{STAGING}{:016x}", short(nonce))
}

pub(crate) fn making_name(nonce: u128) -> String {
    format!("{MAKING}{:016x}", short(nonce))
}

pub(crate) fn snapshot_name(index: Index, term: Term, nonce: u128) -> String {
    format!("{index}-{term}-{:016x}", short(nonce))
}

fn is_nonce(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Index in the name of a state directory; None when it is not such a name.
pub(crate) fn parse_state(name: &str) -> Option<Index> {
    let (index, nonce) = name.strip_prefix(STATE)?.split_once('-')?;
    let plain = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    (plain && is_nonce(nonce)).then(|| index.parse().ok()).flatten()
}

pub(crate) fn is_staging(name: &str) -> bool {
    name.strip_prefix(STAGING).is_some_and(is_nonce)
}

/// Whether a name that came from elsewhere is a plain file name: letters, digits, `.`, `_`, `-`, no leading dot,
/// bounded.
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= FILE_NAME_BYTES_MAX
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_paths_are_refused() {
        let name = state_name(17, 0x1234_5678_9abc_def0_0000_0000_0000_0001);
        assert_eq!(parse_state(&name), Some(17));
        for bad in [
            "state-",
            "state-1",
            "state-x-0123456789abcdef",
            "state-1-0123",
            "state-1-../../../../etc/",
            "state-+1-0123456789abcdef",
        ] {
            assert_eq!(parse_state(bad), None, "{bad}");
        }
        assert!(is_staging(&staging_name(9)) && !is_staging("staging-../x"));
        assert!(is_plain_name("000012.sst") && is_plain_name("MANIFEST-000004"));
        for bad in ["", ".", "..", "a/b", "../a", ".hidden", "a\0b", "a\\b", "ä", &"x".repeat(FILE_NAME_BYTES_MAX + 1)]
        {
            assert!(!is_plain_name(bad), "{bad:?}");
        }
    }
}
