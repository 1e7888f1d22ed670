//! The words of `gridctl bench`.

use std::path::PathBuf;

use structopt::StructOpt;

#[derive(Debug, StructOpt)]
pub(crate) enum Bench {
    /// Task submissions beside puts of etcd: three processes each, started for it, in turn
    Task(BenchTask),
    /// From SIGKILL of the leader to the next acknowledged write, beside etcd
    Failover(BenchFailover),
    /// Whole lives of tasks that do nothing (submit, assign, report), over sessions, beside Ray's tasks
    Life(BenchLife),
    /// What many tasks and many idle workers cost: memory, pages of a list, CPU
    Scale(BenchScale),
    /// Rounds of training that give the model back as its gradient, beside Flower
    Model(BenchModel),
    /// An artifact to several workers at the same time, beside nginx
    Fetch(BenchFetch),
    /// Large gradients pushed, made durable and summed: bytes a second, and memory of the replicas
    Sum(BenchSum),
    /// Large values on five replicas behind slow links, coded beside plain replication; needs root
    Value(BenchValue),
    /// The client of `bench value`, in the leader's namespace
    #[structopt(setting = structopt::clap::AppSettings::Hidden)]
    ValueClient(BenchValueClient),
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct BenchValue {
    /// Rate of each replica's link, as tc reads it
    #[structopt(long, default_value = "10mbit", value_name = "RATE")]
    pub(crate) links: String,
    /// Bytes of a value
    #[structopt(long, default_value = "1000000", value_name = "BYTES")]
    pub(crate) bytes: usize,
    /// Values of each kind
    #[structopt(long, default_value = "20", value_name = "N")]
    pub(crate) values: u64,
    /// The coded one is stored as an artifact, not as the value of a key
    #[structopt(long)]
    pub(crate) artifact: bool,
    /// Each begins when the one before is acknowledged, while its bytes may still be on the way to the slowest replicas
    #[structopt(long)]
    pub(crate) at_once: bool,
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct BenchValueClient {
    /// Client address of the leader
    #[structopt(long, value_name = "ADDRESS")]
    pub(crate) leader: String,
    /// Bytes of a value
    #[structopt(long, value_name = "BYTES")]
    pub(crate) bytes: usize,
    /// Values of each kind
    #[structopt(long, value_name = "N")]
    pub(crate) values: u64,
    /// The coded one is an artifact
    #[structopt(long)]
    pub(crate) artifact: bool,
    /// None waits until the one before is on all replicas
    #[structopt(long)]
    pub(crate) at_once: bool,
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct BenchModel {
    /// Size of the model, and so of each gradient
    #[structopt(long, default_value = "64", value_name = "MIB")]
    pub(crate) mib: u64,
    /// Rounds of each side
    #[structopt(long, default_value = "5", value_name = "N")]
    pub(crate) rounds: u64,
    /// Trainers, and clients of Flower
    #[structopt(long, default_value = "2", value_name = "N")]
    pub(crate) trainers: usize,
    /// Python interpreter that has Flower; without it ours is measured alone
    #[structopt(long, parse(from_os_str), value_name = "FILE")]
    pub(crate) flower: Option<PathBuf>,
    /// Python interpreter of the trainers [default: as of dev up]
    #[structopt(long, parse(from_os_str), value_name = "FILE")]
    pub(crate) python: Option<PathBuf>,
    /// Count fsyncs of the replicas, too, with strace, in a run of its own
    #[structopt(long)]
    pub(crate) fsyncs: bool,
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct BenchSum {
    /// Size of each gradient
    #[structopt(long, default_value = "256", value_name = "MIB")]
    pub(crate) mib: u64,
    /// Numbers of gradients in a round, each from a trainer of its own
    #[structopt(long, default_value = "2,4,8", value_name = "LIST")]
    pub(crate) gradients: String,
    /// Rounds for each number
    #[structopt(long, default_value = "5", value_name = "N")]
    pub(crate) rounds: u64,
    /// Python interpreter of the trainers [default: as of dev up]
    #[structopt(long, parse(from_os_str), value_name = "FILE")]
    pub(crate) python: Option<PathBuf>,
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct BenchFetch {
    /// Size of the artifact
    #[structopt(long, default_value = "1024", value_name = "MIB")]
    pub(crate) mib: u64,
    /// Numbers of workers that fetch it at the same time
    #[structopt(long, default_value = "1,2,4", value_name = "LIST")]
    pub(crate) workers: String,
    /// Rounds of each side
    #[structopt(long, default_value = "5", value_name = "N")]
    pub(crate) rounds: u64,
    /// Server of nginx; `none` measures ours alone
    #[structopt(long, default_value = "nginx", value_name = "FILE")]
    pub(crate) nginx: String,
    /// Both sides hash what comes and throw it away, instead of writing it to a file
    #[structopt(long)]
    pub(crate) discard: bool,
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct BenchScale {
    /// Waiting tasks
    #[structopt(long, default_value = "1000000", value_name = "N")]
    pub(crate) tasks: u64,
    /// Bytes of each task's data
    #[structopt(long, default_value = "256", value_name = "BYTES")]
    pub(crate) bytes: usize,
    /// Pages of 1,000 that are listed
    #[structopt(long, default_value = "1000", value_name = "N")]
    pub(crate) pages: usize,
    /// Idle workers, each with a connection of its own
    #[structopt(long, default_value = "10000", value_name = "N")]
    pub(crate) workers: usize,
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct BenchLife {
    /// Rounds of each side
    #[structopt(long, default_value = "5", value_name = "N")]
    pub(crate) rounds: u64,
    /// Length of a round
    #[structopt(long, default_value = "3", value_name = "SECONDS")]
    pub(crate) seconds: u64,
    /// Workers of ours
    #[structopt(long, default_value = "2", value_name = "N")]
    pub(crate) workers: usize,
    /// Tasks that are open at once
    #[structopt(long, default_value = "4096", value_name = "N")]
    pub(crate) open: u64,
    /// Submissions in a batch, tasks in a poll
    #[structopt(long, default_value = "256", value_name = "N")]
    pub(crate) batch: u64,
    /// Python interpreter that has raftgrid: Python processes that stay take the place of the simulated workers
    #[structopt(long, parse(from_os_str), value_name = "FILE")]
    pub(crate) serve: Option<PathBuf>,
    /// Python interpreter that has Ray; without it ours is measured alone
    #[structopt(long, parse(from_os_str), value_name = "FILE")]
    pub(crate) ray: Option<PathBuf>,
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct BenchFailover {
    /// Kills of each side's leader
    #[structopt(long, default_value = "100", value_name = "N")]
    pub(crate) kills: u64,
    /// Server of etcd; `none` measures ours alone
    #[structopt(long, default_value = "etcd", value_name = "FILE")]
    pub(crate) etcd: String,
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct BenchTask {
    /// Numbers of clients, each with one call under way
    #[structopt(long, default_value = "1,64,256", value_name = "LIST")]
    pub(crate) clients: String,
    /// Rounds of each side
    #[structopt(long, default_value = "5", value_name = "N")]
    pub(crate) rounds: u64,
    /// Length of a round
    #[structopt(long, default_value = "3", value_name = "SECONDS")]
    pub(crate) seconds: u64,
    /// Bytes of each task's data, and of each value of etcd
    #[structopt(long, default_value = "256", value_name = "BYTES")]
    pub(crate) bytes: usize,
    /// Server of etcd; `none` measures ours alone
    #[structopt(long, default_value = "etcd", value_name = "FILE")]
    pub(crate) etcd: String,
    /// Count fsyncs, too, with strace, in a run of its own
    #[structopt(long)]
    pub(crate) fsyncs: bool,
}
