//! What stands behind the streams in these tests: a raft that takes notes, fragments and snapshots in memory.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use grpcio::{Environment, Server};
use raftgrid_driver::{Message, NodeId, Snapshot, SnapshotMeta};
use raftgrid_peer::*;
use raftgrid_replica::ports::*;
use raftgrid_rpc::tls::Tls;
use raftgrid_telemetry::Registry;
use sha2::{Digest, Sha256};

/// A bound for a broken test, not part of any verdict.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Step(Message),
    Unreachable(NodeId),
    SnapshotSent(NodeId, bool),
}

pub struct Notes(Mutex<Sender<Heard>>);

impl Notes {
    fn say(&self, heard: Heard) {
        let _ = self.0.lock().expect("no panic under the lock").send(heard);
    }
}

impl Raft for Notes {
    fn step(&self, message: Message) {
        self.say(Heard::Step(message));
    }
    fn unreachable(&self, node: NodeId) {
        self.say(Heard::Unreachable(node));
    }
    fn snapshot_sent(&self, to: NodeId, ok: bool) {
        self.say(Heard::SnapshotSent(to, ok));
    }
}

pub fn raft() -> (RaftSeat, Receiver<Heard>) {
    let (sender, receiver) = channel();
    let seat = RaftSeat::new();
    seat.fill(Arc::new(Notes(Mutex::new(sender))));
    (seat, receiver)
}

pub fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

pub fn identity(cluster: &str, node: NodeId) -> Identity {
    Identity {
        cluster_id: cluster.to_owned(),
        node_id: node,
        store_uuid: vec![node as u8; 16],
        client_address: String::new(),
        raft_address: String::new(),
        machine_version: 1,
    }
}

/// Files by name; `lies` makes a source shorter than it says.
#[derive(Default)]
pub struct Shelf {
    pub kept: Mutex<BTreeMap<String, BTreeMap<String, Vec<u8>>>>,
    pub lies: bool,
    pub refuses: bool,
    /// Places that were begun for receiving.
    pub begun: Mutex<u32>,
}

pub struct Files(pub Arc<Shelf>);

impl SnapshotFiles for Files {
    fn open(&self, name: &str) -> Result<Box<dyn SnapshotSource>, String> {
        let kept = self.0.kept.lock().expect("no panic under the lock");
        let files = kept.get(name).cloned().ok_or("no such snapshot")?;
        Ok(Box::new(Source { files, lies: self.0.lies }))
    }
    fn begin(&self, index: u64, term: u64) -> Result<Box<dyn SnapshotSink>, String> {
        *self.0.begun.lock().expect("no panic under the lock") += 1;
        Ok(Box::new(Sink { shelf: self.0.clone(), index, term, files: BTreeMap::new() }))
    }
}

struct Source {
    files: BTreeMap<String, Vec<u8>>,
    lies: bool,
}

impl SnapshotSource for Source {
    fn files(&self) -> Vec<SnapshotFile> {
        let more = u64::from(self.lies);
        let each =
            |(name, data): (&String, &Vec<u8>)| SnapshotFile { name: name.clone(), bytes: data.len() as u64 + more };
        self.files.iter().map(each).collect()
    }
    fn read(&mut self, file: &str, offset: u64, length: usize) -> Result<Vec<u8>, String> {
        let data = &self.files[file];
        let from = (offset as usize).min(data.len());
        Ok(data[from..(from + length).min(data.len())].to_vec())
    }
}

struct Sink {
    shelf: Arc<Shelf>,
    index: u64,
    term: u64,
    files: BTreeMap<String, Vec<u8>>,
}

impl SnapshotSink for Sink {
    fn write(&mut self, file: &str, offset: u64, data: &[u8]) -> Result<(), String> {
        let have = self.files.entry(file.to_owned()).or_default();
        assert_eq!(have.len() as u64, offset, "chunks go on where the last one ended");
        have.extend_from_slice(data);
        Ok(())
    }
    fn finish(self: Box<Self>) -> Result<Snapshot, String> {
        if self.shelf.refuses {
            return Err("failed to verify the staged state".to_owned());
        }
        let name = format!("staged-{}", self.index);
        self.shelf.kept.lock().expect("no panic under the lock").insert(name.clone(), self.files);
        Ok(Snapshot { meta: SnapshotMeta { index: self.index, term: self.term, ..SnapshotMeta::default() }, name })
    }
}

/// A disk that stops: whoever comes to a byte behind the first ones waits until the guard is dropped.
#[derive(Clone, Default)]
pub struct Stuck(Arc<(Mutex<Option<u64>>, Condvar)>);

/// Lets the disk go on.
pub struct Stopped(Stuck);

