//! Files that nobody needs any more and that are written over instead of new ones: `<root>/spare/`.
//!
//! A round of training deletes as many bytes as it makes. A new file costs the file system its blocks and their journal, and the kernel its pages,
//! which a virtual machine may first have to get back from its host: up to ten times what copying the bytes costs (docs/benchmarks.md). A file
//! that is written over has both.
//!
//! Invariant: a file comes here only when nobody has it open and the loss of its old name is durable, so no reader and no crash can find another's
//! bytes under a name. What is here is nobody's; it is deleted when the store is opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::limits::{SPARE_BYTES_MAX, SPARE_FILE_BYTES_MIN, SPARE_SHARE_OF_FREE};
use crate::medium::{Medium, MediumFile};
use crate::store::{clear, io, BlobError};

/// Dead names that are kept at least before they are cleaned up.
const NAMES_MIN: usize = 1_024;

/// How much is kept to be written over.
#[derive(Clone, Copy, Debug)]
pub struct SpareLimits {
    /// Files below this many bytes are deleted.
    pub file_bytes_min: u64,
    /// Bytes of all together.
    pub bytes_max: u64,
}

impl Default for SpareLimits {
    fn default() -> Self {
        Self { file_bytes_min: SPARE_FILE_BYTES_MIN, bytes_max: SPARE_BYTES_MAX }
    }
}

/// Who has a file open: as many as there are clones.
pub(crate) type Open = Arc<()>;

/// A file that has lost its name, but not durably yet. It is deleted if it is not offered.
#[derive(Debug)]
pub(crate) struct SetAside {
    medium: Arc<dyn Medium>,
    path: PathBuf,
    name: u64,
    bytes: u64,
    offered: bool,
}

impl Drop for SetAside {
    fn drop(&mut self) {
        if !self.offered {
            // What stays is cleared at the next start.
            let _ = self.medium.remove_file(&self.path);
        }
    }
}

/// The spare files of one store, and which of its files are open. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Spares {
    medium: Arc<dyn Medium>,
    folder: PathBuf,
    limits: SpareLimits,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Name of the file → its bytes; the newest has the highest.
    kept: BTreeMap<u64, u64>,
    next: u64,
    /// Files with a name that are, or were, open.
    open: BTreeMap<PathBuf, Weak<()>>,
    clean_at: usize,
    /// Below it, files were there at the last `age`.
    old_below: u64,
    /// What the disk has room for, as far as it was looked at.
    room: Option<u64>,
}

impl State {
    fn bytes(&self) -> u64 {
        self.kept.values().sum()
    }

    /// Takes the oldest out that are too many for the limit and for the room.
    fn too_many(&mut self, bytes_max: u64) -> Vec<u64> {
        let most = bytes_max.min(self.room.unwrap_or(bytes_max));
        let mut names = Vec::new();
        while self.bytes() > most {
            let Some((oldest, _)) = self.kept.pop_first() else { break };
            names.push(oldest);
        }
        names
    }
}

impl Spares {
    /// Empties the folder, makes it if it is missing.
    pub(crate) fn open(medium: Arc<dyn Medium>, folder: &Path, limits: SpareLimits) -> Result<Self, BlobError> {
        clear(medium.as_ref(), folder)?;
        medium.create_dir_all(folder).map_err(io("create", folder))?;
        Ok(Self { medium, folder: folder.to_owned(), limits, state: Arc::default() })
    }

    /// Opens the file of this name for reading.
    pub(crate) fn open_file(&self, path: &Path) -> std::io::Result<(Arc<dyn MediumFile>, Open)> {
        // Under the lock: the file that is opened is the one whose token it is.
        let mut state = self.lock();
        let file = self.medium.open(path)?;
        if let Some(open) = state.open.get(path).and_then(Weak::upgrade) {
            return Ok((file, open));
        }
        if state.open.len() >= state.clean_at.max(NAMES_MIN) {
            state.open.retain(|_, open| open.strong_count() > 0);
            state.clean_at = state.open.len() * 2;
        }
        let open = Open::default();
        state.open.insert(path.to_owned(), Arc::downgrade(&open));
        Ok((file, open))
    }

