//! The hashes of the gradient ledger. Control, replica and audit call the same functions, so that what is proposed, what is accepted and
//! what is audited cannot drift.

use raftgrid_proto::v1::{Combine, ContributionRow, JobRow, Optimizer, RoundRow};
use sha2::{Digest as _, Sha256};

use crate::round_policy::{RoundMode, RoundPolicy};

/// Id of the aggregation: weighted mean in shard order with an f32 accumulator and f64 weights, then the named optimiser, version 1 of both.
/// It is part of every inputs_hash; a change of the arithmetic needs a new id and a new machine_version.
pub const ALGORITHM_ID: &str = "raftgrid/weighted-mean-f32-shard-order/1";

/// One accepted contribution, as it goes into the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputContribution<'a> {
    /// Its shard; contributions stand in order of it.
    pub shard: u32,
    /// SHA-256 of the gradient's file.
    pub digest: &'a [u8],
    /// The bits of its f64 weight.
    pub weight_bits: u64,
    /// The model that it was computed over.
    pub model_version: u64,
}

/// Everything that decides the bytes of model r+1.
#[derive(Clone, Debug)]
pub struct RoundInputs<'a> {
    /// SHA-256 of model r.
    pub model_digest: &'a [u8],
    /// SHA-256 of the optimiser's state r; empty for r = 0.
    pub state_digest: &'a [u8],
    /// Accepted contributions in shard order.
    pub contributions: Vec<InputContribution<'a>>,
    /// Hyper-parameters.
    pub optimizer: &'a Optimizer,
    /// How contributions become one. None: SGD over the weighted mean, all that machine version 4 knew.
    pub combine: Option<&'a Combine>,
    /// The round: a schedule's learning rate depends on it.
    pub round: u64,
    /// SHA-256 of the code bundle; may be empty.
    pub bundle_digest: &'a [u8],
    /// [`ALGORITHM_ID`].
    pub algorithm_id: &'a str,
    /// Whether contributions may be of other models than the round's, so that which they are of counts: the job's mode is not sync.
    pub names_models: bool,
}

impl<'a> RoundInputs<'a> {
    /// The inputs of a round as its rows tell them. `contributions` are the round's rows in shard order; those that hold refused results
    /// only are passed over.
    pub fn of_rows(job: &'a JobRow, round: &'a RoundRow, contributions: &'a [ContributionRow]) -> Self {
        let accepted = contributions.iter().filter(|row| !row.digest.is_empty());
        Self {
            model_digest: &round.input_model_digest,
            state_digest: &round.input_state_digest,
            contributions: accepted
                .map(|row| InputContribution {
                    shard: row.shard,
                    digest: &row.digest,
                    weight_bits: row.weight_bits,
                    model_version: row.model_version,
                })
                .collect(),
            optimizer: job.get_job().get_optimizer(),
            combine: job.get_job().combine.as_ref(),
            round: round.round,
            bundle_digest: &job.get_job().get_spec().bundle_digest,
            algorithm_id: ALGORITHM_ID,
            names_models: RoundPolicy::of(job).mode != RoundMode::Sync,
        }
    }
}

/// Hash over everything that decides the bytes of model r+1. Each part goes in with its length.
pub fn round_inputs_hash(inputs: &RoundInputs<'_>) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    if inputs.names_models {
        part(b"raftgrid round inputs 3");
        part(&[u8::from(inputs.combine.is_some())]);
    } else {
        part(if inputs.combine.is_some() { b"raftgrid round inputs 2" } else { b"raftgrid round inputs 1" });
    }
    part(inputs.algorithm_id.as_bytes());
    part(inputs.model_digest);
    part(inputs.state_digest);
    part(inputs.bundle_digest);
    let optimizer = inputs.optimizer;
    part(optimizer.algorithm.as_bytes());
    for number in [optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay] {
        part(&number.to_bits().to_be_bytes());
    }
    part(&[u8::from(optimizer.nesterov)]);
    if let Some(combine) = inputs.combine {
        more_settings(inputs, combine, &mut part);
    }
    part(&(inputs.contributions.len() as u64).to_be_bytes());
    for contribution in &inputs.contributions {
        part(&contribution.shard.to_be_bytes());
        part(contribution.digest);
        part(&contribution.weight_bits.to_be_bytes());
        if inputs.names_models {
            part(&contribution.model_version.to_be_bytes());
        }
    }
    hash.finalize().into()
}

/// What came with machine version 5. Jobs that use none of it keep the hash that they always had.
fn more_settings(inputs: &RoundInputs<'_>, combine: &Combine, part: &mut impl FnMut(&[u8])) {
    let optimizer = inputs.optimizer;
    for number in [optimizer.beta1, optimizer.beta2, optimizer.epsilon] {
        part(&number.to_bits().to_be_bytes());
    }
    part(&[u8::from(optimizer.has_schedule())]);
    if let Some(schedule) = optimizer.schedule.as_ref() {
        part(schedule.kind.as_bytes());
        for number in [inputs.round, schedule.warmup_rounds, schedule.decay_rounds, schedule.step_rounds] {
            part(&number.to_be_bytes());
        }
        for number in [schedule.final_factor, schedule.step_factor] {
            part(&number.to_bits().to_be_bytes());
        }
    }
    part(combine.strategy.as_bytes());
    for number in [combine.trim_fraction, combine.clip_norm] {
        part(&number.to_bits().to_be_bytes());
    }
}

