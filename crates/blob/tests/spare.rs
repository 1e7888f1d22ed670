//! Files that are written over: whoever reads one reads on, and no bytes of before are ever found under a name.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use raftgrid_blob::medium::SystemMedium;
use raftgrid_blob::{FragmentReader, FragmentStore, SpareLimits};

const LIMITS: SpareLimits = SpareLimits { file_bytes_min: 1_000, bytes_max: 1_000_000 };

fn open(root: &Path, limits: SpareLimits) -> FragmentStore {
    FragmentStore::open_on(Arc::new(SystemMedium), root, limits).unwrap()
}

fn stored(store: &FragmentStore, artifact_id: u64, bytes: &[u8]) {
    let mut writer = store.create_for(bytes.len() as u64).unwrap();
    writer.write(bytes).unwrap();
    writer.finish(Some(bytes.len() as u64), None).unwrap();
    store.keep(writer, artifact_id, 0).unwrap();
}

fn inode(root: &Path, artifact_id: u64) -> u64 {
    std::fs::metadata(root.join(artifact_id.to_string()).join("0")).unwrap().ino()
}

fn spare_files(root: &Path) -> usize {
    std::fs::read_dir(root.join("spare")).unwrap().count()
}

fn read(store: &FragmentStore, artifact_id: u64) -> Vec<u8> {
    store.open_fragment(artifact_id, 0).unwrap().read_all().unwrap()
}

#[test]
fn a_file_that_is_not_needed_any_more_is_written_over() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), LIMITS);
    stored(&store, 1, &[1; 200_000]);
    let first = inode(root.path(), 1);
    store.remove(1).unwrap();
    assert_eq!(spare_files(root.path()), 1);
    // A little longer than before, shorter than that, and as long as at first.
    for (artifact_id, bytes) in [(2, 200_100), (3, 200_050), (4, 200_000)] {
        stored(&store, artifact_id, &vec![artifact_id as u8; bytes]);
        assert_eq!(read(&store, artifact_id), vec![artifact_id as u8; bytes]);
        // What is longer than it has to be is not taken: a file ends with its footer.
        assert_eq!(inode(root.path(), artifact_id) == first, artifact_id == 2);
        store.remove(artifact_id).unwrap();
    }
}

#[test]
fn whoever_reads_a_file_reads_on_when_it_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), LIMITS);
    let expect = |reader: &FragmentReader, byte: u8| assert_eq!(reader.read_all().unwrap(), vec![byte; 50_000]);

    stored(&store, 1, &[1; 50_000]);
    let reader = store.open_fragment(1, 0).unwrap();
    store.remove(1).unwrap();
    assert_eq!(spare_files(root.path()), 0);

    // What was finished, and its writer gone.
    let mut writer = store.create_for(50_000).unwrap();
    writer.write(&[2; 50_000]).unwrap();
    writer.finish(None, None).unwrap();
    let finished = writer.reader().unwrap();
    drop(writer);
    assert_eq!(spare_files(root.path()), 0);

    // What was finished, kept under a name, and removed.
    let mut writer = store.create_for(50_000).unwrap();
    writer.write(&[3; 50_000]).unwrap();
    writer.finish(None, None).unwrap();
    let kept = writer.reader().unwrap();
    store.keep(writer, 3, 0).unwrap();
    store.remove(3).unwrap();
    assert_eq!(spare_files(root.path()), 0);

    // What the cache let go.
    let mut writer = store.create_for(50_000).unwrap();
    writer.write(&[4; 50_000]).unwrap();
    writer.finish(None, None).unwrap();
    store.cache().keep(writer, 4).unwrap();
    let cached = store.cache().get(4).unwrap();
    store.cache().forget(4);
    assert_eq!(spare_files(root.path()), 0);

    for artifact_id in 10..20 {
        stored(&store, artifact_id, &[9; 50_000]);
    }
    [(&reader, 1), (&finished, 2), (&kept, 3), (&cached, 4)].iter().for_each(|(reader, byte)| expect(reader, *byte));
}

#[test]
fn a_file_with_bytes_of_before_behind_its_end_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), LIMITS);
    stored(&store, 1, &[1; 50_000]);
    store.remove(1).unwrap();
    let mut writer = store.create_for(50_000).unwrap();
    writer.write(&[2; 40_000]).unwrap();
    let why = writer.finish(None, None).unwrap_err().to_string();
    assert!(why.contains("fewer"), "{why}");
    drop(writer);
    assert_eq!(spare_files(root.path()), 1, "it comes back");
    // A gap is one here, too, though the file has bytes there.
    let mut writer = store.create_for(50_000).unwrap();
    writer.write_at(30_000, &[2; 20_000]).unwrap();
    let why = writer.finish(Some(50_000), None).unwrap_err().to_string();
    assert!(why.contains("were written"), "{why}");
}

#[test]
fn what_is_kept_is_bounded_and_no_start_finds_it() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), SpareLimits { file_bytes_min: 1_000, bytes_max: 150_000 });
    stored(&store, 1, &[1; 900]);
    stored(&store, 2, &[2; 200_000]);
    store.remove(1).unwrap();
    store.remove(2).unwrap();
    assert_eq!(spare_files(root.path()), 0, "too small, and too large");
    for artifact_id in 3..9 {
        stored(&store, artifact_id, &[3; 50_000]);
    }
    for artifact_id in 3..9 {
        store.remove(artifact_id).unwrap();
    }
    assert_eq!(spare_files(root.path()), 2);
    store.cache().clear();
    assert_eq!(spare_files(root.path()), 0, "the disk is almost full");
    stored(&store, 10, &[3; 50_000]);
    store.remove(10).unwrap();
    assert_eq!(spare_files(root.path()), 1);
    assert!(open(root.path(), LIMITS).artifacts().unwrap().is_empty());
    assert_eq!(spare_files(root.path()), 0);
}

