//! Which artifact a model is, and the newest models in memory: gradients are checked against them and rounds are summed from them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use raftgrid_manifest::{views, Rows};
use raftgrid_proto::v1::{JobPhase, JobRow};
use raftgrid_train::{check_model, GuardLimits, Layout};

use crate::artifacts::Artifacts;
use crate::limits::{MODEL_CACHE_BYTES_MAX, TENSOR_BYTES_MAX};
use crate::mending::Mending;
use crate::polls::rows_failed;
use crate::ports::{CallError, Download, ModelQuery};

/// Models of one replica.
pub(crate) struct Models {
    artifacts: Arc<Artifacts>,
    /// By artifact id, rising: the highest are the newest.
    cache: Mutex<BTreeMap<u64, Cached>>,
}

#[derive(Clone)]
struct Cached {
    bytes: Arc<Vec<u8>>,
    /// Once somebody has asked for it: the bytes are a model then.
    layout: Option<Arc<Layout>>,
}

impl Models {
    /// Of this replica.
    pub(crate) fn new(artifacts: Arc<Artifacts>) -> Self {
        Self { artifacts, cache: Mutex::default() }
    }

    /// All bytes of a model; kept in memory for a while. Blocks.
    pub(crate) fn bytes(&self, artifact_id: u64) -> Result<Arc<Vec<u8>>, CallError> {
        if let Some(found) = self.lock().get(&artifact_id) {
            return Ok(found.bytes.clone());
        }
        let row = self.artifacts.committed(artifact_id)?;
        if row.total_bytes > TENSOR_BYTES_MAX {
            return Err(CallError::Invalid(format!(
                "the model has {} bytes; the limit is {TENSOR_BYTES_MAX}",
                row.total_bytes
            )));
        }
        let bytes = Arc::new(self.artifacts.read(artifact_id)?);
        self.keep(artifact_id, bytes.clone());
        Ok(bytes)
    }

    /// Keeps a model that was made here: its round is summed from it, and its gradients are checked against it.
    pub(crate) fn keep(&self, artifact_id: u64, bytes: Arc<Vec<u8>>) {
        let mut cache = self.lock();
        cache.insert(artifact_id, Cached { bytes, layout: None });
        let mut total: usize = cache.values().map(|model| model.bytes.len()).sum();
        while total > MODEL_CACHE_BYTES_MAX && cache.len() > 1 {
            let Some((_, oldest)) = cache.pop_first() else { break };
            total -= oldest.bytes.len();
        }
    }

    /// Names, shapes and dtypes of a model, which is checked once and not for each gradient. The inner error: it is none. Blocks.
    pub(crate) fn layout(&self, artifact_id: u64) -> Result<Result<Arc<Layout>, String>, CallError> {
        if let Some(layout) = self.lock().get(&artifact_id).and_then(|found| found.layout.clone()) {
            return Ok(Ok(layout));
        }
        let bytes = self.bytes(artifact_id)?;
        let layout = match check_model(&bytes, &GuardLimits::default()) {
            Ok(frame) => Arc::new(frame.layout().clone()),
            Err(error) => return Ok(Err(error.to_string())),
        };
        if let Some(found) = self.lock().get_mut(&artifact_id) {
            found.layout = Some(layout.clone());
        }
        Ok(Ok(layout))
    }

    /// Opens a model for streaming: (version, bytes). Blocks.
    pub(crate) fn open(&self, query: &ModelQuery) -> Result<(u64, Box<dyn Download>), CallError> {
        let (rows, _) = self.artifacts.views.view();
        let job = job_of(rows.as_ref(), query)?;
        if !job.get_job().has_model {
            return Err(CallError::Unavailable(format!("job {} has no model yet", job.get_job().job_id)));
        }
        let newest = job.get_job().model_version;
        let version = query.version.unwrap_or(newest);
        let artifact_id = if version == newest {
            job.get_job().model_artifact.parse().unwrap_or(0)
        } else {
            views::round_of(rows.as_ref(), job.sequence, version)
                .map_err(rows_failed)?
                .map_or(0, |round| round.model_artifact)
        };
        drop(rows);
        if artifact_id == 0 {
            let id = &job.get_job().job_id;
            return Err(CallError::NotFound(format!("job {id} has no model {version}; the newest is {newest}")));
        }
        let row = self.artifacts.committed(artifact_id)?;
        Ok((version, Box::new(Mending::new(self.artifacts.clone(), row)?)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Cached>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The job that a caller means: by name, by its task, or else the only train job that is running.
pub(crate) fn job_of(rows: &dyn Rows, query: &ModelQuery) -> Result<JobRow, CallError> {
    let mut job_id = query.job_id.clone();
    if job_id.is_empty() && !query.task_id.is_empty() {
        job_id = views::task_row(rows, &query.task_id)
            .map_err(rows_failed)?
            .map_or_else(String::new, |row| row.get_task().job_id.clone());
    }
    if !job_id.is_empty() {
        let found = views::job_row(rows, &job_id).map_err(rows_failed)?;
        return found.ok_or_else(|| CallError::NotFound(format!("job {job_id} does not exist")));
    }
    let mut running = Vec::new();
    let is_running =
        |row: &JobRow| row.get_job().get_spec().field_type == "train" && row.get_job().phase == JobPhase::JOB_RUNNING;
    views::job_rows(rows, |row| {
        if is_running(&row) {
            running.push(row);
        }
        true
    })
    .map_err(rows_failed)?;
    match <[JobRow; 1]>::try_from(running) {
        Ok([job]) => Ok(job),
        Err(several) => {
            Err(CallError::Precondition(format!("{} train jobs are running: name one in job_id", several.len())))
        }
    }
}
