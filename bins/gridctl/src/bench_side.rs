//! The two sides of `gridctl bench`: three replicas of ours and three members of etcd, each on loopback below a folder of their own, started
//! and ended here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use protobuf::{CodedInputStream, CodedOutputStream, Message};
use raftgrid_proto::v1::SubmitTaskRequest;
use raftgrid_rpc::grpcio::Environment;
use rustix::process::Signal;

use crate::bench_load::{raw, Connections, RawMethod};
use crate::context::Interrupt;
use crate::dev_state::{Kind, Node};
use crate::failure::{Failure, Result};
use crate::launch::{self, Plan};
use crate::limits::{BENCH_CALL_TIMEOUT, KILL_TIMEOUT, PROBE_PAUSE, READY_TIMEOUT};
use crate::ports;
use crate::process::{self, Process};

static SUBMIT: RawMethod = raw("/raftgrid.v1.TaskService/SubmitTask");
static PUT: RawMethod = raw("/etcdserverpb.KV/Put");
static STATUS: RawMethod = raw("/etcdserverpb.Maintenance/Status");

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Raftgrid,
    Etcd,
}

/// A running cluster; its processes end when it is dropped.
pub(crate) struct Side {
    pub(crate) what: What,
    pub(crate) version: String,
    directory: PathBuf,
    nodes: Vec<Node>,
    /// Client address of the leader.
    pub(crate) leader: String,
}

/// Before each server: counts its fsyncs. Slows them down a little, so it has a run of its own.
const STRACE: [&str; 6] = ["-f", "--seccomp-bpf", "-qq", "-e", "trace=fsync,fdatasync", "-o"];

impl Side {
    /// Three of ours. With `traced` each runs below strace.
    pub(crate) fn raftgrid(directory: &Path, traced: bool, interrupt: &Interrupt) -> Result<Self> {
        let plan = Plan { peers: 3, workers: 0, slots: 1, python: PathBuf::new() };
        let nodes = launch::lay_out(directory, &plan)?.nodes;
        let mut side = Self::start(What::Raftgrid, directory, nodes, traced)?;
        let begin = Instant::now();
        launch::wait_replicas(&side.nodes.iter().collect::<Vec<_>>(), begin, interrupt)?;
        let client = launch::probe(side.nodes.iter().filter_map(Node::client_address))?;
        while side.leader.is_empty() {
            interrupt.check()?;
            if begin.elapsed() > BENCH_CALL_TIMEOUT {
                return Err(Failure::new("the replicas elect no leader", "the same command again"));
            }
            for address in side.addresses() {
                // A replica that is still busy with its first election is asked again.
                let Ok(state) = client.cluster_state(&address) else { continue };
                if state.get_role() == "leader" {
                    side.version = format!("controld {}", state.get_version());
                    side.leader = address;
                }
            }
        }
        Ok(side)
    }

    /// Three members of etcd; `program` is its server.
    pub(crate) fn etcd(directory: &Path, program: &Path, env: &Arc<Environment>, traced: bool) -> Result<Self> {
        let version = Command::new(program).arg("--version").output();
        let version =
            version.map_err(|error| Failure::new(format!("{}: {error}", program.display()), "--etcd FILE"))?;
        let version = String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default().to_owned();
        let ports = ports::choose(6, u64::from(std::process::id()) * 7)?;
        let members: Vec<(String, u16, u16)> =
            ports.chunks(2).zip(1..).map(|(pair, at)| (format!("etcd-{at}"), pair[0], pair[1])).collect();
        let list: Vec<String> =
            members.iter().map(|(name, _, peer)| format!("{name}=http://127.0.0.1:{peer}")).collect();
        let nodes = members.iter().zip(1..).map(|((name, client, peer), node_id)| {
            let (client_url, peer_url) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
            let pairs = [
                ("--name", name.clone()),
                ("--data-dir", directory.join(name).join("data").display().to_string()),
                ("--listen-client-urls", client_url.clone()),
                ("--advertise-client-urls", client_url),
                ("--listen-peer-urls", peer_url.clone()),
                ("--initial-advertise-peer-urls", peer_url),
                ("--initial-cluster", list.join(",")),
                ("--initial-cluster-state", "new".to_owned()),
                ("--log-level", "error".to_owned()),
            ];
            let kind = Kind::Replica {
                node_id,
                client_address: format!("127.0.0.1:{client}"),
                raft_address: format!("127.0.0.1:{peer}"),
                http_address: String::new(),
            };
            Node {
                name: name.clone(),
                kind,
                process: None,
                program: program.to_owned(),
                arguments: pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect(),
                log: directory.join(format!("{name}.log")),
            }
        });
        let mut side = Self::start(What::Etcd, directory, nodes.collect(), traced)?;
        side.version = version;
        let leader = side.settled(env)?;
        side.leader.clone_from(&side.addresses()[leader]);
        Ok(side)
    }

