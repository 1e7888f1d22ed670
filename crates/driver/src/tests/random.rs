//! Random faults over many seeds.

use super::sim::{Options, Sim};
use crate::testing::MemoryDisk;
use crate::types::{MembershipChange, NodeId};

const VOTERS: [NodeId; 3] = [1, 2, 3];

/// One seed: proposals and reads all the while, crashes, cuts, and a fourth replica that joins and leaves.
fn run(seed: u64) -> Sim {
    // Slow disks and slow state machines leave more between what is visible, durable and applied.
    let options = Options {
        loss_percent: seed % 8,
        double_percent: 3,
        log_tail_entries: 20,
        sync_us: [1_000, 5_000, 20_000, 80_000][seed as usize % 4],
        apply_us: [500, 5_000, 30_000][seed as usize % 3],
        ..Options::default()
    };
    let mut sim = Sim::found(seed, options, &VOTERS);
    let mut joined = false;
    for round in 0..600u64 {
        sim.run_for(20_000);
        if let Some(leader) = sim.leader() {
            for _ in 0..sim.rng.below(6) {
                sim.propose(leader);
            }
            if sim.rng.percent(30) {
                sim.read(leader);
            }
            if sim.rng.percent(1) {
                let ticket = sim.ticket();
                sim.input(leader, |live| live.core.transfer(ticket, None));
            }
        }
        fault(&mut sim);
        if round == 100 {
            sim.add(4, MemoryDisk::default());
        }
        if round > 100 && !joined && sim.rng.percent(10) {
            if let Some(leader) = sim.leader() {
                sim.change(leader, MembershipChange::AddLearner { node: 4 }, b"at four");
                joined = sim.core(leader).status().conf.contains(4);
            }
        }
    }
    let mut members = VOTERS.to_vec();
    if sim.nodes.values().filter_map(|home| home.live.as_ref()).any(|live| live.core.status().conf.contains(4)) {
        members.push(4);
    }
    sim.check_end(&members);
    sim
}

fn fault(sim: &mut Sim) {
    let ids: Vec<NodeId> = sim.nodes.keys().copied().collect();
    let node = ids[sim.rng.below(ids.len() as u64) as usize];
    if sim.rng.percent(3) {
        sim.crash(node);
    }
    if sim.rng.percent(1) {
        // The power fails for all of them.
        ids.iter().for_each(|node| sim.crash(*node));
    }
    if sim.rng.percent(10) && sim.nodes[&node].live.is_none() {
        sim.start(node);
    }
    if sim.rng.percent(2) {
        for other in &ids {
            sim.cut.insert((node, *other));
            if sim.rng.percent(70) {
                sim.cut.insert((*other, node));
            }
        }
    }
    if sim.rng.percent(5) {
        sim.cut.clear();
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_one_term_has_one_leader() {
    let (mut acked, mut crashes, mut snapshots, mut reads, mut packed) = (0, 0, 0, 0, 0);
    for seed in 1..=200 {
        let sim = run(seed);
        acked += sim.seen.acked.len();
        crashes += sim.seen.crashes;
        snapshots += sim.seen.snapshots;
        reads += sim.seen.reads;
        packed = packed.max(sim.seen.packed);
    }
    println!("{acked} acknowledged, {crashes} crashes, {snapshots} installs, {reads} reads, packed up to {packed}");
    // A world in which nothing happens proves nothing.
    assert!(acked > 10_000 && crashes > 200 && snapshots > 20 && reads > 1_000 && packed > 1);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    assert_eq!(run(5).trace, run(5).trace);
    assert_ne!(run(5).trace, run(6).trace);
}
