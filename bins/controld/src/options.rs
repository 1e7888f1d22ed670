//! The command line and the keys of the settings file.

use std::path::{Path, PathBuf};

use raftgrid_settings::program::Program;
use raftgrid_settings::Key;
use structopt::StructOpt;

/// A raftgrid control-plane replica.
#[derive(Debug, StructOpt)]
#[structopt(name = "controld", rename_all = "kebab-case", setting = structopt::clap::AppSettings::AllArgsOverrideSelf)]
pub(crate) struct Options {
    /// Settings file: TOML, or JSON by its ending. The environment (RAFTGRID_…) and flags win over it.
    #[structopt(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Prints every setting with where it came from, and ends.
    #[structopt(long)]
    pub print_config: bool,
    /// This replica's number, unique in the cluster for ever, from 1.
    #[structopt(long, alias = "raft_id", value_name = "N")]
    pub node_id: Option<String>,
    /// Name of the cluster; founders must agree on it.
    #[structopt(long, value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// With --join: the cluster's id, where `peers` no longer lists the founders (gridctl cluster status shows it).
    #[structopt(long, value_name = "ID")]
    pub cluster_id: Option<String>,
    /// Directory of this replica's state.
    #[structopt(long, alias = "raft_data_dir", value_name = "DIR")]
    pub data_dir: Option<String>,
    /// host:port of the client API.
    #[structopt(long, alias = "grpc_addr", value_name = "ADDR")]
    pub client_addr: Option<String>,
    /// host:port of the Raft port.
    #[structopt(long, alias = "raft_addr", value_name = "ADDR")]
    pub raft_addr: Option<String>,
    /// host:port of /metrics, /healthz and /readyz; "off" for none.
    #[structopt(long, value_name = "ADDR")]
    pub http_addr: Option<String>,
    /// The founders: ID=RAFT_HOST:PORT/CLIENT_HOST:PORT, separated by commas; the same list everywhere.
    #[structopt(long, value_name = "LIST")]
    pub peers: Option<String>,
    /// Founds a cluster of this replica alone.
    #[structopt(long, alias = "raft_bootstrap")]
    pub bootstrap: bool,
    /// Joins a cluster: starts empty and waits to be added (gridctl cluster add-learner). `peers` lists members to be reached.
    #[structopt(long)]
    pub join: bool,
    /// local, lan or wan: how patient elections and leases are.
    #[structopt(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Log file; stderr if it is not given.
    #[structopt(long, value_name = "FILE")]
    pub log: Option<String>,
    /// trace, debug, info, warn or error.
    #[structopt(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// This replica's certificate on the Raft port, PEM: replicas prove themselves to each other (gridctl cluster certs makes all three files).
    #[structopt(long, value_name = "FILE")]
    pub tls_peer_cert: Option<String>,
    /// The certificate's private key, PEM.
    #[structopt(long, value_name = "FILE")]
    pub tls_peer_key: Option<String>,
    /// The authorities whose certificates are believed on the Raft port, PEM.
    #[structopt(long, value_name = "FILE")]
    pub tls_peer_ca: Option<String>,
    /// Listens on other addresses than loopback without security.
    #[structopt(long)]
    pub insecure: bool,
    /// Copies of committed artifacts: s3://BUCKET/PREFIX (keys and endpoint by AWS_… variables) or file:///DIR; the same on every replica.
    #[structopt(long, value_name = "URL")]
    pub mirror: Option<String>,
    /// Runs a worker in this process, too.
    #[structopt(long)]
    pub with_worker: bool,
    /// Program that starts the tasks of that worker (workerd); beside this program if it is not given.
    #[structopt(long, value_name = "FILE")]
    pub worker_shim: Option<String>,
    /// The Python interpreter of that worker's tasks.
    #[structopt(long, value_name = "FILE")]
    pub worker_python: Option<String>,
    /// Folders that its Python tasks find modules in, behind their bundle (ml-code/src).
    #[structopt(long, value_name = "PATH")]
    pub worker_python_path: Option<String>,
    /// Tasks at once on that worker; 0: one per core.
    #[structopt(long, value_name = "N")]
    pub worker_slots: Option<String>,
    /// Ignored; kept for scripts that give it (gossip comes later).
    #[structopt(long = "gossip-addr", alias = "gossip_addr", hidden = true)]
    pub gossip_addr: Option<String>,
    /// Ignored; kept for scripts that give it (gossip comes later).
    #[structopt(long = "gossip-seeds", alias = "gossip_seeds", hidden = true)]
    pub gossip_seeds: Option<String>,
}

