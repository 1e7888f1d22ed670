//! The files of fragments on a simulated disk: what `blob` does with the machine's file system, done to the tree that can lose it.

use std::fmt;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raftgrid_blob::medium::{Medium, MediumFile};
use raftgrid_store::{DiskError, DiskErrorKind};

use super::medium::SimDisk;
use super::node::{Body, File, Ino};
use super::tree::failed;

fn io(error: DiskError) -> Error {
    let kind = match error.kind {
        DiskErrorKind::NoSpace => ErrorKind::StorageFull,
        DiskErrorKind::Missing => ErrorKind::NotFound,
        DiskErrorKind::Corrupted | DiskErrorKind::Locked | DiskErrorKind::Other => ErrorKind::Other,
    };
    Error::new(kind, error.to_string())
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SimDisk").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl SimDisk {
    /// What a loss of power would leave of a file, at the least.
    pub fn durable_file(&self, path: &Path) -> Option<Vec<u8>> {
        self.lock().durable_file(path).map(<[u8]>::to_vec)
    }

    fn opened(&self, ino: Ino, path: &Path) -> Arc<dyn MediumFile> {
        Arc::new(Open { disk: self.clone(), ino, path: path.to_owned() })
    }
}

impl Medium for SimDisk {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn MediumFile>> {
        let mut medium = self.writable("create", path).map_err(io)?;
        if medium.find(path).is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, path.display().to_string()));
        }
        medium.file_mut("create", path).map_err(io)?;
        let ino = medium.find(path).ok_or(ErrorKind::NotFound)?;
        drop(medium);
        Ok(self.opened(ino, path))
    }

    fn reopen(&self, path: &Path) -> Result<Arc<dyn MediumFile>> {
        self.open(path)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn MediumFile>> {
        let medium = self.live("open", path).map_err(io)?;
        let ino = medium.find(path).ok_or(ErrorKind::NotFound)?;
        drop(medium);
        Ok(self.opened(ino, path))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.changing("create", path).and_then(|mut medium| medium.create_dir(path)).map(drop).map_err(io)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.changing("rename", from).and_then(|mut medium| medium.move_to(from, to)).map_err(io)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.remove_dir_all(path)
    }

    fn remove_dir_all(&self, path: &Path) -> Result<()> {
        let mut medium = self.changing("remove", path).map_err(io)?;
        medium.find(path).ok_or(ErrorKind::NotFound)?;
        medium.remove(path).map_err(io)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.changing("sync", path).and_then(|mut medium| medium.sync_dir(path)).map_err(io)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let medium = self.live("list", path).map_err(io)?;
        medium.find(path).ok_or(ErrorKind::NotFound)?;
        Ok(medium.list(path).into_iter().map(|entry| entry.name).collect())
    }
}

/// An open file: it is read on when its name is another or gone.
#[derive(Debug)]
struct Open {
    disk: SimDisk,
    ino: Ino,
    path: PathBuf,
}

impl Open {
    fn read<T>(&self, read: impl FnOnce(&File) -> Result<T>) -> Result<T> {
        let medium = self.disk.live("read", &self.path).map_err(io)?;
        match medium.inodes.get(&self.ino) {
            Some(Body::File(file)) => read(file),
            _ => Err(ErrorKind::NotFound.into()),
        }
    }
}

impl MediumFile for Open {
    fn write_all_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let mut medium = self.disk.writable("write", &self.path).map_err(io)?;
        match medium.inodes.get_mut(&self.ino) {
            Some(Body::File(file)) => {
                file.write(usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge)?, data);
                Ok(())
            }
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.read(|file| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let to = from.saturating_add(buffer.len());
            let found = file.visible.get(from..to).ok_or(ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(found);
            Ok(())
        })
    }

    fn length(&self) -> Result<u64> {
        self.read(|file| Ok(file.visible.len() as u64))
    }

    fn sync(&self) -> Result<()> {
        let mut medium = self.disk.changing("sync", &self.path).map_err(io)?;
        if medium.damage.sync_fails {
            return Err(io(failed(DiskErrorKind::Other, "sync", &self.path, "input/output error")));
        }
        match medium.inodes.get_mut(&self.ino) {
            Some(Body::File(file)) => {
                file.sync();
                Ok(())
            }
            _ => Err(ErrorKind::NotFound.into()),
        }
    }
}
