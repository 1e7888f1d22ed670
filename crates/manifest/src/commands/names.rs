//! Names of artifacts: a name has versions 1, 2, …, each an artifact; an artifact may go by several names. Since machine version 6; before, a
//! name has one content while it lives. Here: how a version is given and taken away, RemoveArtifact and NameArtifact.
//!
//! A number that people may have seen is never given twice, so the name's row stays when its last version goes. The row of an artifact lists its names, and that list is
//! the reference count: with the last name go the bytes, unless the artifact was begun without a name and lives by its id or its job's ledger.

use raftgrid_proto::v1::{
    ArtifactName, ArtifactRow, ArtifactState, CommandReply, JobRow, NameArtifact, NameRow, NameVersion, Outcome,
    RemoveArtifact,
};

use crate::commands::{artifacts, job_end};
use crate::error::{Fault, Handled};
use crate::keys;
use crate::limits::{ARTIFACT_NAMES_MAX, ID_BYTES_MAX, NAMED_BYTES_MAX, NAME_VERSIONS_MAX};
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, not_found, precondition, refuse};
use crate::rows::{Rows, RowsError, Table};
use crate::tables::ArtifactTable;
use crate::text::{check_bytes, check_name};
use crate::views;

/// The machine version from which on names have versions.
pub const SINCE: u64 = 6;

/// A name that people give: no number, since those are ids.
pub(crate) fn check(name: &str) -> Result<(), Fault> {
    check_name("name", name, ID_BYTES_MAX, b"/")?;
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid("name", "must not be a number: numbers are artifact ids"));
    }
    Ok(())
}

/// The newest version of the name that is there.
pub(crate) fn newest(rows: &dyn Rows, name: &str) -> Result<Option<(u64, ArtifactRow)>, RowsError> {
    let Some(last) = read::name(rows, name)?.and_then(|row| row.versions.last().cloned()) else { return Ok(None) };
    Ok(read::artifact(rows, last.artifact_id)?.map(|row| (last.version, row)))
}

/// Makes the artifact of `row`, which is committed with this command, the next version of `name`, and takes versions beyond the newest `keep`
/// away (0: none). `numbered`: somebody counts on the name's numbers. Writes `row`. Gives the number.
pub(crate) fn give(
    machine: &mut Machine<'_>,
    name: &str,
    mut row: ArtifactRow,
    numbered: bool,
    keep: u32,
) -> Result<u64, Fault> {
    adopt(machine, name, row.artifact_id)?;
    let mut entry = read::name(&machine.rows, name)?.unwrap_or_default();
    entry.name = name.to_owned();
    if keep == 0 && entry.versions.len() >= NAME_VERSIONS_MAX {
        let why = format!(
            "{name} has {NAME_VERSIONS_MAX} versions, the most there may be; remove some, or say how many are kept"
        );
        return Err(refuse(Outcome::EXHAUSTED, why));
    }
    row.names = read::names_of(&machine.rows, &row)?.into();
    if row.names.len() >= ARTIFACT_NAMES_MAX {
        let why = format!("artifact {} goes by {ARTIFACT_NAMES_MAX} names, the most there may be", row.artifact_id);
        return Err(refuse(Outcome::EXHAUSTED, why));
    }
    entry.numbered |= numbered;
    entry.newest += 1;
    let version = entry.newest;
    entry.versions.push(NameVersion {
        version,
        artifact_id: row.artifact_id,
        created_ms: machine.now_ms(),
        ..NameVersion::default()
    });
    row.names.push(ArtifactName { name: name.to_owned(), version, ..ArtifactName::default() });
    ArtifactTable::put(machine, &row)?;
    put(machine, &entry);
    // Also where a name had more of them before it was said how many are kept.
    let kept = if keep == 0 { NAME_VERSIONS_MAX } else { (keep as usize).min(NAME_VERSIONS_MAX) };
    let beyond = entry.versions.len().saturating_sub(kept);
    for old in entry.versions.iter().take(beyond) {
        if used_by(&machine.rows, name, old.version)?.is_none() {
            take(machine, name, old.version)?;
        }
    }
    Ok(version)
}

