//! `gridctl bench value`: large values on five replicas behind slow links, one after the other, by one client beside the leader. Each begins when
//! the one before is on all replicas, so that none waits for what another has left on the links. In turns: the value as it is kept (coded, the
//! log has its reference), and the same bytes through the log in pieces that all begin at once, which is plain replication: every replica is
//! sent all of it.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use raftgrid_client::{Client, ClientConfig, Upload};
use serde_json::{json, Value};

use crate::bench::{folder, load};
use crate::bench_links::Links;
use crate::bench_spread::Spread;
use crate::cli_bench::{BenchValue, BenchValueClient};
use crate::context::{Context, Interrupt};
use crate::dev_state::{DevState, Kind, Node};
use crate::failure::{Failure, Result};
use crate::launch::{self, Plan};
use crate::limits::{
    BENCH_TRANSFER_TIMEOUT, BENCH_VALUE_BYTES_MAX, BENCH_VALUE_PIECE_BYTES, KILL_TIMEOUT, PROBE_PAUSE,
};
use crate::output::line;
use crate::process;

/// Two may be lost.
const REPLICAS: u32 = 5;

/// Running replicas behind their links; all of it ends when this is dropped, the processes first.
struct Slow {
    directory: PathBuf,
    state: DevState,
    links: Links,
}

pub(crate) fn value(context: &Context, args: &BenchValue) -> Result<()> {
    if !(1..=BENCH_VALUE_BYTES_MAX).contains(&args.bytes) || args.values == 0 {
        let hint = format!("--bytes 1 to {BENCH_VALUE_BYTES_MAX}, --values 1 or more");
        return Err(Failure::usage(format!("{} values of {} B cannot be measured", args.values, args.bytes), hint));
    }
    let interrupt = Interrupt::install()?;
    let folder = folder(context)?;
    let slow = Slow::start(folder.path(), &args.links, &interrupt)?;
    let (leader, version) = slow.leader(&interrupt)?;
    let road = if args.artifact { "as an artifact" } else { "as a value" };
    context.output.note(format_args!(
        "{version}, {REPLICAS} replicas, links of {}, {} B {road}, {} of each kind in turn; load {}",
        args.links,
        args.bytes,
        args.values,
        load()
    ));
    let seen = slow.client(leader, args)?;
    let (mut rows, mut json) = (Vec::new(), Vec::new());
    for (word, name) in [("coded", "coded"), ("replicated", "replicated: through the log")] {
        let mut times: Vec<f64> = seen.iter().filter(|(kind, _)| kind == word).map(|(_, ms)| *ms).collect();
        times.sort_by(f64::total_cmp);
        let p99 = times.get(((times.len().max(1) - 1) as f64 * 0.99).round() as usize).copied().unwrap_or(f64::NAN);
        let spread = Spread::of(times.iter().copied());
        rows.push(vec![name.to_owned(), times.len().to_string(), spread.whole(), format!("{p99:.0}")]);
        json.push(json!({ "kind": word, "values": times.len(), "ms": spread.json(), "p99_ms": p99 }));
    }
    context.output.show(&["value", "written", "ms", "p99 ms"], rows, &Value::Array(json));
    Ok(())
}

/// The client, in the leader's namespace: writes `values` of each kind in turn and prints each one's milliseconds.
pub(crate) fn client(args: &BenchValueClient) -> Result<()> {
    let mut config = ClientConfig::new([args.leader.as_str()]);
    config.timeout = BENCH_TRANSFER_TIMEOUT;
    config.attempt_timeout = BENCH_TRANSFER_TIMEOUT;
    config.transfer_timeout = BENCH_TRANSFER_TIMEOUT;
    config.name = "value".to_owned();
    let client = Client::new(config)?;
    for at in 0..=args.values {
        for word in ["coded", "replicated"] {
            let value = random(args.bytes);
            if !args.at_once {
                idle(&client, &args.leader)?;
            }
            let begin = Instant::now();
            match (word, args.artifact) {
                ("replicated", _) => replicated(&client, at, &value)?,
                (_, true) => {
                    let upload = Upload { name: String::new(), kind: "file".to_owned(), ..Upload::default() };
                    client.put_artifact(&upload, &mut Cursor::new(&value), &mut |_, _| {})?;
                }
                (_, false) => drop(client.kv_put(&format!("bench/{at}"), &value, "")?),
            }
            let took = begin.elapsed().as_secs_f64() * 1e3;
            // The first of each kind makes the connections.
            if at > 0 {
                line(format_args!("{word} {took}"));
            }
        }
    }
    Ok(())
}

/// Waits until every replica has what the leader has: a write is acknowledged by a majority, and goes on to the others on the same links.
fn idle(client: &Client, leader: &str) -> Result<()> {
    let until = Instant::now() + BENCH_TRANSFER_TIMEOUT;
    loop {
        // One that is busy is asked again.
        if let (Ok(state), Ok(members)) = (client.cluster_state(leader), client.members()) {
            if state.get_role() != "leader" {
                return Err(Failure::new("the leader changed", "again: the client is to be beside the leader"));
            }
            let last = state.get_last_index();
            if members.iter().all(|member| member.get_leader() || member.get_match_index() >= last) {
                return Ok(());
            }
        }
        if Instant::now() >= until {
            return Err(Failure::new(
                "a replica does not catch up with the leader",
                "--dir DIR, and the logs below it",
            ));
        }
        thread::sleep(PROBE_PAUSE);
    }
}

