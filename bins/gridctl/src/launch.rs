//! How the nodes of a dev cluster are laid out, started and found ready.
//!
//! Everything lies below one directory: `controld-N/` and `worker-N/` are data, `NAME.log` what a process printed. Each process has a group of
//! its own, so that Ctrl-C reaches gridctl alone and gridctl takes the cluster down in order.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use raftgrid_client::{Client, ClientConfig};
use raftgrid_proto::v1::NodeStatus;

use crate::context::Interrupt;
use crate::dev_state::{DevState, Kind, Node};
use crate::failure::{Failure, Result};
use crate::limits::{DEV_PEERS_MAX, DEV_WORKERS_MAX, PROBE_PAUSE, PROBE_TIMEOUT, READY_TIMEOUT};
use crate::ports;
use crate::process::{Process, MARK};

/// What `dev up` was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) peers: u32,
    pub(crate) workers: u32,
    pub(crate) slots: u32,
    pub(crate) python: PathBuf,
}

impl Plan {
    pub(crate) fn check(&self) -> Result<()> {
        let odd = self.peers % 2 == 1 && (1..=DEV_PEERS_MAX).contains(&self.peers);
        if !odd {
            let cause = format!("{} replicas cannot be had", self.peers);
            return Err(Failure::usage(cause, format!("--peers 1, 3, 5 or {DEV_PEERS_MAX}")));
        }
        if self.workers > DEV_WORKERS_MAX || self.slots == 0 {
            let cause = format!("{} workers with {} slots cannot be had", self.workers, self.slots);
            return Err(Failure::usage(cause, format!("--workers 0 to {DEV_WORKERS_MAX}, --slots 1 or more")));
        }
        Ok(())
    }
}

/// The interpreter of the workers: the given one, else that of a virtual environment, else the first python3 of PATH.
pub(crate) fn python(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        // A bare name is looked up in PATH; a path must be there.
        if path.components().count() > 1 {
            return if path.is_file() {
                crate::context::absolute(path)
            } else {
                Err(Failure::new(format!("python {} does not exist", path.display()), "--python FILE, or make deps"))
            };
        }
    }
    let environment = std::env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    let candidates = environment.into_iter().chain([PathBuf::from(".venv")]).map(|path| path.join("bin/python"));
    let name = given.unwrap_or(Path::new("python3"));
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let in_path: Vec<PathBuf> = std::env::split_paths(&in_path).map(|folder| folder.join(name)).collect();
    let mut all = candidates.filter(|_| given.is_none()).chain(in_path);
    match all.find(|path| path.is_file()) {
        // Never resolved: a virtual environment is known by the path of its interpreter.
        Some(path) => crate::context::absolute(&path),
        None => Err(Failure::new(format!("{} is not in PATH", name.display()), "--python FILE, or make deps")),
    }
}

/// Which of these modules the interpreter cannot find.
pub(crate) fn missing_modules(python: &Path, modules: &[&str]) -> Result<Vec<String>> {
    // Looked for, not imported: importing scikit-learn takes a second.
    let script = "import importlib.util as u, sys\nfor m in sys.argv[1:]:\n    if u.find_spec(m) is None: print(m)";
    let failed = |cause: String| {
        Failure::new(format!("python {} does not run: {cause}", python.display()), "--python FILE, or make deps")
    };
    let output = Command::new(python)
        .args(["-c", script])
        .args(modules)
        .stdin(Stdio::null())
        // Ctrl-C is for gridctl.
        .process_group(0)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect())
}

/// A binary beside this one.
fn sibling(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()
        .map_err(|error| Failure::new(format!("failed to find gridctl's own path: {error}"), "its absolute path"))?;
    let path = own.with_file_name(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::new(format!("{name} is not beside gridctl ({} is missing)", path.display()), "make build"))
}

