//! Registrations, node statuses, load reports.

use raftgrid_control::{Action, Beat, Config, Input};
use raftgrid_manifest::{Change, Table};
use raftgrid_proto::v1::{CommandReply, Command_oneof_kind as Kind, MetaRow, Node, NodeStatus, Outcome};

use crate::world::*;

fn statuses(kinds: &[Kind]) -> Vec<(String, NodeStatus)> {
    let status = |kind: &Kind| match kind {
        Kind::node_status_change(change) => Some((change.node_id.clone(), change.status)),
        _ => None,
    };
    kinds.iter().filter_map(status).collect()
}

#[test]
fn an_unknown_node_is_answered_only_when_its_row_shows_the_incarnation() {
    let mut world = World::settled();
    let node = Node { region: "eu".into(), ..Node::default() };
    let fresh = Beat { node_id: "node-0".into(), boot_nonce: 7, node: Some(node), ..Beat::default() };
    let (ticket, mut inputs) = world.beat_input(fresh);
    inputs.push(Input::QuorumConfirmed { ticket });
    let actions = world.step(inputs);
    let [Kind::register_node(register)] = &decisions(&actions)[..] else { panic!("one registration, not {actions:?}") };
    assert_eq!(
        (register.boot_nonce, register.get_node().get_node_id(), register.get_node().get_region()),
        (7, "node-0", "eu")
    );
    assert_eq!(answer(&actions, ticket), None);
    world.node("node-0");
    let actions = world.step(vec![accepted(tags(&actions)[0], 1)]);
    let answered = answer(&actions, ticket).expect("answered").expect("registered");
    assert_eq!((answered.incarnation, answered.next_beat_ms, answered.lease_ttl_ms), (70, 250, 3_000));
}

#[test]
fn a_first_beat_of_a_process_that_was_overtaken_is_refused_and_registers_nothing() {
    let mut world = World::settled();
    let mut row = node_row("node-0", NodeStatus::HEALTHY);
    row.generation = 20;
    world.put(Table::Node, b"node-0".to_vec(), &row);
    let late = Beat { boot_nonce: 6, generation: 19, incarnation: 0, ..beat("node-0") };
    let (ticket, inputs) = world.beat_input(late);
    let mut actions = world.step(inputs);
    actions.extend(world.step(vec![Input::QuorumConfirmed { ticket }]));
    let answer = answer(&actions, ticket).expect("it is answered").expect("a quorum stands behind it");
    assert!(answer.overtaken && answer.incarnation == 0);
    assert!(commands(&actions).is_empty(), "{actions:?}");
}

/// A row of before machine version 4 does not say which of the node's processes it is; seed 1372 with one founder.
#[test]
fn beside_a_row_without_a_generation_the_process_itself_is_asked() {
    let mut world = World::settled();
    let meta = MetaRow { machine_version: 4, ..MetaRow::default() };
    world.put(Table::Meta, vec![0], &meta);
    world.node("node-0");
    let first_beat = |world: &mut World, generation: u64| {
        let late = Beat { boot_nonce: 6, generation, incarnation: 0, ..beat("node-0") };
        let (ticket, mut inputs) = world.beat_input(late);
        inputs.push(Input::QuorumConfirmed { ticket });
        (ticket, world.step(inputs))
    };
    let (ticket, actions) = first_beat(&mut world, 19);
    assert!(answer(&actions, ticket).is_none() && decisions(&actions).is_empty(), "nobody was heard yet: {actions:?}");

    let (_, mut inputs) = world.beat_input(Beat { generation: 20, ..beat("node-0") });
    inputs.extend((1..=2).map(|ticket| Input::QuorumConfirmed { ticket }));
    let actions = world.step(inputs);
    let refused = answer(&actions, ticket).expect("it is answered now").expect("a quorum stands behind it");
    assert!(refused.overtaken);
    let kinds = decisions(&actions);
    let [Kind::register_node(known)] = &kinds[..] else { panic!("the row learns which process it is: {kinds:?}") };
    assert_eq!((known.boot_nonce, known.generation), (7, 20));

    let mut world = World::settled();
    world.put(Table::Node, b"node-0".to_vec(), &node_row("node-0", NodeStatus::UNHEALTHY));
    let (_, actions) = first_beat(&mut world, 19);
    let kinds = decisions(&actions);
    assert!(matches!(&kinds[..], [Kind::register_node(late)] if late.boot_nonce == 6), "it fell silent: {kinds:?}");
}

