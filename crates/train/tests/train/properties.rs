//! Properties of the mean and of frames, over drawn shapes, weights and orders.

use std::collections::BTreeMap;

use crate::common::{file, sgd};
use proptest::prelude::*;
use raftgrid_train::frame::{f32s, f64s};
use raftgrid_train::mean::{sum_range, Mean};
use raftgrid_train::norm::l2_norm;
use raftgrid_train::{aggregate, Accumulator, Frame, MeanError, Precision};

/// Contributions of a round: (weight, values of tensor `a` in f32, values of tensor `b` in f64).
type Round = Vec<(f64, Vec<f32>, Vec<f64>)>;

fn round() -> impl Strategy<Value = Round> {
    (1_usize..40, 0_usize..20, 1_usize..8).prop_flat_map(|(a, b, shards)| {
        let weight = prop_oneof![0.001_f64..1e6, Just(1.0), Just(1.0 / 3.0)];
        let narrow = prop::collection::vec(prop_oneof![-1e3_f32..1e3, -1e-40_f32..1e-40, Just(-0.0_f32)], a);
        let wide = prop::collection::vec(-1e3_f64..1e3, b);
        prop::collection::vec((weight, narrow, wide), shards)
    })
}

fn files(round: &Round) -> Vec<Vec<u8>> {
    round.iter().map(|(_, a, b)| file(&[("a", a)], &[("b", b)])).collect()
}

fn mean_of(round: &Round, precision: Precision) -> Mean {
    let files = files(round);
    let frames: Vec<Frame<'_>> = files.iter().map(|bytes| Frame::parse(bytes).expect("a frame")).collect();
    let contributions = frames.iter().zip(round).enumerate();
    sum_range(
        0..frames[0].layout().elements(),
        frames[0].layout(),
        contributions.map(|(shard, (frame, (weight, _, _)))| (shard as u32, *weight, frame)),
        precision,
    )
    .expect("valid")
}

/// The rule of `mean`, one element at a time, as the design page states it.
fn scalar_loop(round: &Round) -> Vec<u8> {
    let mut weight_sum = 0.0_f64;
    for (weight, _, _) in round {
        weight_sum += weight;
    }
    let mut data = Vec::new();
    for element in 0..round[0].2.len() {
        let mut sum = 0.0_f64;
        for (weight, _, b) in round {
            let product = weight * b[element];
            sum += product;
        }
        data.extend((sum / weight_sum).to_le_bytes());
    }
    for element in 0..round[0].1.len() {
        let mut sum = 0.0_f32;
        for (weight, a, _) in round {
            let product = (weight * f64::from(a[element])) as f32;
            sum += product;
        }
        data.extend(((f64::from(sum) / weight_sum) as f32).to_le_bytes());
    }
    data
}

