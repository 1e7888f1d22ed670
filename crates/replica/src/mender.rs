//! Brings back what disks lost. Each replica looks whether the fragments and copies that it answers for are there, and reads them now and then
//! to see whether they are still what they were; the leader looks whether artifacts have the redundancy that the voters of now make possible.
//! One thread a replica, slow on purpose. Nothing here decides what exists: rows do.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{bounded, Receiver, RecvTimeoutError, Sender};
use raftgrid_blob::BlobError;
use raftgrid_driver::Role;
use raftgrid_manifest::views;
use raftgrid_proto::v1::{ArtifactRow, ArtifactState};
use slog::{info, warn};

use crate::artifacts::{blob_failed, code_of, digest_of, Artifacts, Files};
use crate::clock::Clock;
use crate::copies::COPY;
use crate::evacuate::{short_of, Evacuation};
use crate::gather::fragment_digest;
use crate::limits::{
    MEND_AGAIN_MS, MEND_BYTES_PER_MS, MEND_LOOK_MS, MEND_PAUSE_MS_MAX, MEND_ROWS_MAX, SCRUB_AGAIN_MS,
    SCRUB_BYTES_PER_LOOK, SPARE_AGE_MS,
};
use crate::polls::rows_failed;
use crate::ports::CallError;

/// Where a look goes on, by artifact id; at the end it begins again.
#[derive(Debug, Default)]
struct Cursor(u64);

/// What the thread works with.
pub(crate) struct Mender {
    evacuation: Evacuation,
    clock: Arc<dyn Clock>,
    /// Of what the group is short of.
    group: Cursor,
    /// Of what is not here.
    here: Cursor,
    /// When that begins again from the first artifact.
    here_again_ms: u64,
    /// Of what is read.
    scrub: Cursor,
    /// When reading began from the first artifact.
    scrubbed_ms: Option<u64>,
    /// When unused files are deleted next.
    spares_again_ms: Option<u64>,
    /// The last thing that went wrong, said once.
    said: String,
}

/// Starts the thread; it ends when the sender is dropped.
pub(crate) fn start(mut mender: Mender) -> (Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = bounded::<()>(0);
    let thread = std::thread::Builder::new()
        .name("mender".to_owned())
        .spawn(move || {
            let mut wait_ms = MEND_LOOK_MS;
            while pause(&stopped, wait_ms) {
                // What cannot be had now is not asked for all the time.
                wait_ms = if mender.look(&stopped) { MEND_LOOK_MS } else { MEND_AGAIN_MS };
            }
        })
        .expect("a thread can be started while the process boots");
    (stop, thread)
}

/// Waits; false: it is time to end.
fn pause(stopped: &Receiver<()>, ms: u64) -> bool {
    stopped.recv_timeout(Duration::from_millis(ms)) == Err(RecvTimeoutError::Timeout)
}

/// How an own fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Whole,
    Lost,
}

impl Mender {
    pub(crate) fn new(evacuation: Evacuation, clock: Arc<dyn Clock>) -> Self {
        Self {
            evacuation,
            clock,
            group: Cursor::default(),
            here: Cursor::default(),
            here_again_ms: 0,
            scrub: Cursor::default(),
            scrubbed_ms: None,
            spares_again_ms: None,
            said: String::new(),
        }
    }

    fn artifacts(&self) -> &Arc<Artifacts> {
        &self.evacuation.artifacts
    }

    /// One look; false: something could not be restored.
    fn look(&mut self, stopped: &Receiver<()>) -> bool {
        self.age_spares();
        let damaged = self.look_at_damaged(stopped);
        let others =
            self.look_here(stopped).and_then(|()| self.scrub(stopped)).and_then(|()| self.look_at_group(stopped));
        match damaged.and(others) {
            Ok(()) => {
                self.said.clear();
                true
            }
            Err(error) => {
                let why = error.to_string();
                if self.said != why {
                    warn!(self.evacuation.logger, "redundancy not restored"; "cause" => &why);
                    self.said = why;
                }
                false
            }
        }
    }

