//! All services of a replica, ready to be registered on its ports.

use std::path::PathBuf;
use std::sync::Arc;

use raftgrid_telemetry::Registry;
use slog::Logger;

use crate::calls::Surface;
use crate::context::Core;
use crate::forward::Forwarded;
use crate::health::ReplicaHealth;
use crate::log_book::LogBook;
use crate::ports::Ports;
use crate::{artifact, backup, cluster, job, kv, logs, ml, node, queue, reflection, schedule, session, task};

/// What the services need to know.
pub struct ApiConfig {
    /// This replica; never 0.
    pub node_id: u64,
    /// Where task logs are kept; made if missing. Nothing else may lie in it.
    pub log_dir: PathBuf,
    /// The process's logger.
    pub logger: Logger,
    /// Where calls are counted.
    pub metrics: Registry,
}

/// Why the services cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The log directory.
    #[error("failed to open the directory of task logs {path}: {cause}; check that it can be written")]
    Logs {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
}

/// The services of one replica. Each call of `public` and `agents` makes them anew for one more port; they share one state.
pub struct Services {
    core: Arc<Core>,
}

impl Services {
    /// Opens the log directory. Starts no thread until one is needed.
    pub fn new(config: ApiConfig, ports: Arc<Ports>) -> Result<Self, ApiError> {
        let logs =
            LogBook::open(&config.log_dir).map_err(|cause| ApiError::Logs { path: config.log_dir.clone(), cause })?;
        Ok(Self { core: Arc::new(Core::new(ports, config.node_id, logs, config.logger, &config.metrics)) })
    }

    /// Brings what is looked at, rather than counted, up to date.
    pub fn sample(&self) {
        let core = &self.core;
        core.metrics.open(&[
            ("upload", core.uploads.count()),
            ("download", core.downloads.count()),
            ("log", core.log_calls.count()),
            ("watch", core.watches.count()),
            ("session", core.sessions.count()),
            ("forwarded", core.forwarding.count()),
        ]);
    }

    /// Everything, for the client port: own names and the names of clients that exist, health, reflection.
    pub fn public(&self) -> Vec<grpcio::Service> {
        let health = grpcio_health::create_health(ReplicaHealth::new(self.core.clone()));
        vec![self.surface().handlers.build(), health, reflection::service()]
    }

    /// What existing agents call on the Raft port: tasks and nodes.
    pub fn agents(&self) -> Vec<grpcio::Service> {
        let surface = Surface::new(self.core.clone());
        let surface = node::register(task::register(surface));
        vec![surface.handlers.build()]
    }

    /// The leader's side of forwarded calls, for `peer`.
    pub fn forwarded(&self) -> Forwarded {
        Forwarded::new(logs::register_peer_reads(self.surface()).table)
    }

    fn surface(&self) -> Surface {
        let surface = Surface::new(self.core.clone());
        let surface = node::register(task::register(surface));
        let surface = queue::register(schedule::register(job::register(ml::register(surface))));
        let surface = session::register(kv::register(surface));
        backup::register(cluster::register(artifact::register(surface)))
    }
}
