//! A source of artifacts that does what sources must not: stop in the middle, give other bytes, lose its leadership.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use raftgrid_mirror::limits::PART_BYTES;
use raftgrid_mirror::{Artifact, Body, Seen, Source};
use raftgrid_telemetry::Registry;
use sha2::{Digest, Sha256};

/// Bounds a hang; no verdict depends on how fast something came.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "never came: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// How the bytes of an artifact come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Good,
    /// Reading fails from this offset on.
    BreaksAt(u64),
    /// One bit is another one.
    Wrong,
    /// Reading waits there until it may go on.
    WaitsAt(u64),
}

/// Bytes, and how they come.
pub type Content = (Arc<Vec<u8>>, Mood);

#[derive(Default)]
pub struct World {
    pub rows: Mutex<BTreeMap<u64, Seen>>,
    pub bodies: Mutex<BTreeMap<u64, Content>>,
    pub leads: AtomicBool,
    /// Where a body that waits has come to.
    pub waits: AtomicBool,
    pub reads: AtomicU64,
}

impl World {
    pub fn leading() -> Arc<Self> {
        let world = Self::default();
        world.leads.store(true, Ordering::SeqCst);
        Arc::new(world)
    }

    pub fn add(&self, artifact_id: u64, name: &str, kind: &str, bytes: usize, mood: Mood) -> [u8; 32] {
        let bytes: Vec<u8> = (0..bytes as u64).map(|at| (at.wrapping_mul(artifact_id * 7 + 31) >> 3) as u8).collect();
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        let artifact = Artifact {
            artifact_id,
            name: name.to_owned(),
            kind: kind.to_owned(),
            job_id: String::new(),
            model_version: None,
            total_bytes: bytes.len() as u64,
            digest,
        };
        self.bodies.lock().unwrap().insert(artifact_id, (Arc::new(bytes), mood));
        self.rows.lock().unwrap().insert(artifact_id, Seen::Committed(artifact));
        digest
    }

    pub fn row_of(&self, artifact_id: u64) -> Seen {
        self.rows.lock().unwrap()[&artifact_id].clone()
    }

    pub fn mood(&self, artifact_id: u64, mood: Mood) {
        self.bodies.lock().unwrap().get_mut(&artifact_id).expect("it is there").1 = mood;
    }
}

pub struct Fake(pub Arc<World>);

struct FakeBody {
    world: Arc<World>,
    artifact_id: u64,
}

impl Source for Fake {
    fn leads(&self) -> bool {
        self.0.leads.load(Ordering::SeqCst)
    }

    fn rows(&self, from: u64, most: usize) -> Result<Vec<(u64, Seen)>, String> {
        let rows = self.0.rows.lock().unwrap();
        Ok(rows.range(from..).take(most).map(|(id, seen)| (*id, seen.clone())).collect())
    }

    fn row(&self, artifact_id: u64) -> Result<Seen, String> {
        Ok(self.0.rows.lock().unwrap().get(&artifact_id).cloned().unwrap_or(Seen::Gone))
    }

    fn open(&self, artifact_id: u64) -> Result<Box<dyn Body>, String> {
        self.0.reads.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FakeBody { world: self.0.clone(), artifact_id }))
    }
}

impl Body for FakeBody {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, String> {
        assert!(buffer.len() as u64 <= PART_BYTES, "more than a part is in memory");
        let begun = Instant::now();
        loop {
            let (bytes, mood) = self.world.bodies.lock().unwrap()[&self.artifact_id].clone();
            match mood {
                Mood::BreaksAt(at) if offset >= at => return Err("no fragment can be read".to_owned()),
                Mood::WaitsAt(at) if offset >= at => {
                    self.world.waits.store(true, Ordering::SeqCst);
                    // A test that failed must end, and the mirror's thread with it.
                    if begun.elapsed() > 3 * PATIENCE {
                        return Err("nobody let it go on".to_owned());
                    }
                    std::thread::park_timeout(Duration::from_millis(5));
                    continue;
                }
                Mood::Good | Mood::BreaksAt(_) | Mood::WaitsAt(_) | Mood::Wrong => {}
            }
            let from = usize::try_from(offset).unwrap().min(bytes.len());
            // In pieces, as a disk may.
            let length = buffer.len().min(bytes.len() - from).min(1_000_003);
            buffer[..length].copy_from_slice(&bytes[from..from + length]);
            if mood == Mood::Wrong && offset == 0 && length > 0 {
                buffer[length / 2] ^= 1;
            }
            return Ok(length);
        }
    }
}

pub fn value(registry: &Registry, series: &str) -> f64 {
    let text = registry.exposition();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().expect("a number")
}
