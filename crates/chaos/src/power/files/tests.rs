//! What lasts, what may be gone, what may be torn.

use super::*;

fn files(calls: &[(usize, usize, Call)]) -> Files {
    let mut files = Files::new(Path::new("/d"));
    for (began, ended, call) in calls {
        files.apply(&Event { began: *began, ended: *ended, at: 0, call: call.clone() }).unwrap();
    }
    files
}

fn open(path: &str, create: bool, fd: i64) -> Call {
    Call::Open { at: None, path: path.to_owned(), create, truncate: false, append: false, fd }
}

fn write(fd: i64, data: &[u8]) -> Call {
    Call::Write { fd, data: data.to_vec() }
}

fn cut(files: &Files) -> Image {
    files.after_power_cut(Memory::Nothing, &mut Chance::new(1, 1))
}

fn file(content: &[u8]) -> Option<Vec<u8>> {
    Some(content.to_vec())
}

#[test]
fn a_name_lasts_when_its_directory_was_synced_and_bytes_when_their_file_was() {
    let mut calls = vec![
        (1, 1, open("/d/a", true, 5)),
        (2, 2, write(5, b"one")),
        (3, 3, Call::Sync { fd: 5 }),
        (4, 4, write(5, b"two")),
    ];
    assert_eq!(cut(&files(&calls)), Image::new(), "the directory was not synced");
    calls.extend([(5, 5, open("/d", false, 6)), (6, 6, Call::Sync { fd: 6 })]);
    assert_eq!(cut(&files(&calls)), Image::from([("a".to_owned(), file(b"one"))]));
    assert_eq!(files(&calls).seen(), Image::from([("a".to_owned(), file(b"onetwo"))]));
    // Gone, but not for certain.
    calls.push((7, 7, Call::Remove { at: None, path: "/d/a".to_owned() }));
    assert_eq!(cut(&files(&calls)), Image::from([("a".to_owned(), file(b"one"))]));
    assert_eq!(files(&calls).seen(), Image::new());
}

#[test]
fn a_sync_covers_what_had_ended_before_it_began() {
    let calls = [
        (1, 1, open("/d/a", true, 5)),
        (1, 1, open("/d", false, 6)),
        (2, 2, Call::Sync { fd: 6 }),
        (3, 3, write(5, b"before")),
        (4, 6, write(5, b"beside")),
        (5, 7, Call::Sync { fd: 5 }),
    ];
    assert_eq!(cut(&files(&calls)), Image::from([("a".to_owned(), file(b"before"))]));
}

#[test]
fn a_rename_is_there_whole_or_not_and_links_share_their_bytes() {
    let calls = [
        (1, 1, Call::MakeDir { at: None, path: "/d/x".to_owned() }),
        (2, 2, open("/d/x/new", true, 5)),
        (3, 3, write(5, b"v2")),
        (4, 4, Call::Sync { fd: 5 }),
        (5, 5, open("/d/x/old", true, 7)),
        (6, 6, open("/d/x", false, 6)),
        (7, 7, Call::Sync { fd: 6 }),
        (8, 8, open("/d", false, 8)),
        (9, 9, Call::Sync { fd: 8 }),
        (10, 10, Call::Rename { at: None, from: "/d/x/new".to_owned(), to_at: None, to: "/d/x/old".to_owned() }),
        (11, 11, Call::Link { at: None, from: "/d/x/old".to_owned(), to_at: None, to: "/d/link".to_owned() }),
    ];
    let (before, after) = (files(&calls), files(&calls).seen());
    let old = Image::from([("x".to_owned(), None), ("x/new".to_owned(), file(b"v2")), ("x/old".to_owned(), file(b""))]);
    assert_eq!(cut(&before), old);
    let new =
        Image::from([("x".to_owned(), None), ("x/old".to_owned(), file(b"v2")), ("link".to_owned(), file(b"v2"))]);
    assert_eq!(after, new);
    let mut chance = Chance::new(3, 3);
    for _ in 0..50 {
        let drawn = before.after_power_cut(Memory::Prefix, &mut chance);
        let renamed = !drawn.contains_key("x/new");
        assert_eq!(drawn.get("x/old"), Some(&file(if renamed { b"v2" } else { b"" })));
    }
}

#[test]
fn every_torn_state_is_a_prefix_and_any_leaves_holes() {
    let calls = [
        (1, 1, open("/d/a", true, 5)),
        (1, 1, open("/d", false, 6)),
        (2, 2, Call::Sync { fd: 6 }),
        (3, 3, write(5, b"aaaa")),
        (4, 4, write(5, b"bbbb")),
        (5, 5, write(5, b"cccc")),
    ];
    let files = files(&calls);
    let (mut chance, mut lengths, mut holes) = (Chance::new(5, 5), BTreeSet::new(), 0);
    for _ in 0..400 {
        let prefix = files.after_power_cut(Memory::Torn, &mut chance)["a"].clone().unwrap();
        assert!(b"aaaabbbbcccc".starts_with(&prefix), "{prefix:?}");
        lengths.insert(prefix.len());
        let whole = files.after_power_cut(Memory::Prefix, &mut chance)["a"].clone().unwrap();
        assert!(whole.len().is_multiple_of(4), "torn inside a sector: {whole:?}");
        let any = files.after_power_cut(Memory::Any, &mut chance)["a"].clone().unwrap();
        holes += usize::from(any.starts_with(&[0; 4]));
    }
    assert_eq!(lengths, (0..=12).collect());
    assert!(holes > 20, "{holes}");
}