impl Stuck {
    /// From this byte on.
    pub fn stop_at(&self, byte: u64) -> Stopped {
        *self.0 .0.lock().expect("no panic under the lock") = Some(byte);
        Stopped(self.clone())
    }
    fn pass(&self, offset: u64) {
        let stops = self.0 .0.lock().expect("no panic under the lock");
        drop(self.0 .1.wait_while(stops, |from| from.is_some_and(|from| offset >= from)).expect("no panic"));
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        *self.0 .0 .0.lock().expect("no panic under the lock") = None;
        self.0 .0 .1.notify_all();
    }
}

/// (artifact, fragment) → bytes.
pub type ByFragment = Arc<Mutex<BTreeMap<(u64, u32), Vec<u8>>>>;

/// Fragments in memory.
#[derive(Default)]
pub struct Fragments {
    pub kept: ByFragment,
    pub stuck: Stuck,
}

pub struct Kept(pub Vec<u8>);

impl Download for Kept {
    fn total_bytes(&self) -> u64 {
        self.0.len() as u64
    }
    fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
    fn artifact_id(&self) -> u64 {
        5
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, CallError> {
        let from = offset as usize;
        let length = buffer.len().min(self.0.len() - from);
        buffer[..length].copy_from_slice(&self.0[from..from + length]);
        Ok(length)
    }
}

struct Storing {
    kept: ByFragment,
    key: (u64, u32),
    digest: [u8; 32],
    data: Vec<u8>,
    stuck: Stuck,
}

/// What is kept, behind a disk that may stop.
struct Reading(Kept, Stuck);

impl Download for Reading {
    fn total_bytes(&self) -> u64 {
        self.0.total_bytes()
    }
    fn digest(&self) -> [u8; 32] {
        self.0.digest()
    }
    fn artifact_id(&self) -> u64 {
        self.0.artifact_id()
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, CallError> {
        self.1.pass(offset);
        self.0.read_at(offset, buffer)
    }
}

impl FragmentSink for Storing {
    fn write(&mut self, data: &[u8]) -> Result<(), CallError> {
        self.stuck.pass(self.data.len() as u64);
        self.data.extend_from_slice(data);
        Ok(())
    }
    fn finish(self: Box<Self>) -> Result<(), CallError> {
        if <[u8; 32]>::from(Sha256::digest(&self.data)) != self.digest {
            return Err(CallError::Invalid("digest: differs".to_owned()));
        }
        self.kept.lock().expect("no panic under the lock").insert(self.key, self.data);
        Ok(())
    }
}

impl Bytes for Fragments {
    fn begin(&self, _: &Caller, _: Purpose, _: Option<u64>, _: Option<Vec<u8>>) -> Result<Box<dyn Upload>, CallError> {
        Err(CallError::Internal("not asked by peers".to_owned()))
    }
    fn open_model(&self, _: &ModelQuery) -> Result<(u64, Box<dyn Download>), CallError> {
        Err(CallError::Internal("not asked by peers".to_owned()))
    }
    fn open_artifact(&self, _: &str) -> Result<Box<dyn Download>, CallError> {
        Err(CallError::Internal("not asked by peers".to_owned()))
    }
    fn recompute(&self, _: &str, _: u64) -> Result<Recomputed, CallError> {
        Err(CallError::Internal("peers do not ask for it".to_owned()))
    }

    fn fragment_sink(
        &self,
        artifact: u64,
        fragment: u32,
        _: u64,
        digest: [u8; 32],
    ) -> Result<Box<dyn FragmentSink>, CallError> {
        let storing = Storing {
            kept: self.kept.clone(),
            key: (artifact, fragment),
            digest,
            data: Vec::new(),
            stuck: self.stuck.clone(),
        };
        Ok(Box::new(storing))
    }
    fn open_fragment(&self, artifact: u64, fragment: u32) -> Result<Box<dyn Download>, CallError> {
        let kept = self.kept.lock().expect("no panic under the lock");
        let found = kept.get(&(artifact, fragment)).cloned();
        let kept = Kept(found.ok_or_else(|| CallError::NotFound("no such fragment".to_owned()))?);
        Ok(Box::new(Reading(kept, self.stuck.clone())))
    }
}

/// Answers `propose` with what it is told to, and public calls with their own path.
pub struct Echo(pub Result<Vec<u8>, CallError>);

impl Forwarding for Echo {
    fn propose(&self, batch: Vec<u8>, done: Callback<Vec<u8>>) {
        done(self.0.clone().map(|mut answer| {
            answer.extend(batch);
            answer
        }));
    }
    fn read_index(&self, done: Callback<u64>) {
        done(self.0.clone().map(|answer| answer.len() as u64));
    }
    fn call(&self, method: &str, _: &str, mut request: Vec<u8>) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send>> {
        request.extend(method.as_bytes());
        Box::pin(async move { request })
    }
}

/// Whom this end met, by the first store.
#[derive(Default)]
struct Met(Mutex<BTreeMap<NodeId, Vec<u8>>>);

impl KnownStores for Met {
    fn meet(&self, node: NodeId, store_uuid: &[u8]) -> Result<(), String> {
        let mut met = self.0.lock().expect("no panic under the lock");
        let known = met.entry(node).or_insert_with(|| store_uuid.to_vec());
        if known == store_uuid {
            Ok(())
        } else {
            Err(format!("node {node} speaks from another store than before"))
        }
    }

