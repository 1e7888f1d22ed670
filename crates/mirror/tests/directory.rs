//! A mirror in a directory.

mod world;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::Arc;

use raftgrid_mirror::limits::{PART_BYTES, ROWS_AT_ONCE};
use raftgrid_mirror::{Address, Artifact, Config, Mirror, Reach, Seen};
use raftgrid_telemetry::{silent, Registry};
use sha2::{Digest, Sha256};
use world::{value, wait_for, Fake, Mood, World};

fn config(folder: &Path) -> Config {
    Config {
        address: Address::Directory(folder.to_owned()),
        reach: Reach::default(),
        cluster_id: "test-00ff".to_owned(),
        node: 1,
        bytes_per_second: 0,
        without_kinds: vec!["gradient".to_owned()],
    }
}

fn started(world: &Arc<World>, folder: &Path) -> (Mirror, Registry) {
    let registry = Registry::new();
    let mirror = Mirror::start(config(folder), Box::new(Fake(world.clone())), &registry, &silent());
    (mirror.expect("threads can be started"), registry)
}

/// Every file below the folder, from there on.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(at) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder.join(&at)) else { continue };
        for entry in entries.flatten() {
            let path = at.join(entry.file_name());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else {
                found.push(path.to_str().expect("names are text").to_owned());
            }
        }
    }
    found.sort();
    found
}

fn blob(digest: &[u8; 32]) -> String {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("test-00ff/blobs/{hex}")
}

/// Each file of `blobs` is what its name says, and each pointer names one that is there. How many pointers there are.
fn whole(folder: &Path) -> usize {
    let found = files(folder);
    let mut pointers = 0;
    for name in &found {
        if let Some(wanted) = name.strip_prefix("test-00ff/blobs/").filter(|name| !name.contains('#')) {
            let digest = Sha256::digest(std::fs::read(folder.join(name)).unwrap());
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, wanted, "an object is not what its name says");
        } else if name.ends_with(".json") {
            let text = std::fs::read(folder.join(name)).unwrap();
            let pointer: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let object = folder.join("test-00ff").join(pointer["object"].as_str().unwrap());
            assert_eq!(std::fs::metadata(object).unwrap().len(), pointer["total_bytes"], "{name} points to nothing");
            pointers += 1;
        }
    }
    pointers
}

#[test]
fn what_is_committed_arrives_once_and_what_is_not_wanted_or_gone_stays_away() {
    let (world, folder) = (World::leading(), tempfile::tempdir().unwrap());
    let large = world.add(10, "digits/best", "file", 2 * PART_BYTES as usize + 4_321, Mood::Good);
    let empty = world.add(11, "", "state", 0, Mood::Good);
    world.add(12, "", "gradient", 50, Mood::Good);
    world.rows.lock().unwrap().insert(13, Seen::Gone);
    world.rows.lock().unwrap().insert(14, Seen::Begun);
    let (mirror, registry) = started(&world, folder.path());
    let there = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        wait_for("the objects", || (files(folder.path()) == names).then_some(()));
    };
    let mut names = vec![
        blob(&large),
        blob(&empty),
        "test-00ff/names/digits/best/@10.json".to_owned(),
        "test-00ff/unnamed/state/@11.json".to_owned(),
    ];
    there(&names);
    // The upload ends; its content is there by another name.
    let bytes = world.bodies.lock().unwrap()[&10].clone();
    let Seen::Committed(first) = world.row_of(10) else { panic!("it is committed") };
    world.bodies.lock().unwrap().insert(14, bytes);
    let second = Seen::Committed(Artifact { artifact_id: 14, name: "again".to_owned(), ..first });
    world.rows.lock().unwrap().insert(14, second);
    names.push("test-00ff/names/again/@14.json".to_owned());
    there(&names);
    assert_eq!(world.reads.load(Ordering::SeqCst), 2, "the same bytes are not sent again");
    assert_eq!(whole(folder.path()), 3);
    assert_eq!(value(&registry, "raftgrid_mirror_artifacts_total{outcome=\"sent\"}"), 3.0);
    wait_for("nothing that waits", || (value(&registry, "raftgrid_mirror_pending_count") == 0.0).then_some(()));
    drop(mirror);
    // Another one finds it all there; what was deleted from the cluster stays.
    world.rows.lock().unwrap().remove(&11);
    let (_mirror, registry) = started(&world, folder.path());
    wait_for("its questions", || {
        (value(&registry, "raftgrid_mirror_artifacts_total{outcome=\"found\"}") == 2.0).then_some(())
    });
    assert_eq!(value(&registry, "raftgrid_mirror_sent_bytes_total"), 0.0);
    there(&names);
}