    fn start(what: What, directory: &Path, nodes: Vec<Node>, traced: bool) -> Result<Self> {
        fs::create_dir_all(directory)
            .map_err(|error| Failure::new(format!("{}: {error}", directory.display()), "another --dir"))?;
        let directory = directory.to_owned();
        let mut side = Self { what, version: String::new(), directory, nodes, leader: String::new() };
        for node in &mut side.nodes {
            if traced {
                trace(&side.directory, node);
            }
            launch::start(&side.directory, node)?;
        }
        Ok(side)
    }

    /// Client addresses of all servers.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().filter_map(|node| node.client_address().map(str::to_owned)).collect()
    }

    /// Which server leads, if one says so of itself and every running one agrees.
    pub(crate) fn leader_now(&self, env: &Arc<Environment>) -> Option<usize> {
        let running: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].alive()).collect();
        let views: Vec<(u64, u64)> = running.iter().map(|at| self.view_of(*at, env)).collect::<Option<_>>()?;
        let (at, (own, _)) = running.iter().zip(&views).find(|(_, (own, leader))| own == leader && *own != 0)?;
        views.iter().all(|(_, leader)| leader == own).then_some(*at)
    }

    /// What one server says: (its id, the leader's id).
    fn view_of(&self, at: usize, env: &Arc<Environment>) -> Option<(u64, u64)> {
        let address = self.nodes[at].client_address()?;
        match self.what {
            What::Raftgrid => {
                let state = launch::probe(std::iter::once(address)).ok()?.cluster_state(address).ok()?;
                Some((state.get_node_id(), state.get_leader_id()))
            }
            What::Etcd => etcd_status(&Connections::new(env, address, 1).call(&STATUS, &Vec::new()).ok()?),
        }
    }

    /// Waits until every running server agrees on a leader; its place.
    pub(crate) fn settled(&self, env: &Arc<Environment>) -> Result<usize> {
        let begin = Instant::now();
        loop {
            if let Some(leader) = self.leader_now(env) {
                return Ok(leader);
            }
            if begin.elapsed() > READY_TIMEOUT {
                let log = self.nodes[0].log.display();
                return Err(Failure::new(format!("{} has no leader", self.version), format!("less {log}")));
            }
            thread::sleep(PROBE_PAUSE * 5);
        }
    }

    /// SIGKILL; the process is gone when this returns.
    pub(crate) fn kill(&mut self, at: usize) {
        if let Some(process) = self.nodes[at].process.take() {
            process.signal(Signal::KILL);
            process.wait_gone(KILL_TIMEOUT);
        }
    }

    /// Starts a killed server again.
    pub(crate) fn restart(&mut self, at: usize) -> Result<()> {
        if self.what == What::Etcd {
            let words = self.nodes[at].arguments.iter_mut();
            words.filter(|word| *word == "new").for_each(|word| "existing".clone_into(word));
        }
        launch::start(&self.directory, &mut self.nodes[at])
    }

    /// Client addresses of all but one.
    pub(crate) fn others(&self, than: usize) -> Vec<String> {
        self.addresses().into_iter().enumerate().filter(|(at, _)| *at != than).map(|(_, address)| address).collect()
    }

    /// All servers.
    pub(crate) fn processes(&self) -> Vec<Process> {
        process::family(&self.directory, &[])
    }

    /// Seconds of CPU, user and system, of all servers so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.processes().iter().map(|process| process.cpu_seconds()).sum()
    }

    /// Bytes in memory of all servers now.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.processes().iter().map(|process| process.memory_bytes()).sum()
    }

    /// Fsyncs of all servers so far, of a side that is traced.
    pub(crate) fn fsyncs(&self) -> u64 {
        fsyncs(&self.directory, self.nodes.iter())
    }

    /// The write that is measured.
    pub(crate) fn method(&self) -> &'static RawMethod {
        match self.what {
            What::Raftgrid => &SUBMIT,
            What::Etcd => &PUT,
        }
    }
}

