//! The store of fragments on a disk that loses power: what was kept is there, and no name ever has another's bytes, though every file is written
//! over again and again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use raftgrid_blob::{BlobError, FragmentStore, SpareLimits};
use raftgrid_simulator::disk::Crash;
use raftgrid_simulator::{Rng, SimDisk};

const ROOT: &str = "/blobs";
const STORIES: u64 = 3_000;
const CHANGES_MAX: u64 = 120;

/// Bytes that say whose they are.
fn bytes_of(artifact_id: u64) -> Vec<u8> {
    artifact_id.to_le_bytes().repeat(20 + artifact_id as usize % 3)
}

fn open(disk: &SimDisk) -> Result<FragmentStore, BlobError> {
    let spare = SpareLimits { file_bytes_min: 1, bytes_max: 10_000 };
    FragmentStore::open_on(Arc::new(disk.reopened()), Path::new(ROOT), spare)
}

/// What is known of an artifact: keeping it was begun, it is kept, removing it was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Begun,
    Kept,
    Removed,
}

/// Until the process dies in the middle of something.
fn live(
    store: &FragmentStore,
    rng: &mut Rng,
    known: &mut BTreeMap<u64, Known>,
    next: &mut u64,
) -> Result<(), BlobError> {
    loop {
        let kept: Vec<u64> = known.iter().filter(|(_, it)| **it == Known::Kept).map(|(id, _)| *id).collect();
        match kept.is_empty() || (kept.len() < 6 && rng.chance(500)) {
            true => {
                *next += 1;
                let (id, bytes) = (*next, bytes_of(*next));
                known.insert(id, Known::Begun);
                let mut writer = store.create_for(bytes.len() as u64)?;
                writer.write(&bytes)?;
                writer.finish(Some(bytes.len() as u64), None)?;
                store.keep(writer, id, 0)?;
                known.insert(id, Known::Kept);
            }
            false => {
                let id = kept[rng.below(kept.len() as u64) as usize];
                known.insert(id, Known::Removed);
                store.remove(id)?;
            }
        }
    }
}

#[test]
fn what_was_kept_outlives_a_loss_of_power_and_no_name_has_anothers_bytes() {
    let (mut crashes, mut lost, mut there_again) = (0, 0, 0);
    for story in 0..STORIES {
        let mut rng = Rng::new(story);
        let disk = SimDisk::new(rng.split());
        let mut known = BTreeMap::new();
        let mut next = 0;
        for _ in 0..4 {
            let Ok(store) = open(&disk) else { continue };
            disk.set_fuse(Some(1 + rng.below(CHANGES_MAX)));
            assert!(live(&store, &mut rng, &mut known, &mut next).is_err());
            crashes += 1;
            disk.crash(if rng.chance(700) { Crash::Power } else { Crash::Process });
            let store = open(&disk).expect("it opens");
            for (id, known) in &mut known {
                let read = store.open_fragment(*id, 0).and_then(|reader| reader.read_all());
                match (*known, read) {
                    (_, Ok(bytes)) => {
                        assert_eq!(bytes, bytes_of(*id), "story {story}: artifact {id}, {known:?}");
                        there_again += u64::from(*known == Known::Removed);
                    }
                    (Known::Kept, Err(error)) => panic!("story {story}: artifact {id} was kept: {error}"),
                    // Not there, or whole: a name that has anything else was given before its bytes were durable, or taken away after.
                    (_, Err(BlobError::NotFound { .. })) => lost += 1,
                    (_, Err(error)) => panic!("story {story}: artifact {id}, {known:?}: {error}"),
                }
            }
            // As the janitor and the end of an upload do.
            known.retain(|id, it| *it == Known::Kept || store.remove(*id).is_err());
        }
    }
    assert!(crashes > 2 * STORIES && lost > 100 && there_again > 10, "{crashes} {lost} {there_again}");
}
