//! The command line and the keys of the settings file.

use std::path::{Path, PathBuf};

use anyhow::Result;
use raftgrid_proto::v1::Label;
use raftgrid_settings::program::Program;
use raftgrid_settings::{Key, Settings, SettingsError};
use raftgrid_worker::gpus::parse_simulated;
use raftgrid_worker::WorkerConfig;
use structopt::StructOpt;

/// A raftgrid worker node: registers with the control plane, runs tasks, feeds the Python processes beside it.
#[derive(Debug, StructOpt)]
#[structopt(name = "workerd", rename_all = "kebab-case", setting = structopt::clap::AppSettings::AllArgsOverrideSelf)]
pub(crate) struct Options {
    /// Settings file (TOML, or JSON by its ending). The environment (RAFTGRID_…) and flags win over it.
    #[structopt(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Prints every setting with where it came from, and ends.
    #[structopt(long)]
    print_config: bool,
    /// This worker's name, unique in the cluster; the host's name if it is not given.
    #[structopt(long, value_name = "NAME")]
    node_id: Option<String>,
    /// host:port of the control plane's replicas, separated by commas.
    #[structopt(long, value_name = "LIST")]
    endpoints: Option<String>,
    /// Directory of this worker; each worker has its own.
    #[structopt(long, value_name = "DIR")]
    dir: Option<String>,
    /// Tasks at once; 0: one per core.
    #[structopt(long, value_name = "N")]
    slots: Option<String>,
    /// The Python interpreter of tasks.
    #[structopt(long, value_name = "FILE")]
    python: Option<String>,
    /// Folders that Python tasks find modules in, behind their bundle (ml-code/src).
    #[structopt(long, value_name = "PATH")]
    python_path: Option<String>,
    /// GPUs that are not there, for tests: N, N:MODEL or N:MODEL:MEMORY as in 4:H100:80GiB; those of nvidia-smi if it is not given.
    #[structopt(long, value_name = "GPUS")]
    gpus_simulated: Option<String>,
    /// Where virtual environments of jobs are kept; workers of one machine may share it. In --dir if it is not given.
    #[structopt(long, value_name = "DIR")]
    venvs: Option<String>,
    /// How long tasks that run may go on after SIGTERM, like 10m; 0s: they are given back at once.
    #[structopt(long, value_name = "TIME")]
    drain_wait: Option<String>,
    /// A file that appears when the machine is about to go: the worker drains then.
    #[structopt(long, value_name = "FILE")]
    notice_file: Option<String>,
    /// For constraints of tasks.
    #[structopt(long, value_name = "NAME")]
    cloud_provider: Option<String>,
    /// For constraints of tasks.
    #[structopt(long, value_name = "NAME")]
    region: Option<String>,
    /// key=value for constraints of tasks; may be given more than once.
    #[structopt(long, value_name = "K=V", number_of_values = 1)]
    label: Vec<String>,
    /// local, lan or wan: how long polls and stops may take.
    #[structopt(long, value_name = "NAME")]
    preset: Option<String>,
    /// From SIGTERM to SIGKILL when a task is cancelled or drained, like 3s; the preset's if it is not given.
    #[structopt(long, value_name = "TIME")]
    stop_grace: Option<String>,
    /// Log file; stderr if it is not given.
    #[structopt(long, value_name = "FILE")]
    log: Option<String>,
    /// trace, debug, info, warn or error.
    #[structopt(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

const fn key(name: &'static str, default: &'static str) -> Key {
    Key { name, default, aliases: &[] }
}

/// Every key of the settings file.
pub(crate) const KEYS: &[Key] = &[
    key("node_id", ""),
    key("endpoints", "127.0.0.1:40051"),
    key("dir", ""),
    key("slots", "0"),
    key("python", "python3"),
    key("python_path", ""),
    key("gpus_simulated", ""),
    key("venvs", ""),
    key("drain_wait", "0s"),
    key("notice_file", ""),
    key("cloud_provider", ""),
    key("region", ""),
    key("labels", ""),
    key("preset", "lan"),
    key("stop_grace", ""),
    key("log", ""),
    key("log_level", "info"),
];

impl Program for Options {
    const NAME: &'static str = "workerd";
    const KEYS: &'static [Key] = KEYS;

    fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    fn print_config(&self) -> bool {
        self.print_config
    }

