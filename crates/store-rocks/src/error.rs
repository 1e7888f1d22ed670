//! Which kind of failure it was.

use std::io;
use std::path::Path;

use raftgrid_store::{DiskError, DiskErrorKind};

fn error(kind: DiskErrorKind, action: &'static str, path: &Path, cause: String) -> DiskError {
    DiskError { kind, action, path: path.display().to_string(), cause }
}

pub(crate) fn file(action: &'static str, path: &Path) -> impl Fn(io::Error) -> DiskError {
    let path = path.to_path_buf();
    move |cause| {
        let kind = match cause.kind() {
            io::ErrorKind::NotFound => DiskErrorKind::Missing,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskErrorKind::NoSpace,
            _ => DiskErrorKind::Other,
        };
        error(kind, action, &path, cause.to_string())
    }
}

pub(crate) fn rocks(action: &'static str, path: &Path) -> impl Fn(rocksdb::Error) -> DiskError {
    let path = path.to_path_buf();
    move |cause| {
        let text = cause.to_string();
        // RocksDB gives one kind for every error of the file system; its text tells them apart.
        let kind = match cause.kind() {
            rocksdb::ErrorKind::Corruption => DiskErrorKind::Corrupted,
            _ if text.contains("While lock file") || text.contains("lock hold by current process") => {
                DiskErrorKind::Locked
            }
            _ if text.contains("No space left on device") => DiskErrorKind::NoSpace,
            _ if text.contains("No such file or directory") => DiskErrorKind::Missing,
            _ => DiskErrorKind::Other,
        };
        error(kind, action, &path, text)
    }
}