    /// Files that are only kept to be written over go when no round wants them any more.
    fn age_spares(&mut self) {
        let now = self.clock.monotonic_ms();
        if now >= *self.spares_again_ms.get_or_insert(now + SPARE_AGE_MS) {
            self.spares_again_ms = Some(now + SPARE_AGE_MS);
            self.artifacts().files.age_spares();
        }
    }

    /// The next rows that `wanted` takes; moves the cursor behind them.
    fn next(
        &self,
        cursor: &mut Cursor,
        mut wanted: impl FnMut(&ArtifactRow) -> bool,
    ) -> Result<Vec<ArtifactRow>, CallError> {
        let (rows, _) = self.artifacts().views.view();
        let (mut found, mut looked, mut at) = (Vec::new(), 0, None);
        views::artifact_rows_from(rows.as_ref(), cursor.0, |row| {
            looked += 1;
            at = Some(row.artifact_id);
            if row.state == ArtifactState::ARTIFACT_COMMITTED && wanted(&row) {
                found.push(row);
            }
            looked < MEND_ROWS_MAX
        })
        .map_err(rows_failed)?;
        cursor.0 = at.filter(|_| looked == MEND_ROWS_MAX).map_or(0, |at| at + 1);
        Ok(found)
    }

    /// What somebody has read and found damaged.
    fn look_at_damaged(&self, stopped: &Receiver<()>) -> Result<(), CallError> {
        let mut last = Ok(());
        for artifact_id in self.artifacts().damaged.noted() {
            let restored = match self.artifacts().committed(artifact_id) {
                Ok(row) => self.own(&row, true).and_then(|seen| match seen {
                    Seen::Lost => self.mend(&row, stopped),
                    Seen::Whole => Ok(()),
                }),
                // Deleted.
                Err(CallError::NotFound(_)) => Ok(()),
                Err(error) => Err(error),
            };
            // What failed is looked at again, and does not keep the others waiting.
            if restored.is_ok() {
                self.artifacts().damaged.forget(artifact_id);
            }
            last = restored.and(last);
        }
        last
    }

    /// Fragments and copies that should be here and are not.
    fn look_here(&mut self, stopped: &Receiver<()>) -> Result<(), CallError> {
        let now = self.clock.monotonic_ms();
        if self.here.0 == 0 && now < self.here_again_ms {
            return Ok(());
        }
        let mut cursor = std::mem::take(&mut self.here);
        let node = self.artifacts().node;
        let own = |row: &ArtifactRow| row.receipts.iter().any(|receipt| receipt.node_id == node);
        let rows = self.next(&mut cursor, own)?;
        if cursor.0 == 0 {
            self.here_again_ms = now + MEND_AGAIN_MS;
        }
        self.here = cursor;
        let mut last = Ok(());
        for row in rows {
            if self.own(&row, false)? == Seen::Lost {
                // One that cannot be mended does not keep the others waiting.
                last = self.mend(&row, stopped).and(last);
            }
        }
        last
    }

    /// Reads some of what is here.
    fn scrub(&mut self, stopped: &Receiver<()>) -> Result<(), CallError> {
        let now = self.clock.monotonic_ms();
        let begun = *self.scrubbed_ms.get_or_insert(now);
        if self.scrub.0 == 0 && now < begun + SCRUB_AGAIN_MS {
            return Ok(());
        }
        if self.scrub.0 == 0 {
            self.scrubbed_ms = Some(now);
        }
        let mut cursor = std::mem::take(&mut self.scrub);
        let (node, mut bytes) = (self.artifacts().node, 0);
        let own = |row: &ArtifactRow| row.receipts.iter().any(|receipt| receipt.node_id == node);
        let rows = self.next(&mut cursor, own)?;
        self.scrub = cursor;
        for row in rows {
            if bytes >= SCRUB_BYTES_PER_LOOK {
                // The rest is next.
                self.scrub = Cursor(row.artifact_id);
                return Ok(());
            }
            bytes += row.total_bytes;
            if self.own(&row, true)? == Seen::Lost {
                self.mend(&row, stopped)?;
            }
        }
        Ok(())
    }

