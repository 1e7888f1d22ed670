//! Forged fragments, a thousand generated cases of each kind: each is refused by name, and the disk is as it was.

use std::collections::BTreeMap;

use raftgrid_blob::coding::Coding;
use raftgrid_blob::file_number;
use sha2::{Digest, Sha256};

use super::*;
use crate::bed::{file_of, fragments, holders, some_bytes, some_coding, Bed, Rng, Stored};

const CASES: u64 = 1_000;
/// Cases of one kind that meet the same artifact.
const CASES_AN_ARTIFACT: u64 = 50;

/// What a peer sends.
struct Forged {
    announced: Announced,
    bytes: Vec<u8>,
}

impl Forged {
    /// As `node` should get it.
    fn good(stored: &Stored, coding: Coding, node: u64) -> Self {
        let number = file_of(&stored.row, node).unwrap();
        Self::of(stored, number, fragments(&stored.bytes, coding).swap_remove(fragment_of(number) as usize))
    }

    /// These bytes, with the SHA-256 that they have.
    fn of(stored: &Stored, number: u32, bytes: Vec<u8>) -> Self {
        let digest = Sha256::digest(&bytes).into();
        let artifact_id = stored.row.artifact_id;
        Self { announced: Announced { artifact_id, number, total_bytes: bytes.len() as u64, digest }, bytes }
    }
}

fn send(to: &Artifacts, forged: &Forged) -> Result<(), CallError> {
    let mut arriving = Box::new(Arriving::begin(to, forged.announced)?);
    forged.bytes.chunks(70_001).try_for_each(|piece| arriving.write(piece))?;
    arriving.finish()
}

type Make = fn(&mut Rng, &Stored, Coding, u64) -> Forged;

/// Each kind with the words of its refusal.
const KINDS: [(&str, &[&str], Make); 9] = [
    ("other bytes than were announced", &["SHA-256 differs"], other_bytes),
    ("fewer and more bytes than were announced", &["bytes instead of"], other_length),
    ("a digest of its own", &["another SHA-256"], own_digest),
    ("a length of its own", &["bytes, not"], own_length),
    ("a fragment of another artifact", &["another SHA-256", "bytes, not"], other_artifact),
    ("another fragment, parity for data", &["another SHA-256", "bytes, not"], other_index),
    ("a fragment of another code", &["another SHA-256", "bytes, not"], other_code),
    ("a number that there is not", &["and no number"], no_such_number),
    ("an older generation", &["is at generation"], older_generation),
];

fn other_bytes(rng: &mut Rng, stored: &Stored, coding: Coding, node: u64) -> Forged {
    let mut forged = Forged::good(stored, coding, node);
    let at = rng.index(forged.bytes.len());
    forged.bytes[at] ^= 1 << rng.index(8);
    forged
}

fn other_length(rng: &mut Rng, stored: &Stored, coding: Coding, node: u64) -> Forged {
    let mut forged = Forged::good(stored, coding, node);
    if rng.index(2) == 0 {
        forged.bytes.truncate(rng.index(forged.bytes.len()));
    } else {
        let more = 1 + rng.index(70_000);
        forged.bytes.extend(rng.bytes(more));
    }
    forged
}

fn own_digest(rng: &mut Rng, stored: &Stored, coding: Coding, node: u64) -> Forged {
    let Forged { announced, mut bytes } = Forged::good(stored, coding, node);
    let from = rng.index(bytes.len());
    let count = 1 + rng.index(bytes.len() - from);
    let some = rng.bytes(count);
    bytes[from..from + some.len()].copy_from_slice(&some);
    let at = rng.index(bytes.len());
    bytes[at] = !fragments(&stored.bytes, coding)[fragment_of(announced.number) as usize][at];
    Forged::of(stored, announced.number, bytes)
}

fn own_length(rng: &mut Rng, stored: &Stored, coding: Coding, node: u64) -> Forged {
    let forged = other_length(rng, stored, coding, node);
    Forged::of(stored, forged.announced.number, forged.bytes)
}

