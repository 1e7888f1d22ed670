//! How fast one core codes: `cargo run --release -p raftgrid-blob --example coding_speed`. GB/s are 10⁹ bytes of artifact a second of this
//! thread's CPU time, median and p10 to p90 of eleven turns; the second table is the library alone, for the choice of the unit.

use std::hint::black_box;

use raftgrid_blob::coding::{Coding, Decoder, Encoder, Layout, Rebuild};
use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};
use rustix::time::{clock_gettime, ClockId};

/// More than the caches hold.
const ARTIFACT_BYTES: usize = 96 * 1024 * 1024;
/// As the chunks of a stream.
const PIECE_BYTES: usize = 1024 * 1024;
const TURNS: usize = 11;

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// GB/s: the median of the turns, and p10 to p90.
fn speed(bytes: usize, mut turn: impl FnMut()) -> String {
    let timed = |_| {
        let start = cpu_seconds();
        turn();
        bytes as f64 / (cpu_seconds() - start) / 1e9
    };
    let mut found: Vec<f64> = (0..TURNS).map(timed).collect();
    found.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2}–{:.2})", found[TURNS / 2], found[TURNS / 10], found[TURNS - 1 - TURNS / 10])
}

fn encode(coding: Coding, artifact: &[u8], mut sink: impl FnMut(usize, &[u8])) {
    let mut encoder = Encoder::new(coding).expect("it exists");
    for mut piece in artifact.chunks(PIECE_BYTES) {
        while let Some(stripe) = encoder.next_stripe(&mut piece) {
            stripe.shards().enumerate().for_each(|(fragment, shard)| sink(fragment, shard));
        }
    }
    if let Some(stripe) = encoder.finish() {
        stripe.shards().enumerate().for_each(|(fragment, shard)| sink(fragment, shard));
    };
}

/// Runs `stripe` over all stripes with the shards of `sources`.
fn stripes(layout: Layout, fragments: &[Vec<u8>], sources: &[usize], mut stripe: impl FnMut(u64, &[&[u8]])) {
    for number in 0..layout.stripes() {
        let range = layout.shard_range(number).expect("it exists");
        let range = range.start as usize..range.end as usize;
        let shards: Vec<&[u8]> = sources.iter().map(|source| &fragments[*source][range.clone()]).collect();
        stripe(number, &shards);
    }
}

fn code(k: usize, m: usize, artifact: &[u8]) {
    let coding = Coding::new(k, m).expect("it exists");
    let layout = Layout::new(coding, artifact.len() as u64);
    let mut fragments = vec![Vec::new(); k + m];
    encode(coding, artifact, |fragment, shard| fragments[fragment].extend_from_slice(shard));
    let encoding = speed(artifact.len(), || {
        encode(coding, artifact, |_, shard| {
            black_box(shard);
        });
    });
    let appending = speed(artifact.len(), || {
        fragments.iter_mut().for_each(Vec::clear);
        encode(coding, artifact, |fragment, shard| fragments[fragment].extend_from_slice(shard));
    });
    let decoding = |present: &[usize]| {
        speed(artifact.len(), || {
            let mut decoder = Decoder::new(layout, present).expect("k are there");
            let sources = decoder.sources().to_vec();
            stripes(layout, &fragments, &sources, |number, shards| {
                black_box(decoder.stripe(number, shards).expect("its shards"));
            });
        })
    };
    let one_lost = decoding(&(1..=k).collect::<Vec<_>>());
    let all_lost = decoding(&(m..k + m).collect::<Vec<_>>());
    let rebuilding = |lost: usize| {
        let present: Vec<usize> = (0..k + m).filter(|fragment| *fragment != lost).collect();
        speed(artifact.len(), || {
            let mut rebuild = Rebuild::new(layout, &present, lost).expect("k are there");
            let sources = rebuild.sources().to_vec();
            stripes(layout, &fragments, &sources, |number, shards| {
                black_box(rebuild.stripe(number, shards).expect("its shards"));
            });
        })
    };
    let (data, parity) = (rebuilding(0), rebuilding(k + m - 1));
    println!("| {k} | {m} | {encoding} | {appending} | {one_lost} | {all_lost} | {data} | {parity} |");
}

/// The library's own encoder, and its own decoder with a lost data shard, in shards of `unit` bytes.
fn library(k: usize, m: usize, unit: usize, artifact: &[u8]) {
    let known = "k shards of one length";
    let whole = artifact.len() / (k * unit) * k * unit;
    let mut encoder = HighRateEncoder::new(k, m, unit, DefaultEngine::new(), None).expect(known);
    let encoding = speed(whole, || {
        for stripe in artifact[..whole].chunks_exact(k * unit) {
            stripe.chunks_exact(unit).for_each(|shard| encoder.add_original_shard(shard).expect(known));
            black_box(encoder.encode().expect(known).recovery(0));
        }
    });
    let mut decoder = HighRateDecoder::new(k, m, unit, DefaultEngine::new(), None).expect(known);
    // Its time does not depend on what is in the shards. A tenth of the bytes is enough, since it is slow.
    let part = (whole / 10).next_multiple_of(k * unit);
    let decoding = speed(part, || {
        for stripe in artifact[..part].chunks_exact(k * unit) {
            let mut shards = stripe.chunks_exact(unit);
            decoder.add_recovery_shard(0, shards.next().expect(known)).expect(known);
            shards.enumerate().for_each(|(at, shard)| decoder.add_original_shard(at + 1, shard).expect(known));
            black_box(decoder.decode().expect(known).restored_original(0));
        }
    });
    println!("| {k} | {m} | {} | {encoding} | {decoding} |", unit / 1024);
}

fn main() {
    let artifact: Vec<u8> = (0..ARTIFACT_BYTES as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let start = cpu_seconds();
    let encoder = Encoder::new(Coding::new(2, 1).expect("it exists"));
    println!("first encoder of the process: {:.1} ms", (cpu_seconds() - start) * 1e3);
    drop(encoder);
    let layout = Layout::new(Coding::new(3, 2).expect("it exists"), 1);
    Decoder::new(layout, &[2, 3, 4]).expect("k are there");
    let start = cpu_seconds();
    Decoder::new(layout, &[2, 3, 4]).expect("k are there");
    println!("decoder with lost data: {:.0} µs", (cpu_seconds() - start) * 1e6);
    let mut copy = vec![0; ARTIFACT_BYTES];
    let copying = speed(ARTIFACT_BYTES, || {
        copy.copy_from_slice(black_box(&artifact));
        black_box(&mut copy);
    });
    println!("memcpy: {copying} GB/s\n");
    println!("| k | m | encode | and append | decode, 1 lost | decode, m lost | rebuild data | rebuild parity |");
    println!("|---|---|---|---|---|---|---|---|");
    for (k, m) in [(2, 1), (3, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
        code(k, m, &artifact);
    }
    println!("\n| k | m | unit, KiB | library's encoder | library's decoder, 1 lost |");
    println!("|---|---|---|---|---|");
    for (k, m) in [(2, 1), (3, 2)] {
        for unit in [4, 16, 32, 64, 128, 256, 512, 1024] {
            library(k, m, unit * 1024, &artifact);
        }
    }
}
