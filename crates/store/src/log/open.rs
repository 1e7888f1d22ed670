//! Founding a log and loading one at boot.

use raftgrid_driver::{HardState, Index, Term};

use crate::disk::{Batch, Direction, DiskResult, LogDb};
use crate::layout::parse_state;
use crate::log::records::{
    decode_base, decode_entry, decode_hard_state, decode_position, decode_term, encode_base, encode_hard_state,
    encode_position, entry_key, key_index, run_key, Base, BASE, ENTRY_END, HARD_STATE, RUN_END, TRUNCATED,
};
use crate::log::window::Window;

/// The base of a log; None when it was never founded. The inner error says what does not decode.
pub(crate) fn read_base(db: &impl LogDb) -> DiskResult<Result<Option<Base>, String>> {
    let Some(value) = db.get(BASE)? else {
        return Ok(Ok(None));
    };
    let base = decode_base(&value).filter(|base| parse_state(&base.state_dir).is_some());
    Ok(base.map(Some).ok_or_else(|| "the record of its base does not decode".to_owned()))
}

/// Writes the base of a new log, in one synced batch.
pub(crate) fn found(db: &impl LogDb, base: &Base, hard_state: &HardState) -> DiskResult<()> {
    let mut batch = Batch::default();
    batch.put(BASE, encode_base(base));
    batch.put(TRUNCATED, encode_position(base.snapshot.index, base.snapshot.term));
    batch.put(HARD_STATE, encode_hard_state(hard_state));
    db.write(&batch)?;
    db.sync()
}

/// Reads bounds, terms and hard state; checks that they fit. The inner error says what does not.
pub(crate) fn load(db: &impl LogDb, base: Base) -> DiskResult<Result<Window, String>> {
    let truncated = db.get(TRUNCATED)?;
    let hard_state = db.get(HARD_STATE)?;
    let first = edge(db, Direction::Up)?;
    let last = edge(db, Direction::Down)?;
    let mut runs = Vec::new();
    let mut runs_good = true;
    db.scan(&run_key(0), RUN_END, Direction::Up, &mut |key, value| {
        match key_index(key).zip(decode_term(value)) {
            Some(run) => runs.push(run),
            None => runs_good = false,
        }
        runs_good
    })?;
    let Some(truncated) = truncated.as_deref().and_then(decode_position) else {
        return Ok(Err("the record of its start does not decode".into()));
    };
    let Some(hard_state) = hard_state.as_deref().and_then(decode_hard_state) else {
        return Ok(Err("its hard state does not decode".into()));
    };
    let (first, last) = match (first, last) {
        (None, None) => (None, truncated),
        (Some(Some(first)), Some(Some(last))) => (Some(first), last),
        _ => return Ok(Err("an entry does not decode".into())),
    };
    let rising = runs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
    let fits = truncated.0 >= base.snapshot.index
        && runs_good
        && rising
        && first.is_none_or(|first| first.0 == truncated.0 + 1 && first.1 >= truncated.1)
        && runs.first().copied() == first
        && runs.last().map_or(last == truncated, |run| run.0 <= last.0 && run.1 == last.1);
    if !fits {
        return Ok(Err(format!(
            "start {truncated:?}, first entry {first:?}, last entry {last:?} and {} stretches of terms do not fit",
            runs.len()
        )));
    }
    Ok(Ok(Window::new(base, truncated, last.0, runs, hard_state)))
}

/// (index, term) of the first or the last entry: None without entries, Some(None) when it does not decode.
#[allow(clippy::option_option, reason = "no entry, and one that does not decode, are two different things")]
fn edge(db: &impl LogDb, direction: Direction) -> DiskResult<Option<Option<(Index, Term)>>> {
    let mut found = None;
    db.scan(&entry_key(0), ENTRY_END, direction, &mut |key, value| {
        let entry = key_index(key).and_then(|index| decode_entry(index, value));
        found = Some(entry.map(|entry| (entry.index, entry.term)));
        false
    })?;
    Ok(found)
}
