//! What a crash leaves.

use std::collections::BTreeSet;

use super::medium::{rows_of, Medium, SimDisk, ROOT};
use super::node::{apply_name, overwrite, Body, Db, Dir, File, Ino, SECTOR_BYTES};
use crate::rng::Rng;

/// How a process ends without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies, the machine lives: files keep what was written.
    Process,
    /// The machine loses power: only what was made durable is sure.
    Power,
}

impl SimDisk {
    /// The process that uses the medium ends. Its handles fail from now on; `reopened` gives one for the next.
    pub fn crash(&self, crash: Crash) {
        let mut medium = self.lock();
        medium.generation += 1;
        medium.fuse = None;
        let mut rng = medium.rng.split();
        for body in medium.inodes.values_mut() {
            match body {
                Body::Dir(dir) => {
                    crash_names(dir, crash, &mut rng);
                    crash_db(dir, crash, &mut rng);
                }
                Body::File(file) if crash == Crash::Power => crash_file(file, &mut rng),
                Body::File(_) => {}
            }
        }
        medium.sweep();
        medium.forget_torn();
    }

    /// Damages the end of the log: some of the last synced batches are gone. The store must notice. False: there was nothing to take.
    pub fn lose_log_tail(&self) -> bool {
        let mut medium = self.lock();
        let mut rng = medium.rng.split();
        let Some(rows) = medium.logs().next() else { return false };
        let count = rows.synced.len();
        if count < 2 {
            return false;
        }
        let keep = usize::try_from(rng.below(count as u64)).unwrap_or(0);
        rows.cut(keep, 0);
        true
    }

    /// An fsync of the log begins: what is written from now on is not covered by it.
    pub fn begin_log_sync(&self) {
        if let Some(rows) = self.lock().logs().next() {
            rows.begin_sync();
        }
    }

    /// What is durable of a row of the log's database.
    pub fn durable_log_row(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.lock().logs().next().and_then(|rows| rows.durable(key).map(<[u8]>::to_vec))
    }

    /// A bit of the log flips.
    pub fn rot_log(&self) -> bool {
        let mut medium = self.lock();
        let Some(rows) = medium.logs().next() else { return false };
        rows.rotten = true;
        true
    }

    /// A bit of a kept snapshot flips. False: there is none.
    pub fn rot_snapshot(&self) -> bool {
        let mut medium = self.lock();
        let mut rng = medium.rng.split();
        let mut pieces: Vec<&mut File> = Vec::new();
        let is_piece: BTreeSet<Ino> = medium.snapshot_pieces();
        for (ino, body) in &mut medium.inodes {
            if let (true, Body::File(file)) = (is_piece.contains(ino), body) {
                pieces.push(file);
            }
        }
        let count = pieces.len() as u64;
        let Some(file) = pieces.into_iter().nth(usize::try_from(rng.below(count)).unwrap_or(0)) else { return false };
        if file.visible.is_empty() {
            return false;
        }
        let at = usize::try_from(rng.below(file.visible.len() as u64)).unwrap_or(0);
        file.visible[at] ^= 1 << rng.below(8);
        file.durable.clone_from(&file.visible);
        true
    }

    /// A flush of the tables that runs in the background gets further. True: one is still under way.
    pub fn background(&self) -> bool {
        let mut medium = self.lock();
        let mut rng = medium.rng.split();
        let mut under_way = false;
        for body in medium.inodes.values_mut() {
            if let Body::Dir(Dir { db: Some(Db::State(rows)), .. }) = body {
                if rows.flushing > 0 && rng.chance(600) {
                    let count = rows.flushing;
                    rows.flush(count);
                }
                under_way |= rows.flushing > 0;
            }
        }
        under_way
    }
}

