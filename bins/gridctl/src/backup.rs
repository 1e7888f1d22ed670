//! `gridctl cluster backup`: a consistent snapshot of one replica and the bytes of every artifact that is committed in it, while the cluster
//! runs. Nothing is stopped or held up for it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use raftgrid_client::{BackupTarget, Client, ClientError};
use raftgrid_manifest::views;
use raftgrid_proto::v1::{ArtifactRow, ArtifactState, BackupHead};
use raftgrid_store::{is_plain_name, StateRows};
use raftgrid_store_rocks::RocksDisk;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::backup_format::{artifact, Kept, Manifest, StateFile, ARTIFACTS, MANIFEST, STATE};
use crate::context::{exit_on_interrupt, Context};
use crate::failure::{Failure, Result};
use crate::limits::BACKUP_PASSES_MAX;
use crate::output::{hex, thousands, Progress};

/// Unix seconds.
pub(crate) fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub(crate) fn run(context: &Context, target: &Path) -> Result<()> {
    exit_on_interrupt();
    if fs::symlink_metadata(target).is_ok_and(|about| !about.is_dir() || !is_empty(target)) {
        return Err(Failure::new(format!("{} exists already", target.display()), "a name that is free"));
    }
    let client = context.client()?;
    let as_tar = target.extension().is_some_and(|ending| ending == "tar");
    let folder = if as_tar { beside(target, ".d") } else { target.to_path_buf() };
    let made = make(context, &client, &folder)?;
    if as_tar {
        pack(&folder, target).map_err(|error| write_failed(target, &error))?;
    }
    let artifact_bytes: u64 = made.artifacts.iter().map(|kept| kept.bytes).sum();
    let state_bytes: u64 = made.state.iter().map(|file| file.bytes).sum();
    let json = json!({
        "backup": target, "cluster_id": made.cluster_id, "index": made.index, "term": made.term,
        "state_bytes": state_bytes, "artifacts": made.artifacts.len(), "artifact_bytes": artifact_bytes,
        "state_digest": made.state_digest,
    });
    let sentence = format!(
        "{}: everything up to index {}, {} bytes of state, {} artifacts with {} bytes",
        target.display(),
        made.index,
        thousands(u128::from(state_bytes)),
        made.artifacts.len(),
        thousands(u128::from(artifact_bytes))
    );
    context.output.done(sentence, &json);
    Ok(())
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn write_failed(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("failed to write {}: {error}", path.display()), "a path that you may write, with room")
}

/// A snapshot, then its artifacts. One that the cluster has deleted since (a job that goes on lets its old gradients go) needs a newer
/// snapshot: only what is new is fetched for it.
fn make(context: &Context, client: &Client, folder: &Path) -> Result<Manifest> {
    let made_unix_s = now_unix_s();
    fs::create_dir_all(folder.join(ARTIFACTS)).map_err(|error| write_failed(folder, &error))?;
    let mut have: BTreeMap<u64, Kept> = BTreeMap::new();
    for _ in 0..BACKUP_PASSES_MAX {
        let mut manifest = Manifest::made_now(made_unix_s);
        let rows = snapshot(context, client, folder, &mut manifest)?;
        let wanted: BTreeSet<u64> = rows.iter().map(|row| row.artifact_id).collect();
        let missing = fetch_all(context, client, folder, rows, &mut have)?;
        if missing > 0 {
            context.output.note(format!("{missing} artifacts were deleted meanwhile; taking a newer snapshot"));
            continue;
        }
        for id in have.keys().filter(|id| !wanted.contains(id)) {
            fs::remove_file(artifact(folder, *id)).map_err(|error| write_failed(folder, &error))?;
        }
        have.retain(|id, _| wanted.contains(id));
        manifest.artifacts = have.into_values().collect();
        seal(folder, &manifest).map_err(|error| write_failed(folder, &error))?;
        return Ok(manifest);
    }
    Err(Failure::new(
        format!("the cluster deletes artifacts faster than they can be fetched ({BACKUP_PASSES_MAX} tries)"),
        "again when fewer jobs run, or from a machine nearer to the cluster",
    ))
}

/// Fetches a snapshot into `state/`; the rows of the artifacts that are committed in it.
fn snapshot(context: &Context, client: &Client, folder: &Path, manifest: &mut Manifest) -> Result<Vec<ArtifactRow>> {
    let mut target = Files { folder: folder.join(STATE), open: None, done: Vec::new() };
    let progress = Progress::bytes("state", context.output);
    let head = client.backup(&mut target, &mut |done, all| progress.set(done, all));
    progress.finish();
    let head = head?;
    let unreadable = |cause: String| {
        Failure::new(format!("the snapshot of replica {} cannot be read: {cause}", head.get_node_id()), "its log")
    };
    let look = RocksDisk::new().look_at(&target.folder).map_err(|error| unreadable(error.to_string()))?;
    let rows = StateRows::over(look);
    let stands = rows.stands().map_err(|error| unreadable(error.to_string()))?;
    if stands != (head.get_index(), head.get_term()) {
        return Err(unreadable(format!("it stands at {stands:?}, not at {:?}", (head.get_index(), head.get_term()))));
    }
    let failed = |error: raftgrid_manifest::RowsError| unreadable(error.to_string());
    head.get_cluster_id().clone_into(&mut manifest.cluster_id);
    manifest.node_id = head.get_node_id();
    (manifest.index, manifest.term) = stands;
    manifest.machine_version = views::meta(&rows).map_err(failed)?.machine_version;
    manifest.state_digest = hex(&views::digest(&rows).map_err(failed)?);
    manifest.state = target.done;
    let mut committed = Vec::new();
    let visit = |row: ArtifactRow| {
        if row.state == ArtifactState::ARTIFACT_COMMITTED {
            committed.push(row);
        }
        true
    };
    views::artifact_rows(&rows, visit).map_err(failed)?;
    Ok(committed)
}