#[test]
fn a_disk_with_little_room_keeps_less() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), LIMITS);
    for artifact_id in 1..9 {
        stored(&store, artifact_id, &[1; 50_000]);
    }
    for artifact_id in 1..7 {
        store.remove(artifact_id).unwrap();
    }
    store.cache().fit_spares(10_000_000);
    assert_eq!(spare_files(root.path()), 6);
    store.cache().fit_spares(350_000);
    assert_eq!(spare_files(root.path()), 3, "a quarter of 350,000 and of a little more than 300,000");
    store.remove(7).unwrap();
    assert_eq!(spare_files(root.path()), 3, "the newest take the place of the oldest");
    store.cache().fit_spares(10_000_000);
    store.remove(8).unwrap();
    assert_eq!(spare_files(root.path()), 4);
}

#[test]
fn what_nobody_takes_goes() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), LIMITS);
    stored(&store, 1, &[1; 50_000]);
    stored(&store, 2, &[2; 50_000]);
    store.remove(1).unwrap();
    store.age_spares();
    store.remove(2).unwrap();
    assert_eq!(spare_files(root.path()), 2, "neither has waited long");
    store.age_spares();
    assert_eq!(spare_files(root.path()), 1);
    drop(store.create_for(50_000).unwrap());
    store.age_spares();
    assert_eq!(spare_files(root.path()), 1, "it was wanted meanwhile");
    store.age_spares();
    assert_eq!(spare_files(root.path()), 0);
}

/// Four thousand steps of a store whose files are all written over: everything that is open or has a name is what was written.
#[test]
fn nobody_ever_reads_bytes_of_another() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), SpareLimits { file_bytes_min: 1, bytes_max: 20_000 });
    let mut seed = 1_u64;
    let mut below = |most: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % most
    };
    let content = |id: u64, bytes: u64| vec![(id % 251) as u8; bytes as usize];
    let mut named: BTreeMap<u64, u64> = BTreeMap::new();
    let mut open: Vec<(FragmentReader, u64, u64)> = Vec::new();
    let (mut written_over, mut next) = (0, 0);
    for _ in 0..4_000 {
        match below(5) {
            0 | 1 => {
                next += 1;
                let bytes = 1_000 + below(3) * 100;
                let mut writer = store.create_for(bytes).unwrap();
                writer.write(&content(next, bytes)).unwrap();
                writer.finish(Some(bytes), None).unwrap();
                written_over += u64::from(format!("{writer:?}").contains("recycled_bytes: 1"));
                if below(2) == 0 {
                    open.push((writer.reader().unwrap(), next, bytes));
                }
                match below(3) {
                    0 => drop(writer),
                    1 => store.cache().keep(writer, next).unwrap(),
                    _ => {
                        store.keep(writer, next, 0).unwrap();
                        named.insert(next, bytes);
                    }
                }
            }
            2 => {
                let Some(id) = named.keys().nth(below(named.len().max(1) as u64) as usize).copied() else { continue };
                store.remove(id).unwrap();
                named.remove(&id);
            }
            3 => {
                let Some((id, bytes)) = named.iter().nth(below(named.len().max(1) as u64) as usize) else { continue };
                open.push((store.open_fragment(*id, 0).unwrap(), *id, *bytes));
            }
            _ if !open.is_empty() => {
                let (reader, id, bytes) = open.swap_remove(below(open.len() as u64) as usize);
                assert_eq!(reader.read_all().unwrap(), content(id, bytes), "artifact {id}");
            }
            _ => {}
        }
        if below(10) == 0 {
            store.cache().forget(below(next + 1));
        }
    }
    for (id, bytes) in named {
        assert_eq!(read(&store, id), content(id, bytes), "artifact {id}");
    }
    assert!(written_over > 200, "only {written_over} files were written over");
}

/// Threads that keep, remove and read one fragment: what is read is what somebody kept, whole.
#[test]
fn who_reads_while_others_replace_and_remove_reads_one_of_them() {
    const ROUNDS: u8 = 200;
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), SpareLimits { file_bytes_min: 1, bytes_max: 50_000 });
    let write = |first: u8| {
        for round in 0..ROUNDS {
            let mut writer = store.create_for(2_000).unwrap();
            writer.write(&[first.wrapping_add(round); 2_000]).unwrap();
            writer.finish(Some(2_000), None).unwrap();
            // The folder may be removed in between: then it is not kept, as when the disk fails.
            let _ = store.keep(writer, 1, 0);
            if round % 3 == 0 {
                let _ = store.remove(1);
            }
        }
    };
    std::thread::scope(|scope| {
        let writers = [scope.spawn(|| write(0)), scope.spawn(|| write(100)), scope.spawn(|| write(200))];
        let mut found = 0;
        loop {
            let over = writers.iter().all(|writer| writer.is_finished());
            if let Ok(reader) = store.open_fragment(1, 0) {
                std::thread::yield_now();
                let bytes = reader.read_all().unwrap();
                assert!(bytes.len() == 2_000 && bytes.iter().all(|byte| *byte == bytes[0]), "{bytes:?}");
                found += 1;
            }
            if over {
                break;
            }
        }
        assert!(found > 0, "nothing was read");
    });
}
