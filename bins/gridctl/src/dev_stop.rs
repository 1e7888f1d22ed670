//! Killing one node of a dev cluster, and taking all of it down so that no process is left.

use std::path::Path;
use std::time::{Duration, Instant};

use raftgrid_client::Client;
use raftgrid_proto::v1::{Consistency, ListJobsRequest};
use raftgrid_rpc::methods::LIST_JOBS;
use rustix::process::Signal;

use crate::context::Interrupt;
use crate::dev_state::{DevState, Kind, Lock};
use crate::failure::{Failure, Result};
use crate::launch::probe;
use crate::limits::{ELECTION_PATIENCE, KILL_TIMEOUT, PROBE_PAUSE, PROBE_TIMEOUT, READY_TIMEOUT, STOP_GRACE};
use crate::process::{family, Process};

/// A replica that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) term: u64,
}

/// Which of the running replicas leads, by its own word; of two the one with the newer term. The connections stay open in `client`.
pub(crate) fn leader(state: &DevState, client: &Client) -> Option<Leader> {
    let mut found: Option<Leader> = None;
    for node in state.replicas().filter(|node| node.alive()) {
        let address = node.client_address().expect("replicas have one");
        let Ok(answer) = client.cluster_state(address) else { continue };
        if answer.get_role() == "leader" && found.as_ref().is_none_or(|found| found.term < answer.get_term()) {
            found = Some(Leader { name: node.name.clone(), address: address.to_owned(), term: answer.get_term() });
        }
    }
    found
}

/// The same; whoever asks in the middle of an election means the one who wins it.
fn leader_soon(state: &DevState, client: &Client, interrupt: &Interrupt) -> Result<Option<Leader>> {
    let begin = Instant::now();
    loop {
        let found = leader(state, client);
        if found.is_some() || begin.elapsed() > ELECTION_PATIENCE {
            return Ok(found);
        }
        interrupt.check()?;
        std::thread::sleep(PROBE_PAUSE);
    }
}

/// A client for short questions to the replicas of a dev cluster.
pub(crate) fn asker(state: &DevState) -> Result<Client> {
    probe(state.replicas().filter_map(|node| node.client_address()))
}

/// What a kill led to.
#[derive(Clone, Debug)]
pub(crate) struct Killed {
    pub(crate) name: String,
    pub(crate) process: Process,
    /// Set if it led.
    pub(crate) term: Option<u64>,
    /// Who leads after it, and the milliseconds from the signal to its first linearizable answer.
    pub(crate) successor: Option<(Leader, u128)>,
}

/// SIGKILL to exactly the recorded process of `word` (`leader`, or a node). If it led, waits for the next leader.
pub(crate) fn kill(directory: &Path, word: &str, interrupt: &Interrupt) -> Result<Killed> {
    // First without the lock, which would make the directory of a cluster that never was.
    DevState::expect(directory)?;
    let lock = Lock::take(directory)?;
    let mut state = DevState::expect(directory)?;
    let client = asker(&state)?;
    let led = match word {
        "leader" => leader_soon(&state, &client, interrupt)?,
        _ => leader(&state, &client),
    };
    let name = match (word, &led) {
        ("leader", Some(leader)) => leader.name.clone(),
        ("leader", None) => return Err(Failure::new("nobody leads now", "gridctl dev status, then again in a moment")),
        (word, _) => state.node(word)?.name.clone(),
    };
    let process = state.node(&name)?.process.clone().filter(Process::alive);
    let process =
        process.ok_or_else(|| Failure::new(format!("{name} does not run"), format!("gridctl dev restart {name}")))?;
    let begin = Instant::now();
    if !process.signal(Signal::KILL) || !process.wait_gone(KILL_TIMEOUT) {
        let cause = format!("failed to kill {name} (process {})", process.pid);
        return Err(Failure::new(cause, "the same user who started it"));
    }
    state.node_mut(&name).process = None;
    state.save(directory)?;
    drop(lock);
    let term = led.filter(|leader| leader.name == name).map(|leader| leader.term);
    let others = state.replicas().filter(|node| node.alive()).count();
    let majority = others * 2 > state.replicas().count();
    let successor = match term {
        Some(term) if majority => Some(wait_successor(&state, &client, term, begin, interrupt)?),
        Some(_) | None => None,
    };
    Ok(Killed { name, process, term, successor })
}

