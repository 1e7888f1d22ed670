//! A trainer that sends what it must not: a thousand generated cases of each kind, to real replicas, under a lease that is open. Each is refused
//! by name, the model stays what it was, nothing outside the store is written, and the job then trains as if none of it had been.

mod harness;

use std::io::Cursor;
use std::sync::Arc;
use std::thread;

use harness::gradient::{frame, send, tensors, Case, Tensor};
use harness::numbers::Rng;
use harness::trainer::{first_model, job, submit, train_well, Beats, Nodes, Trainer, SHARDS};
use harness::{wait_for, Cluster};
use raftgrid_client::{Client, Upload};
use raftgrid_proto::v1::*;
use raftgrid_rpc::grpcio::Client as Stub;

const CASES: u64 = 1_000;
/// Senders at once.
const SENDERS: u64 = 8;
/// In every name that must not become a file.
const MARK: &str = "rg-evil";

/// Who sends: its trainer, with a shard that it was leased and one that is another's.
struct Bad {
    trainer: Trainer,
    own: u32,
    anothers: u32,
}

type Make = fn(&mut Rng, &Bad) -> Case;

/// Each kind with the words that every refusal of it has one of.
const KINDS: [(&str, &[&str], Make); 14] = [
    ("NaN and infinities", &["is not finite"], not_finite),
    ("numbers near 1e38 and beyond", &["the norm is"], huge),
    ("other shapes", &["has shape"], other_shape),
    ("other dtypes", &["has dtype", "has an unknown dtype", "failed to read the frame", "the scale of"], other_dtype),
    ("tensors that are missing or unknown", &["is missing", "is unknown", "the scale of"], other_names),
    (
        "files that are none",
        &["failed to read the frame", "is missing", "has shape", "has dtype", "is unknown"],
        garbage,
    ),
    ("short streams", &["bytes instead of"], short),
    ("long streams", &["more than"], long),
    ("wrong hashes", &["SHA-256 differs", "a SHA-256 has 32 bytes"], wrong_hash),
    ("chunks out of order and repeated", &["chunk at offset"], out_of_order),
    ("chunks with wrong checksums", &["crc32c of the chunk"], wrong_checksum),
    ("attempts that are not the open one", &["STALE_LEASE"], old_attempt),
    ("weights and shards that are none", &["weight", "shard: "], wrong_numbers),
    ("shards that are another's", &["is leased to"], of_another),
];

fn good(rng: &mut Rng, bad: &Bad) -> Case {
    let bytes = frame(&tensors(rng));
    Case::of(bytes, &bad.trainer, bad.own)
}

fn changed(rng: &mut Rng, bad: &Bad, change: impl FnOnce(&mut Rng, &mut Vec<Tensor>)) -> Case {
    let mut list = tensors(rng);
    change(rng, &mut list);
    Case::of(frame(&list), &bad.trainer, bad.own)
}

fn put(tensor: &mut Tensor, element: usize, value: f64) {
    if tensor.dtype == "F32" {
        tensor.data[4 * element..4 * element + 4].copy_from_slice(&(value as f32).to_le_bytes());
    } else {
        tensor.data[8 * element..8 * element + 8].copy_from_slice(&value.to_le_bytes());
    }
}

fn elements(tensor: &Tensor) -> usize {
    tensor.shape.iter().product()
}

fn not_finite(rng: &mut Rng, bad: &Bad) -> Case {
    changed(rng, bad, |rng, list| {
        for _ in 0..=rng.index(3) {
            let at = rng.index(list.len());
            let element = rng.index(elements(&list[at]));
            put(&mut list[at], element, *rng.of(&[f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY]));
        }
    })
}

fn huge(rng: &mut Rng, bad: &Bad) -> Case {
    changed(rng, bad, |rng, list| {
        let at = rng.index(list.len());
        let element = rng.index(elements(&list[at]));
        let exponent = 20 + rng.index(if list[at].dtype == "F32" { 19 } else { 280 });
        let value = 10_f64.powi(exponent as i32);
        put(&mut list[at], element, if rng.index(2) == 0 { value } else { -value });
    })
}

fn other_shape(rng: &mut Rng, bad: &Bad) -> Case {
    changed(rng, bad, |rng, list| {
        let at = rng.index(list.len());
        let tensor = &mut list[at];
        let width = if tensor.dtype == "F32" { 4 } else { 8 };
        let before = tensor.shape.clone();
        while tensor.shape == before {
            tensor.shape = (0..rng.index(4)).map(|_| rng.index(5)).collect();
        }
        tensor.data = vec![0; width * tensor.shape.iter().product::<usize>()];
    })
}

