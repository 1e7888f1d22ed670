//! What a train job says of its rounds: how many contributions seal one, what a deadline does, over which models they may be computed. Apply,
//! control, replica and audit read it here, so that what is planned and what is accepted cannot drift (decision 0034).

use raftgrid_proto::v1::{JobRow, RoundPhase, RoundRow};

use crate::limits::LEDGER_ROUNDS;

/// Over which models the contributions of a round may be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundMode {
    /// Over that of the round.
    Sync,
    /// Over it or one that is at most `staleness` rounds older: a shard may be that many rounds ahead of the slowest one (stale synchronous
    /// parallel, Ho et al. 2013).
    Bounded {
        /// Rounds, from 1 on.
        staleness: u64,
    },
    /// Over whatever was the newest when its trainer began: it enters the round that is open when it comes, the first k seal it (buffered
    /// asynchronous aggregation, FedBuff, Nguyen et al. 2022). There is no weight by staleness.
    Async {
        /// Rounds that the model may be behind.
        staleness: u64,
    },
}

/// The rules of a job's rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundPolicy {
    /// Shards of the job.
    pub shards: u32,
    /// Its rounds.
    pub rounds: u64,
    /// Contributions that seal a round at once.
    pub quorum: u32,
    /// Contributions that a deadline needs.
    pub minimum: u32,
    /// From when its model stands or the last extension to the deadline, in cluster time; 0: there is none.
    pub deadline_ms: u64,
    /// Extensions of a round that stays below `minimum`.
    pub extensions_max: u32,
    /// After them the job fails; else it is paused.
    pub fails: bool,
    /// Over which models.
    pub mode: RoundMode,
}

impl RoundPolicy {
    /// Those of a job. One that was handed in below machine version 6, or that asks for none of it, waits for its quorum for ever.
    pub fn of(job_row: &JobRow) -> Self {
        let train = job_row.get_job().get_spec().get_train();
        let quorum = if train.quorum == 0 { train.shards } else { train.quorum };
        let plain = Self {
            shards: train.shards,
            rounds: train.rounds,
            quorum,
            minimum: quorum,
            deadline_ms: 0,
            extensions_max: 0,
            fails: false,
            mode: RoundMode::Sync,
        };
        if !job_row.round_rules {
            return plain;
        }
        let mode = match (train.mode.as_str(), train.staleness) {
            (BOUNDED, staleness) => RoundMode::Bounded { staleness },
            // Beyond the ledger it could not be told whether a contribution was counted.
            (ASYNC, 0) => RoundMode::Async { staleness: LEDGER_ROUNDS - 1 },
            (ASYNC, staleness) => RoundMode::Async { staleness },
            _ => RoundMode::Sync,
        };
        Self {
            minimum: if train.min_contributions == 0 { quorum } else { train.min_contributions },
            deadline_ms: train.round_deadline_ms,
            extensions_max: train.extensions_max,
            fails: train.on_shortfall == FAIL,
            mode,
            ..plain
        }
    }

    /// When an open round may be sealed or extended, in cluster time. None: never; also while its model does not stand.
    pub fn deadline(&self, round: &RoundRow) -> Option<u64> {
        let counts = self.deadline_ms > 0 && round.phase == RoundPhase::ROUND_OPEN && is_head(round);
        counts.then(|| round.opened_at_ms.max(round.deadline_from_ms).saturating_add(self.deadline_ms))
    }

    /// Whether another extension is left to the round.
    pub fn may_extend(&self, round: &RoundRow) -> bool {
        round.extensions.saturating_sub(round.extensions_before) < self.extensions_max
    }

    /// The oldest model that a contribution to the round may be computed over.
    pub fn oldest_model(&self, round: u64) -> u64 {
        match self.mode {
            RoundMode::Sync => round,
            RoundMode::Bounded { staleness } | RoundMode::Async { staleness } => round.saturating_sub(staleness),
        }
    }

    /// The model that a step of the round is computed over while `newest` is the newest.
    pub fn model_for(&self, round: u64, newest: u64) -> u64 {
        match self.mode {
            RoundMode::Sync => round,
            RoundMode::Bounded { .. } => round.min(newest),
            RoundMode::Async { .. } => newest,
        }
    }

    /// The last round that collects contributions while model `head` is the newest: a sealed round of an async job is followed by the next one
    /// before its sum is there.
    pub fn last_open(&self, head: u64) -> u64 {
        let ahead = match self.mode {
            RoundMode::Sync => 0,
            RoundMode::Bounded { staleness } => staleness,
            RoundMode::Async { .. } => 1,
        };
        head.saturating_add(ahead).min(self.rounds.saturating_sub(1))
    }

    /// Whether every round is made of the same contributions whoever was fast: none may be missing, none over another model. Else the reason.
    pub fn whole_rounds(&self) -> Result<(), String> {
        match self.mode {
            RoundMode::Sync => {}
            RoundMode::Bounded { staleness } => {
                return Err(format!("rounds may hold gradients of models up to {staleness} rounds older (bounded)"));
            }
            RoundMode::Async { .. } => {
                return Err("rounds hold the gradients that came first, of whatever model (async)".to_owned());
            }
        }
        if self.quorum < self.shards {
            return Err(format!("rounds may be sealed without all shards: quorum {} of {}", self.quorum, self.shards));
        }
        if self.deadline_ms > 0 && self.minimum < self.shards {
            let (minimum, shards) = (self.minimum, self.shards);
            return Err(format!("rounds may be sealed without all shards: deadline with {minimum} of {shards}"));
        }
        Ok(())
    }

    /// As the spec names it.
    pub fn mode_name(&self) -> &'static str {
        match self.mode {
            RoundMode::Sync => SYNC,
            RoundMode::Bounded { .. } => BOUNDED,
            RoundMode::Async { .. } => ASYNC,
        }
    }
}

/// Whether the round's model stands: it is the one to be sealed next, or was.
pub(crate) fn is_head(round: &RoundRow) -> bool {
    round.model_artifact != 0
}

pub(crate) const SYNC: &str = "sync";
pub(crate) const BOUNDED: &str = "bounded";
pub(crate) const ASYNC: &str = "async";
pub(crate) const PAUSE: &str = "pause";
pub(crate) const FAIL: &str = "fail";
/// How a round was sealed.
pub(crate) const BY_QUORUM: &str = "quorum";
/// The same.
pub(crate) const BY_DEADLINE: &str = "deadline";
