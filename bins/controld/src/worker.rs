//! The worker inside `controld --with-worker`: the same as workerd's, with this replica among its endpoints.

use std::path::PathBuf;

use anyhow::{Context, Result};
use raftgrid_agent::{run_worker, Handle};
use raftgrid_settings::{Settings, SettingsError};
use raftgrid_worker::{look_at_gpus, look_at_python, WorkerConfig};
use slog::Logger;

use crate::plan::Plan;

/// What it is started with.
pub(crate) struct WorkerPlan {
    config: WorkerConfig,
    endpoints: Vec<String>,
    /// Somebody named the interpreter.
    python_chosen: bool,
}

/// Runs until `stop`.
pub(crate) struct RunningWorker(Handle);

/// The worker that the settings ask for, if they do.
pub(crate) fn plan(settings: &Settings, plan: &Plan) -> Result<Option<WorkerPlan>, SettingsError> {
    if !settings.parse("with_worker")?.unwrap_or(false) {
        return Ok(None);
    }
    let shim = match settings.get("worker_shim").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe().unwrap_or_default().with_file_name("workerd"),
    };
    let mut config = WorkerConfig::new(format!("controld-{}", plan.node), plan.data_dir.join("worker"), shim);
    config.python = settings.get("worker_python").unwrap_or_default().to_owned();
    config.python_path = settings.get("worker_python_path").unwrap_or_default().to_owned();
    config.slots = settings.parse("worker_slots")?.unwrap_or(0);
    config.preset(settings.get("preset").unwrap_or("lan"));
    config.cloud_provider = settings.get("cloud_provider").unwrap_or_default().to_owned();
    config.region = settings.get("region").unwrap_or_default().to_owned();
    // This replica first: it answers even when the network does not.
    let others =
        plan.members.iter().map(|row| row.client_address.clone()).filter(|address| *address != plan.client_addr);
    let endpoints = std::iter::once(plan.client_addr.clone()).chain(others).collect();
    Ok(Some(WorkerPlan { config, endpoints, python_chosen: settings.given("worker_python") }))
}

impl WorkerPlan {
    /// Looks at what it needs on this machine.
    pub(crate) fn ready(mut self, logger: &Logger) -> Result<Self> {
        let chosen = self.python_chosen.then_some("--worker-python");
        look_at_python(&mut self.config, chosen, logger).map_err(anyhow::Error::msg)?;
        look_at_gpus(&mut self.config, logger);
        Ok(self)
    }

    /// Starts it.
    pub(crate) fn start(self, logger: &Logger) -> Result<RunningWorker> {
        let handle = run_worker(self.config, &self.endpoints, logger)
            .context("failed to start the worker inside this replica")?;
        Ok(RunningWorker(handle))
    }
}

impl RunningWorker {
    /// Gives its tasks back and ends.
    pub(crate) fn stop(self) {
        self.0.drain();
        self.0.join();
    }
}
