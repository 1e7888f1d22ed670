//! Every acknowledged gradient, one line of JSON each, noted before Python hears of it: to be held against the ledger.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use raftgrid_proto::v1::{Ack, AckOutcome, GradientChunk};
use serde_json::json;

/// The file of acknowledgements.
pub(crate) struct Acks {
    file: Mutex<File>,
}

impl Acks {
    /// Appends to what an earlier worker noted.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file: Mutex::new(file) })
    }

    /// Notes the answer to a gradient.
    pub(crate) fn note(&self, head: &GradientChunk, ack: &Ack) -> std::io::Result<()> {
        let digest: String = head.get_digest().iter().map(|byte| format!("{byte:02x}")).collect();
        let line = json!({
            "job": head.get_job_id(), "round": head.get_round(), "shard": head.get_shard(), "digest": digest,
            "outcome": outcome_name(ack.get_outcome()), "success": ack.get_success(), "position": ack.get_position(),
            "task": head.get_task_id(), "epoch": head.get_lease_epoch(),
        });
        // One write, so that a kill leaves whole lines.
        let line = format!("{line}\n");
        self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner).write_all(line.as_bytes())
    }
}

fn outcome_name(outcome: AckOutcome) -> &'static str {
    match outcome {
        AckOutcome::ACK_ACCEPTED => "ACCEPTED",
        AckOutcome::ACK_DUPLICATE => "DUPLICATE",
        AckOutcome::ACK_STALE => "STALE",
        AckOutcome::ACK_REJECTED => "REJECTED",
        AckOutcome::ACK_MISMATCH => "MISMATCH",
    }
}
