//! A cluster of real processes on loopback: built binaries, real ports, real disks; ended by their process ids only.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod certs;
pub mod gradient;
pub mod numbers;
pub mod trainer;

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use raftgrid_client::{Client, ClientConfig};
use raftgrid_proto::v1::StateResponse;
use raftgrid_rpc::grpcio::Client as Stub;

/// Longest wait for something that must come. It bounds a hang; no verdict depends on how fast it came.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Lines of each process's log that a failed test shows.
const LOG_LINES_SHOWN: usize = 40;

/// A built program of the workspace.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test.ancestors().find(|folder| folder.join(name).is_file());
    let folder = folder.unwrap_or_else(|| panic!("{name} is not built; run `cargo build --release --bins` first"));
    folder.join(name)
}

/// The checkout.
pub fn checkout() -> PathBuf {
    // Asked when it runs: a shared target directory may hold this test as another checkout compiled it.
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests")).join("../..")
}

/// Ports that were free a moment ago. They are taken from below the range that the system hands out by itself.
fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = u16::try_from(std::process::id() % 6_000).expect("below 6000") * 2;
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + (spread + step) % 18_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until `look` gives something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "never came: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// One process; killed when it is dropped.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).expect("the log can be opened");
        let errors = log.try_clone().expect("the log can be shared");
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("the program starts");
        Self { child }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and gone when it returns.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    pub fn exited(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process takes SIGKILL too.
        self.kill();
    }
}

/// An answer of `/metrics`.
pub struct Metrics(pub String);

impl Metrics {
    /// The value of a series, as it stands in the text: name and labels.
    pub fn value(&self, series: &str) -> f64 {
        let line = self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let line = line.unwrap_or_else(|| panic!("{series} is not in\n{}", self.0));
        line.trim().parse().expect("a value is a number")
    }
}

pub struct Replica {
    pub node: u64,
    pub client: String,
    pub raft: String,
    pub http: String,
    pub process: Option<Process>,
    pub extra: Vec<String>,
}

pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub replicas: Vec<Replica>,
    pub workers: Vec<(String, Option<Process>)>,
    pub peers: String,
}

impl Cluster {
    /// `count` founders, started and led. `flags` go to each.
    pub fn start(count: u64, flags: &[&str]) -> Self {
        let mut cluster = Self::prepare(count, flags);
        for at in 0..cluster.replicas.len() {
            cluster.start_replica(at);
        }
        cluster.leader();
        cluster
    }

    /// Ports and directories of `count` founders; nothing runs.
    pub fn prepare(count: u64, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let replicas: Vec<Replica> = (1..=count)
            .map(|node| Replica {
                node,
                client: format!("127.0.0.1:{}", free_port()),
                raft: format!("127.0.0.1:{}", free_port()),
                http: format!("127.0.0.1:{}", free_port()),
                process: None,
                extra: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            })
            .collect();
        let peers: Vec<String> = replicas.iter().map(|it| format!("{}={}/{}", it.node, it.raft, it.client)).collect();
        Self { dir, replicas, workers: Vec::new(), peers: peers.join(",") }
    }

    /// A replica that is no founder; not started.
    pub fn add_joiner(&mut self) -> usize {
        let node = self.replicas.len() as u64 + 1;
        self.replicas.push(Replica {
            node,
            client: format!("127.0.0.1:{}", free_port()),
            raft: format!("127.0.0.1:{}", free_port()),
            http: format!("127.0.0.1:{}", free_port()),
            process: None,
            extra: vec!["--join".to_owned()],
        });
        self.replicas.len() - 1
    }

    /// Lets a joiner in; it is promoted by itself.
    pub fn add_learner(&self, at: usize) {
        let it = &self.replicas[at];
        let node = it.node.to_string();
        let addresses = ["--raft-address", &it.raft, "--client-address", &it.client];
        let (code, _, errors) = self.gridctl(&[&["cluster", "add-learner", &node], &addresses[..]].concat());
        assert_eq!(code, 0, "{errors}");
    }

    /// (node, role) of the members, as the leader has applied them.
    pub fn members(&self) -> Vec<(u64, String)> {
        let members = self.client().members().expect("a majority runs");
        let mut members: Vec<_> = members.iter().map(|member| (member.node_id, member.role.clone())).collect();
        members.sort();
        members
    }

    /// Waits until exactly these replicas are members, all with a vote.
    pub fn voters_become(&self, nodes: &[u64]) {
        let wanted: Vec<_> = nodes.iter().map(|node| (*node, "voter".to_owned())).collect();
        wait_for("the configuration", || (self.members() == wanted).then_some(()));
    }