/// A new cluster: names, ports, data directories. Nothing is started.
pub(crate) fn lay_out(directory: &Path, plan: &Plan) -> Result<DevState> {
    plan.check()?;
    let (controld, workerd) = (sibling("controld")?, sibling("workerd")?);
    let nonce = uuid::Uuid::new_v4().as_u64_pair().0;
    let ports = ports::choose(plan.peers as usize * 3, nonce)?;
    let node = |name: String, kind: Kind, program: &Path| Node {
        log: directory.join(format!("{name}.log")),
        name,
        kind,
        process: None,
        program: program.to_owned(),
        arguments: Vec::new(),
    };
    let mut nodes = Vec::new();
    for (number, ports) in (1..=u64::from(plan.peers)).zip(ports.chunks(3)) {
        let kind = Kind::Replica {
            node_id: number,
            client_address: format!("127.0.0.1:{}", ports[0]),
            raft_address: format!("127.0.0.1:{}", ports[1]),
            http_address: format!("127.0.0.1:{}", ports[2]),
        };
        nodes.push(node(format!("controld-{number}"), kind, &controld));
    }
    for number in 1..=plan.workers {
        nodes.push(node(format!("worker-{number}"), Kind::Worker, &workerd));
    }
    // A name of its own: a replica of another directory that finds the same port again must not be taken for a member.
    let mut state = DevState::new(format!("dev-{nonce:016x}"), nodes);
    set_arguments(directory, &mut state, plan);
    Ok(state)
}

/// The command line of every node.
fn set_arguments(directory: &Path, state: &mut DevState, plan: &Plan) {
    let endpoints = state.endpoints().join(",");
    let peer = |node: &Node| match &node.kind {
        Kind::Replica { node_id, client_address, raft_address, .. } => {
            Some(format!("{node_id}={raft_address}/{client_address}"))
        }
        Kind::Worker => None,
    };
    let peers = state.nodes.iter().filter_map(peer).collect::<Vec<_>>().join(",");
    let cluster_name = state.cluster_name.clone();
    for node in &mut state.nodes {
        let data = directory.join(&node.name).display().to_string();
        let pairs = match &node.kind {
            Kind::Replica { node_id, client_address, raft_address, http_address } => vec![
                ("--node-id", node_id.to_string()),
                ("--cluster-name", cluster_name.clone()),
                ("--data-dir", data),
                ("--client-addr", client_address.clone()),
                ("--raft-addr", raft_address.clone()),
                ("--http-addr", http_address.clone()),
                ("--peers", peers.clone()),
            ],
            Kind::Worker => vec![
                ("--node-id", node.name.clone()),
                ("--endpoints", endpoints.clone()),
                ("--dir", data),
                ("--python", plan.python.display().to_string()),
                ("--slots", plan.slots.to_string()),
            ],
        };
        let preset = ("--preset", "local".to_owned());
        let words = pairs.into_iter().chain([preset]).flat_map(|(flag, value)| [flag.to_owned(), value]);
        node.arguments = words.collect();
    }
}

/// Another interpreter for workers that are to be started again.
pub(crate) fn set_python(state: &mut DevState, python: &Path) {
    for node in state.nodes.iter_mut().filter(|node| matches!(node.kind, Kind::Worker)) {
        let at = node.arguments.iter().position(|word| word == "--python");
        if let Some(value) = at.and_then(|at| node.arguments.get_mut(at + 1)) {
            *value = python.display().to_string();
        }
    }
}

/// Starts one node and remembers its process; the caller saves the state.
pub(crate) fn start(directory: &Path, node: &mut Node) -> Result<()> {
    let failed = |what: &Path, error: std::io::Error| {
        Failure::new(
            format!("failed to start {}: {}: {error}", node.name, what.display()),
            "make build, and free disk space",
        )
    };
    let data = directory.join(&node.name);
    fs::create_dir_all(&data).map_err(|error| failed(&data, error))?;
    let log = File::options().create(true).append(true).open(&node.log).map_err(|error| failed(&node.log, error))?;
    let errors = log.try_clone().map_err(|error| failed(&node.log, error))?;
    let mut command = Command::new(&node.program);
    // Settings of the person's shell (endpoints of another cluster, say) are not those of this cluster.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"RAFTGRID_")) {
        command.env_remove(name);
    }
    let child = command
        .args(&node.arguments)
        .env(MARK, directory)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(|error| failed(&node.program, error))?;
    node.process = Process::of(child.id().cast_signed());
    if node.process.is_none() {
        return Err(ended(node));
    }
    Ok(())
}

