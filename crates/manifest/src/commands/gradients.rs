//! CommitGradient and RejectGradient: the ledger. A (job, round, shard) enters it once; whatever else comes for it is compared, counted and,
//! where it differs, written down.

use raftgrid_proto::v1::{
    ArtifactState, CommandReply, CommitGradient, ContributionRow, JobPhase, JobRow, Outcome, RefusedResult,
    RejectGradient, RoundPhase, RoundRow, ShardLease, TaskRow,
};

use crate::commands::artifacts;
use crate::commands::job_end::{self, end_job};
use crate::commands::lessee;
use crate::commands::quarantine;
use crate::commands::rounds::{self, answer, note_class, train_job};
use crate::commands::shard_states;
use crate::commands::trainers::{check_before, trainer_of};
use crate::error::{Fault, Handled};
use crate::keys;
use crate::limits::{ID_BYTES_MAX, NOTE_BYTES_MAX, REFUSED_MAX, REJECTING_NODES_MAX};
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, precondition, reply};
use crate::round_policy::{RoundMode, RoundPolicy, ASYNC, BOUNDED};
use crate::rows::Table;
use crate::tables::JobTable;
use crate::text::{check_bytes, check_digest, cut, short_hex};

const MISMATCH: &str = "MISMATCH";
const REJECTED: &str = "REJECTED";

/// The rows that a result touches.
struct Ledger {
    job_row: JobRow,
    round: Box<RoundRow>,
    task_row: TaskRow,
    contribution: Box<ContributionRow>,
    attempt: ShardLease,
}

impl Ledger {
    fn write(self, machine: &mut Machine<'_>) -> JobRow {
        let row = self.contribution;
        let key = keys::contribution(self.job_row.sequence, row.round, row.shard);
        machine.put(Table::Contribution, key, &*row);
        rounds::put(machine, self.job_row.sequence, &self.round);
        JobTable::put(machine, self.job_row)
    }

    fn refused(&self, outcome: &str, reason: &str, digest: &[u8]) -> RefusedResult {
        let task = self.task_row.get_task();
        RefusedResult {
            node_id: task.assigned_node_id.clone(),
            task_id: task.task_id.clone(),
            attempt: task.attempt,
            digest: digest.to_vec(),
            outcome: outcome.to_owned(),
            reason: cut(reason),
            ..RefusedResult::default()
        }
    }

    /// Why the shard is not this attempt's to send for.
    fn is_anothers(&self, machine: &Machine<'_>) -> Option<String> {
        if machine.meta.machine_version < lessee::SINCE {
            return None;
        }
        let mode = RoundPolicy::of(&self.job_row).mode;
        lessee::is_anothers(&mode, &self.round, &self.contribution, &self.attempt)
    }

    /// Whether this very result of this very attempt was written down before.
    fn knows(&self, refused: &RefusedResult) -> bool {
        let key = |r: &RefusedResult| (r.outcome.clone(), r.task_id.clone(), r.attempt, r.digest.clone());
        self.contribution.refused.iter().any(|known| key(known) == key(refused))
    }
}

/// What stands before the tasks are looked at.
enum Found {
    Rows(JobRow, Box<RoundRow>, Box<ContributionRow>),
    /// The round is closed and no longer kept, or the job is over.
    Closed(JobRow, String),
}

fn find(machine: &Machine<'_>, job_id: &str, round: u64, shard: u32) -> Result<Found, Fault> {
    let job_row = train_job(machine, job_id)?;
    let job = job_row.get_job();
    let shards = job.get_spec().get_train().shards;
    if shard >= shards {
        return Err(invalid("shard", format!("below {shards}, is {shard}")));
    }
    if RoundPolicy::of(&job_row).mode_name() == ASYNC {
        return find_async(machine, job_row, round, shard);
    }
    let Some(row) = read::round(&machine.rows, job_row.sequence, round)? else {
        if round < job.rounds_committed {
            return Ok(Found::Closed(job_row, format!("round {round} is closed and no longer kept")));
        }
        return Err(precondition(format!("round {round} of job {job_id} is not open yet")));
    };
    rows_of(machine, job_row, row, shard)
}

