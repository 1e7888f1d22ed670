//! Decoded artifacts, whole and verified, one file each: `<root>/cache/<artifact id>`. What readers of a coded artifact are served from.
//!
//! A file here is no fragment: nothing counts it, nobody else is given it, and all of them are deleted when the store is opened. They are not
//! fsynced. Bounded by `CACHE_BYTES_MAX`; the one that was not asked for the longest goes first. Who reads a file that goes reads on to its end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::CACHE_BYTES_MAX;
use crate::medium::Medium;
use crate::spare::Spares;
use crate::store::{clear, io, open_file, BlobError, FragmentReader, FragmentWriter};

/// The decoded artifacts of one replica. Clones share it.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    kept: Arc<Mutex<Kept>>,
    bytes_max: u64,
    spares: Spares,
}

#[derive(Debug, Default)]
struct Kept {
    /// Artifact → (bytes, when it was asked for last).
    files: BTreeMap<u64, (u64, u64)>,
    /// Counts what was asked for.
    asked: u64,
}

impl Kept {
    /// Notes that it was asked for, if it is here.
    fn ask(&mut self, artifact_id: u64) -> Option<()> {
        self.asked += 1;
        self.files.get_mut(&artifact_id)?.1 = self.asked;
        Some(())
    }
}

impl Cache {
    /// Empties the folder, makes it if it is missing.
    pub(crate) fn open(medium: &dyn Medium, folder: &Path, spares: Spares) -> Result<Self, BlobError> {
        clear(medium, folder)?;
        medium.create_dir_all(folder).map_err(io("create", folder))?;
        Ok(Self { folder: folder.to_owned(), kept: Arc::default(), bytes_max: CACHE_BYTES_MAX, spares })
    }

    /// The decoded artifact, if it is here; its footer is verified now, each block when it is read.
    pub fn get(&self, artifact_id: u64) -> Option<FragmentReader> {
        self.lock().ask(artifact_id)?;
        // Without the lock: one that is let go meanwhile is not here.
        open_file(&self.spares, self.path(artifact_id), artifact_id, 0).ok()
    }

    /// Keeps a finished file for a while, and lets others go for it.
    pub fn keep(&self, written: FragmentWriter, artifact_id: u64) -> Result<(), BlobError> {
        let bytes = written.total_bytes();
        let mut kept = self.lock();
        written.move_to(&self.path(artifact_id))?;
        kept.asked += 1;
        let asked = kept.asked;
        kept.files.insert(artifact_id, (bytes, asked));
        self.shrink(&mut kept, Some(artifact_id));
        Ok(())
    }

    /// Lets it go.
    pub fn forget(&self, artifact_id: u64) {
        self.drop_file(&mut self.lock(), artifact_id);
    }

    /// Lets all go, and what is only kept to be written over: the disk is almost full.
    pub fn clear(&self) {
        let mut kept = self.lock();
        let all: Vec<u64> = kept.files.keys().copied().collect();
        all.into_iter().for_each(|artifact_id| self.drop_file(&mut kept, artifact_id));
        self.spares.clear();
    }

    /// The disk has so many free bytes: what is only kept to be written over takes a quarter of them at most.
    pub fn fit_spares(&self, free_bytes: u64) {
        self.spares.fit(free_bytes);
    }

    /// Bytes that are here.
    pub fn bytes(&self) -> u64 {
        self.lock().files.values().map(|(bytes, _)| bytes).sum()
    }

    fn shrink(&self, kept: &mut Kept, but: Option<u64>) {
        while kept.files.values().map(|(bytes, _)| bytes).sum::<u64>() > self.bytes_max {
            let others = kept.files.iter().filter(|(id, _)| Some(**id) != but);
            let Some(oldest) = others.min_by_key(|(_, (_, asked))| *asked).map(|(id, _)| *id) else { return };
            self.drop_file(kept, oldest);
        }
    }

    fn drop_file(&self, kept: &mut Kept, artifact_id: u64) {
        if kept.files.remove(&artifact_id).is_some() {
            // What stays is cleared at the next start, and so it need not be synced.
            self.spares.offer(self.spares.set_aside(&self.path(artifact_id)).ok().flatten());
        }
    }

    fn path(&self, artifact_id: u64) -> PathBuf {
        self.folder.join(artifact_id.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FragmentStore;

    fn written(store: &FragmentStore, bytes: usize) -> FragmentWriter {
        let mut writer = store.create().unwrap();
        writer.write(&vec![7; bytes]).unwrap();
        writer.finish(None, None).unwrap();
        writer
    }

    #[test]
    fn what_was_not_asked_for_goes_first_and_a_reader_reads_on() {
        let root = tempfile::tempdir().unwrap();
        let store = FragmentStore::open(root.path()).unwrap();
        let cache = Cache { bytes_max: 250, ..store.cache().clone() };
        for id in [1, 2] {
            cache.keep(written(&store, 100), id).unwrap();
        }
        let (one, two) = (cache.get(1), cache.get(2).unwrap());
        assert!(one.is_some() && cache.get(1).is_some());
        cache.keep(written(&store, 100), 3).unwrap();
        assert!(cache.get(2).is_none(), "1 was asked for after it");
        assert_eq!((two.read_all().unwrap().len(), cache.bytes()), (100, 200));
        cache.keep(written(&store, 1_000), 4).unwrap();
        assert!(cache.get(1).is_none() && cache.get(3).is_none() && cache.get(4).is_some(), "kept alone");
    }

    #[test]
    fn nothing_of_it_is_a_fragment_or_outlives_a_start() {
        let root = tempfile::tempdir().unwrap();
        let store = FragmentStore::open(root.path()).unwrap();
        store.cache().keep(written(&store, 10), 5).unwrap();
        assert!(store.cache().get(5).is_some() && !store.has(5, 0));
        assert_eq!(store.artifacts().unwrap(), Vec::<u64>::new());
        let again = FragmentStore::open(root.path()).unwrap();
        assert!(again.cache().get(5).is_none());
        assert_eq!(std::fs::read_dir(root.path().join("cache")).unwrap().count(), 0);
    }
}
