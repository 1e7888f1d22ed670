//! Bytes of train jobs: what was acknowledged is durable where it must be, and can be read while as many replicas are down as may be.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use raftgrid_blob::footer::{Footer, FIXED_BYTES};
use raftgrid_blob::placement;
use raftgrid_manifest::views;
use raftgrid_proto::v1::{ArtifactRow, ArtifactState};
use raftgrid_replica::ports::Bytes;

use super::turns::begin;
use super::World;
use crate::check::training::Acked;
use crate::digest::sha256;
use crate::disk::{Crash, SimDisk};
use crate::node::BLOBS;
use crate::ports::all_of;

/// Reads of everything by every replica that is up: how many are still under way, and what could not be read.
#[derive(Debug, Default)]
pub(super) struct Readings {
    left: usize,
    failed: Vec<String>,
}

/// Shared with the jobs that read.
pub(super) type Reading = Arc<Mutex<Readings>>;

/// How long everything may take to be read, in microseconds.
const READING_US: u64 = 120_000_000;

impl World {
    /// Each Ack, at the moment in which it arrives.
    pub(super) fn judge_acks(&mut self) {
        for acked in self.checks.training.take_fresh() {
            self.count("gradient acknowledged");
            if !self.healing {
                self.count("gradient acknowledged under fire");
            }
            if let Err(what) = self.judge_ack(&acked) {
                self.checks.violated(what);
            }
        }
    }

    fn judge_ack(&self, acked: &Acked) -> Result<(), String> {
        let (job, round, shard) = &acked.pair;
        let what = format!("round {round} shard {shard} of {job}");
        let up = self.nodes.values().filter_map(|machine| machine.live.as_ref());
        let views = up.map(|live| live.hand.replica.view());
        // Who is behind does not know it yet.
        let Some(view) = views.max_by_key(|view| view.position).filter(|view| view.position >= acked.position) else {
            return Ok(());
        };
        let rows = view.rows.as_ref();
        let given = views::contributions(rows, job, *round).map_err(|error| error.to_string())?;
        let Some(given) = given.iter().find(|row| row.shard == *shard && row.digest == acked.digest) else {
            return Err(format!("7: {what} was acknowledged, and is not in the ledger at {}", acked.position));
        };
        let row = views::artifact_row(rows, given.artifact_id).map_err(|error| error.to_string())?;
        match row.filter(|row| row.state == ArtifactState::ARTIFACT_COMMITTED) {
            Some(row) => self.judge_copies(&row).map_err(|why| format!("{what} was acknowledged: {why}")),
            None => Err(format!("13: {what} was acknowledged, and its artifact is not committed")),
        }
    }

    /// Invariant 13: as many replicas as may fail are fewer than those on whose disks the bytes are durable. The membership does not change
    /// where train jobs run.
    fn judge_copies(&self, row: &ArtifactRow) -> Result<(), String> {
        let durable = self.nodes.values().filter(|machine| is_durable(&machine.disk, row)).count();
        let needed = placement::copies(self.founders);
        if durable < needed {
            return Err(format!("13: {} {} is durable on {durable} disks of {needed}", row.kind, row.artifact_id));
        }
        Ok(())
    }

    /// All artifacts that are committed, as the leader has them.
    fn committed(&self) -> Vec<ArtifactRow> {
        let mut found = Vec::new();
        let Some(leader) = self.leader() else { return found };
        let Some(live) = self.nodes.get(&leader.node).and_then(|machine| machine.live.as_ref()) else { return found };
        let looked = views::artifact_rows(live.hand.replica.view().rows.as_ref(), |row| {
            if row.state == ArtifactState::ARTIFACT_COMMITTED {
                found.push(row);
            }
            true
        });
        // Rows that cannot be read are told by those who judge rows.
        drop(looked);
        found
    }

    /// When everything has converged: as many replicas as may be are switched off, and each of the others is to read everything. None: there
    /// is nothing to read.
    pub(super) fn begin_reading(&mut self) -> Option<Reading> {
        let committed = self.committed();
        if committed.is_empty() {
            return None;
        }
        for row in &committed {
            if let Err(why) = self.judge_copies(row) {
                self.checks.violated(format!("when all was over: {why}"));
            }
        }
        for _ in 0..placement::failures_survived(self.founders) {
            let up: Vec<u64> =
                self.nodes.iter().filter(|(_, machine)| machine.live.is_some()).map(|(node, _)| *node).collect();
            if let Some(node) = self.rng.pick(&up).copied() {
                self.switch_off(node);
            }
        }
        let up: Vec<u64> =
            self.nodes.iter().filter(|(_, machine)| machine.live.is_some()).map(|(node, _)| *node).collect();
        let reading = Arc::new(Mutex::new(Readings { left: up.len(), failed: Vec::new() }));
        for node in up {
            self.read_all(node, &committed, &reading);
        }
        self.reading_until_us = self.now_us + READING_US;
        Some(reading)
    }

    fn read_all(&mut self, node: u64, committed: &[ArtifactRow], reading: &Reading) {
        let (reading, rows) = (Arc::clone(reading), committed.to_vec());
        self.within(node, |live| {
            let replica = Arc::clone(&live.hand.replica);
            let read = move || {
                for row in rows {
                    let name = row.artifact_id.to_string();
                    let read = replica.open_artifact(&name).and_then(|mut download| all_of(download.as_mut()));
                    let right = read.as_ref().is_ok_and(|bytes| row.digest == sha256(bytes));
                    if !right {
                        let why = read.err().map_or("other bytes".to_owned(), |error| error.to_string());
                        let what = format!("13: {} {name} is not read on node {node}: {why}", row.kind);
                        reading.lock().unwrap_or_else(PoisonError::into_inner).failed.push(what);
                    }
                }
                reading.lock().unwrap_or_else(PoisonError::into_inner).left -= 1;
            };
            begin(live, Box::new(read));
            Ok(())
        });
    }

    /// Its machine loses power and is not switched on again.
    fn switch_off(&mut self, node: u64) {
        self.note("off", [node, 0, 0, 0]);
        let Some(machine) = self.nodes.get_mut(&node) else { return };
        machine.disk.crash(Crash::Power);
        let live = machine.live.take();
        // What it says while it is torn down is of no matter.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(live)));
    }

    /// Whether everything was read, or could not be.
    pub(super) fn has_read(&mut self, reading: &Reading) -> bool {
        let readings = reading.lock().unwrap_or_else(PoisonError::into_inner);
        let late = self.now_us > self.reading_until_us;
        if readings.left > 0 && !late {
            return false;
        }
        if late {
            self.checks.violated(format!("13: {} replicas do not come to the end of what they read", readings.left));
        }
        readings.failed.iter().for_each(|what| self.checks.violated(what.clone()));
        true
    }
}

/// Whether a loss of power would leave the artifact's plain copy on the disk, whole.
fn is_durable(disk: &SimDisk, row: &ArtifactRow) -> bool {
    let path = Path::new(BLOBS).join(row.artifact_id.to_string()).join("0");
    let Some(file) = disk.durable_file(&path).filter(|file| file.len() >= FIXED_BYTES) else { return false };
    let Ok(total) = Footer::total_bytes_of(&file) else { return false };
    let Some((data, footer)) = usize::try_from(total).ok().and_then(|total| file.split_at_checked(total)) else {
        return false;
    };
    Footer::decode(footer).is_ok_and(|footer| footer.digest == sha256(data) && row.digest == footer.digest)
}