fn other_artifact(rng: &mut Rng, stored: &Stored, coding: Coding, node: u64) -> Forged {
    let number = file_of(&stored.row, node).unwrap();
    let bytes = if rng.index(2) == 0 { rng.bytes(stored.bytes.len()) } else { some_bytes(rng) };
    let fragment = fragment_of(number) as usize;
    let forged = fragments(&bytes, coding).swap_remove(fragment);
    Forged::of(stored, number, unlike(&fragments(&stored.bytes, coding)[fragment], forged))
}

/// Behind the end of a small artifact every fragment is the same zeros: then it is those twice.
fn unlike(good: &[u8], forged: Vec<u8>) -> Vec<u8> {
    if forged == good {
        [&forged[..], &forged].concat()
    } else {
        forged
    }
}

/// Of plain copies each is the other; they get a part of the whole, or the whole twice.
fn other_index(rng: &mut Rng, stored: &Stored, coding: Coding, node: u64) -> Forged {
    let number = file_of(&stored.row, node).unwrap();
    if coding.is_copies() {
        return Forged::of(stored, number, [&stored.bytes[..], &stored.bytes].concat());
    }
    let others: Vec<usize> = (0..coding.fragments()).filter(|other| *other != fragment_of(number) as usize).collect();
    let good = &fragments(&stored.bytes, coding)[fragment_of(number) as usize];
    let other = fragments(&stored.bytes, coding).swap_remove(*rng.of(&others));
    Forged::of(stored, number, unlike(good, other))
}

fn other_code(rng: &mut Rng, stored: &Stored, coding: Coding, node: u64) -> Forged {
    let number = file_of(&stored.row, node).unwrap();
    let good = &fragments(&stored.bytes, coding)[fragment_of(number) as usize];
    let codes = [(2, 1), (3, 1), (3, 2), (4, 3), (5, 2)].map(|(k, m)| Coding::new(k, m).unwrap());
    let forged = fragments(&stored.bytes, *rng.of(&codes)).swap_remove(rng.index(3));
    Forged::of(stored, number, unlike(good, forged))
}

fn no_such_number(rng: &mut Rng, stored: &Stored, coding: Coding, node: u64) -> Forged {
    let mut forged = Forged::good(stored, coding, node);
    let first = if coding.is_copies() { 1 } else { coding.fragments() };
    forged.announced.number = file_number(stored.row.generation, (first + rng.index(256 - first)) as u32);
    forged
}

fn older_generation(rng: &mut Rng, stored: &Stored, coding: Coding, node: u64) -> Forged {
    let mut forged = Forged::good(stored, coding, node);
    let older = rng.index(stored.row.generation as usize) as u32;
    forged.announced.number = file_number(older, fragment_of(forged.announced.number));
    forged
}

/// An artifact that was coded anew, so that there is an older generation.
fn coded_anew(bed: &Bed, rng: &mut Rng, artifact_id: u64) -> (Stored, Coding) {
    let (coding, nodes) = some_coding(rng);
    let mut stored = bed.store(artifact_id, coding, some_bytes(rng), &nodes);
    stored.row.set_generation(1 + rng.index(1_000) as u32);
    let folders: BTreeMap<u64, _> = nodes.iter().map(|node| (*node, bed.nodes[node].files.clone())).collect();
    for (node, files) in folders {
        let bytes = Forged::good(&stored, coding, node).bytes;
        let mut writer = files.create().unwrap();
        writer.write(&bytes).unwrap();
        writer.finish(None, None).unwrap();
        files.keep(writer, artifact_id, file_of(&stored.row, node).unwrap()).unwrap();
    }
    bed.shown.put(&stored.row);
    (stored, coding)
}