fn rows_of(machine: &Machine<'_>, job_row: JobRow, row: RoundRow, shard: u32) -> Result<Found, Fault> {
    let round = row.round;
    let contribution = read::contribution(&machine.rows, job_row.sequence, round, shard)?;
    let contribution = contribution.unwrap_or_else(|| ContributionRow { shard, round, ..ContributionRow::default() });
    Ok(Found::Rows(job_row, Box::new(row), Box::new(contribution)))
}

/// Of an async job. A step's round is the version of its model, and a shard gives once over each: what it gave over this one is where it came
/// in, a retry meets it there, and whatever is new goes to the round that is open.
fn find_async(machine: &Machine<'_>, job_row: JobRow, version: u64, shard: u32) -> Result<Found, Fault> {
    let job = job_row.get_job();
    let head = job.rounds_committed;
    if !job.has_model || version > head {
        return Err(precondition(format!("model {version} of job {} is not there yet", job.job_id)));
    }
    let policy = RoundPolicy::of(&job_row);
    if let Some(given) = read::given_over(&machine.rows, job_row.sequence, &policy, head, version, shard)? {
        return Ok(match read::round(&machine.rows, job_row.sequence, given.round)? {
            Some(row) => Found::Rows(job_row, Box::new(row), Box::new(given)),
            None => Found::Closed(job_row, format!("round {} is closed and no longer kept", given.round)),
        });
    }
    for number in head..=policy.last_open(head) {
        let row = read::round(&machine.rows, job_row.sequence, number)?;
        if let Some(row) = row.filter(|row| row.phase == RoundPhase::ROUND_OPEN) {
            return rows_of(machine, job_row, row, shard);
        }
    }
    Ok(Found::Closed(job_row, "no round is open that it could enter".to_owned()))
}

/// STALE: counted, otherwise without effect.
fn stale(machine: &mut Machine<'_>, mut job_row: JobRow, why: String) -> Handled {
    job_row.mut_job().stale += 1;
    JobTable::put(machine, job_row);
    Ok(CommandReply { message: why, ..reply(Outcome::STALE, machine.position) })
}

fn check(command: &CommitGradient) -> Result<(), Fault> {
    check_digest("digest", &command.digest)?;
    let weight = f64::from_bits(command.weight_bits);
    if !(weight.is_finite() && weight > 0.0) {
        return Err(invalid("weight_bits", format!("a weight is finite and above 0, is {weight}")));
    }
    check_bytes("metrics_json", command.metrics_json.len(), NOTE_BYTES_MAX)?;
    check_bytes("numeric_class", command.numeric_class.len(), NOTE_BYTES_MAX)?;
    check_bytes("state_artifact", command.state_artifact.len(), ID_BYTES_MAX)
}

