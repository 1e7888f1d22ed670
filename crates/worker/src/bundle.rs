//! Code bundles: tar artifacts, fetched and unpacked once per machine, copied for each attempt.
//!
//! Never here: links, devices, or any path that leaves the folder. A folder appears under its final name only when it is complete. Nobody
//! runs in it: an attempt gets a copy, so that what it writes beside its code reaches no other attempt.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use raftgrid_crashpoint::{reach, Point};

use crate::limits::{BUNDLES_KEPT, BUNDLE_BYTES_MAX, BUNDLE_ENTRIES_MAX};
use crate::plan::{exit_code, PlanError};
use crate::plane::{ControlPlane, PlaneError};
use crate::table::lock;

/// Why a bundle was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not a tar, or the disk failed.
    #[error("failed to unpack the bundle: {0}")]
    Io(#[from] std::io::Error),
    /// An entry that may not be there.
    #[error("failed to unpack the bundle: `{path}` {why}")]
    Entry {
        /// As it stands in the tar.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Too much in it.
    #[error("failed to unpack the bundle: more than {0}")]
    TooLarge(String),
}

/// Unpacks a tar into `folder`, which exists and is empty. Only files and folders inside it; bounded in number and size.
pub fn unpack(archive: impl Read, folder: &Path) -> Result<(), BundleError> {
    let mut archive = tar::Archive::new(archive);
    let mut entries = 0;
    let mut bytes_left = BUNDLE_BYTES_MAX;
    for entry in archive.entries()? {
        let mut entry = entry?;
        entries += 1;
        if entries > BUNDLE_ENTRIES_MAX {
            return Err(BundleError::TooLarge(format!("{BUNDLE_ENTRIES_MAX} entries")));
        }
        let path = entry.path()?.into_owned();
        let refused = |why| BundleError::Entry { path: path.display().to_string(), why };
        if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(refused("leaves the bundle's folder"));
        }
        let target = folder.join(&path);
        match entry.header().entry_type() {
            tar::EntryType::Directory => fs::create_dir_all(&target)?,
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent)?;
                }
                let executable = entry.header().mode()? & 0o111 != 0;
                // Fails on a second entry of the same name: the first may be what was checked.
                let mut file = File::create_new(&target).map_err(|error| match error.kind() {
                    std::io::ErrorKind::AlreadyExists => refused("stands there twice"),
                    _ => BundleError::Io(error),
                })?;
                let copied = std::io::copy(&mut (&mut entry).take(bytes_left + 1), &mut file)?;
                bytes_left = bytes_left
                    .checked_sub(copied)
                    .ok_or_else(|| BundleError::TooLarge(format!("{BUNDLE_BYTES_MAX} bytes")))?;
                file.set_permissions(fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
            }
            tar::EntryType::XGlobalHeader => {}
            tar::EntryType::Symlink | tar::EntryType::Link => {
                return Err(refused("is a link; put the file itself there"))
            }
            _ => return Err(refused("is neither a file nor a folder")),
        }
    }
    Ok(())
}

/// Where a bundle is unpacked, once it is.
type Slot = Arc<Mutex<Option<PathBuf>>>;

/// Bundles by artifact id, in the order of their last use, the newest last.
#[derive(Default)]
struct Ready {
    slots: BTreeMap<String, Slot>,
    order: Vec<String>,
}

/// Unpacked bundles of this machine, below one folder.
pub struct Bundles {
    folder: PathBuf,
    /// The inner lock makes one fetch of many who want the same.
    ready: Mutex<Ready>,
    /// Read: a folder is found or copied. Written: folders are removed.
    folders: RwLock<()>,
}

