//! What a backup is: a directory with the files of one snapshot (`state/`), the bytes of every artifact that is committed in it
//! (`artifacts/ID`), and `manifest.json`, which is written last and names everything with its SHA-256. Or the same as one tar file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Result};
use crate::output::hex;

/// The only format so far.
const FORMAT: u64 = 1;
/// Of the manifest.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Folder of the snapshot.
pub(crate) const STATE: &str = "state";
/// Folder of the artifacts.
pub(crate) const ARTIFACTS: &str = "artifacts";
/// Read at once.
const PIECE_BYTES: usize = 1 << 20;

/// A file of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// An artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) artifact: u64,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// The whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    format: u64,
    /// Of the gridctl that made it.
    pub(crate) version: String,
    pub(crate) made_unix_s: u64,
    /// The cluster that it is of.
    pub(crate) cluster_id: String,
    /// The replica whose snapshot it is.
    pub(crate) node_id: u64,
    /// Everything up to this index is in it.
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) machine_version: u64,
    /// Of the rows.
    pub(crate) state_digest: String,
    pub(crate) state: Vec<StateFile>,
    pub(crate) artifacts: Vec<Kept>,
}

impl Manifest {
    /// Empty, but for what is known of its making.
    pub(crate) fn made_now(unix_s: u64) -> Self {
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            made_unix_s: unix_s,
            cluster_id: String::new(),
            node_id: 0,
            index: 0,
            term: 0,
            machine_version: 0,
            state_digest: String::new(),
            state: Vec::new(),
            artifacts: Vec::new(),
        }
    }

    /// Of the backup in `folder`.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read(&path).map_err(|error| {
            let cause = format!("{} is no whole backup: {MANIFEST} cannot be read ({error})", folder.display());
            Failure::new(cause, "a directory or file that gridctl cluster backup has finished")
        })?;
        let unknown =
            |cause: String| Failure::new(format!("{}: {cause}", path.display()), "a newer gridctl, or another backup");
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| unknown(error.to_string()))?;
        match manifest.format {
            FORMAT => Ok(manifest),
            other => Err(unknown(format!("format {other} is not known"))),
        }
    }

    /// Holds every file against its digest.
    pub(crate) fn verify(&self, folder: &Path, each: &mut dyn FnMut(u64)) -> Result<()> {
        let state = self.state.iter().map(|file| (folder.join(STATE).join(&file.name), file.bytes, &file.sha256));
        let kept = self.artifacts.iter().map(|it| (artifact(folder, it.artifact), it.bytes, &it.sha256));
        for (path, bytes, sha256) in state.chain(kept) {
            let (found_bytes, found) = measure(&path)?;
            if found_bytes != bytes || found != *sha256 {
                let cause = format!("{} is damaged: it is not what {MANIFEST} says", path.display());
                return Err(Failure::new(cause, "another backup"));
            }
            each(bytes);
        }
        Ok(())
    }
}

/// Where an artifact's bytes are.
pub(crate) fn artifact(folder: &Path, id: u64) -> PathBuf {
    folder.join(ARTIFACTS).join(id.to_string())
}

/// Bytes and SHA-256 of a file.
pub(crate) fn measure(path: &Path) -> Result<(u64, String)> {
    let failed = |error| Failure::new(format!("failed to read {}: {error}", path.display()), "another backup");
    let mut file = File::open(path).map_err(failed)?;
    let (mut hash, mut total) = (Sha256::new(), 0);
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok((total, hex(&hash.finalize()))),
            read => {
                hash.update(&buffer[..read]);
                total += read as u64;
            }
        }
    }
}
