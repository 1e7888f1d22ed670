//! A train job: what it asks for, what its trainers compute, and what must come of it. All of it follows from the job's name, so that whoever
//! knows the name (a trainer, a judge) knows the rest, and no two of them can differ.
//!
//! `expected` is the undisturbed run: one loop over rounds and shards with `raftgrid-train`, no cluster anywhere near it.

use raftgrid_proto::v1::{
    Combine, Command_oneof_kind as Kind, JobSpec, LearningRateSchedule, Optimizer, SubmitJob, TrainSpec,
};
use raftgrid_train::frame::f32s;
use raftgrid_train::{shard_seed, Aggregator, Dtype, Frame, Layout, RoundRule, TensorSpec, TrainError};

use crate::digest::sha256;
use crate::rng::{hash_bytes, mix, Rng};

/// What the name of every train job begins with.
const PREFIX: &str = "train-";
/// After it, for those whose trainers now and then send what they should not.
const UNRULY: &str = "unruly-";
/// Attempts of a trainer: a cluster that dies again and again costs some.
const RETRIES_MAX: u32 = 50;

/// A train job.
#[derive(Clone, Debug)]
pub struct Course {
    /// Its name.
    pub name: String,
    /// Shards of each round.
    pub shards: u32,
    /// Rounds.
    pub rounds: u64,
    /// Its trainers now and then send other bytes, and numbers that are none.
    pub is_unruly: bool,
    /// What the leader runs over what they send.
    pub optimizer: Optimizer,
    /// How contributions become one; named by the spec.
    combine_of_spec: Option<Combine>,
    /// The same; named with model 0.
    pub combine: Option<Combine>,
    workers: u32,
    seed: u64,
    verify: f64,
    shapes: Vec<(&'static str, Vec<usize>)>,
}

/// SHA-256 of everything that an undisturbed run makes.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Model 0, 1, … after the last round.
    pub models: Vec<[u8; 32]>,
    /// The optimiser's state after round 0, 1, …
    pub states: Vec<[u8; 32]>,
    /// By round, by shard.
    pub gradients: Vec<Vec<[u8; 32]>>,
}

/// What a trainer sends for a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// What it computed.
    Right,
    /// Other numbers.
    Other,
    /// A number that is none among them.
    NotFinite,
}