/// A name that was given before version 6 gets a row of its own, and its artifact knows it.
fn adopt(machine: &mut Machine<'_>, name: &str, newcomer: u64) -> Result<(), Fault> {
    if machine.rows.get(Table::Name, name.as_bytes())?.is_some() {
        return Ok(());
    }
    let Some(entry) = read::name(&machine.rows, name)? else { return Ok(()) };
    put(machine, &entry);
    for version in &entry.versions {
        let row = read::artifact(&machine.rows, version.artifact_id)?;
        if let Some(mut row) = row.filter(|row| row.artifact_id != newcomer && row.names.is_empty()) {
            row.names.push(ArtifactName { name: name.to_owned(), version: version.version, ..ArtifactName::default() });
            ArtifactTable::put(machine, &row)?;
        }
    }
    Ok(())
}

fn put(machine: &mut Machine<'_>, entry: &NameRow) {
    let key = entry.name.clone().into_bytes();
    match entry.versions.last() {
        Some(newest) => {
            machine.put_bytes(Table::ArtifactByName, key.clone(), keys::number(newest.artifact_id));
        }
        None => machine.delete(Table::ArtifactByName, key.clone()),
    }
    machine.put(Table::Name, key, entry);
}

/// Takes a version out of its name's row. A row without versions stays only where numbers were spoken of: names that programs give once and
/// free by the artifact's id leave nothing behind.
fn drop_version(machine: &mut Machine<'_>, name: &str, version: u64, spoken: bool) -> Result<(), Fault> {
    let Some(mut entry) = read::name(&machine.rows, name)? else { return Ok(()) };
    let left: Vec<NameVersion> = entry.versions.iter().filter(|it| it.version != version).cloned().collect();
    entry.versions = left.into();
    entry.numbered |= spoken;
    put(machine, &entry);
    if entry.versions.is_empty() && !entry.numbered {
        machine.delete(Table::Name, name.as_bytes().to_vec());
    }
    Ok(())
}

/// All names of an artifact that is being deleted are free.
pub(crate) fn drop_all(machine: &mut Machine<'_>, row: &mut ArtifactRow) -> Result<(), Fault> {
    for name in read::names_of(&machine.rows, row)? {
        drop_version(machine, &name.name, name.version, false)?;
    }
    row.names.clear();
    Ok(())
}

/// Takes one version of a name away, and the bytes with the last name that holds them. Gives the artifact.
fn take(machine: &mut Machine<'_>, name: &str, version: u64) -> Result<u64, Fault> {
    let Some((_, mut row)) = version_of(&machine.rows, name, version)? else {
        return Err(not_found("artifact", &format!("{name}@{version}")));
    };
    let left: Vec<ArtifactName> = read::names_of(&machine.rows, &row)?
        .into_iter()
        .filter(|it| (&*it.name, it.version) != (name, version))
        .collect();
    drop_version(machine, name, version, true)?;
    row.names = left.into();
    let artifact_id = row.artifact_id;
    if row.names.is_empty() && lives_by_names(&row) {
        artifacts::start_deleting(machine, row)?;
    } else {
        ArtifactTable::put(machine, &row)?;
    }
    Ok(artifact_id)
}

/// Whether its last name takes it away: it was begun with one, or its job's retention let it go.
fn lives_by_names(row: &ArtifactRow) -> bool {
    (row.released || !row.name.is_empty()) && row.key.is_empty()
}

fn version_of(rows: &dyn Rows, name: &str, version: u64) -> Result<Option<(u64, ArtifactRow)>, RowsError> {
    let entry = read::name(rows, name)?;
    let found = entry.and_then(|entry| entry.versions.iter().find(|it| it.version == version).cloned());
    match found {
        Some(found) => Ok(read::artifact(rows, found.artifact_id)?.map(|row| (found.version, row))),
        None => Ok(None),
    }
}

/// The job that is not over and needs the bytes of this version, if taking it away would delete them.
fn used_by(rows: &dyn Rows, name: &str, version: u64) -> Result<Option<String>, RowsError> {
    let Some((_, row)) = version_of(rows, name, version)? else { return Ok(None) };
    if !lives_by_names(&row) || read::names_of(rows, &row)?.len() > 1 {
        return Ok(None);
    }
    job_that_needs(rows, row.artifact_id)
}

/// A job that is not over and was submitted with this artifact. Reads the jobs, so it is asked only where something is to be deleted.
fn job_that_needs(rows: &dyn Rows, artifact_id: u64) -> Result<Option<String>, RowsError> {
    let (id, mut found) = (artifact_id.to_string(), None);
    views::job_rows(rows, |row: JobRow| {
        let job = row.get_job();
        let spec = job.get_spec();
        let (train, matmul) = (spec.get_train(), spec.get_matmul());
        let named = [
            &spec.get_task().bundle_artifact,
            &train.initial_model,
            &matmul.left,
            &matmul.right,
            &job.model_artifact,
            &job.state_artifact,
        ];
        if !job_end::is_over(job.phase) && named.contains(&&id) {
            found = Some(job.job_id.clone());
        }
        found.is_none()
    })?;
    Ok(found)
}

