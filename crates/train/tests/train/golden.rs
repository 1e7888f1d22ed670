//! The arithmetic against vectors that were written by NumPy (`ml-code/tests/golden/make.py`): Rust and Python agree bit for bit.

use raftgrid_proto::v1::Optimizer;
use raftgrid_train::{aggregate, mean_metrics, shard_seed, Accumulator, Frame, Precision, ALGORITHM_ID};
use serde_json::Value;

use crate::common::{bits, golden_file, hex};

fn golden() -> Value {
    golden_file("aggregate.json")
}

fn optimizer(value: &Value) -> Optimizer {
    let mut message = Optimizer::new();
    message.set_algorithm("sgd".to_owned());
    message.set_learning_rate(bits(&value["learning_rate"]));
    message.set_momentum(bits(&value["momentum"]));
    message.set_nesterov(value["nesterov"].as_bool().expect("true or false"));
    message.set_weight_decay(bits(&value["weight_decay"]));
    message
}

fn contributions(round: &Value) -> Vec<(f64, Vec<u8>)> {
    let list = round["contributions"].as_array().expect("a list");
    list.iter().map(|contribution| (bits(&contribution["weight"]), hex(&contribution["file"]))).collect()
}

#[test]
fn aggregation_gives_the_bytes_that_numpy_gave() {
    let golden = golden();
    assert_eq!(golden["algorithm_id"], ALGORITHM_ID);
    let mut rounds_checked = 0;
    for case in golden["cases"].as_array().expect("a list") {
        let optimizer = optimizer(&case["optimizer"]);
        for round in case["rounds"].as_array().expect("a list") {
            let state = (!round["state"].is_null()).then(|| hex(&round["state"]));
            let next =
                aggregate(&hex(&round["model"]), state.as_deref(), contributions(round), &optimizer).expect("valid");
            assert_eq!(next.model, hex(&round["model_next"]), "model of case {}", case["name"]);
            assert_eq!(next.state, hex(&round["state_next"]), "state of case {}", case["name"]);
            rounds_checked += 1;
        }
    }
    assert!(rounds_checked >= 10);
}

#[test]
fn the_ledger_names_this_arithmetic() {
    assert_eq!(ALGORITHM_ID, raftgrid_manifest::ALGORITHM_ID);
}

#[test]
fn the_mean_and_the_canonical_file_are_those_of_numpy() {
    for case in golden()["cases"].as_array().expect("a list") {
        for round in case["rounds"].as_array().expect("a list") {
            let (model, contributions) = (hex(&round["model"]), contributions(round));
            let model = Frame::parse(&model).expect("a frame");
            assert_eq!(model.to_bytes().expect("writable"), hex(&round["model"]), "{}", case["name"]);
            let shards: Vec<u32> = (0..contributions.len() as u32).collect();
            let mut accumulator = Accumulator::new(model.layout(), &shards, Precision::Tensor).expect("rising");
            for (shard, (weight, bytes)) in shards.iter().zip(&contributions) {
                accumulator.add(*shard, &Frame::parse(bytes).expect("a frame"), *weight).expect("the next one");
            }
            let mean = accumulator.finish().expect("complete");
            let file = model.layout().write_concatenated(&mean.data).expect("writable");
            assert_eq!(file, hex(&round["mean"]), "{}", case["name"]);
        }
    }
}

#[test]
fn metrics_and_seeds_are_those_of_python() {
    let golden = golden();
    let list = golden["metrics"]["contributions"].as_array().expect("a list");
    let contributions: Vec<(f64, &str)> =
        list.iter().map(|line| (bits(&line["weight"]), line["json"].as_str().expect("text"))).collect();
    let means: Value = serde_json::from_str(&mean_metrics(&contributions)).expect("JSON");
    let expected = golden["metrics"]["means"].as_object().expect("an object");
    assert_eq!(means.as_object().expect("an object").len(), expected.len());
    for (name, value) in expected {
        assert_eq!(means[name].as_f64().expect("a number").to_bits(), bits(value).to_bits(), "{name}");
    }
    for line in golden["seeds"].as_array().expect("a list") {
        let number = |name: &str| line[name].as_str().expect("text").parse::<u64>().expect("a number");
        let shard = u32::try_from(line["shard"].as_u64().expect("a number")).expect("32 bits");
        assert_eq!(shard_seed(number("job_seed"), number("round"), shard), number("seed"));
    }
}
