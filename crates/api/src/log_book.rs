//! Logs of running attempts, in files under one directory. An aid, not a promise: nothing is fsynced, each log keeps its tail, and the log
//! that was written longest ago goes when all of them together are too large.
//!
//! A log belongs to one attempt (its lease epoch); offsets count within the attempt, a newer attempt replaces an older one. Appending the
//! same bytes again changes nothing. Called on pool threads only: it reads and writes files under a lock.
//!
//! File: 8 bytes magic, lease epoch (u64, little-endian), offset of the first byte that is kept (u64, little-endian), the bytes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::limits;

const MAGIC: &[u8; 8] = b"RGLOG 1\n";
const HEADER_BYTES: u64 = 24;
const SUFFIX: &str = "log";

/// Why an append was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogBookError {
    /// A newer attempt writes this log.
    #[error("failed to append to the log: STALE_LEASE: attempt {newer} writes it now")]
    Stale { newer: u64 },
    /// The disk.
    #[error("failed to use the log directory: {0}")]
    Io(#[from] io::Error),
}

/// A part of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogPart {
    pub(crate) epoch: u64,
    /// Of the first byte of `data`.
    pub(crate) offset: u64,
    pub(crate) data: Vec<u8>,
    /// Bytes between the offset that was asked for and this one are gone.
    pub(crate) truncated: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    epoch: u64,
    first: u64,
    end: u64,
    /// Rises with each append to any log.
    used: u64,
}

#[derive(Default)]
struct Index {
    entries: BTreeMap<String, Entry>,
    total: u64,
    appends: u64,
}

/// All logs of this replica.
pub(crate) struct LogBook {
    directory: PathBuf,
    index: Mutex<Index>,
}