/// Puts a server that is not started yet below strace.
pub(crate) fn trace(directory: &Path, node: &mut Node) {
    let trace = directory.join(format!("{}.strace", node.name)).display().to_string();
    let server = std::mem::replace(&mut node.program, PathBuf::from("strace")).display().to_string();
    let words = STRACE.iter().map(|word| (*word).to_owned()).chain([trace, server]);
    node.arguments = words.chain(std::mem::take(&mut node.arguments)).collect();
}

/// Fsyncs so far of those of the nodes that are traced.
pub(crate) fn fsyncs<'a>(directory: &Path, nodes: impl Iterator<Item = &'a Node>) -> u64 {
    let count = |node: &Node| {
        let text = fs::read_to_string(directory.join(format!("{}.strace", node.name))).unwrap_or_default();
        text.lines().filter(|line| line.contains("sync(")).count() as u64
    };
    nodes.map(count).sum()
}

impl What {
    /// A JSON string of random letters, as many bytes.
    pub(crate) fn task_data(bytes: usize) -> Vec<u8> {
        format!("\"{}\"", letters(bytes.saturating_sub(2))).into_bytes()
    }

    /// A write of `bytes` random bytes under a key of its own.
    pub(crate) fn request(self, bytes: usize) -> Vec<u8> {
        match self {
            Self::Raftgrid => submit(bytes),
            Self::Etcd => put(bytes),
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        for process in self.processes() {
            process.signal(Signal::KILL);
            process.wait_gone(KILL_TIMEOUT);
        }
        process::reap_children();
    }
}

/// Random letters, so that both a JSON string and a value of etcd can hold them.
fn letters(count: usize) -> String {
    let mut text = String::with_capacity(count + 32);
    while text.len() < count {
        text.push_str(uuid::Uuid::new_v4().simple().encode_lower(&mut uuid::Uuid::encode_buffer()));
    }
    text.truncate(count);
    text
}

fn submit(bytes: usize) -> Vec<u8> {
    let mut request = SubmitTaskRequest::new();
    request.set_task_type("bench".to_owned());
    request.set_task_data(What::task_data(bytes));
    request.set_request_id(raftgrid_client::request_id());
    request.write_to_bytes().expect("it has no required fields")
}

/// `etcdserverpb.PutRequest`: key 1, value 2. The key is as long as a request id.
fn put(bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes + 64);
    {
        let mut stream = CodedOutputStream::vec(&mut out);
        let written = stream
            .write_string(1, &raftgrid_client::request_id())
            .and_then(|()| stream.write_string(2, &letters(bytes)))
            .and_then(|()| stream.flush());
        written.expect("memory takes it");
    }
    out
}

/// `etcdserverpb.StatusResponse`: (member id in its header, leader).
fn etcd_status(bytes: &[u8]) -> Option<(u64, u64)> {
    let (mut own, mut leader) = (0, 0);
    let mut input = CodedInputStream::from_bytes(bytes);
    while !input.eof().ok()? {
        let (field, wire) = input.read_tag_unpack().ok()?;
        match field {
            1 => own = header_member(&input.read_bytes().ok()?)?,
            4 => leader = input.read_uint64().ok()?,
            _ => input.skip_field(wire).ok()?,
        }
    }
    Some((own, leader))
}

fn header_member(bytes: &[u8]) -> Option<u64> {
    let mut input = CodedInputStream::from_bytes(bytes);
    let mut member = 0;
    while !input.eof().ok()? {
        let (field, wire) = input.read_tag_unpack().ok()?;
        match field {
            2 => member = input.read_uint64().ok()?,
            _ => input.skip_field(wire).ok()?,
        }
    }
    Some(member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_write_as_many_random_bytes() {
        let request = SubmitTaskRequest::parse_from_bytes(&submit(256)).expect("it is one");
        assert_eq!(request.get_task_data().len(), 256);
        let other = SubmitTaskRequest::parse_from_bytes(&submit(256)).expect("it is one");
        assert_ne!(request, other);
        // Tag, length of two bytes, value; before it the key.
        assert_eq!(put(256).len(), 2 + request.get_request_id().len() + 3 + 256);
    }

    #[test]
    fn the_leader_is_the_member_that_calls_itself_so() {
        // header { cluster_id: 1, member_id: 7 }, version "3.4", db_size 9, leader 7
        let bytes = [0x0a, 4, 8, 1, 0x10, 7, 0x12, 3, b'3', b'.', b'4', 0x18, 9, 0x20, 7];
        assert_eq!(etcd_status(&bytes), Some((7, 7)));
        assert_eq!(etcd_status(&[0x0a, 200]), None);
    }
}
