//! The log's database on a simulated disk.

use std::path::{Path, PathBuf};

use raftgrid_store::disk::{Batch, DbRead, Direction, DiskResult, LogDb, Visit};
use raftgrid_store::DiskErrorKind;

use super::medium::{Medium, SimDisk};
use super::node::{Db, Ino, LogRows, Rows};
use super::tree::failed;

/// An open log.
pub struct SimLog {
    disk: SimDisk,
    ino: Ino,
    path: PathBuf,
}

impl SimLog {
    pub(super) fn new(disk: SimDisk, ino: Ino, path: &Path) -> Self {
        Self { disk, ino, path: path.to_owned() }
    }

    fn rows<'a>(&self, medium: &'a mut Medium, action: &'static str) -> DiskResult<&'a mut LogRows> {
        match medium.db(self.ino) {
            Some(Db::Log(rows)) => Ok(rows),
            _ => Err(failed(DiskErrorKind::Missing, action, &self.path, "the log is gone")),
        }
    }
}

impl Drop for SimLog {
    fn drop(&mut self) {
        if let Ok(mut medium) = self.disk.live("close", &self.path) {
            if let Some(Db::Log(rows)) = medium.db(self.ino) {
                rows.open = false;
            }
        }
    }
}

/// Visits rows of a map as `DbRead::scan` says.
pub(super) fn walk(rows: &Rows, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) {
    if from >= to {
        return;
    }
    let mut range = rows.range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Excluded(to)));
    loop {
        let row = match direction {
            Direction::Up => range.next(),
            Direction::Down => range.next_back(),
        };
        let Some((key, value)) = row else { return };
        if !visit(key, value) {
            return;
        }
    }
}

impl DbRead for SimLog {
    fn get(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>> {
        let mut medium = self.disk.live("read", &self.path)?;
        Ok(self.rows(&mut medium, "read")?.visible.get(key).cloned())
    }

    /// The store's visitors of the log decode and collect; none of them calls the disk.
    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) -> DiskResult<()> {
        let mut medium = self.disk.live("read", &self.path)?;
        walk(&self.rows(&mut medium, "read")?.visible, from, to, direction, visit);
        Ok(())
    }
}

impl LogDb for SimLog {
    fn write(&self, batch: &Batch) -> DiskResult<()> {
        let mut medium = self.disk.writable("write", &self.path)?;
        self.rows(&mut medium, "write")?.write(batch);
        Ok(())
    }

    fn sync(&self) -> DiskResult<()> {
        let mut medium = self.disk.changing("sync", &self.path)?;
        if medium.damage.sync_fails {
            return Err(failed(DiskErrorKind::Other, "sync", &self.path, "input/output error"));
        }
        self.rows(&mut medium, "sync")?.sync();
        Ok(())
    }
}