/// The next link of the chain over committed rounds: H(previous, inputs_hash, digest of model r+1). Before round 0, `previous` is empty.
pub fn chain_hash(previous: &[u8], inputs_hash: &[u8], model_digest: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for bytes in [previous, inputs_hash, model_digest] {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use raftgrid_proto::v1::LearningRateSchedule;

    use super::*;

    fn hash(change: impl FnOnce(&mut RoundInputs<'_>, &mut Optimizer)) -> [u8; 32] {
        let mut optimizer = Optimizer { algorithm: "sgd".into(), learning_rate: 0.1, ..Optimizer::default() };
        let digests = [[1_u8; 32], [2; 32]];
        let empty = Optimizer::default();
        let mut inputs = RoundInputs {
            model_digest: &[3; 32],
            state_digest: &[4; 32],
            contributions: vec![
                InputContribution { shard: 0, digest: &digests[0], weight_bits: 1.0_f64.to_bits(), model_version: 7 },
                InputContribution { shard: 1, digest: &digests[1], weight_bits: 2.0_f64.to_bits(), model_version: 7 },
            ],
            optimizer: &empty,
            combine: None,
            round: 7,
            bundle_digest: &[5; 32],
            algorithm_id: ALGORITHM_ID,
            names_models: false,
        };
        change(&mut inputs, &mut optimizer);
        inputs.optimizer = &optimizer;
        round_inputs_hash(&inputs)
    }

    /// With what came with machine version 5.
    fn more(change: impl FnOnce(&mut u64, &mut Optimizer, &mut Combine)) -> [u8; 32] {
        let mut combine = Combine::default();
        let mut optimizer = Optimizer { algorithm: "sgd".into(), learning_rate: 0.1, ..Optimizer::default() };
        let mut round = 7;
        change(&mut round, &mut optimizer, &mut combine);
        let inputs = RoundInputs {
            model_digest: &[3; 32],
            state_digest: &[4; 32],
            contributions: Vec::new(),
            optimizer: &optimizer,
            combine: Some(&combine),
            round,
            bundle_digest: &[5; 32],
            algorithm_id: ALGORITHM_ID,
            names_models: false,
        };
        round_inputs_hash(&inputs)
    }

    #[test]
    fn every_input_changes_the_hash() {
        let mut all = vec![
            hash(|_, _| ()),
            hash(|inputs, _| inputs.model_digest = &[9; 32]),
            hash(|inputs, _| inputs.state_digest = &[9; 32]),
            hash(|inputs, _| inputs.state_digest = &[]),
            hash(|inputs, _| inputs.bundle_digest = &[9; 32]),
            hash(|inputs, _| inputs.algorithm_id = "other"),
            hash(|inputs, _| inputs.contributions.swap(0, 1)),
            hash(|inputs, _| inputs.contributions[1].shard = 2),
            hash(|inputs, _| inputs.contributions[1].weight_bits = 3.0_f64.to_bits()),
            hash(|inputs, _| inputs.contributions[1].digest = &[9; 32]),
            hash(|inputs, _| inputs.contributions.truncate(1)),
            hash(|inputs, _| inputs.names_models = true),
            hash(|inputs, _| {
                inputs.names_models = true;
                inputs.contributions[0].model_version = 6;
            }),
            hash(|inputs, _| {
                inputs.names_models = true;
                inputs.combine = Some(<Combine as protobuf::Message>::default_instance());
            }),
            hash(|_, optimizer| optimizer.algorithm = "adam".into()),
            hash(|_, optimizer| optimizer.learning_rate = 0.2),
            hash(|_, optimizer| optimizer.momentum = 0.9),
            hash(|_, optimizer| optimizer.weight_decay = 0.9),
            hash(|_, optimizer| optimizer.nesterov = true),
            more(|_, _, _| ()),
            more(|_, optimizer, _| optimizer.beta1 = 0.5),
            more(|_, optimizer, _| optimizer.beta2 = 0.5),
            more(|_, optimizer, _| optimizer.epsilon = 0.5),
            more(|_, optimizer, _| optimizer.set_schedule(LearningRateSchedule::default())),
            more(|round, optimizer, _| {
                optimizer.set_schedule(LearningRateSchedule::default());
                *round = 8;
            }),
            more(|_, optimizer, _| optimizer.mut_schedule().kind = "cosine".into()),
            more(|_, optimizer, _| optimizer.mut_schedule().warmup_rounds = 3),
            more(|_, optimizer, _| optimizer.mut_schedule().decay_rounds = 3),
            more(|_, optimizer, _| optimizer.mut_schedule().step_rounds = 3),
            more(|_, optimizer, _| optimizer.mut_schedule().final_factor = 0.5),
            more(|_, optimizer, _| optimizer.mut_schedule().step_factor = 0.5),
            more(|_, _, combine| combine.strategy = "median".into()),
            more(|_, _, combine| combine.trim_fraction = 0.25),
            more(|_, _, combine| combine.clip_norm = 1.0),
        ];
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "two different inputs share a hash");
    }
}