    pub fn data_dir(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("controld-{}", self.replicas[at].node))
    }

    pub fn log(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("controld-{}.log", self.replicas[at].node))
    }

    pub fn command(&self, at: usize) -> Command {
        let replica = &self.replicas[at];
        let mut command = Command::new(program("controld"));
        command
            .args(["--node-id", &replica.node.to_string(), "--cluster-name", "test", "--preset", "local"])
            .args(["--client-addr", &replica.client, "--raft-addr", &replica.raft, "--peers", &self.peers])
            .args(["--http-addr", &replica.http])
            .arg("--data-dir")
            .arg(self.data_dir(at))
            .args(&replica.extra);
        command
    }

    pub fn start_replica(&mut self, at: usize) {
        let process = Process::start(&mut self.command(at), &self.log(at));
        self.replicas[at].process = Some(process);
    }

    pub fn kill_replica(&mut self, at: usize) {
        self.replicas[at].process.take().expect("it runs").kill();
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.replicas.iter().map(|it| it.client.clone()).collect()
    }

    pub fn client(&self) -> Client {
        Client::new(ClientConfig { timeout: PATIENCE, stream_timeout: PATIENCE, ..ClientConfig::new(self.endpoints()) })
            .expect("endpoints are well-formed")
    }

    /// For calls of this test's own making, to this replica and no other.
    pub fn stub(&self, at: usize) -> Stub {
        Stub::new(raftgrid_rpc::bulk_channel(&raftgrid_rpc::environment("test"), &self.replicas[at].client))
    }

    /// The same of each replica.
    pub fn stubs(&self) -> Vec<Stub> {
        (0..self.replicas.len()).map(|at| self.stub(at)).collect()
    }

    /// Whether the state is at this version, or a later one.
    pub fn is_at_machine_version(&self, version: u64) -> bool {
        let states = (0..self.replicas.len()).filter_map(|at| self.state(at));
        states.into_iter().any(|state| state.role == "leader" && state.machine_version >= version)
    }

    /// Files of uploads that have not ended, on all disks.
    pub fn uploads_on_disks(&self) -> usize {
        let folders = (0..self.replicas.len()).map(|at| self.data_dir(at).join("blobs/incoming"));
        folders.map(|folder| std::fs::read_dir(folder).map_or(0, |files| files.count())).sum()
    }

    pub fn state(&self, at: usize) -> Option<StateResponse> {
        let client =
            Client::new(ClientConfig::new([self.replicas[at].client.clone()])).expect("endpoints are well-formed");
        client.cluster_state(&self.replicas[at].client).ok()
    }

    /// Status line, headers and body of an answer of the replica's HTTP port; None: nobody listens, or it broke off.
    pub fn try_http(&self, at: usize, path: &str) -> Option<String> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&self.replicas[at].http).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer).filter(|answer| !answer.is_empty())
    }

    pub fn http(&self, at: usize, path: &str) -> String {
        wait_for("an answer of the HTTP port", || self.try_http(at, path))
    }

    pub fn metrics(&self, at: usize) -> Metrics {
        let answer = self.http(at, "/metrics");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        Metrics(answer)
    }

    /// (node, role, first, last) of all that answer, for messages.
    pub fn states_seen(&self) -> Vec<(u64, String, u64, u64)> {
        let states = (0..self.replicas.len()).filter_map(|at| self.state(at));
        states.map(|it| (it.node_id, it.role.clone(), it.first_index, it.last_index)).collect()
    }

    /// Place of the replica that leads, once one does and the running majority agrees.
    pub fn leader(&self) -> usize {
        wait_for("a leader", || {
            let running: Vec<usize> =
                (0..self.replicas.len()).filter(|at| self.replicas[*at].process.is_some()).collect();
            let leads =
                running.iter().copied().find(|at| self.state(*at).is_some_and(|state| state.role == "leader"))?;
            let node = self.replicas[leads].node;
            let agree =
                running.iter().filter(|at| self.state(**at).is_some_and(|state| state.leader_id == node)).count();
            (agree * 2 > running.len()).then_some(leads)
        })
    }

    /// Waits until this replica has applied as much as the leader has committed now, and compares their digests.
    pub fn caught_up(&self, at: usize) {
        let wanted = wait_for("the leader's state", || self.state(self.leader())).commit_index;
        wait_for("a replica that has caught up", || {
            self.state(at).filter(|state| state.applied_index >= wanted).map(|_| ())
        });
        wait_for("equal digests at equal positions", || {
            let (one, other) = (self.state(self.leader())?, self.state(at)?);
            (one.applied_index == other.applied_index).then(|| assert_eq!(one.state_digest, other.state_digest))
        });
    }

    /// A worker with Python on its path.
    pub fn start_worker(&mut self, name: &str) {
        let folder = self.dir.path().join(name);
        let mut command = Command::new(program("workerd"));
        command
            .args(["--node-id", name, "--endpoints", &self.endpoints().join(","), "--preset", "local", "--slots", "2"])
            .arg("--dir")
            .arg(&folder)
            .args(["--python", &python()])
            .arg("--python-path")
            .arg(checkout().join("ml-code/src"));
        let process = Process::start(&mut command, &self.dir.path().join(format!("{name}.log")));
        match self.workers.iter_mut().find(|(known, _)| known == name) {
            Some((_, place)) => *place = Some(process),
            None => self.workers.push((name.to_owned(), Some(process))),
        }
    }

    pub fn worker(&mut self, name: &str) -> &mut Process {
        let found = self.workers.iter_mut().find(|(known, _)| known == name);
        found.and_then(|(_, process)| process.as_mut()).expect("the worker runs")
    }

    /// Runs gridctl against the cluster: (exit status, stdout, stderr).
    pub fn gridctl(&self, args: &[&str]) -> (i32, String, String) {
        let output = Command::new(program("gridctl"))
            .args(args)
            .args(["--endpoints", &self.endpoints().join(",")])
            .stdin(Stdio::null())
            .output()
            .expect("gridctl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }
}

impl Drop for Cluster {
    /// A test that failed shows what its processes said last.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Ok(entries) = std::fs::read_dir(self.dir.path()) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|ending| ending == "log") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let tail = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
                eprintln!("--- end of {}\n{}", path.display(), tail.join("\n"));
            }
        }
    }
}

/// The interpreter with ml-code's packages: the project's virtual environment, or the one that RAFTGRID_PYTHON names.
pub fn python() -> String {
    std::env::var("RAFTGRID_PYTHON").unwrap_or_else(|_| {
        let own = checkout().join(".venv/bin/python");
        if own.is_file() {
            own.display().to_string()
        } else {
            "python3".to_owned()
        }
    })
}