fn other_dtype(rng: &mut Rng, bad: &Bad) -> Case {
    const NARROW: [(&str, usize); 7] =
        [("F64", 8), ("I64", 8), ("I32", 4), ("U32", 4), ("I16", 2), ("U8", 1), ("BOOL", 1)];
    const WIDE: [(&str, usize); 6] = [("F32", 4), ("F16", 2), ("BF16", 2), ("I8", 1), ("I64", 8), ("C64", 8)];
    changed(rng, bad, |rng, list| {
        let at = rng.index(list.len());
        let tensor = &mut list[at];
        let (dtype, width) = if tensor.dtype == "F32" { *rng.of(&NARROW) } else { *rng.of(&WIDE) };
        tensor.dtype = dtype;
        tensor.data = vec![0; width * tensor.shape.iter().product::<usize>()];
    })
}

fn other_names(rng: &mut Rng, bad: &Bad) -> Case {
    const NAMES: [&str; 8] = ["W", "w ", "ww", "../w", "w/../b", "\u{0}", "__metadata", "w.scale"];
    changed(rng, bad, |rng, list| {
        let at = rng.index(list.len());
        match rng.index(3) {
            0 => drop(list.remove(at)),
            1 => list[at].name = format!("{}{}", rng.of(&NAMES), rng.index(100)),
            _ => {
                let name = format!("{}{}", rng.of(&NAMES), rng.index(100));
                list.push(Tensor { name, dtype: "F32", shape: vec![1], data: vec![0; 4] });
            }
        }
    })
}

fn garbage(rng: &mut Rng, bad: &Bad) -> Case {
    let whole = frame(&tensors(rng));
    let bytes = match rng.index(4) {
        0 => (0..1 + rng.index(300)).map(|_| rng.next() as u8).collect(),
        // The header's length is a lie.
        1 => [&rng.next().to_le_bytes(), &whole[8..]].concat(),
        // Cut off, announced as it is.
        2 => whole[..rng.index(whole.len())].to_vec(),
        // More behind the last tensor than the header says.
        _ => [whole.clone(), vec![0; 1 + rng.index(64)]].concat(),
    };
    Case::of(if bytes.is_empty() { vec![0] } else { bytes }, &bad.trainer, bad.own)
}

fn short(rng: &mut Rng, bad: &Bad) -> Case {
    let mut case = good(rng, bad).in_pieces(rng);
    case.head.set_total_bytes((case.bytes.len() + 1 + rng.index(1_000)) as u64);
    case
}

fn long(rng: &mut Rng, bad: &Bad) -> Case {
    let mut case = good(rng, bad).in_pieces(rng);
    case.head.set_total_bytes((1 + rng.index(case.bytes.len() - 1)) as u64);
    case
}

fn wrong_hash(rng: &mut Rng, bad: &Bad) -> Case {
    let mut case = good(rng, bad);
    let at = rng.index(32);
    let digest = case.head.mut_digest();
    match rng.index(3) {
        0 => digest[at] ^= 1 << rng.index(8),
        1 => digest.truncate(at.max(1)),
        _ => digest.reverse(),
    }
    case
}

fn out_of_order(rng: &mut Rng, bad: &Bad) -> Case {
    let mut case = good(rng, bad).in_pieces(rng);
    let pieces = case.cuts.len();
    let at = rng.index(pieces - 1);
    match rng.index(3) {
        0 => case.cuts.swap(at, at + 1),
        1 => case.cuts.insert(at + 1, case.cuts[at]),
        _ => drop(case.cuts.remove(at)),
    }
    case
}

fn wrong_checksum(rng: &mut Rng, bad: &Bad) -> Case {
    let mut case = good(rng, bad).in_pieces(rng);
    case.wrong_checksum = Some(rng.index(case.cuts.len()));
    case
}

fn old_attempt(rng: &mut Rng, bad: &Bad) -> Case {
    let mut case = good(rng, bad);
    // Epochs are positions in the log: those of before, and those that were never given but have been passed.
    let epoch = 1 + rng.next() % (bad.trainer.epoch - 1);
    case.head.set_lease_epoch(epoch);
    case
}

fn wrong_numbers(rng: &mut Rng, bad: &Bad) -> Case {
    let mut case = good(rng, bad);
    if rng.index(2) == 0 {
        let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, -f64::MIN_POSITIVE];
        case.head.set_weight(*rng.of(&bad));
    } else {
        case.head.set_shard(SHARDS + (rng.next() as u32 >> rng.index(31)).min(u32::MAX - SHARDS));
    }
    case
}

/// Mostly good bytes, and now and then bad ones: whatever they are, they say nothing of the shard.
fn of_another(rng: &mut Rng, bad: &Bad) -> Case {
    let mut case = if rng.index(4) == 0 { not_finite(rng, bad) } else { good(rng, bad) };
    case.head.set_shard(bad.anothers);
    case
}

