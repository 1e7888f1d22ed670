//! Steps of a trainer: its leases as NextShards tells them, each with the model to compute over, its seed and the shard's state.

use raftgrid_manifest::{views, RoundMode, RoundPolicy, Rows, RowsError};
use raftgrid_proto::v1::{ContributionRow, JobRow, RoundPhase, RoundRow, ShardLease, ShardStep, TaskRow};

/// What the trainer is to compute, the oldest round first. Where rounds do not wait for all, one step at a time: the next one then begins with
/// the newest model.
pub(crate) fn steps_of(rows: &dyn Rows, task: &TaskRow, job: &JobRow, epoch: u64) -> Result<Vec<ShardStep>, RowsError> {
    let policy = RoundPolicy::of(job);
    let newest = job.get_job().rounds_committed;
    let mut leased = Vec::new();
    for number in newest.saturating_sub(1)..=policy.last_open(newest).max(newest) {
        let Some(round) = views::round_of(rows, job.sequence, number)? else { continue };
        // Who is too late for a round that was closed without him has better things to do.
        let closed = job.round_rules && round.phase != RoundPhase::ROUND_OPEN;
        let wanted = leases_of(&round, task, epoch).filter(|lease| !closed || lease.verify);
        leased.extend(wanted.map(|lease| (number, lease.clone())));
    }
    if policy.mode != RoundMode::Sync {
        leased.sort_by_key(|(number, lease)| (lease.verify, *number, lease.shard));
    }
    let mut steps = Vec::new();
    for (number, lease) in leased {
        steps.extend(step(rows, job, &policy, number, &lease)?);
        if policy.mode != RoundMode::Sync && !steps.is_empty() {
            break;
        }
    }
    Ok(steps)
}

fn leases_of<'row>(round: &'row RoundRow, task: &'row TaskRow, epoch: u64) -> impl Iterator<Item = &'row ShardLease> {
    let task_id = &task.get_task().task_id;
    let held = round.leases.iter().filter(|held| !held.answered && !held.taken).map(|held| held.get_lease());
    held.filter(move |lease| lease.epoch == epoch && lease.task_id == *task_id)
}

/// What a lease of a pair is in a script's words. None: nothing to compute yet.
fn step(
    rows: &dyn Rows,
    job: &JobRow,
    policy: &RoundPolicy,
    number: u64,
    lease: &ShardLease,
) -> Result<Option<ShardStep>, RowsError> {
    let (train, newest) = (job.get_job().get_spec().get_train(), job.get_job().rounds_committed);
    let given = match policy.mode {
        RoundMode::Sync => None,
        RoundMode::Bounded { .. } | RoundMode::Async { .. } => given_to(rows, job, number, lease.shard)?,
    };
    // What is compared is computed over the same model.
    let version = match given.as_ref().filter(|_| lease.verify) {
        Some(given) => given.model_version,
        None => policy.model_for(number, newest),
    };
    let (round, states_before) = match policy.mode {
        RoundMode::Sync | RoundMode::Bounded { .. } => (number, number),
        // In which round it will be is not known yet; a shard gives once over each model.
        RoundMode::Async { .. } if !lease.verify => {
            if views::given_over(rows, job, version, lease.shard)?.is_some() {
                return Ok(None);
            }
            (version, policy.last_open(newest) + 1)
        }
        RoundMode::Async { .. } => (version, number),
    };
    let Some(model) = views::round_of(rows, job.sequence, version)? else { return Ok(None) };
    let mut step = ShardStep::new();
    step.set_round(round);
    step.set_shard(lease.shard);
    step.set_num_shards(train.shards);
    step.set_seed(raftgrid_train::seed::shard_seed(train.seed, round, lease.shard));
    step.set_model_version(version);
    step.set_model_digest(model.input_model_digest);
    step.set_state_artifact(views::shard_state(rows, job, states_before, lease.shard)?);
    Ok(Some(step))
}

fn given_to(rows: &dyn Rows, job: &JobRow, round: u64, shard: u32) -> Result<Option<ContributionRow>, RowsError> {
    let row = views::contribution_of(rows, job.sequence, round, shard)?;
    Ok(row.filter(|row| !row.digest.is_empty()))
}
