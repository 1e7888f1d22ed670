//! Combinations of faults that once showed a bug, or that a planted one needs, as plans made by hand: whatever a seed comes to mean, each of
//! them stays what it is. With the feature `mutants`, each must show its bug (`cargo test --features mutants --test regressions`).

use raftgrid_simulator::{run_plan, Focus, Options, Plan, Report, Rng};

/// Seeds that each plan is run with.
const SEEDS: u64 = 6;

/// A plan by hand.
struct Directed {
    /// What must hold.
    holds: &'static str,
    /// The planted bug that it must show.
    mutant: &'static str,
    /// Founders.
    nodes: u64,
    /// What is wrong; everything else is calm.
    trouble: fn(&mut Plan, &mut Rng),
}

const DIRECTED: [Directed; 13] = [
    Directed {
        holds: "a replica that voted and lost power does not vote again",
        mutant: "vote_not_kept",
        nodes: 3,
        trouble: |plan, _| {
            plan.crash_voters = 300;
            plan.transfer = 1_000;
            plan.power = 1_000;
        },
    },
    Directed {
        // Once the judge of logs took the entries of a term that was never durable for real ones here.
        holds: "a single voter with learners says nothing in a term that is not durable",
        mutant: "immediate_before_durable_term",
        nodes: 1,
        trouble: |plan, _| {
            plan.change = 1_500;
            plan.standbys = 1_000;
            plan.crash = 1_000;
            plan.power = 1_000;
            plan.fsync_us = 20_000;
        },
    },
    Directed {
        holds: "an fsync acknowledges what was written before it began",
        mutant: "synced_covers_later_writes",
        nodes: 3,
        trouble: |plan, _| {
            plan.fsync_us = 20_000;
            plan.slow_fsyncs = 100;
            plan.crash = 1_000;
            plan.power = 1_000;
        },
    },
    Directed {
        holds: "a read on a follower sees what was acknowledged before it",
        mutant: "read_context_reused",
        nodes: 3,
        trouble: |plan, rng| {
            plan.look_at(Focus::Reads, rng);
            (plan.partition, plan.transfer) = (0, 0);
            (plan.clients, plan.think_us, plan.reads, plan.scattered_reads) = (10, 2_000, 500, 600);
            (plan.delay_us, plan.fsync_us, plan.loss) = ((50, 500), 500, 60);
            (plan.stall, plan.stall_ms) = (300, 400);
            plan.faults_ms = 30_000;
        },
    },
    Directed {
        holds: "a change of the membership that comes after a newer snapshot changes nothing",
        mutant: "old_change_over_snapshot",
        nodes: 3,
        trouble: far_behind,
    },
    Directed {
        holds: "a replica that waits for its snapshot to be taken over does not campaign",
        mutant: "election_during_install",
        nodes: 5,
        trouble: |plan, rng| {
            far_behind(plan, rng);
            (plan.change, plan.election_ticks) = (0, 5);
            (plan.partition, plan.stall, plan.stall_ms) = (1_000, 1_000, 5_000);
        },
    },
    Directed {
        holds: "a snapshot that rots on its way is refused",
        mutant: "snapshot_not_verified",
        nodes: 3,
        trouble: |plan, rng| {
            far_behind(plan, rng);
            plan.rotten_snapshot = 1_000;
        },
    },
    Directed {
        holds: "the report of a lease that is over ends no other",
        mutant: "stale_report_accepted",
        nodes: 3,
        trouble: |plan, rng| plan.look_at(Focus::Leases, rng),
    },
    Directed {
        // Once the world took the old machine away while the group still stood between two configurations.
        holds: "a machine is replaced while leaders come and go",
        mutant: "empty_change_skipped",
        nodes: 3,
        trouble: |plan, _| {
            plan.change = 700;
            plan.standbys = 1_000;
            plan.crash = 2_000;
            plan.partition = 2_000;
            plan.cut_ms = 500;
        },
    },
    Directed {
        holds: "a gradient that was acknowledged is in the ledger",
        mutant: "ack_before_ledger",
        nodes: 3,
        trouble: training,
    },
    Directed {
        holds: "bytes that a receipt was given for survive a loss of power",
        mutant: "bytes_not_synced",
        nodes: 3,
        trouble: training,
    },
    Directed {
        holds: "a round has the same sum in whatever order its contributions came",
        mutant: "sum_by_arrival",
        nodes: 3,
        trouble: training,
    },
    Directed {
        holds: "a model comes with the state of its own round",
        mutant: "state_of_before",
        nodes: 3,
        trouble: training,
    },
];

fn training(plan: &mut Plan, rng: &mut Rng) {
    plan.look_at(Focus::Training, rng);
}

/// Followers fall behind a log of hardly any entries, and apply nothing for seconds.
fn far_behind(plan: &mut Plan, rng: &mut Rng) {
    plan.look_at(Focus::Snapshots, rng);
    (plan.faults_ms, plan.think_us) = (40_000, 20_000);
    (plan.stall, plan.stall_ms) = (3_000, 6_000);
    (plan.partition, plan.cut_ms) = (1_500, 1_500);
    (plan.change, plan.log_tail_entries) = (700, 1);
}

fn run(directed: &Directed, seed: u64) -> Report {
    let mut rng = Rng::new(seed);
    let mut plan = Plan::calm(&mut rng);
    plan.inbox_max = 4_096;
    (directed.trouble)(&mut plan, &mut rng);
    run_plan(Options { seed, nodes: directed.nodes, tasks: 0, sink: None }, plan)
}

#[cfg(not(feature = "mutants"))]
#[test]
fn what_each_plan_is_about_holds() {
    for directed in &DIRECTED {
        for seed in 1..=SEEDS {
            let report = run(directed, seed);
            let what = format!("{} (as {} would break it), seed {seed}", directed.holds, directed.mutant);
            assert_eq!(report.violations, Vec::<String>::new(), "{what}\n{}", report.tail);
            assert!(report.entries > 5, "{what}: something happens");
        }
    }
}

#[cfg(feature = "mutants")]
#[test]
fn each_plan_shows_the_bug_that_it_is_for() {
    for directed in &DIRECTED {
        raftgrid_driver::mutant::set(directed.mutant);
        raftgrid_manifest::mutant::set(directed.mutant);
        raftgrid_blob::mutant::set(directed.mutant);
        let shown = (1..=SEEDS).find(|seed| !run(directed, *seed).violations.is_empty());
        println!("{}: seed {shown:?}", directed.mutant);
        assert!(shown.is_some(), "{} is not shown where {}", directed.mutant, directed.holds);
    }
}
