//! The medium and the handle that the store has of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raftgrid_store::disk::{DirEntry, DiskResult};
use raftgrid_store::{Disk, DiskErrorKind};

use super::image;
use super::log_db::SimLog;
use super::node::{Body, Db, Dir, Ino, LogRows, Rows, StateRows};
use super::state_db::SimState;
use super::tree::failed;
use crate::rng::Rng;

/// The root directory, which is always there.
pub(super) const ROOT: Ino = 0;

/// What may be wrong with a medium while a process uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Nothing more can be written.
    pub full: bool,
    /// The next fsync fails.
    pub sync_fails: bool,
}

pub(super) struct Medium {
    pub(super) inodes: BTreeMap<Ino, Body>,
    pub(super) next_ino: Ino,
    pub(super) rng: Rng,
    pub(super) generation: u64,
    pub(super) damage: Damage,
    pub(super) free_bytes: u64,
    /// Changes until the process dies in the middle of what it does.
    pub(super) fuse: Option<u64>,
}

/// A handle to a medium, of one life of one process.
#[derive(Clone)]
pub struct SimDisk {
    pub(super) medium: Arc<Mutex<Medium>>,
    pub(super) generation: u64,
}

/// Room on a disk that is not low.
const ROOM_BYTES: u64 = 1 << 40;

