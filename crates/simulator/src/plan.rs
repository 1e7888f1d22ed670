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
    /// Mean time that one lasts, in milliseconds, if it does not flap.
    pub cut_ms: u64,
    /// A node's process is killed, or its machine loses power.
    pub crash: Every,
    /// All nodes go at once.
    pub crash_all: Every,
    /// Of the crashes, those in the middle of a step, of a thousand.
    pub crash_inside: u64,
    /// Of the crashes between steps, those in which the machine loses power, of a thousand.
    pub power: u64,
    /// Machines that lose power as soon as they have voted, of a thousand votes.
    pub crash_voters: u64,
    /// A node stands still for a while.
    pub pause: Every,
    /// One thread of a node stands still for a while.
    pub stall: Every,
    /// Threads that do: 1 the apply side's, 2 that of fsyncs, too, and so on, 6 any.
    pub stall_threads: usize,
    /// Mean time that one does, in milliseconds.
    pub stall_ms: u64,
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
    /// New machines that stay without a vote, of a thousand.
    pub standbys: u64,
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
    /// A worker leaves in good order, and comes back.
    pub worker_leave: Every,
    /// Reports and first heartbeats of workers that take seconds, half of them of a worker that dies meanwhile, of a thousand.
    pub late_reports: u64,
    /// When the machine version is raised to the newest, in milliseconds.
    pub raise_ms: u64,
    /// Most that a clock gains or loses, parts in a million.
    pub drift_ppm: i64,
    /// Clients.
    pub clients: u32,
    /// Mean pause of a client between two operations.
    pub think_us: u64,
    /// How long a client waits for an answer before it tries again, in milliseconds.
    pub attempt_ms: u64,
    /// What clients do that is a read, of a thousand.
    pub reads: u64,
    /// Reads that go to any node, of a thousand; the others go to the leader as far as it is known.
    pub scattered_reads: u64,
    /// Most elements of an array.
    pub elements_max: u32,
    /// What clients hand in that is a train job, of a thousand operations. None where members change or disks are lost for good: nobody brings
    /// bytes back here.
    pub trains: u64,
    /// Of the train jobs, those whose trainers now and then send what they should not, of a thousand.
    pub unruly: u64,
    /// Workers.
    pub workers: u32,
    /// Tasks that one runs at a time.
    pub slots: u32,
    /// Mean time that a process takes, in milliseconds.
    pub process_ms: u64,
    /// Faults go on until so many tasks were made, however long that takes; 0: only for their time.
    pub tasks: u64,
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

/// What a run is about. Some bugs need several things at once that chance seldom brings together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// Elections again and again, and machines that lose power.
    Elections,
    /// Followers that fall behind a short log, and the apply side behind raft.
    Snapshots,
    /// Reads everywhere, while leaders come and go.
    Reads,
    /// Leases that end, and reports that come later.
    Leases,
    /// Many tasks on many workers, which come and go, while leaders do.
    Tasks,
    /// Train jobs, while replicas, their machines and the trainers die.
    Training,
}

/// Draws the faults of a plan: each is there or not.
struct Draw<'a> {
    rng: &'a mut Rng,
    /// Of a thousand kinds of faults, those that are there.
    strength: u64,
}

