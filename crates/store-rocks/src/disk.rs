//! The disk: files and directories through the standard library, databases through RocksDB.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rocksdb::{Cache, ReadOptions, DB};
use uuid::Uuid;

use raftgrid_store::disk::DirEntry;
use raftgrid_store::{Disk, DiskResult};

use crate::database::{RocksLog, RocksLook, RocksState};
use crate::error::{file, rocks};
use crate::limits::{BLOCK_CACHE_BYTES, VERIFY_CACHE_BYTES};
use crate::options;

/// The real disk. Clones share one block cache.
#[derive(Clone)]
pub struct RocksDisk {
    cache: Cache,
}

impl RocksDisk {
    /// A disk; one a process is enough.
    pub fn new() -> Self {
        Self { cache: Cache::new_lru_cache(BLOCK_CACHE_BYTES) }
    }

    /// Opens a tables' database that nobody has open (a backup's), to read its rows.
    pub fn look_at(&self, path: &Path) -> DiskResult<RocksLook> {
        Ok(RocksLook::new(look(&self.cache, path)?, path))
    }
}

/// Opens a tables' database for looking only.
fn look(cache: &Cache, path: &Path) -> DiskResult<DB> {
    // RocksDB makes a directory that is not there, even for a reader.
    fs::metadata(path).map_err(file("open", path))?;
    DB::open_for_read_only(&options::look(cache), path, false).map_err(rocks("open", path))
}

impl Default for RocksDisk {
    fn default() -> Self {
        Self::new()
    }
}

/// What is not there is as good as removed.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn read_at(path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let input = File::open(path)?;
    let mut out = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match input.read_at(&mut out[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    out.truncate(filled);
    Ok(out)
}

fn write_at(path: &Path, offset: u64, data: &[u8]) -> io::Result<()> {
    let out = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    out.write_all_at(data, offset)
}

fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // A name that is not UTF-8 is none of ours.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let about = match entry.metadata() {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let is_dir = about.is_dir();
        out.push(DirEntry { name, is_dir, bytes: if is_dir { 0 } else { about.len() } });
    }
    out.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(out)
}

fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let out = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    rustix::fs::fallocate(&out, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
    out.sync_all()
}

impl Disk for RocksDisk {
    type Log = RocksLog;
    type State = RocksState;

    fn create_dir(&self, path: &Path) -> DiskResult<()> {
        fs::create_dir_all(path).map_err(file("create", path))
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        fs::rename(from, to).map_err(file("rename", from))
    }

    fn remove_dir(&self, path: &Path) -> DiskResult<()> {
        gone(fs::remove_dir_all(path)).map_err(file("remove", path))
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        gone(fs::remove_file(path)).map_err(file("remove", path))
    }

    fn list(&self, path: &Path) -> DiskResult<Vec<DirEntry>> {
        match list(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(file("list", path)),
        }
    }

    fn read(&self, path: &Path) -> DiskResult<Option<Vec<u8>>> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file("read", path)(error)),
        }
    }

    fn read_at(&self, path: &Path, offset: u64, length: usize) -> DiskResult<Vec<u8>> {
        read_at(path, offset, length).map_err(file("read", path))
    }

    fn write_at(&self, path: &Path, offset: u64, data: &[u8]) -> DiskResult<()> {
        write_at(path, offset, data).map_err(file("write", path))
    }

    fn allocate(&self, path: &Path, bytes: u64) -> DiskResult<()> {
        allocate(path, bytes).map_err(file("allocate", path))
    }

    fn sync_file(&self, path: &Path) -> DiskResult<()> {
        File::open(path).and_then(|input| input.sync_all()).map_err(file("sync", path))
    }

    fn sync_dir(&self, path: &Path) -> DiskResult<()> {
        File::open(path).and_then(|input| input.sync_all()).map_err(file("sync", path))
    }

    fn free_bytes(&self, path: &Path) -> DiskResult<u64> {
        let room = rustix::fs::statvfs(path).map_err(|error| file("ask the room of", path)(error.into()))?;
        Ok(room.f_bavail.saturating_mul(room.f_frsize))
    }

    fn nonce(&self) -> u128 {
        Uuid::new_v4().as_u128()
    }

    fn open_log(&self, path: &Path) -> DiskResult<RocksLog> {
        RocksLog::open(&options::log(&self.cache), path)
    }

    fn open_state(&self, path: &Path) -> DiskResult<RocksState> {
        RocksState::open(&options::state(&self.cache), path)
    }

    fn peek_state(&self, path: &Path, keys: &[&[u8]]) -> DiskResult<Vec<Option<Vec<u8>>>> {
        let db = look(&self.cache, path)?;
        keys.iter().map(|key| db.get(key).map_err(rocks("read", path))).collect()
    }

    fn verify_state(&self, path: &Path) -> DiskResult<()> {
        // A cache of its own: the files of a snapshot are those of the tables in use, and a block of theirs that is in memory would hide that
        // the disk has another.
        let db = look(&Cache::new_lru_cache(VERIFY_CACHE_BYTES), path)?;
        let mut read = ReadOptions::default();
        read.set_verify_checksums(true);
        // A whole state must not push out the blocks in use.
        read.fill_cache(false);
        let mut rows = db.raw_iterator_opt(read);
        rows.seek_to_first();
        while rows.valid() {
            rows.next();
        }
        rows.status().map_err(rocks("verify", path))
    }
}