#[test]
fn what_breaks_off_or_is_not_the_artifact_is_never_seen_and_keeps_nobody_waiting() {
    let (world, folder) = (World::leading(), tempfile::tempdir().unwrap());
    let three_parts = 2 * PART_BYTES as usize + 5;
    world.add(1, "broken", "file", three_parts, Mood::BreaksAt(PART_BYTES));
    world.add(2, "wrong", "file", three_parts, Mood::Wrong);
    world.add(3, "wrong-and-small", "file", 100, Mood::Wrong);
    let good = world.add(4, "good", "file", three_parts, Mood::Good);
    let (_mirror, registry) = started(&world, folder.path());
    let only_good = vec![blob(&good), "test-00ff/names/good/@4.json".to_owned()];
    wait_for("the good one", || (files(folder.path()) == only_good).then_some(()));
    assert_eq!(value(&registry, "raftgrid_mirror_pending_count"), 3.0);
    // Each is tried again, and is not seen then either.
    let failed = "raftgrid_mirror_artifacts_total{outcome=\"failed\"}";
    wait_for("more tries", || {
        assert!(whole(folder.path()) <= 1, "one that failed has a pointer");
        (value(&registry, failed) >= 6.0).then_some(())
    });
    assert!(value(&registry, "raftgrid_mirror_failed_bytes_total") >= (4 * three_parts + 200) as f64);
    assert_eq!(value(&registry, "raftgrid_mirror_failing_state"), 1.0);
    for artifact_id in 1..=3 {
        world.mood(artifact_id, Mood::Good);
    }
    wait_for("all of them", || (value(&registry, "raftgrid_mirror_pending_count") == 0.0).then_some(()));
    assert_eq!(whole(folder.path()), 4);
    assert!(files(folder.path()).iter().all(|name| !name.contains('#')), "a half upload is left");
}

#[test]
fn a_leader_that_was_deposed_sends_no_further_part_and_the_next_one_begins_anew() {
    let (world, folder) = (World::leading(), tempfile::tempdir().unwrap());
    let digest = world.add(1, "model", "model", 3 * PART_BYTES as usize, Mood::WaitsAt(2 * PART_BYTES));
    let (first, registry) = started(&world, folder.path());
    wait_for("two parts", || world.waits.load(Ordering::SeqCst).then_some(()));
    assert_eq!(value(&registry, "raftgrid_mirror_sent_bytes_total"), 2.0 * PART_BYTES as f64);
    assert_eq!(files(folder.path()), vec![format!("{}#1", blob(&digest))], "half of it is there, under no name");
    world.leads.store(false, Ordering::SeqCst);
    world.mood(1, Mood::Good);
    wait_for("the end of the upload", || files(folder.path()).is_empty().then_some(()));
    assert_eq!(value(&registry, "raftgrid_mirror_sent_bytes_total"), 2.0 * PART_BYTES as f64);
    drop(first);
    // A leader that was killed left half a file.
    let half = folder.path().join(format!("{}#1", blob(&digest)));
    std::fs::write(&half, b"half").unwrap();
    world.leads.store(true, Ordering::SeqCst);
    let (_next, registry) = started(&world, folder.path());
    let all = vec![blob(&digest), "test-00ff/names/model/@1.json".to_owned()];
    wait_for("the artifact", || (files(folder.path()) == all).then_some(()));
    assert_eq!((whole(folder.path()), value(&registry, "raftgrid_mirror_uploads_aborted_total")), (1, 1.0));
}

#[test]
fn a_directory_that_is_gone_is_not_made_again_and_all_arrives_when_it_is_back() {
    let (world, parent) = (World::leading(), tempfile::tempdir().unwrap());
    let folder = parent.path().join("disk");
    let first = world.add(1, "first", "file", 1_000, Mood::Good);
    let (_mirror, registry) = started(&world, &folder);
    let failing = || value(&registry, "raftgrid_mirror_failing_state") == 1.0;
    wait_for("a failure", || failing().then_some(()));
    assert!(!folder.exists(), "a disk that is not mounted was written beside");
    std::fs::create_dir(&folder).unwrap();
    wait_for("the first", || folder.join(blob(&first)).exists().then_some(()));
    wait_for("success", || (!failing()).then_some(()));
    std::fs::rename(&folder, parent.path().join("away")).unwrap();
    let second = world.add(2, "second", "file", 1_000, Mood::Good);
    wait_for("a failure", || failing().then_some(()));
    assert!(!folder.exists(), "a disk that is not mounted was written beside");
    assert_eq!(value(&registry, "raftgrid_mirror_pending_bytes"), 1_000.0);
    std::fs::rename(parent.path().join("away"), &folder).unwrap();
    wait_for("the second", || folder.join(blob(&second)).exists().then_some(()));
    wait_for("its pointer", || (whole(&folder) == 2).then_some(()));
}

#[test]
fn more_rows_than_are_read_at_once_and_names_that_nobody_should_have_all_stay_below_the_cluster_s_folder() {
    let (world, parent) = (World::leading(), tempfile::tempdir().unwrap());
    let folder = parent.path().join("mirror");
    std::fs::create_dir(&folder).unwrap();
    let names =
        ["../../out", "..", "/etc/passwd", "a//b", "a/./b", "%2e%2e/%2e%2e/out", "x#1", "a\\b", "ä/ö", "a", "a/b"];
    for (at, name) in names.iter().enumerate() {
        world.add(at as u64 + 1, name, "file", 10, Mood::Good);
    }
    let rows = ROWS_AT_ONCE as u64 + 3;
    for artifact_id in 100..100 + rows {
        // Of one content, so that it is sent once.
        world.add(artifact_id, "", "file", 0, Mood::Good);
    }
    let (_mirror, registry) = started(&world, &folder);
    wait_for("all of them", || {
        let sent = value(&registry, "raftgrid_mirror_artifacts_total{outcome=\"sent\"}");
        (sent == (rows + names.len() as u64) as f64).then_some(())
    });
    assert_eq!(whole(&folder) as u64, rows + names.len() as u64);
    let outside: Vec<String> =
        files(parent.path()).into_iter().filter(|name| !name.starts_with("mirror/test-00ff/")).collect();
    assert_eq!(outside, Vec::<String>::new());
}