impl Draw<'_> {
    fn often(&mut self, mean_ms: (u64, u64)) -> Every {
        let here = self.rng.chance(self.strength);
        let mean = self.rng.between(mean_ms.0, mean_ms.1);
        if here {
            mean
        } else {
            0
        }
    }

    fn share(&mut self, most: u64) -> u64 {
        let here = self.rng.chance(self.strength);
        let share = self.rng.below(most + 1);
        if here {
            share
        } else {
            0
        }
    }
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
        let mut plan = Self::calm(rng);
        plan.disturb(&mut Draw { rng, strength });
        let focus = match rng.below(11) {
            0 => Some(Focus::Elections),
            1 | 2 => Some(Focus::Snapshots),
            3 => Some(Focus::Reads),
            4 => Some(Focus::Leases),
            5 => Some(Focus::Tasks),
            6 => Some(Focus::Training),
            _ => None,
        };
        plan.trains = rng.between(5, 30);
        if let Some(focus) = focus.filter(|_| strength > 0) {
            plan.look_at(focus, rng);
        }
        if plan.change > 0 || plan.lost_disk > 0 {
            plan.trains = 0;
        }
        plan
    }

    /// A plan for `tasks` tasks, however long they take.
    pub fn of_tasks(tasks: u64, rng: &mut Rng) -> Self {
        let mut plan = Self::calm(rng);
        plan.look_at(Focus::Tasks, rng);
        (plan.workers, plan.slots, plan.clients) = (8, 8, 8);
        (plan.think_us, plan.elements_max) = (15_000, 60);
        plan.tasks = tasks;
        plan
    }

    /// A run in which nothing is wrong.
    pub fn calm(rng: &mut Rng) -> Self {
        Self {
            faults_ms: rng.between(FAULTS_MS.0, FAULTS_MS.1),
            delay_us: (rng.between(50, 2_000), rng.between(50, 20_000)),
            loss: 0,
            duplicates: 0,
            late: 0,
            reorders: false,
            turn_us: rng.between(10, 400),
            stalls: 0,
            fsync_us: rng.between(100, 8_000),
            slow_fsyncs: 0,
            partition: 0,
            cut_ms: 4_000,
            crash: 0,
            crash_all: 0,
            crash_inside: 0,
            power: 600,
            crash_voters: 0,
            pause: 0,
            stall: 0,
            stall_threads: 6,
            stall_ms: 1_500,
            clock_jump: 0,
            full_disk: 0,
            low_disk: 0,
            failed_sync: 0,
            lost_disk: 0,
            rotten_snapshot: 0,
            change: 0,
            standbys: if rng.chance(200) { 1_000 } else { 300 },
            transfer: 0,
            snapshot: 0,
            broken_snapshots: 0,
            worker_death: 0,
            worker_pause: 0,
            worker_leave: 0,
            late_reports: 0,
            raise_ms: 0,
            drift_ppm: 0,
            clients: u32::try_from(rng.between(1, 4)).unwrap_or(1),
            think_us: rng.between(20_000, 600_000),
            attempt_ms: 1_500,
            reads: 400,
            scattered_reads: if rng.chance(500) { rng.between(0, 800) } else { 0 },
            elements_max: 12,
            trains: 0,
            unruly: 200,
            workers: u32::try_from(rng.between(1, 3)).unwrap_or(1),
            slots: 2,
            process_ms: 800,
            tasks: 0,
            tick_ms: rng.between(40, 100),
            election_ticks: rng.between(10, 20),
            log_tail_entries: rng.between(4, 200),
            flush_after_entries: rng.between(8, 200),
            snapshot_interval_ms: if rng.chance(500) { rng.between(1_000, 8_000) } else { 0 },
            inbox_max: if rng.chance(100) { 16 } else { 4_096 },
        }
    }

    fn disturb(&mut self, draw: &mut Draw<'_>) {
        self.partition = draw.often((2_000, 15_000));
        self.crash = draw.often((2_000, 15_000));
        self.crash_all = draw.often((10_000, 40_000));
        self.pause = draw.often((3_000, 20_000));
        self.stall = draw.often((2_000, 15_000));
        self.clock_jump = draw.often((3_000, 20_000));
        self.full_disk = draw.often((10_000, 40_000));
        self.low_disk = draw.often((10_000, 40_000));
        self.failed_sync = draw.often((20_000, 60_000));
        self.lost_disk = draw.often((10_000, 40_000));
        self.rotten_snapshot = draw.often((5_000, 20_000));
        self.change = draw.often((2_000, 12_000));
        self.transfer = draw.often((2_000, 12_000));
        self.snapshot = draw.often((1_000, 10_000));
        self.worker_death = draw.often((3_000, 20_000));
        self.worker_pause = draw.often((3_000, 20_000));
        self.worker_leave = draw.often((3_000, 20_000));
        self.loss = draw.share(150);
        self.duplicates = draw.share(100);
        self.late = draw.share(40);
        self.stalls = draw.share(20);
        self.slow_fsyncs = draw.share(60);
        self.broken_snapshots = draw.share(500);
        self.crash_inside = draw.share(700);
        self.crash_voters = draw.share(60);
        self.late_reports = draw.share(100);
        self.drift_ppm = i64::try_from(draw.share(20_000)).unwrap_or(0);
        self.reorders = draw.rng.chance(draw.strength);
    }

    /// Brings together what a kind of bug needs. What else was drawn stays.
    pub fn look_at(&mut self, focus: Focus, rng: &mut Rng) {
        match focus {
            Focus::Elections => {
                self.crash = rng.between(500, 3_000);
                self.partition = rng.between(500, 3_000);
                self.cut_ms = rng.between(200, 2_000);
                self.transfer = rng.between(500, 4_000);
                self.power = 900;
                self.crash_voters = rng.between(20, 200);
                self.fsync_us = rng.between(2_000, 30_000);
                self.election_ticks = rng.between(5, 12);
            }
            Focus::Snapshots => {
                self.partition = rng.between(1_000, 2_500);
                self.cut_ms = rng.between(800, 2_000);
                self.stall = rng.between(1_000, 5_000);
                self.stall_threads = 1;
                self.stall_ms = rng.between(2_000, 8_000);
                self.change = rng.between(500, 1_500);
                self.snapshot = rng.between(500, 3_000);
                self.log_tail_entries = rng.between(1, 4);
                self.flush_after_entries = rng.between(1, 8);
                self.think_us = rng.between(30_000, 100_000);
                self.faults_ms = self.faults_ms.min(40_000);
                self.election_ticks = rng.between(5, 12);
            }
            Focus::Reads => {
                self.think_us = rng.between(5_000, 20_000);
                self.delay_us = (50, rng.between(200, 5_000));
                self.fsync_us = rng.between(200, 2_000);
                self.clients = u32::try_from(rng.between(4, 8)).unwrap_or(4);
                self.attempt_ms = rng.between(150, 600);
                self.reads = rng.between(400, 800);
                self.scattered_reads = rng.between(300, 1_000);
                self.partition = rng.between(1_000, 8_000);
                self.cut_ms = rng.between(200, 1_000);
                self.transfer = rng.between(1_000, 8_000);
                self.loss = rng.between(30, 150);
                self.stall = rng.between(300, 2_000);
                self.stall_threads = 1;
                self.stall_ms = rng.between(200, 1_000);
                self.election_ticks = rng.between(5, 12);
                self.faults_ms = FAULTS_MS.0;
            }
            Focus::Leases => {
                self.workers = 3;
                self.late_reports = rng.between(100, 400);
                self.worker_pause = rng.between(2_000, 8_000);
                self.worker_death = rng.between(2_000, 8_000);
                self.think_us = rng.between(50_000, 200_000);
                self.raise_ms = rng.below(15_000);
            }
            Focus::Training => {
                (self.change, self.lost_disk) = (0, 0);
                (self.trains, self.unruly) = (rng.between(50, 150), 300);
                (self.workers, self.slots) = (3, 4);
                self.clients = 2;
                self.reads = 500;
                self.elements_max = 4;
                self.process_ms = 300;
                self.crash = rng.between(2_500, 10_000);
                self.crash_all = rng.between(15_000, 50_000);
                self.crash_inside = rng.between(0, 500);
                self.power = 800;
                self.partition = rng.between(3_000, 12_000);
                self.cut_ms = rng.between(300, 2_000);
                self.transfer = rng.between(3_000, 12_000);
                self.late_reports = rng.between(10, 100);
                self.worker_death = rng.between(3_000, 12_000);
                self.worker_pause = rng.between(4_000, 15_000);
                self.worker_leave = rng.between(6_000, 20_000);
                self.loss = self.loss.max(rng.below(60));
                self.faults_ms = rng.between(30_000, 50_000);
                self.think_us = rng.between(150_000, 400_000);
                self.election_ticks = rng.between(5, 12);
            }
            Focus::Tasks => {
                self.crash = rng.between(8_000, 20_000);
                self.crash_all = 120_000;
                self.partition = rng.between(8_000, 20_000);
                self.transfer = rng.between(8_000, 20_000);
                self.clock_jump = 60_000;
                self.loss = 20;
                self.late_reports = rng.between(10, 50);
                self.worker_pause = rng.between(2_000, 8_000);
                self.worker_death = rng.between(2_000, 8_000);
                self.worker_leave = rng.between(2_000, 8_000);
                self.workers = 5;
                self.slots = 4;
                self.clients = 4;
                self.think_us = 50_000;
                self.reads = 80;
                self.elements_max = 40;
                self.process_ms = 200;
                self.faults_ms = FAULTS_MS.0;
                self.delay_us = (50, rng.between(200, 2_000));
                self.fsync_us = rng.between(100, 2_000);
                self.election_ticks = 10;
                // A snapshot is a copy of everything.
                self.snapshot_interval_ms = 0;
                self.log_tail_entries = 5_000;
                self.flush_after_entries = 2_000;
                self.inbox_max = 4_096;
            }
        }
    }
}