fn crash_names(dir: &mut Dir, crash: Crash, rng: &mut Rng) {
    if crash == Crash::Process {
        return;
    }
    let keep = usize::try_from(rng.below(dir.pending.len() as u64 + 1)).unwrap_or(0);
    let pending = std::mem::take(&mut dir.pending);
    for op in pending.iter().take(keep) {
        apply_name(&mut dir.durable, op);
    }
    dir.visible.clone_from(&dir.durable);
}

fn crash_db(dir: &mut Dir, crash: Crash, rng: &mut Rng) {
    match &mut dir.db {
        Some(Db::Log(rows)) => {
            let written = rows.unsynced.len();
            let keep = match crash {
                // Each write goes to the system at once, which outlives the process.
                Crash::Process => written,
                Crash::Power => usize::try_from(rng.below(written as u64 + 1)).unwrap_or(0),
            };
            let synced = rows.synced.len();
            rows.cut(synced, keep);
            rows.open = false;
        }
        Some(Db::State(rows)) => {
            // Without a write-ahead log, only a flush saves rows; one may have run of the database's own accord.
            let own = if rng.chance(300) { rng.below(rows.pending.len() as u64 + 1) } else { 0 };
            rows.flush(usize::try_from(own).unwrap_or(0));
            rows.pending.clear();
            rows.flushing = 0;
            rows.visible = std::sync::Arc::new(rows.flushed.clone());
            rows.open = false;
        }
        None => {}
    }
}

fn crash_file(file: &mut File, rng: &mut Rng) {
    let writes = std::mem::take(&mut file.writes);
    let keep = usize::try_from(rng.below(writes.len() as u64 + 1)).unwrap_or(0);
    for (number, (offset, data)) in writes.iter().take(keep).enumerate() {
        let torn = number + 1 == keep && data.len() > SECTOR_BYTES && rng.chance(500);
        let sectors = (data.len() / SECTOR_BYTES) as u64;
        let length = if torn { SECTOR_BYTES * usize::try_from(rng.below(sectors)).unwrap_or(0) } else { data.len() };
        overwrite(&mut file.durable, *offset, &data[..length]);
    }
    file.visible.clone_from(&file.durable);
}

impl Medium {
    fn logs(&mut self) -> impl Iterator<Item = &mut super::node::LogRows> {
        self.inodes.values_mut().filter_map(|body| match body {
            Body::Dir(Dir { db: Some(Db::Log(rows)), .. }) => Some(rows),
            _ => None,
        })
    }

    /// Files in the directories of kept snapshots, without their meaning.
    fn snapshot_pieces(&self) -> BTreeSet<Ino> {
        let mut pieces = BTreeSet::new();
        for body in self.inodes.values() {
            let Body::Dir(dir) = body else { continue };
            if dir.visible.contains_key("SNAPSHOT") {
                pieces.extend(dir.visible.iter().filter(|(name, _)| *name != "SNAPSHOT").map(|(_, ino)| *ino));
            }
        }
        pieces
    }

    /// Tables that were opened from files are gone if those are not whole any more.
    fn forget_torn(&mut self) {
        let torn = |ino: &Ino, body: &Body| match body {
            Body::Dir(Dir { db: Some(Db::State(rows)), .. }) => rows.from_files && rows_of(self, *ino).is_err(),
            Body::Dir(_) | Body::File(_) => false,
        };
        let torn: Vec<Ino> = self.inodes.iter().filter(|(ino, body)| torn(ino, body)).map(|(ino, _)| *ino).collect();
        for ino in torn {
            if let Some(dir) = self.dir_mut(ino) {
                dir.db = None;
            }
        }
    }

    /// Forgets what no name leads to.
    fn sweep(&mut self) {
        let mut seen = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(ino) = open.pop() {
            if let Some(Body::Dir(dir)) = self.inodes.get(&ino) {
                for child in dir.visible.values().chain(dir.durable.values()) {
                    if seen.insert(*child) {
                        open.push(*child);
                    }
                }
            }
        }
        self.inodes.retain(|ino, _| seen.contains(ino));
    }
}
