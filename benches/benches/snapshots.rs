//! Snapshots of a store with many rows: how long one takes, what it does to writes beside it, how long a restart takes.
//!
//! `cargo bench -p raftgrid-benches --bench snapshots -- 100000 1000000 10000000`; without numbers, 100,000 rows. 10⁷ rows take about 2 GiB
//! of disk below TMPDIR while it runs.
#![allow(missing_docs, reason = "a program")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use raftgrid_benches::{entry, founded};
use raftgrid_driver::{HardState, LogBatch, LogStore, SyncMark, Syncer};
use raftgrid_manifest::{Change, Table};
use raftgrid_store::Booted;
use raftgrid_store_rocks::RocksDisk;

const ROW_BYTES: usize = 160;
const CHANGES_PER_COMMIT: u64 = 5_000;
const SNAPSHOTS: usize = 7;
const WRITES_FOR: Duration = Duration::from_secs(5);
const SNAPSHOT_EVERY: Duration = Duration::from_millis(500);
const RESTARTS: usize = 3;

/// Rows that do not compress to nothing (SplitMix64 of the number), in an order that is not that of the keys.
fn row(number: u64) -> Change {
    let mut value = Vec::with_capacity(ROW_BYTES);
    let mut state = number;
    while value.len() < ROW_BYTES {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value.extend_from_slice(&(mixed ^ (mixed >> 27)).to_le_bytes());
    }
    let key = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes().to_vec();
    Change { table: Table::Task, key, value: Some(value) }
}

struct Bench {
    booted: Booted<RocksDisk>,
    index: u64,
    rows: u64,
    /// Microseconds of the longest commit of the tables so far, a flush that it asked for included: what the apply thread waits.
    longest_commit: u128,
}

impl Bench {
    /// One entry: in the log, durable, and in the tables.
    fn write(&mut self, changes: u64) {
        self.index += 1;
        let hard_state = Some(HardState { term: 1, vote: 1, commit: self.index });
        let batch = LogBatch { entries: vec![entry(self.index, 256)], hard_state, ..LogBatch::default() };
        self.booted.log.write(batch).expect("the log is written");
        let mark = SyncMark { last_index: self.index, last_term: 1, term: 1, vote: 1, ..SyncMark::default() };
        self.booted.log.syncer().sync(mark).expect("the log is synced");
        let changes: Vec<Change> = (self.rows..self.rows + changes).map(row).collect();
        self.rows += changes.len() as u64;
        let one = Instant::now();
        self.booted.tables.commit(&changes, (self.index, 1), None).expect("the tables are written");
        self.longest_commit = self.longest_commit.max(one.elapsed().as_micros());
    }

    /// The longest commit since this was asked last.
    fn longest(&mut self) -> u128 {
        std::mem::take(&mut self.longest_commit)
    }

    /// Microseconds of each write within `time`, and of each snapshot that was made beside them.
    fn writes_beside_snapshots(&mut self, time: Duration) -> (Vec<u128>, Vec<u128>) {
        let checkpointer = self.booted.tables.checkpointer();
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let maker = std::thread::spawn(move || {
            let mut made = Vec::new();
            while !until.load(Ordering::SeqCst) {
                let one = Instant::now();
                checkpointer.make().expect("a snapshot is made");
                made.push(one.elapsed().as_micros());
                std::thread::sleep(SNAPSHOT_EVERY);
            }
            made.sort_unstable();
            made
        });
        let writes = self.writes(time);
        stop.store(true, Ordering::SeqCst);
        (writes, maker.join().expect("no panic"))
    }

    /// Microseconds of each write within `time`.
    fn writes(&mut self, time: Duration) -> Vec<u128> {
        let started = Instant::now();
        let mut took = Vec::new();
        while started.elapsed() < time {
            let one = Instant::now();
            self.write(1);
            took.push(one.elapsed().as_micros());
        }
        took.sort_unstable();
        took
    }
}

fn at(sorted: &[u128], share: f64) -> u128 {
    sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or(0)
}

fn run(rows: u64, writes_for: Duration) {
    let dir = tempfile::tempdir().expect("a directory");
    let booted = founded(dir.path(), 1, &[1]);
    let mut bench = Bench { booted, index: 1, rows: 0, longest_commit: 0 };
    let loading = Instant::now();
    while bench.rows < rows {
        bench.write(CHANGES_PER_COMMIT.min(rows - bench.rows));
    }
    let (loading, in_load) = (loading.elapsed(), bench.longest());

    // RocksDB is still compacting what the load left behind.
    let (behind, behind_made) = bench.writes_beside_snapshots(writes_for);
    let behind_commit = bench.longest();
    let mut snapshots = Vec::new();
    for _ in 0..SNAPSHOTS {
        bench.write(CHANGES_PER_COMMIT);
        let one = Instant::now();
        bench.booted.tables.checkpointer().make().expect("a snapshot is made");
        snapshots.push(one.elapsed().as_micros());
    }
    snapshots.sort_unstable();

    let alone = bench.writes(writes_for);
    let (beside, made) = bench.writes_beside_snapshots(writes_for);

    let Bench { mut booted, .. } = bench;
    booted.tables.flush().expect("flushed");
    drop(booted);
    let mut restarts = Vec::new();
    for _ in 0..RESTARTS {
        let one = Instant::now();
        drop(founded(dir.path(), 1, &[1]));
        restarts.push(one.elapsed().as_micros());
    }
    restarts.sort_unstable();
    let ms = |micros: u128| micros as f64 / 1_000.0;
    let worst = |sorted: &[u128]| ms(sorted.last().copied().unwrap_or(0));
    println!(
        "{rows:>10} rows in {:.1} s, longest commit {:.1} ms; right behind: {} snapshots, worst {:.1} ms, a write p50 {:.2} p99 {:.2} ms, longest commit {:.1} ms",
        loading.as_secs_f64(),
        ms(in_load),
        behind_made.len(),
        worst(&behind_made),
        ms(at(&behind, 0.5)),
        ms(at(&behind, 0.99)),
        ms(behind_commit),
    );
    println!(
        "{rows:>10} rows: snapshot median {:.1} ms, worst {:.1} ms; a write p50 {:.2} p99 {:.2} ms alone, p50 {:.2} p99 {:.2} ms beside {} snapshots; restart median {:.1} ms, worst {:.1} ms",
        ms(at(&snapshots, 0.5)),
        worst(&snapshots),
        ms(at(&alone, 0.5)),
        ms(at(&alone, 0.99)),
        ms(at(&beside, 0.5)),
        ms(at(&beside, 0.99)),
        made.len(),
        ms(at(&restarts, 0.5)),
        worst(&restarts),
    );
}

fn main() {
    // cargo passes --bench; numbers are rows; with --test it only has to run.
    let once = std::env::args().any(|word| word == "--test");
    let asked: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.replace('_', "").parse().ok()).collect();
    match (once, asked.is_empty()) {
        (true, _) => run(20_000, Duration::from_millis(200)),
        (false, true) => run(100_000, WRITES_FOR),
        (false, false) => asked.into_iter().for_each(|rows| run(rows, WRITES_FOR)),
    }
}