/// The failure of a node that ended by itself: its last words are the cause.
pub(crate) fn ended(node: &Node) -> Failure {
    let words = last_line(&node.log).unwrap_or_else(|| "it printed nothing".to_owned());
    Failure::new(format!("{} ended: {words}", node.name), format!("less {}", node.log.display()))
}

fn last_line(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(4_096))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().to_owned())
}

/// Milliseconds from `begin` until each of these replicas answered and knew a leader.
pub(crate) fn wait_replicas(nodes: &[&Node], begin: Instant, interrupt: &Interrupt) -> Result<Vec<u128>> {
    let mut ready: Vec<Option<u128>> = vec![None; nodes.len()];
    let client = probe(nodes.iter().filter_map(|node| node.client_address()))?;
    while ready.iter().any(Option::is_none) {
        interrupt.check()?;
        for (node, ready) in nodes.iter().zip(&mut ready).filter(|(_, ready)| ready.is_none()) {
            if !node.alive() {
                return Err(ended(node));
            }
            let address = node.client_address().expect("they are replicas");
            if listens(address) && client.cluster_state(address).is_ok_and(|state| state.get_leader_id() != 0) {
                *ready = Some(begin.elapsed().as_millis());
            }
        }
        if begin.elapsed() > READY_TIMEOUT {
            let missing = nodes.iter().zip(&ready).find(|(_, ready)| ready.is_none()).map(|(node, _)| node);
            let node = missing.expect("one is missing, or the loop had ended");
            return Err(Failure::new(
                format!("{} knows no leader after {} s", node.name, READY_TIMEOUT.as_secs()),
                format!("less {}", node.log.display()),
            ));
        }
        thread::sleep(PROBE_PAUSE);
    }
    Ok(ready.into_iter().flatten().collect())
}

/// Waits until every worker is known as healthy; the milliseconds since `begin` of each.
pub(crate) fn wait_workers(state: &DevState, begin: Instant, interrupt: &Interrupt) -> Result<Vec<u128>> {
    let workers: Vec<&Node> = state.workers().collect();
    let mut ready: Vec<Option<u128>> = vec![None; workers.len()];
    let mut config = ClientConfig::new(state.endpoints());
    config.name = "dev".to_owned();
    config.timeout = READY_TIMEOUT;
    let client = Client::new(config)?;
    while ready.iter().any(Option::is_none) {
        interrupt.check()?;
        if let Some(node) = workers.iter().find(|node| !node.alive()) {
            return Err(ended(node));
        }
        let healthy = |name: &str, nodes: &[raftgrid_proto::v1::Node]| {
            nodes.iter().any(|node| node.get_node_id() == name && node.get_status() == NodeStatus::HEALTHY)
        };
        let nodes = client.list_nodes()?;
        for (node, ready) in workers.iter().zip(&mut ready).filter(|(_, ready)| ready.is_none()) {
            if healthy(&node.name, &nodes) {
                *ready = Some(begin.elapsed().as_millis());
            }
        }
        if begin.elapsed() > READY_TIMEOUT {
            let missing = workers.iter().zip(&ready).find(|(_, ready)| ready.is_none()).map(|(node, _)| node);
            let node = missing.expect("one is missing, or the loop had ended");
            return Err(Failure::new(
                format!("{} did not register within {} s", node.name, READY_TIMEOUT.as_secs()),
                format!("less {}", node.log.display()),
            ));
        }
        thread::sleep(PROBE_PAUSE * 2);
    }
    Ok(ready.into_iter().flatten().collect())
}

