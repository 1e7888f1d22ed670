//! A trainer: what the SDK in a task's process and the agent of its machine do for it. Model 0, then shard after shard: get the model, compute,
//! push until there is an Ack. A push whose answer was lost is sent again, to whichever replica; some are sent again for no reason, and those
//! of an unruly job now and then send what they did not compute.

use std::collections::VecDeque;

use raftgrid_proto::v1::{Ack, AckOutcome, NextShardsRequest, ShardStep};
use raftgrid_replica::ports::{CallError, GradientMeta, InitModelMeta, ModelQuery, Purpose};
use raftgrid_worker::executor::LeaseId;

use crate::calls::{Request, Response};
use crate::check::Checks;
use crate::course::{Course, Sent};
use crate::digest::sha256;
use crate::rng::Rng;

/// How long a poll for shards waits on the other side.
const POLL_WAIT_MS: u32 = 1_000;
/// Pause after a call that failed, at least; as much again on average.
const AGAIN_MS: u64 = 30;
/// Pushes that are sent again although their Ack came, of a thousand.
const AGAIN_SHARE: u64 = 80;
/// Pushes of an unruly job that are followed by other bytes, and pairs for which it first sends a number that is none, of a thousand.
const UNRULY_SHARE: u64 = 200;

/// A gradient on its way into the ledger.
#[derive(Clone, Debug)]
pub struct Push {
    /// Of this job.
    pub job: String,
    /// Of this round.
    pub round: u64,
    /// Of this shard.
    pub shard: u32,
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
    sent: Sent,
    /// An Ack came before.
    again: bool,
    bytes: Vec<u8>,
    weight: f64,
}

enum Stage {
    /// Offers model 0.
    Init,
    /// Asks for shards, or for the model of the next one.
    Ask,
    /// Pushes what it computed.
    Push(Box<Push>),
}

/// A trainer's process.
pub struct Trainer {
    lease: LeaseId,
    node_id: String,
    course: Course,
    rng: Rng,
    stage: Stage,
    steps: VecDeque<ShardStep>,
    model: Option<(u64, Vec<u8>)>,
    /// When it goes on.
    due_ms: u64,
    /// A call is under way.
    waits: bool,
    exit: Option<i32>,
}

impl Trainer {
    /// The process of a lease, which begins now.
    pub fn new(lease: LeaseId, node_id: String, course: Course, now_ms: u64, rng: Rng) -> Self {
        Self {
            lease,
            node_id,
            course,
            rng,
            stage: Stage::Init,
            steps: VecDeque::new(),
            model: None,
            due_ms: now_ms,
            waits: false,
            exit: None,
        }
    }

    /// When it does something by itself.
    pub fn due_ms(&self) -> u64 {
        if self.waits || self.exit.is_some() {
            u64::MAX
        } else {
            self.due_ms
        }
    }

    /// With which code it has ended.
    pub fn exit(&self) -> Option<i32> {
        self.exit
    }

    /// The push that is under way: the machine's agent may have it still when the process is dead.
    pub fn push(&self) -> Option<&Push> {
        match &self.stage {
            Stage::Push(push) if self.waits => Some(push),
            Stage::Push(_) | Stage::Init | Stage::Ask => None,
        }
    }

    /// What it calls now. `compute_ms`: how long a gradient takes, on average.
    pub fn wake(&mut self, now_ms: u64, compute_ms: u64, checks: &mut Checks) -> Option<Request> {
        if self.due_ms() > now_ms {
            return None;
        }
        let request = match &self.stage {
            Stage::Init => self.init(),
            Stage::Push(push) => self.push_request(push),
            Stage::Ask => match self.steps.front() {
                None => Request::NextShards(NextShardsRequest {
                    job_id: self.course.name.clone(),
                    task_id: self.lease.task_id.clone(),
                    lease_epoch: self.lease.epoch,
                    wait_ms: POLL_WAIT_MS,
                    ..NextShardsRequest::default()
                }),
                Some(step) if self.model.as_ref().is_some_and(|(version, _)| *version == step.model_version) => {
                    let step = step.clone();
                    self.compute(&step, checks);
                    self.due_ms = now_ms + self.rng.around(compute_ms);
                    return None;
                }
                Some(step) => Request::Model(Box::new(ModelQuery {
                    job_id: self.course.name.clone(),
                    task_id: self.lease.task_id.clone(),
                    node_id: self.node_id.clone(),
                    lease_epoch: self.lease.epoch,
                    version: Some(step.model_version),
                })),
            },
        };
        self.waits = true;
        Some(request)
    }

    fn init(&self) -> Request {
        let meta = InitModelMeta {
            job_id: self.course.name.clone(),
            task_id: self.lease.task_id.clone(),
            lease_epoch: self.lease.epoch,
            optimizer: self.course.optimizer.clone(),
            combine: self.course.combine.clone(),
            numeric_class: Vec::new(),
        };
        Request::Upload(Box::new((Purpose::InitModel(meta), self.course.first_model())))
    }

    /// Also for the agent, which sends it on when the process is gone.
    pub fn push_request(&self, push: &Push) -> Request {
        let meta = GradientMeta {
            job_id: push.job.clone(),
            worker_id: self.node_id.clone(),
            round: push.round,
            shard: push.shard,
            task_id: self.lease.task_id.clone(),
            lease_epoch: self.lease.epoch,
            weight: push.weight,
            metrics_json: format!("{{\"loss\":{}}}", push.shard).into_bytes(),
            state_artifact: String::new(),
            numeric_class: Vec::new(),
            model_version: None,
        };
        Request::Upload(Box::new((Purpose::Gradient(meta), push.bytes.clone())))
    }

