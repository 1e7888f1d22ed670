//! Damage on generated disks: whoever reads gets the right bytes or an error, and what was damaged comes back as it was.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::bed::{file_of, fragments, holders, read_by, some_bytes, some_coding, Bed, Rng, Stored, Unsynced};

const CASES: u64 = 1_000;

/// Menders of all replicas, which have begun to wait for their next reading.
struct Menders {
    each: BTreeMap<u64, Mender>,
    stopped: Receiver<()>,
    _stop: Sender<()>,
}

impl Menders {
    fn new(bed: &Bed) -> Self {
        let (stop, stopped) = bounded(0);
        let mender = |artifacts: &Arc<Artifacts>| {
            let evacuation = Evacuation { artifacts: artifacts.clone(), logger: artifacts.logger.clone() };
            Mender::new(evacuation, bed.hand.clone())
        };
        let each = bed.nodes.iter().map(|(node, artifacts)| (*node, mender(artifacts))).collect();
        let mut menders = Self { each, stopped, _stop: stop };
        menders.look();
        menders
    }

    /// One look of each.
    fn look(&mut self) {
        for (node, mender) in &mut self.each {
            assert!(mender.look(&self.stopped), "replica {node}: {}", mender.said);
        }
    }
}

/// What a disk may do to a file. The file is never what it was.
fn rot(rng: &mut Rng, path: &Path, other: &[u8]) -> &'static str {
    let good = std::fs::read(path).unwrap();
    loop {
        let mut bad = good.clone();
        let end = good.len();
        let from = rng.index(end);
        let to = from + 1 + rng.index(end - from);
        let what = match rng.index(8) {
            0 => {
                bad[from] ^= 1 << rng.index(8);
                "a bit"
            }
            1 => {
                for _ in 0..1 + rng.index(20) {
                    bad[rng.index(end)] ^= 1 << rng.index(8);
                }
                "some bits"
            }
            2 => {
                // The table of checksums, the size, the SHA-256 and the checksum of them are the last bytes.
                bad[end - 1 - rng.index(end.min(56))] ^= 1 << rng.index(8);
                "a bit of the footer"
            }
            3 => {
                bad.truncate(from);
                "cut"
            }
            4 => {
                bad.extend((0..1 + rng.index(5_000)).map(|at| at as u8));
                "longer"
            }
            5 => {
                bad[from..to].fill(0);
                "zeros"
            }
            6 => {
                bad = other.to_vec();
                "another fragment"
            }
            _ => {
                std::fs::remove_file(path).unwrap();
                return "gone";
            }
        };
        if bad != good {
            std::fs::write(path, bad).unwrap();
            return what;
        }
    }
}

/// Damages what `count` of the holders have.
fn rot_some(rng: &mut Rng, bed: &Bed, stored: &Stored, count: usize) -> Vec<(u64, &'static str)> {
    let all: Vec<u64> = holders(&stored.row).into_iter().collect();
    let damaged = rng.some(&all, count);
    let mut rot_one = |node: u64| {
        let forged = a_forgery(rng, stored);
        (node, rot(rng, &bed.path(&stored.row, node), &forged))
    };
    damaged.into_iter().map(&mut rot_one).collect()
}

/// A whole file, of this artifact or of none, that no holder has in its place.
fn a_forgery(rng: &mut Rng, stored: &Stored) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let store =
        raftgrid_blob::FragmentStore::open_on(Arc::new(Unsynced), folder.path(), crate::bed::SPARE_ALL).unwrap();
    let length = stored.row.receipts[0].fragment_bytes.max(1) as usize;
    let length = if rng.index(2) == 0 { length } else { 1 + rng.index(2 * length) };
    let bytes = rng.bytes(length);
    let mut writer = store.create().unwrap();
    writer.write(&bytes).unwrap();
    writer.finish(None, None).unwrap();
    store.keep(writer, 1, 0).unwrap();
    std::fs::read(folder.path().join("1/0")).unwrap()
}

fn is_as_it_was(bed: &Bed, stored: &Stored) -> Result<(), u64> {
    let same = |(node, file): (&u64, &Vec<u8>)| match std::fs::read(bed.path(&stored.row, *node)) {
        Ok(found) if found == *file => Ok(()),
        _ => Err(*node),
    };
    stored.files.iter().try_for_each(same)
}

/// How many of the holders may lose what they have.
fn failures(stored: &Stored) -> usize {
    let needed = code_of(&stored.row).unwrap().map_or(1, |coding| coding.k());
    stored.row.receipts.len() - needed
}

