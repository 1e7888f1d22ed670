//! Frames for tests.

use raftgrid_proto::v1::Optimizer;
use raftgrid_train::{Dtype, Layout, TensorSpec};

/// A tensor's description.
pub(crate) fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), dtype, shape: shape.to_vec() }
}

/// A file with the given F32 and F64 tensors, each of one dimension.
pub(crate) fn file(f32s: &[(&str, &[f32])], f64s: &[(&str, &[f64])]) -> Vec<u8> {
    let mut parts: Vec<(TensorSpec, Vec<u8>)> = Vec::new();
    for (name, values) in f32s {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        parts.push((spec(name, Dtype::F32, &[values.len()]), data));
    }
    for (name, values) in f64s {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        parts.push((spec(name, Dtype::F64, &[values.len()]), data));
    }
    let layout = Layout::new(parts.iter().map(|(spec, _)| spec.clone()).collect()).expect("a layout");
    let data: Vec<&[u8]> = layout
        .tensors()
        .iter()
        .map(|wanted| parts.iter().find(|(spec, _)| spec == wanted).map(|(_, data)| data.as_slice()).expect("there"))
        .collect();
    layout.write(&data).expect("a file")
}

/// SGD's message.
pub(crate) fn sgd(learning_rate: f64, momentum: f64, nesterov: bool, weight_decay: f64) -> Optimizer {
    let mut message = Optimizer::new();
    message.set_algorithm("sgd".to_owned());
    message.set_learning_rate(learning_rate);
    message.set_momentum(momentum);
    message.set_nesterov(nesterov);
    message.set_weight_decay(weight_decay);
    message
}

/// A file of `ml-code/tests/golden`.
pub(crate) fn golden_file(name: &str) -> serde_json::Value {
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let path = std::path::Path::new(&here).join("../../ml-code/tests/golden").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).expect("the golden file is in the checkout")).expect("JSON")
}

/// Bytes that are written in hexadecimal.
pub(crate) fn hex(value: &serde_json::Value) -> Vec<u8> {
    let text = value.as_str().expect("hexadecimal text");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal")).collect()
}

/// A float that is written as its bits.
pub(crate) fn bits(value: &serde_json::Value) -> f64 {
    f64::from_be_bytes(hex(value).try_into().expect("eight bytes"))
}