/// Whether somebody accepts connections there: cheaper than a channel, which would pause after its first refusal.
fn listens(address: &str) -> bool {
    let Ok(address) = address.parse() else { return false };
    std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
}

/// A client for short questions to each replica by itself.
pub(crate) fn probe<'a>(addresses: impl Iterator<Item = &'a str>) -> Result<Client> {
    let mut config = ClientConfig::new(addresses);
    config.timeout = PROBE_TIMEOUT;
    config.attempt_timeout = PROBE_TIMEOUT;
    config.name = "probe".to_owned();
    Client::new(config).map_err(Failure::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_gets_the_flags_that_the_binaries_read() {
        let replica = |id: u64| Node {
            name: format!("controld-{id}"),
            kind: Kind::Replica {
                node_id: id,
                client_address: format!("127.0.0.1:10{id}"),
                raft_address: format!("127.0.0.1:20{id}"),
                http_address: format!("127.0.0.1:30{id}"),
            },
            process: None,
            program: PathBuf::from("/bin/controld"),
            arguments: Vec::new(),
            log: PathBuf::from("/d/a.log"),
        };
        let worker = Node { name: "worker-1".to_owned(), kind: Kind::Worker, ..replica(9) };
        let mut state = DevState::new("dev-x".to_owned(), vec![replica(1), replica(2), worker]);
        let plan = Plan { peers: 3, workers: 1, slots: 2, python: PathBuf::from("/venv/bin/python") };
        set_arguments(Path::new("/d"), &mut state, &plan);
        let line = |name: &str| state.node(name).expect("there").arguments.join(" ");
        assert_eq!(
            line("controld-2"),
            "--node-id 2 --cluster-name dev-x --data-dir /d/controld-2 --client-addr 127.0.0.1:102 --raft-addr \
             127.0.0.1:202 --http-addr 127.0.0.1:302 --peers 1=127.0.0.1:201/127.0.0.1:101,2=127.0.0.1:202/127.0.0.1:102 --preset local"
        );
        assert_eq!(
            line("worker-1"),
            "--node-id worker-1 --endpoints 127.0.0.1:101,127.0.0.1:102 --dir /d/worker-1 --python /venv/bin/python \
             --slots 2 --preset local"
        );
        set_python(&mut state, Path::new("/other/python"));
        assert!(state
            .node("worker-1")
            .expect("there")
            .arguments
            .join(" ")
            .contains("--python /other/python --slots 2"));
    }

    #[test]
    fn impossible_plans_are_wrong_usage() {
        let plan = |peers, workers, slots| Plan { peers, workers, slots, python: PathBuf::new() };
        for wrong in [plan(2, 1, 1), plan(0, 1, 1), plan(9, 1, 1), plan(3, 1_000, 1), plan(3, 1, 0)] {
            assert_eq!(wrong.check().unwrap_err().status() as i32, 2, "{wrong:?}");
        }
        assert!(plan(1, 0, 1).check().is_ok());
    }

    #[test]
    fn a_python_that_is_not_there_is_named() {
        let line = python(Some(Path::new("/nowhere/python"))).unwrap_err().to_string();
        assert!(line.starts_with("python /nowhere/python does not exist; try: "), "{line}");
        let line = python(Some(Path::new("python-of-nobody"))).unwrap_err().to_string();
        assert!(line.contains("python-of-nobody is not in PATH"), "{line}");
        assert!(python(Some(Path::new("sh"))).expect("every system has sh").is_absolute());
    }

    #[test]
    fn the_last_words_of_a_log_are_its_last_line_that_is_not_empty() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let log = folder.path().join("a.log");
        fs::write(&log, "first\nport 5 is busy\n\n").expect("written");
        assert_eq!(last_line(&log).as_deref(), Some("port 5 is busy"));
        fs::write(&log, "").expect("written");
        assert_eq!(last_line(&log), None);
    }
}
