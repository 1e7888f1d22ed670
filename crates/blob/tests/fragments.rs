//! Fragments on a real disk.

use raftgrid_blob::{BlobError, FragmentStore};
use sha2::{Digest, Sha256};

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

fn stored(store: &FragmentStore, id: u64, data: &[u8]) {
    let mut writer = store.create().unwrap();
    for part in data.chunks(10_007) {
        writer.write(part).unwrap();
    }
    let digest: [u8; 32] = Sha256::digest(data).into();
    assert_eq!(writer.finish(Some(data.len() as u64), Some(&digest)).unwrap(), digest);
    store.keep(writer, id, 0).unwrap();
}

#[test]
fn what_was_kept_reads_back_from_any_offset_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = FragmentStore::open(folder.path()).unwrap();
    for (id, length) in [(1, 0), (2, 1), (3, 64 * 1024), (4, 200_000)] {
        stored(&store, id, &bytes(length));
    }
    let store = FragmentStore::open(folder.path()).unwrap();
    assert_eq!(store.artifacts().unwrap(), vec![1, 2, 3, 4]);
    let reader = store.open_fragment(4, 0).unwrap();
    assert_eq!(reader.read_all().unwrap(), bytes(200_000));
    let mut part = vec![0; 70_000];
    assert_eq!(reader.read_at(60_000, &mut part).unwrap(), 70_000);
    assert_eq!(part, bytes(200_000)[60_000..130_000]);
    assert_eq!(reader.read_at(199_999, &mut part).unwrap(), 1);
}

#[test]
fn what_is_written_out_of_order_is_the_same_file_and_a_gap_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = FragmentStore::open(folder.path()).unwrap();
    let data = bytes(3_300_000);
    // Two regions side by side, as a state with two slots is written; what is between them and the end in one go.
    let (middle, end) = (1_400_000, 2_800_000);
    let mut writer = store.create().unwrap();
    for at in (0..middle).step_by(70_000) {
        writer.write_at(at as u64, &data[at..at + 70_000]).unwrap();
        writer.write_at((middle + at) as u64, &data[middle + at..middle + at + 70_000]).unwrap();
    }
    writer.write_at(end as u64, &data[end..]).unwrap();
    let digest: [u8; 32] = Sha256::digest(&data).into();
    assert_eq!(writer.finish(Some(data.len() as u64), None).unwrap(), digest);
    store.keep(writer, 9, 0).unwrap();
    let reader = store.open_fragment(9, 0).unwrap();
    assert_eq!((reader.digest(), reader.read_all().unwrap() == data), (digest, true));
    for (offset, length) in [(11, 4), (9, 4)] {
        let mut writer = store.create().unwrap();
        writer.write(&data[..10]).unwrap();
        writer.write_at(offset, &data[..length]).unwrap();
        assert!(matches!(writer.finish(None, None), Err(BlobError::Refused(_))), "a gap, or a byte twice");
    }
}

#[test]
fn a_changed_byte_is_refused_and_never_given_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = FragmentStore::open(folder.path()).unwrap();
    stored(&store, 7, &bytes(100_000));
    let path = folder.path().join("7/0");
    let good = std::fs::read(&path).unwrap();
    for at in [0, 65_535, 65_536, 99_999, 100_000, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 4;
        std::fs::write(&path, &bad).unwrap();
        let read = store.open_fragment(7, 0).and_then(|reader| reader.read_all());
        assert!(matches!(read, Err(BlobError::Rotten { artifact_id: 7, fragment: 0 })), "byte {at}: {read:?}");
    }
    std::fs::write(&path, &good[..good.len() - 3]).unwrap();
    assert!(matches!(store.open_fragment(7, 0), Err(BlobError::Rotten { .. })));
}

#[test]
fn a_wrong_digest_or_length_is_refused_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = FragmentStore::open(folder.path()).unwrap();
    let mut writer = store.create().unwrap();
    writer.write(b"abc").unwrap();
    assert!(writer.finish(Some(4), None).is_err());
    drop(writer);
    let mut writer = store.create().unwrap();
    writer.write(b"abc").unwrap();
    assert!(writer.finish(None, Some(&[0; 32])).is_err());
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
    assert!(matches!(store.open_fragment(1, 0), Err(BlobError::NotFound { .. })));
}
