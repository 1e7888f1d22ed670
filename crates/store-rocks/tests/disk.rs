//! What the store relies on in RocksDB and the file system, each for itself.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use raftgrid_store::disk::{Batch, DbRead, Direction, LogDb, StateDb};
use raftgrid_store::{Disk, DiskErrorKind};
use raftgrid_store_rocks::RocksDisk;

fn keys(db: &impl DbRead, from: &[u8], to: &[u8], direction: Direction) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    db.scan(from, to, direction, &mut |key, _| {
        out.push(key.to_vec());
        true
    })
    .unwrap();
    out
}

fn put(key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::default();
    batch.put(key, value);
    batch
}

#[test]
fn later_steps_of_a_batch_win_over_earlier_ones() {
    let dir = tempfile::tempdir().unwrap();
    let db = RocksDisk::new().open_log(&dir.path().join("log")).unwrap();
    for key in [b"a", b"b", b"c", b"d"] {
        db.write(&put(key, b"old")).unwrap();
    }
    let mut batch = Batch::default();
    batch.delete_range(*b"a", *b"d");
    batch.put(*b"b", *b"new");
    batch.put(*b"x", *b"gone");
    batch.delete(*b"x");
    db.write(&batch).unwrap();
    assert_eq!(keys(&db, b"a", b"z", Direction::Up), [b"b", b"d"]);
    assert_eq!(keys(&db, b"a", b"z", Direction::Down), [b"d", b"b"]);
    assert_eq!(keys(&db, b"b", b"d", Direction::Down), [b"b"]);
    assert_eq!(keys(&db, b"d", b"b", Direction::Up), Vec::<Vec<u8>>::new());
    assert_eq!(db.get(b"b").unwrap().as_deref(), Some(&b"new"[..]));
}

#[test]
fn tables_without_a_flush_are_not_persisted_and_a_view_stands_still() {
    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(RocksDisk::new().open_state(&dir.path().join("state")).unwrap());
    db.write(&put(b"k", b"1")).unwrap();
    assert_eq!(db.get_persisted(b"k").unwrap(), None);
    db.flush(true).unwrap();
    db.write(&put(b"k", b"2")).unwrap();
    let view = db.view();
    db.write(&put(b"k", b"3")).unwrap();
    assert_eq!(db.get_persisted(b"k").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(db.get(b"k").unwrap().as_deref(), Some(&b"3"[..]));
    drop(db);
    // The view alone keeps the database open.
    assert_eq!(view.get(b"k").unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn looking_at_a_checkpoint_leaves_no_trace_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RocksDisk::new();
    let db = disk.open_state(&dir.path().join("state")).unwrap();
    db.write(&put(b"k", b"1")).unwrap();
    let copy = dir.path().join("copy");
    db.checkpoint(&copy).unwrap();
    db.write(&put(b"k", b"2")).unwrap();
    let before = disk.list(&copy).unwrap();
    assert!(!before.is_empty());
    for _ in 0..2 {
        let rows = disk.peek_state(&copy, &[b"k", b"none"]).unwrap();
        assert_eq!(rows, [Some(b"1".to_vec()), None]);
        disk.verify_state(&copy).unwrap();
    }
    assert_eq!(disk.list(&copy).unwrap(), before);
}

#[test]
fn failures_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RocksDisk::new();
    let log = dir.path().join("log");
    let open = disk.open_log(&log).unwrap();
    assert_eq!(disk.open_log(&log).map(drop).unwrap_err().kind, DiskErrorKind::Locked);
    drop(open);
    fs::write(log.join("CURRENT"), "nonsense").unwrap();
    assert_eq!(disk.open_log(&log).map(drop).unwrap_err().kind, DiskErrorKind::Corrupted);
    let none = dir.path().join("none");
    assert_eq!(disk.peek_state(&none, &[]).unwrap_err().kind, DiskErrorKind::Missing);
    assert_eq!(disk.sync_dir(&none).unwrap_err().kind, DiskErrorKind::Missing);
    assert_eq!(disk.read(&none).unwrap(), None);
    assert_eq!(disk.list(&none).unwrap(), []);
    disk.remove_dir(&none).unwrap();
    disk.remove_file(&none).unwrap();
}

#[test]
fn files_are_written_in_place_and_ballast_really_occupies_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RocksDisk::new();
    let file = dir.path().join("file");
    disk.write_at(&file, 0, b"0123456789").unwrap();
    disk.write_at(&file, 3, b"abc").unwrap();
    assert_eq!(disk.read(&file).unwrap().as_deref(), Some(&b"012abc6789"[..]));
    assert_eq!(disk.read_at(&file, 8, 100).unwrap(), b"89");
    assert_eq!(disk.read_at(&file, 80, 100).unwrap(), b"");
    disk.allocate(&file, 1 << 20).unwrap();
    let about = fs::metadata(&file).unwrap();
    assert!(about.len() == 1 << 20 && about.blocks() * 512 >= 1 << 20);
    assert!(disk.free_bytes(dir.path()).unwrap() > 0);
    assert_ne!(disk.nonce(), disk.nonce());
}
