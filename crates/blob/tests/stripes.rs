//! Whole artifacts in files, their fragments in files, and back.

use std::sync::Arc;

use raftgrid_blob::coding::{Coding, Layout, UNIT_BYTES};
use raftgrid_blob::stripes::{decode, digests, rebuild, FragmentOf, StripesError};
use raftgrid_blob::{FragmentReader, FragmentStore, FragmentWriter};

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 131 + at / 251) as u8).collect()
}

fn written(store: &FragmentStore, bytes: &[u8]) -> FragmentWriter {
    let mut writer = store.create().unwrap();
    writer.write(bytes).unwrap();
    writer.finish(None, None).unwrap();
    writer
}

/// All fragments as files, each held against its digest.
fn fragments(store: &FragmentStore, whole: &FragmentReader, layout: Layout) -> Vec<FragmentWriter> {
    let mut kept = store.create().unwrap();
    let found = digests(whole, layout, Some((1, &mut kept))).unwrap();
    assert_eq!(kept.reader().unwrap().digest(), found[1]);
    let mut all = Vec::new();
    for (number, digest) in found.iter().enumerate() {
        let mut fragment = FragmentOf::new(Arc::new(store.open_fragment(1, 0).unwrap()), layout, number);
        let mut writer = store.create().unwrap();
        // Pieces that meet no border.
        let (mut at, mut piece) = (0, vec![0; 70_001]);
        loop {
            let got = fragment.read_at(at, &mut piece).unwrap();
            if got == 0 {
                break;
            }
            writer.write(&piece[..got]).unwrap();
            at += got as u64;
        }
        writer.finish(Some(layout.fragment_bytes()), Some(digest)).unwrap();
        if number == 1 {
            assert!(kept.reader().unwrap().read_all().unwrap() == writer.reader().unwrap().read_all().unwrap());
        }
        all.push(writer);
    }
    all
}

fn but(all: &[FragmentWriter], lost: &[usize]) -> Vec<(usize, FragmentReader)> {
    let left = all.iter().enumerate().filter(|(number, _)| !lost.contains(number));
    left.map(|(number, writer)| (number, writer.reader().unwrap())).collect()
}

#[test]
fn an_artifact_comes_back_from_any_k_of_its_fragments_and_so_does_each_of_them() {
    let root = tempfile::tempdir().unwrap();
    let store = FragmentStore::open(root.path()).unwrap();
    for (k, m, bytes) in [(2, 1, 3 * UNIT_BYTES + 77), (3, 2, 6 * UNIT_BYTES), (3, 2, 12_345), (2, 1, 1)] {
        let layout = Layout::new(Coding::new(k, m).unwrap(), bytes as u64);
        let original = content(bytes);
        store.keep(written(&store, &original), 1, 0).unwrap();
        let whole = store.open_fragment(1, 0).unwrap();
        let all = fragments(&store, &whole, layout);
        assert_eq!(all.len(), k + m);
        for first in 0..k + m {
            let lost: Vec<usize> = (0..m).map(|next| (first + next) % (k + m)).collect();
            let left = but(&all, &lost);
            let mut target = store.create().unwrap();
            decode(layout, &left, &mut target).unwrap();
            target.finish(Some(bytes as u64), Some(&whole.digest())).unwrap();
            assert!(target.reader().unwrap().read_all().unwrap() == original, "{k}+{m}, without {lost:?}");
            let mut target = store.create().unwrap();
            rebuild(layout, &left, first, &mut target).unwrap();
            let digest = all[first].reader().unwrap().digest();
            target.finish(Some(layout.fragment_bytes()), Some(&digest)).unwrap();
        }
    }
}

#[test]
fn a_damaged_source_is_named() {
    let root = tempfile::tempdir().unwrap();
    let store = FragmentStore::open(root.path()).unwrap();
    let layout = Layout::new(Coding::new(2, 1).unwrap(), 400_000);
    store.keep(written(&store, &content(400_000)), 1, 0).unwrap();
    let all = fragments(&store, &store.open_fragment(1, 0).unwrap(), layout);
    let mut readers = but(&all, &[0]);
    let (mut broken, whole) = (store.create().unwrap(), readers[1].1.read_all().unwrap());
    broken.write(&whole).unwrap();
    broken.finish(None, None).unwrap();
    store.keep(broken, 2, 0).unwrap();
    let path = root.path().join("2/0");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[70_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    readers[1].1 = store.open_fragment(2, 0).unwrap();
    let failed = decode(layout, &readers, &mut store.create().unwrap());
    assert!(matches!(failed, Err(StripesError::Source { source_number: 1, .. })), "{failed:?}");
}
