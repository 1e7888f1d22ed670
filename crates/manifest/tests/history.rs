//! The history of a job's rounds: what is left of them for a curve when the ledger has let them go.

mod common;

use common::*;
use raftgrid_manifest::views;
use raftgrid_proto::v1::{Command_oneof_kind as Kind, Outcome};

const JOB: &str = "digits";

/// A job of one shard whose first `rounds` rounds are committed.
fn trained(mut world: World, rounds: u64) -> World {
    let epochs = world.training(JOB, |train| (train.shards, train.workers, train.rounds) = (1, 1, rounds + 1));
    for round in 0..rounds {
        world.whole_round(JOB, round, epochs[0]);
    }
    world
}

fn rounds(world: &World, from: u64, limit: usize) -> (Vec<u64>, u64) {
    let page = views::round_history(&world.rows, JOB, from, limit).expect("memory").expect("the job stands");
    (page.rounds.iter().map(|round| round.round).collect(), page.next_round)
}

#[test]
fn rounds_that_the_ledger_let_go_are_in_the_history() {
    let world = trained(World::newest(), 130);
    assert!(views::get_round(&world.rows, JOB, 5).expect("memory").is_none(), "the ledger has let it go");
    assert_eq!(rounds(&world, 0, 0), ((0..130).collect(), 0));
    assert_eq!(rounds(&world, 0, 50), ((0..50).collect(), 50));
    assert_eq!(rounds(&world, 50, 80), ((50..130).collect(), 0), "a page that is just full is the last");
    assert_eq!(rounds(&world, 200, 0), (vec![], 0));
    let page = views::round_history(&world.rows, JOB, 7, 1).expect("memory").expect("the job stands");
    let (seventh, last) = (&page.rounds[0], world.round(JOB, 129));
    assert_eq!((seventh.round, seventh.contributions), (7, 1));
    assert!(seventh.committed_at_ms > 0 && seventh.committed_at_ms <= last.committed_at_ms as i64);
    assert!(views::round_history(&world.rows, "none", 0, 0).expect("memory").is_none());
}

#[test]
fn before_machine_version_6_the_ledger_is_the_history() {
    let world = trained(World::with_nodes(), 110);
    let (kept, next) = rounds(&world, 0, 0);
    assert_eq!((next, kept.last()), (0, Some(&109)));
    assert!(kept.len() as u64 >= raftgrid_manifest::limits::LEDGER_ROUNDS && !kept.contains(&0));
    assert_eq!(rounds(&world, kept[0], 3), (kept[..3].to_vec(), kept[3]));
}

#[test]
fn a_page_is_bounded_in_bytes() {
    let mut world = World::newest();
    let epochs = world.training(JOB, |train| (train.shards, train.workers, train.rounds) = (1, 1, 600));
    let long = format!("{{\"loss\":1{}}}", " ".repeat(4_000));
    for round in 0..400 {
        assert_eq!(world.gradient(JOB, round, 0, 0, epochs[0], &format!("g{round}")).outcome, Outcome::OK);
        let mut model = world.next_model(JOB, round);
        model.metrics_json = long.clone();
        world.ok(Kind::commit_model(model));
    }
    let (first, next) = rounds(&world, 0, 0);
    assert!(first.len() > 200 && first.len() < 300 && next == first.len() as u64, "{} rounds", first.len());
    assert_eq!(rounds(&world, next, 0), ((next..400).collect(), 0));
}