#[test]
fn a_new_nonce_registers_anew_and_an_overtaken_one_is_revoked() {
    let mut world = World::settled();
    world.live_node("node-0");
    world.task(running(1, "node-0", 1_000));
    let (_, inputs) = world.beat_input(Beat { boot_nonce: 8, incarnation: 0, ..beat("node-0") });
    let kinds = decisions(&world.step(inputs));
    assert!(matches!(&kinds[..], [Kind::register_node(register)] if register.boot_nonce == 8), "{kinds:?}");

    let overtaken = Beat { boot_nonce: 6, incarnation: 60, ..beat_holding("node-0", &[("task-1", 1_000)]) };
    let (ticket, mut inputs) = world.beat_input(overtaken);
    inputs.push(Input::QuorumConfirmed { ticket });
    let actions = world.step(inputs);
    let answered = answer(&actions, ticket).expect("answered").expect("with a quorum");
    assert_eq!((answered.incarnation, answered.revoked), (70, vec![("task-1".to_owned(), 1_000)]));
    assert_eq!(decisions(&actions), vec![], "an old process does not register over its successor");
}

#[test]
fn an_old_agent_is_registered_at_its_first_contact_and_then_left_alone() {
    let mut world = World::settled();
    let old = Beat { node_id: "node-0".into(), ..Beat::default() };
    let (_, inputs) = world.beat_input(old.clone());
    let kinds = decisions(&world.step(inputs));
    assert!(matches!(&kinds[..], [Kind::register_node(register)] if register.boot_nonce == 0), "{kinds:?}");
    world.node("node-0");
    let (_, inputs) = world.beat_input(old);
    assert_eq!(decisions(&world.step(inputs)), vec![]);
}

#[test]
fn silence_makes_a_node_unknown_then_unhealthy_and_a_beat_makes_it_healthy() {
    let mut world = World::settled();
    world.live_node("node-0");
    let heard = world.now;
    assert_eq!(statuses(&commands(&world.at(heard + 999))), vec![]);
    let actions = world.at(heard + 1_000);
    assert_eq!(statuses(&commands(&actions)), vec![("node-0".to_owned(), NodeStatus::UNKNOWN)]);
    world.put(Table::Node, b"node-0".to_vec(), &node_row("node-0", NodeStatus::UNKNOWN));
    world.step(vec![accepted(tags(&actions)[0], 1)]);
    assert_eq!(statuses(&commands(&world.at(heard + 2_999))), vec![]);
    let actions = world.at(heard + 3_000);
    assert_eq!(statuses(&commands(&actions)), vec![("node-0".to_owned(), NodeStatus::UNHEALTHY)]);
    world.put(Table::Node, b"node-0".to_vec(), &node_row("node-0", NodeStatus::UNHEALTHY));
    world.step(vec![accepted(tags(&actions)[0], 1)]);
    world.now += 10;
    let (_, inputs) = world.beat_input(beat("node-0"));
    assert_eq!(statuses(&commands(&world.step(inputs))), vec![("node-0".to_owned(), NodeStatus::HEALTHY)]);
}

/// Seed 2962: a disk that was full refused it, and the node stayed as it was for ever.
#[test]
fn a_status_that_was_refused_is_proposed_again() {
    let mut world = World::settled();
    world.live_node("node-0");
    let heard = world.now;
    let actions = world.at(heard + 1_000);
    assert_eq!(statuses(&commands(&actions)), vec![("node-0".to_owned(), NodeStatus::UNKNOWN)]);
    let refused = CommandReply { outcome: Outcome::EXHAUSTED, ..CommandReply::default() };
    world.step(vec![Input::Proposed { tag: tags(&actions)[0], replies: Some(vec![refused]) }]);
    let again: Vec<_> = (1..=3).flat_map(|n| statuses(&commands(&world.at(heard + 1_000 + n * 100)))).collect();
    assert_eq!(again, vec![("node-0".to_owned(), NodeStatus::UNKNOWN)]);
}

#[test]
fn a_new_leader_marks_no_node_before_its_grace_is_over() {
    let mut world = World::new();
    for n in 0..20 {
        world.node(&format!("node-{n}"));
    }
    world.load();
    let end = START + Config::local().election_grace_ms;
    for at in (START..end).step_by(100) {
        assert_eq!(commands(&world.at(at)), vec![], "at {at}");
    }
    assert_eq!(statuses(&commands(&world.at(end + 1_000))).len(), 20);
}

#[test]
fn loads_go_into_one_report_at_most_every_two_seconds() {
    let mut world = World::settled();
    world.now += 5_000;
    let mut reports: Vec<(u64, usize)> = Vec::new();
    for n in 0..3 {
        world.node(&format!("node-{n}"));
    }
    let first = world.now;
    for at in (first..first + 10_000).step_by(250) {
        world.now = at;
        let mut inputs = Vec::new();
        for n in 0..3 {
            let load = (at - first) as f64 / 10_000.0;
            inputs.extend(world.beat_input(Beat { cpu_usage: load, ..beat(&format!("node-{n}")) }).1);
        }
        let actions = world.step(inputs);
        for kind in commands(&actions) {
            match kind {
                Kind::load_report(report) => reports.push((at, report.loads.len())),
                other => panic!("unexpected {other:?}"),
            }
        }
        for action in &actions {
            if let raftgrid_control::Action::Propose { tag, .. } = action {
                world.step(vec![accepted(*tag, 1)]);
            }
        }
    }
    assert_eq!(reports.len(), 5, "{reports:?}");
    assert!(reports.iter().all(|(_, nodes)| *nodes == 3), "{reports:?}");
    assert!(reports.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 2_000), "{reports:?}");
}

