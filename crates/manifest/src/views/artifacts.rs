//! Artifacts.

use raftgrid_proto::v1::{ArtifactInfo, ArtifactRow, ArtifactState};

use crate::keys;
use crate::read;
use crate::rows::{Rows, RowsError, Table};
use crate::views::{page_rows, page_start, ListError};

/// A page of artifacts, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArtifactPage {
    /// The artifacts.
    pub artifacts: Vec<ArtifactInfo>,
    /// Token of the next page; empty: this was the last.
    pub next_page_token: Vec<u8>,
}

/// The artifact's row, by its id.
pub fn artifact_row(rows: &dyn Rows, artifact_id: u64) -> Result<Option<ArtifactRow>, RowsError> {
    read::artifact(rows, artifact_id)
}

/// All rows of artifacts, oldest first, as long as `visit` answers true.
pub fn artifact_rows(rows: &dyn Rows, visit: impl FnMut(ArtifactRow) -> bool) -> Result<(), RowsError> {
    read::each(rows, Table::Artifact, &[], &[], visit)
}

/// The same from the artifact with this id on.
pub fn artifact_rows_from(
    rows: &dyn Rows,
    artifact_id: u64,
    visit: impl FnMut(ArtifactRow) -> bool,
) -> Result<(), RowsError> {
    read::each(rows, Table::Artifact, &keys::number(artifact_id), &[], visit)
}

/// What people call an artifact: its id, its name, `JOB/model@latest` or `JOB/model@N`. None if nothing committed goes by it.
pub fn find_artifact(rows: &dyn Rows, artifact: &str) -> Result<Option<ArtifactRow>, RowsError> {
    let row = if let Some((job_id, version)) = artifact.split_once("/model@") {
        match model_id(rows, job_id, version)? {
            Some(id) => read::artifact(rows, id)?,
            None => None,
        }
    } else if let Ok(id) = artifact.parse() {
        read::artifact(rows, id)?
    } else {
        read::artifact_by_name(rows, artifact)?
    };
    Ok(row.filter(|row| row.state == ArtifactState::ARTIFACT_COMMITTED))
}

fn model_id(rows: &dyn Rows, job_id: &str, version: &str) -> Result<Option<u64>, RowsError> {
    let Some(job_row) = read::job_by_id(rows, job_id)? else { return Ok(None) };
    let job = job_row.get_job();
    if !job.has_model {
        return Ok(None);
    }
    let newest = job.model_artifact.parse().ok();
    match (version, version.parse::<u64>()) {
        ("latest", _) => Ok(newest),
        (_, Ok(version)) if version == job.model_version => Ok(newest),
        (_, Ok(version)) => Ok(read::round(rows, job_row.sequence, version)?.map(|round| round.model_artifact)),
        (_, Err(_)) => Ok(None),
    }
}

/// An artifact as clients see it.
pub fn artifact_info(row: &ArtifactRow) -> ArtifactInfo {
    let state = match row.state {
        ArtifactState::ARTIFACT_BEGUN => "begun",
        ArtifactState::ARTIFACT_COMMITTED => "committed",
        ArtifactState::ARTIFACT_DELETING => "deleting",
    };
    ArtifactInfo {
        artifact_id: row.artifact_id.to_string(),
        name: row.name.clone(),
        kind: row.kind.clone(),
        total_bytes: row.total_bytes,
        digest: row.digest.clone(),
        holders: row.placement.clone(),
        state: state.to_owned(),
        ..ArtifactInfo::default()
    }
}

/// A page of at most `limit` artifacts (0: the most that a page holds), oldest first, whatever their state.
pub fn list_artifacts(rows: &dyn Rows, token: &[u8], limit: usize) -> Result<ArtifactPage, ListError> {
    let from = page_start(token).ok_or(ListError::Token)?;
    let limit = page_rows(limit);
    let mut page = ArtifactPage::default();
    let mut last = 0;
    read::each(rows, Table::Artifact, &keys::number(from), &[], |row: ArtifactRow| {
        if page.artifacts.len() == limit {
            page.next_page_token = keys::number(last);
            return false;
        }
        last = row.artifact_id;
        page.artifacts.push(artifact_info(&row));
        true
    })?;
    Ok(page)
}