/// Runs all cases of a kind from `SENDERS` threads, each at the replicas in turn; what was not refused as it must be.
fn run_kind(stubs: &[Stub], bad: &Bad, kind: usize) -> Vec<String> {
    let (name, words, make) = KINDS[kind];
    let one = move |number: u64| {
        let mut rng = Rng((kind as u64) << 32 | number);
        let case = make(&mut rng, bad);
        match send(&stubs[number as usize % stubs.len()], case.chunks()) {
            Ok(ack) => Some(format!("{name}, case {number}: acknowledged: {ack:?}")),
            Err(why) if words.iter().any(|word| why.contains(word)) => None,
            Err(why) => Some(format!("{name}, case {number}: refused as \"{why}\", and not for {words:?}")),
        }
    };
    let share = |sender: u64| -> Vec<String> { (0..CASES).filter(|n| n % SENDERS == sender).filter_map(one).collect() };
    thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS).map(|sender| scope.spawn(move || share(sender))).collect();
        senders.into_iter().flat_map(|sender| sender.join().expect("a sender ends")).collect()
    })
}

/// Names of artifacts that look like paths.
fn evil_name(rng: &mut Rng) -> String {
    const PARTS: [&str; 12] = ["..", ".", "", "/", "/etc", "~", "a/b", "..\\", "\u{0}", "%2e%2e", "\u{202e}", "con\n"];
    let parts: Vec<&str> = (0..1 + rng.index(4)).map(|_| *rng.of(&PARTS)).collect();
    format!("{}/{}/{MARK}-{}", parts.join("/"), rng.of(&["..", ".", ""]), rng.index(1_000))
}

fn files_with_the_mark(folder: &std::path::Path, deep: bool, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().contains(MARK) {
            found.push(entry.path().display().to_string());
        }
        if deep && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files_with_the_mark(&entry.path(), true, found);
        }
    }
}

#[test]
fn a_thousand_bad_inputs_of_each_kind_are_refused_by_name_and_change_nothing() {
    let cluster = Cluster::start(3, &[]);
    let client = cluster.client();
    let model = first_model(&cluster);
    wait_for("machine version 6", || cluster.is_at_machine_version(6).then_some(()));
    submit(&client, "attacked", &model, 2);
    let nodes = Arc::new(Nodes::register(cluster.client(), &["bad", "good"]));
    let _beats = Beats::of(&nodes);
    let (bad, good) = (nodes.trainer("bad"), nodes.trainer("good"));
    let (own, anothers) = wait_for("a shard for each", || {
        // Both ask: shards are leased when all trainers that have begun are ready.
        let (own, anothers) = (nodes.ask(&bad), nodes.ask(&good));
        Some((own.first()?.shard, anothers.first()?.shard))
    });
    let bad = Bad { trainer: bad, own, anothers };
    let stubs = cluster.stubs();
    let before = job(&client, "attacked");
    for (kind, (name, ..)) in KINDS.iter().enumerate() {
        let wrong = run_kind(&stubs, &bad, kind);
        assert!(wrong.is_empty(), "{} cases, first: {:#?}", wrong.len(), &wrong[..wrong.len().min(3)]);
        let now = job(&client, "attacked");
        assert_eq!((now.phase, now.accepted), (JobPhase::JOB_RUNNING, 0), "{name}: {}", now.reason);
        assert_eq!((now.model_version, &now.model_digest), (0, &before.model_digest));
    }
    names_are_no_paths(&cluster, &client);
    wait_for("nothing left of refused uploads", || (cluster.uploads_on_disks() == 0).then_some(()));

    let model_after = train_well(&stubs, &nodes, &good, "attacked");
    assert!(job(&client, "attacked").quarantined_nodes.is_empty(), "one shard was refused; three make a habit");
    submit(&client, "quiet", &model, 2);
    let quiet = wait_for("the other job's trainer", || Some(nodes.trainer("good")).filter(|t| t.job == "quiet"));
    assert_eq!(train_well(&stubs, &nodes, &quiet, "quiet"), model_after, "as if none of it had been");
}

fn names_are_no_paths(cluster: &Cluster, client: &Client) {
    let mut rng = Rng(99);
    for number in 0..CASES {
        let name = evil_name(&mut rng);
        let upload = Upload { name: name.clone(), kind: "file".to_owned(), ..Upload::default() };
        let refused = client.put_artifact(&upload, &mut Cursor::new(b"x".to_vec()), &mut |_, _| ());
        let why = refused.expect_err(&format!("case {number}: the name {name:?} was taken")).to_string();
        assert!(why.contains("name"), "case {number}: {name:?}: {why}");
        let mut bytes = Vec::new();
        let read = client.get_artifact(&name, &mut bytes, &mut |_, _| ());
        assert!(read.is_err() && bytes.is_empty(), "case {number}: {name:?} was read");
    }
    let mut found = Vec::new();
    files_with_the_mark(cluster.dir.path(), true, &mut found);
    files_with_the_mark(&std::env::temp_dir(), false, &mut found);
    for folder in ["/", "/etc", "."] {
        files_with_the_mark(std::path::Path::new(folder), false, &mut found);
    }
    assert!(found.is_empty(), "{found:?}");
}