    /// Whether what this replica answers for is here; `read`: every byte of it.
    fn own(&self, row: &ArtifactRow, read: bool) -> Result<Seen, CallError> {
        let coding = code_of(row)?;
        let node = self.artifacts().node;
        for receipt in row.receipts.iter().filter(|receipt| receipt.node_id == node) {
            let (fragment, digest) = match coding {
                Some(_) => (receipt.fragment, fragment_digest(row, receipt.fragment)?),
                None => (COPY, digest_of(row)?),
            };
            let opened = self.artifacts().files.open_fragment(row.artifact_id, Files::of(row).number(fragment));
            let seen = match opened {
                Ok(reader) if reader.digest() != digest => Seen::Lost,
                Ok(reader) if read => match reader.verify() {
                    Ok(()) => Seen::Whole,
                    Err(BlobError::Rotten { .. } | BlobError::Io { .. }) => Seen::Lost,
                    Err(error) => return Err(blob_failed(error)),
                },
                Ok(_) => Seen::Whole,
                Err(BlobError::NotFound { .. } | BlobError::Rotten { .. }) => Seen::Lost,
                Err(error) => return Err(blob_failed(error)),
            };
            if seen == Seen::Lost {
                return Ok(seen);
            }
        }
        Ok(Seen::Whole)
    }

    /// Makes anew what this replica answers for.
    fn mend(&self, row: &ArtifactRow, stopped: &Receiver<()>) -> Result<(), CallError> {
        self.artifacts().proposals.room.check()?;
        // The row may have changed while others were mended.
        let row = match self.artifacts().committed(row.artifact_id) {
            Ok(row) => row,
            Err(CallError::NotFound(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let node = self.artifacts().node;
        let mine = row.receipts.iter().find(|receipt| receipt.node_id == node).map(|receipt| receipt.fragment);
        let Some(fragment) = mine else { return Ok(()) };
        let bytes = match code_of(&row)? {
            Some(coding) => {
                let writer = self.artifacts().remade(&row, coding, fragment)?;
                let bytes = writer.total_bytes();
                let number = Files::of(&row).number(fragment);
                self.artifacts().files.keep(writer, row.artifact_id, number).map_err(blob_failed)?;
                bytes
            }
            None => self.artifacts().fetch(&row)?.total_bytes(),
        };
        info!(self.evacuation.logger, "fragment restored"; "artifact" => row.artifact_id, "fragment" => fragment);
        rest(stopped, bytes);
        Ok(())
    }

    /// On the leader: what the voters of now are short of.
    fn look_at_group(&mut self, stopped: &Receiver<()>) -> Result<(), CallError> {
        let Some(staying) = self.settled_voters()? else {
            self.group = Cursor::default();
            return Ok(());
        };
        let mut cursor = std::mem::take(&mut self.group);
        let rows = self.next(&mut cursor, |row| matches!(short_of(row, &staying), Ok(Some(_))))?;
        self.group = cursor;
        let mut last = Ok(());
        for row in rows {
            if self.settled_voters()?.as_ref() != Some(&staying) {
                return last;
            }
            match self.evacuation.settle(row.artifact_id, &staying) {
                Ok(_) => rest(stopped, row.total_bytes),
                Err(error) => last = Err(error),
            }
        }
        last
    }

    /// The voters, if this replica leads and nobody is about to leave: who changes the membership carries bytes over by himself, and for
    /// voters that are not yet there.
    fn settled_voters(&self) -> Result<Option<Vec<u64>>, CallError> {
        let status = self.artifacts().handle.status();
        if status.role != Role::Leader || !status.conf.voters_outgoing.is_empty() {
            return Ok(None);
        }
        let staying = self.artifacts().voters_that_stay()?;
        Ok((staying.len() == status.conf.voters.len()).then_some(staying))
    }
}

/// A pause as long as the bytes are worth.
fn rest(stopped: &Receiver<()>, bytes: u64) {
    pause(stopped, (bytes / MEND_BYTES_PER_MS).min(MEND_PAUSE_MS_MAX));
}

#[cfg(test)]
mod tests;
