//! For tests of bytes: some replicas with real files, in one process. Their rows are given, their network is a call, their clock stands still.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use protobuf::Message as _;
use raftgrid_blob::coding::{Coding, Layout};
use raftgrid_blob::medium::{Medium, MediumFile, SystemMedium};
use raftgrid_blob::stripes::digests;
use raftgrid_blob::{FragmentReader, FragmentStore, SpareLimits};
use raftgrid_driver::testing::MemoryDisk;
use raftgrid_driver::{Config, ManualRunner, Message, Observer, RaftHandle, Status, Transport};
use raftgrid_manifest::{keys, Change, MemRows, Rows, Table};
use raftgrid_proto::v1::{ArtifactRow, ArtifactState};
use raftgrid_telemetry::Registry;

use crate::arriving::{Announced, Arriving};
use crate::artifacts::{Artifacts, Files};
use crate::clock::Clock;
use crate::cluster_time::ClusterTime;
use crate::copies::{receipt, Served, COPY};
use crate::metrics::Metrics;
use crate::pool::Hands;
use crate::ports::{CallError, Download, FragmentSink, Peers};
use crate::proposals::Proposals;
use crate::room::Room;
use crate::spread::fragment_receipt;
use crate::versions::Versions;
use crate::views::Views;

/// Pieces in which bytes go from one to another: they meet no border.
const PIECE_BYTES: usize = 70_001;

#[path = "../../../bins/controld/tests/harness/numbers.rs"]
mod numbers;

pub(crate) use numbers::Rng;

impl Rng {
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }

    /// So many different ones of `list`.
    pub(crate) fn some(&mut self, list: &[u64], count: usize) -> Vec<u64> {
        let mut left = list.to_vec();
        (0..count).map(|_| left.swap_remove(self.index(left.len()))).collect()
    }
}

/// Also the smallest file is written over again.
pub(crate) const SPARE_ALL: SpareLimits = SpareLimits { file_bytes_min: 1, bytes_max: 1 << 20 };

/// The machine's files, never synced: no power is lost here, and thousands of cases are quick.
#[derive(Debug)]
pub(crate) struct Unsynced;

#[derive(Debug)]
struct UnsyncedFile(Arc<dyn MediumFile>);

