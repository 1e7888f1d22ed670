//! Values of keys that stand beside the log: their bytes take the road of artifacts, and one command commits them and sets the key.
//!
//! What crosses the network one after another on the way in: BeginArtifact to the voters and back; the fragments, all at once, and their
//! receipts; the command that sets the key, and back. On a replica that does not lead, the two commands go by way of the leader.

use std::sync::Arc;

use raftgrid_manifest::limits::{KV_BESIDE_BYTES_MAX, KV_LOGGED_BYTES_MAX, KV_VALUE_BYTES_MAX};
use raftgrid_manifest::{views as rows, BESIDE_SINCE};
use raftgrid_proto::v1::{CommandReply, Consistency, KvRow, Outcome, Receipt};
use raftgrid_replica::ports::{CallError, Purpose, ReadView, Uploaded};

use crate::calls::read;
use crate::context::{Context, Core};
use crate::failure::{invalid, Answer, Failure};
use crate::{limits, validate, views};

/// A value on its way into a command.
#[derive(Debug, Default)]
pub(crate) struct Value {
    /// In the log; empty if it is beside.
    pub(crate) logged: Vec<u8>,
    /// Of the artifact that has it; 0: it is in the log.
    pub(crate) artifact_id: u64,
    pub(crate) receipts: Vec<Receipt>,
    /// SHA-256 of what is beside the log.
    pub(crate) digest: Vec<u8>,
}

/// The value as a command takes it: one that is too large for the log is durable on the replicas when this returns.
pub(crate) async fn place(core: &Arc<Core>, context: &Context, field: &str, value: Vec<u8>) -> Answer<Value> {
    if value.len() > KV_VALUE_BYTES_MAX {
        let known = views::machine_version(&*read(core, Consistency::LOCAL).await?.rows)? >= BESIDE_SINCE;
        validate::size(field, value.len(), if known { KV_BESIDE_BYTES_MAX } else { KV_VALUE_BYTES_MAX })?;
    }
    if value.len() <= KV_LOGGED_BYTES_MAX {
        return Ok(Value { logged: value, ..Value::default() });
    }
    let _permit = core.uploads.admit()?;
    let (bytes, caller, total) = (core.ports.bytes.clone(), context.caller.clone(), value.len() as u64);
    let (sender, answered) = futures::channel::oneshot::channel();
    core.data
        .run(move || {
            let mut upload = bytes.begin(&caller, Purpose::Value, Some(total), None)?;
            upload.write(&value)?;
            upload.finish(
                None,
                Box::new(move |outcome| {
                    let _ = sender.send(outcome);
                }),
            );
            Ok::<(), CallError>(())
        })
        .await??;
    match answered.await.unwrap_or(Err(CallError::Unknown))? {
        Uploaded::Value { artifact_id, receipts, digest } => {
            Ok(Value { logged: Vec::new(), artifact_id, receipts, digest: digest.to_vec() })
        }
        Uploaded::Ack(_) | Uploaded::Artifact { .. } => {
            Err(Failure::from(CallError::Internal("the replica took a value for something else".to_owned())))
        }
    }
}

/// The command was answered: if it did not take the value that was brought for it, the bytes may go at once. Without an answer they expire.
pub(crate) async fn settle(core: &Arc<Core>, artifact_id: u64, reply: &CommandReply) {
    if artifact_id == 0 || reply.get_outcome() == Outcome::OK {
        return;
    }
    let bytes = core.ports.bytes.clone();
    // If nobody can do it now, they expire as well.
    let _ = core.data.run(move || bytes.give_up(artifact_id)).await;
}

/// The row's value: None if it was deleted meanwhile, since the key has another one, or none.
pub(crate) async fn of_row(core: &Arc<Core>, row: &mut KvRow) -> Answer<Option<Vec<u8>>> {
    if row.get_artifact_id() == 0 {
        return Ok(Some(std::mem::take(&mut row.value)));
    }
    match fetch(core, row.get_artifact_id()).await {
        Ok(value) => Ok(Some(value)),
        Err(failure) => {
            // Its bytes go with the key: look whether it still is what it was.
            let view = read(core, Consistency::LOCAL).await?;
            match rows::kv(&*view.rows, row.get_key())? {
                Some(now) if now.get_artifact_id() == row.get_artifact_id() => Err(failure),
                Some(_) | None => Ok(None),
            }
        }
    }
}

/// The bytes of a value, gathered and verified.
pub(crate) async fn fetch(core: &Arc<Core>, artifact_id: u64) -> Answer<Vec<u8>> {
    let _permit = core.downloads.admit()?;
    let bytes = core.ports.bytes.clone();
    let read = move || {
        let mut download = bytes.open_artifact(&artifact_id.to_string())?;
        let length = usize::try_from(download.total_bytes()).ok().filter(|length| *length <= KV_BESIDE_BYTES_MAX);
        let length = length.ok_or_else(|| CallError::Internal(format!("artifact {artifact_id} is no value")))?;
        let mut value = vec![0; length];
        match download.read_at(0, &mut value)? {
            got if got == length => Ok(value),
            got => Err(CallError::Internal(format!("artifact {artifact_id} ends at {got} instead of {length}"))),
        }
    };
    Ok(core.data.run(read).await??)
}

/// The key's row with its value in it, in rows as `next` gives them; it is asked again while the value is overwritten under the reader's hands.
pub(crate) async fn current<F>(core: &Arc<Core>, key: &str, next: impl Fn() -> F) -> Answer<(ReadView, Option<KvRow>)>
where
    F: std::future::Future<Output = Answer<ReadView>>,
{
    for _ in 0..limits::VALUE_READS_MAX {
        let view = next().await?;
        let Some(mut row) = rows::kv(&*view.rows, key)? else { return Ok((view, None)) };
        if let Some(value) = of_row(core, &mut row).await? {
            row.value = value;
            return Ok((view, Some(row)));
        }
    }
    Err(Failure::from(CallError::Unavailable(format!("key {key} is overwritten faster than it can be read"))))
}

/// A value as text, for clients that know no other: not if it stands beside the log, where it would be in the message twice.
pub(crate) fn text(row: &KvRow) -> String {
    match row.get_artifact_id() {
        0 => std::str::from_utf8(row.get_value()).unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

/// INVALID_ARGUMENT if no version takes so large a value.
pub(crate) fn check(field: &str, value: &[u8]) -> Answer<()> {
    if value.len() > KV_BESIDE_BYTES_MAX {
        let why = format!("{} bytes; at most {KV_BESIDE_BYTES_MAX} fit, put more into an artifact", value.len());
        return Err(invalid(field, why));
    }
    Ok(())
}
