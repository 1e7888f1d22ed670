//! Which artifact a model is, and the names and shapes of the newest ones: gradients are checked against them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use raftgrid_manifest::{views, Rows};
use raftgrid_proto::v1::{JobPhase, JobRow};
use raftgrid_train::{model_layout, Layout};

use crate::artifacts::Artifacts;
use crate::limits::LAYOUTS_KEPT_MAX;
use crate::mending::Mending;
use crate::polls::rows_failed;
use crate::ports::{CallError, Download, ModelQuery};
use crate::sources::{refused, Stored};

/// Models of one replica.
pub(crate) struct Models {
    artifacts: Arc<Artifacts>,
    /// By artifact id, rising: the highest are the newest.
    layouts: Mutex<BTreeMap<u64, Arc<Layout>>>,
}

impl Models {
    /// Of this replica.
    pub(crate) fn new(artifacts: Arc<Artifacts>) -> Self {
        Self { artifacts, layouts: Mutex::default() }
    }

    /// Names, dtypes and shapes of a model, which was checked when it was committed; kept in memory for a while. Blocks.
    pub(crate) fn layout(&self, artifact_id: u64) -> Result<Arc<Layout>, CallError> {
        if let Some(found) = self.lock().get(&artifact_id) {
            return Ok(found.clone());
        }
        let model = Stored::open(&self.artifacts, artifact_id)?;
        let layout = match model_layout(&model) {
            Ok(layout) => Arc::new(layout),
            Err(error) => return Err(CallError::Internal(format!("model {artifact_id}: {}", refused(&error)?))),
        };
        let mut layouts = self.lock();
        layouts.insert(artifact_id, layout.clone());
        while layouts.len() > LAYOUTS_KEPT_MAX {
            layouts.pop_first();
        }
        Ok(layout)
    }

    /// Opens a model for streaming: (version, bytes). Blocks.
    pub(crate) fn open(&self, query: &ModelQuery) -> Result<(u64, Box<dyn Download>), CallError> {
        let (rows, position) = self.artifacts.views.view();
        let behind =
            || CallError::Unavailable("this replica is behind the one that the caller heard of it from".to_owned());
        if query.lease_epoch > position {
            return Err(behind());
        }
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
        let hears_late = query.lease_epoch != 0 && !raftgrid_driver::mutant::on("behind_says_never");
        if artifact_id == 0 && version > newest && hears_late {
            // A trainer asks for what its step names: another replica gave it the step.
            return Err(behind());
        }
        if artifact_id == 0 {
            let id = &job.get_job().job_id;
            return Err(CallError::NotFound(format!("job {id} has no model {version}; the newest is {newest}")));
        }
        let row = self.artifacts.committed(artifact_id)?;
        Ok((version, Box::new(Mending::new(self.artifacts.clone(), row)?)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Layout>>> {
        self.layouts.lock().unwrap_or_else(PoisonError::into_inner)
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
