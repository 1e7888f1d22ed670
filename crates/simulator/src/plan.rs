//! What a seed makes of a run: which faults there are and how strong. Most runs have a few kinds of faults, some have all, some none, since a
//! fault that is always there hides what happens without it.

use crate::limits::FAULTS_MS;
use crate::rng::Rng;

/// How often something happens: its mean interval in virtual milliseconds; 0: never.
pub type Every = u64;

/// The faults of a run. Times in microseconds unless the name says otherwise.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long faults go on, in milliseconds.
    pub faults_ms: u64,
    /// Shortest way of a message, and the mean of what comes on top.
    pub delay_us: (u64, u64),
    /// Messages lost, of a thousand.
    pub loss: u64,
    /// Messages delivered twice, of a thousand.
    pub duplicates: u64,
    /// Messages that take seconds, of a thousand.
    pub late: u64,
    /// Messages may overtake each other.
    pub reorders: bool,
    /// Mean time that a turn of a thread waits for a processor.
    pub turn_us: u64,
    /// Turns that wait a hundred times as long, and now and then seconds, of a thousand.
    pub stalls: u64,
    /// Mean time of an fsync.
    pub fsync_us: u64,
    /// Fsyncs that take a hundred times as long, of a thousand.
    pub slow_fsyncs: u64,
    /// Partitions begin.
    pub partition: Every,
    /// A node's process is killed, or its machine loses power.
    pub crash: Every,
    /// All nodes go at once.
    pub crash_all: Every,
    /// Of the crashes, those in the middle of a step, of a thousand.
    pub crash_inside: u64,
    /// A node stands still for a while.
    pub pause: Every,
    /// A wall clock is set.
    pub clock_jump: Every,
    /// A disk is full for a while.
    pub full_disk: Every,
    /// A disk is low for a while.
    pub low_disk: Every,
    /// An fsync fails.
    pub failed_sync: Every,
    /// A disk is lost: its log's end, a bit of its log, or all of it.
    pub lost_disk: Every,
    /// A bit of a snapshot flips, also while it is being sent.
    pub rotten_snapshot: Every,
    /// The membership changes.
    pub change: Every,
    /// Leadership is handed over.
    pub transfer: Every,
    /// Somebody asks for a snapshot.
    pub snapshot: Every,
    /// Snapshots that break on their way, of a thousand.
    pub broken_snapshots: u64,
    /// A worker dies.
    pub worker_death: Every,
    /// A worker stands still for a while.
    pub worker_pause: Every,
    /// Most that a clock gains or loses, parts in a million.
    pub drift_ppm: i64,
    /// Clients.
    pub clients: u32,
    /// Mean pause of a client between two operations.
    pub think_us: u64,
    /// Workers.
    pub workers: u32,
    /// The driver's tick, in milliseconds.
    pub tick_ms: u64,
    /// Ticks to an election.
    pub election_ticks: u64,
    /// Applied entries that stay in the log.
    pub log_tail_entries: u64,
    /// Entries between two flushes of the tables.
    pub flush_after_entries: u64,
    /// Between two snapshots made for their own sake, in milliseconds; 0: none are.
    pub snapshot_interval_ms: u64,
    /// Messages that may wait in a node's inbox.
    pub inbox_max: usize,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(rng: &mut Rng) -> Self {
        // In one run of eight nothing is wrong; in the others each kind of fault is there with the same chance, drawn once.
        let strength = match rng.below(8) {
            0 => 0,
            1 => 1_000,
            _ => rng.between(150, 700),
        };
        let mut often = |mean_ms: (u64, u64)| {
            let here = rng.chance(strength);
            let mean = rng.between(mean_ms.0, mean_ms.1);
            if here {
                mean
            } else {
                0
            }
        };
        let partition = often((2_000, 15_000));
        let crash = often((2_000, 15_000));
        let crash_all = often((10_000, 40_000));
        let pause = often((3_000, 20_000));
        let clock_jump = often((3_000, 20_000));
        let full_disk = often((10_000, 40_000));
        let low_disk = often((10_000, 40_000));
        let failed_sync = often((20_000, 60_000));
        let lost_disk = often((10_000, 40_000));
        let rotten_snapshot = often((5_000, 20_000));
        let change = often((2_000, 12_000));
        let transfer = often((2_000, 12_000));
        let snapshot = often((1_000, 10_000));
        let worker_death = often((3_000, 20_000));
        let worker_pause = often((3_000, 20_000));
        let mut share = |most: u64| {
            let here = rng.chance(strength);
            let share = rng.below(most + 1);
            if here {
                share
            } else {
                0
            }
        };
        let loss = share(150);
        let duplicates = share(100);
        let late = share(40);
        let stalls = share(20);
        let slow_fsyncs = share(60);
        let broken_snapshots = share(500);
        let crash_inside = share(700);
        let drift_ppm = i64::try_from(share(20_000)).unwrap_or(0);
        Self {
            faults_ms: rng.between(FAULTS_MS.0, FAULTS_MS.1),
            delay_us: (rng.between(50, 2_000), rng.between(50, 20_000)),
            loss,
            duplicates,
            late,
            reorders: rng.chance(strength),
            turn_us: rng.between(10, 400),
            stalls,
            fsync_us: rng.between(100, 8_000),
            slow_fsyncs,
            partition,
            crash,
            crash_all,
            crash_inside,
            pause,
            clock_jump,
            full_disk,
            low_disk,
            failed_sync,
            lost_disk,
            rotten_snapshot,
            change,
            transfer,
            snapshot,
            broken_snapshots,
            worker_death,
            worker_pause,
            drift_ppm,
            clients: u32::try_from(rng.between(1, 4)).unwrap_or(1),
            think_us: rng.between(20_000, 600_000),
            workers: u32::try_from(rng.between(1, 3)).unwrap_or(1),
            tick_ms: rng.between(40, 100),
            election_ticks: rng.between(10, 20),
            log_tail_entries: rng.between(4, 200),
            flush_after_entries: rng.between(8, 200),
            snapshot_interval_ms: if rng.chance(500) { rng.between(1_000, 8_000) } else { 0 },
            inbox_max: if rng.chance(100) { 16 } else { 4_096 },
        }
    }
}