impl SimDisk {
    /// A new, empty disk.
    pub fn new(rng: Rng) -> Self {
        let mut root = Dir::default();
        root.sync();
        let inodes = BTreeMap::from([(ROOT, Body::Dir(root))]);
        let medium = Medium {
            inodes,
            next_ino: ROOT,
            rng,
            generation: 0,
            damage: Damage::default(),
            free_bytes: ROOM_BYTES,
            fuse: None,
        };
        Self { medium: Arc::new(Mutex::new(medium)), generation: 0 }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Medium> {
        self.medium.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The medium, for a call of the process that this handle belongs to.
    pub(super) fn live(&self, action: &'static str, path: &Path) -> DiskResult<MutexGuard<'_, Medium>> {
        let medium = self.lock();
        if medium.generation != self.generation || medium.fuse == Some(0) {
            return Err(failed(DiskErrorKind::Other, action, path, "this process has crashed"));
        }
        Ok(medium)
    }

    /// The same for a call that changes something: the process may die at it.
    pub(super) fn changing(&self, action: &'static str, path: &Path) -> DiskResult<MutexGuard<'_, Medium>> {
        let mut medium = self.live(action, path)?;
        if let Some(left) = medium.fuse {
            medium.fuse = Some(left - 1);
            if left == 1 {
                return Err(failed(DiskErrorKind::Other, action, path, "this process dies here"));
            }
        }
        Ok(medium)
    }

    /// The same for a call that needs room.
    pub(super) fn writable(&self, action: &'static str, path: &Path) -> DiskResult<MutexGuard<'_, Medium>> {
        let medium = self.changing(action, path)?;
        if medium.damage.full {
            return Err(failed(DiskErrorKind::NoSpace, action, path, "the disk is full"));
        }
        Ok(medium)
    }

    /// From the `changes`th change on every call fails: the process dies in the middle of a step. None: it does not.
    pub fn set_fuse(&self, changes: Option<u64>) {
        self.lock().fuse = changes.map(|changes| changes.max(1));
    }

    /// Whether the fuse has burnt down: the process is dead.
    pub fn has_blown(&self) -> bool {
        self.lock().fuse == Some(0)
    }

    /// Sets what is wrong with the medium.
    pub fn set_damage(&self, damage: Damage) {
        self.lock().damage = damage;
    }

    /// What is wrong with it.
    pub fn damage(&self) -> Damage {
        self.lock().damage
    }

    /// Sets how much room there is, or all that there ever was.
    pub fn set_free_bytes(&self, bytes: Option<u64>) {
        self.lock().free_bytes = bytes.unwrap_or(ROOM_BYTES);
    }

    /// A handle for the next process.
    pub fn reopened(&self) -> Self {
        let generation = self.lock().generation;
        Self { medium: Arc::clone(&self.medium), generation }
    }

    fn database(&self, path: &Path, make: impl FnOnce(&Medium, Ino) -> DiskResult<Db>) -> DiskResult<Ino> {
        let mut medium = self.live("open", path)?;
        let ino = medium.create_dir(path)?;
        if medium.db(ino).is_none() {
            let db = make(&medium, ino)?;
            if let Some(dir) = medium.dir_mut(ino) {
                dir.db = Some(db);
            }
        }
        Ok(ino)
    }
}

/// The rows in the files of a directory.
pub(super) fn rows_of(medium: &Medium, ino: Ino) -> Result<Rows, String> {
    let Some(Body::Dir(dir)) = medium.inodes.get(&ino) else { return Err("it is no directory".to_owned()) };
    image::rows(|name| content(medium, dir, name))
}

fn content<'a>(medium: &'a Medium, dir: &Dir, name: &str) -> Option<&'a [u8]> {
    match dir.visible.get(name).and_then(|ino| medium.inodes.get(ino)) {
        Some(Body::File(file)) => Some(&file.visible),
        Some(Body::Dir(_)) | None => None,
    }
}

/// The rows of a tables' database that nobody has open.
fn closed_rows(medium: &Medium, path: &Path) -> DiskResult<Rows> {
    let ino = medium.find(path).ok_or_else(|| failed(DiskErrorKind::Missing, "open", path, "not there"))?;
    if let Some(Body::Dir(Dir { db: Some(Db::State(state)), .. })) = medium.inodes.get(&ino) {
        return Ok((*state.visible).clone());
    }
    rows_of(medium, ino).map_err(|cause| failed(DiskErrorKind::Corrupted, "open", path, &cause))
}

impl Disk for SimDisk {
    type Log = SimLog;
    type State = SimState;

    fn create_dir(&self, path: &Path) -> DiskResult<()> {
        self.changing("create", path)?.create_dir(path).map(drop)
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.changing("rename", from)?.rename(from, to)
    }

    fn remove_dir(&self, path: &Path) -> DiskResult<()> {
        self.changing("remove", path)?.remove(path)
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        self.changing("remove", path)?.remove(path)
    }

    fn list(&self, path: &Path) -> DiskResult<Vec<DirEntry>> {
        Ok(self.live("list", path)?.list(path))
    }

    fn read(&self, path: &Path) -> DiskResult<Option<Vec<u8>>> {
        Ok(self.live("read", path)?.file(path).map(|file| file.visible.clone()))
    }

    fn read_at(&self, path: &Path, offset: u64, length: usize) -> DiskResult<Vec<u8>> {
        let medium = self.live("read", path)?;
        let file = medium.file(path).ok_or_else(|| failed(DiskErrorKind::Missing, "read", path, "not there"))?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(file.visible.len());
        let to = from.saturating_add(length).min(file.visible.len());
        Ok(file.visible[from..to].to_vec())
    }

    fn write_at(&self, path: &Path, offset: u64, data: &[u8]) -> DiskResult<()> {
        let mut medium = self.writable("write", path)?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        medium.file_mut("write", path)?.write(offset, data);
        Ok(())
    }

    fn allocate(&self, path: &Path, _bytes: u64) -> DiskResult<()> {
        // What it occupies is part of `set_free_bytes`.
        let mut medium = self.writable("allocate", path)?;
        medium.file_mut("allocate", path)?.sync();
        Ok(())
    }

    fn sync_file(&self, path: &Path) -> DiskResult<()> {
        self.changing("sync", path)?.sync_file(path)
    }

    fn sync_dir(&self, path: &Path) -> DiskResult<()> {
        self.changing("sync", path)?.sync_dir(path)
    }

    fn free_bytes(&self, path: &Path) -> DiskResult<u64> {
        Ok(self.live("ask the room of", path)?.free_bytes)
    }

    fn nonce(&self) -> u128 {
        let mut medium = self.lock();
        u128::from(medium.rng.next()) << 64 | u128::from(medium.rng.next())
    }

    fn open_log(&self, path: &Path) -> DiskResult<SimLog> {
        let ino = self.database(path, |_, _| Ok(Db::Log(LogRows::default())))?;
        let mut medium = self.live("open", path)?;
        match medium.db(ino) {
            Some(Db::Log(rows)) if rows.open => Err(failed(DiskErrorKind::Locked, "open", path, "it is open")),
            Some(Db::Log(rows)) if rows.rotten => {
                Err(failed(DiskErrorKind::Corrupted, "open", path, "a checksum is wrong"))
            }
            Some(Db::Log(rows)) => {
                // What is recovered from the write-ahead log is flushed before the database is open.
                rows.open = true;
                rows.sync();
                drop(medium);
                Ok(SimLog::new(self.clone(), ino, path))
            }
            _ => Err(failed(DiskErrorKind::Corrupted, "open", path, "it is no log")),
        }
    }

    fn open_state(&self, path: &Path) -> DiskResult<SimState> {
        let ino = self.database(path, |medium, ino| {
            let Some(Body::Dir(dir)) = medium.inodes.get(&ino) else { return Ok(Db::State(StateRows::default())) };
            if dir.visible.is_empty() {
                return Ok(Db::State(StateRows::default()));
            }
            let rows = rows_of(medium, ino).map_err(|cause| failed(DiskErrorKind::Corrupted, "open", path, &cause))?;
            Ok(Db::State(StateRows::of(rows)))
        })?;
        let mut medium = self.live("open", path)?;
        match medium.db(ino) {
            Some(Db::State(rows)) if rows.open => Err(failed(DiskErrorKind::Locked, "open", path, "it is open")),
            Some(Db::State(rows)) => {
                rows.open = true;
                drop(medium);
                Ok(SimState::new(self.clone(), ino, path))
            }
            _ => Err(failed(DiskErrorKind::Corrupted, "open", path, "it is no state")),
        }
    }

    fn peek_state(&self, path: &Path, keys: &[&[u8]]) -> DiskResult<Vec<Option<Vec<u8>>>> {
        let medium = self.live("open", path)?;
        let ino = medium.find(path).ok_or_else(|| failed(DiskErrorKind::Missing, "open", path, "not there"))?;
        match medium.inodes.get(&ino) {
            Some(Body::Dir(Dir { db: Some(Db::State(state)), .. })) => {
                Ok(keys.iter().map(|key| state.visible.get(*key).cloned()).collect())
            }
            Some(Body::Dir(dir)) => image::peek(|name| content(&medium, dir, name), keys)
                .map_err(|cause| failed(DiskErrorKind::Corrupted, "open", path, &cause)),
            Some(Body::File(_)) | None => Err(failed(DiskErrorKind::Missing, "open", path, "it is no directory")),
        }
    }

    fn verify_state(&self, path: &Path) -> DiskResult<()> {
        closed_rows(&*self.live("verify", path)?, path).map(drop)
    }
}
