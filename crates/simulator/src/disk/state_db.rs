//! The tables' database on a simulated disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use raftgrid_store::disk::{Batch, DbRead, Direction, DiskResult, StateDb, Visit};
use raftgrid_store::DiskErrorKind;

use super::image;
use super::log_db::walk;
use super::medium::{Medium, SimDisk};
use super::node::{Db, Ino, Rows, StateRows};
use super::tree::failed;

/// Open tables.
pub struct SimState {
    disk: SimDisk,
    ino: Ino,
    path: PathBuf,
}

impl SimState {
    pub(super) fn new(disk: SimDisk, ino: Ino, path: &Path) -> Self {
        Self { disk, ino, path: path.to_owned() }
    }

    fn rows<'a>(&self, medium: &'a mut Medium, action: &'static str) -> DiskResult<&'a mut StateRows> {
        match medium.db(self.ino) {
            Some(Db::State(rows)) => Ok(rows),
            _ => Err(failed(DiskErrorKind::Missing, action, &self.path, "the tables are gone")),
        }
    }

    fn visible(&self) -> DiskResult<Arc<Rows>> {
        let mut medium = self.disk.live("read", &self.path)?;
        Ok(Arc::clone(&self.rows(&mut medium, "read")?.visible))
    }
}

impl Drop for SimState {
    fn drop(&mut self) {
        if let Ok(mut medium) = self.disk.live("close", &self.path) {
            if let Some(Db::State(rows)) = medium.db(self.ino) {
                rows.open = false;
            }
        }
    }
}

impl DbRead for SimState {
    fn get(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>> {
        let mut medium = self.disk.live("read", &self.path)?;
        Ok(self.rows(&mut medium, "read")?.visible.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) -> DiskResult<()> {
        // Without the lock: visitors may read.
        let rows = self.visible()?;
        walk(&rows, from, to, direction, visit);
        Ok(())
    }
}

impl StateDb for SimState {
    type View = SimStateView;

    fn write(&self, batch: &Batch) -> DiskResult<()> {
        let mut medium = self.disk.writable("write", &self.path)?;
        self.rows(&mut medium, "write")?.write(batch);
        Ok(())
    }

    fn get_persisted(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>> {
        let mut medium = self.disk.live("read", &self.path)?;
        Ok(self.rows(&mut medium, "read")?.flushed.get(key).cloned())
    }

    fn flush(&self, wait: bool) -> DiskResult<()> {
        let mut medium = self.disk.writable("flush", &self.path)?;
        let rows = self.rows(&mut medium, "flush")?;
        let count = rows.pending.len();
        if wait {
            rows.flush(count);
        } else {
            rows.flushing = count;
        }
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> DiskResult<()> {
        let mut medium = self.disk.writable("copy", &self.path)?;
        if medium.find(dir).is_some() {
            return Err(failed(DiskErrorKind::Other, "copy", dir, "it is there already"));
        }
        let rows = self.rows(&mut medium, "copy")?;
        let count = rows.pending.len();
        rows.flush(count);
        let files = image::files(&rows.flushed);
        medium.create_dir(dir)?;
        for (name, bytes) in files {
            let file = medium.file_mut("copy", &dir.join(name))?;
            file.write(0, &bytes);
            file.sync();
        }
        medium.sync_dir(dir)?;
        if let Some(parent) = dir.parent() {
            medium.sync_dir(parent)?;
        }
        Ok(())
    }

    fn view(self: &Arc<Self>) -> SimStateView {
        SimStateView(self.visible().unwrap_or_default())
    }
}

/// The tables as of one instant.
pub struct SimStateView(Arc<Rows>);

impl DbRead for SimStateView {
    fn get(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) -> DiskResult<()> {
        walk(&self.0, from, to, direction, visit);
        Ok(())
    }
}
