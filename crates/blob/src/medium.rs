//! Where the files are: the machine's file system, or one that the simulator brings and that loses in a crash what was not synced.
//!
//! Never here: what a file means. `store` says what is synced when; a medium only does it.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::Result;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A tree of files. Names and contents are durable once they are synced, each by its own call.
pub trait Medium: Debug + Send + Sync {
    /// A new, empty file. Errors: there is one of that name.
    fn create_new(&self, path: &Path) -> Result<Arc<dyn MediumFile>>;
    /// Opens a file for reading and writing; what it holds stays until it is written over.
    fn reopen(&self, path: &Path) -> Result<Arc<dyn MediumFile>>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> Result<Arc<dyn MediumFile>>;
    /// Makes a directory and those above it.
    fn create_dir_all(&self, path: &Path) -> Result<()>;
    /// Gives a file another name, in place of the file that may have it.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Takes a name away; who has the file open reads on.
    fn remove_file(&self, path: &Path) -> Result<()>;
    /// Takes a directory away with all in it.
    fn remove_dir_all(&self, path: &Path) -> Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> Result<()>;
    /// Names in a directory, in any order; those that are no UTF-8 are left out.
    fn list(&self, path: &Path) -> Result<Vec<String>>;
}

/// An open file.
pub trait MediumFile: Debug + Send + Sync {
    /// Writes all of `data` from `offset` on; what lies between the end and there reads as zeros.
    fn write_all_at(&self, data: &[u8], offset: u64) -> Result<()>;
    /// Fills `buffer` from `offset`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;
    /// Bytes in it.
    fn length(&self) -> Result<u64>;
    /// Makes its content durable.
    fn sync(&self) -> Result<()>;
}

/// The machine's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemMedium;

impl Medium for SystemMedium {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn MediumFile>> {
        Ok(Arc::new(OpenOptions::new().create_new(true).read(true).write(true).open(path)?))
    }

    fn reopen(&self, path: &Path) -> Result<Arc<dyn MediumFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn MediumFile>> {
        Ok(Arc::new(File::open(path)?))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }
}

impl MediumFile for File {
    fn write_all_at(&self, data: &[u8], offset: u64) -> Result<()> {
        FileExt::write_all_at(self, data, offset)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn length(&self) -> Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&self) -> Result<()> {
        self.sync_all()
    }
}
