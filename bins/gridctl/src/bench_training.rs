//! Our side of `gridctl bench model` and `bench sum`: three replicas, workers and a job of theirs whose trainers wait at a gate before each step.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, iter};

use raftgrid_client::{Client, ClientConfig};
use raftgrid_proto::v1::JobPhase;

use crate::bench_gate::{Gate, Spent};
use crate::bench_side;
use crate::cli::Train;
use crate::context::Interrupt;
use crate::dev_state::{DevState, Kind};
use crate::failure::{Failure, Result};
use crate::launch::{self, Plan};
use crate::limits::{BENCH_CALL_TIMEOUT, KILL_TIMEOUT};
use crate::output::Output;
use crate::process::{self, Process};
use crate::round_rules::RoundRules;
use crate::train;

/// Takes the model, if it is to, and gives it back as its gradient. argv: HOST:PORT of the gate, MiB of the model, whether it is loaded (1 or 0).
const SCRIPT: &str = r#"
import socket, sys, time
import numpy as np
import raftgrid

host, port = sys.argv[1].rsplit(":", 1)
mib, load = int(sys.argv[2]), sys.argv[3] == "1"
job = raftgrid.init()
random = np.random.default_rng(job.seed)
params = {"w": random.standard_normal(mib << 18, dtype=np.float32)}
job.init_model(params, optimizer=raftgrid.SGD(lr=0.01))
gate = socket.create_connection((host, int(port)))
gate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
words = gate.makefile("r")
spent = (0.0, 0.0)
for step in job.rounds():
    gate.sendall(b"%f %f\n" % spent)
    if not words.readline():
        break
    begin = time.monotonic()
    if load:
        step.load(params)
    loaded = time.monotonic()
    step.push(params)
    spent = (loaded - begin, time.monotonic() - loaded)
"#;

/// What is trained.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Of the model, and so of each gradient.
    pub(crate) mib: u64,
    /// Gradients of a round, each of a trainer of its own.
    pub(crate) shards: usize,
    /// Rounds that may be asked for.
    pub(crate) rounds: u64,
    /// Whether the trainers take the model in each round.
    pub(crate) loads: bool,
}

/// A round that is over.
#[derive(Clone, Debug)]
pub(crate) struct TrainedRound {
    pub(crate) took: Duration,
    /// Of each trainer.
    pub(crate) spent: Vec<Spent>,
    /// Of all processes: replicas, workers, trainers.
    pub(crate) cpu_seconds: f64,
}

/// A running cluster with its job; all of it ends when this is dropped.
pub(crate) struct Training {
    pub(crate) version: String,
    directory: PathBuf,
    state: DevState,
    client: Client,
    gate: Gate,
    job: String,
    trainers: usize,
}

impl Training {
    /// Starts everything and waits until every trainer holds its first step. With `traced` the replicas run below strace.
    pub(crate) fn start(
        directory: &Path,
        python: &Path,
        shape: Shape,
        traced: bool,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let script = directory.join("script").join("echo.py");
        let written = fs::create_dir_all(directory.join("script")).and_then(|()| fs::write(&script, SCRIPT));
        written.map_err(|error| Failure::new(format!("{}: {error}", directory.display()), "another --dir"))?;
        let workers = shape.shards.min(2) as u32;
        let slots = (shape.shards as u32).div_ceil(workers.max(1)).max(1);
        let plan = Plan { peers: 3, workers, slots, python: python.to_owned() };
        let state = launch::lay_out(directory, &plan)?;
        let mut config = ClientConfig::new(state.endpoints());
        config.name = "bench".to_owned();
        config.timeout = BENCH_CALL_TIMEOUT;
        let mut training = Self {
            version: String::new(),
            directory: directory.to_owned(),
            state,
            client: Client::new(config)?,
            gate: Gate::open()?,
            job: "bench".to_owned(),
            trainers: shape.shards,
        };
        training.boot(traced, interrupt)?;
        training.submit(&script, shape)?;
        training.ready(interrupt)?;
        Ok(training)
    }

