//! Speed of the arithmetic on one core: `cargo run --release -p raftgrid-train --example sum_speed`.
//!
//! GB/s are 10⁹ bytes of gradients (or of parameters, for optimisers) per second of one thread; the best of several passes, since other work on
//! the machine only ever slows one down. Two sizes: one that stays in the second-level cache, and one that comes from memory.

use std::rc::Rc;
use std::time::{Duration, Instant};

use raftgrid_proto::v1::{Combine, Optimizer};
use raftgrid_train::{
    aggregate, sum_streamed, Accumulator, Combiner, Contribution, Dtype, Frame, GuardLimits, Inputs, Layout,
    OrderStatistic, Outputs, Precision, RoundRule, ServerOptimizer, Strategy, TensorSpec, WindowSizes,
};

const SHARDS: usize = 8;

fn main() {
    println!("algorithm                        elements   GB/s   ns per element");
    for elements in [32 * 1024, 4 * 1024 * 1024] {
        let layout = layout(elements);
        let files: Vec<Vec<u8>> = (0..SHARDS).map(|shard| file(&layout, shard as u32)).collect();
        let frames: Vec<Frame<'_>> = files.iter().map(|bytes| Frame::parse(bytes).expect("a frame")).collect();
        mean(elements, &layout, &frames);
        halves(elements, &layout);
        norm_and_guard(elements, &layout, &files);
        for (name, strategy) in [
            ("trimmed mean of 8", Strategy::Order(OrderStatistic::TrimmedMean { fraction: 0.25 })),
            ("median of 8", Strategy::Order(OrderStatistic::Median)),
        ] {
            order(name, strategy, elements, &layout, &frames);
        }
        for algorithm in ["sgd", "adam"] {
            step(algorithm, elements, &frames);
        }
        whole_round(elements, &files);
    }
}

fn layout(elements: usize) -> Layout {
    Layout::new(vec![TensorSpec { name: "w".to_owned(), dtype: Dtype::F32, shape: vec![elements] }]).expect("a layout")
}

/// Values that look like gradients, from a small generator of its own.
fn file(layout: &Layout, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let data: Vec<u8> = (0..layout.elements())
        .flat_map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / 8_388_608.0 - 1.0).to_le_bytes()
        })
        .collect();
    layout.write_concatenated(&data).expect("a file")
}

/// The shortest of several passes.
fn best(mut pass: impl FnMut()) -> Duration {
    pass();
    let begin = Instant::now();
    let mut shortest = Duration::MAX;
    while begin.elapsed() < Duration::from_millis(700) {
        let start = Instant::now();
        pass();
        shortest = shortest.min(start.elapsed());
    }
    shortest
}

fn print(name: &str, elements: usize, bytes: usize, taken: Duration) {
    let seconds = taken.as_secs_f64();
    let (speed, each) = (bytes as f64 / seconds / 1e9, seconds * 1e9 / elements as f64);
    println!("{name:<32} {elements:>8} {speed:>6.2}   {each:.3}");
}

