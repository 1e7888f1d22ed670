//! The sum over files that are read in windows against the one over bytes in memory: the same bytes, the same refusals.

use std::cell::Cell;
use std::rc::Rc;

use proptest::prelude::*;
use raftgrid_proto::v1::{Combine as CombineMessage, Optimizer};
use raftgrid_train::{
    check_contribution, check_contribution_source, check_model, check_model_source, model_layout, sum_streamed,
    Aggregated, Aggregator, Contribution, Dtype, Frame, GuardLimits, Inputs, Layout, Outputs, RoundRule, Source,
    SourceError, Summed, TrainError, WindowSizes,
};

use crate::common::spec;

/// Cases, no statistics.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    /// From -1 to 1.
    fn value(&mut self) -> f64 {
        self.next() as f64 / (1_u64 << 30) as f64 - 1.0
    }
}

/// A tensor of a file: name, dtype, shape, data.
type Tensor = (String, &'static str, Vec<usize>, Vec<u8>);

/// A file with the tensors in the order given.
fn written(tensors: &[Tensor]) -> Vec<u8> {
    let (mut entries, mut body) = (Vec::new(), Vec::new());
    for (name, dtype, shape, data) in tensors {
        let (start, end) = (body.len(), body.len() + data.len());
        entries.push(format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#));
        body.extend(data);
    }
    let header = format!("{{{}}}", entries.join(","));
    [(header.len() as u64).to_le_bytes().to_vec(), header.into_bytes(), body].concat()
}

/// Some tensors of both dtypes, empty ones and a scalar among them; one is longer than a block of the summation tree.
fn layout(draw: &mut Draw) -> Layout {
    let mut tensors = vec![spec("long", Dtype::F32, &[draw.below(5_000)]), spec("scalar", Dtype::F64, &[])];
    for number in 0..draw.below(6) {
        let dtype = [Dtype::F32, Dtype::F64][draw.below(2)];
        let shape = [draw.below(5), draw.below(40)];
        tensors.push(spec(&format!("t{number}"), dtype, &shape));
    }
    Layout::new(tensors).expect("a layout")
}

fn frame(layout: &Layout, draw: &mut Draw) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = layout
        .tensors()
        .iter()
        .map(|spec| match spec.dtype {
            Dtype::F32 => (0..spec.elements()).flat_map(|_| (draw.value() as f32).to_le_bytes()).collect(),
            Dtype::F64 => (0..spec.elements()).flat_map(|_| draw.value().to_le_bytes()).collect(),
        })
        .collect();
    layout.write(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>()).expect("a file")
}

/// Each F32 tensor in any form, and the tensors in any order.
fn contribution(layout: &Layout, draw: &mut Draw) -> Vec<u8> {
    let mut tensors: Vec<Tensor> = Vec::new();
    for spec in layout.tensors() {
        let (name, shape, count) = (spec.name.clone(), spec.shape.clone(), spec.elements());
        match (spec.dtype, draw.below(4)) {
            (Dtype::F64, _) => {
                tensors.push((name, "F64", shape, (0..count).flat_map(|_| draw.value().to_le_bytes()).collect()));
            }
            (Dtype::F32, 0) => {
                let data = (0..count).flat_map(|_| (draw.value() as f32).to_le_bytes()).collect();
                tensors.push((name, "F32", shape, data));
            }
            (Dtype::F32, 1) => {
                // Below infinity, whose exponent is all ones.
                let data = (0..count).flat_map(|_| (draw.below(0x7c00) as u16).to_le_bytes()).collect();
                tensors.push((name, "F16", shape, data));
            }
            (Dtype::F32, 2) => {
                let data = (0..count).flat_map(|_| (0x3d00 + draw.below(0x300) as u16).to_le_bytes()).collect();
                tensors.push((name, "BF16", shape, data));
            }
            (Dtype::F32, _) => {
                let rows = shape.first().copied().filter(|_| draw.below(2) == 0);
                let scales = (0..rows.unwrap_or(1)).flat_map(|_| (draw.value().abs() as f32).to_le_bytes()).collect();
                tensors.push((format!("{name}/scale"), "F32", rows.into_iter().collect(), scales));
                tensors.push((name, "I8", shape, (0..count).map(|_| draw.below(256) as u8).collect()));
            }
        }
    }
    for at in (1..tensors.len()).rev() {
        tensors.swap(at, draw.below(at + 1));
    }
    written(&tensors)
}

fn optimizer(algorithm: &str, draw: &mut Draw) -> Optimizer {
    let mut message = Optimizer::new();
    message.set_algorithm(algorithm.to_owned());
    message.set_learning_rate(if algorithm == "fedavg" { 1.0 } else { 0.05 });
    if ["fedavgm", "diloco"].contains(&algorithm) || (algorithm == "sgd" && draw.below(2) == 0) {
        message.set_momentum(0.9);
    }
    if ["adam", "adamw", "fedadam"].contains(&algorithm) {
        message.set_beta1(0.9);
        message.set_beta2(0.99);
        message.set_epsilon(1e-3);
    }
    if ["sgd", "adam", "adamw"].contains(&algorithm) {
        message.set_weight_decay(0.01);
    }
    message
}

fn rule(draw: &mut Draw, algorithm: &str, strategy: &str) -> RoundRule {
    let mut combine = CombineMessage::new();
    combine.set_strategy(strategy.to_owned());
    if strategy == "trimmed_mean" {
        combine.set_trim_fraction(0.25);
    }
    combine.set_clip_norm([0.0, 3.0][draw.below(2)]);
    RoundRule::from_proto(&optimizer(algorithm, draw), &combine, 0).expect("valid")
}

fn in_memory(
    model: &[u8],
    state: Option<&[u8]>,
    contributions: &[(u32, f64, Vec<u8>)],
    rule: RoundRule,
) -> Result<Aggregated, TrainError> {
    let shards: Vec<u32> = contributions.iter().map(|(shard, _, _)| *shard).collect();
    let mut aggregator = Aggregator::with_rule(model, state, &shards, rule)?;
    for (shard, weight, bytes) in contributions {
        aggregator.add(*shard, *weight, bytes)?;
    }
    aggregator.finish()
}

/// Counts reads, and fails at one of them.
struct Failing<'a> {
    bytes: &'a [u8],
    left: &'a Cell<usize>,
}

