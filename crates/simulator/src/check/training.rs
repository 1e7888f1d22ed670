//! Train jobs: what was acknowledged is in the ledger, each pair is there once, every model is that of the undisturbed run, bit for bit, and the
//! audit has nothing to say. The undisturbed run is `Course::expected`: it knows no row and no replica.

use std::collections::{BTreeMap, BTreeSet};

use raftgrid_manifest::{views, Rows, RowsError};
use raftgrid_proto::v1::{Ack, AuditJobResponse, JobPhase, JobRow};

use crate::course::{Course, Expected};
use crate::trainer::Push;

/// A (job, round, shard).
pub type Pair = (String, u64, u32);

/// A gradient of which somebody was told that it counts.
#[derive(Clone, Debug)]
pub struct Acked {
    /// Its place.
    pub pair: Pair,
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
    /// What stands in the ledger from this position on.
    pub position: u64,
}

/// What trainers were told.
#[derive(Debug, Default)]
pub struct Training {
    acks: BTreeMap<Pair, [u8; 32]>,
    fresh: Vec<Acked>,
    /// Jobs for which a number that is none was sent: once for each, since two refusals of a pair end a job.
    pub not_finite: BTreeSet<String>,
    /// The cluster is known to be at the machine version that knows all that train jobs ask for.
    pub is_possible: bool,
}

impl Training {
    /// An answer to a push.
    pub fn acked(&mut self, push: &Push, ack: &Ack) {
        if ack.success {
            let pair = (push.job.clone(), push.round, push.shard);
            self.acks.insert(pair.clone(), push.digest);
            self.fresh.push(Acked { pair, digest: push.digest, position: ack.position });
        }
    }

    /// Those that came since somebody asked.
    pub fn take_fresh(&mut self) -> Vec<Acked> {
        std::mem::take(&mut self.fresh)
    }

    /// What cannot be of the train jobs in `rows`, when all is over.
    pub fn judge(&self, rows: &dyn Rows) -> Result<Vec<String>, RowsError> {
        let mut jobs = Vec::new();
        views::job_rows(rows, |row| {
            if row.get_job().get_spec().field_type == "train" {
                jobs.push(row);
            }
            true
        })?;
        let mut broken = Vec::new();
        for job in jobs {
            let name = job.get_job().get_spec().name.clone();
            let Some(course) = Course::of(&name) else {
                broken.push(format!("nobody handed in {name}"));
                continue;
            };
            let looked = self.look_at(rows, &job, &course)?;
            broken.extend(looked.into_iter().map(|what| format!("{name}: {what}")));
        }
        Ok(broken)
    }

    fn look_at(&self, rows: &dyn Rows, row: &JobRow, course: &Course) -> Result<Vec<String>, RowsError> {
        let job = row.get_job();
        let mut broken = self.lost(rows, course)?;
        let expected = match course.expected() {
            Ok(expected) => expected,
            Err(error) => return Ok(vec![format!("it cannot be run: {error}")]),
        };
        for round in 0..job.rounds_committed {
            broken.extend(round_differs(rows, row, course, &expected, round)?);
        }
        let may_be_refused = self.not_finite.contains(&course.name);
        match job.phase {
            JobPhase::JOB_DONE => {
                let last = expected.models.last().map(|digest| digest.to_vec());
                if job.model_version != course.rounds || Some(&job.model_digest) != last.as_ref() {
                    broken.push(format!("its last model, {}, is not that of the undisturbed run", job.model_version));
                }
                if row.state_digest != expected.states[expected.states.len() - 1] {
                    broken.push("its last state is not that of the undisturbed run".to_owned());
                }
            }
            JobPhase::JOB_REJECTED if may_be_refused => {}
            phase => broken.push(format!("it ended as {phase:?}: {}", job.reason)),
        }
        match views::audit(rows, &job.job_id, false)? {
            Some(audit) => broken.extend(audit_says(&audit, course.is_unruly)),
            None => broken.push("there is no audit".to_owned()),
        }
        Ok(broken)
    }

    /// Invariant 7.
    fn lost(&self, rows: &dyn Rows, course: &Course) -> Result<Vec<String>, RowsError> {
        let mut broken = Vec::new();
        let first = (course.name.clone(), 0, 0);
        let of_job = self.acks.range(first..).take_while(|((job, ..), _)| *job == course.name);
        for ((job, round, shard), digest) in of_job {
            let there = views::contributions(rows, job, *round)?;
            if !there.iter().any(|row| row.shard == *shard && row.digest == digest) {
                broken.push(format!("7: round {round} shard {shard} was acknowledged and is not in the ledger"));
            }
        }
        Ok(broken)
    }
}

/// Invariants 5 and 6 for one committed round, against the undisturbed run.
fn round_differs(
    rows: &dyn Rows,
    job: &JobRow,
    course: &Course,
    expected: &Expected,
    number: u64,
) -> Result<Vec<String>, RowsError> {
    let at = usize::try_from(number).unwrap_or(usize::MAX);
    let (Some(gradients), Some(round)) = (expected.gradients.get(at), views::round_of(rows, job.sequence, number)?)
    else {
        return Ok(vec![format!("round {number} is not one of its rounds")]);
    };
    let mut broken = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            broken.push(format!("round {number}: {what}"));
        }
    };
    let mut given = views::contributions(rows, &course.name, number)?;
    given.retain(|row| !row.digest.is_empty());
    must(given.len() == gradients.len(), "5: its ledger has not each shard once");
    for (row, digest) in given.iter().zip(gradients) {
        let weight = course.weight(number, row.shard).to_bits();
        must(row.digest == digest && row.weight_bits == weight, "a contribution is not what was computed");
    }
    must(round.input_model_digest == expected.models[at], "it began with another model");
    must(round.model_digest == expected.models[at + 1], "its model is not that of the undisturbed run");
    let state = at.checked_sub(1).map(|before| expected.states[before].to_vec()).unwrap_or_default();
    must(round.input_state_digest == state, "it began with the state of another round");
    let inputs = views::expected_inputs_hash(rows, &course.name, number)?;
    must(inputs.is_some_and(|hash| round.inputs_hash == hash), "6: its inputs hash is not that of its ledger");
    Ok(broken)
}

fn audit_says(audit: &AuditJobResponse, is_unruly: bool) -> Vec<String> {
    let counts = (audit.lost, audit.duplicated, audit.accepted);
    let mut broken = Vec::new();
    if counts != (0, 0, audit.expected) || !audit.ledger_hash_verified {
        broken.push(format!("the audit says (lost, duplicated, accepted) {counts:?} of {}", audit.expected));
    }
    if !is_unruly && (audit.mismatches, audit.rejected) != (0, 0) {
        broken.push(format!("{} results differ, {} were rejected", audit.mismatches, audit.rejected));
    }
    broken
}