impl Bundles {
    /// Starts empty: what a crash left half-written must not be run.
    pub fn new(folder: PathBuf) -> std::io::Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, ready: Mutex::default(), folders: RwLock::default() })
    }

    /// Makes `target` with the bundle's files, fetched and verified if they are not here yet. Returns the bundle's SHA-256 as hexadecimal
    /// digits.
    pub fn copy_to(&self, artifact: &str, plane: &dyn ControlPlane, target: &Path) -> Result<String, PlanError> {
        let slot = self.slot(artifact);
        let name = {
            let _folders = self.folders.read().unwrap_or_else(PoisonError::into_inner);
            let mut slot = lock(&slot);
            let source = match slot.clone().filter(|folder| folder.is_dir()) {
                Some(source) => source,
                None => slot.insert(self.fetch(artifact, plane)?).clone(),
            };
            drop(slot);
            copy_tree(&source, target).map_err(|error| {
                PlanError::new(exit_code::OS, format!("failed to copy the bundle on this worker: {error}"))
            })?;
            source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        self.prune();
        Ok(name)
    }

    fn slot(&self, artifact: &str) -> Slot {
        let mut ready = lock(&self.ready);
        ready.order.retain(|known| known != artifact);
        ready.order.push(artifact.to_owned());
        ready.slots.entry(artifact.to_owned()).or_default().clone()
    }

    /// Removes what was used longest ago beyond `BUNDLES_KEPT`.
    fn prune(&self) {
        let mut ready = lock(&self.ready);
        if ready.order.len() <= BUNDLES_KEPT {
            return;
        }
        // Somebody fetches or copies: the next attempt prunes.
        let Ok(_folders) = self.folders.try_write() else { return };
        let excess = ready.order.len() - BUNDLES_KEPT;
        let gone: Vec<String> = ready.order.drain(..excess).collect();
        let gone: Vec<Slot> = gone.iter().filter_map(|artifact| ready.slots.remove(artifact)).collect();
        // Two artifacts with the same content share a folder: whoever misses it fetches it again.
        for folder in gone.iter().filter_map(|slot| lock(slot).take()) {
            // What cannot be removed goes with the next start.
            let _ = fs::remove_dir_all(folder);
        }
    }

    fn fetch(&self, artifact: &str, plane: &dyn ControlPlane) -> Result<PathBuf, PlanError> {
        let disk = |error: std::io::Error| {
            PlanError::new(exit_code::OS, format!("failed to store the bundle on this worker: {error}"))
        };
        let mut file = tempfile::tempfile_in(&self.folder).map_err(disk)?;
        let digest = plane.get_artifact(artifact, &mut file).map_err(|error| match error {
            PlaneError::NotFound(_) => PlanError::new(exit_code::NO_INPUT, format!("bundle {artifact} does not exist")),
            other => PlanError::new(exit_code::TRY_AGAIN, format!("failed to fetch bundle {artifact}: {other}")),
        })?;
        file.seek(SeekFrom::Start(0)).map_err(disk)?;
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let target = self.folder.join(&name);
        if target.is_dir() {
            return Ok(target);
        }
        let unpacked = tempfile::Builder::new().prefix("unpack-").tempdir_in(&self.folder).map_err(disk)?;
        unpack(std::io::BufReader::new(file), unpacked.path()).map_err(|error| {
            // A disk that is full says nothing about the bundle.
            let ours = matches!(&error, BundleError::Io(cause) if is_ours(cause.kind()));
            PlanError::new(if ours { exit_code::OS } else { exit_code::DATA }, error.to_string())
        })?;
        fs::set_permissions(unpacked.path(), fs::Permissions::from_mode(0o755)).map_err(disk)?;
        reach(Point::BundleUnpacked);
        match fs::rename(unpacked.path(), &target) {
            Ok(()) => Ok(target),
            // Another artifact with the same content came first.
            Err(_) if target.is_dir() => Ok(target),
            Err(error) => Err(disk(error)),
        }
    }
}

/// Whether this machine's disk is the cause.
fn is_ours(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(kind, Kind::StorageFull | Kind::QuotaExceeded | Kind::ReadOnlyFilesystem | Kind::PermissionDenied)
}

/// Copies files and folders with their permissions; there is nothing else in a bundle. `to` must not exist.
fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(builder: &mut tar::Builder<Vec<u8>>, name: &str, kind: tar::EntryType, data: &[u8], link: Option<&str>) {
        let mut header = tar::Header::new_gnu();
        // Written as bytes: the crate itself refuses to write such paths.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o755);
        if let Some(link) = link {
            header.set_link_name(link).expect("short");
        }
        header.set_cksum();
        builder.append(&header, data).expect("memory");
    }

    fn tar_of(name: &str, kind: tar::EntryType, link: Option<&str>) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        entry(&mut builder, name, kind, if link.is_some() { b"" } else { b"data" }, link);
        builder.into_inner().expect("memory")
    }

    #[test]
    fn files_and_folders_come_out_as_they_went_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut builder = tar::Builder::new(Vec::new());
        entry(&mut builder, "./", tar::EntryType::Directory, b"", None);
        entry(&mut builder, "./sub/a.py", tar::EntryType::Regular, b"print(1)", None);
        unpack(&builder.into_inner().expect("memory")[..], folder.path()).expect("harmless");
        assert_eq!(fs::read(folder.path().join("sub/a.py")).expect("there"), b"print(1)");
    }

    #[test]
    fn nothing_is_written_outside_the_folder() {
        let outer = tempfile::tempdir().expect("a folder");
        let folder = outer.path().join("inner");
        fs::create_dir(&folder).expect("writable");
        for path in ["../x", "a/../../x", "/tmp/raftgrid-x"] {
            let refused = unpack(&tar_of(path, tar::EntryType::Regular, None)[..], &folder);
            assert!(matches!(refused, Err(BundleError::Entry { .. })), "{path}: {refused:?}");
        }
        assert!(!outer.path().join("x").exists());
    }

    #[test]
    fn links_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Fifo] {
            let refused = unpack(&tar_of("a", kind, Some("/etc/passwd"))[..], folder.path());
            assert!(matches!(refused, Err(BundleError::Entry { .. })), "{kind:?}: {refused:?}");
        }
    }

    #[test]
    fn an_entry_that_stands_there_twice_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut builder = tar::Builder::new(Vec::new());
        entry(&mut builder, "a.py", tar::EntryType::Regular, b"1", None);
        entry(&mut builder, "a.py", tar::EntryType::Regular, b"2", None);
        assert!(unpack(&builder.into_inner().expect("memory")[..], folder.path()).is_err());
    }
}
