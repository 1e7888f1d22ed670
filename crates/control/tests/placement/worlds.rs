//! Random worlds, and what the leader says of tasks that wait.

use raftgrid_manifest::predicates;
use raftgrid_proto::v1::{
    Command_oneof_kind as Kind, Constraint, Eligibility, GangSpec, JobSpec, Node, PutQueue, Queue, SetEligibility,
    SetMaintenance, SubmitJob, SubmitTask, TaskSpec, TaskStatus,
};

use crate::cluster::{Cluster, STEP_MS};
use crate::rng::Rng;

/// In a healed world everything is over by then.
const HEALED_MS: u64 = 600_000;

fn nodes(rng: &mut Rng) -> Vec<Node> {
    let count = 3 + rng.below(5);
    let node = |n: u64, rng: &mut Rng| {
        let mut node = Node { node_id: format!("node-{n}"), ..Node::default() };
        node.region = ["eu", "us"][(n % 2) as usize].to_owned();
        let capacity = node.mut_capacity();
        capacity.slots = 1 + rng.below(5) as u32;
        capacity.cpu_milli = 1_000 * (1 + rng.below(8));
        capacity.gpus = if n.is_multiple_of(3) { 2 } else { 0 };
        node
    };
    (0..count).map(|n| node(n, rng)).collect()
}

fn spec(rng: &mut Rng) -> TaskSpec {
    let mut spec = TaskSpec { priority: rng.below(4) as i32 * 10, ..TaskSpec::default() };
    spec.queue = ["", "small", "wide"][rng.below(3) as usize].to_owned();
    spec.preemptible = rng.one_in(2);
    (spec.retries_given, spec.max_retries) = (true, 10);
    let resources = spec.mut_resources();
    resources.slots = 1 + rng.below(2) as u32;
    resources.cpu_milli = 500 * rng.below(3);
    resources.gpus = u32::from(rng.one_in(8));
    if rng.one_in(5) {
        spec.constraints.push(Constraint { key: "region".into(), value: "us".into(), ..Constraint::default() });
    }
    if rng.one_in(6) {
        spec.spread_over = "region".into();
    }
    spec
}

fn submit(cluster: &mut Cluster, n: u64) {
    let mut rng = cluster.rng.clone();
    let spec = spec(&mut rng);
    if rng.one_in(6) {
        let members = 2 + rng.below(3) as u32;
        let mut job = JobSpec { name: format!("gang-{n}"), task_data: b"{}".to_vec(), ..JobSpec::default() };
        job.field_type = "command".into();
        let min_members = members - rng.below(2) as u32;
        job.set_gang(GangSpec { min_members, max_members: members, ..GangSpec::default() });
        job.set_task(spec);
        let mut submit = SubmitJob::default();
        submit.set_spec(job);
        cluster.ok(Kind::submit_job(submit));
    } else {
        let mut submit =
            SubmitTask { task_id: format!("task-{n}"), task_type: "command".into(), ..SubmitTask::default() };
        submit.set_spec(spec);
        cluster.ok(Kind::submit_task(submit));
    }
    cluster.rng = rng;
}

fn put_queue(cluster: &mut Cluster, name: &str, change: impl FnOnce(&mut Queue)) {
    let mut queue = Queue { name: name.into(), weight: 1, ..Queue::default() };
    change(&mut queue);
    let mut put = PutQueue::default();
    put.set_queue(queue);
    cluster.ok(Kind::put_queue(put));
}

fn trouble(cluster: &mut Cluster) {
    let worker = cluster.rng.below(cluster.workers.len() as u64) as usize;
    let node_id = cluster.workers[worker].node.node_id.clone();
    match cluster.rng.below(8) {
        0 => cluster.elect(),
        1 => cluster.kill(worker),
        2 | 3 => cluster.revive(worker),
        4 => {
            let eligibility = [Eligibility::CORDONED, Eligibility::DRAINING, Eligibility::ELIGIBLE];
            let eligibility = eligibility[cluster.rng.below(3) as usize];
            // Before it has registered there is no such node.
            cluster.run(Kind::set_eligibility(SetEligibility { node_id, eligibility, ..SetEligibility::default() }));
        }
        5 => {
            let until_ms = 1_700_000_000_000 + cluster.now + cluster.rng.below(5_000) + 1;
            cluster.run(Kind::set_maintenance(SetMaintenance { node_id, until_ms, ..SetMaintenance::default() }));
        }
        _ => {
            let open = cluster.open_tasks();
            if let Some(row) = open.get(cluster.rng.below(open.len().max(1) as u64) as usize) {
                if cluster.rng.one_in(4) {
                    cluster.cancel(&row.get_task().task_id.clone());
                }
            }
        }
    }
}