impl Source for Failing<'_> {
    fn total_bytes(&self) -> u64 {
        self.bytes.total_bytes()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Err(SourceError::new(std::io::Error::other("the disk is gone"))),
        }
        self.bytes.read_at(offset, buffer)
    }
}

/// (model, state, what else is known); `reads`: after so many the disk is gone.
fn streamed(
    model: &[u8],
    state: Option<&[u8]>,
    contributions: &[(u32, f64, Vec<u8>)],
    rule: RoundRule,
    sizes: WindowSizes,
    reads: usize,
) -> Result<(Vec<u8>, Vec<u8>, Summed), TrainError> {
    let left = Cell::new(reads);
    let source = |bytes| Failing { bytes, left: &left };
    let (model, state) = (source(model), state.map(source));
    let list: Vec<(u32, f64)> = contributions.iter().map(|(shard, weight, _)| (*shard, *weight)).collect();
    let (mut next_model, mut next_state) = (Vec::new(), Vec::new());
    let summed = sum_streamed(
        Inputs {
            model: &model,
            state: state.as_ref().map(|state| state as &dyn Source),
            contributions: &list,
            open: &mut |number| Ok(Rc::new(source(contributions[number].2.as_slice()))),
        },
        rule,
        sizes,
        Outputs { model: &mut next_model, state: &mut next_state },
    )?;
    Ok((next_model, next_state, summed))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Two rounds, so that the second one has a state to read.
    #[test]
    fn windows_of_any_size_give_the_bytes_of_the_sum_in_memory(
        seed in any::<u64>(),
        algorithm in prop::sample::select(&["sgd", "adam", "adamw", "fedavg", "fedavgm", "fedadam", "diloco"][..]),
        strategy in prop::sample::select(&["mean", "trimmed_mean", "median"][..]),
        shards in 1_u32..9,
        window in prop_oneof![1_usize..64, 64_usize..40_000, Just(1 << 20)],
    ) {
        let draw = &mut Draw(seed);
        let layout = layout(draw);
        let (mut model, mut state) = (frame(&layout, draw), None::<Vec<u8>>);
        let rule = rule(draw, algorithm, strategy);
        // Windows of one element are slow: few elements at a time only where there are few.
        let window = window.max(layout.elements() / 100);
        for _ in 0..2 {
            let contributions: Vec<(u32, f64, Vec<u8>)> =
                (0..shards).map(|shard| (shard * 2 + 1, draw.value().abs() + 0.1, contribution(&layout, draw))).collect();
            let expected = in_memory(&model, state.as_deref(), &contributions, rule).expect("finite");
            let sizes = WindowSizes { sum_bytes: window * 8, sorted_bytes: window * 8 * shards as usize };
            let (next_model, next_state, summed) =
                streamed(&model, state.as_deref(), &contributions, rule, sizes, usize::MAX).expect("finite");
            prop_assert_eq!(&next_model, &expected.model);
            prop_assert_eq!(&next_state, &expected.state);
            prop_assert_eq!(summed.weight_sum.to_bits(), expected.weight_sum.to_bits());
            prop_assert_eq!(summed.gradient_norm.to_bits(), expected.gradient_norm.to_bits());
            (model, state) = (next_model, Some(next_state));
        }
    }

    /// Whatever is done to a file, both ways say the same of it.
    #[test]
    fn a_file_that_is_read_in_windows_is_judged_as_one_in_memory(
        seed in any::<u64>(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3), limit in prop_oneof![Just(None), (0.1_f64..50.0).prop_map(Some)]
    ) {
        let draw = &mut Draw(seed);
        let layout = layout(draw);
        let (mut plain, mut encoded) = (frame(&layout, draw), contribution(&layout, draw));
        for (at, value) in flips {
            let (a, b) = (at.index(plain.len()), at.index(encoded.len()));
            plain[a] = value;
            encoded[b] = value;
        }
        let limits = GuardLimits { norm_max: limit, ..GuardLimits::default() };
        let text = |outcome: Result<(), raftgrid_train::GuardError>| outcome.map_err(|error| error.to_string());
        for bytes in [plain.as_slice(), encoded.as_slice()] {
            prop_assert_eq!(
                text(check_contribution_source(&layout, &bytes, &limits, true)),
                text(Contribution::parse(&layout, bytes, &limits).map(drop))
            );
            prop_assert_eq!(
                text(check_contribution_source(&layout, &bytes, &limits, false)),
                text(check_contribution(&layout, bytes, &limits).map(drop))
            );
            let whole = check_model(bytes, &limits).map(|frame: Frame<'_>| frame.layout().clone());
            let windowed = check_model_source(&bytes, &limits);
            prop_assert_eq!(windowed.map_err(|error| error.to_string()), whole.map_err(|error| error.to_string()));
        }
    }

    /// A disk that fails is told apart from files that are wrong, at whichever read it fails.
    #[test]
    fn trouble_with_the_bytes_is_no_judgement_on_them(seed in any::<u64>(), reads in 0_usize..60) {
        let draw = &mut Draw(seed);
        let layout = layout(draw);
        let model = frame(&layout, draw);
        let contributions: Vec<(u32, f64, Vec<u8>)> = (0..3).map(|shard| (shard, 1.0, contribution(&layout, draw))).collect();
        let rule = rule(draw, "adam", "mean");
        let sizes = WindowSizes { sum_bytes: 8 * 1024, sorted_bytes: 8 * 1024 };
        match streamed(&model, None, &contributions, rule, sizes, reads) {
            Err(error) => {
                let cause = error.source_error().and_then(|error| error.cause::<std::io::Error>());
                prop_assert!(cause.is_some(), "{error}");
            }
            Ok((next_model, _, _)) => prop_assert_eq!(next_model, in_memory(&model, None, &contributions, rule).expect("finite").model),
        }
        let left = Cell::new(0);
        let source = Failing { bytes: &model, left: &left };
        prop_assert!(model_layout(&source).expect_err("no disk").source_error().is_some());
        let refused = check_contribution_source(&layout, &source, &GuardLimits::default(), true).expect_err("no disk");
        prop_assert!(refused.source_error().is_some());
    }
}

#[test]
fn what_is_not_finite_is_named_as_it_stands_in_the_whole() {
    let layout = Layout::new(vec![spec("a", Dtype::F32, &[100]), spec("b", Dtype::F32, &[100])]).expect("a layout");
    let data = |bad: Option<usize>, value: f32| {
        let mut values = vec![0.5_f32; 200];
        bad.into_iter().for_each(|at| values[at] = value);
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        layout.write_concatenated(&data).expect("a file")
    };
    let draw = &mut Draw(1);
    let adam = RoundRule::from_proto(&optimizer("adam", draw), &CombineMessage::new(), 0).expect("valid");
    let sizes = WindowSizes { sum_bytes: 7 * 8, sorted_bytes: 8 };
    let fails = |model: &[u8], contribution: Vec<u8>| {
        let contributions = [(4, 1.0, contribution)];
        let expected = in_memory(model, None, &contributions, adam).expect_err("not finite").to_string();
        let found = streamed(model, None, &contributions, adam, sizes, usize::MAX).expect_err("not finite");
        assert!(found.source_error().is_none());
        assert_eq!(found.to_string(), expected);
        expected
    };
    let (good, nan) = (data(None, 0.0), data(Some(142), f32::NAN));
    assert!(fails(&good, nan.clone()).contains("shard 4: tensor `b` is not finite: element 42"));
    assert!(fails(&nan, good.clone()).contains("the model: tensor `b` is not finite: element 42"));
    // The squares of such a gradient leave f32: the second moment is what is not finite.
    assert!(fails(&good, data(Some(142), 1e30)).contains("the next"));
}

/// The norm is what is looked at first: an infinite one is that of an element, or of squares beyond f64's range.
#[test]
fn an_infinite_norm_is_no_infinite_element_and_an_infinite_element_is_found_wherever_it_is() {
    let elements = 600_000;
    let layout = Layout::new(vec![spec("w", Dtype::F64, &[elements])]).expect("a layout");
    let file = |at: usize, value: f64| {
        let data: Vec<u8> = (0..elements).flat_map(|i| if i == at { value } else { 0.5 }.to_le_bytes()).collect();
        layout.write_concatenated(&data).expect("a file")
    };
    let judged = |bytes: &[u8], norm_max: Option<f64>| {
        let limits = GuardLimits { norm_max, ..GuardLimits::default() };
        let found = check_contribution_source(&layout, &bytes, &limits, true).map_err(|error| error.to_string());
        let parsed = Contribution::parse(&layout, bytes, &limits).map(drop).map_err(|error| error.to_string());
        let expected = check_contribution(&layout, bytes, &limits).map(drop).map_err(|error| error.to_string());
        assert_eq!((&found, &parsed), (&expected, &expected));
        found
    };
    for at in [0, 511, 524_287, 524_288, elements - 1] {
        let huge = file(at, 1e200);
        assert_eq!(judged(&huge, None), Ok(()));
        assert_eq!(judged(&huge, Some(1e300)), Err(format!("the norm is inf, the limit is {}", 1e300)));
        for (value, name) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
            for limit in [None, Some(1.0)] {
                let expected = format!("tensor `w` is not finite: element {at} is {name}");
                assert_eq!(judged(&file(at, value), limit), Err(expected));
            }
        }
    }
}
