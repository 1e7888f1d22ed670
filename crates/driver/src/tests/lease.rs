//! What leases stand on: while a leader may count on the last quorum that answered it, nobody else is elected, whatever restarts, is cut off,
//! or arrives late.

use std::collections::BTreeMap;

use super::sim::{Options, Sim, TICK_US};
use crate::testing::MemoryDisk;
use crate::types::{ConfState, MembershipChange, NodeId, Role, Status, Term};

const VOTERS: [NodeId; 3] = [1, 2, 3];
const JOINER: NodeId = 4;
const ELECTION_TICKS: u64 = 20;
/// `Config::lease_max_ms` of these ticks.
const LEASE_US: u64 = (ELECTION_TICKS - 1) * TICK_US * 4 / 5;
const STEP_US: u64 = 2_000;

/// A question to a quorum that a lease may begin with.
struct Asked {
    node: NodeId,
    term: Term,
    conf: ConfState,
    at: u64,
}

struct Lease {
    term: Term,
    conf: ConfState,
    until: u64,
}

#[derive(Default)]
struct Leases {
    asked: BTreeMap<u64, Asked>,
    held: BTreeMap<NodeId, Lease>,
    /// Looks at a lease that was good.
    looks: u64,
    /// Leaders elected while somebody held a good lease: (seed's time, holder, elected).
    broken: Vec<(u64, NodeId, NodeId)>,
}

fn statuses(sim: &Sim) -> Vec<Status> {
    sim.nodes.values().filter_map(|home| home.live.as_ref()).map(|live| live.core.status()).collect()
}

impl Leases {
    fn ask(&mut self, sim: &mut Sim) {
        for status in statuses(sim).into_iter().filter(|status| status.role == Role::Leader) {
            let at = sim.now;
            let ticket = sim.read(status.node);
            self.asked.insert(ticket, Asked { node: status.node, term: status.term, conf: status.conf, at });
        }
    }

    /// What the replica's lease does with an answer, and what it looks at before it serves by it.
    fn look(&mut self, sim: &mut Sim) {
        let statuses = statuses(sim);
        for (ticket, _) in std::mem::take(&mut sim.seen.served) {
            let Some(asked) = self.asked.remove(&ticket) else { continue };
            let still =
                statuses.iter().any(|now| now.node == asked.node && now.term == asked.term && now.role == Role::Leader);
            if still {
                let lease = Lease { term: asked.term, conf: asked.conf, until: asked.at + LEASE_US };
                self.held.insert(asked.node, lease);
            }
        }
        for holder in &statuses {
            let Some(lease) = self.held.get(&holder.node) else { continue };
            let good = holder.role == Role::Leader
                && holder.term == lease.term
                && holder.conf == lease.conf
                && !holder.conf.is_joint()
                && !holder.transferred
                && sim.now < lease.until;
            if !good {
                continue;
            }
            self.looks += 1;
            let rival = statuses.iter().find(|other| other.role == Role::Leader && other.term > lease.term);
            self.broken.extend(rival.map(|rival| (sim.now, holder.node, rival.node)));
        }
    }
}

/// One seed. Restarts are quick here: a voter that forgot its leader is the danger.
fn run(seed: u64, hold_votes: bool) -> Leases {
    let options = Options { loss_percent: seed % 5, double_percent: 3, hold_votes, ..Options::default() };
    let mut sim = Sim::found(seed, options, &VOTERS);
    let mut leases = Leases::default();
    for step in 0..3_000u64 {
        sim.run_for(STEP_US);
        leases.look(&mut sim);
        if step % 8 == 0 {
            leases.ask(&mut sim);
        }
        let node = 1 + sim.rng.below(3);
        if let (0, Some(leader)) = (step % 50, sim.leader()) {
            // Whoever is cut off must not fall behind, or nobody would vote for him anyway.
            if sim.cut.is_empty() {
                sim.propose(leader);
            }
            if sim.rng.percent(5) {
                let ticket = sim.ticket();
                sim.input(leader, |live| live.core.transfer(ticket, None));
            }
        }
        if sim.rng.below(40) == 0 && sim.leader() != Some(node) {
            sim.crash(node);
            leases.held.remove(&node);
            sim.start(node);
        }
        if sim.rng.below(200) == 0 {
            // One link only: whoever does not hear the leader asks the third for its vote, again and again.
            sim.cut.clear();
            if let Some(leader) = sim.leader().filter(|leader| *leader != node) {
                sim.cut.extend([(node, leader), (leader, node)]);
            }
        }
        if step == 1_000 {
            sim.add(JOINER, MemoryDisk::default());
        }
        if step > 1_000 && sim.rng.below(200) == 0 {
            if let Some(leader) = sim.leader() {
                let change = match sim.rng.below(3) {
                    0 => MembershipChange::AddLearner { node: JOINER },
                    1 => MembershipChange::Remove { node: JOINER },
                    _ => MembershipChange::Replace { old: node, new: JOINER },
                };
                sim.change(leader, change, b"");
            }
        }
    }
    leases
}

#[test]
fn nobody_is_elected_while_a_leader_may_count_on_its_lease() {
    let mut looks = 0;
    for seed in 1..=120 {
        let leases = run(seed, true);
        assert!(leases.broken.is_empty(), "seed {seed}: {:?}", leases.broken);
        looks += leases.looks;
    }
    // A world without leases proves nothing.
    assert!(looks > 50_000, "{looks} looks");
}

#[test]
fn without_the_promise_a_restarted_voter_breaks_a_lease() {
    assert!((1..=120).any(|seed| !run(seed, false).broken.is_empty()), "the check above sees nothing");
}