/// What RemoveArtifact speaks of.
enum Meant {
    /// These versions of a name, rising.
    Versions(String, Vec<u64>),
    /// The artifact itself.
    Id(u64),
}

fn meant(machine: &Machine<'_>, said: &str) -> Result<Meant, Fault> {
    let absent = || not_found("artifact", said);
    if let Ok(id) = said.parse() {
        return Ok(Meant::Id(id));
    }
    if let Some(model) = views::find_model(&machine.rows, said)? {
        return Ok(Meant::Id(model));
    }
    let (name, version) = said.rsplit_once('@').map_or((said, None), |(name, version)| (name, Some(version)));
    let entry = read::name(&machine.rows, name)?.filter(|entry| !entry.versions.is_empty()).ok_or_else(absent)?;
    let all: Vec<u64> = entry.versions.iter().map(|it| it.version).collect();
    let wanted = match version {
        None => all,
        Some("latest") => all.last().copied().into_iter().collect(),
        Some(number) => {
            let number: u64 = number.parse().map_err(|_| absent())?;
            all.into_iter().filter(|it| *it == number).collect()
        }
    };
    if wanted.is_empty() {
        return Err(absent());
    }
    Ok(Meant::Versions(name.to_owned(), wanted))
}

/// The reply names the artifact of the newest version that went, and how many went.
pub(crate) fn remove(machine: &mut Machine<'_>, command: &RemoveArtifact) -> Handled {
    let said = &command.artifact;
    check_bytes("artifact", said.len(), NAMED_BYTES_MAX)?;
    let (last, count) = match meant(machine, said)? {
        Meant::Id(id) => {
            let row = artifacts::get(machine, id)?;
            let names = read::names_of(&machine.rows, &row)?;
            if row.state == ArtifactState::ARTIFACT_DELETING {
                return Err(not_found("artifact", said));
            }
            if names.len() > 1 && !command.all {
                let list: Vec<String> = names.iter().map(|it| format!("{}@{}", it.name, it.version)).collect();
                return Err(precondition(format!("artifact {id} goes by {}; say that all are meant", list.join(", "))));
            }
            refuse_needed(job_that_needs(&machine.rows, id)?, said)?;
            artifacts::refuse_in_use(machine, &row)?;
            artifacts::start_deleting(machine, row)?;
            (id, names.len().max(1))
        }
        Meant::Versions(name, versions) => {
            if versions.len() > 1 && !command.all {
                let why = format!(
                    "{name} has {} versions; name one ({name}@{}), or say that all are meant",
                    versions.len(),
                    versions[0]
                );
                return Err(precondition(why));
            }
            let mut last = 0;
            for version in &versions {
                refuse_needed(used_by(&machine.rows, &name, *version)?, &format!("{name}@{version}"))?;
                last = take(machine, &name, *version)?;
            }
            (last, versions.len())
        }
    };
    Ok(CommandReply { id: last.to_string(), number: count as u64, ..machine.ok() })
}

fn refuse_needed(job: Option<String>, said: &str) -> Result<(), Fault> {
    match job {
        Some(job) => Err(precondition(format!("artifact {said} is needed by job {job}, which is not over"))),
        None => Ok(()),
    }
}

/// Another name of what is there. The reply names the artifact and the version; equal bytes as the newest version's are no new one.
pub(crate) fn name(machine: &mut Machine<'_>, command: &NameArtifact) -> Handled {
    check(&command.name)?;
    check_bytes("from", command.from.len(), NAMED_BYTES_MAX)?;
    let row =
        views::find_artifact(&machine.rows, &command.from)?.ok_or_else(|| not_found("artifact", &command.from))?;
    if let Some((version, newest)) = newest(&machine.rows, &command.name)? {
        if newest.digest == row.digest && newest.total_bytes == row.total_bytes {
            let id = newest.artifact_id;
            return Ok(CommandReply { id: id.to_string(), number: version, ..machine.existing(id) });
        }
    }
    let id = row.artifact_id;
    let version = give(machine, &command.name, row, true, command.keep)?;
    Ok(CommandReply { id: id.to_string(), number: version, ..machine.ok() })
}
