//! The log's write and fsync, and apply into the state tables, on the real RocksDB.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use criterion::{criterion_group, criterion_main, BatchSize, Criterion, Throughput};
use raftgrid_benches::{entry, founded, submit};
use raftgrid_driver::{LogBatch, LogReader, LogStore, SyncMark, Syncer};
use raftgrid_manifest::apply;

fn log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log");
    for (name, entries, bytes) in [("one_256B", 1_u64, 256), ("batch_of_64_256B", 64, 256), ("one_64KiB", 1, 64 << 10)]
    {
        let dir = tempfile::tempdir().expect("a directory");
        let mut booted = founded(dir.path(), 1, &[1]);
        let mut syncer = booted.log.syncer();
        let mut next = booted.log.reader().last_index() + 1;
        group.throughput(Throughput::Elements(entries));
        group.bench_function(format!("write_and_sync/{name}"), |bencher| {
            bencher.iter(|| {
                let entries = (next..next + entries).map(|index| entry(index, bytes)).collect::<Vec<_>>();
                next += entries.len() as u64;
                booted.log.write(LogBatch { entries, ..LogBatch::default() }).expect("the log is written");
                let mark = SyncMark { last_index: next - 1, last_term: 1, term: 1, ..SyncMark::default() };
                syncer.sync(mark).expect("the log is synced");
            });
        });
        let reader = booted.log.reader();
        group.bench_function(format!("read_last_64/{name}"), |bencher| {
            let low = next.saturating_sub(64).max(reader.first_index());
            bencher.iter(|| black_box(reader.entries(low, next, 1 << 20).expect("the entries are there")));
        });
    }
    group.finish();
}

fn tables(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tables");
    let dir = tempfile::tempdir().expect("a directory");
    let mut booted = founded(dir.path(), 1, &[1]);
    let mut index = booted.tables.applied().0;
    let payload = submit(256);
    group.throughput(Throughput::Elements(1));
    group.bench_function("apply_and_commit/submit_task_256B", |bencher| {
        bencher.iter_batched(
            || [payload.clone()],
            |payloads| {
                index += 1;
                let applied = apply(&booted.tables, index, &payloads).expect("the command decodes");
                booted.tables.commit(&applied.changes, (index, 1), None).expect("the tables are written");
                black_box(applied.replies)
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("view", |bencher| bencher.iter(|| black_box(booted.tables.view())));
    group.finish();
}

criterion_group!(storage, log, tables);
criterion_main!(storage);
