//! The tables for threads that do not write them: a handle that follows a change-over, and views that stand still.

use std::path::Path;
use std::sync::Arc;

use raftgrid_driver::{Index, Term};
use raftgrid_manifest::{Rows, RowsError, Table};

use crate::disk::{DbRead, Direction, Disk, StateDb};
use crate::error::StoreError;
use crate::log::records::decode_position;
use crate::tables::{flushed, get_row, read_standing, rows_error, scan_rows, Shared, APPLIED};

/// View type of a disk's state database.
type ViewOf<D> = <<D as Disk>::State as StateDb>::View;

/// The tables as seen by threads that do not write them. Clones are handles to the same.
pub struct TablesReader<D: Disk> {
    shared: Arc<Shared<D>>,
}

impl<D: Disk> Clone for TablesReader<D> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<D: Disk> TablesReader<D> {
    pub(crate) fn new(shared: Arc<Shared<D>>) -> Self {
        Self { shared }
    }

    /// A consistent view of now; cheap.
    pub fn view(&self) -> TablesView<D> {
        TablesView::new(&self.shared.db())
    }

    /// Highest index whose rows would survive a power cut now.
    pub fn flushed(&self) -> Result<Index, StoreError> {
        flushed(&*self.shared.db(), &self.shared.layout.root)
    }
}

/// The tables as of one instant: a snapshot of the database, held open by this and its clones. It sees whole commits
/// only, and none that came after it was taken. Short-lived by intent: while it lives, old versions of rows are kept
/// on disk.
pub struct TablesView<D: Disk> {
    inner: Arc<ViewOf<D>>,
}

impl<D: Disk> Clone for TablesView<D> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<D: Disk> TablesView<D> {
    pub(crate) fn new(db: &Arc<D::State>) -> Self {
        Self { inner: Arc::new(db.view()) }
    }

    /// The position that the view stands at.
    pub fn applied(&self) -> Result<(Index, Term), RowsError> {
        match self.inner.get(APPLIED).map_err(rows_error)? {
            None => Ok((0, 0)),
            Some(value) => {
                decode_position(&value).ok_or_else(|| RowsError("the applied position does not decode".into()))
            }
        }
    }
}

impl<D: Disk> Rows for TablesView<D> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        get_row(&*self.inner, table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        scan_rows(&*self.inner, table, (from, to), Direction::Up, visit)
    }

    fn scan_back(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        scan_rows(&*self.inner, table, (from, to), Direction::Down, visit)
    }
}

/// The tables of a directory that nobody has open, over a database that was opened for reading.
pub struct StateRows<R: DbRead> {
    db: R,
}

impl<R: DbRead> StateRows<R> {
    /// Over this database.
    pub fn over(db: R) -> Self {
        Self { db }
    }

    /// Where its rows stand.
    pub fn stands(&self) -> Result<(Index, Term), StoreError> {
        Ok(read_standing(&self.db, Path::new("the state"))?.applied)
    }
}

impl<R: DbRead> Rows for StateRows<R> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        get_row(&self.db, table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        scan_rows(&self.db, table, (from, to), Direction::Up, visit)
    }

    fn scan_back(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        scan_rows(&self.db, table, (from, to), Direction::Down, visit)
    }
}
