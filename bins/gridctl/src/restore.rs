//! `gridctl cluster restore`: data directories of a new cluster out of a backup, offline. Each is then carried to its machine and started as a
//! founder is.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use raftgrid_blob::{placement, FragmentStore};
use raftgrid_manifest::{refound, MACHINE_VERSION};
use raftgrid_proto::v1::{ArtifactRow, MemberRow};
use raftgrid_settings::founding;
use raftgrid_store::{new_cluster_id, restore, Disk, Restoration, RestoreFile, Restored};
use raftgrid_store_rocks::RocksDisk;
use serde_json::json;

use crate::backup::now_unix_s;
use crate::backup_format::{artifact, Kept, Manifest, STATE};
use crate::cli::Restore;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::{hex, Progress};

/// Read at once.
const PIECE_BYTES: usize = 1 << 20;
/// The only fragment of a plain copy.
const COPY: u32 = 0;

pub(crate) fn run(context: &Context, command: &Restore) -> Result<()> {
    let members = founders(&command.peers)?;
    let ids: Vec<u64> = members.iter().map(|row| row.node_id).collect();
    for id in &ids {
        let dir = directory(&command.into, *id);
        if fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Failure::new(format!("{} is not empty", dir.display()), "another --into"));
        }
    }
    fs::create_dir_all(&command.into).map_err(|error| failed(&command.into, &error.to_string()))?;
    let unpacked = unpacked(&command.backup, &command.into)?;
    let folder = unpacked.as_ref().map_or(command.backup.as_path(), tempfile::TempDir::path);
    let manifest = Manifest::read(folder)?;
    if manifest.machine_version > MACHINE_VERSION {
        let cause = format!(
            "the backup is of machine version {}, this gridctl knows {MACHINE_VERSION}",
            manifest.machine_version
        );
        return Err(Failure::new(cause, "the gridctl and controld of the version that made it, or newer ones"));
    }
    let progress = Progress::bytes("verifying", context.output);
    let all: u64 =
        manifest.state.iter().map(|file| file.bytes).chain(manifest.artifacts.iter().map(|kept| kept.bytes)).sum();
    let mut done = 0;
    let verified = manifest.verify(folder, &mut |bytes| {
        done += bytes;
        progress.set(done, all);
    });
    progress.finish();
    verified?;
    let disk = RocksDisk::new();
    let founded_as = founding::cluster_id(&command.cluster_name, &ids);
    let plan = Founders {
        cluster_id: new_cluster_id(&founded_as, disk.nonce()),
        founded_as,
        members,
        ids,
        unix_s: now_unix_s(),
        folder,
        manifest: &manifest,
    };
    let mut made: Vec<(PathBuf, Restored)> = Vec::new();
    for id in &plan.ids {
        let dir = directory(&command.into, *id);
        let restored = plan.make(&disk, *id, &dir).map_err(|cause| failed(&dir, &cause))?;
        made.push((dir, restored));
    }
    let (_, first) = &made[0];
    if made.iter().any(|(_, restored)| restored != first) {
        return Err(failed(&command.into, "the founders' states differ; this is a defect of raftgrid"));
    }
    say(context, command, &plan, &made);
    Ok(())
}

fn failed(path: &Path, cause: &str) -> Failure {
    Failure::new(
        format!("failed to restore into {}: {cause}", path.display()),
        "an empty --into with room, and a whole backup",
    )
}

fn directory(into: &Path, node: u64) -> PathBuf {
    into.join(format!("controld-{node}"))
}

/// `ID=RAFT/CLIENT`, by commas: what the founders are then started with.
fn founders(list: &str) -> Result<Vec<MemberRow>> {
    let mut members: Vec<MemberRow> = Vec::new();
    for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let bad = || Failure::usage(format!("`{item}` is no founder"), "--peers ID=RAFT_HOST:PORT/CLIENT_HOST:PORT,…");
        let (id, addresses) = item.split_once('=').ok_or_else(bad)?;
        let (raft, client) = addresses.split_once('/').ok_or_else(bad)?;
        let mut row = MemberRow::new();
        row.set_node_id(id.parse().ok().filter(|id| *id > 0).ok_or_else(bad)?);
        row.set_raft_address(raft.to_owned());
        row.set_client_address(client.to_owned());
        if members.iter().any(|other| other.node_id == row.node_id) {
            return Err(Failure::usage(format!("replica {id} is listed twice"), "a number of its own for each"));
        }
        members.push(row);
    }
    members.sort_by_key(|row| row.node_id);
    match members.is_empty() {
        true => Err(Failure::usage("no founder is given", "--peers ID=RAFT_HOST:PORT/CLIENT_HOST:PORT,…")),
        false => Ok(members),
    }
}

