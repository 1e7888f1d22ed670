//! Files in memory that nobody can change any more (`memfd_create(2)` with all its seals): how workerd and its processes hand each other a model or
//! a gradient without a stream. Whoever opens one sees the bytes that were sealed, whatever the other side does; so what was verified before
//! need not be verified again.
//!
//! A place names one on this machine: `PID FD INODE`. It is opened through /proc, and only if what is there is sealed and has that inode: a
//! descriptor may have been given to another file meanwhile, and a process of another namespace has other ids.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{fcntl_add_seals, fcntl_get_seals, memfd_create, MemfdFlags, SealFlags};

/// Nobody can write to it, or change its length, or take a seal off.
const ALL: SealFlags = SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// An empty file in memory, to be written and then sealed.
pub fn create() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    Ok(File::from(memfd_create("raftgrid", flags)?))
}

/// From now on it stays as it is.
pub fn seal(file: &File) -> io::Result<()> {
    Ok(fcntl_add_seals(file, ALL)?)
}

/// Whether it is a file in memory with all seals.
pub fn is_sealed(file: &File) -> bool {
    fcntl_get_seals(file).is_ok_and(|seals| seals.contains(ALL))
}

/// What another process of this machine opens it by, as long as it is open here.
pub fn place_of(file: &File) -> io::Result<String> {
    Ok(format!("{} {} {}", std::process::id(), file.as_raw_fd(), file.metadata()?.ino()))
}

/// Opens a sealed file of another process. Errors: none is there, or one that can still change.
pub fn open(place: &str) -> io::Result<File> {
    let wrong =
        |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("no sealed file is at `{place}`: {why}"));
    let numbers: Option<Vec<u64>> = place.split(' ').map(|word| word.parse().ok()).collect();
    let Some([pid, descriptor, inode]) = numbers.as_deref() else { return Err(wrong("three numbers are needed")) };
    let path = format!("/proc/{pid}/fd/{descriptor}");
    // Looked at before it is opened: to open a pipe or a device would do something.
    let seen = fs::metadata(&path)?;
    if !seen.is_file() || seen.ino() != *inode {
        return Err(wrong("another file is there"));
    }
    let file = File::open(&path)?;
    if file.metadata()?.ino() != *inode || !is_sealed(&file) {
        return Err(wrong("it can still change"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn what_is_sealed_is_read_by_its_place_and_never_written_again() {
        let mut file = create().expect("this kernel has memfd");
        file.write_all(b"model").expect("it is not sealed yet");
        let place = place_of(&file).expect("it is open");
        assert!(open(&place).is_err(), "it can still change");
        seal(&file).expect("it allows sealing");
        assert!(file.write_all(b"more").is_err() && file.set_len(1).is_err());
        let mut found = String::new();
        open(&place).expect("sealed").read_to_string(&mut found).expect("readable");
        assert_eq!(found, "model");
    }

    #[test]
    fn a_place_of_anything_else_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let plain = File::create(folder.path().join("plain")).expect("writable");
        let sealed = create().expect("this kernel has memfd");
        seal(&sealed).expect("it allows sealing");
        let (place, own) = (place_of(&sealed).expect("open"), std::process::id());
        let inode = sealed.metadata().expect("open").ino();
        assert!(open(&place).is_ok());
        for wrong in [
            place_of(&plain).expect("open"),
            format!("{own} {} {}", sealed.as_raw_fd(), inode + 1),
            format!("{own} 9999 {inode}"),
            format!("../../etc 0 {inode}"),
            String::new(),
            format!("{place} 1"),
        ] {
            assert!(open(&wrong).is_err(), "{wrong}");
        }
        drop(sealed);
        assert!(open(&place).is_err(), "it is closed");
    }
}
