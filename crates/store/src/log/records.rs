//! Keys and records of the log's database. See docs/storage-format.md.
//!
//! Entries stand under their index, big-endian, so that order of key is order of index. Beside them stand the *runs*:
//! the first index of each stretch of equal terms. They let a boot know every term without reading the log.

use bytes::Bytes;
use raftgrid_driver::{Entry, EntryKind, HardState, Index, SnapshotMeta, Term};

use crate::codec::{Reader, Writer};

/// Which state directory belongs to the log, and the snapshot that the log starts from.
pub(crate) const BASE: &[u8] = &[0x01];
/// (index, term) up to which entries were cut away.
pub(crate) const TRUNCATED: &[u8] = &[0x02];
/// Hard state.
pub(crate) const HARD_STATE: &[u8] = &[0x03];
/// First byte of a run's key.
const RUN: u8 = 0x10;
/// First byte of an entry's key.
const ENTRY: u8 = 0x20;

/// Kind, term, length of the context.
const ENTRY_HEAD_BYTES: usize = 1 + 8 + 4;

/// The log database's word on what belongs together (durability rule 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) state_dir: String,
    pub(crate) snapshot: SnapshotMeta,
}

fn numbered(first: u8, index: Index) -> [u8; 9] {
    let mut key = [first; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

pub(crate) fn entry_key(index: Index) -> [u8; 9] {
    numbered(ENTRY, index)
}

pub(crate) fn run_key(index: Index) -> [u8; 9] {
    numbered(RUN, index)
}

/// Behind every entry.
pub(crate) const ENTRY_END: &[u8] = &[ENTRY + 1];
/// Behind every run.
pub(crate) const RUN_END: &[u8] = &[RUN + 1];

/// Index in a key of an entry or a run.
pub(crate) fn key_index(key: &[u8]) -> Option<Index> {
    Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

fn kind_byte(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::Normal => 0,
        EntryKind::ConfChange => 1,
        EntryKind::ConfChangeV2 => 2,
    }
}

pub(crate) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(ENTRY_HEAD_BYTES + entry.context.len() + entry.data.len()));
    out.u8(kind_byte(entry.kind));
    out.u64(entry.term);
    out.bytes(&entry.context);
    out.0.extend_from_slice(&entry.data);
    out.0
}

pub(crate) fn decode_entry(index: Index, value: &[u8]) -> Option<Entry> {
    let mut reader = Reader(value);
    let kind = match reader.u8()? {
        0 => EntryKind::Normal,
        1 => EntryKind::ConfChange,
        2 => EntryKind::ConfChangeV2,
        _ => return None,
    };
    let term = reader.u64()?;
    let context = Bytes::copy_from_slice(reader.bytes()?);
    Some(Entry { index, term, kind, data: Bytes::copy_from_slice(reader.0), context })
}

pub(crate) fn encode_position(index: Index, term: Term) -> Vec<u8> {
    let mut out = Writer::default();
    out.u64(index);
    out.u64(term);
    out.0
}

pub(crate) fn decode_position(value: &[u8]) -> Option<(Index, Term)> {
    let mut reader = Reader(value);
    let position = (reader.u64()?, reader.u64()?);
    reader.end()?;
    Some(position)
}

pub(crate) fn encode_term(term: Term) -> Vec<u8> {
    term.to_le_bytes().to_vec()
}

pub(crate) fn decode_term(value: &[u8]) -> Option<Term> {
    Some(u64::from_le_bytes(value.try_into().ok()?))
}

pub(crate) fn encode_hard_state(state: &HardState) -> Vec<u8> {
    let mut out = Writer::default();
    out.u64(state.term);
    out.u64(state.vote);
    out.u64(state.commit);
    out.0
}

pub(crate) fn decode_hard_state(value: &[u8]) -> Option<HardState> {
    let mut reader = Reader(value);
    let state = HardState { term: reader.u64()?, vote: reader.u64()?, commit: reader.u64()? };
    reader.end()?;
    Some(state)
}

pub(crate) fn encode_base(base: &Base) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(base.state_dir.as_bytes());
    out.meta(&base.snapshot);
    out.0
}

pub(crate) fn decode_base(value: &[u8]) -> Option<Base> {
    let mut reader = Reader(value);
    let state_dir = std::str::from_utf8(reader.bytes()?).ok()?.to_owned();
    let snapshot = reader.meta()?;
    reader.end()?;
    Some(Base { state_dir, snapshot })
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftgrid_driver::ConfState;

    #[test]
    fn records_round_trip() {
        let entry = Entry {
            index: 7,
            term: 3,
            kind: EntryKind::ConfChangeV2,
            data: Bytes::from_static(b"data"),
            context: Bytes::from_static(b"ctx"),
        };
        assert_eq!(decode_entry(7, &encode_entry(&entry)), Some(entry.clone()));
        let empty = Entry { data: Bytes::new(), context: Bytes::new(), ..entry };
        assert_eq!(decode_entry(7, &encode_entry(&empty)), Some(empty));
        let conf = ConfState { voters: vec![1, 2], learners: vec![3], auto_leave: true, ..ConfState::default() };
        let base = Base { state_dir: "state-1-0".into(), snapshot: SnapshotMeta { index: 9, term: 2, conf } };
        assert_eq!(decode_base(&encode_base(&base)), Some(base));
        assert_eq!(key_index(&entry_key(0x0102_0304)), Some(0x0102_0304));
    }

    #[test]
    fn a_record_cut_short_is_not_one() {
        let base = Base { state_dir: "state-1-0".into(), snapshot: SnapshotMeta::default() };
        let bytes = encode_base(&base);
        for end in 0..bytes.len() {
            assert_eq!(decode_base(&bytes[..end]), None, "{end}");
        }
        assert_eq!(decode_entry(1, &[9; 20]), None);
        assert_eq!(decode_hard_state(&[0; 25]), None);
    }
}