#[test]
fn what_no_more_than_f_disks_damage_is_read_from_each_replica_and_a_scrub_finds_and_restores_it() {
    let bed = Bed::new(5);
    let mut menders = Menders::new(&bed);
    let mut kinds = BTreeMap::new();
    for case in 0..CASES {
        let mut rng = Rng(case);
        let (coding, nodes) = some_coding(&mut rng);
        let stored = bed.store(case + 1, coding, some_bytes(&mut rng), &nodes);
        let count = 1 + rng.index(failures(&stored));
        let damage = rot_some(&mut rng, &bed, &stored, count);
        damage.iter().for_each(|(_, what)| *kinds.entry(*what).or_insert(0) += 1);
        let said = format!("case {case}, {coding:?} of {} bytes on {nodes:?}, {damage:?}", stored.bytes.len());
        assert!(is_as_it_was(&bed, &stored).is_err(), "{said}");
        // Who reads may mend it; half of the cases are left to the scrub.
        if case % 2 == 0 {
            let reader = *rng.of(&[1, 2, 3, 4, 5]);
            let read = read_by(&bed.nodes[&reader], &stored.row);
            assert!(read.as_ref() == Ok(&stored.bytes), "{said}: replica {reader}: {:?}", read.err());
        }
        bed.hand.pass(SCRUB_AGAIN_MS);
        menders.look();
        assert_eq!(is_as_it_was(&bed, &stored), Ok(()), "{said}");
        let reader = *rng.of(&[1, 2, 3, 4, 5]);
        assert!(read_by(&bed.nodes[&reader], &stored.row) == Ok(stored.bytes.clone()), "{said}: {reader} afterwards");
        bed.remove(&stored);
    }
    assert_eq!(kinds.len(), 8, "{kinds:?}");
}

#[test]
fn with_more_than_f_damaged_whoever_reads_gets_the_right_bytes_or_an_error() {
    let bed = Bed::new(5);
    let (mut given, mut refused) = (0, 0);
    for case in 0..CASES {
        let mut rng = Rng(1 << 32 | case);
        let (coding, nodes) = some_coding(&mut rng);
        let stored = bed.store(case + 1, coding, some_bytes(&mut rng), &nodes);
        let beyond = failures(&stored) + 1;
        let count = beyond + rng.index(nodes.len() + 1 - beyond);
        let damage = rot_some(&mut rng, &bed, &stored, count);
        for reader in rng.some(&[1, 2, 3, 4, 5], 2) {
            match read_by(&bed.nodes[&reader], &stored.row) {
                Ok(read) => {
                    assert!(read == stored.bytes, "case {case}, {damage:?}: replica {reader} gives other bytes");
                    given += 1;
                }
                Err(_) => refused += 1,
            }
        }
        bed.remove(&stored);
    }
    assert_eq!((given, refused), (0, 2 * CASES), "fewer than k are whole");
}

#[test]
fn what_f_peers_forge_is_not_believed_and_not_kept() {
    let bed = Bed::new(5);
    for case in 0..CASES {
        let mut rng = Rng(2 << 32 | case);
        let (coding, nodes) = some_coding(&mut rng);
        let stored = bed.store(case + 1, coding, some_bytes(&mut rng), &nodes);
        let count = 1 + rng.index(failures(&stored));
        let liars = rng.some(&nodes, count);
        let others = fragments(&rng.bytes(stored.bytes.len()), coding);
        let mine = fragments(&stored.bytes, coding);
        let lie = |rng: &mut Rng, node: u64| {
            let number = file_of(&stored.row, node).unwrap() as usize;
            let good = &mine[number];
            let next = (number + 1) % mine.len();
            loop {
                let lie = match rng.index(6) {
                    0 => rng.bytes(good.len()),
                    1 => others[number].clone(),
                    2 => mine[next].clone(),
                    3 => good[..rng.index(good.len())].to_vec(),
                    4 => [&good[..], &stored.bytes[..1 + rng.index(stored.bytes.len())]].concat(),
                    _ => stored.bytes.clone(),
                };
                if lie != *good {
                    return (node, lie);
                }
                // Of plain copies each is the other.
            }
        };
        bed.lie(liars.iter().map(|node| lie(&mut rng, *node)).collect());
        let honest: Vec<u64> = (1..=5).filter(|node| !liars.contains(node)).collect();
        let reader = *rng.of(&honest);
        let read = read_by(&bed.nodes[&reader], &stored.row);
        let said = format!("case {case}, {coding:?} on {nodes:?}, {liars:?} lie: replica {reader}");
        assert!(read.as_ref() == Ok(&stored.bytes), "{said}: {:?}", read.err());
        for (path, file) in bed.files() {
            assert!(stored.files.values().any(|good| *good == file), "{said} keeps {}", path.display());
        }
        bed.lie(BTreeMap::new());
        bed.remove(&stored);
    }
}

#[test]
fn what_a_peer_finds_damaged_is_restored_at_the_next_look() {
    let bed = Bed::new(5);
    let mut menders = Menders::new(&bed);
    let mut rng = Rng(7);
    for case in 0..100 {
        let coding = raftgrid_blob::coding::Coding::new(2, 1).unwrap();
        let stored = bed.store(case + 1, coding, rng.bytes(300_000), &[1, 2, 3]);
        // The footer stays whole: only who reads the bytes notices. Replica 5 reads the data fragments.
        let path = bed.path(&stored.row, 1);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[rng.index(140_000)] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        menders.look();
        assert_eq!(is_as_it_was(&bed, &stored), Err(1), "nobody has read it");
        assert!(read_by(&bed.nodes[&5], &stored.row) == Ok(stored.bytes.clone()));
        menders.look();
        assert_eq!(is_as_it_was(&bed, &stored), Ok(()), "case {case}");
        bed.remove(&stored);
    }
}