fn number(rng: &mut Rng) -> f32 {
    // Of very different sizes, so that the order of a sum shows in its last bits.
    let exponent = i32::try_from(rng.below(9)).unwrap_or(0) - 6;
    let mantissa = (rng.next() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0;
    mantissa * 2.0_f32.powi(exponent)
}

impl Course {
    /// A name that nobody else draws.
    pub fn name(client: usize, made: u64, is_unruly: bool, rng: &mut Rng) -> String {
        let unruly = if is_unruly { UNRULY } else { "" };
        format!("{PREFIX}{unruly}{client}-{made}-{:012x}", rng.next() >> 16)
    }

    /// The job of that name; None: it is no train job.
    pub fn of(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(PREFIX)?;
        let mut rng = Rng::new(hash_bytes(name.as_bytes()));
        let shards = u32::try_from(rng.between(1, 6)).unwrap_or(1);
        let shapes = match rng.below(3) {
            0 => vec![("w", vec![2, 3])],
            1 => vec![("w", vec![3]), ("b", vec![])],
            _ => vec![("layer/w", vec![2, 2]), ("layer/b", vec![2]), ("scale", vec![1])],
        };
        let optimizer = optimizer(&mut rng);
        let combine = rng.chance(400).then(|| combine(&mut rng));
        let in_spec = rng.chance(500);
        Some(Self {
            name: name.to_owned(),
            shards,
            rounds: rng.between(2, 5),
            is_unruly: rest.starts_with(UNRULY),
            optimizer,
            combine_of_spec: combine.clone().filter(|_| in_spec),
            combine: combine.filter(|_| !in_spec),
            workers: u32::try_from(rng.between(1, 4)).unwrap_or(1),
            seed: rng.next() >> 8,
            verify: *rng.pick(&[0.0, 0.0, 0.2, 1.0]).unwrap_or(&0.0),
            shapes,
        })
    }

    /// Hands it in.
    pub fn submit(&self) -> Kind {
        let mut train = TrainSpec { shards: self.shards, workers: self.workers, ..TrainSpec::default() };
        (train.rounds, train.seed, train.verify) = (self.rounds, self.seed, self.verify);
        train.combine = self.combine_of_spec.clone().into();
        let mut spec = JobSpec { name: self.name.clone(), field_type: "train".to_owned(), ..JobSpec::default() };
        spec.task_data = b"{\"script\":\"simulated.py\"}".to_vec();
        spec.mut_task().set_max_retries(RETRIES_MAX);
        spec.mut_task().set_retries_given(true);
        // Before what else clients hand in: it is to go on while there is trouble, not when all is over.
        spec.mut_task().set_priority(100);
        spec.set_train(train);
        Kind::submit_job(SubmitJob { spec: Some(spec).into(), ..SubmitJob::default() })
    }

    /// Model 0, of the job's seed.
    pub fn first_model(&self) -> Vec<u8> {
        let mut rng = Rng::new(mix(self.seed));
        self.frame(&mut |_| number(&mut rng))
    }

    /// A gradient: of the model, and of H(job seed, round, shard); of nothing else.
    pub fn gradient(&self, model: &[u8], round: u64, shard: u32, sent: Sent) -> Vec<u8> {
        let seed = shard_seed(self.seed, round, shard);
        let mut rng = Rng::new(mix(if sent == Sent::Other { !seed } else { seed }));
        let frame = Frame::parse(model).expect("a model that was verified is a frame");
        let values: Vec<f32> = frame.tensors().flat_map(|(_, data)| f32s(data)).collect();
        self.frame(&mut |place| match sent {
            Sent::NotFinite if place == 0 => f32::NAN,
            Sent::Right | Sent::Other | Sent::NotFinite => 0.125 * values[place] + number(&mut rng),
        })
    }

    /// What a shard's contribution counts for.
    pub fn weight(&self, round: u64, shard: u32) -> f64 {
        1.0 + (shard_seed(self.seed, round, shard) % 64) as f64 / 10.0
    }

    fn frame(&self, value: &mut dyn FnMut(usize) -> f32) -> Vec<u8> {
        let spec = |(name, shape): &(&str, Vec<usize>)| TensorSpec {
            name: (*name).to_owned(),
            dtype: Dtype::F32,
            shape: shape.clone(),
        };
        let layout = Layout::new(self.shapes.iter().map(spec).collect()).expect("names and sizes are small");
        let data: Vec<u8> = (0..layout.elements()).flat_map(|place| value(place).to_le_bytes()).collect();
        layout.write_concatenated(&data).expect("each element has its four bytes")
    }

    /// What an undisturbed run makes. Err: it makes nothing, and the course is none.
    pub fn expected(&self) -> Result<Expected, TrainError> {
        let combine = self.combine_of_spec.as_ref().or(self.combine.as_ref()).cloned().unwrap_or_default();
        let shards: Vec<u32> = (0..self.shards).collect();
        let (mut model, mut state) = (self.first_model(), None);
        let mut expected = Expected { models: vec![sha256(&model)], ..Expected::default() };
        for round in 0..self.rounds {
            let rule = RoundRule::from_proto(&self.optimizer, &combine, round)?;
            let mut sum = Aggregator::with_rule(&model, state.as_deref(), &shards, rule)?;
            let mut digests = Vec::new();
            for shard in &shards {
                let gradient = self.gradient(&model, round, *shard, Sent::Right);
                sum.add(*shard, self.weight(round, *shard), &gradient)?;
                digests.push(sha256(&gradient));
            }
            let next = sum.finish()?;
            expected.gradients.push(digests);
            expected.models.push(sha256(&next.model));
            expected.states.push(sha256(&next.state));
            (model, state) = (next.model, Some(next.state));
        }
        Ok(expected)
    }
}

fn optimizer(rng: &mut Rng) -> Optimizer {
    const ALGORITHMS: [&str; 8] = ["sgd", "sgd", "adam", "adamw", "fedavg", "fedavgm", "fedadam", "diloco"];
    let algorithm = *rng.pick(&ALGORITHMS).unwrap_or(&"sgd");
    let mut optimizer = Optimizer { algorithm: algorithm.to_owned(), learning_rate: 0.05, ..Optimizer::default() };
    match algorithm {
        "fedavg" => optimizer.learning_rate = 1.0,
        "fedavgm" | "diloco" => optimizer.momentum = 0.9,
        "adam" | "adamw" | "fedadam" => {
            (optimizer.beta1, optimizer.beta2, optimizer.epsilon) = (0.9, 0.99, 1e-3);
        }
        _ if rng.chance(600) => optimizer.momentum = 0.9,
        _ => {}
    }
    optimizer.nesterov = matches!(algorithm, "sgd" | "diloco") && optimizer.momentum > 0.0 && rng.chance(500);
    if matches!(algorithm, "sgd" | "adam" | "adamw") && rng.chance(300) {
        optimizer.weight_decay = 0.01;
    }
    if algorithm != "fedavg" && rng.chance(300) {
        let mut schedule = LearningRateSchedule { warmup_rounds: rng.below(3), ..LearningRateSchedule::default() };
        if rng.chance(500) {
            schedule.kind = "cosine".to_owned();
            (schedule.decay_rounds, schedule.final_factor) = (3, 0.1);
        }
        optimizer.set_schedule(schedule);
    }
    optimizer
}

fn combine(rng: &mut Rng) -> Combine {
    let mut combine = Combine::default();
    match rng.below(3) {
        0 => combine.strategy = "median".to_owned(),
        1 => {
            combine.strategy = "trimmed_mean".to_owned();
            combine.trim_fraction = 0.25;
        }
        _ => combine.clip_norm = 1.0,
    }
    combine
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use raftgrid_manifest::check_training;

    use super::*;

    #[test]
    fn every_course_is_one_that_the_machine_takes_and_that_can_be_run_to_its_end() {
        let mut rng = Rng::new(7);
        let (mut algorithms, mut models) = (BTreeSet::new(), BTreeSet::new());
        for made in 0..300 {
            let name = Course::name(1, made, rng.chance(300), &mut rng);
            let course = Course::of(&name).expect("a train job's name");
            let combine = course.combine_of_spec.clone().or(course.combine.clone()).unwrap_or_default();
            check_training(&course.optimizer, &combine).unwrap_or_else(|why| panic!("{name}: {why}"));
            let expected = course.expected().unwrap_or_else(|why| panic!("{name}: {why}"));
            assert_eq!(expected.models.len() as u64, course.rounds + 1);
            assert_eq!(Course::of(&name).expect("again").expected().expect("again").models, expected.models);
            algorithms.insert(course.optimizer.algorithm.clone());
            models.extend(expected.models.last().copied());
        }
        assert_eq!((algorithms.len(), models.len()), (7, 300));
        assert!(Course::of("job-1-2").is_none());
    }

    #[test]
    fn what_is_sent_by_mistake_is_never_what_was_computed() {
        let mut rng = Rng::new(3);
        let course = Course::of(&Course::name(0, 1, true, &mut rng)).expect("a train job's name");
        let model = course.first_model();
        let all = [Sent::Right, Sent::Other, Sent::NotFinite].map(|sent| course.gradient(&model, 1, 0, sent));
        assert!(course.is_unruly && all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
        assert_eq!(all[0], course.gradient(&model, 1, 0, Sent::Right));
    }
}
