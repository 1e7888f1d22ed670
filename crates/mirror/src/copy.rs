//! One artifact's way: what the destination lacks is sent, the bytes first and the pointer last. So whoever finds a pointer finds the bytes, and
//! whoever finds an object `blobs/SHA256` finds all of it: the hash of what was sent is held against the row before it becomes visible.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::failure::Failure;
use crate::io::Io;
use crate::keys::Keys;
use crate::limits::{PARTS_MAX, PART_BYTES};
use crate::metrics::Metrics;
use crate::source::{Artifact, Body, Source};
use crate::store::Store;

/// How an artifact's turn ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    /// Something was missing and was sent.
    Sent,
    /// All of it was there.
    Found,
}

/// Keeps to a rate: after each part it waits until that much time is over as the bytes are worth.
pub(crate) struct Pace {
    bytes_per_second: u64,
    begun: Instant,
    bytes: u64,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, begun: Instant::now(), bytes: 0 }
    }

    /// So many bytes went out. False: the process ends.
    fn sent(&mut self, bytes: u64, io: &Io) -> bool {
        self.bytes += bytes;
        if self.bytes_per_second == 0 {
            return !io.is_over();
        }
        let worth = Duration::from_secs_f64(self.bytes as f64 / self.bytes_per_second as f64);
        let took = self.begun.elapsed();
        if took < worth {
            return io.pause(worth.saturating_sub(took));
        }
        // A slow store must not be made up for by a burst.
        (self.begun, self.bytes) = (Instant::now(), 0);
        !io.is_over()
    }
}

/// What a copy is made with.
pub(crate) struct Copier<'a> {
    pub source: &'a dyn Source,
    pub store: &'a Store,
    pub keys: &'a Keys,
    pub node: u64,
    pub io: &'a Io,
    pub metrics: &'a Metrics,
    pub pace: &'a mut Pace,
}

/// Bytes of each part of an artifact; the last one has fewer.
fn part_bytes(total_bytes: u64) -> u64 {
    PART_BYTES.max(total_bytes.div_ceil(PARTS_MAX))
}

impl Copier<'_> {
    /// Sends what is missing.
    pub(crate) fn copy(&mut self, artifact: &Artifact) -> Result<Copied, Failure> {
        let (blob, pointer) = (self.keys.blob(&artifact.digest), self.keys.pointer(artifact));
        let mut copied = Copied::Found;
        if self.store.size(&blob)? != Some(artifact.total_bytes) {
            let body = self.source.open(artifact.artifact_id).map_err(Failure::Artifact)?;
            self.send(artifact, body)?;
            copied = Copied::Sent;
        }
        if self.store.size(&pointer)?.is_none() {
            self.store.put(&pointer, self.keys.pointer_text(artifact))?;
            copied = Copied::Sent;
        }
        Ok(copied)
    }

    fn send(&mut self, artifact: &Artifact, mut body: Box<dyn Body>) -> Result<(), Failure> {
        let blob = self.keys.blob(&artifact.digest);
        let total = artifact.total_bytes;
        let size = part_bytes(total);
        if total <= size {
            let bytes = read(&mut *body, 0, total)?;
            is_the_artifact(artifact, Sha256::digest(&bytes).into())?;
            self.still_leads()?;
            self.store.put(&blob, bytes)?;
            return self.went_out(total);
        }
        let note = self.keys.upload(&artifact.digest, self.node);
        let mut parts = self.store.begin(&blob, &note)?;
        let mut hash = Sha256::new();
        let sent = (0..total.div_ceil(size)).try_for_each(|number| {
            let at = number * size;
            let bytes = read(&mut *body, at, size.min(total - at))?;
            hash.update(&bytes);
            // Reading may have taken its time.
            self.still_leads()?;
            let length = bytes.len() as u64;
            self.store.part(&mut parts, bytes)?;
            self.went_out(length)
        });
        let whole = sent.and_then(|()| is_the_artifact(artifact, hash.finalize().into()));
        match whole.and_then(|()| self.store.complete(&mut parts)) {
            Ok(()) => Ok(()),
            Err(failure) => {
                self.store.abort(parts);
                Err(failure)
            }
        }
    }

    fn went_out(&mut self, bytes: u64) -> Result<(), Failure> {
        self.metrics.sent_bytes.add(bytes);
        if !self.pace.sent(bytes, self.io) {
            return Err(Failure::Over);
        }
        self.still_leads()
    }

    fn still_leads(&self) -> Result<(), Failure> {
        if self.source.leads() {
            Ok(())
        } else {
            Err(Failure::Over)
        }
    }
}

/// `length` bytes from `offset` on, all of them.
fn read(body: &mut dyn Body, offset: u64, length: u64) -> Result<Vec<u8>, Failure> {
    let length =
        usize::try_from(length).map_err(|_| Failure::Artifact("a part does not fit into memory".to_owned()))?;
    let mut bytes = vec![0; length];
    let mut got = 0;
    while got < length {
        match body.read_at(offset + got as u64, &mut bytes[got..]).map_err(Failure::Artifact)? {
            0 => return Err(Failure::Artifact(format!("its bytes end at {}", offset + got as u64))),
            more => got += more,
        }
    }
    Ok(bytes)
}

fn is_the_artifact(artifact: &Artifact, digest: [u8; 32]) -> Result<(), Failure> {
    if digest == artifact.digest {
        Ok(())
    } else {
        Err(Failure::Artifact("the bytes that were read have another SHA-256 than the artifact".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_a_bound_and_no_artifact_has_too_many() {
        for total in [0, 1, PART_BYTES, PART_BYTES + 1, PART_BYTES * PARTS_MAX] {
            assert_eq!(part_bytes(total), PART_BYTES, "{total}");
        }
        for total in [PART_BYTES * PARTS_MAX + 1, 5 << 40] {
            assert!(total.div_ceil(part_bytes(total)) <= PARTS_MAX, "{total}");
        }
    }
}
