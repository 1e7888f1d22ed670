//! Proposals through three replicas of one process on one machine: real drivers, RocksDB logs, real fsyncs, messages over channels instead
//! of gRPC. Not a criterion bench: what counts is how many commands a second a full pipeline decides, what one client waits, and how many
//! fsyncs that took. `cargo bench -p raftgrid-benches --bench propose [-- --seconds N --rounds N]`
#![allow(missing_docs, reason = "a program")]

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam::channel::{bounded, Receiver, Sender};
use raftgrid_benches::figures::{cpu_seconds, number, random_bytes, Spread};
use raftgrid_benches::group::Group;
use raftgrid_benches::raw_fsync;
use raftgrid_driver::RaftHandle;

const COMMAND_BYTES: usize = 256;
/// Commands that one feeder keeps under way.
const UNDER_WAY: [usize; 4] = [64, 256, 4_096, 32_768];

/// One closed loop: `under_way` commands at any time, for `time`. Commands decided, and how long that took.
fn full_pipeline(leader: &RaftHandle, commands: &[Bytes], under_way: usize, time: Duration) -> (u64, Duration) {
    let (tokens, free): (Sender<bool>, Receiver<bool>) = bounded(under_way);
    (0..under_way).for_each(|_| tokens.send(true).expect("there is room for all"));
    let start = Instant::now();
    let mut asked = 0_u64;
    while start.elapsed() < time {
        // The clock is read once for each batch of tokens, not for each command.
        let first = free.recv().expect("every proposal is answered");
        for decided in std::iter::once(first).chain(free.try_iter().take(under_way)) {
            assert!(decided, "a proposal failed");
            let tokens = tokens.clone();
            let command = commands[asked as usize % commands.len()].clone();
            asked += 1;
            leader.propose(
                command,
                Box::new(move |outcome| tokens.send(outcome.is_ok()).expect("the feeder waits for all")),
            );
        }
    }
    for _ in 0..under_way {
        assert!(free.recv().expect("every proposal is answered"), "a proposal failed");
    }
    (asked, start.elapsed())
}

/// One client, one command at a time; the latencies in microseconds.
fn one_client(leader: &RaftHandle, commands: &[Bytes], count: usize) -> Vec<f64> {
    let mut latencies = Vec::with_capacity(count);
    let (told, outcome) = bounded(1);
    for at in 0..count {
        let told = told.clone();
        let start = Instant::now();
        leader.propose(
            commands[at % commands.len()].clone(),
            Box::new(move |outcome| told.send(outcome.is_ok()).expect("somebody waits")),
        );
        assert!(outcome.recv().expect("it is answered"), "a proposal failed");
        latencies.push(start.elapsed().as_secs_f64() * 1e6);
    }
    latencies
}

fn throughput(group: &Group, commands: &[Bytes], rounds: usize, time: Duration) {
    println!("commands of {COMMAND_BYTES} B through three replicas, one feeder, {rounds} rounds of {time:?}; median (p10–p90)");
    println!("| under way | commands/s | CPU s per 1,000 | fsyncs per 1,000, all replicas |\n|---|---|---|---|");
    for under_way in UNDER_WAY {
        let (mut rates, mut cpus, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (cpu, synced) = (cpu_seconds(std::process::id()), group.syncs());
            let (decided, took) = full_pipeline(&group.leader(), commands, under_way, time);
            let per_thousand = 1_000.0 / decided as f64;
            rates.push(decided as f64 / took.as_secs_f64());
            cpus.push((cpu_seconds(std::process::id()) - cpu) * per_thousand);
            syncs.push((group.syncs() - synced) as f64 * per_thousand);
        }
        let [rates, cpus, syncs] = [rates, cpus, syncs].map(Spread::of);
        println!("| {} | {rates:.0} | {cpus:.4} | {syncs:.2} |", number(under_way as f64));
    }
}

/// Alternates one client's proposals with bare appends and fdatasyncs of the same size on the same disk.
fn latency(group: &Group, commands: &[Bytes], dir: &Path, rounds: usize, count: usize) {
    let (mut client, mut disk, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let raw = Spread::of(raw_fsync(dir, COMMAND_BYTES, count)).median;
        let proposed = Spread::of(one_client(&group.leader(), commands, count)).median;
        client.push(proposed);
        disk.push(raw);
        ratios.push(proposed / (2.0 * raw));
    }
    let [client, disk, ratios] = [client, disk, ratios].map(Spread::of);
    println!("\none client, {rounds} rounds of {count}: p50 {client:.0} µs; one append of {COMMAND_BYTES} B and its fdatasync: p50 {disk:.0} µs; client ÷ two fsyncs: {ratios:.2}");
}

fn option(name: &str, default: usize) -> usize {
    let words: Vec<String> = std::env::args().collect();
    let at = words.iter().position(|word| word == name);
    at.and_then(|at| words.get(at + 1)).map_or(default, |value| value.parse().expect("options are numbers"))
}

fn main() {
    // `cargo bench -- --test` only wants to know that it runs.
    let test = std::env::args().any(|word| word == "--test");
    let rounds = if test { 1 } else { option("--rounds", 7) };
    let time = if test { Duration::from_millis(50) } else { Duration::from_secs(option("--seconds", 2) as u64) };
    let count = if test { 20 } else { 1_000 };
    let dir = tempfile::tempdir().expect("a directory");
    let group = Group::start(dir.path());
    let commands: Vec<Bytes> = (0..1_024).map(|at| random_bytes(COMMAND_BYTES, at)).collect();
    latency(&group, &commands, dir.path(), rounds, count);
    throughput(&group, &commands, rounds, time);
}