impl Medium for Unsynced {
    fn create_new(&self, path: &Path) -> std::io::Result<Arc<dyn MediumFile>> {
        Ok(Arc::new(UnsyncedFile(SystemMedium.create_new(path)?)))
    }
    fn reopen(&self, path: &Path) -> std::io::Result<Arc<dyn MediumFile>> {
        Ok(Arc::new(UnsyncedFile(SystemMedium.reopen(path)?)))
    }
    fn open(&self, path: &Path) -> std::io::Result<Arc<dyn MediumFile>> {
        SystemMedium.open(path)
    }
    fn create_dir_all(&self, path: &Path) -> std::io::Result<()> {
        SystemMedium.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        SystemMedium.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> std::io::Result<()> {
        SystemMedium.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> std::io::Result<()> {
        SystemMedium.remove_dir_all(path)
    }
    fn sync_dir(&self, _: &Path) -> std::io::Result<()> {
        Ok(())
    }
    fn list(&self, path: &Path) -> std::io::Result<Vec<String>> {
        SystemMedium.list(path)
    }
}

impl MediumFile for UnsyncedFile {
    fn write_all_at(&self, data: &[u8], offset: u64) -> std::io::Result<()> {
        self.0.write_all_at(data, offset)
    }
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
    fn length(&self) -> std::io::Result<u64> {
        self.0.length()
    }
    fn sync(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The rows, and how far they are applied.
#[derive(Default)]
pub(crate) struct Shown {
    rows: Mutex<Arc<MemRows>>,
    position: AtomicU64,
}

impl Shown {
    pub(crate) fn put(&self, row: &ArtifactRow) {
        self.write(row.artifact_id, Some(row.write_to_bytes().unwrap()));
    }

    pub(crate) fn remove(&self, artifact_id: u64) {
        self.write(artifact_id, None);
    }

    fn write(&self, artifact_id: u64, value: Option<Vec<u8>>) {
        self.position.fetch_max(artifact_id, Ordering::SeqCst);
        let change = Change { table: Table::Artifact, key: keys::number(artifact_id), value };
        Arc::make_mut(&mut self.rows.lock().unwrap()).write(&[change]);
    }
}

impl Views for Shown {
    fn view(&self) -> (Arc<dyn Rows + Send + Sync>, u64) {
        (self.rows.lock().unwrap().clone(), self.position.load(Ordering::SeqCst))
    }
}

/// Goes on when it is told.
#[derive(Default)]
pub(crate) struct Hand(AtomicU64);

impl Hand {
    pub(crate) fn pass(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn monotonic_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    fn wall_ms(&self) -> u64 {
        0
    }
}

/// Calls among the replicas.
#[derive(Default)]
struct Wire {
    ends: Mutex<BTreeMap<u64, Weak<Artifacts>>>,
    /// What these answer, whatever they are asked for.
    lies: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl Wire {
    fn end(&self, node: u64) -> Result<Arc<Artifacts>, CallError> {
        let end = self.ends.lock().unwrap().get(&node).and_then(Weak::upgrade);
        end.ok_or_else(|| CallError::Unavailable(format!("replica {node} is away")))
    }
}

impl Peers for Wire {
    fn put_fragment(
        &self,
        node: u64,
        artifact_id: u64,
        number: u32,
        digest: [u8; 32],
        data: &mut dyn Download,
    ) -> Result<(), CallError> {
        let announced = Announced { artifact_id, number, total_bytes: data.total_bytes(), digest };
        let end = self.end(node)?;
        let mut arriving = Box::new(Arriving::begin(&end, announced)?);
        each_piece(data, &mut |piece| arriving.write(piece))?;
        arriving.finish()
    }

    fn get_fragment(
        &self,
        node: u64,
        artifact_id: u64,
        number: u32,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        if let Some(lie) = self.lies.lock().unwrap().get(&node) {
            return sink(lie);
        }
        each_piece(&mut Served::open(&self.end(node)?, artifact_id, number)?, sink)
    }

    fn forward(&self, node: u64, _: &str, _: Vec<u8>, _: Duration) -> Result<Vec<u8>, CallError> {
        Err(CallError::Unavailable(format!("replica {node} takes no commands here")))
    }
}

fn each_piece(data: &mut dyn Download, sink: &mut dyn FnMut(&[u8]) -> Result<(), CallError>) -> Result<(), CallError> {
    let (mut at, mut piece) = (0, vec![0; PIECE_BYTES]);
    loop {
        let got = data.read_at(at, &mut piece)?;
        if got == 0 {
            return Ok(());
        }
        sink(&piece[..got])?;
        at += got as u64;
    }
}

struct Nobody;

impl Transport for Nobody {
    fn send(&mut self, _: Vec<Message>) {}
}

impl Observer for Nobody {
    fn changed(&mut self, _: &Status) {}
}

fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

fn handle(node: u64, voters: &[u64]) -> RaftHandle {
    let (log, machine) = MemoryDisk::founded(voters).open();
    ManualRunner::start(&Config::new(node), log, machine, Nobody, Nobody, &logger()).unwrap().0
}

/// An artifact that is committed, as it was stored.
pub(crate) struct Stored {
    pub(crate) row: ArtifactRow,
    pub(crate) bytes: Vec<u8>,
    /// Node → its file as it was written.
    pub(crate) files: BTreeMap<u64, Vec<u8>>,
}

/// Replicas 1 to n.
pub(crate) struct Bed {
    pub(crate) nodes: BTreeMap<u64, Arc<Artifacts>>,
    pub(crate) shown: Arc<Shown>,
    pub(crate) hand: Arc<Hand>,
    wire: Arc<Wire>,
    folder: tempfile::TempDir,
}

impl Bed {
    pub(crate) fn new(count: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (shown, hand, wire) = (Arc::<Shown>::default(), Arc::<Hand>::default(), Arc::<Wire>::default());
        let voters: Vec<u64> = (1..=count).collect();
        let node = |node: u64| {
            let files =
                FragmentStore::open_on(Arc::new(Unsynced), &folder.path().join(node.to_string()), SPARE_ALL).unwrap();
            let handle = handle(node, &voters);
            let proposals = Proposals {
                handle: handle.clone(),
                peers: wire.clone(),
                clock: hand.clone(),
                cluster_time: Mutex::new(ClusterTime::default()),
                room: Room::default(),
                versions: Versions::new(|| ()),
                metrics: Metrics::new(&Registry::new()),
                pool: Hands::Nobody(Vec::new()).pool("forward", 1, 1),
            };
            let artifacts = Artifacts {
                node,
                files,
                peers: wire.clone(),
                handle,
                views: shown.clone(),
                proposals: Arc::new(proposals),
                clock: hand.clone(),
                silent: Default::default(),
                damaged: Default::default(),
                gates: Default::default(),
                settings: Default::default(),
                settling: Mutex::default(),
                logger: logger(),
            };
            (node, Arc::new(artifacts))
        };
        let nodes: BTreeMap<u64, Arc<Artifacts>> = voters.iter().map(|it| node(*it)).collect();
        *wire.ends.lock().unwrap() = nodes.iter().map(|(node, it)| (*node, Arc::downgrade(it))).collect();
        Self { nodes, shown, hand, wire, folder }
    }

    /// From now on these answer with these bytes, and the others as they should.
    pub(crate) fn lie(&self, lies: BTreeMap<u64, Vec<u8>>) {
        *self.wire.lies.lock().unwrap() = lies;
    }

    /// Commits an artifact under `coding`, with fragment i on the i-th of `holders`.
    pub(crate) fn store(&self, artifact_id: u64, coding: Coding, bytes: Vec<u8>, holders: &[u64]) -> Stored {
        let layout = Layout::new(coding, bytes.len() as u64);
        let whole = self.whole(&bytes);
        let mut row = ArtifactRow::new();
        row.set_artifact_id(artifact_id);
        row.set_kind("file".to_owned());
        row.set_state(ArtifactState::ARTIFACT_COMMITTED);
        row.set_total_bytes(bytes.len() as u64);
        row.set_digest(whole.digest().to_vec());
        row.set_code_id(coding.code_id());
        row.set_placement(holders.to_vec());
        let known = digests(&whole, layout, None).unwrap();
        for (fragment, (node, digest)) in holders.iter().zip(known).enumerate() {
            row.mut_receipts().push(match coding.is_copies() {
                true => receipt(*node, digest),
                false => fragment_receipt(*node, fragment as u32, digest, layout.fragment_bytes()),
            });
        }
        // As it comes to them while it is uploaded.
        self.shown.put(&row);
        let fragments = fragments(&bytes, coding);
        for (node, fragment) in holders.iter().zip(&fragments) {
            let files = &self.nodes[node].files;
            let mut writer = files.create().unwrap();
            writer.write(fragment).unwrap();
            writer.finish(None, None).unwrap();
            files.keep(writer, artifact_id, file_of(&row, *node).unwrap()).unwrap();
        }
        let file = |node: &u64| (*node, std::fs::read(self.path(&row, *node)).unwrap());
        Stored { files: holders.iter().map(file).collect(), row, bytes }
    }

    fn whole(&self, bytes: &[u8]) -> FragmentReader {
        let mut writer = self.nodes[&1].files.create().unwrap();
        writer.write(bytes).unwrap();
        writer.finish(None, None).unwrap();
        writer.reader().unwrap()
    }

    /// The file that the node answers for.
    pub(crate) fn path(&self, row: &ArtifactRow, node: u64) -> PathBuf {
        let number = file_of(row, node).unwrap().to_string();
        self.folder.path().join(node.to_string()).join(row.artifact_id.to_string()).join(number)
    }

    /// All files of all nodes, but for what is only cached or kept to be written over.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        files_below(self.folder.path(), &mut found);
        found
    }

    /// The artifact is gone, with all its files.
    pub(crate) fn remove(&self, stored: &Stored) {
        self.shown.remove(stored.row.artifact_id);
        self.nodes.values().for_each(|node| node.files.remove(stored.row.artifact_id).unwrap());
    }
}

fn files_below(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_file() {
            found.insert(path.clone(), std::fs::read(path).unwrap());
        } else if entry.file_name() != "cache" && entry.file_name() != "spare" {
            files_below(&path, found);
        }
    }
}

/// Number of the file that a node answers for.
pub(crate) fn file_of(row: &ArtifactRow, node: u64) -> Option<u32> {
    let receipt = row.receipts.iter().find(|receipt| receipt.node_id == node)?;
    Some(Files::of(row).number(if row.code_id == 0 { COPY } else { receipt.fragment }))
}

/// All fragments of these bytes.
pub(crate) fn fragments(bytes: &[u8], coding: Coding) -> Vec<Vec<u8>> {
    if coding.is_copies() {
        return vec![bytes.to_vec(); coding.fragments()];
    }
    let mut all = vec![Vec::new(); coding.fragments()];
    let mut encoder = raftgrid_blob::coding::Encoder::new(coding).unwrap();
    let mut input = bytes;
    while let Some(stripe) = encoder.next_stripe(&mut input) {
        stripe.shards().zip(&mut all).for_each(|(shard, fragment)| fragment.extend_from_slice(shard));
    }
    if let Some(stripe) = encoder.finish() {
        stripe.shards().zip(&mut all).for_each(|(shard, fragment)| fragment.extend_from_slice(shard));
    }
    all
}

/// Codes and the replicas that they are for: those that groups of three and five have.
pub(crate) fn some_coding(rng: &mut Rng) -> (Coding, Vec<u64>) {
    let (coding, holders) = match rng.index(4) {
        0 => (Coding::copies(1), 2),
        1 => (Coding::copies(2), 3),
        2 => (Coding::new(2, 1).unwrap(), 3),
        _ => (Coding::new(3, 2).unwrap(), 5),
    };
    (coding, rng.some(&[1, 2, 3, 4, 5], holders))
}

/// Sizes around everything that counts: nothing, a block, a stripe, several.
pub(crate) fn some_bytes(rng: &mut Rng) -> Vec<u8> {
    let size = match rng.index(4) {
        0 => 1 + rng.index(200),
        1 => *rng.of(&[64, 65_536, 131_072, 196_608]) + rng.index(3) - 1,
        2 => 1 + rng.index(65_536),
        _ => 65_536 + rng.index(200_000),
    };
    rng.bytes(size)
}

/// Bytes of the artifact as a reader of this node gets them.
pub(crate) fn read_by(artifacts: &Arc<Artifacts>, row: &ArtifactRow) -> Result<Vec<u8>, CallError> {
    let mut download = crate::mending::Mending::new(artifacts.clone(), row.clone())?;
    let mut read = Vec::new();
    each_piece(&mut download, &mut |piece| {
        read.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(read)
}

/// Nodes that hold something of it.
pub(crate) fn holders(row: &ArtifactRow) -> BTreeSet<u64> {
    row.receipts.iter().map(|receipt| receipt.node_id).collect()
}