/// A world with everything that can go wrong, and the healed phase after it.
fn live(seed: u64) -> Cluster {
    let mut rng = Rng(seed);
    let nodes = nodes(&mut rng);
    let mut cluster = Cluster::new(rng.next(), nodes);
    put_queue(&mut cluster, "small", |queue| queue.max_running = 5);
    put_queue(&mut cluster, "wide", |queue| {
        queue.weight = 3;
        queue.mut_quota().slots = 8;
    });
    (0..60).for_each(|_| cluster.step());
    cluster.failures = 15;
    for n in 0..50 {
        submit(&mut cluster, n);
        for _ in 0..cluster.rng.below(6) {
            cluster.step();
        }
        if cluster.rng.one_in(3) {
            trouble(&mut cluster);
        }
    }
    cluster.failures = 0;
    heal(&mut cluster);
    cluster
}

fn heal(cluster: &mut Cluster) {
    for worker in 0..cluster.workers.len() {
        cluster.revive(worker);
        let node_id = cluster.workers[worker].node.node_id.clone();
        let eligibility = Eligibility::ELIGIBLE;
        cluster.run(Kind::set_eligibility(SetEligibility { node_id, eligibility, ..SetEligibility::default() }));
    }
    let until = cluster.now + HEALED_MS;
    while cluster.now < until && !cluster.open_tasks().iter().all(|row| !could_run(cluster, row)) {
        cluster.step();
    }
}

/// Whether the healed cluster has room for the task, or its gang, when it is empty.
fn could_run(cluster: &Cluster, row: &raftgrid_proto::v1::TaskRow) -> bool {
    let task = row.get_task();
    let members = row.gang.as_ref().map_or(1, |gang| u64::from(gang.min_members));
    let room: u64 = cluster.workers.iter().map(|worker| predicates::capable_of(task, &worker.node)).sum();
    let wanted = u64::from(task.get_spec().get_resources().slots.max(1)) * members;
    let quota = match task.queue.as_str() {
        "small" => members <= 5,
        "wide" => wanted <= 8,
        _ => true,
    };
    room >= members && quota
}

#[test]
fn random_worlds_keep_every_invariant_and_place_everything_in_the_end() {
    let (mut preempted, mut gangs, mut done) = (0, 0, 0);
    for seed in 0..60 {
        let cluster = live(seed);
        let stuck: Vec<String> = cluster
            .open_tasks()
            .iter()
            .filter(|row| could_run(&cluster, row))
            .map(|row| format!("{} {:?}", row.get_task().task_id, row.get_task().phase))
            .collect();
        assert_eq!(stuck, Vec::<String>::new(), "seed {seed}");
        preempted += cluster.preemptions;
        gangs += cluster.gangs_placed;
        done += cluster.rows_of(TaskStatus::COMPLETED).len();
    }
    // The worlds are worth something only if they reach what they are about.
    assert!(preempted > 20 && gangs > 50 && done > 1_000, "{preempted} preempted, {gangs} gangs, {done} done");
}

#[test]
fn the_same_world_has_the_same_log() {
    for seed in [3, 17] {
        assert_eq!(live(seed).log, live(seed).log, "seed {seed}");
    }
}

fn plain(node_id: &str, slots: u32) -> Node {
    let mut node = Node { node_id: node_id.into(), ..Node::default() };
    node.mut_capacity().slots = slots;
    node
}

fn settled(nodes: Vec<Node>) -> Cluster {
    let mut cluster = Cluster::new(1, nodes);
    (0..20).for_each(|_| cluster.step());
    cluster
}

