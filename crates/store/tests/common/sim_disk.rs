//! A disk in memory that forgets what was not made durable: each file and each directory remembers every version
//! since its last fsync, and a crash picks one of them. A process that is killed loses nothing of the files; a power
//! cut may lose all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

use raftgrid_store::disk::{Batch, DbRead, DirEntry, Direction, LogDb, Op, StateDb, Visit};
use raftgrid_store::{Disk, DiskError, DiskErrorKind, DiskResult};

type Ino = u64;
type Map = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone)]
enum Node {
    /// First version durable, last one current.
    File(Vec<Vec<u8>>),
    Dir(Vec<BTreeMap<String, Ino>>),
}

struct World {
    nodes: BTreeMap<Ino, Node>,
    next: Ino,
    random: u64,
    locked: BTreeSet<Ino>,
}

/// How a machine stops.
#[derive(Clone, Copy, Debug)]
pub enum Crash {
    /// The process only.
    Kill,
    /// Everything that was not fsynced is gone.
    WorstPowerCut,
    /// Each file and directory at some version since its last fsync, drawn from the seed.
    PowerCut(u64),
}

pub fn next_random(state: &mut u64) -> u64 {
    // splitmix64
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<World>>);

fn error(kind: DiskErrorKind, action: &'static str, path: &Path) -> DiskError {
    DiskError { kind, action, path: path.display().to_string(), cause: format!("simulated: {kind:?}") }
}

fn missing(action: &'static str, path: &Path) -> DiskError {
    error(DiskErrorKind::Missing, action, path)
}

impl World {
    fn dir(&self, ino: Ino) -> Option<&BTreeMap<String, Ino>> {
        match &self.nodes[&ino] {
            Node::Dir(versions) => versions.last(),
            Node::File(_) => None,
        }
    }

    fn find(&self, path: &Path) -> Option<Ino> {
        let mut at = 0;
        for part in path.components() {
            if let Component::Normal(name) = part {
                at = *self.dir(at)?.get(name.to_str()?)?;
            }
        }
        Some(at)
    }

    fn parent(&self, path: &Path) -> Option<(Ino, String)> {
        let name = path.file_name()?.to_str()?.to_owned();
        Some((self.find(path.parent()?)?, name))
    }

    fn change_dir(&mut self, ino: Ino, change: impl FnOnce(&mut BTreeMap<String, Ino>)) {
        if let Some(Node::Dir(versions)) = self.nodes.get_mut(&ino) {
            let mut new = versions.last().expect("a version").clone();
            change(&mut new);
            versions.push(new);
        }
    }

    fn add(&mut self, node: Node) -> Ino {
        self.next += 1;
        self.nodes.insert(self.next, node);
        self.next
    }

    fn make(&mut self, path: &Path, node: Node, action: &'static str) -> DiskResult<Ino> {
        let (parent, name) = self.parent(path).ok_or_else(|| missing(action, path))?;
        let ino = self.add(node);
        self.change_dir(parent, |names| {
            names.insert(name, ino);
        });
        Ok(ino)
    }

    fn file(&self, path: &Path) -> Option<&Vec<u8>> {
        match &self.nodes[&self.find(path)?] {
            Node::File(versions) => versions.last(),
            Node::Dir(_) => None,
        }
    }

    fn push(&mut self, ino: Ino, content: Vec<u8>) {
        if let Some(Node::File(versions)) = self.nodes.get_mut(&ino) {
            versions.push(content);
        }
    }

    fn sync(&mut self, ino: Ino) {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(versions)) => drop(versions.drain(..versions.len() - 1)),
            Some(Node::Dir(versions)) => drop(versions.drain(..versions.len() - 1)),
            None => {}
        }
    }
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        let nodes = BTreeMap::from([(0, Node::Dir(vec![BTreeMap::new()]))]);
        Self(Arc::new(Mutex::new(World { nodes, next: 0, random: seed, locked: BTreeSet::new() })))
    }

    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.0.lock().expect("no panic while it is held")
    }

    /// The disk as the next process finds it.
    pub fn crash(&self, how: Crash) -> SimDisk {
        let world = self.world();
        let mut nodes = world.nodes.clone();
        let mut random = match how {
            Crash::PowerCut(seed) => seed,
            Crash::Kill | Crash::WorstPowerCut => 0,
        };
        for node in nodes.values_mut() {
            let count = match node {
                Node::File(versions) => versions.len(),
                Node::Dir(versions) => versions.len(),
            };
            let pick = match how {
                Crash::Kill => count - 1,
                Crash::WorstPowerCut => 0,
                Crash::PowerCut(_) => (next_random(&mut random) % count as u64) as usize,
            };
            match node {
                Node::File(versions) => *versions = vec![versions.swap_remove(pick)],
                Node::Dir(versions) => *versions = vec![versions.swap_remove(pick)],
            }
        }
        let (next, random) = (world.next, world.random ^ 0xabcd);
        SimDisk(Arc::new(Mutex::new(World { nodes, next, random, locked: BTreeSet::new() })))
    }

    fn open(&self, path: &Path, file: &str) -> DiskResult<(Ino, Ino, Map)> {
        self.create_dir(path)?;
        let mut world = self.world();
        let dir = world.find(path).ok_or_else(|| missing("open", path))?;
        if !world.locked.insert(dir) {
            return Err(error(DiskErrorKind::Locked, "open", path));
        }
        let at = path.join(file);
        let known = world.find(&at);
        let ino = match known {
            Some(ino) => ino,
            None => {
                let ino = world.make(&at, Node::File(vec![encode(&Map::new())]), "open")?;
                world.sync(dir);
                ino
            }
        };
        match world.file(&at).and_then(|bytes| decode(bytes)) {
            Some(map) => Ok((dir, ino, map)),
            None => {
                world.locked.remove(&dir);
                Err(error(DiskErrorKind::Corrupted, "open", path))
            }
        }
    }

    fn peek(&self, path: &Path) -> DiskResult<Map> {
        let world = self.world();
        let bytes = world.file(&path.join(TABLE)).ok_or_else(|| missing("open", path))?;
        decode(bytes).ok_or_else(|| error(DiskErrorKind::Corrupted, "open", path))
    }
}

