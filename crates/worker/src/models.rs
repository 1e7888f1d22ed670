//! Models on this machine: each fetched once whatever the number of processes that want it, verified, the newest few kept.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use raftgrid_crashpoint::{reach, Point};
use raftgrid_proto::v1::{ModelChunk, ModelRequest};
use sha2::{Digest, Sha256};

use crate::limits::{MODELS_KEPT, MODEL_BYTES_MAX, MODEL_IN_MEMORY_BYTES_MAX};
use crate::plane::{ControlPlane, Fetch, PlaneError};
use crate::sealed;
use crate::table::{lock, TaskContext};

/// A model file whose content was verified.
#[derive(Clone, Debug)]
pub struct CachedModel {
    /// Version, or round, of the job.
    pub version: u64,
    /// Size in bytes.
    pub total_bytes: u64,
    /// SHA-256.
    pub digest: Vec<u8>,
    file: Arc<File>,
}

impl CachedModel {
    /// Where a process of this machine finds it, sealed; None: it is to be streamed.
    pub fn place(&self) -> Option<String> {
        sealed::is_sealed(&self.file).then(|| sealed::place_of(&self.file).ok()).flatten()
    }

    /// Fills `buffer` from `offset`; fewer bytes only at the end. The bytes stay readable after the cache has dropped the file.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }
}

type Slot = Arc<Mutex<Option<CachedModel>>>;

/// The cache, below one folder.
pub struct Models {
    folder: PathBuf,
    /// By (job, version). The inner lock makes one fetch of many who want the same.
    slots: Mutex<BTreeMap<(String, u64), Slot>>,
}

fn is_same(head: &ModelChunk, other: &ModelChunk) -> bool {
    let said = |chunk: &ModelChunk| (chunk.version, chunk.total_bytes, chunk.digest.clone());
    said(head) == said(other)
}