#[test]
fn a_thousand_forged_fragments_of_each_kind_are_refused_by_name_and_change_no_disk() {
    let bed = Bed::new(5);
    let mut artifact_id = 0;
    for (kind, (name, words, make)) in KINDS.iter().enumerate() {
        for artifact in 0..CASES / CASES_AN_ARTIFACT {
            let mut rng = Rng((kind as u64) << 32 | artifact);
            artifact_id += 1;
            let (stored, coding) = coded_anew(&bed, &mut rng, artifact_id);
            let all: Vec<u64> = holders(&stored.row).into_iter().collect();
            let before = bed.files();
            for case in 0..CASES_AN_ARTIFACT {
                let whose = *rng.of(&all);
                let forged = make(&mut rng, &stored, coding, whose);
                // It holds this fragment, another one, or none.
                let to = &bed.nodes[&(1 + rng.index(5) as u64)];
                let said = format!("{name}, artifact {artifact}, case {case}, {coding:?}");
                let why = match send(to, &forged) {
                    Err(CallError::Invalid(why) | CallError::Precondition(why)) => why,
                    other => panic!("{said}: {other:?}"),
                };
                assert!(words.iter().any(|word| why.contains(word)), "{said}: {why}");
            }
            assert!(bed.files() == before, "{name}, artifact {artifact}: a disk has changed");
            for node in all {
                send(&bed.nodes[&node], &Forged::good(&stored, coding, node)).expect("its own is taken");
            }
            assert!(bed.files() == before, "{name}, artifact {artifact}: its own is what was there");
            bed.remove(&stored);
        }
    }
}

#[test]
fn late_fragments_of_what_is_deleted_or_gone_are_refused_and_leave_nothing() {
    let bed = Bed::new(5);
    for case in 0..CASES {
        let mut rng = Rng(case);
        let (coding, nodes) = some_coding(&mut rng);
        let (size, node) = (1 + rng.index(3_000), nodes[0]);
        let mut stored = bed.store(case + 1, coding, rng.bytes(size), &nodes);
        let good = Forged::good(&stored, coding, node);
        let to = &bed.nodes[&node];
        // It began in time, and comes to its end too late.
        let mut arriving = Box::new(Arriving::begin(to, good.announced).expect("in time"));
        arriving.write(&good.bytes).expect("room");
        stored.row.set_state(ArtifactState::ARTIFACT_DELETING);
        bed.shown.put(&stored.row);
        bed.nodes.values().for_each(|node| node.files.remove(stored.row.artifact_id).expect("removed"));
        let refused = |outcome: Result<(), CallError>, words: &str| match outcome {
            Err(CallError::Precondition(why)) => assert!(why.contains(words), "case {case}: {why}"),
            other => panic!("case {case}: {other:?}"),
        };
        refused(arriving.finish(), "is being deleted");
        refused(send(to, &good), "is being deleted");
        bed.remove(&stored);
        bed.shown.remove(stored.row.artifact_id + 1);
        refused(send(to, &good), "does not exist any more");
        assert!(bed.files().is_empty(), "case {case}: {:?}", bed.files().keys());
    }
}

#[test]
fn while_an_upload_or_a_new_code_is_under_way_what_is_known_of_it_counts() {
    let bed = Bed::new(5);
    let coding = Coding::new(2, 1).expect("a code");
    let mut rng = Rng(3);
    let mut stored = bed.store(10, coding, rng.bytes(200_000), &[1, 2, 3]);
    let whole = stored.bytes.clone();
    let mut forged = Forged::good(&stored, coding, 1);
    let to = &bed.nodes[&1];
    // Not applied here: nothing is known.
    forged.announced.artifact_id = 11;
    assert_eq!(send(to, &forged), Ok(()));
    // Begun: which fragments there are, and how long they are.
    stored.row.set_state(ArtifactState::ARTIFACT_BEGUN);
    stored.row.receipts.clear();
    bed.shown.put(&stored.row);
    assert_eq!(send(to, &Forged::of(&stored, 1, forged.bytes.clone())), Ok(()));
    assert!(send(to, &Forged::of(&stored, 1, forged.bytes[1..].to_vec())).is_err(), "shorter");
    assert!(send(to, &Forged::of(&stored, 3, forged.bytes.clone())).is_err(), "a fourth");
    assert_eq!(send(to, &Forged::of(&stored, file_number(1, 1), forged.bytes.clone())), Ok(()), "its commit is behind");
    // Coded anew: no more than the whole, of any code.
    let committed = bed.store(20, coding, whole.clone(), &[1, 2, 3]);
    let longer = [&whole[..], &[0; 64]].concat();
    assert_eq!(send(to, &Forged::of(&committed, file_number(5, 0), whole)), Ok(()));
    assert!(send(to, &Forged::of(&committed, file_number(5, 1), longer)).is_err(), "longer than the whole");
}
