//! A training job beside a run: real workers, a real script; in the end no gradient may be lost or counted twice.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};

use crate::process::Process;

/// What is trained, and with what.
#[derive(Clone, Debug)]
pub struct Train {
    /// `gridctl`.
    pub gridctl: PathBuf,
    /// `workerd`.
    pub workerd: PathBuf,
    /// The interpreter, with the packages that the script needs.
    pub python: PathBuf,
    /// Folders that tasks find modules in.
    pub python_path: Option<PathBuf>,
    /// The script.
    pub script: PathBuf,
    /// Rounds.
    pub rounds: u32,
}

const WORKERS: usize = 2;
const SHARDS: &str = "4";
const NAME: &str = "chaos-train";
/// Longest wait for the end of the job once the faults are over.
const FINISH_TIMEOUT: &str = "300s";

/// A job under way; its workers end with it.
pub struct Job {
    gridctl: PathBuf,
    endpoints: String,
    _workers: Vec<Process>,
}

impl Train {
    /// Starts the workers and submits the job.
    pub fn start(&self, dir: &Path, endpoints: &[String]) -> Result<Job> {
        let endpoints = endpoints.join(",");
        let mut workers = Vec::new();
        for number in 1..=WORKERS {
            let name = format!("train-worker-{number}");
            let mut command = Command::new(&self.workerd);
            command
                .args(["--node-id", &name, "--endpoints", &endpoints, "--preset", "local", "--slots", "2", "--dir"])
                .arg(dir.join(&name))
                .arg("--python")
                .arg(&self.python);
            if let Some(path) = &self.python_path {
                command.arg("--python-path").arg(path);
            }
            workers.push(Process::start(&mut command, &dir.join(format!("{name}.log")))?);
        }
        let job = Job { gridctl: self.gridctl.clone(), endpoints, _workers: workers };
        let (script, rounds) = (self.script.display().to_string(), self.rounds.to_string());
        job.ask(&["train", &script, "--name", NAME, "--shards", SHARDS, "--workers", "2", "--rounds", &rounds])?;
        Ok(job)
    }
}

impl Job {
    /// Waits for its end and looks at its account.
    pub fn finish(self) -> Result<()> {
        self.ask(&["job", "wait", NAME, "--timeout", FINISH_TIMEOUT])?;
        let audit = self.ask(&["job", "audit", NAME, "--output", "json"])?;
        let audit: serde_json::Value = serde_json::from_str(&audit).context("failed to read the job's account")?;
        let figure = |name: &str| audit[name].as_u64();
        if figure("lost") != Some(0) || figure("duplicated") != Some(0) || figure("accepted").unwrap_or(0) == 0 {
            bail!("the account of the job beside the run is wrong: {audit}");
        }
        println!("the job beside the run: {} gradients accepted, none lost, none twice", audit["accepted"]);
        Ok(())
    }

    fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.gridctl);
        command.args(words).args(["--endpoints", &self.endpoints]).stdin(Stdio::null());
        let output = command.output().with_context(|| format!("failed to start {}", self.gridctl.display()))?;
        if !output.status.success() {
            bail!("gridctl {} failed: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
