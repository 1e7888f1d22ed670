//! `gridctl dev`: a cluster of child processes on this machine.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cli::{Dev, DevUp};
use crate::context::{absolute, exit_on_interrupt, Context, Interrupt};
use crate::dev_state::{DevState, Kind, Lock, Node};
use crate::dev_stop::{asker, kill, leader, restart, stop_all};
use crate::failure::{Failure, Result};
use crate::launch::{self, Plan};
use crate::limits::PROBE_PAUSE;
use crate::output::{line, thousands, Output};
use crate::process::{family, reap_children};

pub(crate) fn run(context: &Context, command: Dev) -> Result<()> {
    let directory = absolute(&context.global.dir())?;
    match command {
        Dev::Up(args) => up(context, &directory, &args),
        Dev::Status => status(context, &directory),
        Dev::Kill { node } => {
            exit_on_interrupt();
            let killed = kill(&directory, &node, &Interrupt::default())?;
            let next = killed.successor.as_ref();
            let mut text = format!("killed {} (process {})", killed.name, killed.process.pid);
            if let Some(term) = killed.term {
                text.push_str(&format!(", the leader of term {term}"));
            }
            if let Some((next, ms)) = next {
                text.push_str(&format!("; {} leads in term {} after {} ms", next.name, next.term, thousands(*ms)));
            }
            let json = json!({
                "killed": killed.name, "pid": killed.process.pid, "term": killed.term,
                "leader": next.map(|(next, _)| next.name.as_str()),
                "leaderless_ms": next.map(|(_, ms)| u64::try_from(*ms).unwrap_or(u64::MAX)),
            });
            context.output.done(text, &json);
            Ok(())
        }
        Dev::Restart { node } => {
            exit_on_interrupt();
            let (name, ms) = restart(&directory, &node, &Interrupt::default())?;
            let json = json!({"started": name, "ready_ms": u64::try_from(ms).unwrap_or(u64::MAX)});
            context.output.done(format!("started {name}, ready after {} ms", thousands(ms)), &json);
            Ok(())
        }
        Dev::Down => {
            let count = down(&directory)?;
            let json = json!({"ended": count});
            context.output.done(format!("{count} processes ended; the data stays in {}", directory.display()), &json);
            Ok(())
        }
    }
}

/// Stops everything of `directory`; the number of processes that were ended.
pub(crate) fn down(directory: &Path) -> Result<usize> {
    let mut state = DevState::expect(directory)?;
    let _lock = Lock::take(directory)?;
    // Read again: another gridctl may have changed it while we waited for the lock.
    if let Some(newer) = DevState::load(directory)? {
        state = newer;
    }
    stop_all(directory, &mut state)
}

fn up(context: &Context, directory: &Path, args: &DevUp) -> Result<()> {
    let interrupt = Interrupt::install()?;
    // Before anything runs: from the first start on, every way out of here takes the cluster down.
    let plan = plan(args)?;
    if !launch::missing_modules(&plan.python, &["raftgrid"])?.is_empty() {
        let python = plan.python.display();
        context.output.note(format_args!("{python} has no package raftgrid: train tasks will fail; try: make deps"));
    }
    let state = start(directory, args, &interrupt)?;
    let (state, ready) = match ready(&state, &interrupt) {
        Ok(ready) => (state, ready),
        Err(failure) => {
            // A cluster that did not come up must not stay half up. The first failure is the one to tell.
            let _second = down(directory);
            return Err(failure);
        }
    };
    show(context.output, &state.0, &ready);
    if args.detach {
        return Ok(());
    }
    context.output.note("running; Ctrl-C takes it down");
    let outcome = foreground(context, directory, &interrupt);
    down(directory)?;
    outcome
}

/// What is asked for, checked.
fn plan(args: &DevUp) -> Result<Plan> {
    let python = launch::python(args.python.as_deref())?;
    let plan = Plan { peers: args.peers.unwrap_or(3), workers: args.workers.unwrap_or(3), slots: args.slots, python };
    plan.check()?;
    Ok(plan)
}

/// Starts all processes of a new cluster, or of one that is down. Milliseconds until each node was ready: see `ready`.
pub(crate) fn start(directory: &Path, args: &DevUp, interrupt: &Interrupt) -> Result<(DevState, Instant)> {
    let plan = plan(args)?;
    let _lock = Lock::take(directory)?;
    let mut state = match DevState::load(directory)? {
        Some(state) => resume(directory, state, args, &plan)?,
        None => launch::lay_out(directory, &plan)?,
    };
    let begin = Instant::now();
    for index in 0..state.nodes.len() {
        let started = interrupt.check().and_then(|()| launch::start(directory, &mut state.nodes[index]));
        // Saved after each: whatever ends this gridctl, `dev down` knows what it started.
        state.save(directory)?;
        if let Err(failure) = started {
            let _second = stop_all(directory, &mut state);
            return Err(failure);
        }
    }
    Ok((state, begin))
}

