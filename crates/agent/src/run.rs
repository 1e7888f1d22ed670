//! One worker, put together: directory, control plane, loopback service, executor. The same in workerd and in `controld --with-worker`.

use std::sync::Arc;
use std::time::Duration;

use grpcio::Environment;
use raftgrid_client::ClientError;
use raftgrid_rpc::serve::ListenError;
use raftgrid_worker::models::Models;
use raftgrid_worker::{ControlPlane, HostError, TaskTable, Worker, WorkerConfig, WorkerDir, WorkerEnd};
use slog::{o, Logger};

use crate::control_plane::GrpcControlPlane;
use crate::service::{AgentServer, Parts};

/// Why a worker did not start. Each is one line with the next step.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The endpoints are wrong.
    #[error(transparent)]
    Endpoints(#[from] ClientError),
    /// The directory is busy or cannot be used.
    #[error(transparent)]
    Host(#[from] HostError),
    /// There is no loopback port, or its files cannot be made.
    #[error("failed to open the loopback service for tasks: {0}")]
    Agent(#[from] ListenError),
    /// The program that starts tasks is not there.
    #[error("failed to find {0}, which starts the tasks; build workerd, or name it with --worker-shim")]
    Shim(std::path::PathBuf),
}

/// A running worker. Dropping it drains it and waits for its end, as `drain` and `join` do.
pub struct Handle {
    worker: Worker,
    agent: AgentServer,
}

impl Handle {
    /// Asks it to finish: no new tasks, those that run are given back. Returns at once.
    pub fn drain(&self) {
        self.worker.drain();
    }

    /// The same, but what runs may go on for this long; a drain ends the wait.
    pub fn leave(&self, wait: Duration) {
        self.worker.leave(wait);
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.worker.is_finished()
    }

    /// host:port of the service that its tasks use.
    pub fn agent_address(&self) -> String {
        self.agent.address()
    }

    /// Waits for its end. The loopback service stays until then.
    pub fn join(self) -> WorkerEnd {
        self.worker.join()
    }
}

/// Starts a worker with an environment of its own. `config.shim` is the workerd binary.
pub fn run_worker(config: WorkerConfig, endpoints: &[String], logger: &Logger) -> Result<Handle, RunError> {
    run_worker_in(&raftgrid_rpc::environment("worker"), config, endpoints, logger)
}

/// Starts a worker on the process's environment.
pub fn run_worker_in(
    env: &Arc<Environment>,
    mut config: WorkerConfig,
    endpoints: &[String],
    logger: &Logger,
) -> Result<Handle, RunError> {
    config.endpoints = endpoints.to_vec();
    if !config.shim.is_file() {
        return Err(RunError::Shim(config.shim));
    }
    let plane: Arc<dyn ControlPlane> = Arc::new(GrpcControlPlane::new(endpoints, env)?);
    let dir = WorkerDir::take(&config.dir, logger)?;
    let failed = |cause| HostError::Io { dir: config.dir.clone(), cause };
    let parts = Parts {
        plane: plane.clone(),
        table: TaskTable::new(),
        models: Arc::new(Models::new(dir.join("models")).map_err(failed)?),
        logger: logger.new(o!("part" => "agent")),
    };
    let table = parts.table.clone();
    let agent = AgentServer::start(env, &dir.join(""), parts)?;
    let worker = Worker::start(config, dir, agent.address(), plane, table, logger)?;
    Ok(Handle { worker, agent })
}
