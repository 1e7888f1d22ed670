//! A body on its way: in memory while all of them together stay below a limit, else in an unlinked file.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use tempfile::SpooledTempFile;

use crate::limits::SPOOL_MEMORY_BYTES_MAX;

/// Where spools are made.
#[derive(Clone)]
pub(crate) struct Spools {
    folder: PathBuf,
    in_memory: Arc<AtomicUsize>,
}

/// One body.
pub(crate) struct Spool {
    file: SpooledTempFile,
    reserved: usize,
    in_memory: Arc<AtomicUsize>,
}

impl Spools {
    pub(crate) fn new(folder: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder, in_memory: Arc::new(AtomicUsize::new(0)) })
    }

    /// For a body of so many bytes; 0: not announced, it goes to a file.
    pub(crate) fn begin(&self, total_bytes: u64) -> Spool {
        let wanted = usize::try_from(total_bytes).unwrap_or(usize::MAX);
        let room = |used: usize| used.checked_add(wanted).filter(|sum| *sum <= SPOOL_MEMORY_BYTES_MAX);
        let fits = wanted > 0 && self.in_memory.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room).is_ok();
        let reserved = if fits { wanted } else { 0 };
        Spool {
            file: tempfile::spooled_tempfile_in(reserved, &self.folder),
            reserved,
            in_memory: self.in_memory.clone(),
        }
    }
}

impl Spool {
    /// Whether it holds its bytes in memory.
    #[cfg(test)]
    fn is_in_memory(&self) -> bool {
        !self.file.is_rolled()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.in_memory.fetch_sub(self.reserved, Ordering::SeqCst);
    }
}

impl Write for Spool {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.file.write(data)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Read for Spool {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for Spool {
    fn seek(&mut self, position: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(spools: &Spools, bytes: usize) -> Spool {
        let mut spool = spools.begin(bytes as u64);
        spool.write_all(&vec![7; bytes]).expect("room");
        spool
    }

    #[test]
    fn memory_is_bounded_over_all_spools_and_given_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let spools = Spools::new(folder.path().to_owned()).expect("writable");
        let first = filled(&spools, SPOOL_MEMORY_BYTES_MAX - 10);
        let second = filled(&spools, 11);
        assert!(first.is_in_memory() && !second.is_in_memory());
        drop(first);
        assert!(filled(&spools, 11).is_in_memory());
    }

    #[test]
    fn a_body_that_is_longer_than_announced_does_not_take_more_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let spools = Spools::new(folder.path().to_owned()).expect("writable");
        let mut spool = spools.begin(4);
        spool.write_all(&[1; 64]).expect("room");
        assert!(!spool.is_in_memory());
        spool.seek(SeekFrom::Start(0)).expect("a file");
        let mut all = Vec::new();
        spool.read_to_end(&mut all).expect("a file");
        assert_eq!(all, [1; 64]);
    }
}