    fn boot(&mut self, traced: bool, interrupt: &Interrupt) -> Result<()> {
        let begin = Instant::now();
        for node in &mut self.state.nodes {
            if traced && matches!(node.kind, Kind::Replica { .. }) {
                bench_side::trace(&self.directory, node);
            }
            launch::start(&self.directory, node)?;
        }
        launch::wait_replicas(&self.state.replicas().collect::<Vec<_>>(), begin, interrupt)?;
        launch::wait_workers(&self.state, begin, interrupt)?;
        let first = self.state.endpoints().into_iter().next().unwrap_or_default();
        let seen = launch::probe(iter::once(first.as_str()))?.cluster_state(&first)?;
        self.version = format!("controld {}", seen.get_version());
        Ok(())
    }

    fn submit(&self, script: &Path, shape: Shape) -> Result<()> {
        let trainers = shape.shards as u32;
        let args = Train {
            script: script.to_owned(),
            name: self.job.clone(),
            shards: trainers,
            workers: trainers,
            // The trainers hold a step of a round more than is asked for.
            rounds: shape.rounds + 2,
            quorum: None,
            rules: RoundRules::default(),
            seed: 1,
            verify: 0.0,
            watch: false,
            args: vec![self.gate.address()?, shape.mib.to_string(), u8::from(shape.loads).to_string()],
        };
        train::check(&args)?;
        train::submit(&self.client, &args, Output::Json).map(drop)
    }

    fn ready(&mut self, interrupt: &Interrupt) -> Result<Vec<Spent>> {
        let (client, job, folder) = (&self.client, &self.job, &self.directory);
        let worth = || {
            interrupt.check()?;
            // One that cannot be asked now is asked at the next look.
            let Ok(mut found) = client.get_job(job) else { return Ok(()) };
            match found.get_job().get_phase() {
                JobPhase::JOB_DONE | JobPhase::JOB_FAILED | JobPhase::JOB_CANCELLED | JobPhase::JOB_REJECTED => {
                    let cause = format!("the job of the benchmark ended: {}", found.take_job().get_reason());
                    Err(Failure::new(cause, format!("--dir DIR, and the logs in {}", folder.display())))
                }
                JobPhase::JOB_INIT | JobPhase::JOB_RUNNING | JobPhase::JOB_PAUSED => Ok(()),
            }
        };
        self.gate.ready(self.trainers, &worth)
    }

    /// One round: from the word to the trainers until each of them holds the next step.
    pub(crate) fn round(&mut self, interrupt: &Interrupt) -> Result<TrainedRound> {
        let (cpu, begin) = (self.cpu_seconds(), Instant::now());
        self.gate.go()?;
        let spent = self.ready(interrupt)?;
        let took = begin.elapsed();
        Ok(TrainedRound { took, spent, cpu_seconds: self.cpu_seconds() - cpu })
    }

    fn processes(&self) -> Vec<Process> {
        process::family(&self.directory, &[])
    }

    fn cpu_seconds(&self) -> f64 {
        self.processes().iter().map(Process::cpu_seconds).sum()
    }

    /// Peaks of memory count from now on.
    pub(crate) fn forget_peaks(&self) {
        self.processes().iter().for_each(Process::forget_peak);
    }

    /// Sum of the peaks of all processes, in bytes: pages that they share are counted in each.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.processes().iter().map(Process::peak_bytes).sum()
    }

    /// Peak of each replica, in bytes.
    pub(crate) fn replica_peaks(&self) -> Vec<u64> {
        self.state.replicas().filter_map(|node| node.process.as_ref()).map(Process::peak_bytes).collect()
    }

    /// Fsyncs of the replicas so far, if they are traced.
    pub(crate) fn fsyncs(&self) -> u64 {
        bench_side::fsyncs(&self.directory, self.state.replicas())
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        for process in self.processes() {
            process.signal(rustix::process::Signal::KILL);
            process.wait_gone(KILL_TIMEOUT);
        }
        process::reap_children();
    }
}
