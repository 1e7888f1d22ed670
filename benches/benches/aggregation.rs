//! The weighted mean and the optimiser's step over gradients in memory.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use criterion::{criterion_group, criterion_main, Criterion, Throughput};
use raftgrid_proto::v1::Optimizer;
use raftgrid_train::aggregate;

/// A safetensors file with one f32 vector of `elements` elements.
fn frame(elements: usize, value: f32) -> Vec<u8> {
    let header = format!(r#"{{"w":{{"dtype":"F32","shape":[{elements}],"data_offsets":[0,{}]}}}}"#, elements * 4);
    let padded = header.len().div_ceil(8) * 8;
    let mut file = (padded as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(8 + padded, b' ');
    for _ in 0..elements {
        file.extend_from_slice(&value.to_le_bytes());
    }
    file
}

fn aggregation(criterion: &mut Criterion) {
    let elements = 1 << 20;
    let model = frame(elements, 0.5);
    let gradients: Vec<(f64, Vec<u8>)> = (1..=4).map(|shard| (f64::from(shard), frame(elements, 0.1))).collect();
    let mut optimizer = Optimizer::new();
    optimizer.set_algorithm("sgd".to_owned());
    optimizer.set_learning_rate(0.1);
    optimizer.set_momentum(0.9);
    let mut group = criterion.benchmark_group("aggregation");
    group.sample_size(20);
    group.throughput(Throughput::Bytes((elements * 4 * gradients.len()) as u64));
    group.bench_function("mean_and_sgd/4_shards_4MiB", |bencher| {
        bencher.iter(|| {
            let shards = gradients.iter().map(|(weight, bytes)| (*weight, bytes.as_slice()));
            black_box(aggregate(&model, None, shards, &optimizer).expect("the shards fit the model"))
        });
    });
    group.finish();
}

criterion_group!(benches, aggregation);
criterion_main!(benches);