pub(crate) fn commit(machine: &mut Machine<'_>, command: &CommitGradient) -> Handled {
    check(command)?;
    let (mut job_row, round, contribution) = match find(machine, &command.job_id, command.round, command.shard)? {
        Found::Rows(job_row, round, contribution) => (job_row, round, contribution),
        Found::Closed(job_row, why) => return stale(machine, job_row, why),
    };
    let policy = RoundPolicy::of(&job_row);
    let given = !contribution.digest.is_empty();
    // Over another model the bytes are others, and say nothing of each other.
    let comparable = policy.mode == RoundMode::Sync || contribution.model_version == command.model_version;
    let by_winner =
        given && comparable && contribution.task_id == command.task_id && contribution.epoch == command.epoch;
    if by_winner && contribution.digest == command.digest {
        // A retry after a lost Ack: it holds whatever became of the lease.
        job_row.mut_job().duplicates += 1;
        if crate::mutant::on("retry_counted_twice") {
            let mut round = round;
            round.accepted += 1;
            rounds::seal_at_quorum(machine, &job_row, &mut round);
            rounds::put(machine, job_row.sequence, &round);
        }
        JobTable::put(machine, job_row);
        return Ok(duplicate(&contribution));
    }
    let task_row = trainer_of(machine, &job_row, &command.task_id, command.epoch)?;
    let (task_id, epoch) = (command.task_id.clone(), command.epoch);
    let attempt = ShardLease { shard: command.shard, task_id, epoch, ..ShardLease::default() };
    let ledger = Ledger { job_row, round, task_row, contribution, attempt };
    if let Some(why) = ledger.is_anothers(machine) {
        return stale(machine, ledger.job_row, why);
    }
    if given && comparable {
        return compare(machine, command, ledger);
    } else if given {
        let (number, theirs) = (ledger.round.round, ledger.contribution.model_version);
        let why = format!("round {number} has this shard over model {theirs}, not {}", command.model_version);
        return late(machine, ledger, why);
    }
    let phase = ledger.job_row.get_job().phase;
    if ledger.round.phase != RoundPhase::ROUND_OPEN || job_end::is_over(phase) {
        let why = format!("round {} is closed without this shard", command.round);
        return late(machine, ledger, why);
    }
    // A paused job waits for just these; nothing is leased or summed meanwhile. A job from before there were deadlines takes none.
    if phase != JobPhase::JOB_RUNNING && !(phase == JobPhase::JOB_PAUSED && ledger.job_row.round_rules) {
        return Err(precondition(format!("job {} is {}", command.job_id, job_end::phase_name(phase))));
    }
    if let Some(why) = too_old(machine, command, &policy, &ledger)? {
        return late(machine, ledger, why);
    }
    accept(machine, command, ledger)
}

/// STALE, and the attempt has answered.
fn late(machine: &mut Machine<'_>, mut ledger: Ledger, why: String) -> Handled {
    answer(&mut ledger.round, &ledger.attempt);
    rounds::put(machine, ledger.job_row.sequence, &ledger.round);
    stale(machine, ledger.job_row, why)
}

/// Whether the model that it was computed over is further behind than the job allows. Errors: one that cannot be.
fn too_old(
    machine: &Machine<'_>,
    command: &CommitGradient,
    policy: &RoundPolicy,
    ledger: &Ledger,
) -> Result<Option<String>, Fault> {
    let (round, version) = (ledger.round.round, command.model_version);
    let newest = ledger.job_row.get_job().model_version;
    match policy.mode {
        RoundMode::Sync => return Ok(None),
        RoundMode::Async { .. } if version != command.round => {
            let why = format!("in mode async the round of a step is its model's version, {}", command.round);
            return Err(invalid("model_version", format!("{why}, is {version}")));
        }
        RoundMode::Bounded { .. } if version > round => {
            return Err(invalid("model_version", format!("at most the round, {round}, is {version}")));
        }
        RoundMode::Bounded { .. } | RoundMode::Async { .. } => {}
    }
    if version > newest {
        return Err(precondition(format!("model {version} of job {} is not there yet", command.job_id)));
    }
    if policy.mode_name() == BOUNDED && round > newest {
        check_before(machine, &ledger.job_row, round, command.shard)?;
    }
    let oldest = policy.oldest_model(round);
    Ok((version < oldest).then(|| format!("model {version} is too old for round {round}: at least {oldest}")))
}

fn duplicate(contribution: &ContributionRow) -> CommandReply {
    CommandReply {
        message: "in the ledger already; not counted again".to_owned(),
        number: contribution.artifact_id,
        ..reply(Outcome::DUPLICATE, contribution.position.into())
    }
}