/// All pieces at the same time: the value is there when the last one is.
fn replicated(client: &Client, at: u64, value: &[u8]) -> Result<()> {
    let outcomes: Vec<Result<()>> = thread::scope(|scope| {
        let pieces = value.chunks(BENCH_VALUE_PIECE_BYTES).enumerate();
        let spawned = pieces.map(|(number, piece)| {
            let key = format!("bench/{at}/{number}");
            scope.spawn(move || client.kv_put(&key, piece, "").map(drop).map_err(Failure::from))
        });
        let threads: Vec<_> = spawned.collect();
        let panicked = |_| Err(Failure::new("a client panicked", "again, and report it"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    outcomes.into_iter().collect()
}

fn random(bytes: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(bytes + 16);
    while value.len() < bytes {
        value.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
    }
    value.truncate(bytes);
    value
}

/// One line of the client.
fn seen(line: &str) -> Option<(String, f64)> {
    let (word, ms) = line.split_once(' ')?;
    Some((word.to_owned(), ms.trim().parse().ok()?))
}

/// The same node in its namespace: its program below `ip netns exec`, and every loopback address that of its replica.
fn moved(mut node: Node, at: usize, addresses: &[(String, String)], links: &Links) -> Node {
    let to = |text: &str| addresses.iter().fold(text.to_owned(), |text, (old, new)| text.replace(old.as_str(), new));
    if let Kind::Replica { client_address, raft_address, http_address, .. } = &mut node.kind {
        for address in [client_address, raft_address, http_address] {
            *address = to(address);
        }
    }
    let program = std::mem::replace(&mut node.program, PathBuf::from("ip")).display().to_string();
    let words = ["netns", "exec", &links.namespace(at), &program].map(str::to_owned).into_iter();
    let own = node.arguments.iter().map(|word| to(word));
    // Other addresses than loopback; whoever is in these namespaces is this benchmark.
    node.arguments = words.chain(own).chain(["--insecure".to_owned()]).collect();
    node
}

impl Slow {
    fn start(folder: &Path, rate: &str, interrupt: &Interrupt) -> Result<Self> {
        let directory = folder.join("raftgrid");
        std::fs::create_dir_all(&directory)
            .map_err(|error| Failure::new(format!("{}: {error}", directory.display()), "another --dir"))?;
        let links = Links::new(REPLICAS as usize, rate)?;
        let plan = Plan { peers: REPLICAS, workers: 0, slots: 1, python: PathBuf::new() };
        let mut state = launch::lay_out(&directory, &plan)?;
        let mut addresses = Vec::new();
        for (at, node) in state.nodes.iter().enumerate() {
            let Kind::Replica { client_address, raft_address, http_address, .. } = &node.kind else { continue };
            for address in [client_address, raft_address, http_address] {
                addresses.push((address.clone(), address.replace("127.0.0.1", &links.address(at))));
            }
        }
        state.nodes =
            state.nodes.into_iter().enumerate().map(|(at, node)| moved(node, at, &addresses, &links)).collect();
        for node in &mut state.nodes {
            let flag = node.arguments.iter().position(|word| word == "--preset");
            // `local` takes the queue of a slow link for a dead leader.
            if let Some(value) = flag.and_then(|at| node.arguments.get_mut(at + 1)) {
                "wan".clone_into(value);
            }
        }
        let mut slow = Self { directory, state, links };
        let begin = Instant::now();
        for node in &mut slow.state.nodes {
            launch::start(&slow.directory, node)?;
        }
        launch::wait_replicas(&slow.state.replicas().collect::<Vec<_>>(), begin, interrupt)?;
        Ok(slow)
    }

    /// Its place, and its version.
    fn leader(&self, interrupt: &Interrupt) -> Result<(usize, String)> {
        let client = launch::probe(self.state.nodes.iter().filter_map(Node::client_address))?;
        loop {
            interrupt.check()?;
            for (at, address) in self.state.endpoints().iter().enumerate() {
                // One that is busy with its first election is asked again.
                let Ok(seen) = client.cluster_state(address) else { continue };
                if seen.get_role() == "leader" {
                    return Ok((at, format!("controld {}", seen.get_version())));
                }
            }
            thread::sleep(PROBE_PAUSE);
        }
    }

    fn client(&self, leader: usize, args: &BenchValue) -> Result<Vec<(String, f64)>> {
        let failed =
            |cause: String| Failure::new(format!("the client failed: {cause}"), "--dir DIR, and the logs below it");
        let own = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let addresses = self.state.endpoints();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.links.namespace(leader)]).arg(own);
        command.args(["bench", "value-client", "--leader", &addresses[leader]]);
        command.args(["--bytes", &args.bytes.to_string(), "--values", &args.values.to_string()]);
        if args.artifact {
            command.arg("--artifact");
        }
        if args.at_once {
            command.arg("--at-once");
        }
        let output = command.env(process::MARK, &self.directory).stdin(Stdio::null()).output();
        let output = output.map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(|line| seen(line).ok_or_else(|| failed(format!("it said {line:?}")))).collect()
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        for process in process::family(&self.directory, &[]) {
            process.signal(rustix::process::Signal::KILL);
            process.wait_gone(KILL_TIMEOUT);
        }
        process::reap_children();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_client_is_a_kind_and_its_milliseconds() {
        assert_eq!(seen("coded 812.5\n"), Some(("coded".to_owned(), 812.5)));
        assert_eq!(seen("coded"), None);
        assert_eq!(seen("coded x"), None);
        assert_eq!((random(1_000).len(), random(7).len()), (1_000, 7));
    }
}
