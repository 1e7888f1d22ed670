//! What is refused, and with which words.

use crate::common::{file, sgd, spec};
use raftgrid_train::{
    aggregate, check_contribution, check_model, effective_weight, mean_metrics, Dtype, Frame, GuardLimits, Layout, Sgd,
};

/// A file with any header, as an attacker or another program may write it.
fn raw(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data_bytes, 0);
    bytes
}

fn frame_error(bytes: &[u8]) -> String {
    Frame::parse(bytes).expect_err("must be refused").to_string()
}

#[test]
fn a_frame_is_refused_with_its_cause() {
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "header of 0 bytes in a file of 0"),
        ("cut in the length", vec![1, 0, 0], "in a file of 3"),
        ("header beyond the file", 100_u64.to_le_bytes().to_vec(), "a header of 100 bytes in a file of 8"),
        ("header bomb", [u64::MAX.to_le_bytes().to_vec(), vec![b' '; 64]].concat(), "a header of 18446744073709551615"),
        ("no JSON", raw("hello", 0), "invalid JSON in header"),
        ("nested bomb", raw(&"[".repeat(100_000), 0), "invalid JSON in header"),
        (
            "half precision",
            raw(r#"{"w":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}"#, 4),
            "tensor `w` has dtype F16; this release",
        ),
        (
            "brain float",
            raw(r#"{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#, 4),
            "tensor `w` has dtype BF16; this release",
        ),
        (
            "bytes",
            raw(r#"{"w":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}}"#, 4),
            "tensor `w` has dtype I8; this release",
        ),
        (
            "unknown dtype",
            raw(r#"{"w":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#, 4),
            "invalid JSON in header",
        ),
        (
            "shape and bytes differ",
            raw(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4),
            "invalid shape",
        ),
        (
            "more announced than there",
            raw(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 4),
            "not fully covered",
        ),
        ("bytes left over", raw(r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 5), "not fully covered"),
        (
            "overflow",
            raw(r#"{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#, 0),
            "overflow",
        ),
        (
            "the same bytes twice",
            raw(
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
                4,
            ),
            "invalid offset",
        ),
        ("no name", raw(r#"{"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4), "a tensor name of 0 bytes"),
    ];
    for (name, bytes, expected) in cases {
        let error = frame_error(&bytes);
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn too_many_dimensions_and_long_names_are_refused() {
    let shape = vec!["1"; 65].join(",");
    let header = format!(r#"{{"w":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,4]}}}}"#);
    assert!(frame_error(&raw(&header, 4)).contains("65 dimensions"));
    let header = format!(r#"{{"{}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#, "n".repeat(2000));
    assert!(frame_error(&raw(&header, 4)).contains("name of 2000 bytes"));
    assert!(Layout::new(vec![spec("a", Dtype::F32, &[1]), spec("a", Dtype::F64, &[1])]).is_err());
    assert!(Layout::new(vec![spec("a", Dtype::F32, &[usize::MAX, usize::MAX])]).is_err());
}

#[test]
fn a_contribution_is_refused_with_tensor_and_cause() {
    let model = file(&[("b", &[0.0, 0.0]), ("w", &[0.0, 0.0, 0.0])], &[]);
    let model = Frame::parse(&model).expect("a frame");
    let limits = GuardLimits { bytes_max: 400, norm_max: Some(10.0) };
    let f64_w: &[f64] = &[1.0, 2.0, 3.0];
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("missing", file(&[("w", &[1.0, 2.0, 3.0])], &[]), "tensor `b` is missing"),
        ("unknown", file(&[("b", &[1.0, 2.0]), ("w", &[1.0, 2.0, 3.0]), ("x", &[1.0])], &[]), "tensor `x` is unknown"),
        (
            "shape",
            file(&[("b", &[1.0]), ("w", &[1.0, 2.0, 3.0])], &[]),
            "tensor `b` has shape [1], the model's has [2]",
        ),
        ("dtype", file(&[("b", &[1.0, 2.0])], &[("w", f64_w)]), "tensor `w` has dtype F64, the model's has F32"),
        (
            "nan",
            file(&[("b", &[1.0, f32::NAN]), ("w", &[1.0, 2.0, 3.0])], &[]),
            "tensor `b` is not finite: element 1 is NaN",
        ),
        (
            "infinity",
            file(&[("b", &[1.0, 2.0]), ("w", &[1.0, 2.0, f32::NEG_INFINITY])], &[]),
            "tensor `w` is not finite: element 2 is -inf",
        ),
        ("norm", file(&[("b", &[8.0, 0.0]), ("w", &[6.1, 0.0, 0.0])], &[]), "the limit is 10"),
        ("size", file(&[("b", &[1.0; 200])], &[]), "the limit is 400"),
        ("no frame", vec![0; 20], "failed to read the frame"),
    ];
    for (name, bytes, expected) in cases {
        let error = check_contribution(model.layout(), &bytes, &limits).expect_err("must be refused").to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let good = file(&[("b", &[8.0, 0.0]), ("w", &[6.0, 0.0, 0.0])], &[]);
    check_contribution(model.layout(), &good, &limits).expect("a norm of exactly 10 is within the limit");
}

#[test]
fn the_order_of_tensors_in_the_file_does_not_matter() {
    let header = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    let mut bytes = raw(header, 8);
    let start = bytes.len() - 8;
    bytes[start..start + 4].copy_from_slice(&2.0_f32.to_le_bytes());
    bytes[start + 4..].copy_from_slice(&1.0_f32.to_le_bytes());
    let canonical = file(&[("b", &[1.0]), ("w", &[2.0])], &[]);
    assert_eq!(Frame::parse(&bytes).expect("valid").to_bytes().expect("writable"), canonical);
}

#[test]
fn models_weights_and_optimisers_are_checked() {
    assert!(check_model(&raw("{}", 0), &GuardLimits::default()).expect_err("empty").to_string().contains("no tensors"));
    let bad = file(&[("w", &[f32::INFINITY])], &[]);
    assert!(check_model(&bad, &GuardLimits::default()).expect_err("infinite").to_string().contains("tensor `w`"));
    assert_eq!(effective_weight(0.0).expect("allowed").to_bits(), 1.0_f64.to_bits());
    for weight in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(effective_weight(weight).is_err());
    }
    for (message, expected) in [
        (sgd(0.0, 0.0, false, 0.0), "learning_rate is 0"),
        (sgd(f64::NAN, 0.0, false, 0.0), "learning_rate is NaN"),
        (sgd(1e39, 0.0, false, 0.0), "learning_rate"),
        (sgd(0.1, 1.0, false, 0.0), "momentum is 1"),
        (sgd(0.1, f64::NAN, false, 0.0), "momentum is NaN"),
        (sgd(0.1, 0.5, false, -0.1), "weight_decay is -0.1"),
        (sgd(0.1, 0.0, true, 0.0), "nesterov needs"),
    ] {
        let error = Sgd::from_proto(&message).expect_err("must be refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
    let mut adam = sgd(0.1, 0.0, false, 0.0);
    adam.set_algorithm("adam".to_owned());
    assert!(Sgd::from_proto(&adam).expect_err("unknown").to_string().contains("`adam` is unknown"));
}

#[test]
fn a_round_that_diverges_or_has_a_wrong_state_gives_no_model() {
    let model = file(&[("w", &[3e38])], &[]);
    let gradient = file(&[("w", &[-3e38])], &[]);
    let error =
        aggregate(&model, None, [(1.0, &gradient)], &sgd(1.0, 0.0, false, 0.0)).expect_err("overflow").to_string();
    assert!(error.contains("the next model: tensor `w` is not finite"), "{error}");
    let other_state = file(&[("momentum/v", &[0.0])], &[]);
    let error = aggregate(&model, Some(&other_state), [(1.0, &gradient)], &sgd(1.0, 0.9, false, 0.0));
    assert!(error.expect_err("another model's").to_string().contains("its state"));
    let none: [(f64, &[u8]); 0] = [];
    assert!(aggregate(&model, None, none, &sgd(1.0, 0.0, false, 0.0)).is_err());
}

#[test]
fn metrics_are_averaged_and_what_is_no_number_is_left_out() {
    let mean = mean_metrics(&[
        (1.0, r#"{"loss": 1.0, "b": true, "s": "x", "only": 3}"#),
        (3.0, r#"{"loss": 2.0, "deep": {"x": 1}}"#),
        (1.0, "{"),
        (f64::NAN, r#"{"loss": 100}"#),
    ]);
    assert_eq!(mean, r#"{"loss":1.75,"only":3.0}"#);
    assert_eq!(mean_metrics(&[(1.0, r#"{"x":1e308}"#), (1.0, r#"{"x":1e308,"y":1e-7}"#)]), r#"{"y":1e-7}"#);
    assert_eq!(mean_metrics(&[]), "{}");
}
