//! Shard leases: which trainer computes which (round, shard). Plans; `Shards::step` proposes LeaseShards for open rounds, `rounds` takes
//! the plan of the next round along with CommitModel.
//!
//! A pair is to be leased if it has no accepted contribution and no unanswered lease whose (task, epoch) is open. Trainers that are ready,
//! on a healthy node in reach, get them in order of shard, the one with least unfinished work first: n shards spread evenly over any
//! number of trainers, and the same trainers get the same shards in every round.

use std::collections::BTreeMap;

use protobuf::RepeatedField;
use raftgrid_manifest::{RoundMode, RoundPolicy};
use raftgrid_proto::v1::{
    Command_oneof_kind, JobPhase, LeaseShards, NodeStatus, Phase, RoundLease, RoundPhase, RoundRow, ShardLease, TaskRow,
};

use crate::jobs::fail;
use crate::limits::{FIRST_ROUND_WAIT_MS, LEASES_PER_COMMAND_MAX, REFUSED_WAIT_MS};
use crate::liveness::Liveness;
use crate::moment::Moment;
use crate::outbox::{Outbox, Subject};
use crate::types::Millis;
use crate::verify::wants_verify;
use crate::view::{JobView, RoundView, View};

/// A trainer that may be given work.
#[derive(Clone, Debug)]
struct Trainer<'a> {
    sequence: u64,
    task_id: &'a str,
    node_id: &'a str,
    epoch: u64,
    /// Pairs that it has and did not answer.
    unfinished: usize,
}

/// What is to be leased of an open round, and what cannot be.
#[derive(Debug, Default)]
struct Plan {
    leases: Vec<ShardLease>,
    /// A pair that every trainer in reach has answered with something that was refused.
    refused_by_all: Option<u32>,
    /// When the first node that works on a pair counts as lost, if it stays silent.
    look_again: Option<Millis>,
}

#[derive(Debug, Default)]
pub(crate) struct Shards {
    /// By job: since when its round 0 was seen open and unleased. It waits a little for all of its trainers.
    waiting_since: BTreeMap<u64, Millis>,
    /// By job: since when a pair was refused by all trainers in reach.
    refused_since: BTreeMap<u64, Millis>,
}

impl Shards {
    /// Leases what is to be leased; the answer is when to look again.
    pub(crate) fn step(&mut self, moment: &Moment<'_>, liveness: &Liveness, outbox: &mut Outbox) -> Option<Millis> {
        let (now, view) = (moment.now, moment.view);
        self.waiting_since.retain(|job, _| view.jobs.contains_key(job));
        self.refused_since.retain(|job, _| view.jobs.contains_key(job));
        let mut wake: Option<Millis> = None;
        for (sequence, job) in &view.jobs {
            let Some(head) = job.head() else { continue };
            let policy = RoundPolicy::of(&job.row);
            if job.row.get_job().phase != JobPhase::JOB_RUNNING || !takes_leases(&policy, head) {
                continue;
            }
            let subject = Subject::Job(*sequence);
            if !outbox.free(&subject) {
                continue;
            }
            let mut trainers = trainers(moment, liveness, *sequence);
            if let Some(until) = self.wait_for_trainers(now, view, *sequence, job, trainers.len()) {
                wake = Some(wake.map_or(until, |wake| wake.min(until)));
                continue;
            }
            let (plan, mut commands) = plan_rounds(moment, liveness, job, &policy, &mut trainers);
            match commands.pop() {
                None => {}
                Some(only) if commands.is_empty() => {
                    outbox.put(subject, only);
                    continue;
                }
                Some(last) => {
                    commands.push(last);
                    outbox.put_together(subject, commands);
                    continue;
                }
            }
            wake = [wake, plan.look_again].into_iter().flatten().min();
            match self.give_up_at(now, *sequence, plan.refused_by_all) {
                Some((shard, at)) if now >= at => outbox.put(subject, reject(head, job, shard)),
                Some((_, at)) => wake = Some(wake.map_or(at, |wake| wake.min(at))),
                None => {}
            }
        }
        wake
    }

    fn give_up_at(&mut self, now: Millis, job: u64, refused_by_all: Option<u32>) -> Option<(u32, Millis)> {
        let Some(shard) = refused_by_all else {
            self.refused_since.remove(&job);
            return None;
        };
        Some((shard, *self.refused_since.entry(job).or_insert(now) + REFUSED_WAIT_MS))
    }

