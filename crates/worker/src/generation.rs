//! Which of a node's processes is the newer one: a number that rises with each worker of a directory.
//!
//! It is the wall clock at the start, so that a machine which lost its disk goes on above what it said before, and at least one more than
//! the number before, which the directory keeps, so that a clock that was set back does not turn the order round.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// The next number, on disk before it is returned. What the file holds beside a number counts as nothing.
pub(crate) fn next(path: &Path, now_unix_ms: u64) -> io::Result<u64> {
    let before = match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => 0,
        Err(error) => return Err(error),
    };
    let number = now_unix_ms.max(u64::saturating_add(before, 1));
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    writeln!(file, "{number}")?;
    file.sync_all()?;
    fs::rename(new, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_whatever_the_clock_and_the_file_say() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("generation");
        let next = |now| next(&path, now).expect("the disk works");
        assert_eq!(next(5_000), 5_000);
        assert_eq!(next(5_000), 5_001, "two in a millisecond");
        assert_eq!(next(70), 5_002, "a clock that was set back");
        assert_eq!(next(9_000), 9_000);
        for damaged in [&b""[..], b"many\n", b"\xff\xfe", b"-3"] {
            fs::write(&path, damaged).expect("it is written");
            assert_eq!(next(10_000), 10_000);
        }
        fs::write(&path, u64::MAX.to_string()).expect("it is written");
        assert_eq!(next(1), u64::MAX, "never round to the start");
    }
}
