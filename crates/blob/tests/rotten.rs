//! A thousand generated ways of each kind in which a disk changes a fragment: whatever is read of it is right, or refused by name.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use raftgrid_blob::limits::BLOCK_BYTES;
use raftgrid_blob::{BlobError, FragmentStore};

const CASES: u32 = 1_000;
/// A fragment that ends within its fourth block.
const BYTES: usize = 3 * BLOCK_BYTES + 4_321;

/// What a disk does to a file, by where.
type Rot = fn(&mut Vec<u8>, Index, Index, u8);

const KINDS: [(&str, Rot); 8] = [
    ("a bit of the data", |file, at, _, bit| file[at.index(BYTES)] ^= 1 << (bit % 8)),
    ("a bit of the footer", |file, at, _, bit| {
        let footer = BYTES + at.index(file.len() - BYTES);
        file[footer] ^= 1 << (bit % 8);
    }),
    ("some bytes", |file, from, to, byte| {
        let range = range(file.len(), from, to);
        file[range].iter_mut().enumerate().for_each(|(at, it)| *it = it.wrapping_mul(3).wrapping_add(byte ^ at as u8));
    }),
    ("zeros", |file, from, to, _| {
        let range = range(file.len(), from, to);
        file[range].fill(0);
    }),
    ("cut", |file, at, _, _| file.truncate(at.index(file.len()))),
    ("longer", |file, at, _, byte| file.extend(std::iter::repeat_n(byte, 1 + at.index(2 * BLOCK_BYTES)))),
    ("without some of its middle", |file, from, to, _| {
        let range = range(file.len(), from, to);
        file.drain(range);
    }),
    ("a block in another's place", |file, one, other, _| {
        let (one, other) = (one.index(3), other.index(2));
        let other = if other >= one { other + 1 } else { other };
        let block = file[one * BLOCK_BYTES..][..BLOCK_BYTES].to_vec();
        file[other * BLOCK_BYTES..][..BLOCK_BYTES].copy_from_slice(&block);
    }),
];

/// At least one byte.
fn range(length: usize, one: Index, other: Index) -> std::ops::Range<usize> {
    let (one, other) = (one.index(length), other.index(length));
    one.min(other)..one.max(other) + 1
}

fn stored(store: &FragmentStore, folder: &Path, data: &[u8]) -> Vec<u8> {
    let mut writer = store.create().unwrap();
    writer.write(data).unwrap();
    writer.finish(None, None).unwrap();
    store.keep(writer, 7, 0).unwrap();
    std::fs::read(folder.join("7/0")).unwrap()
}

#[test]
fn what_is_read_of_a_changed_file_is_right_or_refused_and_whoever_reads_all_of_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = FragmentStore::open(folder.path()).unwrap();
    let data: Vec<u8> = (0..BYTES).map(|at| (at * 131 + at / 251) as u8).collect();
    let good = stored(&store, folder.path(), &data);
    for (name, rot) in KINDS {
        let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
        let places = (any::<Index>(), any::<Index>(), any::<u8>(), any::<Index>(), any::<Index>());
        let outcome = runner.run(&places, |(one, other, byte, from, to)| {
            let mut bad = good.clone();
            rot(&mut bad, one, other, byte);
            // The same bytes again are no damage.
            prop_assume!(bad != good);
            std::fs::write(folder.path().join("7/0"), &bad).unwrap();
            let opened = store.open_fragment(7, 0);
            let told = opened.as_ref().map_or_else(
                |error| error.to_string(),
                |reader| match reader.verify() {
                    Ok(()) => "it is whole".to_owned(),
                    Err(error) => error.to_string(),
                },
            );
            prop_assert!(told.contains("its bytes have changed") || told.contains("failed to read"), "{}", told);
            let Ok(reader) = opened else { return Ok(()) };
            prop_assert!(reader.read_all().is_err());
            let range = range(BYTES, from, to);
            let mut some = vec![0; range.len()];
            match reader.read_at(range.start as u64, &mut some) {
                Ok(got) => prop_assert!(got == some.len() && some == data[range], "other bytes"),
                Err(BlobError::Rotten { artifact_id: 7, fragment: 0 } | BlobError::Io { .. }) => {}
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            }
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
