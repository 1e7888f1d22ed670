//! Optimisers and strategies against vectors that were written by NumPy (`ml-code/tests/golden/make_strategies.py`), bit for bit.

use raftgrid_proto::v1::Optimizer;
use raftgrid_train::{aggregate, Frame};
use serde_json::Value;

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
