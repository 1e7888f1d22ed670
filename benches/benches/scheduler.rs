//! The scheduler's decisions in memory: 10⁴ simulated nodes, 10⁴ and 10⁶ waiting tasks of several shapes in two queues. Each decision takes
//! the first task of the queue whose turn it is, finds the least loaded node that fits, and counts the task in; when the cluster is full,
//! what ran ends, as in a cluster that is busy. Prints decisions a second and what one costs at 10⁶ beside 10⁴, in turns.
#![allow(missing_docs, reason = "a benchmark")]

use std::time::Duration;

use raftgrid_control::{Gate, Planner};
use raftgrid_proto::v1::{Constraint, Label, Node, Queue, Task, TaskRow, TaskSpec};

const NODES: u64 = 10_000;
const SLOTS: u32 = 16;
const FEW: u64 = 10_000;
const MANY: u64 = 1_000_000;
const ROUNDS: usize = 5;
/// Placements that one pass of the leader makes at most.
const PASS: usize = 256;

struct Open;

impl Gate for Open {
    fn in_reach(&mut self, _: &str) -> bool {
        true
    }

    fn admits(&mut self, _: u64) -> bool {
        true
    }
}

fn node(n: u64) -> Node {
    let mut node = Node { node_id: format!("node-{n:05}"), ..Node::default() };
    node.region = ["eu", "us", "asia"][(n % 3) as usize].to_owned();
    node.labels.push(Label { key: "disk".into(), value: ["ssd", "hdd"][(n % 2) as usize].into(), ..Label::default() });
    let capacity = node.mut_capacity();
    (capacity.slots, capacity.cpu_milli, capacity.memory_bytes) = (SLOTS, 64_000, 256 << 30);
    capacity.gpus = if n.is_multiple_of(10) { 8 } else { 0 };
    node
}

/// Sixteen shapes: sizes, regions, disks, some with GPUs.
fn row(sequence: u64) -> TaskRow {
    let mut spec = TaskSpec::default();
    let kind = sequence % 16;
    let resources = spec.mut_resources();
    (resources.slots, resources.cpu_milli, resources.memory_bytes) = (1, 500 * (kind % 4), (kind % 4) << 30);
    resources.gpus = u32::from(kind == 7);
    let mut want = |key: &str, value: &str| {
        spec.constraints.push(Constraint { key: key.into(), value: value.into(), ..Constraint::default() });
    };
    match kind {
        1 => want("region", "eu"),
        2 => want("disk", "ssd"),
        3 => {
            want("region", "us");
            want("disk", "hdd");
        }
        _ => {}
    }
    spec.queue = ["", "batch"][(kind % 2) as usize].to_owned();
    let task = Task {
        task_id: format!("task-{sequence}"),
        task_type: "command".into(),
        queue: spec.queue.clone(),
        spec: Some(spec).into(),
        ..Task::default()
    };
    TaskRow { sequence, submitted_at_ms: sequence, task: Some(task).into(), ..TaskRow::default() }
}

fn world(waiting: u64) -> Planner {
    let mut planner = Planner::default();
    for n in 0..NODES {
        planner.put_node(&node(n), true);
    }
    planner.put_queue("batch", Some(Queue { name: "batch".into(), weight: 2, ..Queue::default() }));
    for sequence in 1..=waiting {
        planner.add_task(&row(sequence));
    }
    planner
}

/// CPU time of this thread: what other people's compilers take of the machine is not the scheduler's.
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Plans `decisions` placements with about `waiting` tasks in the queues all the time; only the planning is timed.
fn measure(planner: &mut Planner, next: &mut u64, running: &mut Vec<u64>, decisions: u64) -> (u64, Duration, Duration) {
    let (mut made, mut spent, mut longest) = (0, Duration::ZERO, Duration::ZERO);
    while made < decisions {
        let begun = used();
        let plan = planner.plan(0, PASS, &mut Open);
        let took = used() - begun;
        spent += took;
        longest = longest.max(took);
        let placed: Vec<u64> = plan.placements.iter().flat_map(|one| one.tasks.iter().map(|(task, _)| *task)).collect();
        made += placed.len() as u64;
        // As many come as went.
        for _ in &placed {
            planner.add_task(&row(*next));
            *next += 1;
        }
        running.extend(&placed);
        if running.len() as u64 > NODES * u64::from(SLOTS) / 2 || (placed.is_empty() && !plan.more) {
            running.drain(..).for_each(|task| planner.let_go(task));
        }
    }
    (made, spent, longest)
}

fn main() {
    let quick = std::env::args().any(|word| word == "--test");
    let (few, many, decisions) = if quick { (1_000, 10_000, 2_000) } else { (FEW, MANY, 200_000) };
    let mut worlds: Vec<_> = [few, many].iter().map(|waiting| (world(*waiting), waiting + 1, Vec::new())).collect();
    let mut costs = [Vec::new(), Vec::new()];
    let mut longest = Duration::ZERO;
    for round in 0..if quick { 1 } else { ROUNDS } {
        for (at, (planner, next, running)) in worlds.iter_mut().enumerate() {
            let (made, spent, pass) = measure(planner, next, running, decisions);
            longest = longest.max(pass);
            let cost = spent.as_nanos() as f64 / made as f64;
            costs[at].push(cost);
            let waiting = [few, many][at];
            println!(
                "round {}: {waiting:>9} waiting on {NODES} nodes: {:>9.0} decisions/s, {cost:.0} ns each",
                round + 1,
                1e9 / cost
            );
        }
    }
    let median = |list: &mut Vec<f64>| {
        list.sort_by(f64::total_cmp);
        list[list.len() / 2]
    };
    let mut ratios: Vec<f64> = costs[0].iter().zip(&costs[1]).map(|(few, many)| many / few).collect();
    let (few_cost, many_cost) = (median(&mut costs[0].clone()), median(&mut costs[1].clone()));
    println!("median: {:.0}/s and {:.0}/s", 1e9 / few_cost, 1e9 / many_cost);
    println!("cost of a decision, many : few: {:.2} (median of rounds)", median(&mut ratios));
    println!("longest pass of {PASS}: {:.2} ms", longest.as_secs_f64() * 1e3);
}
