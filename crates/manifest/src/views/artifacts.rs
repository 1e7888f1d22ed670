//! Artifacts.

use raftgrid_proto::v1::{ArtifactInfo, ArtifactRow, ArtifactState, ArtifactUsage, ArtifactVersion, UsageRow};

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

/// What people call an artifact: its id, `JOB/model@latest` or `JOB/model@7`, its name, `NAME@latest` or `NAME@7`. A job's models come before
/// versions of the name `JOB/model`. None if nothing committed goes by it.
pub fn find_artifact(rows: &dyn Rows, artifact: &str) -> Result<Option<ArtifactRow>, RowsError> {
    let id = match artifact.parse() {
        Ok(id) => Some(id),
        Err(_) => match find_model(rows, artifact)? {
            Some(id) => Some(id),
            None => named(rows, artifact)?,
        },
    };
    let Some(id) = id else { return Ok(None) };
    Ok(read::artifact(rows, id)?.filter(|row| row.state == ArtifactState::ARTIFACT_COMMITTED))
}

/// The artifact of a version of a name; of the newest one if none is said.
fn named(rows: &dyn Rows, artifact: &str) -> Result<Option<u64>, RowsError> {
    let (name, version) = artifact.rsplit_once('@').unwrap_or((artifact, "latest"));
    let Some(row) = read::name(rows, name)? else { return Ok(None) };
    let found = match (version, version.parse::<u64>()) {
        ("latest", _) => row.versions.last(),
        (_, Ok(version)) => row.versions.iter().find(|it| it.version == version),
        (_, Err(_)) => None,
    };
    Ok(found.map(|it| it.artifact_id))
}

/// The artifact of `JOB/model@latest` or `JOB/model@7`; None: nothing, or no job of this id.
pub(crate) fn find_model(rows: &dyn Rows, artifact: &str) -> Result<Option<u64>, RowsError> {
    match artifact.split_once("/model@") {
        Some((job_id, version)) => model_id(rows, job_id, version),
        None => Ok(None),
    }
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

/// Which version of its job's model the artifact is; None: it is no model, or its round is no longer in the ledger.
pub fn model_version_of(rows: &dyn Rows, row: &ArtifactRow) -> Result<Option<u64>, RowsError> {
    if row.kind != "model" || row.job_id.is_empty() {
        return Ok(None);
    }
    let Some(job_row) = read::job_by_id(rows, &row.job_id)? else { return Ok(None) };
    let job = job_row.get_job();
    if job.model_artifact == row.artifact_id.to_string() {
        return Ok(Some(job.model_version));
    }
    // The ledger keeps its newest rounds, without a gap.
    for version in (0..job.model_version).rev() {
        match read::round(rows, job_row.sequence, version)? {
            Some(round) if round.model_artifact == row.artifact_id => return Ok(Some(version)),
            Some(_) => {}
            None => break,
        }
    }
    Ok(None)
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
        principal: row.principal.clone(),
        key: row.key.clone(),
        ..ArtifactInfo::default()
    }
}

/// The same with all names that it goes by.
pub fn artifact_with_names(rows: &dyn Rows, row: &ArtifactRow) -> Result<ArtifactInfo, RowsError> {
    let mut info = artifact_info(row);
    for name in read::names_of(rows, row)? {
        info.versions.push(ArtifactVersion { name: name.name, version: name.version, ..ArtifactVersion::default() });
    }
    Ok(info)
}

/// The versions of a name that are there, oldest first, each under that name.
pub fn artifact_versions(rows: &dyn Rows, name: &str) -> Result<Vec<ArtifactInfo>, RowsError> {
    let mut found = Vec::new();
    for it in read::name(rows, name)?.map(|row| row.versions).unwrap_or_default() {
        let Some(row) = read::artifact(rows, it.artifact_id)? else { continue };
        let mut info = artifact_info(&row);
        let (version, created_ms) = (it.version, it.created_ms);
        info.name = name.to_owned();
        let version = ArtifactVersion { name: name.to_owned(), version, created_ms, ..ArtifactVersion::default() };
        info.versions = vec![version].into();
        found.push(info);
    }
    Ok(found)
}

/// Who holds how many bytes of artifacts: principals in order of their name, then replicas in order of their id. Empty before machine version 6.
pub fn artifact_usage(rows: &dyn Rows) -> Result<Vec<ArtifactUsage>, RowsError> {
    let mut all = Vec::new();
    let mut failed = None;
    rows.scan(Table::Usage, &[], &[], &mut |key, value| match read::decode::<UsageRow>(Table::Usage, value) {
        Ok(row) => {
            let mut usage = ArtifactUsage {
                bytes: row.bytes,
                artifacts: row.artifacts,
                bytes_max: row.bytes_max,
                ..ArtifactUsage::default()
            };
            match (key.split_first(), keys::last_number(key)) {
                (Some((b'r', _)), Some(node_id)) => usage.node_id = node_id,
                (Some((_, principal)), _) => usage.principal = String::from_utf8_lossy(principal).into_owned(),
                (None, _) => {}
            }
            all.push(usage);
            true
        }
        Err(error) => {
            failed = Some(error);
            false
        }
    })?;
    failed.map_or(Ok(all), Err)
}

/// What is on a replica, and its limit.
pub fn room_of(rows: &dyn Rows, node_id: u64) -> Result<UsageRow, RowsError> {
    read::usage(rows, &keys::usage_of_node(node_id))
}

/// What a principal holds.
pub fn bytes_of(rows: &dyn Rows, principal: &str) -> Result<u64, RowsError> {
    Ok(read::usage(rows, &keys::usage_of_principal(principal))?.bytes)
}

/// A page of at most `limit` artifacts (0: the most that a page holds), oldest first, whatever their state.
pub fn list_artifacts(rows: &dyn Rows, token: &[u8], limit: usize) -> Result<ArtifactPage, ListError> {
    let from = page_start(token).ok_or(ListError::Token)?;
    let limit = page_rows(limit);
    let mut page = ArtifactPage::default();
    let (mut last, mut found) = (0, Vec::new());
    read::each(rows, Table::Artifact, &keys::number(from), &[], |row: ArtifactRow| {
        if found.len() == limit {
            page.next_page_token = keys::number(last);
            return false;
        }
        last = row.artifact_id;
        found.push(row);
        true
    })?;
    for row in &found {
        page.artifacts.push(artifact_with_names(rows, row)?);
    }
    Ok(page)
}