    /// Before the first lease of a job: until when to wait for trainers that have a node but are not ready.
    fn wait_for_trainers(
        &mut self,
        now: Millis,
        view: &View,
        sequence: u64,
        job: &JobView,
        ready: usize,
    ) -> Option<Millis> {
        let head = job.head()?;
        if head.row.round > 0 || !head.row.leases.is_empty() || !head.given.is_empty() || ready == 0 {
            self.waiting_since.remove(&sequence);
            return None;
        }
        let started = view.tasks_of_job(sequence).filter(|(_, row)| row.open_epoch != 0).count();
        let until = *self.waiting_since.entry(sequence).or_insert(now) + FIRST_ROUND_WAIT_MS;
        (ready < started && now < until).then_some(until)
    }
}

/// The leases of the round after `round`, to ride with its CommitModel: nothing of it is given or leased yet.
pub(crate) fn plan_next(
    moment: &Moment<'_>,
    liveness: &Liveness,
    sequence: u64,
    job: &JobView,
    round: u64,
) -> Option<Command_oneof_kind> {
    let mut trainers = trainers(moment, liveness, sequence);
    let train = job.row.get_job().get_spec().get_train();
    // Whoever was not fast enough for the round that is closed is still at it.
    if let Some(closed) = job.head().filter(|_| job.row.round_rules) {
        count_unfinished(moment.view, &closed.row, &mut trainers);
    }
    let empty = RoundRow::default();
    let mut leases = Vec::new();
    let mut homes = Vec::new();
    for shard in 0..train.shards {
        let first = lease(&mut trainers, shard, false, |_| true)?;
        homes.push(Home { task_id: first.task_id.clone(), node_id: node_of(&trainers, &first) });
        leases.push(first);
    }
    for (shard, home) in (0..train.shards).zip(&homes) {
        if wants_verify(train, job, round, shard) {
            leases.extend(lease_elsewhere(&empty, &mut trainers, shard, home));
        }
    }
    command(job, round, leases)
}

fn command(job: &JobView, round: u64, mut leases: Vec<ShardLease>) -> Option<Command_oneof_kind> {
    if leases.is_empty() {
        return None;
    }
    // What does not go in now is seen as unleased in the next step.
    leases.truncate(LEASES_PER_COMMAND_MAX);
    Some(Command_oneof_kind::lease_shards(LeaseShards {
        job_id: job.row.get_job().job_id.clone(),
        round,
        leases: RepeatedField::from_vec(leases),
        ..LeaseShards::default()
    }))
}

/// Trainers of the job that may be given work, in order of sequence, with no work counted yet. Those on nodes that are quarantined for the job
/// are among them only if there is no other.
fn trainers<'a>(moment: &Moment<'a>, liveness: &Liveness, job: u64) -> Vec<Trainer<'a>> {
    let mut trainers: Vec<Trainer<'a>> = moment
        .view
        .tasks_of_job(job)
        .filter(|(_, row)| row.open_epoch != 0 && row.ready && row.get_task().phase != Phase::PHASE_STOPPING)
        .filter(|(_, row)| on_healthy_node(moment, liveness, row))
        .map(|(sequence, row)| Trainer {
            sequence,
            task_id: row.get_task().get_task_id(),
            node_id: row.get_task().get_assigned_node_id(),
            epoch: row.open_epoch,
            unfinished: 0,
        })
        .collect();
    let quarantined = moment.view.jobs.get(&job).map(|job| job.row.get_job().get_quarantined_nodes());
    let trusted = |trainer: &Trainer<'_>| !quarantined.is_some_and(|nodes| nodes.iter().any(|n| n == trainer.node_id));
    if trainers.iter().any(trusted) {
        trainers.retain(trusted);
    }
    trainers
}

fn on_healthy_node(moment: &Moment<'_>, liveness: &Liveness, row: &TaskRow) -> bool {
    let node_id = row.get_task().get_assigned_node_id();
    let healthy = moment.view.nodes.get(node_id).is_some_and(|node| node.get_node().status == NodeStatus::HEALTHY);
    healthy && liveness.in_reach(moment, node_id)
}

fn reject(head: &RoundView, job: &JobView, shard: u32) -> Command_oneof_kind {
    let round = head.row.round;
    let refused = head.given.get(&shard).and_then(|given| given.refused.last());
    let (node_id, reason) = refused.map(|one| (one.node_id.as_str(), one.reason.as_str())).unwrap_or_default();
    let reason =
        format!("round {round} shard {shard} was refused on {node_id} ({reason}), and no other trainer is in reach");
    fail(&job.row.get_job().job_id, JobPhase::JOB_REJECTED, &reason)
}

/// Who computes a shard, leased or given.
struct Home {
    task_id: String,
    node_id: String,
}