proptest! {
    #[test]
    fn the_mean_is_bit_equal_to_the_scalar_loop(round in round()) {
        prop_assert_eq!(mean_of(&round, Precision::Tensor).data, scalar_loop(&round));
    }

    #[test]
    fn the_mean_is_near_the_exact_one(round in round()) {
        let weight_sum: f64 = round.iter().map(|(weight, _, _)| weight).sum();
        let (narrow, wide) = (mean_of(&round, Precision::Tensor), mean_of(&round, Precision::Wide));
        let from = round[0].2.len() * 8;
        for element in 0..round[0].1.len() {
            let terms: Vec<f64> = round.iter().map(|(weight, a, _)| weight * f64::from(a[element])).collect();
            let exact = terms.iter().sum::<f64>() / weight_sum;
            let size = terms.iter().map(|term| term.abs()).sum::<f64>() / weight_sum;
            // One rounding of 2^-24 for each product, sum and the quotient; the smallest subnormal over the weights' sum below that.
            let bound = size * 2.0 * (round.len() as f64 + 1.0) * 2.0_f64.powi(-24)
                + 2.0 * (round.len() as f64 + 1.0) * f64::from(f32::from_bits(1)) * (1.0 + 1.0 / weight_sum);
            let found = f64::from(f32s(&narrow.data[from..]).nth(element).expect("there"));
            prop_assert!((found - exact).abs() <= bound, "{found} {exact} {bound}");
            let found = f64::from(f32s(&wide.data[from..]).nth(element).expect("there"));
            prop_assert!((found - exact).abs() <= size * 2.0_f64.powi(-23) + f64::from(f32::from_bits(1)));
        }
        for element in 0..round[0].2.len() {
            let exact = round.iter().map(|(weight, _, b)| weight * b[element]).sum::<f64>() / weight_sum;
            let found = f64s(&narrow.data[..from]).nth(element).expect("there");
            prop_assert!((found - exact).abs() <= 1e-9);
        }
    }

    /// Contributions arrive in any order, some twice; a caller that spools them and feeds what is next gets the same bytes always, and one that
    /// feeds them as they come is refused without a trace.
    #[test]
    fn the_order_of_arrival_cannot_matter(
        (round, arrivals) in round().prop_flat_map(|round| {
            let order: Vec<usize> = (0..round.len()).chain(0..round.len()).collect();
            (Just(round), Just(order).prop_shuffle())
        })
    ) {
        let files = files(&round);
        // Shards need not be dense: a round may be sealed with some missing.
        let shards: Vec<u32> = (0..round.len() as u32).map(|shard| shard * 3 + 1).collect();
        let first = Frame::parse(&files[0]).expect("a frame");
        let mut accumulator = Accumulator::new(first.layout(), &shards, Precision::Tensor).expect("rising");
        let mut spool: BTreeMap<u32, usize> = BTreeMap::new();
        for index in arrivals {
            let frame = Frame::parse(&files[index]).expect("a frame");
            if accumulator.next_shard() != Some(shards[index]) {
                let refused = accumulator.add(shards[index], &frame, round[index].0);
                prop_assert!(matches!(refused, Err(MeanError::Order { .. })), "out of order or twice");
            }
            if accumulator.next_shard().is_some_and(|next| shards[index] >= next) {
                spool.insert(shards[index], index);
            }
            while let Some(index) = accumulator.next_shard().and_then(|next| spool.remove(&next)) {
                let frame = Frame::parse(&files[index]).expect("a frame");
                accumulator.add(shards[index], &frame, round[index].0).expect("the next one");
            }
        }
        prop_assert_eq!(accumulator.finish().expect("complete").data, scalar_loop(&round));
    }

    #[test]
    fn ranges_put_together_are_the_whole(round in round(), cut_a in 0.0_f64..1.0, cut_b in 0.0_f64..1.0) {
        let files = files(&round);
        let frames: Vec<Frame<'_>> = files.iter().map(|bytes| Frame::parse(bytes).expect("a frame")).collect();
        let elements = frames[0].layout().elements();
        let mut cuts = [0, (cut_a * elements as f64) as usize, (cut_b * elements as f64) as usize, elements];
        cuts.sort_unstable();
        let mut joined = Vec::new();
        for pair in cuts.windows(2) {
            let contributions = frames.iter().zip(&round).enumerate();
            let part = sum_range(
                pair[0]..pair[1],
                frames[0].layout(),
                contributions.map(|(shard, (frame, (weight, _, _)))| (shard as u32, *weight, frame)),
                Precision::Tensor,
            );
            joined.extend(part.expect("valid").data);
        }
        prop_assert_eq!(joined, mean_of(&round, Precision::Tensor).data);
    }

    #[test]
    fn a_frame_survives_the_round_trip_and_its_writing_is_deterministic(round in round()) {
        for bytes in files(&round) {
            let frame = Frame::parse(&bytes).expect("a frame");
            prop_assert_eq!(&frame.to_bytes().expect("writable"), &bytes);
            prop_assert_eq!(frame.layout().data_bytes(), frame.tensors().map(|(_, data)| data.len()).sum::<usize>());
        }
    }

    #[test]
    fn damaged_files_never_panic(round in round(), at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = files(&round).remove(0);
        let index = at.index(bytes.len());
        bytes[index] = value;
        // Any answer is right but a crash; what parses can be written.
        if let Ok(frame) = Frame::parse(&bytes) {
            prop_assert!(frame.to_bytes().is_ok());
        }
        let _ = Frame::parse(&bytes[..index]);
    }

    /// The step against the definition in f64: each operation in f32 adds at most half a unit in the last place.
    #[test]
    fn the_step_is_near_its_definition(
        p in prop::collection::vec(-10.0_f32..10.0, 1..20),
        g_scale in 0.1_f32..2.0,
        rate in 0.001_f64..1.0,
        momentum in 0.0_f64..0.99,
        decay in 0.0_f64..0.1,
        nesterov in any::<bool>(),
    ) {
        let nesterov = nesterov && momentum > 0.0;
        let message = sgd(rate, momentum, nesterov, decay);
        let gradients: Vec<f32> = p.iter().enumerate().map(|(i, value)| (value * 0.5 + i as f32 * 0.01) * g_scale).collect();
        let (mut expected_p, mut expected_v): (Vec<f64>, Vec<f64>) =
            (p.iter().map(|value| f64::from(*value)).collect(), vec![0.0; p.len()]);
        let (mut model, mut state) = (file(&[("w", &p)], &[]), None);
        for _ in 0..3 {
            let next = aggregate(&model, state.as_deref(), [(2.0, file(&[("w", &gradients)], &[]))], &message).expect("valid");
            for i in 0..p.len() {
                let d = f64::from(gradients[i]) + decay * expected_p[i];
                expected_v[i] = momentum * expected_v[i] + d;
                let update = if momentum == 0.0 { d } else if nesterov { d + momentum * expected_v[i] } else { expected_v[i] };
                expected_p[i] -= rate * update;
            }
            (model, state) = (next.model, Some(next.state));
        }
        let frame = Frame::parse(&model).expect("a frame");
        let (_, data) = frame.tensors().next().expect("one tensor");
        for (found, expected) in f32s(data).zip(expected_p) {
            prop_assert!((f64::from(found) - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{found} {expected}");
        }
    }
}

#[test]
fn the_norm_is_summed_in_its_fixed_tree() {
    // 5,000 elements: one whole block of 4,096, and a rest. The naive sum in f32 would lose the small ones.
    let values: Vec<f32> = (0..5000).map(|i| if i == 0 { 1e6 } else { 1e-3 * (i % 7) as f32 }).collect();
    let bytes = file(&[("w", &values)], &[]);
    let frame = Frame::parse(&bytes).expect("a frame");
    let mut total = 0.0_f64;
    for block in values.chunks(4096) {
        let mut lanes = [0.0_f64; 16];
        for (i, value) in block.iter().enumerate() {
            lanes[i % 16] += f64::from(*value) * f64::from(*value);
        }
        for width in [8, 4, 2, 1] {
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
        }
        total += lanes[0];
    }
    assert_eq!(l2_norm(frame.tensors()).to_bits(), total.sqrt().to_bits());
}

#[test]
fn an_accumulator_wants_rising_shards_a_valid_range_and_all_of_them() {
    let bytes = file(&[("w", &[1.0, 2.0])], &[]);
    let frame = Frame::parse(&bytes).expect("a frame");
    let layout = frame.layout();
    for shards in [&[][..], &[1, 1], &[2, 1]] {
        assert!(matches!(Accumulator::new(layout, shards, Precision::Tensor), Err(MeanError::Shards)));
    }
    assert!(matches!(Accumulator::with_range(1..3, layout, &[0], Precision::Tensor), Err(MeanError::Range { .. })));
    let mut accumulator = Accumulator::new(layout, &[0, 2], Precision::Tensor).expect("rising");
    accumulator.add(0, &frame, 1.0).expect("the next one");
    assert!(matches!(accumulator.add(1, &frame, 1.0), Err(MeanError::Order { given: 1, expected: Some(2) })));
    assert!(matches!(accumulator.add(2, &frame, -1.0), Err(MeanError::Contribution { shard: 2, .. })));
    assert!(matches!(accumulator.finish(), Err(MeanError::Incomplete(2))));
}
