//! `dev.json`: which processes a dev cluster has, where they listen and how they are started.
//!
//! Written by `gridctl dev` under a file lock and replaced in one step; read by every command that needs endpoints.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{flock, FlockOperation};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::process::Process;

/// What dev.json says about its own form.
const VERSION: u32 = 1;

/// A dev cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DevState {
    version: u32,
    pub(crate) cluster_name: String,
    pub(crate) nodes: Vec<Node>,
}

/// One process of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    /// controld-1, worker-2, …
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// None: stopped or killed.
    pub(crate) process: Option<Process>,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) log: PathBuf,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Replica {
        node_id: u64,
        client_address: String,
        raft_address: String,
        /// Metrics and health; empty in a directory of an older release.
        #[serde(default)]
        http_address: String,
    },
    Worker,
}

impl Node {
    pub(crate) fn alive(&self) -> bool {
        self.process.as_ref().is_some_and(Process::alive)
    }

    /// Client address of a replica.
    pub(crate) fn client_address(&self) -> Option<&str> {
        match &self.kind {
            Kind::Replica { client_address, .. } => Some(client_address),
            Kind::Worker => None,
        }
    }

    /// Where a replica serves its metrics.
    pub(crate) fn metrics(&self) -> Option<String> {
        match &self.kind {
            Kind::Replica { http_address, .. } if !http_address.is_empty() => {
                Some(format!("http://{http_address}/metrics"))
            }
            Kind::Replica { .. } | Kind::Worker => None,
        }
    }
}

impl DevState {
    pub(crate) fn new(cluster_name: String, nodes: Vec<Node>) -> Self {
        Self { version: VERSION, cluster_name, nodes }
    }

    /// Client addresses of all replicas, the dead ones too: a client finds who lives.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().filter_map(|node| node.client_address().map(str::to_owned)).collect()
    }

    pub(crate) fn replicas(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| matches!(node.kind, Kind::Replica { .. }))
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| matches!(node.kind, Kind::Worker))
    }

    /// The node that `word` means: its name, or the number of a replica.
    pub(crate) fn node(&self, word: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| match &node.kind {
            Kind::Replica { node_id, .. } => node.name == word || node_id.to_string() == word,
            Kind::Worker => node.name == word,
        });
        found.ok_or_else(|| {
            let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
            Failure::new(format!("node {word} does not exist"), format!("one of {}", names.join(", ")))
        })
    }

    /// The same node, to change it.
    pub(crate) fn node_mut(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name == name).expect("names come from this state")
    }

    /// The cluster of `directory`; None if there never was one.
    pub(crate) fn load(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join("dev.json");
        let hint = format!("move {} away, then gridctl dev up", directory.display());
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::new(format!("failed to read {}: {error}", path.display()), hint)),
        };
        let state: Self = serde_json::from_str(&text)
            .map_err(|error| Failure::new(format!("{} does not parse: {error}", path.display()), hint.as_str()))?;
        if state.version != VERSION {
            let cause = format!("{} has version {}, this gridctl reads {VERSION}", path.display(), state.version);
            return Err(Failure::new(cause, hint));
        }
        Ok(Some(state))
    }

    /// As `load`, where there must be one.
    pub(crate) fn expect(directory: &Path) -> Result<Self> {
        Self::load(directory)?.ok_or_else(|| {
            let cause = format!("no dev cluster here: {} does not exist", directory.join("dev.json").display());
            Failure::new(cause, "gridctl dev up, or --dir DIR")
        })
    }

    /// Replaces dev.json in one step: a reader sees the old state or the new one, after a crash too.
    pub(crate) fn save(&self, directory: &Path) -> Result<()> {
        let (path, new) = (directory.join("dev.json"), directory.join("dev.json.new"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(directory)?.sync_all()
        };
        write().map_err(|error| {
            Failure::new(
                format!("failed to write {}: {error}", path.display()),
                "check the space and permissions there",
            )
        })
    }
}

/// Held while the processes of a directory are started or stopped; ends with the value or with the process.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for others. Makes the directory.
    pub(crate) fn take(directory: &Path) -> Result<Self> {
        let path = directory.join("lock");
        let take = || -> io::Result<File> {
            fs::create_dir_all(directory)?;
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        let file = take().map_err(|error| {
            Failure::new(
                format!("failed to lock {}: {error}", path.display()),
                "--dir DIR, with a directory that you may write",
            )
        })?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> DevState {
        let node = |name: &str, kind| Node {
            name: name.to_owned(),
            kind,
            process: Some(Process { pid: 77, start_ticks: 5, boot_id: "boot".to_owned() }),
            program: PathBuf::from("/bin/controld"),
            arguments: vec!["--node-id".to_owned(), "1".to_owned()],
            log: PathBuf::from("a.log"),
        };
        let replica = |id: u64| Kind::Replica {
            node_id: id,
            client_address: format!("127.0.0.1:2000{id}"),
            raft_address: format!("127.0.0.1:3000{id}"),
            http_address: format!("127.0.0.1:4000{id}"),
        };
        let nodes =
            vec![node("controld-1", replica(1)), node("controld-2", replica(2)), node("worker-1", Kind::Worker)];
        DevState::new("dev".to_owned(), nodes)
    }

    #[test]
    fn what_is_saved_is_loaded_and_the_old_file_is_replaced() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(DevState::load(directory.path()).expect("no error"), None);
        let mut state = state();
        state.save(directory.path()).expect("saved");
        assert_eq!(DevState::load(directory.path()).expect("no error"), Some(state.clone()));
        state.node_mut("worker-1").process = None;
        state.save(directory.path()).expect("saved again");
        assert_eq!(DevState::load(directory.path()).expect("no error"), Some(state));
        let names: Vec<_> = fs::read_dir(directory.path()).expect("there").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["dev.json"]);
    }

    #[test]
    fn a_torn_or_newer_file_is_named_and_kept() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("dev.json"), "{\"version\":").expect("written");
        let line = DevState::load(directory.path()).unwrap_err().to_string();
        assert!(line.contains("dev.json does not parse") && line.contains("try: "), "{line}");
        let newer = serde_json::to_string(&state()).expect("it is").replace("\"version\":1", "\"version\":2");
        fs::write(directory.path().join("dev.json"), newer).expect("written");
        let line = DevState::load(directory.path()).unwrap_err().to_string();
        assert!(line.contains("version 2"), "{line}");
    }

    #[test]
    fn nodes_are_found_by_name_and_replicas_by_number() {
        let state = state();
        assert_eq!(state.node("2").expect("it is there").name, "controld-2");
        assert_eq!(state.node("worker-1").expect("it is there").name, "worker-1");
        let line = state.node("9").unwrap_err().to_string();
        assert_eq!(line, "node 9 does not exist; try: one of controld-1, controld-2, worker-1");
        assert_eq!(state.endpoints(), ["127.0.0.1:20001", "127.0.0.1:20002"]);
    }
}
