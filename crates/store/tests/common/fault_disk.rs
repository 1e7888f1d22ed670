//! Any disk, with a budget of changes: when it is spent, every further change fails and has no effect, as if the
//! machine had stopped there. Reads go on, so that the test can look.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;

use raftgrid_store::disk::{Batch, DbRead, DirEntry, Direction, LogDb, StateDb, Visit};
use raftgrid_store::{Disk, DiskError, DiskErrorKind, DiskResult};

#[derive(Clone)]
pub struct Budget(Arc<AtomicI64>);

impl Budget {
    pub fn new(changes: i64) -> Self {
        Self(Arc::new(AtomicI64::new(changes)))
    }

    pub fn set(&self, changes: i64) {
        self.0.store(changes, Ordering::SeqCst);
    }

    /// Whether a change was refused.
    pub fn is_spent(&self) -> bool {
        self.0.load(Ordering::SeqCst) < 0
    }

    fn spend(&self, action: &'static str, path: &Path) -> DiskResult<()> {
        if self.0.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        self.0.store(-1, Ordering::SeqCst);
        let cause = "the machine has stopped".to_owned();
        Err(DiskError { kind: DiskErrorKind::Other, action, path: path.display().to_string(), cause })
    }
}

#[derive(Clone)]
pub struct FaultDisk<D> {
    pub inner: D,
    pub budget: Budget,
}

pub struct FaultLog<L> {
    inner: L,
    budget: Budget,
}

pub struct FaultState<S> {
    inner: Arc<S>,
    budget: Budget,
}

impl<L: DbRead> DbRead for FaultLog<L> {
    fn get(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>> {
        self.inner.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) -> DiskResult<()> {
        self.inner.scan(from, to, direction, visit)
    }
}

impl<L: LogDb> LogDb for FaultLog<L> {
    fn write(&self, batch: &Batch) -> DiskResult<()> {
        self.budget.spend("write", Path::new("log"))?;
        self.inner.write(batch)
    }

    fn sync(&self) -> DiskResult<()> {
        self.budget.spend("sync", Path::new("log"))?;
        self.inner.sync()
    }
}

impl<S: StateDb> DbRead for FaultState<S> {
    fn get(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>> {
        self.inner.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) -> DiskResult<()> {
        self.inner.scan(from, to, direction, visit)
    }
}

impl<S: StateDb> StateDb for FaultState<S> {
    type View = S::View;

    fn write(&self, batch: &Batch) -> DiskResult<()> {
        self.budget.spend("write", Path::new("state"))?;
        self.inner.write(batch)
    }

    fn get_persisted(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>> {
        self.inner.get_persisted(key)
    }

    fn flush(&self, wait: bool) -> DiskResult<()> {
        self.budget.spend("flush", Path::new("state"))?;
        self.inner.flush(wait)
    }

    fn checkpoint(&self, dir: &Path) -> DiskResult<()> {
        self.budget.spend("copy", dir)?;
        self.inner.checkpoint(dir)
    }

    fn view(self: &Arc<Self>) -> S::View {
        self.inner.view()
    }
}

impl<D: Disk> Disk for FaultDisk<D> {
    type Log = FaultLog<D::Log>;
    type State = FaultState<D::State>;

    fn create_dir(&self, path: &Path) -> DiskResult<()> {
        self.budget.spend("create", path)?;
        self.inner.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.budget.spend("rename", from)?;
        self.inner.rename(from, to)
    }

    fn remove_dir(&self, path: &Path) -> DiskResult<()> {
        self.budget.spend("remove", path)?;
        self.inner.remove_dir(path)
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        self.budget.spend("remove", path)?;
        self.inner.remove_file(path)
    }

    fn list(&self, path: &Path) -> DiskResult<Vec<DirEntry>> {
        self.inner.list(path)
    }

    fn read(&self, path: &Path) -> DiskResult<Option<Vec<u8>>> {
        self.inner.read(path)
    }

    fn read_at(&self, path: &Path, offset: u64, length: usize) -> DiskResult<Vec<u8>> {
        self.inner.read_at(path, offset, length)
    }

    fn write_at(&self, path: &Path, offset: u64, data: &[u8]) -> DiskResult<()> {
        self.budget.spend("write", path)?;
        self.inner.write_at(path, offset, data)
    }

    fn allocate(&self, path: &Path, bytes: u64) -> DiskResult<()> {
        self.budget.spend("allocate", path)?;
        self.inner.allocate(path, bytes)
    }

    fn sync_file(&self, path: &Path) -> DiskResult<()> {
        self.budget.spend("sync", path)?;
        self.inner.sync_file(path)
    }

    fn sync_dir(&self, path: &Path) -> DiskResult<()> {
        self.budget.spend("sync", path)?;
        self.inner.sync_dir(path)
    }

    fn free_bytes(&self, path: &Path) -> DiskResult<u64> {
        self.inner.free_bytes(path)
    }

    fn nonce(&self) -> u128 {
        self.inner.nonce()
    }

    fn open_log(&self, path: &Path) -> DiskResult<Self::Log> {
        self.budget.spend("open", path)?;
        Ok(FaultLog { inner: self.inner.open_log(path)?, budget: self.budget.clone() })
    }

    fn open_state(&self, path: &Path) -> DiskResult<Self::State> {
        self.budget.spend("open", path)?;
        Ok(FaultState { inner: Arc::new(self.inner.open_state(path)?), budget: self.budget.clone() })
    }

    fn peek_state(&self, path: &Path, keys: &[&[u8]]) -> DiskResult<Vec<Option<Vec<u8>>>> {
        self.inner.peek_state(path, keys)
    }

    fn verify_state(&self, path: &Path) -> DiskResult<()> {
        if self.budget.is_spent() {
            let cause = "the medium does not answer".to_owned();
            let path = path.display().to_string();
            return Err(DiskError { kind: DiskErrorKind::Other, action: "verify", path, cause });
        }
        self.inner.verify_state(path)
    }
}