/// Waits for a leader of a later term than `term` that also serves: it answers a linearizable read, which needs a quorum.
fn wait_successor(
    state: &DevState,
    client: &Client,
    term: u64,
    begin: Instant,
    interrupt: &Interrupt,
) -> Result<(Leader, u128)> {
    let mut read = ListJobsRequest::new();
    read.set_consistency(Consistency::LINEARIZABLE);
    read.set_limit(1);
    while begin.elapsed() < READY_TIMEOUT {
        interrupt.check()?;
        if let Some(next) = leader(state, client).filter(|next| next.term > term) {
            if client.call_on(&next.address, &LIST_JOBS, &read, PROBE_TIMEOUT).is_ok() {
                return Ok((next, begin.elapsed().as_millis()));
            }
        }
        std::thread::sleep(PROBE_PAUSE / 2);
    }
    Err(Failure::new(
        format!("no replica led within {} s after the kill", READY_TIMEOUT.as_secs()),
        "gridctl dev status, and the logs it names",
    ))
}

/// Ends every process of the directory: SIGTERM to the nodes, workers first; after a grace SIGKILL to all that is left, children of workers
/// and strays of an earlier gridctl included. Returns how many processes were ended.
pub(crate) fn stop_all(directory: &Path, state: &mut DevState) -> Result<usize> {
    let roots: Vec<Process> = state.nodes.iter().filter_map(|node| node.process.clone()).collect();
    let members = family(directory, &roots);
    let workers: Vec<Process> = state.workers().filter_map(|node| node.process.clone()).collect();
    let replicas: Vec<Process> = state.replicas().filter_map(|node| node.process.clone()).collect();
    // Workers first, while a leader can still take their reports.
    for (group, grace) in [(workers, STOP_GRACE / 2), (replicas, STOP_GRACE / 2)] {
        let begin = Instant::now();
        for process in &group {
            process.signal(Signal::TERM);
        }
        for process in &group {
            process.wait_gone(grace.saturating_sub(begin.elapsed()));
        }
    }
    let begin = Instant::now();
    loop {
        // Asked again each time: a process may have started another one meanwhile.
        let mut left = family(directory, &roots);
        left.extend(members.iter().filter(|member| member.alive()).cloned());
        if left.is_empty() {
            break;
        }
        if begin.elapsed() > KILL_TIMEOUT {
            let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
            return Err(Failure::new(
                format!("processes {} do not end", pids.join(", ")),
                "the same user who started them",
            ));
        }
        for process in &left {
            process.signal(Signal::KILL);
        }
        std::thread::sleep(PROBE_PAUSE);
    }
    for node in &mut state.nodes {
        node.process = None;
    }
    state.save(directory)?;
    Ok(members.len())
}

/// Starts a node again; one that still runs is killed first. Milliseconds until it was ready (a replica) or running (a worker).
pub(crate) fn restart(directory: &Path, word: &str, interrupt: &Interrupt) -> Result<(String, u128)> {
    DevState::expect(directory)?;
    let lock = Lock::take(directory)?;
    let mut state = DevState::expect(directory)?;
    let name = state.node(word)?.name.clone();
    if let Some(process) = state.node(&name)?.process.clone().filter(Process::alive) {
        process.signal(Signal::TERM);
        if !process.wait_gone(STOP_GRACE) {
            process.signal(Signal::KILL);
            process.wait_gone(KILL_TIMEOUT);
        }
    }
    let begin = Instant::now();
    let started = crate::launch::start(directory, state.node_mut(&name));
    state.save(directory)?;
    drop(lock);
    started?;
    let node = state.node(&name)?;
    match node.kind {
        Kind::Replica { .. } => {
            let ready = crate::launch::wait_replicas(&[node], begin, interrupt)?;
            Ok((name, ready.first().copied().unwrap_or_default()))
        }
        Kind::Worker => {
            // A worker that cannot start (a wrong flag, a locked directory) says so within this time.
            std::thread::sleep(Duration::from_millis(100));
            if node.alive() {
                Ok((name, begin.elapsed().as_millis()))
            } else {
                Err(crate::launch::ended(node))
            }
        }
    }
}
