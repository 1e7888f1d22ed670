//! `gridctl cluster recover`: the last resort when a majority of the replicas is lost for good. Offline, on the data directory of one that is
//! left.

use std::path::Path;

use raftgrid_blob::coding::CODE_PLAIN_COPIES;
use raftgrid_blob::{file_number, FragmentStore};
use raftgrid_store::{recover, CommittedArtifact, Recovered, Recovery, StoreError};
use raftgrid_store_rocks::RocksDisk;
use serde_json::json;

use crate::backup::now_unix_s;
use crate::cli::Recover;
use crate::context::Context;
use crate::failure::{Failure, Result};

/// The only fragment of a plain copy.
const COPY: u32 = 0;
/// Lost artifacts that are named; more are counted.
const NAMED_MAX: usize = 10;

pub(crate) fn run(context: &Context, command: &Recover) -> Result<()> {
    let ask = |dry_run| Recovery { node_id: command.node_id, unix_s: now_unix_s(), dry_run };
    let seen = recover(RocksDisk::new(), &command.data_dir, ask(true)).map_err(refused)?;
    let lost = not_here(&command.data_dir, &seen.artifacts)?;
    warn(context, command, &seen, &lost);
    if !command.yes {
        return Err(Failure::new("nothing was changed", "the same command with --yes, once you have read this"));
    }
    let done = recover(RocksDisk::new(), &command.data_dir, ask(false)).map_err(refused)?;
    let json = json!({
        "node_id": command.node_id, "old_cluster_id": done.old_cluster_id, "cluster_id": done.cluster_id,
        "committed_index": done.committed, "last_index": done.last.0, "base_index": done.base.0, "base_term": done.base.1,
        "closed": done.closed, "changes_dropped": done.changes_dropped, "artifacts_lost": lost,
    });
    context.output.note("start it as usual; it leads alone");
    context.output.note(format!(
        "then bring in new replicas, under new ids and with empty directories: controld --join --cluster-id '{}' …, gridctl cluster add-learner",
        done.cluster_id
    ));
    let sentence = format!("replica {} is cluster {} now, alone", command.node_id, done.cluster_id);
    context.output.done(sentence, &json);
    Ok(())
}

fn refused(error: StoreError) -> Failure {
    Failure::new(error.to_string(), "controld stopped, --data-dir and --node-id of one replica that is left")
}

/// Artifacts that other replicas held, and this one does not: of a coded one it has a fragment at most, and needs two or more.
fn not_here(data_dir: &Path, artifacts: &[CommittedArtifact]) -> Result<Vec<u64>> {
    let unreadable =
        |error: raftgrid_blob::BlobError| Failure::new(error.to_string(), "the replica's own data directory");
    let store = FragmentStore::open(&data_dir.join("blobs")).map_err(unreadable)?;
    let copied = |it: &CommittedArtifact| it.code_id == CODE_PLAIN_COPIES;
    let here = |it: &CommittedArtifact| copied(it) && store.has(it.id, file_number(it.generation, COPY));
    Ok(artifacts.iter().filter(|it| !here(it)).map(|it| it.id).collect())
}

/// What this does, and what is lost by it, in plain words.
fn warn(context: &Context, command: &Recover, seen: &Recovered, lost: &[u64]) {
    let note = |text: String| context.output.note(text);
    let ids = |list: &[u64]| list.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let others: Vec<u64> = seen.voters.iter().copied().filter(|node| *node != command.node_id).collect();
    note(format!(
        "replica {} of cluster {} is to go on alone, without {}",
        command.node_id,
        seen.old_cluster_id,
        ids(&others)
    ));
    note(
        "do this only if a majority of the replicas is lost for good; if their disks are left, start them instead"
            .to_owned(),
    );
    note(format!(
        "kept: its whole log, up to index {} of term {}; known here to be committed: {}",
        seen.last.0, seen.last.1, seen.committed
    ));
    let tail = seen.last.0.saturating_sub(seen.committed);
    note(format!(
        "kept though not known to be committed: {tail} entries; clients may not have been told that these were done"
    ));
    note(format!(
        "lost: whatever was acknowledged by a majority without this replica, which is everything behind index {}; of several that are left, \
         recover the one with the highest term, and then the highest index",
        seen.last.0
    ));
    if seen.changes_dropped > 0 {
        note(format!("not made: {} changes of the membership that were under way", seen.changes_dropped));
    }
    if !lost.is_empty() {
        let named = ids(&lost[..lost.len().min(NAMED_MAX)]);
        note(format!(
            "lost: {} artifacts of {} cannot be read from this disk alone: {named}",
            lost.len(),
            seen.artifacts.len()
        ));
    }
    note(format!(
        "destroy the data directories of the others ({}): they are refused from now on, their ids are never used again, and a majority of \
         them started together would go on as the old cluster",
        ids(&seen.closed)
    ));
}
