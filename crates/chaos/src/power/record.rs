//! Records a run: one real `controld` under strace, clients that submit, snapshots and flushes on the way, kills and restarts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{bail, Context, Result};
use raftgrid_client::request_id;
use raftgrid_proto::v1::{SnapshotRequest, SubmitTaskRequest};
use raftgrid_rpc::methods::{CLUSTER_SNAPSHOT, SUBMIT_TASK};

use crate::calls::{nowhere, Caller, Endpoints, Told};
use crate::chance::Chance;
use crate::cluster::{wait_for, Cluster};
use crate::power::boot::{read_back, Ack};
use crate::power::files::{Files, Image};
use crate::power::trace::{self, Event};

/// Longest string that strace writes whole; more than any one write of a replica.
const STRING_BYTES_MAX: usize = 64 << 20;
/// Clients that submit at the same time.
const CLIENTS: u64 = 4;

/// Everything that is needed to lose the power of a run again and again.
pub struct Recording {
    /// The calls, in the order of their ends; one list a life of the process.
    pub lives: Vec<Vec<Event>>,
    /// What was acknowledged.
    pub acks: Vec<Ack>,
    /// The data directory's path in the run.
    pub data_dir: PathBuf,
    /// The directory as the run left it.
    pub left: Image,
    /// Of the cluster that was founded.
    pub cluster_id: String,
}

fn micros_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

/// Whether strace is there and may be used here.
pub fn strace_works() -> Result<()> {
    let output = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    let output = output.context("failed to run strace")?;
    if !output.status.success() {
        bail!("strace may not trace here: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Runs `lives` lives of a replica, each with `tasks` submissions, and reads the traces.
pub fn record(controld: &Path, dir: &Path, seed: u64, lives: usize, tasks: u64) -> Result<Recording> {
    std::fs::create_dir_all(dir).with_context(|| format!("failed to make {}", dir.display()))?;
    let dir = dir.canonicalize().context("failed to resolve the folder")?;
    let config = dir.join("controld.toml");
    let text = "[raft]\nlog_tail_entries = 40\nsnapshot_threshold = 120\nsnapshot_interval = '1s'\n";
    std::fs::write(&config, text).context("failed to write the settings")?;
    let mut seats = Cluster::loopback(&dir, 1)?;
    let data_dir = seats[0].data_dir.clone();
    // There, and durable, before the run begins.
    std::fs::create_dir_all(&data_dir).context("failed to make the data directory")?;
    seats[0].flags = vec!["--config".to_owned(), config.display().to_string()];
    let mut acks = Vec::new();
    let mut traces = Vec::new();
    for life in 0..lives {
        let path = dir.join(format!("trace-{life}"));
        let mut seat = seats[0].clone();
        // -D: controld is our child, not strace; a kill is then one of controld.
        seat.wrap = ["strace", "-D", "-f", "-ttt", "-xx", "--seccomp-bpf", "-s"].map(str::to_owned).to_vec();
        seat.wrap.extend([STRING_BYTES_MAX.to_string(), "-e".to_owned(), format!("trace={}", trace::CALLS)]);
        seat.wrap.extend(["-o".to_owned(), path.display().to_string()]);
        let cluster = Cluster::new(controld, vec![seat])?;
        cluster.start(0)?;
        cluster.settled().with_context(|| cluster.last_words())?;
        acks.extend(submit(&cluster, seed, life as u64, tasks)?);
        if life + 1 < lives {
            let (caller, request) = (caller(&cluster, seed, 900)?, SnapshotRequest::new());
            // It may have nothing new to make one of.
            let _ = { caller }.once(&CLUSTER_SNAPSHOT, &request, Duration::from_secs(10));
        }
        // What is under way comes to rest: a call that a kill interrupts has no end in the trace.
        std::thread::sleep(Duration::from_millis(1_500));
        cluster.kill(0);
        traces.push(wait_for("the end of the trace", || {
            let text = std::fs::read_to_string(&path).ok()?;
            text.lines().last().filter(|line| line.contains("+++ killed by SIGKILL")).is_some().then_some(text)
        })?);
    }
    let mut read = Vec::new();
    let mut first_line = 0;
    for text in traces {
        read.push(trace::read(&text, first_line)?);
        first_line += text.lines().count();
    }
    acks.sort_by_key(|ack| ack.at);
    let left = read_back(&data_dir)?;
    let identity = left.get("identity").and_then(Option::as_ref).context("the run left no identity")?;
    let identity: serde_json::Value = serde_json::from_slice(identity).context("failed to read the identity")?;
    let cluster_id = identity["cluster_id"].as_str().context("the identity names no cluster")?.to_owned();
    let recording = Recording { lives: read, acks, data_dir, left, cluster_id };
    recording.proves_itself()?;
    Ok(recording)
}

fn caller(cluster: &Cluster, seed: u64, stream: u64) -> Result<Caller> {
    let mut caller = Caller::new(Endpoints::new(vec![cluster.seats()[0].client.clone()]), Chance::new(seed, stream))?;
    caller.attempt_timeout = Duration::from_secs(10);
    Ok(caller)
}

fn submit(cluster: &Cluster, seed: u64, life: u64, tasks: u64) -> Result<Vec<Ack>> {
    let acks = Arc::new(Mutex::new(Vec::new()));
    let mut threads = Vec::new();
    for client in 0..CLIENTS {
        let (acks, mut caller) = (acks.clone(), caller(cluster, seed, life * CLIENTS + client + 400)?);
        threads.push(std::thread::spawn(move || {
            for number in 0..tasks / CLIENTS {
                let tag = 1 + (life * CLIENTS + client) * 1_000_000 + number;
                let mut request = SubmitTaskRequest::new();
                request.set_task_type("command".to_owned());
                let filler = "x".repeat(caller.chance.below(1_500) as usize);
                let data = format!(r#"{{"argv":["true"],"tag":{tag},"filler":"{filler}"}}"#);
                request.set_task_data(data.into_bytes());
                request.set_request_id(request_id());
                request.set_spec(nowhere());
                if let Told::Done(response) = caller.write(&SUBMIT_TASK, &request) {
                    let ack = Ack { at: micros_now(), index: response.position >> 16, task: response.task_id, tag };
                    acks.lock().unwrap_or_else(PoisonError::into_inner).push(ack);
                }
            }
        }));
    }
    for thread in threads {
        if thread.join().is_err() {
            bail!("a client panicked");
        }
    }
    let acks = acks.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if (acks.len() as u64) < tasks / 2 {
        bail!("only {} of {tasks} submissions were acknowledged\n{}", acks.len(), cluster.last_words());
    }
    Ok(acks)
}

impl Recording {
    /// The model, fed with the whole trace, must show the very directory that the run left: then no call was missed.
    fn proves_itself(&self) -> Result<()> {
        let mut files = Files::new(&self.data_dir);
        for life in &self.lives {
            for event in life {
                files.apply(event).with_context(|| format!("{:.300}", format!("{event:?}")))?;
            }
            files.process_ended();
        }
        let seen = files.seen();
        let differs = |path: &&String| seen.get(*path) != self.left.get(*path);
        let wrong: Vec<&String> = self.left.keys().chain(seen.keys()).filter(differs).take(5).collect();
        if !wrong.is_empty() {
            bail!("the trace does not explain the directory; these differ: {wrong:?}");
        }
        Ok(())
    }
}