const WAL: &str = "WAL";
const TABLE: &str = "TABLE";

fn encode(map: &Map) -> Vec<u8> {
    let mut out = vec![0; 4];
    for (key, value) in map {
        for part in [key, value] {
            out.extend_from_slice(&(part.len() as u32).to_le_bytes());
            out.extend_from_slice(part);
        }
    }
    let crc = crc32c::crc32c(&out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<Map> {
    let (crc, mut rest) = bytes.split_at_checked(4)?;
    if crc32c::crc32c(rest).to_le_bytes() != crc {
        return None;
    }
    let mut part = || -> Option<Vec<u8>> {
        let (length, tail) = rest.split_at_checked(4)?;
        let (value, tail) = tail.split_at_checked(u32::from_le_bytes(length.try_into().ok()?) as usize)?;
        rest = tail;
        Some(value.to_vec())
    };
    let mut map = Map::new();
    while let Some(key) = part() {
        map.insert(key, part()?);
    }
    Some(map)
}

fn apply(map: &mut Map, batch: &Batch) {
    for op in &batch.ops {
        match op {
            Op::Put(key, value) => drop(map.insert(key.clone(), value.clone())),
            Op::Delete(key) => drop(map.remove(key)),
            Op::DeleteRange(from, to) => map.retain(|key, _| key < from || key >= to),
        }
    }
}

fn scan(map: &Map, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) {
    if from >= to {
        return;
    }
    let mut range = map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
    while let Some((key, value)) = match direction {
        Direction::Up => range.next(),
        Direction::Down => range.next_back(),
    } {
        if !visit(key, value) {
            return;
        }
    }
}

struct Open {
    disk: SimDisk,
    dir: Ino,
    file: Ino,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.disk.world().locked.remove(&self.dir);
    }
}

pub struct SimLog {
    open: Open,
    map: Mutex<Map>,
}

impl DbRead for SimLog {
    fn get(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>> {
        Ok(self.map.lock().unwrap().get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) -> DiskResult<()> {
        let map = self.map.lock().unwrap().clone();
        scan(&map, from, to, direction, visit);
        Ok(())
    }
}

impl LogDb for SimLog {
    fn write(&self, batch: &Batch) -> DiskResult<()> {
        let mut map = self.map.lock().unwrap();
        apply(&mut map, batch);
        self.open.disk.world().push(self.open.file, encode(&map));
        Ok(())
    }

    fn sync(&self) -> DiskResult<()> {
        self.open.disk.world().sync(self.open.file);
        Ok(())
    }
}

pub struct SimState {
    open: Open,
    map: Mutex<Arc<Map>>,
    persisted: Mutex<Map>,
}

pub struct SimView(Arc<Map>);

impl DbRead for SimView {
    fn get(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) -> DiskResult<()> {
        scan(&self.0, from, to, direction, visit);
        Ok(())
    }
}

impl DbRead for SimState {
    fn get(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>> {
        Ok(self.map.lock().unwrap().get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) -> DiskResult<()> {
        let map = Arc::clone(&self.map.lock().unwrap());
        scan(&map, from, to, direction, visit);
        Ok(())
    }
}

impl StateDb for SimState {
    type View = SimView;

    fn write(&self, batch: &Batch) -> DiskResult<()> {
        apply(Arc::make_mut(&mut *self.map.lock().unwrap()), batch);
        Ok(())
    }

    fn get_persisted(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>> {
        Ok(self.persisted.lock().unwrap().get(key).cloned())
    }

    fn flush(&self, _wait: bool) -> DiskResult<()> {
        let map = Map::clone(&self.map.lock().unwrap());
        let mut world = self.open.disk.world();
        world.push(self.open.file, encode(&map));
        world.sync(self.open.file);
        *self.persisted.lock().unwrap() = map;
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> DiskResult<()> {
        self.flush(true)?;
        let content = encode(&self.map.lock().unwrap());
        let mut world = self.open.disk.world();
        let dir_ino = world.make(dir, Node::Dir(vec![BTreeMap::new()]), "copy")?;
        world.make(&dir.join(TABLE), Node::File(vec![content]), "copy")?;
        world.sync(dir_ino);
        Ok(())
    }

    fn view(self: &Arc<Self>) -> SimView {
        SimView(Arc::clone(&self.map.lock().unwrap()))
    }
}

impl Disk for SimDisk {
    type Log = SimLog;
    type State = SimState;

    fn create_dir(&self, path: &Path) -> DiskResult<()> {
        let mut world = self.world();
        let mut at = PathBuf::new();
        for part in path.components() {
            at.push(part);
            if world.find(&at).is_none() {
                world.make(&at, Node::Dir(vec![BTreeMap::new()]), "create")?;
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        let mut world = self.world();
        let ino = world.find(from).ok_or_else(|| missing("rename", from))?;
        let (source, old) = world.parent(from).ok_or_else(|| missing("rename", from))?;
        let (target, new) = world.parent(to).ok_or_else(|| missing("rename", to))?;
        if source == target {
            world.change_dir(source, |names| {
                names.remove(&old);
                names.insert(new, ino);
            });
        } else {
            world.change_dir(target, |names| {
                names.insert(new, ino);
            });
            world.change_dir(source, |names| {
                names.remove(&old);
            });
        }
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> DiskResult<()> {
        self.remove_file(path)
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        let mut world = self.world();
        if world.find(path).is_some() {
            let (parent, name) = world.parent(path).ok_or_else(|| missing("remove", path))?;
            world.change_dir(parent, |names| {
                names.remove(&name);
            });
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> DiskResult<Vec<DirEntry>> {
        let world = self.world();
        let Some(names) = world.find(path).and_then(|ino| world.dir(ino)) else { return Ok(Vec::new()) };
        let entry = |(name, ino): (&String, &Ino)| match &world.nodes[ino] {
            Node::Dir(_) => DirEntry { name: name.clone(), is_dir: true, bytes: 0 },
            Node::File(versions) => {
                let bytes = versions.last().map_or(0, Vec::len) as u64;
                DirEntry { name: name.clone(), is_dir: false, bytes }
            }
        };
        Ok(names.iter().map(entry).collect())
    }

    fn read(&self, path: &Path) -> DiskResult<Option<Vec<u8>>> {
        Ok(self.world().file(path).cloned())
    }

    fn read_at(&self, path: &Path, offset: u64, length: usize) -> DiskResult<Vec<u8>> {
        let world = self.world();
        let content = world.file(path).ok_or_else(|| missing("read", path))?;
        let from = (offset as usize).min(content.len());
        Ok(content[from..(from + length).min(content.len())].to_vec())
    }

    fn write_at(&self, path: &Path, offset: u64, data: &[u8]) -> DiskResult<()> {
        let mut world = self.world();
        let ino = match world.find(path) {
            Some(ino) => ino,
            None => world.make(path, Node::File(vec![Vec::new()]), "write")?,
        };
        let mut content = world.file(path).ok_or_else(|| missing("write", path))?.clone();
        let end = offset as usize + data.len();
        content.resize(content.len().max(end), 0);
        content[offset as usize..end].copy_from_slice(data);
        world.push(ino, content);
        Ok(())
    }

    fn allocate(&self, path: &Path, bytes: u64) -> DiskResult<()> {
        self.write_at(path, 0, &vec![0; bytes as usize])
    }

    fn sync_file(&self, path: &Path) -> DiskResult<()> {
        let mut world = self.world();
        let ino = world.find(path).ok_or_else(|| missing("sync", path))?;
        world.sync(ino);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> DiskResult<()> {
        self.sync_file(path)
    }

    fn free_bytes(&self, _path: &Path) -> DiskResult<u64> {
        Ok(1 << 40)
    }

    fn nonce(&self) -> u128 {
        let mut world = self.world();
        let high = next_random(&mut world.random);
        u128::from(high) << 64 | u128::from(next_random(&mut world.random))
    }

    fn open_log(&self, path: &Path) -> DiskResult<SimLog> {
        let (dir, file, map) = self.open(path, WAL)?;
        Ok(SimLog { open: Open { disk: self.clone(), dir, file }, map: Mutex::new(map) })
    }

    fn open_state(&self, path: &Path) -> DiskResult<SimState> {
        let (dir, file, map) = self.open(path, TABLE)?;
        let persisted = Mutex::new(map.clone());
        Ok(SimState { open: Open { disk: self.clone(), dir, file }, map: Mutex::new(Arc::new(map)), persisted })
    }

    fn peek_state(&self, path: &Path, keys: &[&[u8]]) -> DiskResult<Vec<Option<Vec<u8>>>> {
        let map = self.peek(path)?;
        Ok(keys.iter().map(|key| map.get(*key).cloned()).collect())
    }

    fn verify_state(&self, path: &Path) -> DiskResult<()> {
        self.peek(path).map(drop)
    }
}
