//! Packs a script and its folder into a tar whose bytes depend on names, contents and the executable bit only.
//!
//! So the digest of a bundle is the same on every machine and every day, and an unchanged folder is uploaded once. Symbolic links to files are
//! stored as the files they mean; links to folders are left out (they may lead anywhere, or in circles).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::failure::{Failure, Result};
use crate::limits::{BUNDLE_BYTES_MAX, BUNDLE_FILES_MAX};

/// Folders that are never packed: they are made from the sources, or belong to tools.
const SKIPPED: &[&str] =
    &["__pycache__", ".git", ".venv", ".pytest_cache", ".mypy_cache", ".ipynb_checkpoints", ".raftgrid-dev", ".demo"];

/// A packed folder.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Name of the script inside the tar.
    pub(crate) script: String,
    pub(crate) tar: Vec<u8>,
    /// SHA-256 of `tar`.
    pub(crate) digest: [u8; 32],
    pub(crate) files: usize,
}

/// Packs `script` and everything beside and below it.
pub(crate) fn pack(script: &Path) -> Result<Bundle> {
    let hint = "give the path of a Python script, for example ml-code/examples/digits_mlp.py";
    let metadata = fs::metadata(script).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new(format!("script {} does not exist", script.display()), hint),
        _ => Failure::new(format!("failed to read script {}: {error}", script.display()), hint),
    })?;
    if !metadata.is_file() {
        return Err(Failure::new(format!("script {} is not a file", script.display()), hint));
    }
    let name = script.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| {
        Failure::new(format!("the name of script {} is not UTF-8", script.display()), "rename the script")
    })?;
    let folder = match script.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut found = Found { files: BTreeMap::new(), bytes: 0, folder };
    found.walk(folder, Path::new(""))?;
    let tar = write_tar(&found.files).map_err(|error| {
        Failure::new(format!("failed to pack {}: {error}", folder.display()), "make every file in that folder readable")
    })?;
    let digest = Sha256::digest(&tar).into();
    Ok(Bundle { script: name.to_owned(), tar, digest, files: found.files.len() })
}

struct Found<'a> {
    /// Path inside the tar, to path on disk. Sorted: the order of a directory differs between machines.
    files: BTreeMap<PathBuf, PathBuf>,
    bytes: u64,
    folder: &'a Path,
}

impl Found<'_> {
    fn walk(&mut self, directory: &Path, inside: &Path) -> Result<()> {
        let unreadable = |error: io::Error| {
            Failure::new(format!("failed to read folder {}: {error}", directory.display()), "check its permissions")
        };
        for entry in fs::read_dir(directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let (path, inside) = (entry.path(), inside.join(entry.file_name()));
            let kind = entry.file_type().map_err(unreadable)?;
            if kind.is_dir() {
                let skipped = SKIPPED.iter().any(|skipped| entry.file_name() == *skipped);
                if !skipped {
                    self.walk(&path, &inside)?;
                }
            } else if path.extension().is_none_or(|extension| extension != "pyc") {
                self.file(path, inside)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, inside: PathBuf) -> Result<()> {
        // Follows links. One that leads nowhere, a socket, a pipe: nothing that a script could need on another machine.
        let Ok(metadata) = fs::metadata(&path) else { return Ok(()) };
        if !metadata.is_file() {
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(metadata.len());
        self.files.insert(inside, path);
        let why = if self.bytes > BUNDLE_BYTES_MAX {
            format!("holds more than {} MiB", BUNDLE_BYTES_MAX >> 20)
        } else if self.files.len() > BUNDLE_FILES_MAX {
            format!("holds more than {BUNDLE_FILES_MAX} files")
        } else {
            return Ok(());
        };
        Err(Failure::new(
            format!("the script's folder {} {why}, and all of it would be uploaded", self.folder.display()),
            "move the script into a folder of its own; put data where every node finds it, or `gridctl artifact push` it",
        ))
    }
}

fn write_tar(files: &BTreeMap<PathBuf, PathBuf>) -> io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.mode(tar::HeaderMode::Deterministic);
    for (inside, path) in files {
        let file = File::open(path)?;
        let executable = file.metadata()?.permissions().mode() & 0o100 != 0;
        // Read to the end before its size is written: the file may grow meanwhile.
        let mut content = Vec::new();
        file.take(BUNDLE_BYTES_MAX + 1).read_to_end(&mut content)?;
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(if executable { 0o755 } else { 0o644 });
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, inside, content.as_slice())?;
    }
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(order: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary directory");
        for name in order {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(&path, format!("content of {name}")).expect("written");
        }
        folder
    }

    fn names(tar: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().expect("a tar");
        entries.map(|e| e.expect("an entry").path().expect("a path").display().to_string()).collect()
    }

    #[test]
    fn the_same_files_make_the_same_bytes_whatever_their_order_time_and_place() {
        let one = folder(&["train.py", "lib/b.py", "lib/a.py"]);
        let two = folder(&["lib/a.py", "train.py", "lib/b.py"]);
        let old = File::options().write(true).open(two.path().join("train.py")).expect("open");
        old.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
        let (one, two) = (pack(&one.path().join("train.py")).unwrap(), pack(&two.path().join("train.py")).unwrap());
        assert_eq!(one.digest, two.digest);
        assert_eq!(one.tar, two.tar);
        assert_eq!(names(&one.tar), ["lib/a.py", "lib/b.py", "train.py"]);
        assert_eq!((one.script.as_str(), one.files), ("train.py", 3));
    }

    #[test]
    fn a_changed_byte_or_mode_changes_the_digest() {
        let folder = folder(&["train.py", "run.sh"]);
        let before = pack(&folder.path().join("train.py")).unwrap().digest;
        fs::set_permissions(folder.path().join("run.sh"), fs::Permissions::from_mode(0o755)).expect("set");
        let executable = pack(&folder.path().join("train.py")).unwrap().digest;
        fs::write(folder.path().join("train.py"), "other").expect("written");
        let changed = pack(&folder.path().join("train.py")).unwrap().digest;
        assert!(before != executable && executable != changed);
    }

    #[test]
    fn caches_repositories_and_environments_stay_at_home() {
        let folder = folder(&["train.py", "__pycache__/x.pyc", ".git/HEAD", ".venv/bin/python", "old.pyc", "a/.git/c"]);
        std::os::unix::fs::symlink("/", folder.path().join("root")).expect("linked");
        assert_eq!(names(&pack(&folder.path().join("train.py")).unwrap().tar), ["train.py"]);
    }

    #[test]
    fn a_folder_that_is_too_large_is_refused_before_it_is_read() {
        let folder = folder(&["train.py"]);
        let sparse = File::create(folder.path().join("data.bin")).expect("made");
        sparse.set_len(BUNDLE_BYTES_MAX + 1).expect("sparse");
        let line = pack(&folder.path().join("train.py")).unwrap_err().to_string();
        assert!(line.contains("64 MiB") && line.contains("try: "), "{line}");
    }

    #[test]
    fn a_missing_script_is_named() {
        let line = pack(Path::new("/nowhere/train.py")).unwrap_err().to_string();
        assert!(line.starts_with("script /nowhere/train.py does not exist; try: "), "{line}");
        assert!(pack(Path::new("/")).is_err());
    }

    #[test]
    fn long_paths_survive() {
        let long = format!("{}/train_data.py", "deep/".repeat(40).trim_end_matches('/'));
        let folder = folder(&["train.py", &long]);
        assert!(names(&pack(&folder.path().join("train.py")).unwrap().tar).contains(&long));
    }
}