impl Models {
    /// Starts empty: what a crash left may be torn.
    pub fn new(folder: PathBuf) -> std::io::Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, slots: Mutex::new(BTreeMap::new()) })
    }

    /// The version of the task's job, from the cache or fetched now; None: the newest that there is.
    pub fn get(
        &self,
        task: &TaskContext,
        version: Option<u64>,
        plane: &dyn ControlPlane,
    ) -> Result<CachedModel, PlaneError> {
        let Some(version) = version else {
            let model = self.fetch(task, None, plane)?;
            let slot = self.slot(&task.job_id, model.version);
            let mut slot = lock(&slot);
            return Ok(slot.get_or_insert(model).clone());
        };
        let slot = self.slot(&task.job_id, version);
        let mut slot = lock(&slot);
        let wanted = task.model_digest(version);
        if let Some(model) = slot.as_ref().filter(|model| wanted.as_ref().is_none_or(|digest| *digest == model.digest))
        {
            return Ok(model.clone());
        }
        let model = self.fetch(task, Some(version), plane)?;
        *slot = Some(model.clone());
        reach(Point::ModelCached);
        Ok(model)
    }

    fn slot(&self, job_id: &str, version: u64) -> Slot {
        let mut slots = lock(&self.slots);
        let slot = slots.entry((job_id.to_owned(), version)).or_default().clone();
        let of_job: Vec<_> = slots.keys().filter(|(job, _)| job == job_id).cloned().collect();
        for old in of_job.iter().take(of_job.len().saturating_sub(MODELS_KEPT)).filter(|(_, old)| *old != version) {
            slots.remove(old);
        }
        while slots.len() > MODELS_KEPT * 4 {
            let Some(other) = slots.keys().find(|(job, _)| job != job_id).cloned() else { break };
            slots.remove(&other);
        }
        slot
    }

    fn cached(&self, job_id: &str, version: u64, digest: &[u8]) -> Option<CachedModel> {
        let slot = lock(&self.slots).get(&(job_id.to_owned(), version)).cloned()?;
        // Somebody fetches this very version: then we do too, rather than wait in the middle of a stream.
        let slot = slot.try_lock().ok()?;
        slot.clone().filter(|model| model.digest == digest)
    }

    /// Without a name from the start: a crash leaves nothing behind, and a reader keeps what it has open.
    fn begin(&self, total_bytes: u64) -> std::io::Result<File> {
        let in_memory = if total_bytes <= MODEL_IN_MEMORY_BYTES_MAX { sealed::create().ok() } else { None };
        in_memory.map_or_else(|| tempfile::tempfile_in(&self.folder), Ok)
    }

    fn fetch(
        &self,
        task: &TaskContext,
        version: Option<u64>,
        plane: &dyn ControlPlane,
    ) -> Result<CachedModel, PlaneError> {
        let disk = |error: std::io::Error| PlaneError::Internal(format!("failed to store a model: {error}"));
        let mut request = ModelRequest::new();
        request.set_job_id(task.job_id.clone());
        request.set_task_id(task.task_id.clone());
        request.set_lease_epoch(task.epoch);
        request.set_version(version.unwrap_or_default());
        request.set_version_given(version.is_some());
        let mut file: Option<File> = None;
        let mut hash = Sha256::new();
        let mut head: Option<ModelChunk> = None;
        let mut received = 0u64;
        let mut known = None;
        let (mut before, mut wrong) = (0, false);
        loop {
            let mut begins = true;
            let fetched = plane.fetch_model(&request, &mut |chunk: &ModelChunk| {
                if std::mem::take(&mut begins) {
                    match &head {
                        Some(head) if !is_same(head, chunk) => {
                            wrong = true;
                            return Err(PlaneError::Unavailable("the rest is of another model".to_owned()));
                        }
                        Some(_) => {}
                        None => {
                            let mut first = chunk.clone();
                            first.clear_data();
                            if version.is_none() {
                                known = self.cached(&task.job_id, first.get_version(), first.get_digest());
                            }
                            head = Some(first);
                            if known.is_some() {
                                return Ok(Fetch::Enough);
                            }
                        }
                    }
                }
                received += chunk.get_data().len() as u64;
                if received > MODEL_BYTES_MAX {
                    return Err(PlaneError::Invalid(format!("a model of more than {MODEL_BYTES_MAX} bytes")));
                }
                hash.update(chunk.get_data());
                let total_bytes = head.as_ref().map_or(0, ModelChunk::get_total_bytes);
                if received > total_bytes {
                    wrong = true;
                    return Err(PlaneError::Unavailable("more bytes than the model was announced with".to_owned()));
                }
                let file = match &mut file {
                    Some(file) => file,
                    None => file.insert(self.begin(total_bytes).map_err(disk)?),
                };
                file.write_all(chunk.get_data()).map_err(disk)?;
                Ok(Fetch::Continue)
            });
            match fetched {
                // The stream broke: whichever replica is next goes on where it was. Each time a piece further: it comes to an end.
                Err(PlaneError::Unavailable(_)) if received > before && !wrong => before = received,
                other => {
                    other?;
                    break;
                }
            }
            request.set_offset(received);
            request.set_version(head.as_ref().map_or(0, ModelChunk::get_version));
            request.set_version_given(true);
        }
        if let Some(known) = known {
            return Ok(known);
        }
        let empty = || PlaneError::Unavailable("an empty stream instead of a model".to_owned());
        let (head, file) = (head.ok_or_else(empty)?, file.ok_or_else(empty)?);
        let digest: [u8; 32] = hash.finalize().into();
        let wanted = task.model_digest(head.get_version());
        let right = received == head.get_total_bytes()
            && head.get_digest() == digest
            && wanted.is_none_or(|wanted| wanted == digest)
            && version.is_none_or(|version| version == head.get_version());
        if !right {
            return Err(PlaneError::Unavailable("a model that is not the one announced".to_owned()));
        }
        if received <= MODEL_IN_MEMORY_BYTES_MAX {
            // One in a file, where memory was not to be had, stays a file that is streamed.
            let _is_a_file = sealed::seal(&file);
        }
        reach(Point::ModelFetched);
        let (version, digest) = (head.get_version(), digest.to_vec());
        Ok(CachedModel { version, total_bytes: received, digest, file: Arc::new(file) })
    }
}
