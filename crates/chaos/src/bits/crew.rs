//! The processes of one run: replicas and workers, what each is armed with, and how each life ended.

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Instant;

use anyhow::{Context, Result};
use raftgrid_crashpoint::{last_words, Point, VARIABLE};

use super::python::{self, Orders};
use super::Tools;
use crate::cluster::Cluster;
use crate::process::Process;

const SIGKILL: i32 = 9;

/// A replica or a worker, by place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A replica.
    Replica(usize),
    /// A worker.
    Worker(usize),
}

/// A point, and the time at it that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arm {
    /// The point.
    pub point: Point,
    /// From 1.
    pub count: u64,
}

impl Arm {
    fn words(self) -> String {
        format!("{}:{}", self.point.name(), self.count)
    }
}

/// How a life ended.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// At the point that it was armed with.
    AtPoint(Point),
    /// By SIGKILL from here.
    Killed,
    /// In another way: a bug.
    Other(ExitStatus),
}

/// One process after another at one place.
#[derive(Debug, Default)]
struct Life {
    armed: Option<Arm>,
    log: PathBuf,
    /// Where the log of the present process begins.
    from: u64,
    /// When the next one is to be started.
    due: Option<Instant>,
}

impl Life {
    fn begin(&mut self, arm: Option<Arm>) {
        self.armed = arm;
        self.from = std::fs::metadata(&self.log).map_or(0, |it| it.len());
        self.due = None;
    }

    /// The point that this life's last words name.
    fn said(&self) -> Option<Point> {
        let point = self.armed?.point;
        let mut file = std::fs::File::open(&self.log).ok()?;
        file.seek(SeekFrom::Start(self.from)).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let words = last_words(point);
        String::from_utf8_lossy(&bytes).lines().any(|line| line == words).then_some(point)
    }
}

struct WorkerSeat {
    name: String,
    dir: PathBuf,
    process: Option<Process>,
}

/// All processes of a run. Dropped, none of them is left.
pub struct Crew<'a> {
    tools: &'a Tools,
    cluster: &'a Cluster,
    python_path: String,
    replicas: Vec<Life>,
    workers: Vec<Life>,
    seats: Vec<WorkerSeat>,
}

impl<'a> Crew<'a> {
    /// Nothing runs yet.
    pub fn new(tools: &'a Tools, cluster: &'a Cluster, dir: &Path, workers: usize, orders: &Orders) -> Self {
        let replicas = cluster.seats().iter().map(|seat| Life { log: seat.log.clone(), ..Life::default() }).collect();
        let names: Vec<String> = (1..=workers).map(|number| format!("worker-{number}")).collect();
        let life = |name: &String| Life { log: dir.join(format!("{name}.log")), ..Life::default() };
        let seat = |name: &String| WorkerSeat { name: name.clone(), dir: dir.join(name), process: None };
        Self {
            tools,
            cluster,
            python_path: format!("{}:{}", orders.folder().display(), tools.python_path.display()),
            replicas,
            workers: names.iter().map(life).collect(),
            seats: names.iter().map(seat).collect(),
        }
    }

    /// Everyone.
    pub fn everyone(&self) -> Vec<Who> {
        let replicas = (0..self.replicas.len()).map(Who::Replica);
        replicas.chain((0..self.workers.len()).map(Who::Worker)).collect()
    }

    fn life(&self, who: Who) -> &Life {
        match who {
            Who::Replica(at) => &self.replicas[at],
            Who::Worker(at) => &self.workers[at],
        }
    }

    fn life_mut(&mut self, who: Who) -> &mut Life {
        match who {
            Who::Replica(at) => &mut self.replicas[at],
            Who::Worker(at) => &mut self.workers[at],
        }
    }

    /// What its present process is armed with.
    pub fn armed(&self, who: Who) -> Option<Arm> {
        self.life(who).armed
    }

    /// Whether a process runs there, as far as was ordered.
    pub fn runs(&self, who: Who) -> bool {
        match who {
            Who::Replica(at) => self.cluster.running().contains(&at),
            Who::Worker(at) => self.seats[at].process.is_some(),
        }
    }

    /// Starts one that does not run.
    pub fn start(&mut self, who: Who, arm: Option<Arm>) -> Result<()> {
        self.life_mut(who).begin(arm);
        let mut command = match who {
            Who::Replica(at) => self.cluster.command(at),
            Who::Worker(at) => self.worker_command(at),
        };
        command.env_remove(VARIABLE);
        if let Some(arm) = arm {
            command.env(VARIABLE, arm.words());
        }
        match who {
            Who::Replica(at) => self.cluster.start_command(at, &mut command),
            Who::Worker(at) => {
                self.seats[at].process = Some(Process::start(&mut command, &self.workers[at].log)?);
                Ok(())
            }
        }
    }

