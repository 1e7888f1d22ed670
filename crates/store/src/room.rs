//! Room on the disk (durability rule 6): a failed write ends the process, so it must not come to that.
//!
//! The caller asks each second. Below the low-water mark it takes no more writes; truncation, flush and deletion may
//! have the ballast. What is refused, and who leads instead, is the replica's decision, not the store's.

use std::path::Path;

use crate::disk::Disk;
use crate::error::StoreError;
use crate::layout::Layout;
use crate::limits::{BALLAST_BYTES, LOW_WATER_BYTES};

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Free bytes, without the ballast.
    pub free_bytes: u64,
    /// Whether that is below the low-water mark: take no more writes.
    pub low: bool,
}

/// Watches the room of one data directory.
pub struct RoomWatch<D: Disk> {
    disk: D,
    layout: Layout,
    low_water_bytes: u64,
    ballast_bytes: u64,
}

impl<D: Disk> RoomWatch<D> {
    /// A watch with the default mark and ballast.
    pub fn new(disk: D, dir: &Path) -> Self {
        Self::with_limits(disk, dir, LOW_WATER_BYTES, BALLAST_BYTES)
    }

    /// A watch with limits of the caller's.
    pub fn with_limits(disk: D, dir: &Path, low_water_bytes: u64, ballast_bytes: u64) -> Self {
        Self { disk, layout: Layout::new(dir), low_water_bytes, ballast_bytes }
    }

    /// How much room there is now.
    pub fn check(&self) -> Result<Room, StoreError> {
        let free_bytes = self.disk.free_bytes(&self.layout.root)?;
        Ok(Room { free_bytes, low: free_bytes < self.low_water_bytes })
    }

    /// Sets the ballast aside if it is not there and there is room for it; says whether it is there.
    pub fn keep_ballast(&self) -> Result<bool, StoreError> {
        let path = self.layout.ballast();
        let bytes = self.disk.list(&self.layout.root)?.into_iter().find(|entry| entry.name == "ballast");
        if bytes.is_some_and(|entry| entry.bytes >= self.ballast_bytes) {
            return Ok(true);
        }
        if self.check()?.free_bytes < self.low_water_bytes.saturating_add(self.ballast_bytes) {
            return Ok(false);
        }
        self.disk.allocate(&path, self.ballast_bytes)?;
        Ok(true)
    }

    /// Gives the ballast up, so that truncation, flush and deletion have something to work with.
    pub fn release_ballast(&self) -> Result<(), StoreError> {
        Ok(self.disk.remove_file(&self.layout.ballast())?)
    }
}
