//! Damages what a run left: cuts the end of the log byte by byte, flips bits everywhere. Recover to the last acknowledged write, or refuse
//! loudly; never anything else.

use std::path::Path;

use anyhow::{Context, Result};

use crate::chance::Chance;
use crate::power::boot::{boot, lay_out, scratch};
use crate::power::files::Image;
use crate::power::record::Recording;
use crate::power::Boots;

/// Bytes at the end of the log's files that are cut off one by one.
const TAIL_BYTES: usize = 4_096;

/// Whether a path of the data directory is one of a kind.
type OfKind = fn(&str) -> bool;

fn is_write_ahead_log(path: &str) -> bool {
    path.starts_with("log/") && path.ends_with(".log")
}

/// Content of a file of the image.
fn content<'a>(image: &'a Image, path: &str) -> Result<&'a Vec<u8>> {
    image.get(path).and_then(Option::as_ref).with_context(|| format!("{path} is no file of the run"))
}

/// Cuts each write-ahead file of the log after every `step`th byte of its last 4 KiB.
pub fn torn_tail(recording: &Recording, step: usize, keep: &Path) -> Result<Vec<Boots>> {
    let mut all = Vec::new();
    for path in recording.left.keys().filter(|path| is_write_ahead_log(path)) {
        let bytes = content(&recording.left, path)?;
        let mut result = Boots::new(format!("tail of {path} cut"));
        for cut in (1..=TAIL_BYTES.min(bytes.len())).step_by(step.max(1)) {
            let mut image = recording.left.clone();
            image.insert(path.clone(), Some(bytes[..bytes.len() - cut].to_vec()));
            attempt(recording, &image, &format!("{path} without its last {cut} bytes"), keep, &mut result)?;
        }
        all.push(result);
    }
    Ok(all)
}

/// Flips so many bits, one at a time, in files of each kind.
pub fn bit_flips(recording: &Recording, flips: usize, seed: u64, keep: &Path) -> Result<Vec<Boots>> {
    let kinds: [(&str, OfKind); 4] = [
        ("write-ahead files", is_write_ahead_log),
        ("other files of the log", |path| path.starts_with("log/") && !is_write_ahead_log(path)),
        ("state tables", |path| path.starts_with("state-")),
        ("snapshots, identity, mark", |path| path.starts_with("snapshots/") || matches!(path, "identity" | "synced")),
    ];
    let chance = &mut Chance::new(seed, 800);
    let mut all = Vec::new();
    for (name, of_kind) in kinds {
        let mut result = Boots::new(format!("a bit flipped in {name}"));
        let filled = |path: &&String| content(&recording.left, path).is_ok_and(|bytes| !bytes.is_empty());
        let paths: Vec<&String> = recording.left.keys().filter(|path| of_kind(path)).filter(filled).collect();
        for _ in 0..if paths.is_empty() { 0 } else { flips } {
            let path = *chance.pick(&paths);
            let mut bytes = content(&recording.left, path)?.clone();
            let at = chance.below(bytes.len() as u64) as usize;
            let bit = chance.below(8);
            bytes[at] ^= 1 << bit;
            let mut image = recording.left.clone();
            image.insert(path.clone(), Some(bytes));
            attempt(recording, &image, &format!("{path}, byte {at}, bit {bit}"), keep, &mut result)?;
        }
        all.push(result);
    }
    Ok(all)
}

fn attempt(recording: &Recording, image: &Image, what: &str, keep: &Path, result: &mut Boots) -> Result<()> {
    let memory = scratch()?;
    let dir = memory.path().join("replica");
    lay_out(image, &dir)?;
    let booted = boot(&dir, &recording.cluster_id, &recording.acks);
    let wrong = booted.is_err();
    result.note(what, booted, true);
    if wrong && result.wrong.len() == 1 {
        lay_out(image, &keep.join(format!("damage-{}", result.boots)))?;
    }
    Ok(())
}
