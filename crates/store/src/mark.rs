//! The file `synced`: how far the log must reach after a restart (durability rule 7).
//!
//! `raft-sync` overwrites it in place after each fsync of the log, without an fsync of its own. It must never run
//! ahead of the log, or a healthy replica would be refused. So what is noted is the store's own state as of the start
//! of the fsync, and a write that *shortens* the log lowers the mark first, durably: raft may cut a log back to a
//! lower index whose last term is lower as well, and no comparison at boot could tell that from a loss. While such a
//! write is under way, and for any fsync that began before it ended, the mark is left alone: `generation` counts
//! those writes.

use raftgrid_driver::{Index, SyncMark, Term};

use crate::codec::{Reader, Writer};
use crate::disk::{Disk, DiskResult};
use crate::layout::Layout;

const MAGIC: &[u8; 8] = b"RGSYNC01";
const MARK_BYTES: usize = 8 + 5 * 8 + 4;

/// What a mark file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No file.
    Nothing,
    /// A file whose checksum is wrong.
    Bad,
    /// A mark.
    Mark(SyncMark),
}

fn encode(mark: &SyncMark) -> Vec<u8> {
    let mut out = Writer(MAGIC.to_vec());
    for value in [mark.ready_number, mark.last_index, mark.last_term, mark.term, mark.vote] {
        out.u64(value);
    }
    let crc = crc32c::crc32c(&out.0);
    out.u32(crc);
    out.0
}

fn decode(bytes: &[u8]) -> Option<SyncMark> {
    if bytes.len() != MARK_BYTES {
        return None;
    }
    let mut reader = Reader(bytes);
    if reader.take(8)? != MAGIC {
        return None;
    }
    let mark = SyncMark {
        ready_number: reader.u64()?,
        last_index: reader.u64()?,
        last_term: reader.u64()?,
        term: reader.u64()?,
        vote: reader.u64()?,
    };
    (reader.u32()? == crc32c::crc32c(&bytes[..MARK_BYTES - 4])).then_some(mark)
}

pub(crate) fn read<D: Disk>(disk: &D, layout: &Layout) -> DiskResult<Found> {
    Ok(match disk.read(&layout.synced())? {
        None => Found::Nothing,
        Some(bytes) => decode(&bytes).map_or(Found::Bad, Found::Mark),
    })
}

/// Makes a mark that claims nothing, durably, so that from the base on the file is always there. It gets its name
/// only when it is whole: a power cut in between must not leave half a mark, which would count as a loss.
pub(crate) fn create<D: Disk>(disk: &D, layout: &Layout) -> DiskResult<()> {
    let new = layout.synced_new();
    disk.remove_file(&new)?;
    disk.write_at(&new, 0, &encode(&SyncMark::default()))?;
    disk.sync_file(&new)?;
    disk.rename(&new, &layout.synced())?;
    disk.sync_dir(&layout.root)
}

/// Overwrites the mark, durably.
pub(crate) fn renew<D: Disk>(disk: &D, layout: &Layout, mark: &SyncMark) -> DiskResult<()> {
    disk.write_at(&layout.synced(), 0, &encode(mark))?;
    disk.sync_file(&layout.synced())
}

/// The mark of a running log.
pub(crate) struct Mark {
    on_disk: SyncMark,
    generation: u64,
    shortening: bool,
}

impl Mark {
    pub(crate) fn new(on_disk: SyncMark) -> Self {
        Self { on_disk, generation: 0, shortening: false }
    }

    /// Before a write that shortens the log so that only entries up to `keep` are sure to stay.
    pub(crate) fn begin_shortening<D: Disk>(
        &mut self,
        disk: &D,
        layout: &Layout,
        keep: (Index, Term),
    ) -> DiskResult<()> {
        self.generation += 1;
        self.shortening = true;
        if self.on_disk.last_index > keep.0 {
            self.on_disk.last_index = keep.0;
            self.on_disk.last_term = keep.1;
            disk.write_at(&layout.synced(), 0, &encode(&self.on_disk))?;
            disk.sync_file(&layout.synced())?;
        }
        Ok(())
    }

    /// After such a write is visible.
    pub(crate) fn end_shortening(&mut self) {
        self.shortening = false;
    }

    /// What an fsync that starts now must compare with when it has ended; None while the log is being shortened.
    pub(crate) fn ticket(&self) -> Option<u64> {
        (!self.shortening).then_some(self.generation)
    }

    /// After the fsync: notes `mark` unless the log was shortened in the meantime.
    pub(crate) fn note<D: Disk>(
        &mut self,
        disk: &D,
        layout: &Layout,
        ticket: Option<u64>,
        mark: SyncMark,
    ) -> DiskResult<()> {
        if ticket.is_some() && ticket == self.ticket() && mark != self.on_disk {
            disk.write_at(&layout.synced(), 0, &encode(&mark))?;
            self.on_disk = mark;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_with_one_bit_flipped_is_not_one() {
        let mark = SyncMark { ready_number: 3, last_index: 40, last_term: 5, term: 6, vote: 2 };
        let bytes = encode(&mark);
        assert_eq!(decode(&bytes), Some(mark));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
    }
}
