//! Backup: a snapshot of this replica as a stream. What artifacts hold does not come this way: they are fetched by their ids.

use std::sync::Arc;

use raftgrid_proto::v1::*;
use raftgrid_replica::ports::{CallError, SnapshotOut};
use raftgrid_rpc::chunk::CHUNK_BYTES_MAX;
use raftgrid_rpc::methods;

use crate::calls::{ask, read_at, Outgoing, Surface};
use crate::context::{Context, Core};
use crate::failure::{Answer, Failure};

pub(crate) fn register(surface: Surface) -> Surface {
    surface.server_streaming(&methods::CLUSTER_BACKUP, backup)
}

async fn backup(
    core: Arc<Core>,
    _: Context,
    request: BackupRequest,
    mut sink: Outgoing<BackupChunk>,
) -> (Outgoing<BackupChunk>, Answer<()>) {
    let answer = send(&core, request.get_min_index(), &mut sink).await;
    (sink, answer)
}

async fn send(core: &Arc<Core>, min_index: u64, sink: &mut Outgoing<BackupChunk>) -> Answer<()> {
    let _permit = core.downloads.admit()?;
    // A replica that is behind waits a while for what it is asked for.
    let view = read_at(core, min_index << 16).await?;
    if view.position >> 16 < min_index {
        let why = format!("this replica has applied {}, and {min_index} is asked for", view.position >> 16);
        return Err(Failure::from(CallError::Unavailable(why)));
    }
    let index = ask(|done| core.ports.cluster.snapshot(done)).await?;
    let cluster = core.ports.cluster.clone();
    let mut snapshot = core.data.run(move || cluster.open_snapshot(index.max(min_index))).await??;
    let files = snapshot.files();
    let mut head = Some(head(core, &*snapshot, &files));
    sink.pack();
    for (number, (name, bytes)) in files.iter().enumerate() {
        let (mut at, bytes) = (0, *bytes);
        loop {
            let file = name.clone();
            let (back, data) = core.data.run(move || read_piece(snapshot, &file, at, bytes)).await??;
            snapshot = back;
            let mut chunk = BackupChunk::new();
            if let Some(head) = head.take() {
                chunk.set_head(head);
            }
            chunk.set_file(name.clone());
            chunk.set_offset(at);
            chunk.set_crc32c(crc32c::crc32c(&data));
            at += data.len() as u64;
            chunk.set_data(data);
            chunk.set_last_of_file(at == bytes);
            chunk.set_last(at == bytes && number + 1 == files.len());
            sink.feed(chunk).await?;
            if at == bytes {
                break;
            }
        }
    }
    Ok(())
}

fn head(core: &Core, snapshot: &dyn SnapshotOut, files: &[(String, u64)]) -> BackupHead {
    let state = core.ports.cluster.state();
    let (index, term) = snapshot.stands();
    let mut head = BackupHead::new();
    head.set_cluster_id(state.get_cluster_id().to_owned());
    head.set_node_id(state.get_node_id());
    head.set_index(index);
    head.set_term(term);
    head.set_total_bytes(files.iter().map(|(_, bytes)| bytes).sum());
    head
}

type ReadPiece = (Box<dyn SnapshotOut>, Vec<u8>);

fn read_piece(mut snapshot: Box<dyn SnapshotOut>, file: &str, at: u64, bytes: u64) -> Answer<ReadPiece> {
    let wanted = usize::try_from((bytes - at).min(CHUNK_BYTES_MAX as u64)).unwrap_or(CHUNK_BYTES_MAX);
    let data = snapshot.read(file, at, wanted)?;
    if data.len() != wanted {
        let why = format!("{file} of the snapshot ends at {} instead of {bytes}", at + data.len() as u64);
        return Err(Failure::from(CallError::Internal(why)));
    }
    Ok((snapshot, data))
}