#[test]
fn a_nonsense_load_does_no_harm() {
    let mut world = World::settled();
    world.node("node-0");
    let (_, inputs) = world.beat_input(Beat { cpu_usage: f64::NAN, memory_usage: -1.0, ..beat("node-0") });
    for kind in commands(&world.step(inputs)) {
        let Kind::load_report(report) = kind else { continue };
        assert_eq!((report.loads[0].cpu_usage, report.loads[0].memory_usage), (0.0, 0.0));
    }
}

#[test]
fn a_node_whose_row_went_is_forgotten() {
    let mut world = World::settled();
    world.live_node("node-0");
    world.change(Change { table: Table::Node, key: b"node-0".to_vec(), value: None });
    world.now += 60_000;
    assert_eq!(decisions(&world.step(vec![])), vec![]);
}

#[test]
fn a_node_that_says_what_is_wrong_with_it_is_unhealthy_until_it_says_nothing_more() {
    let mut world = World::settled();
    let meta = MetaRow { machine_version: 3, ..MetaRow::default() };
    world.put(Table::Meta, vec![0], &meta);
    world.live_node("node-0");
    let changes = |actions: &[Action]| -> Vec<(NodeStatus, String)> {
        let change = |kind| match kind {
            Kind::node_status_change(change) => Some((change.status, change.problem)),
            _ => None,
        };
        commands(actions).into_iter().filter_map(change).collect()
    };
    let troubled = |problem: &str| Beat { problem: problem.to_owned(), ..beat("node-0") };
    let row = |status, problem: &str| {
        let mut row = node_row("node-0", status);
        row.mut_node().problem = problem.to_owned();
        row
    };
    let unhealthy = |problem: &str| vec![(NodeStatus::UNHEALTHY, problem.to_owned())];

    let (_, inputs) = world.beat_input(troubled("the disk is full"));
    let actions = world.step(inputs);
    assert_eq!(changes(&actions), unhealthy("the disk is full"));
    world.put(Table::Node, b"node-0".to_vec(), &row(NodeStatus::UNHEALTHY, "the disk is full"));
    world.step(vec![accepted(tags(&actions)[0], 1)]);
    let (_, inputs) = world.beat_input(troubled("the disk is full"));
    assert_eq!(changes(&world.step(inputs)), vec![], "said once");

    let (_, inputs) = world.beat_input(troubled("a GPU is gone"));
    let actions = world.step(inputs);
    assert_eq!(changes(&actions), unhealthy("a GPU is gone"));
    world.put(Table::Node, b"node-0".to_vec(), &row(NodeStatus::UNHEALTHY, "a GPU is gone"));
    world.step(vec![accepted(tags(&actions)[0], 2)]);

    // It falls silent: whatever it said counts no longer, and another process may take its name.
    world.now += 60_000;
    let actions = world.step(vec![]);
    assert_eq!(changes(&actions), unhealthy(""));
    world.put(Table::Node, b"node-0".to_vec(), &row(NodeStatus::UNHEALTHY, ""));
    world.step(vec![accepted(tags(&actions)[0], 3)]);
    assert_eq!(changes(&world.step(vec![])), vec![], "said once");

    let (_, inputs) = world.beat_input(troubled(""));
    assert_eq!(changes(&world.step(inputs)), vec![(NodeStatus::HEALTHY, String::new())]);
}

#[test]
fn a_cluster_of_an_older_version_is_told_of_a_problem_once() {
    let mut world = World::settled();
    world.live_node("node-0");
    let troubled = || Beat { problem: "the disk is full".to_owned(), ..beat("node-0") };
    let (_, inputs) = world.beat_input(troubled());
    let actions = world.step(inputs);
    assert_eq!(statuses(&commands(&actions)), vec![("node-0".to_owned(), NodeStatus::UNHEALTHY)]);
    // Its row cannot say why.
    world.put(Table::Node, b"node-0".to_vec(), &node_row("node-0", NodeStatus::UNHEALTHY));
    world.step(vec![accepted(tags(&actions)[0], 1)]);
    let (_, inputs) = world.beat_input(troubled());
    assert_eq!(statuses(&commands(&world.step(inputs))), vec![]);
}