impl LogBook {
    /// Opens the directory (made if missing) and takes over what is there. A file that is no log is deleted.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut found = Vec::new();
        for file in fs::read_dir(directory)? {
            let file = file?;
            let path = file.path();
            match (path.file_stem().and_then(|stem| stem.to_str()), read_header(&path)) {
                (Some(stem), Ok(Some(entry))) => found.push((file.metadata()?.modified()?, stem.to_owned(), entry)),
                _ => fs::remove_file(&path)?,
            }
        }
        found.sort();
        let mut index = Index::default();
        for (_, stem, (epoch, first, end)) in found {
            index.appends += 1;
            index.total += end - first;
            index.entries.insert(stem, Entry { epoch, first, end, used: index.appends });
        }
        Ok(Self { directory: directory.to_owned(), index: Mutex::new(index) })
    }

    /// Appends what is new of `data`; the offset that is to come next. Bytes that never arrived here are a gap: the log starts again behind it.
    pub(crate) fn append(&self, task_id: &str, epoch: u64, offset: u64, data: &[u8]) -> Result<u64, LogBookError> {
        let stem = stem(task_id);
        let path = self.path(&stem);
        let mut index = self.lock();
        let known = index.entries.get(&stem).copied();
        if let Some(newer) = known.map(|entry| entry.epoch).filter(|newer| *newer > epoch) {
            return Err(LogBookError::Stale { newer });
        }
        let end = offset.saturating_add(data.len() as u64);
        let mut entry = match known.filter(|entry| entry.epoch == epoch && offset <= entry.end) {
            Some(entry) if end <= entry.end => return Ok(entry.end),
            Some(entry) => {
                let skip = usize::try_from(entry.end - offset).unwrap_or(data.len()).min(data.len());
                OpenOptions::new().append(true).open(&path)?.write_all(&data[skip..])?;
                Entry { end, ..entry }
            }
            None => {
                write_log(&path, epoch, offset, data)?;
                Entry { epoch, first: offset, end, used: 0 }
            }
        };
        if entry.end - entry.first > limits::LOG_FILE_BYTES_MAX {
            let first = entry.end - limits::LOG_TAIL_BYTES;
            let tail = read_range(&path, entry.first, first, limits::LOG_TAIL_BYTES)?;
            write_log(&path, epoch, first, &tail)?;
            entry.first = first;
        }
        index.appends += 1;
        entry.used = index.appends;
        index.total -= known.map_or(0, |entry| entry.end - entry.first);
        index.total += entry.end - entry.first;
        index.entries.insert(stem.clone(), entry);
        self.evict(&mut index, &stem)?;
        Ok(entry.end)
    }

    /// At most `bytes_max` bytes from `offset` on, or from the first byte that is kept; None if there is no log. At the end: no bytes.
    pub(crate) fn read(&self, task_id: &str, offset: u64, bytes_max: usize) -> io::Result<Option<LogPart>> {
        let stem = stem(task_id);
        let index = self.lock();
        let Some(entry) = index.entries.get(&stem) else { return Ok(None) };
        let from = offset.clamp(entry.first, entry.end);
        let length = (entry.end - from).min(bytes_max as u64);
        let data = if length == 0 { Vec::new() } else { read_range(&self.path(&stem), entry.first, from, length)? };
        Ok(Some(LogPart { epoch: entry.epoch, offset: from, data, truncated: from > offset }))
    }

    fn evict(&self, index: &mut Index, keep: &str) -> io::Result<()> {
        while index.total > limits::LOG_TOTAL_BYTES_MAX {
            let oldest = index.entries.iter().filter(|(stem, _)| *stem != keep).min_by_key(|(_, entry)| entry.used);
            let Some((stem, entry)) = oldest.map(|(stem, entry)| (stem.clone(), *entry)) else { break };
            fs::remove_file(self.path(&stem))?;
            index.entries.remove(&stem);
            index.total -= entry.end - entry.first;
        }
        Ok(())
    }

    fn path(&self, stem: &str) -> PathBuf {
        self.directory.join(format!("{stem}.{SUFFIX}"))
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // A panic between two statements leaves an index that is off by one append at worst; the log is an aid.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task's id comes from outside and is never a path: its hash is the name.
fn stem(task_id: &str) -> String {
    let hash = Sha256::digest(task_id.as_bytes());
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// (epoch, first, end) of a file; None if it is no log.
fn read_header(path: &Path) -> io::Result<Option<(u64, u64, u64)>> {
    let mut header = [0; HEADER_BYTES as usize];
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if path.extension().is_none_or(|extension| extension != SUFFIX) || length < HEADER_BYTES {
        return Ok(None);
    }
    file.read_exact(&mut header)?;
    let number = |from: usize| {
        let bytes: [u8; 8] = header[from..from + 8].try_into().expect("a slice of 8 bytes");
        u64::from_le_bytes(bytes)
    };
    let (epoch, first) = (number(8), number(16));
    Ok((&header[..8] == MAGIC).then_some((epoch, first, first.saturating_add(length - HEADER_BYTES))))
}

fn write_log(path: &Path, epoch: u64, first: u64, data: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = File::create(&part)?;
    file.write_all(MAGIC)?;
    file.write_all(&epoch.to_le_bytes())?;
    file.write_all(&first.to_le_bytes())?;
    file.write_all(data)?;
    fs::rename(&part, path)
}

fn read_range(path: &Path, first: u64, from: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(HEADER_BYTES + (from - first)))?;
    let mut data = Vec::new();
    file.take(length).read_to_end(&mut data)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> (tempfile::TempDir, LogBook) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let book = LogBook::open(directory.path()).expect("an empty directory");
        (directory, book)
    }

    fn data(book: &LogBook, task: &str, offset: u64) -> (u64, Vec<u8>, bool) {
        let part = book.read(task, offset, 1 << 30).expect("the file is there").expect("a log");
        (part.offset, part.data, part.truncated)
    }

    #[test]
    fn appending_again_changes_nothing_and_an_overlap_adds_its_new_end() {
        let (_directory, book) = book();
        assert_eq!(book.append("t", 7, 0, b"hello ").expect("new"), 6);
        assert_eq!(book.append("t", 7, 0, b"hello ").expect("again"), 6);
        assert_eq!(book.append("t", 7, 3, b"lo world").expect("overlap"), 11);
        assert_eq!(data(&book, "t", 0), (0, b"hello world".to_vec(), false));
        assert_eq!(data(&book, "t", 6), (6, b"world".to_vec(), false));
        assert_eq!(data(&book, "t", 99), (11, Vec::new(), false));
        assert!(book.read("other", 0, 10).expect("no file").is_none());
    }

    #[test]
    fn a_newer_attempt_replaces_the_log_and_an_older_one_is_refused() {
        let (_directory, book) = book();
        book.append("t", 7, 0, b"first").expect("new");
        book.append("t", 9, 0, b"second").expect("newer attempt");
        assert_eq!(data(&book, "t", 0).1, b"second");
        assert!(matches!(book.append("t", 7, 5, b"x"), Err(LogBookError::Stale { newer: 9 })));
    }

    #[test]
    fn a_gap_starts_the_log_behind_it() {
        let (_directory, book) = book();
        book.append("t", 7, 0, b"abc").expect("new");
        assert_eq!(book.append("t", 7, 100, b"def").expect("gap"), 103);
        assert_eq!(data(&book, "t", 0), (100, b"def".to_vec(), true));
    }

    #[test]
    fn a_long_log_keeps_its_tail_and_survives_a_restart() {
        let (directory, book) = book();
        let line = vec![b'x'; 300_000];
        let mut offset = 0;
        for _ in 0..10 {
            offset = book.append("t", 7, offset, &line).expect("append");
        }
        assert_eq!(book.append("t", 7, offset, b"the end").expect("append"), 3_000_007);
        drop(book);
        fs::write(directory.path().join("stray"), b"no log").expect("write");
        let book = LogBook::open(directory.path()).expect("the same directory");
        let (first, tail, truncated) = data(&book, "t", 0);
        assert!(truncated && tail.ends_with(b"the end"));
        assert_eq!(first + tail.len() as u64, 3_000_007);
        assert!((tail.len() as u64) >= limits::LOG_TAIL_BYTES && (tail.len() as u64) <= limits::LOG_FILE_BYTES_MAX);
        assert!(!directory.path().join("stray").exists());
        assert_eq!(book.append("t", 7, 3_000_007, b"!").expect("goes on"), 3_000_008);
    }

    #[test]
    fn the_log_written_longest_ago_goes_first_when_all_are_too_large() {
        let (_directory, book) = book();
        let piece = vec![b'x'; limits::LOG_APPEND_BYTES_MAX];
        let logs = limits::LOG_TOTAL_BYTES_MAX / limits::LOG_APPEND_BYTES_MAX as u64;
        for number in 0..=logs {
            book.append(&format!("t{number}"), 1, 0, &piece).expect("append");
        }
        assert!(book.read("t0", 0, 1).expect("readable").is_none());
        assert!(book.read("t1", 0, 1).expect("readable").is_some());
        assert!(book.read(&format!("t{logs}"), 0, 1).expect("readable").is_some());
    }
}