    /// Gives an open file a name, in place of the file that may have it.
    pub(crate) fn rename(&self, from: &Path, to: &Path, open: &Open) -> std::io::Result<()> {
        let mut state = self.lock();
        self.medium.rename(from, to)?;
        state.open.insert(to.to_owned(), Arc::downgrade(open));
        Ok(())
    }

    /// Takes the file's name away; what comes back may be offered once that is durable. Errors: the disk's; none if there is no file.
    pub(crate) fn set_aside(&self, path: &Path) -> std::io::Result<Option<SetAside>> {
        let mut state = self.lock();
        let is_open = state.open.remove(path).is_some_and(|open| open.strong_count() > 0);
        self.leave(state, path, is_open)
    }

    /// The same of a file that has had no name by which others open it; `open`: that of the caller.
    pub(crate) fn set_own_aside(&self, path: &Path, open: &Open) -> std::io::Result<Option<SetAside>> {
        self.leave(self.lock(), path, Arc::strong_count(open) > 1)
    }

    fn leave(&self, mut state: MutexGuard<'_, State>, path: &Path, is_open: bool) -> std::io::Result<Option<SetAside>> {
        let bytes = match self.medium.open(path).and_then(|file| file.length()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if is_open || bytes < self.limits.file_bytes_min || bytes > self.limits.bytes_max {
            // A large file takes its time: whoever opens others does not wait for it.
            drop(state);
            self.medium.remove_file(path)?;
            return Ok(None);
        }
        state.next += 1;
        let (name, medium) = (state.next, self.medium.clone());
        let spare = self.path(name);
        self.medium.rename(path, &spare)?;
        Ok(Some(SetAside { medium, path: spare, name, bytes, offered: false }))
    }

    /// The loss of their names is durable, or does not matter after a crash.
    pub(crate) fn offer(&self, files: impl IntoIterator<Item = SetAside>) {
        let too_many = {
            let mut state = self.lock();
            for mut file in files {
                file.offered = true;
                state.kept.insert(file.name, file.bytes);
            }
            state.too_many(self.limits.bytes_max)
        };
        self.delete(too_many);
    }

    /// The disk has so many free bytes: of them and what is kept here, a share is kept.
    pub(crate) fn fit(&self, free_bytes: u64) {
        let too_many = {
            let mut state = self.lock();
            state.room = Some(free_bytes.saturating_add(state.bytes()) / SPARE_SHARE_OF_FREE);
            state.too_many(self.limits.bytes_max)
        };
        self.delete(too_many);
    }

    /// A file that has at most `bytes`, and not much less: under `path`, to be written over. Its length.
    pub(crate) fn take(&self, bytes: u64, path: &Path) -> Option<u64> {
        let mut state = self.lock();
        let fits = |kept: &u64| *kept <= bytes && *kept >= bytes / 2;
        let best = state.kept.iter().filter(|(_, kept)| fits(kept)).max_by_key(|(_, kept)| **kept);
        let (name, kept) = best.map(|(name, kept)| (*name, *kept))?;
        self.medium.rename(&self.path(name), path).ok()?;
        state.kept.remove(&name);
        Some(kept)
    }

    /// Deletes what has been here since the last call.
    pub(crate) fn age(&self) {
        let old = {
            let mut state = self.lock();
            let old_below = state.old_below;
            let younger = state.kept.split_off(&old_below);
            state.old_below = state.next + 1;
            std::mem::replace(&mut state.kept, younger)
        };
        self.delete(old.into_keys());
    }

    /// Deletes all: the disk is almost full.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut self.lock().kept);
        self.delete(all.into_keys());
    }

    fn delete(&self, names: impl IntoIterator<Item = u64>) {
        for name in names {
            // What stays is cleared at the next start.
            let _ = self.medium.remove_file(&self.path(name));
        }
    }

    fn path(&self, name: u64) -> PathBuf {
        self.folder.join(name.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