    fn learn(&self, node: NodeId, store_uuid: &[u8]) {
        self.0.lock().expect("no panic under the lock").entry(node).or_insert_with(|| store_uuid.to_vec());
    }
}

/// The receiving end: node `node` of cluster `cluster`.
pub struct End {
    pub env: Arc<Environment>,
    pub heard: Receiver<Heard>,
    pub shelf: Arc<Shelf>,
    pub fragments: ByFragment,
    pub stuck: Stuck,
    pub address: String,
    pub server: Server,
    pub registry: Registry,
}

impl End {
    /// Streams that were refused at the door.
    pub fn refused(&self) -> u64 {
        self.registry.counter("raftgrid_peer_streams_refused_total", "", &[]).get()
    }
}

pub fn end(cluster: &str, node: NodeId, port: u16, shelf: Shelf, echo: Echo) -> End {
    open_end(cluster, node, port, shelf, echo, None)
}

/// Node `node` of cluster "blue", to which nobody comes without a certificate.
pub fn certified_end(node: NodeId, tls: Arc<Tls>) -> End {
    open_end("blue", node, 0, Shelf::default(), Echo(Ok(Vec::new())), Some(tls))
}

fn open_end(cluster: &str, node: NodeId, port: u16, shelf: Shelf, echo: Echo, tls: Option<Arc<Tls>>) -> End {
    let env = raftgrid_rpc::environment("peer-test");
    let (seat, heard) = raft();
    let shelf = Arc::new(shelf);
    let bytes = Fragments::default();
    let (fragments, stuck) = (bytes.kept.clone(), bytes.stuck.clone());
    let files = Arc::new(Files(shelf.clone()));
    let registry = Registry::new();
    let service = PeerService::new(
        identity(cluster, node),
        Arc::new(Met::default()),
        seat,
        files,
        Arc::new(bytes),
        echo,
        logger(),
    )
    .with_metrics(&registry)
    .with_tls(tls.clone())
    .build();
    let address = format!("127.0.0.1:{port}");
    let opened = raftgrid_rpc::serve::listen_mutual(&env, &address, vec![service], tls.as_ref());
    let (server, port) = opened.expect("a free port");
    End { env, heard, shelf, fragments, stuck, address: format!("127.0.0.1:{port}"), server, registry }
}

pub fn plain_end(node: NodeId) -> End {
    end("blue", node, 0, Shelf::default(), Echo(Ok(Vec::new())))
}

/// The sending end: node 1 of cluster `cluster`.
pub fn transport(
    env: &Arc<Environment>,
    cluster: &str,
    book: Arc<AddressBook>,
    shelf: Arc<Shelf>,
) -> (PeerTransport, Receiver<Heard>) {
    transport_by(env.clone().into(), cluster, book, shelf)
}

/// The same over connections of this dialer.
pub fn transport_by(
    dialer: Dialer,
    cluster: &str,
    book: Arc<AddressBook>,
    shelf: Arc<Shelf>,
) -> (PeerTransport, Receiver<Heard>) {
    let (seat, heard) = raft();
    (transport_in(seat, dialer, cluster, book, shelf), heard)
}

/// The same for a replica that sits in `seat`.
pub fn transport_in(
    seat: RaftSeat,
    dialer: Dialer,
    cluster: &str,
    book: Arc<AddressBook>,
    shelf: Arc<Shelf>,
) -> PeerTransport {
    let config = TransportConfig {
        identity: identity(cluster, 1),
        snapshot_bytes_per_second: 0,
        snapshot_timeout: PATIENCE,
        logger: logger(),
    };
    PeerTransport::new(dialer, config, book, seat, Arc::new(Files(shelf)))
}

pub fn book(node: NodeId, address: &str) -> Arc<AddressBook> {
    Arc::new(AddressBook::new([(node, address.to_owned())]))
}

pub fn message(to: NodeId, data: &[u8]) -> Message {
    Message { to, from: 1, data: data.to_vec().into(), snapshot: None }
}