/// Holds a cluster that exists against what is asked for.
fn resume(directory: &Path, mut state: DevState, args: &DevUp, plan: &Plan) -> Result<DevState> {
    let here = directory.display();
    if state.nodes.iter().any(Node::alive) || !family(directory, &[]).is_empty() {
        let cause = format!("the cluster of {here} is up already");
        return Err(Failure::new(cause, "gridctl dev status, gridctl dev down, or another --dir"));
    }
    let (peers, workers) = (state.replicas().count(), state.workers().count());
    let other = |wanted: Option<u32>, has: usize| wanted.is_some_and(|wanted| wanted as usize != has);
    if other(args.peers, peers) || other(args.workers, workers) {
        let cause = format!("{here} holds a cluster of {peers} replicas and {workers} workers");
        return Err(Failure::new(
            cause,
            format!("gridctl dev up without --peers and --workers, another --dir, or rm -r {here}"),
        ));
    }
    if args.python.is_some() {
        launch::set_python(&mut state, &plan.python);
    }
    Ok(state)
}

/// Waits for everybody; milliseconds since the start, in the order of the nodes.
pub(crate) fn ready((state, begin): &(DevState, Instant), interrupt: &Interrupt) -> Result<Vec<u128>> {
    let replicas: Vec<&Node> = state.replicas().collect();
    let mut ready = launch::wait_replicas(&replicas, *begin, interrupt)?;
    ready.extend(launch::wait_workers(state, *begin, interrupt)?);
    Ok(ready)
}

/// Who listens where, and how long each took.
pub(crate) fn show(output: Output, state: &DevState, ready: &[u128]) {
    let (mut rows, mut items) = (Vec::new(), Vec::new());
    for (node, ms) in state.nodes.iter().zip(ready) {
        let pid = node.process.as_ref().map_or(0, |process| process.pid);
        let address = node.client_address().unwrap_or_default();
        rows.push(vec![node.name.clone(), address.to_owned(), pid.to_string(), thousands(*ms)]);
        let ms = u64::try_from(*ms).unwrap_or(u64::MAX);
        items.push(json!({"name": node.name, "endpoint": address, "pid": pid, "ready_ms": ms}));
    }
    let json = json!({"endpoints": state.endpoints(), "nodes": items});
    output.show(&["node", "endpoint", "pid", "ready ms"], rows, &json);
}

/// Until Ctrl-C, or until every node has ended. Says once when one ends.
fn foreground(context: &Context, directory: &Path, interrupt: &Interrupt) -> Result<()> {
    let mut told: Vec<String> = Vec::new();
    while !interrupt.raised() {
        reap_children();
        let state = DevState::expect(directory)?;
        // `kill` and `down` of another terminal clear the process; one that is recorded and gone ended by itself.
        let dead = state.nodes.iter().filter(|node| node.process.is_some() && !node.alive());
        for node in dead {
            if !told.contains(&node.name) {
                context.output.note(format_args!("{}; or: gridctl dev restart {}", launch::ended(node), node.name));
                told.push(node.name.clone());
            }
        }
        told.retain(|name| state.node(name).is_ok_and(|node| !node.alive()));
        if state.nodes.iter().all(|node| node.process.is_none()) {
            line("the cluster was taken down");
            return Ok(());
        }
        std::thread::sleep(PROBE_PAUSE.max(Duration::from_millis(100)));
    }
    Err(Failure::interrupted())
}

fn status(context: &Context, directory: &Path) -> Result<()> {
    exit_on_interrupt();
    let state = DevState::expect(directory)?;
    let leads = leader(&state, &asker(&state)?);
    let (mut rows, mut items) = (Vec::new(), Vec::new());
    for node in &state.nodes {
        let alive = node.alive();
        let leader = leads.as_ref().is_some_and(|leader| leader.name == node.name);
        let role = match (&node.kind, alive) {
            (_, false) => "down",
            (Kind::Replica { .. }, true) if leader => "leader",
            (Kind::Replica { .. }, true) => "follower",
            (Kind::Worker, true) => "worker",
        };
        let pid = node.process.as_ref().filter(|_| alive).map(|process| process.pid);
        let address = node.client_address().unwrap_or_default();
        let log = node.log.display().to_string();
        let shown = pid.map(|pid| pid.to_string()).unwrap_or_default();
        let metrics = node.metrics();
        let page = metrics.clone().unwrap_or_default();
        rows.push(vec![node.name.clone(), role.to_owned(), address.to_owned(), shown, page, log.clone()]);
        items.push(json!({"name": node.name, "state": role, "endpoint": address, "pid": pid, "metrics": metrics,
            "log": log}));
    }
    let leads = leads.map(|leader| json!({"name": leader.name, "term": leader.term}));
    let json = json!({"leader": leads, "endpoints": state.endpoints(), "nodes": items});
    context.output.show(&["node", "state", "endpoint", "pid", "metrics", "log"], rows, &json);
    Ok(())
}
