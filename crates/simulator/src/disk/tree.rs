//! Paths on a medium.

use std::path::{Component, Path};

use raftgrid_store::disk::{DirEntry, DiskResult};
use raftgrid_store::{DiskError, DiskErrorKind};

use super::image::CURRENT;
use super::medium::{Medium, ROOT};
use super::node::{Body, Db, Dir, File, Ino, NameOp};

pub(super) fn failed(kind: DiskErrorKind, action: &'static str, path: &Path, cause: &str) -> DiskError {
    DiskError { kind, action, path: path.display().to_string(), cause: cause.to_owned() }
}

fn missing(action: &'static str, path: &Path) -> DiskError {
    failed(DiskErrorKind::Missing, action, path, "not there")
}

fn names(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        Component::RootDir | Component::CurDir | Component::Prefix(_) | Component::ParentDir => None,
    })
}

impl Medium {
    /// The inode of a path.
    pub(super) fn find(&self, path: &Path) -> Option<Ino> {
        let mut at = ROOT;
        for name in names(path) {
            match self.inodes.get(&at) {
                Some(Body::Dir(dir)) => at = *dir.visible.get(name)?,
                _ => return None,
            }
        }
        Some(at)
    }

    pub(super) fn dir_mut(&mut self, ino: Ino) -> Option<&mut Dir> {
        match self.inodes.get_mut(&ino) {
            Some(Body::Dir(dir)) => Some(dir),
            _ => None,
        }
    }

    fn add(&mut self, body: Body) -> Ino {
        self.next_ino += 1;
        self.inodes.insert(self.next_ino, body);
        self.next_ino
    }

