//! Bytes on their way in: spooled to this disk, checked, then ended by what they are for: an artifact here, a gradient or model 0 in files of
//! their own.
//!
//! What follows the last byte runs on the pool of uploads, not on the caller's thread; who waits for a change (a replica that is behind, a
//! job without model 0) waits in the ring and holds no thread at all, only a place in the pool's queue.

use std::sync::Arc;

use raftgrid_blob::FragmentWriter;
use raftgrid_crashpoint::{reach, Point};
use raftgrid_manifest::NAMES_SINCE;
use raftgrid_proto::v1::{Command, CommandReply, Command_oneof_kind, CommitArtifact, Outcome};

use crate::artifacts::{blob_failed, Artifacts, Description};
use crate::first_model::FirstModel;
use crate::gradients::Gradient;
use crate::limits::TENSOR_BYTES_MAX;
use crate::models::Models;
use crate::ports::{ArtifactMeta, CallError, Callback, Caller, Purpose, Upload, Uploaded};
use crate::proposals::Proposals;
use crate::waits::Waits;

/// What uploads work with.
#[derive(Clone)]
pub(crate) struct Uploads {
    /// Bytes.
    pub artifacts: Arc<Artifacts>,
    /// Models to check against.
    pub models: Arc<Models>,
    /// Writes.
    pub proposals: Arc<Proposals>,
    /// Where they wait, and where they end.
    pub waits: Waits,
}

/// A whole body on this disk, its digest verified.
pub(crate) struct Body {
    /// Its file.
    pub writer: FragmentWriter,
    /// SHA-256.
    pub digest: [u8; 32],
}

impl Uploads {
    /// Starts an upload; see `ports::Bytes`.
    pub(crate) fn begin(
        &self,
        caller: &Caller,
        purpose: Purpose,
        total_bytes: Option<u64>,
        digest: Option<Vec<u8>>,
    ) -> Result<Box<dyn Upload>, CallError> {
        let tensors = !matches!(purpose, Purpose::Artifact(_) | Purpose::Value);
        if tensors && total_bytes.is_some_and(|total| total > TENSOR_BYTES_MAX) {
            return Err(CallError::Invalid(format!("total_bytes: the limit is {TENSOR_BYTES_MAX}")));
        }
        self.proposals.room.check()?;
        if self.artifacts.settings.principal_bytes_max != 0 {
            let (rows, _) = self.artifacts.views.view();
            self.artifacts.settings.check_principal(rows.as_ref(), &caller.principal, total_bytes.unwrap_or(0))?;
        }
        let files = &self.artifacts.files;
        let writer =
            total_bytes.map_or_else(|| files.create(), |total| files.create_for(total)).map_err(blob_failed)?;
        Ok(Box::new(Incoming { uploads: self.clone(), caller: caller.clone(), purpose, total_bytes, digest, writer }))
    }

    /// One command, its reply. Blocks.
    pub(crate) fn propose(&self, principal: &str, kind: Command_oneof_kind) -> Result<CommandReply, CallError> {
        let mut command = Command::new();
        command.set_principal(principal.to_owned());
        command.kind = Some(kind);
        self.proposals.propose_one(command)
    }

    fn end_value(&self, principal: String, body: Body) -> Result<Uploaded, CallError> {
        let description = Description { kind: "value".to_owned(), principal, ..Description::default() };
        let placed = self.artifacts.place(&description, body.writer, body.digest)?;
        Ok(Uploaded::Value { artifact_id: placed.artifact_id, receipts: placed.receipts, digest: placed.digest })
    }

    fn end_artifact(&self, principal: String, meta: ArtifactMeta, body: Body) -> Result<Uploaded, CallError> {
        let digest = body.digest;
        let known = self.artifacts.version() >= NAMES_SINCE;
        if meta.keep != 0 && !known {
            let why = format!("keep: names have versions from machine version {NAMES_SINCE} on");
            return Err(CallError::Precondition(why));
        }
        let versioned = meta.versioned && known;
        let description = Description {
            name: meta.name,
            kind: meta.kind,
            principal,
            versioned,
            keep: meta.keep,
            ..Description::default()
        };
        let placed = self.artifacts.place(&description, body.writer, digest)?;
        let (begun, brought) = (placed.artifact_id, !placed.receipts.is_empty());
        let mut commit = CommitArtifact::new();
        commit.set_artifact_id(begun);
        commit.set_receipts(placed.receipts.into());
        let mut command = Command::new();
        command.set_principal(description.principal.clone());
        if versioned {
            commit.set_name(description.name.clone());
            commit.set_digest(digest.to_vec());
            command.set_request_id(meta.request_id);
        }
        command.kind = Some(Command_oneof_kind::commit_artifact(commit));
        let reply = self.proposals.propose_one(command)?;
        match reply.outcome {
            Outcome::OK | Outcome::EXISTING => {
                let artifact_id = reply.id.parse().unwrap_or(begun);
                if artifact_id != begun && brought {
                    // An earlier try, or somebody else, was first; what was sent now is nobody's.
                    self.artifacts.abandon(begun);
                }
                let version = if known { reply.number } else { 0 };
                let existing = reply.outcome == Outcome::EXISTING;
                Ok(Uploaded::Artifact { artifact_id, digest, version, existing })
            }
            Outcome::EXHAUSTED => Err(CallError::Exhausted(reply.message)),
            Outcome::INVALID => Err(CallError::Invalid(reply.message)),
            _ => Err(CallError::Precondition(reply.message)),
        }
    }
}

struct Incoming {
    uploads: Uploads,
    caller: Caller,
    purpose: Purpose,
    total_bytes: Option<u64>,
    digest: Option<Vec<u8>>,
    writer: FragmentWriter,
}

impl Upload for Incoming {
    fn write(&mut self, data: &[u8]) -> Result<(), CallError> {
        let tensors = !matches!(self.purpose, Purpose::Artifact(_) | Purpose::Value);
        if tensors && self.writer.total_bytes() + data.len() as u64 > TENSOR_BYTES_MAX {
            return Err(CallError::Invalid(format!("the stream is longer than {TENSOR_BYTES_MAX} bytes")));
        }
        self.writer.write(data).map_err(blob_failed)
    }

    fn finish(mut self: Box<Self>, digest: Option<Vec<u8>>, done: Callback<Uploaded>) {
        let announced = digest.or(self.digest.take());
        let found = match self.writer.finish(self.total_bytes, announced.as_deref()) {
            Ok(found) => found,
            Err(error) => return done(Err(blob_failed(error))),
        };
        reach(Point::UploadReceived);
        match self.uploads.waits.place() {
            Ok(place) => place.run(Box::new(move || self.end(found, done))),
            Err(full) => done(Err(full)),
        }
    }
}

impl Incoming {
    fn end(self, digest: [u8; 32], done: Callback<Uploaded>) {
        let (uploads, caller, body) = (self.uploads, self.caller, Body { writer: self.writer, digest });
        match self.purpose {
            Purpose::Artifact(meta) => done(uploads.end_artifact(caller.principal, meta, body)),
            Purpose::Value => done(uploads.end_value(caller.principal, body)),
            Purpose::Gradient(meta) => Gradient::new(uploads, caller, meta, body, done).end(),
            Purpose::InitModel(meta) => FirstModel::new(uploads, caller, meta, body, done).end(),
        }
    }
}