/// The first valid result of a shard. Invariant 5: it enters the ledger once.
fn accept(machine: &mut Machine<'_>, command: &CommitGradient, mut ledger: Ledger) -> Handled {
    let artifact = artifacts::get(machine, command.artifact_id)?;
    let id = artifact.artifact_id;
    if artifact.state != ArtifactState::ARTIFACT_BEGUN {
        return Err(precondition(format!("artifact {id} is {:?}; a gradient brings a begun one", artifact.state)));
    }
    if artifact.digest != command.digest || ![0, artifact.total_bytes].contains(&command.total_bytes) {
        return Err(precondition(format!("artifact {id} was begun for other bytes than this gradient")));
    }
    if !artifact.job_id.is_empty() && artifact.job_id != command.job_id {
        return Err(precondition(format!("artifact {id} belongs to job {}", artifact.job_id)));
    }
    shard_states::keep(machine, &command.job_id, &command.state_artifact)?;
    let job = ledger.job_row.get_job();
    let pinned = job.get_spec().get_train().pin_numeric_class && !ledger.job_row.numeric_class.is_empty();
    if pinned && ledger.job_row.numeric_class != command.numeric_class {
        return Err(precondition(
            "the job is pinned to the numeric class of its first result, and this one has another",
        ));
    }
    artifacts::commit_by_receipts(machine, artifact.clone(), command.get_receipts())?;

    assert!(ledger.contribution.digest.is_empty(), "a (job, round, shard) is accepted once");
    let task = ledger.task_row.get_task();
    let row = &mut ledger.contribution;
    row.node_id = task.assigned_node_id.clone();
    row.task_id = task.task_id.clone();
    row.attempt = task.attempt;
    row.epoch = command.epoch;
    row.digest = command.digest.clone();
    row.weight_bits = command.weight_bits;
    row.artifact_id = id;
    row.metrics_json = command.metrics_json.clone();
    row.state_artifact = command.state_artifact.clone();
    row.numeric_class = command.numeric_class.clone();
    row.position = machine.position.get();
    if RoundPolicy::of(&ledger.job_row).mode != RoundMode::Sync {
        note_model(&mut ledger, command.model_version);
    }

    let whose = whose(&ledger);
    note_class(&mut ledger.job_row, &command.numeric_class, &whose);
    ledger.job_row.retained_bytes = ledger.job_row.retained_bytes.saturating_add(artifact.total_bytes);
    quarantine::note_passed(machine, &mut ledger.job_row, &ledger.contribution);
    ledger.job_row.rejected_streak = 0;
    ledger.job_row.mut_job().accepted += 1;
    answer(&mut ledger.round, &ledger.attempt);
    ledger.round.accepted += 1;
    rounds::seal_at_quorum(machine, &ledger.job_row, &mut ledger.round);
    ledger.write(machine);
    Ok(CommandReply { number: id, ..machine.ok() })
}

/// How far behind its round the model is that it was computed over.
fn note_model(ledger: &mut Ledger, version: u64) {
    ledger.contribution.model_version = version;
    let behind = ledger.round.round.saturating_sub(version);
    ledger.round.stalest = ledger.round.stalest.max(behind);
    let job = ledger.job_row.mut_job();
    job.stalest = job.stalest.max(behind);
    job.stale_gradients += u64::from(behind > 0);
}

fn whose(ledger: &Ledger) -> String {
    let task = ledger.task_row.get_task();
    format!("round {} shard {} on node {}", ledger.round.round, ledger.attempt.shard, task.assigned_node_id)
}