    fn parent_of<'a>(&self, action: &'static str, path: &'a Path) -> DiskResult<(Ino, &'a str)> {
        let name = names(path).last().ok_or_else(|| missing(action, path))?;
        let parent = path.parent().and_then(|parent| self.find(parent)).ok_or_else(|| missing(action, path))?;
        Ok((parent, name))
    }

    fn link(&mut self, parent: Ino, op: NameOp) {
        if let Some(dir) = self.dir_mut(parent) {
            dir.change(op);
        }
    }

    /// Makes a directory and those above it; gives the lowest.
    pub(super) fn create_dir(&mut self, path: &Path) -> DiskResult<Ino> {
        let mut at = ROOT;
        for name in names(path) {
            let found = match self.inodes.get(&at) {
                Some(Body::Dir(dir)) => dir.visible.get(name).copied(),
                _ => return Err(failed(DiskErrorKind::Other, "create", path, "a file is in the way")),
            };
            at = match found {
                Some(ino) => ino,
                None => {
                    let ino = self.add(Body::Dir(Dir::default()));
                    self.link(at, NameOp::Link(name.to_owned(), ino));
                    ino
                }
            };
        }
        Ok(at)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> DiskResult<()> {
        let (parent, old) = self.parent_of("rename", from)?;
        let (target, new) = self.parent_of("rename", to)?;
        if parent != target {
            return Err(failed(DiskErrorKind::Other, "rename", from, "across directories, which the store never does"));
        }
        let ino = self.find(from).ok_or_else(|| missing("rename", from))?;
        self.link(parent, NameOp::Rename(old.to_owned(), new.to_owned(), ino));
        Ok(())
    }

    /// The same, also from one directory into another: each has its part of it, and each part is durable on its own.
    pub(super) fn move_to(&mut self, from: &Path, to: &Path) -> DiskResult<()> {
        let (parent, old) = self.parent_of("rename", from)?;
        let (target, new) = self.parent_of("rename", to)?;
        if parent == target {
            return self.rename(from, to);
        }
        let ino = self.find(from).ok_or_else(|| missing("rename", from))?;
        self.link(target, NameOp::Link(new.to_owned(), ino));
        self.link(parent, NameOp::Unlink(old.to_owned()));
        Ok(())
    }

    /// What a loss of power would leave of a file, at the least: all names on the way to it and its content are durable.
    pub(super) fn durable_file(&self, path: &Path) -> Option<&[u8]> {
        let mut at = ROOT;
        for name in names(path) {
            match self.inodes.get(&at) {
                Some(Body::Dir(dir)) => at = *dir.durable.get(name)?,
                _ => return None,
            }
        }
        match self.inodes.get(&at) {
            Some(Body::File(file)) => Some(&file.durable),
            _ => None,
        }
    }

    /// Removes a file, or a directory with all in it: names first, from the inside out, as the system does it.
    pub(super) fn remove(&mut self, path: &Path) -> DiskResult<()> {
        let Some(ino) = self.find(path) else { return Ok(()) };
        let (parent, name) = self.parent_of("remove", path)?;
        self.empty(ino);
        self.link(parent, NameOp::Unlink(name.to_owned()));
        Ok(())
    }

    fn empty(&mut self, ino: Ino) {
        let Some(dir) = self.dir_mut(ino) else { return };
        // Its files go before it does.
        dir.db = None;
        let children: Vec<(String, Ino)> = dir.visible.iter().map(|(name, ino)| (name.clone(), *ino)).collect();
        for (name, child) in children {
            self.empty(child);
            self.link(ino, NameOp::Unlink(name));
        }
    }

    pub(super) fn list(&self, path: &Path) -> Vec<DirEntry> {
        let Some(Body::Dir(dir)) = self.find(path).and_then(|ino| self.inodes.get(&ino)) else { return Vec::new() };
        let entry = |(name, ino): (&String, &Ino)| {
            let (is_dir, bytes) = match self.inodes.get(ino) {
                Some(Body::File(file)) => (false, file.visible.len() as u64),
                Some(Body::Dir(_)) | None => (true, 0),
            };
            DirEntry { name: name.clone(), is_dir, bytes }
        };
        let mut out: Vec<DirEntry> = dir.visible.iter().map(entry).collect();
        if dir.db.is_some() && !dir.visible.contains_key(CURRENT) {
            out.push(DirEntry { name: CURRENT.to_owned(), is_dir: false, bytes: 1 });
            out.sort_by(|left, right| left.name.cmp(&right.name));
        }
        out
    }

    pub(super) fn file(&self, path: &Path) -> Option<&File> {
        match self.inodes.get(&self.find(path)?) {
            Some(Body::File(file)) => Some(file),
            _ => None,
        }
    }

    /// The file, made if it is not there.
    pub(super) fn file_mut(&mut self, action: &'static str, path: &Path) -> DiskResult<&mut File> {
        let ino = match self.find(path) {
            Some(ino) => ino,
            None => {
                let (parent, name) = self.parent_of(action, path)?;
                let name = name.to_owned();
                let ino = self.add(Body::File(File::default()));
                self.link(parent, NameOp::Link(name, ino));
                ino
            }
        };
        match self.inodes.get_mut(&ino) {
            Some(Body::File(file)) => Ok(file),
            _ => Err(failed(DiskErrorKind::Other, action, path, "it is a directory")),
        }
    }

    pub(super) fn sync_file(&mut self, path: &Path) -> DiskResult<()> {
        match self.find(path).and_then(|ino| self.inodes.get_mut(&ino)) {
            Some(Body::File(file)) => {
                file.sync();
                Ok(())
            }
            // The pieces of an open database are durable by themselves.
            _ if path.file_name().is_some_and(|name| name == CURRENT) => Ok(()),
            _ => Err(missing("sync", path)),
        }
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> DiskResult<()> {
        let ino = self.find(path).ok_or_else(|| missing("sync", path))?;
        let dir = self.dir_mut(ino).ok_or_else(|| missing("sync", path))?;
        dir.sync();
        Ok(())
    }

    /// The database in a directory.
    pub(super) fn db(&mut self, ino: Ino) -> Option<&mut Db> {
        self.dir_mut(ino)?.db.as_mut()
    }
}
