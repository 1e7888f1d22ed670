//! Optimisers and strategies against vectors that were written by NumPy (`ml-code/tests/golden/make_strategies.py`), bit for bit.

use raftgrid_proto::v1::{Combine as CombineMessage, LearningRateSchedule, Optimizer};
use raftgrid_train::encoding::{bf16_to_f32, f16_to_f32};
use raftgrid_train::norm::l2_norm;
use raftgrid_train::{
    aggregate, Aggregator, Combine, Combiner, Contribution, Frame, GuardLimits, RoundRule, Schedule, TrainError,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::{bits, golden_file, hex};

pub(crate) fn optimizer(value: &Value) -> Optimizer {
    let mut message = Optimizer::new();
    message.set_algorithm(value["algorithm"].as_str().expect("text").to_owned());
    message.set_learning_rate(bits(&value["learning_rate"]));
    message.set_momentum(bits(&value["momentum"]));
    message.set_nesterov(value["nesterov"].as_bool().expect("true or false"));
    message.set_weight_decay(bits(&value["weight_decay"]));
    message.set_beta1(bits(&value["beta1"]));
    message.set_beta2(bits(&value["beta2"]));
    message.set_epsilon(bits(&value["epsilon"]));
    message
}

fn contributions(round: &Value) -> Vec<(f64, Vec<u8>)> {
    let list = round["contributions"].as_array().expect("a list");
    list.iter().map(|contribution| (bits(&contribution["weight"]), hex(&contribution["file"]))).collect()
}

#[test]
fn optimisers_give_the_bytes_that_numpy_gave() {
    let golden = golden_file("strategies.json");
    let mut rounds_checked = 0;
    for case in golden["optimizers"].as_array().expect("a list") {
        let optimizer = optimizer(&case["optimizer"]);
        for round in case["rounds"].as_array().expect("a list") {
            let state = (!round["state"].is_null()).then(|| hex(&round["state"]));
            let next =
                aggregate(&hex(&round["model"]), state.as_deref(), contributions(round), &optimizer).expect("valid");
            assert_eq!(next.model, hex(&round["model_next"]), "model of case {}", case["name"]);
            assert_eq!(next.state, hex(&round["state_next"]), "state of case {}", case["name"]);
            assert_eq!(Frame::parse(&next.state).expect("a frame").to_bytes().expect("writable"), next.state);
            rounds_checked += 1;
        }
    }
    assert!(rounds_checked >= 20);
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().expect("text")
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_str().map_or(0, |text| text.parse().expect("a number"))
}

fn combine(value: &Value) -> CombineMessage {
    let mut message = CombineMessage::new();
    message.set_strategy(text(value, "strategy").to_owned());
    message.set_trim_fraction(bits(&value["trim_fraction"]));
    message.set_clip_norm(bits(&value["clip_norm"]));
    message
}

fn schedule(value: &Value) -> LearningRateSchedule {
    let mut message = LearningRateSchedule::new();
    message.set_kind(text(value, "kind").to_owned());
    message.set_warmup_rounds(number(value, "warmup_rounds"));
    message.set_decay_rounds(number(value, "decay_rounds"));
    message.set_step_rounds(number(value, "step_rounds"));
    if value["final_factor"].is_string() {
        message.set_final_factor(bits(&value["final_factor"]));
    }
    if value["step_factor"].is_string() {
        message.set_step_factor(bits(&value["step_factor"]));
    }
    message
}

#[test]
fn combinations_give_the_bytes_that_numpy_gave() {
    let golden = golden_file("strategies.json");
    let cases = golden["combines"].as_array().expect("a list");
    assert!(cases.len() >= 10);
    for case in cases {
        let combine = Combine::from_proto(&combine(&case["combine"])).expect("valid");
        let contributions = contributions(case);
        let first = Frame::parse(&contributions[0].1).expect("a frame");
        let layout = first.layout();
        let shards: Vec<u32> = (0..contributions.len() as u32).collect();
        let mut combiner =
            Combiner::with_range(0..layout.elements(), layout, &shards, combine.strategy).expect("valid");
        for (shard, ((weight, bytes), norm)) in
            contributions.iter().zip(case["norms"].as_array().expect("a list")).enumerate()
        {
            let contribution = Contribution::parse(layout, bytes, &GuardLimits::default()).expect("valid");
            assert_eq!(contribution.l2_norm().to_bits(), bits(norm).to_bits(), "norm in case {}", case["name"]);
            let frame = Frame::parse(bytes).expect("a frame");
            assert_eq!(l2_norm(frame.tensors()).to_bits(), bits(norm).to_bits(), "norm in case {}", case["name"]);
            combiner.add(shard as u32, &combine.prepare(contribution), *weight).expect("the next one");
        }
        let combined = combiner.finish().expect("complete");
        let file = layout.write_concatenated(&combined.data).expect("writable");
        assert_eq!(file, hex(&case["combined"]), "case {}", case["name"]);
    }
}

#[test]
fn schedules_give_the_bits_that_python_gave() {
    let golden = golden_file("strategies.json");
    let cases = golden["schedules"].as_array().expect("a list");
    let (every, cases) = cases.split_last().expect("some");
    for case in cases {
        let schedule = Schedule::from_proto(&schedule(&case["schedule"])).expect("valid");
        for line in case["factors"].as_array().expect("a list") {
            let factor = schedule.factor(number(line, "round"));
            assert_eq!(factor.to_bits(), bits(&line["factor"]).to_bits(), "{} {}", case["schedule"], line["round"]);
        }
    }
    let mut message = LearningRateSchedule::new();
    message.set_kind("cosine".to_owned());
    message.set_decay_rounds(1000);
    let schedule = Schedule::from_proto(&message).expect("valid");
    let mut hash = Sha256::new();
    (0..1000).for_each(|round| hash.update(schedule.factor(round).to_be_bytes()));
    assert_eq!(hash.finalize().to_vec(), hex(&every["cosine_1000_sha256"]));
}

#[test]
fn every_value_of_sixteen_bits_becomes_what_numpy_makes_of_it() {
    let golden = golden_file("strategies.json");
    let digest = |convert: fn(u16) -> f32| {
        let mut hash = Sha256::new();
        let values = (0..=u16::MAX).map(convert).filter(|value| value.is_finite());
        values.for_each(|value| hash.update(value.to_le_bytes()));
        hash.finalize().to_vec()
    };
    assert_eq!(digest(f16_to_f32), hex(&golden["encodings"]["f16_sha256"]));
    assert_eq!(digest(bf16_to_f32), hex(&golden["encodings"]["bf16_sha256"]));
    assert!(
        f16_to_f32(0x7c00) == f32::INFINITY && f16_to_f32(0xfc00) == f32::NEG_INFINITY && f16_to_f32(0x7e00).is_nan()
    );
    assert!(f16_to_f32(0x7c01).is_nan() && bf16_to_f32(0x7f80) == f32::INFINITY && bf16_to_f32(0xffc0).is_nan());
}

#[test]
fn whole_rounds_give_the_bytes_that_numpy_gave() {
    let golden = golden_file("strategies.json");
    for case in golden["rounds"].as_array().expect("a list") {
        let mut optimizer = optimizer(&case["optimizer"]);
        optimizer.set_schedule(schedule(&case["schedule"]));
        let combine = combine(&case["combine"]);
        for round in case["rounds"].as_array().expect("a list") {
            let rule = RoundRule::from_proto(&optimizer, &combine, number(round, "round")).expect("valid");
            let state = (!round["state"].is_null()).then(|| hex(&round["state"]));
            let model = hex(&round["model"]);
            let contributions = contributions(round);
            let shards: Vec<u32> = (0..contributions.len() as u32).collect();
            let refused = Aggregator::new(&model, state.as_deref(), &shards, &optimizer);
            assert!(matches!(refused, Err(TrainError::RoundNeeded)), "a schedule needs the round");
            let mut aggregator = Aggregator::with_rule(&model, state.as_deref(), &shards, rule).expect("valid");
            let frame = Frame::parse(&model).expect("a frame");
            for (shard, ((weight, bytes), decoded)) in
                contributions.iter().zip(round["decoded"].as_array().expect("a list")).enumerate()
            {
                let contribution = Contribution::parse(frame.layout(), bytes, &GuardLimits::default()).expect("valid");
                let data = contribution.decode(0..frame.layout().elements());
                assert_eq!(
                    frame.layout().write_concatenated(&data).expect("writable"),
                    hex(decoded),
                    "{}",
                    case["name"]
                );
                aggregator.add(shard as u32, *weight, bytes).expect("the next one");
            }
            let next = aggregator.finish().expect("finite");
            assert_eq!(next.model, hex(&round["model_next"]), "model of case {}", case["name"]);
            assert_eq!(next.state, hex(&round["state_next"]), "state of case {}", case["name"]);
        }
    }
}