fn submit_task(cluster: &mut Cluster, task_id: &str, change: impl FnOnce(&mut TaskSpec)) {
    let mut submit = SubmitTask { task_id: task_id.into(), task_type: "command".into(), ..SubmitTask::default() };
    change(submit.mut_spec());
    cluster.ok(Kind::submit_task(submit));
}

#[test]
fn a_gang_that_waits_is_told_how_many_of_its_members_would_fit() {
    let mut cluster = settled(vec![plain("node-0", 2), plain("node-1", 1)]);
    submit_task(&mut cluster, "long", |_| ());
    cluster.step();
    let mut job = JobSpec { name: "g".into(), task_data: b"{}".to_vec(), ..JobSpec::default() };
    job.field_type = "command".into();
    job.set_gang(GangSpec { min_members: 3, max_members: 3, ..GangSpec::default() });
    let mut submit = SubmitJob::default();
    submit.set_spec(job);
    cluster.ok(Kind::submit_job(submit));
    let why = cluster.explain("g/member-1").expect("it waits");
    assert_eq!((why.gang, why.position, why.never), (Some((3, 2)), 1, false), "{why:?}");
    assert!(why.summary.contains("2 of at least 3 members would fit now"), "{}", why.summary);
    while !cluster.open_tasks().is_empty() {
        cluster.step();
    }
    assert_eq!(cluster.gangs_placed, 1);
}

#[test]
fn what_never_fits_what_is_over_quota_and_whose_turn_it_is_are_told_apart() {
    let mut cluster = settled(vec![plain("node-0", 2)]);
    put_queue(&mut cluster, "q", |queue| queue.max_running = 1);
    submit_task(&mut cluster, "large", |spec| spec.mut_resources().slots = 3);
    let why = cluster.explain("large").expect("it waits");
    assert!(why.never && why.summary.contains("no node of this cluster can ever run it"), "{why:?}");
    assert!(why.reasons.iter().any(|reason| reason == "node node-0: slots: 2 free, wanted 3"), "{why:?}");
    submit_task(&mut cluster, "a", |spec| spec.queue = "q".into());
    cluster.step();
    submit_task(&mut cluster, "b", |spec| spec.queue = "q".into());
    submit_task(&mut cluster, "c", |spec| spec.queue = "q".into());
    let why = cluster.explain("c").expect("it waits");
    assert_eq!((why.queue.as_str(), why.position), ("q", 2));
    assert!(why.summary.contains("running tasks: 1 of 1 in use"), "{}", why.summary);
    assert!(cluster.explain("a").is_none(), "it does not wait");
    assert!(cluster.explain("nobody").is_none());
}

#[test]
fn a_draining_node_gives_back_what_it_runs_and_a_maintenance_ends_by_itself() {
    let mut cluster = settled(vec![plain("node-0", 2), plain("node-1", 2)]);
    for n in 0..4 {
        submit_task(&mut cluster, &format!("t{n}"), |_| ());
    }
    (0..4).for_each(|_| cluster.step());
    let until_ms = 1_700_000_000_000 + cluster.now + 3_000;
    let node_id = "node-0".to_owned();
    cluster.ok(Kind::set_maintenance(SetMaintenance { node_id, until_ms, ..SetMaintenance::default() }));
    let node = |cluster: &Cluster| {
        raftgrid_manifest::views::get_node(&cluster.rows, "node-0").expect("memory").expect("there")
    };
    let mut steps = 0;
    while node(&cluster).active_tasks > 0 {
        cluster.step();
        steps += 1;
        assert!(steps < 1_000 / STEP_MS, "it gives back what it runs");
    }
    assert_eq!(node(&cluster).eligibility, Eligibility::DRAINING);
    for row in cluster.open_tasks() {
        assert_eq!((row.user_failures, row.infrastructure_failures), (0, 0), "{}", row.get_task().task_id);
    }
    while node(&cluster).eligibility != Eligibility::ELIGIBLE {
        cluster.step();
        steps += 1;
        assert!(steps < 6_000 / STEP_MS, "it ends at its time");
    }
}
