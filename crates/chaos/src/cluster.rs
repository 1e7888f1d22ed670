//! Replicas as processes: addresses, directories, start, kill, and what each says of itself.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use raftgrid_client::{Client, ClientConfig};
use raftgrid_proto::v1::{StateRequest, StateResponse};
use raftgrid_rpc::methods::CLUSTER_STATE;
use rustix::process::Signal;

use crate::limits::{LOG_LINES_SHOWN, LOOK_PAUSE, PATIENCE, STATE_TIMEOUT};
use crate::process::Process;

/// Where one replica is reached, and where its data lies.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Its number, from 1.
    pub node: u64,
    /// Client API.
    pub client: String,
    /// Where it listens for peers.
    pub raft: String,
    /// Where peers reach it: a proxy, or the same.
    pub raft_public: String,
    /// Its data.
    pub data_dir: PathBuf,
    /// Its output.
    pub log: PathBuf,
    /// Put before the command line: `ip netns exec …`, `strace …`.
    pub wrap: Vec<String>,
    /// More flags.
    pub flags: Vec<String>,
    /// It is no founder: it starts empty and is let in.
    pub joins: bool,
}

/// What runs at a seat.
#[derive(Clone, Debug)]
pub struct Program {
    /// The binary.
    pub file: PathBuf,
    /// Flags behind those of the seat.
    pub flags: Vec<String>,
}

/// A cluster of processes. Shared by the threads of a run.
pub struct Cluster {
    /// The program is etcd.
    etcd: bool,
    seats: Vec<Seat>,
    programs: Vec<Mutex<Program>>,
    processes: Vec<Mutex<Option<Process>>>,
    looks: Client,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks guard is whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Free loopback ports, below those that the kernel gives to outgoing connections; none twice in one process.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = (std::process::id() % 4_000) as u16 * 4;
    let mut ports = Vec::new();
    for _ in 0..18_000u16 {
        if ports.len() == count {
            return Ok(ports);
        }
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % 18_000;
        let port = 12_000 + (spread + step) % 18_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            ports.push(port);
        }
    }
    bail!("failed to find {count} free ports on 127.0.0.1; ss -ltn shows who holds them")
}

/// A built program: beside this one, or one folder up (tests live in deps/).
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("failed to learn this program's path")?;
    let folder = own.ancestors().skip(1).find(|folder| folder.join(name).is_file());
    folder.map(|folder| folder.join(name)).with_context(|| format!("{name} is not built; run `make build` first"))
}

impl Cluster {
    /// A cluster that was laid out; nothing runs.
    pub fn new(controld: &Path, seats: Vec<Seat>) -> Result<Self> {
        let endpoints: Vec<String> = seats.iter().map(|seat| seat.client.clone()).collect();
        let looks = Client::new(ClientConfig::new(endpoints)).context("failed to make a client")?;
        let processes = seats.iter().map(|_| Mutex::new(None)).collect();
        let program = Program { file: controld.to_owned(), flags: Vec::new() };
        let programs = seats.iter().map(|_| Mutex::new(program.clone())).collect();
        Ok(Self { etcd: false, seats, programs, processes, looks })
    }

    /// The same of etcd.
    pub fn of_etcd(program: &Path, seats: Vec<Seat>) -> Result<Self> {
        Ok(Self { etcd: true, ..Self::new(program, seats)? })
    }

    /// Seats on loopback under `dir`. Peers reach each other directly; a caller may put proxies in between.
    pub fn loopback(dir: &Path, replicas: usize) -> Result<Vec<Seat>> {
        let ports = free_ports(replicas * 2)?;
        Ok((0..replicas)
            .map(|at| {
                let raft = format!("127.0.0.1:{}", ports[at * 2]);
                Seat {
                    node: at as u64 + 1,
                    client: format!("127.0.0.1:{}", ports[at * 2 + 1]),
                    raft_public: raft.clone(),
                    raft,
                    data_dir: dir.join(format!("replica-{}", at + 1)),
                    log: dir.join(format!("replica-{}.log", at + 1)),
                    wrap: Vec::new(),
                    flags: Vec::new(),
                    joins: false,
                }
            })
            .collect())
    }