    fn worker_command(&self, at: usize) -> Command {
        let seat = &self.seats[at];
        let endpoints: Vec<String> = self.cluster.seats().iter().map(|seat| seat.client.clone()).collect();
        let mut command = Command::new(&self.tools.workerd);
        command
            .args(["--node-id", &seat.name, "--endpoints", &endpoints.join(","), "--preset", "local", "--slots", "2"])
            .arg("--dir")
            .arg(&seat.dir)
            .arg("--python")
            .arg(&self.tools.python)
            .args(["--python-path", &self.python_path]);
        command
    }

    /// SIGKILL; gone when it returns. It may have come to its point a moment before. None: nothing ran there.
    pub fn kill(&mut self, who: Who) -> Option<End> {
        if !self.runs(who) {
            return None;
        }
        match who {
            Who::Replica(at) => self.cluster.kill(at),
            Who::Worker(at) => drop(self.seats[at].process.take()),
        }
        Some(self.life(who).said().map_or(End::Killed, End::AtPoint))
    }

    /// Takes note of a process that has ended by itself.
    pub fn ended(&mut self, who: Who) -> Option<End> {
        let status = match who {
            Who::Replica(at) => self.cluster.exit_status(at)?,
            Who::Worker(at) => self.seats[at].process.as_mut()?.exited()?,
        };
        match who {
            Who::Replica(at) => self.cluster.kill(at),
            Who::Worker(at) => self.seats[at].process = None,
        }
        let said = self.life(who).said().filter(|_| status.signal() == Some(SIGKILL));
        Some(said.map_or(End::Other(status), End::AtPoint))
    }

    /// The next process there is to be started at that time.
    pub fn due_at(&mut self, who: Who, at: Instant) {
        self.life_mut(who).due = Some(at);
    }

    /// Whether nothing runs there, and the time for the next one has come.
    pub fn is_due(&self, who: Who, now: Instant) -> bool {
        self.life(who).due.is_some_and(|due| due <= now)
    }

    /// Python processes of the workers that run.
    pub fn pythons(&self) -> Vec<i32> {
        let pids = self.seats.iter().filter_map(|seat| seat.process.as_ref().map(Process::id));
        pids.flat_map(python::tasks_of).collect()
    }

    /// What the workers noted of acknowledgements.
    pub fn acks_files(&self) -> Vec<PathBuf> {
        let files = self.seats.iter().map(|seat| seat.dir.join("acks.jsonl"));
        files.filter(|file| file.is_file()).collect()
    }

    /// The last lines of every log.
    pub fn last_words(&self) -> String {
        let mut out = self.cluster.last_words();
        for life in self.workers.iter().filter(|life| life.log.exists()) {
            out.push_str(&crate::cluster::tail(&life.log));
        }
        out
    }
}

impl Drop for Crew<'_> {
    fn drop(&mut self) {
        for who in self.everyone() {
            let _ = self.kill(who);
        }
    }
}

/// Where a run's job file and its script lie: the script alone in a folder, which travels with it.
pub fn lay_out_job(dir: &Path, script: &Path, rounds: u64, seed: u64) -> Result<PathBuf> {
    let code = dir.join("code");
    std::fs::create_dir_all(&code).with_context(|| format!("failed to make {}", code.display()))?;
    let name = script.file_name().context("the script has no name")?;
    std::fs::copy(script, code.join(name)).with_context(|| format!("failed to copy {}", script.display()))?;
    let file = dir.join("job.toml");
    // Kills of Python processes count as failures of the script: it may fail as often as it is killed. Batches are drawn from the step's
    // seed, so that a seed that depends on the run would show. With so many hidden units, models, states and gradients are above 128 KiB: coded.
    let text = format!(
        "name = \"{}\"\ntype = \"train\"\n\n[task]\nmax_retries = 1000\n\n[train]\nscript = \"code/{}\"\nargs = [\"--batch\", \"64\", \"--hidden\", \"512\"]\nshards = {}\n\
         workers = 1\nrounds = {rounds}\nseed = {seed}\nverify = 0.05\n",
        super::JOB,
        name.to_string_lossy(),
        super::SHARDS,
    );
    std::fs::write(&file, text).context("failed to write the job file")?;
    Ok(file)
}