/// Whether pairs of the job may be leased now: of its open round, or of those that shards may be ahead in while it is summed.
fn takes_leases(policy: &RoundPolicy, head: &RoundView) -> bool {
    match head.row.phase {
        RoundPhase::ROUND_OPEN => true,
        RoundPhase::ROUND_SEALED => matches!(policy.mode, RoundMode::Bounded { .. }),
        RoundPhase::ROUND_COMMITTED => false,
    }
}

/// Everything that is to be leased, a command for each round; and what the open round waits for.
fn plan_rounds(
    moment: &Moment<'_>,
    liveness: &Liveness,
    job: &JobView,
    policy: &RoundPolicy,
    trainers: &mut [Trainer<'_>],
) -> (Plan, Vec<Command_oneof_kind>) {
    let (mut plan, mut commands) = (Plan::default(), Vec::new());
    let Some(head) = job.head() else { return (plan, commands) };
    count_unfinished(moment.view, &head.row, trainers);
    if matches!(policy.mode, RoundMode::Bounded { .. }) {
        job.ahead().for_each(|round| count_unfinished(moment.view, &round.row, trainers));
    }
    if head.row.phase == RoundPhase::ROUND_OPEN {
        plan = plan_open(moment, liveness, job, head, policy, trainers);
        commands.extend(command(job, head.row.round, std::mem::take(&mut plan.leases)));
    }
    if matches!(policy.mode, RoundMode::Bounded { .. }) {
        let mut before = head;
        for round in job.ahead() {
            let leases = plan_ahead(moment.view, policy, before, round, trainers);
            commands.extend(command(job, round.row.round, leases));
            before = round;
        }
    }
    (plan, commands)
}

/// Pairs of a round ahead of its model. A shard takes one round after the other, so that its state goes with it.
fn plan_ahead(
    view: &View,
    policy: &RoundPolicy,
    before: &RoundView,
    round: &RoundView,
    trainers: &mut [Trainer<'_>],
) -> Vec<ShardLease> {
    let live: Vec<&ShardLease> = live_leases(view, &round.row).collect();
    (0..policy.shards)
        .filter(|shard| before.is_given(*shard) && home(view, round, &live, *shard).is_none())
        .filter_map(|shard| lease_first(round, policy, trainers, shard))
        .collect()
}

/// Leases that somebody works on.
fn live_leases<'a>(view: &'a View, round: &'a RoundRow) -> impl Iterator<Item = &'a ShardLease> {
    let open = |lease: &ShardLease| view.lease_is_open(&lease.task_id, lease.epoch);
    let held = round.leases.iter().filter(|held| !held.answered && !held.taken);
    held.map(RoundLease::get_lease).filter(move |lease| open(lease))
}

/// What an extension took from a trainer it is still at.
fn count_unfinished(view: &View, round: &RoundRow, trainers: &mut [Trainer<'_>]) {
    let unanswered = round.leases.iter().filter(|held| !held.answered).map(RoundLease::get_lease);
    for lease in unanswered.filter(|lease| view.lease_is_open(&lease.task_id, lease.epoch)) {
        if let Some(trainer) = trainers.iter_mut().find(|trainer| trainer.task_id == lease.task_id) {
            trainer.unfinished += 1;
        }
    }
}

/// Everything of the open round that is to be leased. What its trainers have to do is counted already.
///
/// A pair on a node that fell silent is given to a second trainer before the lease ends, as a verification is: whoever answers first gives
/// it, and nobody waits for the lease of a dead worker.
fn plan_open(
    moment: &Moment<'_>,
    liveness: &Liveness,
    job: &JobView,
    head: &RoundView,
    policy: &RoundPolicy,
    trainers: &mut [Trainer<'_>],
) -> Plan {
    let (view, round) = (moment.view, &head.row);
    let train = job.row.get_job().get_spec().get_train();
    let live: Vec<&ShardLease> = live_leases(view, round).collect();
    let mut plan = Plan::default();
    let mut homes: BTreeMap<u32, Home> = BTreeMap::new();
    for shard in 0..train.shards {
        if let Some(home) = home(view, head, &live, shard) {
            homes.insert(shard, home);
        } else if let Some(lease) = lease_first(head, policy, trainers, shard) {
            homes.insert(shard, Home { task_id: lease.task_id.clone(), node_id: node_of(trainers, &lease) });
            plan.leases.push(lease);
        } else if !trainers.is_empty() {
            plan.refused_by_all = Some(shard);
        }
    }
    for shard in 0..train.shards {
        let Some(home) = homes.get(&shard) else { continue };
        let lost_at = liveness.lost_at(moment, &home.node_id).filter(|_| !head.is_given(shard));
        let lost = lost_at.is_some_and(|at| moment.now >= at);
        // Over which model a pair is computed is known when it is given, where that is not the round's.
        let comparable = policy.mode == RoundMode::Sync || head.is_given(shard);
        let verify = comparable && wants_verify(train, job, round.round, shard);
        if (lost || verify) && !has_second(head, &live, shard) {
            plan.leases.extend(lease_elsewhere(round, trainers, shard, home));
        }
        let soon = lost_at.filter(|at| *at > moment.now);
        plan.look_again = [plan.look_again, soon].into_iter().flatten().min();
    }
    plan
}

/// Who gave the shard, or works on it.
fn home(view: &View, round: &RoundView, live: &[&ShardLease], shard: u32) -> Option<Home> {
    if let Some(given) = round.given.get(&shard).filter(|given| !given.digest.is_empty()) {
        return Some(Home { task_id: given.task_id.clone(), node_id: given.node_id.clone() });
    }
    // If only the second computation is left, it is the first one now.
    let of_shard = || live.iter().filter(|lease| lease.shard == shard);
    let lease = of_shard().find(|lease| !lease.verify).or_else(|| of_shard().next())?;
    let (_, row) = view.task_by_id(&lease.task_id)?;
    Some(Home { task_id: lease.task_id.clone(), node_id: row.get_task().assigned_node_id.clone() })
}

/// A first computation. A pair that was refused goes to another node first, and never to the same attempt again. One that was taken from an
/// attempt by an extension, or came over too old a model, goes back to it if there is no other.
fn lease_first(
    round: &RoundView,
    policy: &RoundPolicy,
    trainers: &mut [Trainer<'_>],
    shard: u32,
) -> Option<ShardLease> {
    let refused = round.given.get(&shard).map(|given| given.get_refused()).unwrap_or_default();
    let fresh = |trainer: &Trainer<'_>| !had(&round.row, trainer, shard);
    let elsewhere = |trainer: &Trainer<'_>| !refused.iter().any(|one| one.node_id == trainer.node_id);
    let not_refused = |trainer: &Trainer<'_>| !refused.iter().any(|one| one.task_id == trainer.task_id);
    let comes_back = policy.deadline_ms > 0 || policy.mode != RoundMode::Sync;
    lease(trainers, shard, false, |trainer| fresh(trainer) && elsewhere(trainer))
        .or_else(|| lease(trainers, shard, false, fresh))
        .or_else(|| lease(trainers, shard, false, |trainer| comes_back && not_refused(trainer)))
}

/// Was the pair ever leased to this very attempt?
fn had(round: &RoundRow, trainer: &Trainer<'_>, shard: u32) -> bool {
    round
        .leases
        .iter()
        .map(RoundLease::get_lease)
        .any(|lease| lease.shard == shard && lease.task_id == trainer.task_id && lease.epoch == trainer.epoch)
}

/// Was the pair computed twice, or is a second computation under way?
fn has_second(round: &RoundView, live: &[&ShardLease], shard: u32) -> bool {
    let compared = round.given.get(&shard).is_some_and(|given| given.compared > 0);
    let answered = round
        .row
        .leases
        .iter()
        .any(|lease| lease.answered && lease.get_lease().verify && lease.get_lease().shard == shard);
    compared || answered || live.iter().any(|lease| lease.verify && lease.shard == shard)
}

/// Gives the pair to the trainer with least unfinished work among those that `may` have it.
fn lease(
    trainers: &mut [Trainer<'_>],
    shard: u32,
    verify: bool,
    may: impl Fn(&Trainer<'_>) -> bool,
) -> Option<ShardLease> {
    let trainer = trainers
        .iter_mut()
        .filter(|trainer| may(trainer))
        .min_by_key(|trainer| (trainer.unfinished, trainer.sequence))?;
    trainer.unfinished += 1;
    Some(ShardLease {
        shard,
        task_id: trainer.task_id.to_owned(),
        epoch: trainer.epoch,
        verify,
        ..ShardLease::default()
    })
}

/// A second computation: by a trainer on another node where there is one, else by another trainer, else not at all.
fn lease_elsewhere(round: &RoundRow, trainers: &mut [Trainer<'_>], shard: u32, home: &Home) -> Option<ShardLease> {
    let other = |trainer: &Trainer<'_>| trainer.task_id != home.task_id && !had(round, trainer, shard);
    lease(trainers, shard, true, |trainer| other(trainer) && trainer.node_id != home.node_id)
        .or_else(|| lease(trainers, shard, true, other))
}

fn node_of(trainers: &[Trainer<'_>], lease: &ShardLease) -> String {
    let trainer = trainers.iter().find(|trainer| trainer.task_id == lease.task_id);
    trainer.map(|trainer| trainer.node_id.to_owned()).unwrap_or_default()
}