/// The shard is given: a result of another attempt, or other bytes of the same one. The round may be closed.
fn compare(machine: &mut Machine<'_>, command: &CommitGradient, mut ledger: Ledger) -> Handled {
    let whose = whose(&ledger);
    let first = answer(&mut ledger.round, &ledger.attempt);
    note_class(&mut ledger.job_row, &command.numeric_class, &whose);
    if ledger.contribution.digest == command.digest {
        if first {
            ledger.contribution.compared += 1;
            ledger.job_row.mut_job().compared += 1;
        }
        ledger.job_row.mut_job().duplicates += 1;
        let reply = duplicate(&ledger.contribution);
        ledger.write(machine);
        return Ok(reply);
    }
    let row = &ledger.contribution;
    let why = format!(
        "{whose}: bytes {} differ from {}, accepted from attempt {} of {} on node {}",
        short_hex(&command.digest),
        short_hex(&row.digest),
        row.attempt,
        row.task_id,
        row.node_id,
    );
    let refused = ledger.refused(MISMATCH, "", &command.digest);
    if !ledger.knows(&refused) {
        let room = ledger.contribution.refused.len() < REFUSED_MAX;
        if room {
            ledger.contribution.refused.push(refused);
        }
        if room || first {
            ledger.job_row.mut_job().mismatches += 1;
        }
    }
    let position = ledger.contribution.position;
    ledger.write(machine);
    Ok(CommandReply { message: why, ..reply(Outcome::MISMATCH, position.into()) })
}

/// The leader's guards refused the bytes (not finite, wrong shape, over the norm). A shard that is refused on two nodes stops the job.
pub(crate) fn reject(machine: &mut Machine<'_>, command: &RejectGradient) -> Handled {
    check_bytes("digest", command.digest.len(), 32)?;
    let (job_row, round, contribution) = match find(machine, &command.job_id, command.round, command.shard)? {
        Found::Rows(job_row, round, contribution) => (job_row, round, contribution),
        Found::Closed(job_row, why) => return stale(machine, job_row, why),
    };
    let task_row = trainer_of(machine, &job_row, &command.task_id, command.epoch)?;
    let (task_id, epoch) = (command.task_id.clone(), command.epoch);
    let attempt = ShardLease { shard: command.shard, task_id, epoch, ..ShardLease::default() };
    let mut ledger = Ledger { job_row, round, task_row, contribution, attempt };
    if let Some(why) = ledger.is_anothers(machine) {
        return stale(machine, ledger.job_row, why);
    }
    let refused = ledger.refused(REJECTED, &command.reason, &command.digest);
    if ledger.knows(&refused) {
        return Ok(machine.existing(ledger.job_row.get_job().revision));
    }
    // One entry a node, the newest: whatever a node sends, there is room for the next node's.
    let listed = ledger.contribution.refused.iter().filter(|r| r.outcome == REJECTED).count();
    let node_id = refused.node_id.clone();
    let mut known = ledger.contribution.refused.iter_mut().filter(|r| r.outcome == REJECTED);
    match known.find(|r| r.node_id == refused.node_id) {
        Some(entry) => *entry = refused,
        None if listed < REFUSED_MAX => {
            ledger.contribution.refused.push(refused);
            quarantine::note_refused(machine, &mut ledger.job_row, &ledger.contribution, &node_id);
        }
        None => {}
    }
    answer(&mut ledger.round, &ledger.attempt);
    ledger.job_row.rejected_streak += 1;
    ledger.job_row.mut_job().rejected += 1;

    let waiting = ledger.contribution.digest.is_empty() && ledger.round.phase == RoundPhase::ROUND_OPEN;
    let rejections: Vec<RefusedResult> =
        ledger.contribution.refused.iter().filter(|r| r.outcome == REJECTED).cloned().collect();
    let job_row = ledger.write(machine);
    if waiting && rejections.len() >= REJECTING_NODES_MAX && !job_end::is_over(job_row.get_job().phase) {
        let each: Vec<String> = rejections.iter().map(|r| format!("on node {} ({})", r.node_id, r.reason)).collect();
        let reason = format!("round {} shard {} was rejected {}", command.round, command.shard, each.join(" and "));
        end_job(machine, job_row.sequence, JobPhase::JOB_REJECTED, &reason)?;
    }
    Ok(machine.ok())
}