fn mean(elements: usize, layout: &Layout, frames: &[Frame<'_>]) {
    let shards: Vec<u32> = (0..SHARDS as u32).collect();
    let taken = best(|| {
        let mut accumulator = Accumulator::new(layout, &shards, Precision::Tensor).expect("rising");
        for (shard, frame) in shards.iter().zip(frames) {
            accumulator.add(*shard, frame, 1.0 / 3.0).expect("the next one");
        }
        std::hint::black_box(accumulator.finish().expect("complete"));
    });
    print("weighted mean of 8, f32", elements, elements * 4 * SHARDS, taken);
}

/// Bytes of the encoded gradient: half as many as of f32.
fn halves(elements: usize, layout: &Layout) {
    let header = format!(r#"{{"w":{{"dtype":"F16","shape":[{elements}],"data_offsets":[0,{}]}}}}"#, elements * 2);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..elements).flat_map(|i| ((i % 0x3c00) as u16).to_le_bytes()));
    let contribution = Contribution::parse(layout, &bytes, &GuardLimits::default()).expect("valid");
    let shards: Vec<u32> = (0..SHARDS as u32).collect();
    let taken = best(|| {
        let mut accumulator = Accumulator::new(layout, &shards, Precision::Tensor).expect("rising");
        for shard in &shards {
            accumulator.add_contribution(*shard, &contribution, 1.0 / 3.0).expect("the next one");
        }
        std::hint::black_box(accumulator.finish().expect("complete"));
    });
    print("weighted mean of 8, f16", elements, elements * 2 * SHARDS, taken);
}

fn norm_and_guard(elements: usize, layout: &Layout, files: &[Vec<u8>]) {
    let contribution = Contribution::parse(layout, &files[0], &GuardLimits::default()).expect("valid");
    let taken = best(|| {
        std::hint::black_box(contribution.l2_norm());
    });
    print("norm (clipping's pass)", elements, elements * 4, taken);
    let taken = best(|| {
        std::hint::black_box(Contribution::parse(layout, &files[0], &GuardLimits::default()).expect("valid"));
    });
    print("guard: all finite", elements, elements * 4, taken);
}

fn order(name: &str, strategy: Strategy, elements: usize, layout: &Layout, frames: &[Frame<'_>]) {
    let shards: Vec<u32> = (0..SHARDS as u32).collect();
    let contributions: Vec<Contribution<'_>> =
        frames.iter().map(|frame| Contribution::of_frame(layout, frame).expect("the model's tensors")).collect();
    // As a caller goes over a large model: window by window.
    let window = 256 * 1024;
    let taken = best(|| {
        for start in (0..elements).step_by(window) {
            let range = start..elements.min(start + window);
            let mut combiner = Combiner::with_range(range, layout, &shards, strategy).expect("valid");
            for (shard, contribution) in shards.iter().zip(&contributions) {
                combiner.add(*shard, contribution, 1.0).expect("the next one");
            }
            std::hint::black_box(combiner.finish().expect("complete"));
        }
    });
    print(name, elements, elements * 4 * SHARDS, taken);
}

fn optimizer(algorithm: &str) -> Optimizer {
    let mut message = Optimizer::new();
    message.set_algorithm(algorithm.to_owned());
    message.set_learning_rate(0.01);
    if algorithm == "sgd" {
        message.set_momentum(0.9);
    } else {
        message.set_beta1(0.9);
        message.set_beta2(0.999);
        message.set_epsilon(1e-8);
    }
    message
}

/// Guards, mean, SGD's first step: over bytes in memory at once, and in windows as a replica does it (from memory here).
fn whole_round(elements: usize, files: &[Vec<u8>]) {
    let message = optimizer("sgd");
    let taken = best(|| {
        let contributions = files.iter().map(|file| (1.0 / 3.0, file.as_slice()));
        std::hint::black_box(aggregate(&files[0], None, contributions, &message).expect("finite"));
    });
    print("round of 8, at once", elements, elements * 4 * SHARDS, taken);
    let rule = RoundRule::from_proto(&message, &Combine::new(), 0).expect("valid");
    let list: Vec<(u32, f64)> = (0..SHARDS as u32).map(|shard| (shard, 1.0 / 3.0)).collect();
    for mebibytes in [1, 2, 8, 32] {
        let (mut model, mut state) = (vec![0; files[0].len()], vec![0; files[0].len() + 4096]);
        let taken = best(|| {
            let inputs = Inputs {
                model: &files[0].as_slice(),
                state: None,
                contributions: &list,
                open: &mut |number| Ok(Rc::new(files[number].as_slice())),
            };
            let sizes = WindowSizes { sum_bytes: mebibytes << 20, sorted_bytes: 256 << 20 };
            let outputs = Outputs { model: &mut model, state: &mut state };
            std::hint::black_box(sum_streamed(inputs, rule, sizes, outputs).expect("finite"));
        });
        print(&format!("round of 8, windows of {mebibytes} MiB"), elements, elements * 4 * SHARDS, taken);
    }
}

fn step(algorithm: &str, elements: usize, frames: &[Frame<'_>]) {
    let optimizer = ServerOptimizer::from_proto(&optimizer(algorithm)).expect("valid");
    let (_, gradient) = frames[1].tensors().next().expect("one tensor");
    let state = optimizer.step(&frames[0], gradient, None).expect("a step").state;
    let state = Frame::parse(&state).expect("a frame");
    let taken = best(|| {
        std::hint::black_box(optimizer.step(&frames[0], gradient, Some(&state)).expect("a step"));
    });
    print(&format!("{algorithm}'s step"), elements, elements * 4, taken);
}
