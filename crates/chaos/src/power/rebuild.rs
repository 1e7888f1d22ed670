//! Cuts the power at many points of a recorded run.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use crate::chance::Chance;
use crate::power::boot::{boot, lay_out, scratch, Ack, Booted};
use crate::power::files::{Files, Memory};
use crate::power::record::Recording;
use crate::power::trace::Call;
use crate::power::Boots;

/// At so many points, each with one draw of what is remembered. What went wrong is kept under `keep`.
pub fn rebuild(recording: &Recording, points: usize, seed: u64, keep: &Path) -> Result<Vec<Boots>> {
    let mut results = [
        (Memory::Nothing, Boots::new("power cut, nothing unsynced remembered")),
        (Memory::Prefix, Boots::new("power cut, first changes remembered, torn between sectors")),
        (Memory::Any, Boots::new("power cut, any changes remembered, torn between sectors")),
        (Memory::Torn, Boots::new("power cut, first changes remembered, torn inside a sector")),
    ];
    let chance = &mut Chance::new(seed, 700);
    let memory = scratch()?;
    let total: usize = recording.lives.iter().map(Vec::len).sum();
    let wanted = choose(recording, points, total, chance)?;
    let mut files = Files::new(&recording.data_dir);
    let mut number = 0;
    for life in &recording.lives {
        for (at, event) in life.iter().enumerate() {
            files.apply(event)?;
            number += 1;
            if !wanted.contains(&number) {
                continue;
            }
            // The next line was written later than this time; what was answered before it had happened before this cut.
            let Some(before) = life.get(at + 1).map(|next| next.at) else { continue };
            let due: Vec<Ack> = recording.acks.iter().take_while(|ack| ack.at < before).cloned().collect();
            let dir = memory.path().join("replica");
            for (kind, result) in &mut results {
                let image = files.after_power_cut(*kind, chance);
                lay_out(&image, &dir)?;
                let booted = boot(&dir, &recording.cluster_id, &due);
                let what = format!("event {number} of {total}, {} acknowledged, {event:.80?}", due.len());
                let fine = matches!(booted, Ok(Booted::Whole));
                // Holes, and sectors that are neither old nor new, are damage like any other: no trust, but no silence either.
                result.note(&what, booted, matches!(kind, Memory::Any | Memory::Torn));
                if !fine && result.wrong.len() == 1 {
                    lay_out(&image, &keep.join(format!("cut-{number}-{kind:?}")))?;
                }
                std::fs::remove_dir_all(&dir)?;
            }
        }
        files.process_ended();
    }
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// The same with fsyncs struck from the record, of files or of directories: losses must show, or the rebuilding proves nothing. What it
/// misses is told.
pub fn blind(recording: &Recording, points: usize, seed: u64) -> Result<Boots> {
    let mut result = Boots::new("self-test: fsyncs struck from the record");
    let memory = scratch()?;
    for directories in [false, true] {
        let chance = &mut Chance::new(seed, 701);
        let total: usize = recording.lives.iter().map(Vec::len).sum();
        let wanted = choose(recording, points, total, chance)?;
        let mut files = Files::new(&recording.data_dir);
        let (mut number, mut losses) = (0, 0);
        for life in &recording.lives {
            for (at, event) in life.iter().enumerate() {
                number += 1;
                let struck = matches!(event.call, Call::Sync { fd } if files.is_directory(fd) == Some(directories));
                if !struck {
                    files.apply(event)?;
                }
                let Some(before) = life.get(at + 1).map(|next| next.at) else { continue };
                let due: Vec<Ack> = recording.acks.iter().take_while(|ack| ack.at < before).cloned().collect();
                if !wanted.contains(&number) || due.is_empty() {
                    continue;
                }
                let dir = memory.path().join("replica");
                lay_out(&files.after_power_cut(Memory::Nothing, chance), &dir)?;
                losses += usize::from(!matches!(boot(&dir, &recording.cluster_id, &due), Ok(Booted::Whole)));
                result.boots += 1;
                std::fs::remove_dir_all(&dir)?;
            }
            files.process_ended();
        }
        if losses == 0 {
            let what = if directories { "directories" } else { "files" };
            result.wrong.push(format!("no loss shows without any fsync of {what}"));
        }
        result.refused += losses;
    }
    result.recovered = result.boots - result.refused;
    Ok(result)
}

/// Which events: those that concern the tree, half of them right before a sync ends or a name changes, where it matters most.
fn choose(recording: &Recording, points: usize, total: usize, chance: &mut Chance) -> Result<BTreeSet<usize>> {
    let mut files = Files::new(&recording.data_dir);
    let mut concern = Vec::new();
    let mut number = 0;
    for life in &recording.lives {
        for event in life {
            number += 1;
            if files.apply(event)? {
                concern.push(number);
            }
        }
        files.process_ended();
    }
    let mut wanted = BTreeSet::new();
    while wanted.len() < points.min(concern.len()) {
        wanted.insert(*chance.pick(&concern));
    }
    debug_assert!(wanted.iter().all(|at| *at <= total));
    Ok(wanted)
}
