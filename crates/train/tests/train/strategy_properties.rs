//! Properties of optimisers, robust means, clipping and encodings, over drawn shapes and values.

use proptest::prelude::*;
use raftgrid_proto::v1::{Combine as CombineMessage, LearningRateSchedule, Optimizer};
use raftgrid_train::frame::f32s;
use raftgrid_train::{
    next_model, Combine, Combiner, Contribution, Dtype, Frame, GuardLimits, Layout, Mean, RoundRule, Schedule,
    ServerOptimizer, Strategy as Way,
};

use crate::common::{file, spec};

const ALGORITHMS: [&str; 7] = ["sgd", "adam", "adamw", "fedavg", "fedavgm", "fedadam", "diloco"];

/// Valid settings for each algorithm.
fn message(algorithm: &str) -> Optimizer {
    let mut message = Optimizer::new();
    message.set_algorithm(algorithm.to_owned());
    message.set_learning_rate(if algorithm == "fedavg" { 1.0 } else { 0.05 });
    if ["sgd", "fedavgm", "diloco"].contains(&algorithm) {
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

fn combine(strategy: &str, fraction: f64, clip: f64) -> Combine {
    let mut message = CombineMessage::new();
    message.set_strategy(strategy.to_owned());
    message.set_trim_fraction(fraction);
    message.set_clip_norm(clip);
    Combine::from_proto(&message).expect("valid")
}

fn combined(files: &[Vec<u8>], combine: &Combine, cuts: &[usize]) -> Vec<u8> {
    let first = Frame::parse(&files[0]).expect("a frame");
    let layout = first.layout();
    let shards: Vec<u32> = (0..files.len() as u32).map(|shard| shard * 2 + 1).collect();
    let mut data = Vec::new();
    for pair in cuts.windows(2) {
        let mut combiner = Combiner::with_range(pair[0]..pair[1], layout, &shards, combine.strategy).expect("valid");
        for (shard, bytes) in shards.iter().zip(files) {
            assert_eq!(combiner.next_shard(), Some(*shard));
            let contribution = Contribution::parse(layout, bytes, &GuardLimits::default()).expect("valid");
            combiner.add(*shard, &combine.prepare(contribution), 1.0).expect("the next one");
        }
        data.extend(combiner.finish().expect("complete").data);
    }
    data
}

type Values = Vec<(Vec<f32>, Vec<f64>)>;

fn values() -> impl Strategy<Value = Values> {
    // Beyond a block of 512 elements and one of 128, so that their seams are crossed.
    (prop_oneof![1_usize..40, 500_usize..1100], 0_usize..20, 1_usize..10).prop_flat_map(|(a, b, shards)| {
        let element = prop_oneof![-1e3_f32..1e3, -1e-40_f32..1e-40, Just(-0.0_f32), Just(0.0_f32), Just(1.0_f32)];
        let narrow = prop::collection::vec(element, a);
        let wide = prop::collection::vec(prop_oneof![-1e3_f64..1e3, Just(-0.0_f64), Just(2.0_f64)], b);
        prop::collection::vec((narrow, wide), shards)
    })
}

fn files(values: &Values) -> Vec<Vec<u8>> {
    values.iter().map(|(a, b)| file(&[("a", a)], &[("b", b)])).collect()
}

fn strategies() -> impl Strategy<Value = Combine> {
    (
        prop_oneof![Just("mean"), Just("median"), Just("trimmed_mean")],
        0.0_f64..0.5,
        prop_oneof![Just(0.0), 0.1_f64..1e4],
    )
        .prop_map(|(name, fraction, clip)| combine(name, if name == "trimmed_mean" { fraction } else { 0.0 }, clip))
}

/// The rule of `order_statistics`, one element at a time with a library's sort.
fn scalar_order(values: &[f32], combine: &Combine) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let Way::Order(statistic) = combine.strategy else { panic!("an order statistic") };
    let trimmed = statistic.trimmed_at_each_end(values.len());
    let middle = &sorted[trimmed..values.len() - trimmed];
    match (statistic, middle) {
        (raftgrid_train::OrderStatistic::Median, [one]) => *one,
        (raftgrid_train::OrderStatistic::Median, [low, high]) => {
            (0.5 * f64::from(*low) + 0.5 * f64::from(*high)) as f32
        }
        (_, middle) => {
            let mut sum = 0.0_f64;
            middle.iter().for_each(|value| sum += f64::from(*value));
            (sum / middle.len() as f64) as f32
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn windows_put_together_are_the_whole(values in values(), combine in strategies(), cut_a in 0.0_f64..1.0, cut_b in 0.0_f64..1.0) {
        let files = files(&values);
        let elements = values[0].0.len() + values[0].1.len();
        let mut cuts = [0, (cut_a * elements as f64) as usize, (cut_b * elements as f64) as usize, elements];
        cuts.sort_unstable();
        prop_assert_eq!(combined(&files, &combine, &cuts), combined(&files, &combine, &[0, elements]));
    }

    /// Trimmed mean and median are functions of the set of values: shards may change places.
    #[test]
    fn which_shard_pushed_what_does_not_matter_to_order_statistics(
        (values, shuffled) in values().prop_flat_map(|values| (Just(values.clone()), Just(values).prop_shuffle())),
        fraction in 0.0_f64..0.5,
    ) {
        let elements = values[0].0.len() + values[0].1.len();
        for combine in [combine("median", 0.0, 0.0), combine("trimmed_mean", fraction, 0.0)] {
            let whole = [0, elements];
            let data = combined(&files(&values), &combine, &whole);
            prop_assert_eq!(&data, &combined(&files(&shuffled), &combine, &whole));
            let wide_bytes = values[0].1.len() * 8;
            for (element, found) in f32s(&data[wide_bytes..]).enumerate() {
                let column: Vec<f32> = values.iter().map(|(a, _)| a[element]).collect();
                prop_assert_eq!(found.to_bits(), scalar_order(&column, &combine).to_bits());
            }
        }
    }

    /// With one liar among n ≥ 3 the result lies between the honest values.
    #[test]
    fn one_outlier_cannot_move_median_or_trimmed_mean_beyond_the_honest(values in values(), wrong in prop_oneof![Just(3e38_f32), Just(-3e38_f32)]) {
        prop_assume!(values.len() >= 3);
        let mut lied = values.clone();
        lied[1].0.iter_mut().for_each(|value| *value = wrong);
        let elements = values[0].0.len() + values[0].1.len();
        for combine in [combine("median", 0.0, 0.0), combine("trimmed_mean", 0.34, 0.0)] {
            let data = combined(&files(&lied), &combine, &[0, elements]);
            for (element, found) in f32s(&data[values[0].1.len() * 8..]).enumerate() {
                let honest = || (0..values.len()).filter(|shard| *shard != 1).map(|shard| values[shard].0[element]);
                let (low, high) = (honest().fold(f32::MAX, f32::min), honest().fold(f32::MIN, f32::max));
                prop_assert!(low <= found && found <= high, "{low} {found} {high}");
            }
        }
    }

    #[test]
    fn clipping_never_raises_a_norm_and_leaves_small_ones_alone(values in values(), limit in 0.01_f64..1e4) {
        let bytes = files(&values).remove(0);
        let frame = Frame::parse(&bytes).expect("a frame");
        let whole = 0..frame.layout().elements();
        let before = Contribution::of_frame(frame.layout(), &frame).expect("its own layout");
        let after = before.clone().clipped(limit);
        prop_assert!(after.l2_norm() <= before.l2_norm());
        // f32 rounding of each element: half a unit in the last place, or half the smallest subnormal.
        let rounding = limit * 2.0_f64.powi(-23) + frame.layout().elements() as f64 * 1e-45;
        prop_assert!(after.l2_norm() <= limit + rounding || before.l2_norm() <= limit);
        if before.l2_norm() <= limit {
            prop_assert_eq!(after.decode(whole.clone()), before.decode(whole));
        } else {
            prop_assert!(after.l2_norm() >= limit - rounding);
        }
    }

    /// An encoded contribution has the effect of the frame of its decoded values, wherever a window begins.
    #[test]
    fn an_encoded_contribution_counts_as_what_it_decodes_to(
        halves in prop::collection::vec(0_u16..0x7c00, 1..1200), per_row in any::<bool>(), start in 0.0_f64..1.0, kind in 0..3
    ) {
        let rows = if halves.len() % 3 == 0 { 3 } else { 1 };
        let shape = [rows, halves.len() / rows];
        let layout = Layout::new(vec![spec("w", Dtype::F32, &shape)]).expect("a layout");
        let bytes = match kind {
            0 | 1 => encoded(if kind == 0 { "F16" } else { "BF16" }, &shape, halves.iter().flat_map(|half| half.to_le_bytes()).collect(), None),
            _ => encoded("I8", &shape, halves.iter().map(|half| *half as u8).collect(), Some(if per_row { rows } else { 0 })),
        };
        let contribution = Contribution::parse(&layout, &bytes, &GuardLimits::default()).expect("valid");
        let count = halves.len();
        let decoded = layout.write_concatenated(&contribution.decode(0..count)).expect("writable");
        let frame = Frame::parse(&decoded).expect("a frame");
        let plain = Contribution::of_frame(&layout, &frame).expect("the same tensors");
        prop_assert_eq!(plain.l2_norm().to_bits(), contribution.l2_norm().to_bits());
        let from = (start * count as f64) as usize;
        for way in [Way::Mean, combine("median", 0.0, 0.0).strategy] {
            let sums = [&contribution, &plain].map(|contribution| {
                let mut combiner = Combiner::with_range(from..count, &layout, &[0], way).expect("valid");
                combiner.add(0, contribution, 1.0 / 3.0).expect("the next one");
                combiner.finish().expect("complete").data
            });
            prop_assert_eq!(&sums[0], &sums[1]);
        }
    }

    /// Each element's step is its own: a large tensor's (several blocks) is that of as many models of one element.
    #[test]
    fn elements_are_stepped_independently(algorithm in prop::sample::select(&ALGORITHMS[..]), at in 0_usize..1100, wide in any::<bool>()) {
        let optimizer = ServerOptimizer::from_proto(&message(algorithm)).expect("valid");
        let value = |i: usize, salt: usize| ((i * 7919 + salt * 104_729) % 2000) as f64 / 1000.0 - 1.0;
        let step = |first: usize, count: usize| {
            let make = |salt: usize| {
                let numbers: Vec<f64> = (first..first + count).map(|i| value(i, salt)).collect();
                let narrow: Vec<f32> = numbers.iter().map(|number| *number as f32).collect();
                if wide { file(&[], &[("w", &numbers)]) } else { file(&[("w", &narrow)], &[]) }
            };
            let (mut model, mut state) = (make(0), None::<Vec<u8>>);
            for round in 1..4 {
                let (gradient, before) = (make(round), model.clone());
                let parsed = Frame::parse(&before).expect("a frame");
                let frame = Frame::parse(&gradient).expect("a frame");
                let mean = Mean { data: frame.tensors().next().expect("one").1.to_vec(), weight_sum: 1.0 };
                let old = state.as_deref().map(|bytes| Frame::parse(bytes).expect("a frame"));
                let next = next_model(&parsed, old.as_ref(), &mean, &optimizer).expect("finite");
                assert_eq!(Frame::parse(&next.state).expect("a frame").layout(), &optimizer.state_layout(parsed.layout()).expect("a layout"));
                (model, state) = (next.model, Some(next.state));
            }
            let frame = Frame::parse(&model).expect("a frame");
            let data = frame.tensors().next().expect("one tensor").1.to_vec();
            data
        };
        let width = if wide { 8 } else { 4 };
        let (all, one) = (step(0, 1100), step(at, 1));
        prop_assert_eq!(&all[at * width..(at + 1) * width], &one[..]);
    }

    #[test]
    fn a_factor_lies_between_0_and_1_and_falls_after_the_warm_up(warmup in 0_u64..20, length in 1_u64..50, floor in 0.0_f64..=1.0, cosine in any::<bool>()) {
        let mut message = LearningRateSchedule::new();
        message.set_warmup_rounds(warmup);
        if cosine {
            message.set_kind("cosine".to_owned());
            message.set_decay_rounds(length);
            message.set_final_factor(floor);
        } else {
            message.set_kind("step".to_owned());
            message.set_step_rounds(length);
            message.set_step_factor(floor.max(0.01));
        }
        let schedule = Schedule::from_proto(&message).expect("valid");
        let factors: Vec<f64> = (0..warmup + 3 * length).map(|round| schedule.factor(round)).collect();
        prop_assert!(factors.iter().all(|factor| (0.0..=1.0).contains(factor)));
        let (rising, falling) = factors.split_at(warmup as usize);
        prop_assert!(rising.is_sorted() && falling.iter().rev().is_sorted());
        prop_assert_eq!(falling[0].to_bits(), 1.0_f64.to_bits());
    }
}

/// A file with one tensor `w`, and for I8 its scale: one (0), or one for each of so many rows.
fn encoded(dtype: &str, shape: &[usize], data: Vec<u8>, rows: Option<usize>) -> Vec<u8> {
    let mut header = format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[0,{}]}}"#, data.len());
    let mut body = data;
    if let Some(rows) = rows {
        let scales: Vec<f32> = (0..rows.max(1)).map(|row| 0.01 + row as f32).collect();
        let scale_shape = if rows == 0 { String::new() } else { rows.to_string() };
        let (start, end) = (body.len(), body.len() + scales.len() * 4);
        header += &format!(r#","w/scale":{{"dtype":"F32","shape":[{scale_shape}],"data_offsets":[{start},{end}]}}"#);
        body.extend(scales.iter().flat_map(|scale| scale.to_le_bytes()));
    }
    header += "}";
    [(header.len() as u64).to_le_bytes().to_vec(), header.into_bytes(), body].concat()
}

#[test]
fn fedavg_over_deltas_gives_the_mean_of_the_trainers_models() {
    let (model, clients) = ([1.0, -2.0, 0.5], [[0.0, 1.0, 2.0], [4.0, -3.0, 0.25]]);
    let deltas: Vec<Vec<u8>> = clients
        .iter()
        .map(|client| file(&[], &[("w", &[model[0] - client[0], model[1] - client[1], model[2] - client[2]])]))
        .collect();
    let next = raftgrid_train::aggregate(
        &file(&[], &[("w", &model)]),
        None,
        [(1.0, &deltas[0]), (3.0, &deltas[1])],
        &message("fedavg"),
    )
    .expect("valid");
    assert_eq!(next.model, file(&[], &[("w", &[3.0, -2.0, 0.6875])]));
}

#[test]
fn wrong_settings_are_refused_by_name() {
    let change = |algorithm: &str, change: &dyn Fn(&mut Optimizer)| {
        let mut message = message(algorithm);
        change(&mut message);
        ServerOptimizer::from_proto(&message).expect_err("must be refused").to_string()
    };
    for (error, expected) in [
        (change("adam", &|m| m.set_beta1(1.0)), "beta1 is 1"),
        (change("adam", &|m| m.set_beta2(0.0)), "beta2 is 0"),
        (change("adam", &|m| m.set_beta2(1.0 - 1e-12)), "beta2 is 0.999999999999"),
        (change("adam", &|m| m.set_epsilon(0.0)), "epsilon is 0"),
        (change("adam", &|m| m.set_epsilon(1e-60)), "epsilon is"),
        (change("adamw", &|m| m.set_weight_decay(f64::NAN)), "weight_decay is NaN"),
        (change("adamw", &|m| m.set_momentum(0.9)), "momentum is 0.9, it must be 0"),
        (change("adamw", &|m| m.set_nesterov(true)), "adamw does not take nesterov"),
        (change("fedavg", &|m| m.set_learning_rate(0.5)), "learning_rate is 0.5, it must be 1"),
        (change("fedavg", &|m| m.set_momentum(0.5)), "momentum is 0.5"),
        (change("fedavgm", &|m| m.set_momentum(0.0)), "momentum is 0"),
        (change("fedavgm", &|m| m.set_nesterov(true)), "fedavgm does not take nesterov"),
        (change("fedadam", &|m| m.set_weight_decay(0.1)), "weight_decay is 0.1"),
        (change("diloco", &|m| m.set_momentum(1.0)), "momentum is 1"),
        (change("diloco", &|m| m.set_beta1(0.9)), "beta1 is 0.9"),
        (change("sgd", &|m| m.set_algorithm("lion".to_owned())), "`lion` is unknown"),
    ] {
        assert!(error.contains(expected), "{error}");
    }
    let mut scheduled = message("fedavg");
    scheduled.mut_schedule().set_warmup_rounds(3);
    let error = RoundRule::from_proto(&scheduled, &CombineMessage::new(), 0).expect_err("must be refused").to_string();
    assert!(error.contains("fedavg does not take a schedule"), "{error}");
    let mut schedule = LearningRateSchedule::new();
    schedule.set_kind("cosine".to_owned());
    assert!(Schedule::from_proto(&schedule).expect_err("no length").to_string().contains("decay_rounds"));
    schedule.set_kind("linear".to_owned());
    assert!(Schedule::from_proto(&schedule).expect_err("unknown").to_string().contains("`linear` is unknown"));
    let mut message = CombineMessage::new();
    message.set_trim_fraction(0.1);
    assert!(Combine::from_proto(&message).expect_err("of another").to_string().contains("trim_fraction"));
    message.set_strategy("trimmed_mean".to_owned());
    message.set_trim_fraction(0.5);
    assert!(Combine::from_proto(&message).expect_err("all").to_string().contains("below 0.5"));
    message.set_strategy("krum".to_owned());
    assert!(Combine::from_proto(&message).expect_err("unknown").to_string().contains("`krum` is unknown"));
}

#[test]
fn wrong_encodings_are_refused_by_name() {
    let layout = Layout::new(vec![spec("w", Dtype::F32, &[2, 2])]).expect("a layout");
    let wide = Layout::new(vec![spec("w", Dtype::F64, &[2, 2])]).expect("a layout");
    let parse = |layout: &Layout, bytes: &[u8]| {
        Contribution::parse(layout, bytes, &GuardLimits::default()).expect_err("must be refused").to_string()
    };
    let shape = [2, 2];
    let halves = encoded("F16", &shape, vec![0; 8], None);
    let three = encoded("I8", &shape, vec![0; 4], Some(3));
    let infinite = encoded("F16", &shape, vec![0, 0, 0, 0x7c, 0, 0, 0, 0], None);
    let mut negative = encoded("I8", &shape, vec![0; 4], Some(0));
    let end = negative.len();
    negative[end - 4..].copy_from_slice(&(-1.0_f32).to_le_bytes());
    let mut huge = negative.clone();
    huge[end - 4..].copy_from_slice(&1e37_f32.to_le_bytes());
    for (error, expected) in [
        (parse(&wide, &halves), "tensor `w` has dtype F16, the model's has F64"),
        (parse(&layout, &encoded("U8", &shape, vec![0; 4], None)), "tensor `w` has dtype U8"),
        (parse(&layout, &encoded("I8", &shape, vec![0; 4], None)), "scale of tensor `w` is missing"),
        (parse(&layout, &three), "neither shape [] nor one for each"),
        (parse(&layout, &negative), "is negative or not finite"),
        (parse(&layout, &huge), "is negative or not finite"),
        (parse(&layout, &infinite), "tensor `w` is not finite: element 1 is inf"),
        (parse(&layout, &encoded("F16", &[4], vec![0; 8], None)), "has shape [4], the model's has [2, 2]"),
        (parse(&layout, &encoded("F16", &shape, vec![0; 8], Some(0))), "tensor `w/scale` is unknown"),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}
