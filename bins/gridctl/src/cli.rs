//! The words of the command line: what may be typed. What they do stands in the file of each noun.

use std::path::PathBuf;
use std::time::Duration;

use structopt::clap::AppSettings;
use structopt::StructOpt;

use crate::cli_artifact::Artifact;
use crate::cli_bench::Bench;
use crate::limits;
use crate::placement::Placement;
use crate::round_rules::RoundRules;

/// raftgrid: train models on machines that fail.
#[derive(Debug, StructOpt)]
#[structopt(name = "gridctl", setting = AppSettings::SubcommandRequired, global_setting = AppSettings::UnifiedHelpMessage,
            global_setting = AppSettings::VersionlessSubcommands)]
pub(crate) struct Cli {
    #[structopt(flatten)]
    pub(crate) global: Global,
    #[structopt(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, StructOpt)]
pub(crate) struct Global {
    /// Client addresses of the replicas (host:port,host:port,…) [default: RAFTGRID_ENDPOINTS, else the dev cluster of --dir]
    #[structopt(long, global = true, value_name = "LIST")]
    pub(crate) endpoints: Option<String>,
    /// How results are printed [default: table]
    #[structopt(long, global = true, possible_values = &["table", "json"], value_name = "FORM")]
    pub(crate) output: Option<String>,
    /// How long one call may take, with retries (10s, 500ms); an upload or download too, if it is given [default: 30s]
    #[structopt(long, global = true, parse(try_from_str = duration), value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
    /// Directory of the dev cluster [default: .raftgrid-dev, for demo .demo]; for cluster certs that of the files
    #[structopt(long, global = true, parse(from_os_str), value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

impl Global {
    /// --endpoints, else its environment variable; an empty variable counts as none.
    pub(crate) fn endpoints(&self) -> Option<String> {
        self.endpoints.clone().or_else(|| std::env::var("RAFTGRID_ENDPOINTS").ok().filter(|list| !list.is_empty()))
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(limits::CALL_TIMEOUT)
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| PathBuf::from(limits::DEV_DIRECTORY))
    }
}

#[derive(Debug, StructOpt)]
pub(crate) enum Command {
    /// A cluster on this machine: replicas and workers as child processes
    #[structopt(setting = AppSettings::SubcommandRequired)]
    Dev(Dev),
    /// Train a model: upload a script with its folder and run it in rounds
    Train(Train),
    /// Jobs: submit, list, get, watch, wait, retry, cancel, audit
    #[structopt(setting = AppSettings::SubcommandRequired)]
    Job(Job),
    /// Schedules: a job at each tick of a cron line
    #[structopt(setting = AppSettings::SubcommandRequired)]
    Schedule(Schedule),
    /// Tasks: submit, get, list, cancel, why, logs
    #[structopt(setting = AppSettings::SubcommandRequired)]
    Task(Task),
    /// Worker nodes: list, drain, cordon, uncordon, maintenance
    #[structopt(setting = AppSettings::SubcommandRequired)]
    Node(Node),
    /// Replicated keys: put, get, del, cas, watch, ls
    #[structopt(setting = AppSettings::SubcommandRequired)]
    Kv(Kv),
    /// Queues of tasks, with shares and quotas: put, list, rm
    #[structopt(setting = AppSettings::SubcommandRequired)]
    Queue(Queue),
    /// The replicas: members, status, leader, snapshot, …
    #[structopt(setting = AppSettings::SubcommandRequired)]
    Cluster(Cluster),
    /// Bytes that outlive processes: push, get, ls, rm, verify
    #[structopt(setting = AppSettings::SubcommandRequired)]
    Artifact(Artifact),
    /// Train the same model three times, twice of it in trouble, and compare the results
    Demo(Demo),
    /// Whole clusters in virtual time, with faults, from a seed: nothing may be lost, all must converge
    Sim(Sim),
    /// Measure: our control plane beside etcd on this machine
    #[structopt(setting = AppSettings::SubcommandRequired)]
    Bench(Bench),
}

#[derive(Debug, StructOpt)]
pub(crate) enum Dev {
    /// Start the cluster of --dir; without --detach it ends with Ctrl-C
    Up(DevUp),
    /// Which processes run, where, and who leads
    Status,
    /// SIGKILL one process: `leader`, or a node's name
    Kill {
        /// leader, controld-1, worker-2, …
        node: String,
    },
    /// Start a node again that was killed (a running one is stopped first)
    Restart {
        /// controld-1, worker-2, …
        node: String,
    },
    /// Stop every process; the data stays
    Down,
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct DevUp {
    /// Replicas of the control plane (1, 3, 5 or 7) [default: 3]
    #[structopt(long, value_name = "N")]
    pub(crate) peers: Option<u32>,
    /// Workers [default: 3]
    #[structopt(long, value_name = "N")]
    pub(crate) workers: Option<u32>,
    /// Leave it running in the background
    #[structopt(long)]
    pub(crate) detach: bool,
    /// Python interpreter of the workers [default: .venv/bin/python if it is there, else python3]
    #[structopt(long, parse(from_os_str), value_name = "FILE")]
    pub(crate) python: Option<PathBuf>,
    /// Tasks that one worker runs at once
    #[structopt(long, default_value = "2", value_name = "N")]
    pub(crate) slots: u32,
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct Train {
    /// Python script; its folder travels with it
    #[structopt(parse(from_os_str))]
    pub(crate) script: PathBuf,
    /// Name of the job
    #[structopt(long)]
    pub(crate) name: String,
    /// Parts of the data; never changes during a job
    #[structopt(long, value_name = "N")]
    pub(crate) shards: u32,
    /// Trainer tasks
    #[structopt(long, value_name = "N")]
    pub(crate) workers: u32,
    /// Rounds to train
    #[structopt(long, value_name = "N")]
    pub(crate) rounds: u64,
    /// Gradients that close a round [default: all shards, which keeps the job reproducible]
    #[structopt(long, value_name = "K")]
    pub(crate) quorum: Option<u32>,
    #[structopt(flatten)]
    pub(crate) rules: RoundRules,
    /// Seed of the model and of every step
    #[structopt(long, default_value = "0", value_name = "N")]
    pub(crate) seed: u64,
    /// Share of the gradients that are computed twice and compared (0 to 1)
    #[structopt(long, default_value = "0.01", value_name = "SHARE")]
    pub(crate) verify: f64,
    /// Print a line per round until the job is over
    #[structopt(long)]
    pub(crate) watch: bool,
    /// Arguments of the script
    #[structopt(last = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct JobSubmit {
    /// Job file (TOML; docs/job-files.md); without one, --type and --name say what to run
    #[structopt(parse(from_os_str))]
    pub(crate) file: Option<PathBuf>,
    /// Name of the job, in place of the file's
    #[structopt(long)]
    pub(crate) name: Option<String>,
    /// Another value for a key of the file: matmul.block=256, task.env.A=b; may be given several times
    #[structopt(long = "set", value_name = "KEY=VALUE", number_of_values = 1)]
    pub(crate) settings: Vec<String>,
    /// Without a file: command (the words after --) or python (a script and its arguments after --)
    #[structopt(long = "type", possible_values = &["command", "python"], value_name = "TYPE")]
    pub(crate) job_type: Option<String>,
    /// Run it so many times, as an array
    #[structopt(long, value_name = "N")]
    pub(crate) array: Option<u32>,
    /// Wait until the job is over; fails if it did not end well
    #[structopt(long)]
    pub(crate) wait: bool,
    /// The program or script, and its arguments
    #[structopt(last = true)]
    pub(crate) words: Vec<String>,
}

#[derive(Debug, StructOpt)]
pub(crate) enum Schedule {
    /// Make or change a schedule: a job file with a section [schedule]
    Put {
        /// Job file (TOML; docs/job-files.md)
        #[structopt(parse(from_os_str))]
        file: PathBuf,
        /// Id of the schedule, in place of the file's name
        #[structopt(long)]
        name: Option<String>,
        /// Another value for a key of the file
        #[structopt(long = "set", value_name = "KEY=VALUE", number_of_values = 1)]
        settings: Vec<String>,
    },
    /// All schedules
    List,
    /// One schedule
    Get {
        /// Id of the schedule
        id: String,
    },
    /// No ticks until it is resumed
    Pause {
        /// Id of the schedule
        id: String,
    },
    /// Go on; ticks of the meantime are not made up for
    Resume {
        /// Id of the schedule
        id: String,
    },
    /// Remove a schedule; what it has started goes on
    Rm {
        /// Id of the schedule
        id: String,
    },
    /// Run it now, whatever its line says
    Trigger {
        /// Id of the schedule
        id: String,
    },
}

#[derive(Debug, StructOpt)]
pub(crate) enum Job {
    /// Hand in a job: a file, or a simple one by flags
    Submit(JobSubmit),
    /// Run the failed elements of an array or sweep again
    Retry {
        /// Name of the job
        name: String,
    },
    /// All jobs
    List,
    /// One job and its tasks
    Get {
        /// Name of the job
        name: String,
    },
    /// A line per round until the job is over
    Watch {
        /// Name of the job
        name: String,
    },
    /// Wait until the job is over; fails if it did not end well
    Wait {
        /// Name of the job
        name: String,
    },
    /// Stop a job and its tasks
    Cancel {
        /// Name of the job
        name: String,
    },
    /// Draw loss, accuracy and other metrics by round
    Plot(Plot),
    /// Go on with a paused job: its round begins its deadline anew
    Resume {
        /// Name of the job
        name: String,
    },
    /// What made the model: hold the ledger against what must be in it
    Audit(Audit),
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct Plot {
    /// Name of the job
    pub(crate) name: String,
    /// The picture: FILE.png or FILE.svg
    #[structopt(short = "o", long = "out", parse(from_os_str), value_name = "FILE", default_value = "loss.png")]
    pub(crate) output: PathBuf,
    /// Only this metric; can be given again (without: loss, accuracy, then others by name, six at most)
    #[structopt(long, value_name = "NAME", number_of_values = 1)]
    pub(crate) metric: Vec<String>,
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct Audit {
    /// Name of the job
    pub(crate) name: String,
    /// Also print every contribution
    #[structopt(long)]
    pub(crate) contributions: bool,
    /// Sum every round again whose gradients are kept, on each replica: the SHA-256 must be the ledger's
    #[structopt(long)]
    pub(crate) recompute: bool,
    /// acks.jsonl files of workers: each acknowledged gradient must be in the ledger
    #[structopt(long, parse(from_os_str), value_name = "FILE")]
    pub(crate) acks: Vec<PathBuf>,
}

#[derive(Debug, StructOpt)]
#[allow(clippy::large_enum_variant, reason = "there is one command line a process")]
pub(crate) enum Task {
    /// Hand in a task
    Submit(TaskSubmit),
    /// One task
    Get {
        /// Id of the task
        id: String,
    },
    /// Tasks, newest state
    List {
        /// Only of this status
        #[structopt(long, possible_values = &["pending", "assigned", "running", "completed", "failed"], value_name = "STATUS")]
        status: Option<String>,
        /// Only of this job
        #[structopt(long, value_name = "NAME")]
        job: Option<String>,
        /// Only of this queue
        #[structopt(long, value_name = "NAME")]
        queue: Option<String>,
        /// At most so many
        #[structopt(long, default_value = "100", value_name = "N")]
        limit: i32,
    },
    /// Stop a task
    Cancel {
        /// Id of the task
        id: String,
    },
    /// Run a failed task again
    Retry {
        /// Id of the task
        id: String,
    },
    /// Take a task off its node, or out of the queue, until it is resumed
    Suspend {
        /// Id of the task
        id: String,
    },
    /// Queue a suspended task again
    Resume {
        /// Id of the task
        id: String,
    },
    /// Take a task off its node and queue it again
    Requeue {
        /// Id of the task
        id: String,
    },
    /// Place a waiting task earlier or later
    Priority {
        /// Id of the task
        id: String,
        /// 0 to 100; higher goes first
        priority: i32,
    },
    /// Why a task does not run yet
    Why {
        /// Id of the task
        id: String,
    },
    /// What a task printed
    Logs {
        /// Id of the task
        id: String,
        /// Go on until the task is over
        #[structopt(long, short)]
        follow: bool,
    },
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct TaskSubmit {
    /// command, python, matmul, …
    #[structopt(long = "type", value_name = "TYPE")]
    pub(crate) task_type: String,
    /// What to do, as JSON; @FILE reads it from a file
    #[structopt(long, value_name = "JSON")]
    pub(crate) data: String,
    /// Id of the task [default: given by the cluster]
    #[structopt(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// GPUs that it gets to itself
    #[structopt(long, default_value = "0", value_name = "N")]
    pub(crate) gpus: u32,
    /// Bytes of memory that it may take
    #[structopt(long, default_value = "0", hide_default_value = true, value_name = "BYTES")]
    pub(crate) memory_limit: u64,
    /// Requirements file of the Python packages that it gets
    #[structopt(long, parse(from_os_str), value_name = "FILE")]
    pub(crate) requirements: Option<PathBuf>,
    /// Wait until it is over; fails if the task fails
    #[structopt(long)]
    pub(crate) wait: bool,
    #[structopt(flatten)]
    pub(crate) placement: Placement,
}

#[derive(Debug, StructOpt)]
pub(crate) enum Node {
    /// All nodes
    List,
    /// No new tasks; running ones are moved away
    Drain {
        /// Id of the node
        node: String,
    },
    /// No new tasks; running ones go on
    Cordon {
        /// Id of the node
        node: String,
    },
    /// Take tasks again
    Uncordon {
        /// Id of the node
        node: String,
    },
    /// Drain a node for a time, after which it takes tasks again by itself
    Maintenance {
        /// Id of the node
        node: String,
        /// How long, such as 30m [default: until --off]
        #[structopt(long = "for", value_name = "TIME", parse(try_from_str = duration))]
        period: Option<Duration>,
        /// End it now
        #[structopt(long)]
        off: bool,
    },
}

#[derive(Debug, StructOpt)]
pub(crate) enum Queue {
    /// Make a queue, or change its share and limits
    Put(QueuePut),
    /// All queues, with what their tasks hold
    List,
    /// Delete a queue whose tasks are all over
    Rm {
        /// Name of the queue
        name: String,
    },
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct QueuePut {
    /// Name of the queue
    pub(crate) name: String,
    /// Its share beside other queues, 1 to 1000
    #[structopt(long, default_value = "1", value_name = "N")]
    pub(crate) weight: u32,
    /// Tasks that run at once; 0: any number
    #[structopt(long, default_value = "0", value_name = "N")]
    pub(crate) max_running: u32,
    /// Thousandths of a core that its tasks hold at once; 0: any number
    #[structopt(long, default_value = "0", value_name = "N")]
    pub(crate) cpu_milli: u64,
    /// Bytes of memory that its tasks hold at once; 0: any number
    #[structopt(long, default_value = "0", value_name = "N")]
    pub(crate) memory_bytes: u64,
    /// GPUs that its tasks hold at once; 0: any number
    #[structopt(long, default_value = "0", value_name = "N")]
    pub(crate) gpus: u32,
    /// Slots that its tasks hold at once; 0: any number
    #[structopt(long, default_value = "0", value_name = "N")]
    pub(crate) slots: u32,
    /// Priority of tasks that name none
    #[structopt(long, default_value = "0", value_name = "N")]
    pub(crate) default_priority: i32,
}

#[derive(Debug, StructOpt)]
pub(crate) enum Kv {
    /// Set a key, whatever it was
    Put {
        /// Name of the key
        key: String,
        /// Its value; @FILE reads it from a file, @- from standard input
        value: String,
        /// Delete it when this job is over
        #[structopt(long, value_name = "NAME")]
        job: Option<String>,
    },
    /// The value of a key
    Get {
        /// Name of the key
        key: String,
    },
    /// Delete a key
    Del {
        /// Name of the key
        key: String,
    },
    /// Set a key if nobody wrote it since; fails if somebody did
    Cas {
        /// Name of the key
        key: String,
        /// Revision that it must have, as get and put print it; 0: it must not exist
        expected: u64,
        /// Its value; @FILE reads it from a file, @- from standard input
        value: String,
    },
    /// The value of a key, and again after each change
    Watch {
        /// Name of the key
        key: String,
    },
    /// Names of keys
    Ls {
        /// What they begin with
        #[structopt(default_value = "")]
        prefix: String,
    },
}

#[derive(Debug, StructOpt)]
pub(crate) enum Cluster {
    /// Replicas of the configuration
    #[structopt(aliases = &["get_configuration", "get-configuration"])]
    Members,
    /// Every replica's role, term and indexes, each asked directly
    #[structopt(alias = "state")]
    Status,
    /// Who leads
    Leader,
    /// Counters of one replica
    Stats,
    /// Make a snapshot now
    Snapshot,
    /// Ask the leader to prove with a quorum that it leads
    #[structopt(alias = "verify_leader")]
    VerifyLeader,
    /// Wait until everything committed so far is applied
    Barrier,
    /// Move cluster time forward to the leader's wall clock, after an outage or a wrong clock
    #[structopt(alias = "set_time")]
    SetTime {
        /// Another time, in milliseconds since 1970
        #[structopt(long, value_name = "MS")]
        unix_ms: Option<u64>,
    },
    /// Hand leadership to another replica
    #[structopt(aliases = &["leadership_transfer", "leadership_transfer_to_server", "leadership-transfer-to-server"])]
    LeadershipTransfer {
        /// Id of the replica [default: the most caught up]
        to: Option<u64>,
    },
    /// Add a replica that does not vote yet
    #[structopt(aliases = &["add_learner", "add_nonvoter", "add-nonvoter"])]
    AddLearner(Change),
    /// Let a replica vote
    #[structopt(alias = "add_voter")]
    AddVoter(Change),
    /// Take a replica's vote
    #[structopt(alias = "demote_voter")]
    DemoteVoter(Change),
    /// Remove a replica, after what only it holds was copied
    #[structopt(aliases = &["remove", "remove_server"])]
    RemoveServer {
        /// Id of the replica
        node_id: u64,
        /// Remove it even if artifacts lose redundancy, or are lost
        #[structopt(long)]
        force_losing_data: bool,
    },
    /// Copy the whole cluster, artifacts included, while it runs
    Backup {
        /// Directory to make, or a file whose name ends in .tar
        #[structopt(parse(from_os_str), value_name = "DIR_OR_FILE")]
        target: PathBuf,
    },
    /// Make the data directories of a new cluster out of a backup (offline)
    Restore(Restore),
    /// Let one replica go on alone after a majority was lost for good (offline)
    Recover(Recover),
    /// Make certificates with which replicas prove themselves to each other, into --dir (offline)
    Certs(Certs),
    /// Let a new replica take the place of a voter
    #[structopt(aliases = &["replace", "replace_server"])]
    ReplaceServer {
        /// Id of the voter that goes
        old: u64,
        #[structopt(flatten)]
        new: Change,
        /// Replace it even if artifacts lose redundancy, or are lost
        #[structopt(long)]
        force_losing_data: bool,
    },
}

#[derive(Debug, StructOpt)]
pub(crate) struct Restore {
    /// What gridctl cluster backup made
    #[structopt(parse(from_os_str))]
    pub(crate) backup: PathBuf,
    /// The new cluster's founders: ID=RAFT_HOST:PORT/CLIENT_HOST:PORT, separated by commas
    #[structopt(long, value_name = "LIST")]
    pub(crate) peers: String,
    /// The new cluster's name; the old one's will do
    #[structopt(long, default_value = "raftgrid", value_name = "NAME")]
    pub(crate) cluster_name: String,
    /// Where to make the directories controld-ID
    #[structopt(long, parse(from_os_str), value_name = "DIR")]
    pub(crate) into: PathBuf,
}

#[derive(Debug, StructOpt)]
pub(crate) struct Certs {
    /// Ids of the replicas that get one, separated by commas
    #[structopt(long, value_name = "LIST")]
    pub(crate) nodes: String,
    /// The cluster's name, as controld's --cluster-name has it
    #[structopt(long, default_value = "raftgrid", value_name = "NAME")]
    pub(crate) cluster_name: String,
    /// How long they are good for; the authority is for ten years
    #[structopt(long, default_value = "365", value_name = "N")]
    pub(crate) days: u32,
}

#[derive(Debug, StructOpt)]
pub(crate) struct Recover {
    /// Data directory of the replica that is left; its controld must be stopped
    #[structopt(long, parse(from_os_str), value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Its id
    #[structopt(long, value_name = "N")]
    pub(crate) node_id: u64,
    /// Do it; without this it is only said what would be done, and lost
    #[structopt(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, StructOpt)]
pub(crate) struct Change {
    /// Id of the replica
    pub(crate) node_id: u64,
    /// Its host:port between replicas
    #[structopt(long, value_name = "ADDRESS")]
    pub(crate) raft_address: Option<String>,
    /// Its host:port for clients
    #[structopt(long, value_name = "ADDRESS")]
    pub(crate) client_address: Option<String>,
}

#[derive(Clone, Debug, StructOpt)]
pub(crate) struct Demo {
    /// Script to train
    #[structopt(long, default_value = "ml-code/examples/digits_mlp.py", parse(from_os_str), value_name = "FILE")]
    pub(crate) script: PathBuf,
    /// Rounds of each training
    #[structopt(long, default_value = "60", value_name = "N")]
    pub(crate) rounds: u64,
    /// Python interpreter of the workers [default: .venv/bin/python if it is there, else python3]
    #[structopt(long, parse(from_os_str), value_name = "FILE")]
    pub(crate) python: Option<PathBuf>,
}

#[derive(Debug, StructOpt)]
pub(crate) struct Sim {
    /// The first seed
    #[structopt(long, default_value = "1", value_name = "N")]
    pub(crate) seed: u64,
    /// How many seeds, one after another
    #[structopt(long, default_value = "1", value_name = "K")]
    pub(crate) seeds: u64,
    /// Replicas that found the cluster [default: 1, 3 or 5, by the seed]
    #[structopt(long, possible_values = &["1", "2", "3", "5", "7"], value_name = "N")]
    pub(crate) nodes: Option<u64>,
    /// Until so many tasks were made, of all kinds, on workers that come and go while leaders do
    #[structopt(long, default_value = "0", hide_default_value = true, value_name = "N")]
    pub(crate) tasks: u64,
    /// Print every event as a line
    #[structopt(long)]
    pub(crate) trace: bool,
}

/// `10s`, `500ms`, `2m`, or a plain number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| format!("`{text}` is not a time such as 10s, 500ms or 2m"))?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        other => Err(format!("unit `{other}` of `{text}` is unknown; use ms, s or m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn global_options_are_taken_before_and_after_the_command() {
        for words in [
            &["gridctl", "--output", "json", "--endpoints", "a:1,b:2", "job", "audit", "digits"][..],
            &["gridctl", "job", "audit", "digits", "--output", "json", "--endpoints", "a:1,b:2"][..],
            &["gridctl", "job", "--endpoints", "a:1,b:2", "audit", "--output", "json", "digits"][..],
        ] {
            let cli = Cli::from_iter_safe(words).expect("it is well formed");
            assert_eq!(cli.global.output.as_deref(), Some("json"), "{words:?}");
            assert_eq!(cli.global.endpoints.as_deref(), Some("a:1,b:2"), "{words:?}");
        }
    }

    #[test]
    fn arguments_after_two_dashes_are_the_scripts() {
        let words = "gridctl train a.py --name n --shards 6 --workers 3 --rounds 60 --watch -- --lr 0.1";
        let cli = Cli::from_iter_safe(words.split(' ')).expect("it is well formed");
        let Command::Train(train) = cli.command else { panic!("it is train") };
        assert_eq!(train.args, ["--lr", "0.1"]);
        assert_eq!((train.shards, train.workers, train.rounds, train.watch), (6, 3, 60, true));
        assert_eq!(train.verify, 0.01);
    }

    #[test]
    fn verbs_of_the_cluster_are_taken_as_the_services_write_them_too() {
        for (line, wanted) in [
            ("add_learner 4 --raft-address a:1 --client-address a:2", "AddLearner"),
            ("add_nonvoter 4", "AddLearner"),
            ("add_voter 4", "AddVoter"),
            ("demote_voter 4", "DemoteVoter"),
            ("remove_server 4", "RemoveServer"),
            ("verify_leader", "VerifyLeader"),
            ("leadership_transfer", "LeadershipTransfer { to: None"),
            ("leadership_transfer_to_server 2", "LeadershipTransfer { to: Some(2)"),
            ("get_configuration", "Members"),
            ("state", "Status"),
        ] {
            let words = format!("gridctl cluster {line}");
            let cli = Cli::from_iter_safe(words.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
            let Command::Cluster(command) = cli.command else { panic!("it is cluster") };
            assert!(format!("{command:?}").starts_with(wanted), "{line}: {command:?}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("soon").unwrap_err().contains("soon"));
        assert!(duration("3h").unwrap_err().contains("`h`"));
    }
}