    fn compute(&mut self, step: &ShardStep, checks: &mut Checks) {
        let unruly = self.course.is_unruly && self.rng.chance(UNRULY_SHARE);
        // A pair that is refused on two nodes stops its job: one refusal a job is enough.
        let not_finite = unruly && checks.training.not_finite.insert(self.course.name.clone());
        self.prepare(step.round, step.shard, if not_finite { Sent::NotFinite } else { Sent::Right }, false);
    }

    fn prepare(&mut self, round: u64, shard: u32, sent: Sent, again: bool) {
        let Some((_, model)) = &self.model else { return };
        let bytes = self.course.gradient(model, round, shard, sent);
        let (job, weight) = (self.course.name.clone(), self.course.weight(round, shard));
        let digest = sha256(&bytes);
        self.stage = Stage::Push(Box::new(Push { job, round, shard, digest, sent, again, bytes, weight }));
    }

    /// An answer came, or none in time.
    pub fn answered(&mut self, now_ms: u64, response: Option<&Response>, checks: &mut Checks) {
        self.waits = false;
        self.due_ms = now_ms;
        match response {
            Some(Response::NextShards(Ok(answer))) => {
                self.steps = answer.steps.iter().cloned().collect();
                if answer.finished {
                    self.exit = Some(0);
                }
            }
            Some(Response::Model(Ok((version, bytes)))) => {
                let step = self.steps.front();
                if step.is_some_and(|step| step.model_version == *version && step.model_digest != sha256(bytes)) {
                    checks.violated(format!("model {version} of {} was given with other bytes", self.course.name));
                }
                self.model = Some((*version, bytes.clone()));
            }
            Some(Response::Upload(Ok(ack))) => self.acked(now_ms, ack, checks),
            Some(Response::Command(_) | Response::Read(_) | Response::Beat(_) | Response::Poll(_)) => {}
            Some(failed @ (Response::NextShards(_) | Response::Model(_) | Response::Upload(_))) => {
                self.failed(now_ms, failed.error(), checks);
            }
            None => self.failed(now_ms, None, checks),
        }
    }

    /// Whether another attempt helps is told apart as the SDK does.
    fn failed(&mut self, now_ms: u64, error: Option<&CallError>, checks: &mut Checks) {
        match error {
            None
            | Some(
                CallError::Unavailable(_) | CallError::Exhausted(_) | CallError::Unknown | CallError::NotLeader { .. },
            ) => self.due_ms = now_ms + AGAIN_MS + self.rng.around(AGAIN_MS),
            Some(CallError::Precondition(why)) if why.starts_with("STALE_LEASE") => self.exit = Some(1),
            Some(
                error @ (CallError::Invalid(_)
                | CallError::Precondition(_)
                | CallError::NotFound(_)
                | CallError::Internal(_)),
            ) => {
                checks.violated(format!("{} is ended by a sound call: {error}", self.lease.task_id));
                self.exit = Some(1);
            }
        }
    }

    fn acked(&mut self, now_ms: u64, ack: &Ack, checks: &mut Checks) {
        if !ack.success && ack.reason.starts_with("STALE_LEASE") {
            self.exit = Some(1);
            return;
        }
        match std::mem::replace(&mut self.stage, Stage::Ask) {
            Stage::Ask => {}
            Stage::Init => self.model_acked(ack, checks),
            Stage::Push(push) => self.push_acked(now_ms, &push, ack, checks),
        }
    }

    fn model_acked(&mut self, ack: &Ack, checks: &mut Checks) {
        match ack.outcome {
            AckOutcome::ACK_ACCEPTED | AckOutcome::ACK_DUPLICATE if ack.success => {}
            // As the SDK, it does not send it a second time, whatever it is told.
            outcome => checks.violated(format!("model 0 of {} was answered {outcome:?}", self.course.name)),
        }
    }

    fn push_acked(&mut self, now_ms: u64, push: &Push, ack: &Ack, checks: &mut Checks) {
        checks.training.acked(push, ack);
        let what = || format!("round {} shard {} of {}", push.round, push.shard, push.job);
        match (push.sent, ack.outcome) {
            (Sent::Right, _) if ack.success => return self.after_success(push),
            (Sent::Other | Sent::NotFinite, _) if ack.success => {
                checks.violated(format!("5: {} was given, and other bytes were acknowledged: {ack:?}", what()));
            }
            (_, AckOutcome::ACK_STALE) => self.due_ms = now_ms + AGAIN_MS,
            (Sent::Other | Sent::NotFinite, AckOutcome::ACK_MISMATCH) => {}
            (Sent::NotFinite, AckOutcome::ACK_REJECTED) if self.rng.chance(500) => {
                // Its script goes on, with what it should have sent.
                return self.prepare(push.round, push.shard, Sent::Right, false);
            }
            (Sent::NotFinite, AckOutcome::ACK_REJECTED) => self.exit = Some(1),
            (Sent::Right | Sent::Other | Sent::NotFinite, outcome) => {
                checks.violated(format!("{} was answered {outcome:?}: {}", what(), ack.reason));
            }
        }
        self.steps.pop_front();
    }

    fn after_success(&mut self, push: &Push) {
        if self.course.is_unruly && !push.again && self.rng.chance(UNRULY_SHARE) {
            return self.prepare(push.round, push.shard, Sent::Other, true);
        }
        if !push.again && self.rng.chance(AGAIN_SHARE) {
            return self.prepare(push.round, push.shard, Sent::Right, true);
        }
        self.steps.pop_front();
    }
}