const fn key(name: &'static str, default: &'static str, aliases: &'static [&'static str]) -> Key {
    Key { name, default, aliases }
}

/// Every key of the settings file. The aliases are those of the JSON node files that existing clusters have.
pub(crate) const KEYS: &[Key] = &[
    key("node_id", "", &[]),
    key("cluster_name", "raftgrid", &[]),
    key("cluster_id", "", &[]),
    key("data_dir", "", &[]),
    key("client_addr", "127.0.0.1:40051", &[]),
    key("raft_addr", "127.0.0.1:50051", &["bind_address"]),
    key("http_addr", "127.0.0.1:30051", &[]),
    key("advertise_address", "", &[]),
    key("peers", "", &[]),
    key("bootstrap", "false", &[]),
    key("bootstrap_expect", "", &[]),
    key("join", "false", &[]),
    key("preset", "lan", &[]),
    key("log", "", &[]),
    key("log_level", "info", &[]),
    key("insecure", "false", &[]),
    key("tls.peer_cert", "", &[]),
    key("tls.peer_key", "", &[]),
    key("tls.peer_ca", "", &[]),
    key("with_worker", "false", &[]),
    key("worker_shim", "", &[]),
    key("worker_python", "python3", &[]),
    key("worker_python_path", "", &[]),
    key("worker_slots", "0", &[]),
    key("cloud_provider", "", &[]),
    key("region", "", &[]),
    key("raft.heartbeat_timeout", "", &[]),
    key("raft.election_timeout", "", &[]),
    key("raft.commit_timeout", "2ms", &[]),
    key("raft.snapshot_interval", "120s", &[]),
    key("raft.snapshot_threshold", "8192", &[]),
    key("raft.log_tail_entries", "10000", &[]),
    key("raft.lease_reads", "false", &[]),
    key("raft.leader_lease", "500ms", &["raft.leader_lease_timeout"]),
    key("raft.snapshot_bytes_per_second", "0", &[]),
    key("raft.machine_version_max", "", &[]),
    key("disk.low_water_bytes", "", &[]),
    key("blob.bytes_max", "0", &[]),
    key("blob.principal_bytes_max", "0", &[]),
    key("blob.coded", "true", &[]),
    key("mirror.url", "", &[]),
    key("mirror.endpoint", "", &[]),
    key("mirror.region", "", &[]),
    key("mirror.bytes_per_second", "", &[]),
    key("mirror.without_kinds", "gradient,shard-state,value", &[]),
    key("grpc.port", "", &[]),
    key("grpc.max_concurrent_streams", "", &[]),
];

impl Program for Options {
    const NAME: &'static str = "controld";
    const KEYS: &'static [Key] = KEYS;

    fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    fn print_config(&self) -> bool {
        self.print_config
    }

    fn flags(&self) -> Vec<(&'static str, Option<String>)> {
        let switch = |given: bool| given.then(|| "true".to_owned());
        vec![
            ("node_id", self.node_id.clone()),
            ("cluster_name", self.cluster_name.clone()),
            ("cluster_id", self.cluster_id.clone()),
            ("data_dir", self.data_dir.clone()),
            ("client_addr", self.client_addr.clone()),
            ("raft_addr", self.raft_addr.clone()),
            ("http_addr", self.http_addr.clone()),
            ("peers", self.peers.clone()),
            ("bootstrap", switch(self.bootstrap)),
            ("join", switch(self.join)),
            ("preset", self.preset.clone()),
            ("log", self.log.clone()),
            ("log_level", self.log_level.clone()),
            ("insecure", switch(self.insecure)),
            ("tls.peer_cert", self.tls_peer_cert.clone()),
            ("tls.peer_key", self.tls_peer_key.clone()),
            ("tls.peer_ca", self.tls_peer_ca.clone()),
            ("mirror.url", self.mirror.clone()),
            ("with_worker", switch(self.with_worker)),
            ("worker_shim", self.worker_shim.clone()),
            ("worker_python", self.worker_python.clone()),
            ("worker_python_path", self.worker_python_path.clone()),
            ("worker_slots", self.worker_slots.clone()),
        ]
    }
}