/// A tar file is unpacked beside what is made of it; None: it is a directory already.
fn unpacked(backup: &Path, into: &Path) -> Result<Option<tempfile::TempDir>> {
    if backup.is_dir() {
        return Ok(None);
    }
    let unreadable = |error: std::io::Error| {
        Failure::new(format!("failed to read the backup {}: {error}", backup.display()), "the path of a backup")
    };
    let file = File::open(backup).map_err(unreadable)?;
    let folder = tempfile::Builder::new().prefix(".backup-").tempdir_in(into).map_err(unreadable)?;
    tar::Archive::new(file).unpack(folder.path()).map_err(unreadable)?;
    Ok(Some(folder))
}

/// What all founders have in common.
struct Founders<'a> {
    cluster_id: String,
    founded_as: String,
    members: Vec<MemberRow>,
    ids: Vec<u64>,
    unix_s: u64,
    folder: &'a Path,
    manifest: &'a Manifest,
}

impl Founders<'_> {
    /// As many copies as the new group's size asks for, spread over it.
    fn holders(&self, artifact: u64) -> Vec<u64> {
        let mut holders = placement::candidates(0, &self.ids, artifact >> 16);
        holders.truncate(placement::copies(self.ids.len()));
        holders
    }

    fn make(&self, disk: &RocksDisk, node_id: u64, dir: &Path) -> std::result::Result<Restored, String> {
        let plan = Restoration {
            cluster_id: self.cluster_id.clone(),
            founded_as: self.founded_as.clone(),
            node_id,
            founders: &self.ids,
            stands: (self.manifest.index, self.manifest.term),
            unix_s: self.unix_s,
            settle: &|rows| refound::settle(rows, &self.members, &|row: &ArtifactRow| self.holders(row.artifact_id)),
        };
        let state = self.folder.join(STATE);
        let files = self.manifest.state.iter().map(|file| {
            let path = state.join(&file.name);
            let content = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(RestoreFile { name: file.name.clone(), content: Box::new(content) })
        });
        let bytes = || {
            let store = FragmentStore::open(&dir.join("blobs")).map_err(|error| error.to_string())?;
            let own = self.manifest.artifacts.iter().filter(|kept| self.holders(kept.artifact).contains(&node_id));
            own.into_iter().try_for_each(|kept| put(&store, self.folder, kept))
        };
        restore(disk.clone(), dir, &plan, files, bytes).map_err(|error| error.to_string())
    }
}

/// One copy, verified and durable.
fn put(store: &FragmentStore, folder: &Path, kept: &Kept) -> std::result::Result<(), String> {
    let path = artifact(folder, kept.artifact);
    let unreadable = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = File::open(&path).map_err(unreadable)?;
    let mut writer = store.create().map_err(|error| error.to_string())?;
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut buffer).map_err(unreadable)? {
            0 => break,
            read => writer.write(&buffer[..read]).map_err(|error| error.to_string())?,
        }
    }
    let digest = writer.finish(Some(kept.bytes), None).map_err(|error| error.to_string())?;
    if hex(&digest) != kept.sha256 {
        return Err(format!("{} has changed while it was read", path.display()));
    }
    store.keep(writer, kept.artifact, COPY).map_err(|error| error.to_string())
}

fn say(context: &Context, command: &Restore, plan: &Founders<'_>, made: &[(PathBuf, Restored)]) {
    let (_, first) = &made[0];
    let output = context.output;
    for (id, (dir, _)) in plan.ids.iter().zip(made) {
        output.note(format!("replica {id}: {}", dir.display()));
    }
    output.note(format!(
        "start each with: controld --node-id N --cluster-name {} --data-dir DIR --peers '{}' …",
        command.cluster_name, command.peers
    ));
    output.note(format!("replicas that join later need --cluster-id '{}', too", plan.cluster_id));
    let json = json!({
        "cluster_id": plan.cluster_id, "from_cluster_id": plan.manifest.cluster_id, "from_index": plan.manifest.index,
        "base_index": first.base.0, "base_term": first.base.1, "artifacts": plan.manifest.artifacts.len(),
        "leases_ended": first.leases_ended, "state_digest": hex(&first.digest),
        "directories": made.iter().map(|(dir, _)| dir).collect::<Vec<_>>(),
    });
    let sentence = format!(
        "everything up to index {} of cluster {} is restored, {} artifacts; {} leases were ended, their tasks are tried again",
        plan.manifest.index,
        plan.manifest.cluster_id,
        plan.manifest.artifacts.len(),
        first.leases_ended
    );
    output.done(sentence, &json);
}