    fn flags(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("node_id", self.node_id.clone()),
            ("endpoints", self.endpoints.clone()),
            ("dir", self.dir.clone()),
            ("slots", self.slots.clone()),
            ("python", self.python.clone()),
            ("python_path", self.python_path.clone()),
            ("gpus_simulated", self.gpus_simulated.clone()),
            ("venvs", self.venvs.clone()),
            ("drain_wait", self.drain_wait.clone()),
            ("notice_file", self.notice_file.clone()),
            ("cloud_provider", self.cloud_provider.clone()),
            ("region", self.region.clone()),
            ("labels", (!self.label.is_empty()).then(|| self.label.join(","))),
            ("preset", self.preset.clone()),
            ("stop_grace", self.stop_grace.clone()),
            ("log", self.log.clone()),
            ("log_level", self.log_level.clone()),
        ]
    }
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// What the settings mean: the worker's configuration and the endpoints.
pub(crate) fn worker_config(settings: &Settings, shim: PathBuf) -> Result<(WorkerConfig, Vec<String>), SettingsError> {
    let text = |key: &str| settings.get(key).unwrap_or_default().to_owned();
    let node_id = match text("node_id") {
        name if name.is_empty() => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        name => name,
    };
    let dir: PathBuf = settings.need::<String>("dir", "dir")?.into();
    let mut config = WorkerConfig::new(node_id, dir, shim);
    if !config.preset(&text("preset")) {
        return Err(settings.bad("preset", "presets are local, lan and wan"));
    }
    config.slots = settings.parse("slots")?.unwrap_or(0);
    config.python = text("python");
    config.python_path = text("python_path");
    if !text("gpus_simulated").is_empty() {
        config.gpus = parse_simulated(&text("gpus_simulated")).map_err(|why| settings.bad("gpus_simulated", why))?;
    }
    config.venvs = Some(text("venvs")).filter(|path| !path.is_empty()).map(PathBuf::from);
    config.cloud_provider = text("cloud_provider");
    config.region = text("region");
    if !text("stop_grace").is_empty() {
        config.stop_grace_ms = settings.duration_ms("stop_grace")?.unwrap_or(config.stop_grace_ms);
    }
    for pair in list(&text("labels")) {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(settings.bad("labels", format!("`{pair}` is not KEY=VALUE")));
        };
        let mut label = Label::new();
        label.set_key(key.to_owned());
        label.set_value(value.to_owned());
        config.labels.push(label);
    }
    Ok((config, list(&text("endpoints")).map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &[&str]) -> Settings {
        let options = Options::from_iter_safe([&["workerd"], args].concat()).expect("valid flags");
        Settings::load(KEYS, None, "RAFTGRID_", std::iter::empty(), &options.flags()).expect("valid settings")
    }

    #[test]
    fn flags_become_the_worker_s_configuration() {
        let args = ["--node-id", "w1", "--endpoints", "a:1, b:2", "--dir", "/d", "--slots", "3", "--preset", "local"];
        let args = [&args[..], &["--label", "zone=1", "--label", "disk=ssd", "--stop-grace", "250ms"]].concat();
        let args = [&args[..], &["--gpus-simulated", "2:H100:80GiB"]].concat();
        let (config, endpoints) = worker_config(&settings(&args), "/shim".into()).expect("complete");
        assert_eq!((config.node_id.as_str(), config.slots, config.stop_grace_ms), ("w1", 3, 250));
        assert_eq!(endpoints, ["a:1", "b:2"]);
        assert_eq!(config.gpus.len(), 2);
        assert_eq!(config.labels.len(), 2);
        assert_eq!(config.labels[1].get_value(), "ssd");
    }

    #[test]
    fn what_is_wrong_or_missing_is_named() {
        let failure = |args: &[&str]| worker_config(&settings(args), "/shim".into()).expect_err("wrong").to_string();
        assert!(failure(&[]).contains("--dir"));
        assert!(failure(&["--dir", "/d", "--preset", "x"]).contains("presets are local, lan and wan"));
        assert!(failure(&["--dir", "/d", "--slots", "many"]).contains("`slots` = `many`"));
        assert!(failure(&["--dir", "/d", "--label", "zone"]).contains("KEY=VALUE"));
        assert!(failure(&["--dir", "/d", "--gpus-simulated", "two"]).contains("`two` is not a number of GPUs"));
    }
}