/// Fetches what is not here yet; how many are not there any more.
fn fetch_all(
    context: &Context,
    client: &Client,
    folder: &Path,
    rows: Vec<ArtifactRow>,
    have: &mut BTreeMap<u64, Kept>,
) -> Result<usize> {
    let progress = Progress::bytes("artifacts", context.output);
    let all = rows.iter().map(|row| row.total_bytes).sum();
    let (mut missing, mut done) = (0, 0);
    // The newest first: those are the last that a job lets go, and what goes meanwhile is seen at the end.
    for row in rows.iter().rev() {
        if let Entry::Vacant(place) = have.entry(row.artifact_id) {
            match fetch(client, folder, row)? {
                Some(kept) => drop(place.insert(kept)),
                None => missing += 1,
            }
        }
        done += row.total_bytes;
        progress.set(done, all);
    }
    progress.finish();
    Ok(missing)
}

/// None: the cluster has deleted it.
fn fetch(client: &Client, folder: &Path, row: &ArtifactRow) -> Result<Option<Kept>> {
    let path = artifact(folder, row.artifact_id);
    let part = beside(&path, ".part");
    let failed = |error: io::Error| write_failed(&path, &error);
    let mut target = File::create(&part).map_err(failed)?;
    match client.get_artifact(&row.artifact_id.to_string(), &mut target, &mut |_, _| ()) {
        Ok(head) if head.digest == row.digest && head.total_bytes == row.total_bytes => {}
        Ok(_) => {
            let cause = format!("artifact {} is not what its row says", row.artifact_id);
            return Err(Failure::new(cause, "gridctl artifact ls, and the replicas' logs"));
        }
        Err(ClientError::NotFound(_)) => {
            fs::remove_file(&part).map_err(failed)?;
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    }
    target.sync_all().and_then(|()| fs::rename(&part, &path)).map_err(failed)?;
    Ok(Some(Kept { artifact: row.artifact_id, bytes: row.total_bytes, sha256: hex(&row.digest) }))
}

/// The manifest comes last: without it there is no backup.
fn seal(folder: &Path, manifest: &Manifest) -> io::Result<()> {
    for name in [STATE, ARTIFACTS] {
        File::open(folder.join(name))?.sync_all()?;
    }
    let part = folder.join("manifest.part");
    let mut file = File::create(&part)?;
    file.write_all(&serde_json::to_vec_pretty(manifest)?)?;
    file.sync_all()?;
    fs::rename(&part, folder.join(MANIFEST))?;
    File::open(folder)?.sync_all()
}

/// The folder as one file.
fn pack(folder: &Path, target: &Path) -> io::Result<()> {
    let part = beside(target, ".part");
    let mut tar = tar::Builder::new(File::create(&part)?);
    tar.append_path_with_name(folder.join(MANIFEST), MANIFEST)?;
    for name in [STATE, ARTIFACTS] {
        tar.append_dir_all(name, folder.join(name))?;
    }
    tar.into_inner()?.sync_all()?;
    fs::rename(&part, target)?;
    fs::remove_dir_all(folder)
}

/// Files of a snapshot on this disk.
struct Files {
    folder: PathBuf,
    open: Option<(File, Sha256, u64)>,
    done: Vec<StateFile>,
}

impl BackupTarget for Files {
    fn begin(&mut self, _: &BackupHead) -> io::Result<()> {
        self.open = None;
        self.done.clear();
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(&self.folder)
    }

    fn write(&mut self, file: &str, data: &[u8], last: bool) -> io::Result<()> {
        if !is_plain_name(file) {
            return Err(io::Error::other(format!("{file:?} is not a plain file name")));
        }
        let (mut open, mut hash, bytes) = match self.open.take() {
            Some(open) => open,
            None => (File::create_new(self.folder.join(file))?, Sha256::new(), 0),
        };
        open.write_all(data)?;
        hash.update(data);
        let bytes = bytes + data.len() as u64;
        if last {
            open.sync_all()?;
            self.done.push(StateFile { name: file.to_owned(), bytes, sha256: hex(&hash.finalize()) });
        } else {
            self.open = Some((open, hash, bytes));
        }
        Ok(())
    }
}