    /// The seats.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// Number of replicas.
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// The command line of one replica.
    pub fn command(&self, at: usize) -> Command {
        let program = lock(&self.programs[at]).clone();
        if self.etcd {
            return crate::etcd::command(&program.file, &self.seats, at);
        }
        let seat = &self.seats[at];
        let founders = self.seats.iter().filter(|it| !it.joins);
        let peers: Vec<String> = founders.map(|it| format!("{}={}/{}", it.node, it.raft_public, it.client)).collect();
        let mut words = seat.wrap.clone();
        words.push(program.file.display().to_string());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["--node-id", &seat.node.to_string(), "--cluster-name", "chaos", "--preset", "local"])
            .args(["--client-addr", &seat.client, "--raft-addr", &seat.raft, "--peers", &peers.join(",")])
            .arg("--data-dir")
            .arg(&seat.data_dir)
            .args(seat.joins.then_some("--join"))
            .args(&seat.flags)
            .args(&program.flags);
        command
    }

    /// What runs at the seat from its next start on.
    pub fn set_program(&self, at: usize, program: Program) {
        *lock(&self.programs[at]) = program;
    }

    /// Starts one that does not run.
    pub fn start(&self, at: usize) -> Result<()> {
        self.start_command(at, &mut self.command(at))
    }

    /// The same by a command line of the caller's, made out of `command`.
    pub fn start_command(&self, at: usize, command: &mut Command) -> Result<()> {
        let process = Process::start(command, &self.seats[at].log)?;
        *lock(&self.processes[at]) = Some(process);
        Ok(())
    }

    /// Starts one that does not run, without what is put before its command line.
    pub fn start_plain(&self, at: usize) -> Result<()> {
        let mut command = self.command(at);
        if !self.seats[at].wrap.is_empty() {
            let whole: Vec<std::ffi::OsString> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
            command = Command::new(&lock(&self.programs[at]).file);
            // Behind the wrapper's own words and the program's name.
            command.args(&whole[self.seats[at].wrap.len()..]);
        }
        let process = Process::start(&mut command, &self.seats[at].log)?;
        *lock(&self.processes[at]) = Some(process);
        Ok(())
    }

    /// SIGKILL; gone when it returns.
    pub fn kill(&self, at: usize) {
        if let Some(mut process) = lock(&self.processes[at]).take() {
            process.kill();
        }
    }

    /// SIGTERM; returns when it has ended. It hands leadership over first; an end that is no success is an error.
    pub fn terminate(&self, at: usize) -> Result<()> {
        self.signal(at, Signal::TERM)?;
        let ended = wait_for("the end of a replica that was asked to end", || self.exit_status(at))?;
        *lock(&self.processes[at]) = None;
        if !ended.success() {
            bail!("replica {} was asked to end, and ended with {ended}\n{}", self.seats[at].node, self.last_words());
        }
        Ok(())
    }

    /// How the process at a seat ended, if it has.
    pub fn exit_status(&self, at: usize) -> Option<ExitStatus> {
        lock(&self.processes[at]).as_mut().and_then(Process::exited)
    }

    /// Client addresses of those that run, as far as was ordered.
    pub fn endpoints(&self) -> Vec<String> {
        self.running().into_iter().map(|at| self.seats[at].client.clone()).collect()
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, at: usize, signal: Signal) -> Result<()> {
        lock(&self.processes[at]).as_ref().map_or(Ok(()), |process| process.signal(signal))
    }

    /// Process id → place, of those that run.
    pub fn pids(&self) -> Vec<(u32, usize)> {
        let pid = |at: usize| lock(&self.processes[at]).as_ref().map(|process| (process.id(), at));
        (0..self.len()).filter_map(pid).collect()
    }

    /// Which run, as far as was ordered.
    pub fn running(&self) -> Vec<usize> {
        self.pids().into_iter().map(|(_, at)| at).collect()
    }

    /// Those that ended by themselves, with how.
    pub fn died(&self) -> Vec<(u64, String)> {
        let died = |at: usize| {
            let status = lock(&self.processes[at]).as_mut().and_then(Process::exited)?;
            Some((self.seats[at].node, status.to_string()))
        };
        (0..self.len()).filter_map(died).collect()
    }

    /// What a replica says of itself; None: no answer.
    pub fn state(&self, at: usize) -> Option<StateResponse> {
        if self.etcd {
            return crate::etcd::state(&self.seats[at]);
        }
        self.looks.call_on(&self.seats[at].client, &CLUSTER_STATE, &StateRequest::new(), STATE_TIMEOUT).ok()
    }

    /// The leader of the newest term that anyone claims now.
    pub fn leader(&self) -> Option<usize> {
        let claims = self.running().into_iter().filter_map(|at| Some((self.state(at)?, at)));
        claims.filter(|(state, _)| state.role == "leader").max_by_key(|(state, _)| state.term).map(|(_, at)| at)
    }

    /// Waits for a leader that all running replicas know.
    pub fn settled(&self) -> Result<usize> {
        wait_for("a leader that every running replica knows", || {
            let leader = self.leader()?;
            let node = self.state(leader)?.leader_id;
            let knows = |at: &usize| self.state(*at).is_some_and(|state| state.leader_id == node);
            self.running().iter().all(knows).then_some(leader)
        })
        .with_context(|| format!("replicas that ended by themselves: {:?}", self.died()))
    }

    /// Waits until all replicas that run stand at the same position, and compares their digests there.
    pub fn equal_digests(&self) -> Result<u64> {
        let states = wait_for("all replicas at one position", || {
            let states: Vec<StateResponse> = self.running().iter().map(|at| self.state(*at)).collect::<Option<_>>()?;
            states.windows(2).all(|pair| pair[0].applied_index == pair[1].applied_index).then_some(states)
        })?;
        if states.windows(2).any(|pair| pair[0].state_digest != pair[1].state_digest) {
            let digests: Vec<String> =
                states.iter().map(|it| format!("{}: {:02x?}", it.node_id, it.state_digest)).collect();
            bail!("digests at index {} differ: {}", states[0].applied_index, digests.join(", "));
        }
        Ok(states[0].applied_index)
    }

    /// The last lines of every log.
    pub fn last_words(&self) -> String {
        let mut out = String::new();
        for seat in self.seats.iter().filter(|seat| seat.log.exists()) {
            out.push_str(&tail(&seat.log));
        }
        out
    }
}

/// The last lines of a log, with its name.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    format!("--- end of {}\n{}\n", log.display(), tail.join("\n"))
}

/// Waits until `look` gives something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if start.elapsed() > PATIENCE {
            bail!("never came within {} s: {what}", PATIENCE.as_secs());
        }
        std::thread::sleep(LOOK_PAUSE);
    }
}

/// Sleeps for so many milliseconds.
pub fn pause_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}
