//! Replicated keys.

use raftgrid_proto::v1::{KeyValue, KvCountRow, KvRow};

use crate::keys;
use crate::read;
use crate::rows::{Rows, RowsError, Table};
use crate::views::{job_row_by_sequence, page_rows};

/// Bytes of values in one page of a listing.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// The key's row; None if it does not exist.
pub fn kv(rows: &dyn Rows, key: &str) -> Result<Option<KvRow>, RowsError> {
    read::kv(rows, key)
}

/// How many keys there are.
pub fn kv_count(rows: &dyn Rows) -> Result<KvCountRow, RowsError> {
    read::kv_count(rows)
}

/// Keys in order, and where the next page begins; empty: there is none.
pub struct KvPage {
    /// In order of their bytes.
    pub keys: Vec<KeyValue>,
    /// Of each, the artifact that is its value; 0: the value is in `keys`, if it was asked for.
    pub beside: Vec<u64>,
    /// For the next call.
    pub next_page_token: Vec<u8>,
}

/// Keys that begin with `prefix`, after the one that `token` is (empty: from the first on). `limit` 0: as many as a page holds.
pub fn list_kv(
    rows: &dyn Rows,
    prefix: &str,
    token: &[u8],
    limit: usize,
    with_data: bool,
) -> Result<KvPage, RowsError> {
    let after = [token, &[0]].concat();
    let from = if token.is_empty() || after.as_slice() < prefix.as_bytes() { prefix.as_bytes() } else { &after };
    let end = keys::after_prefix(prefix.as_bytes());
    let (mut found, mut bytes, mut more) = (Vec::new(), 0, false);
    read::each(rows, Table::Kv, from, &end, |row: KvRow| {
        let next = row.key.len() + if with_data { row.value.len() + row.value_bytes as usize } else { 0 };
        if found.len() >= page_rows(limit) || (!found.is_empty() && bytes + next > PAGE_BYTES_MAX) {
            more = true;
            return false;
        }
        bytes += next;
        found.push(row);
        true
    })?;
    let next_page_token = match found.last() {
        Some(last) if more => last.key.clone().into_bytes(),
        _ => Vec::new(),
    };
    let (mut keys, mut beside) = (Vec::with_capacity(found.len()), Vec::with_capacity(found.len()));
    for row in found {
        let job = if row.job_sequence == 0 { None } else { job_row_by_sequence(rows, row.job_sequence)? };
        beside.push(row.artifact_id);
        keys.push(KeyValue {
            bytes: row.value.len() as u64 + row.value_bytes,
            revision: row.revision,
            key: row.key,
            data: if with_data { row.value } else { Vec::new() },
            job_id: job.map(|mut row| row.take_job().job_id).unwrap_or_default(),
            ..KeyValue::default()
        });
    }
    Ok(KvPage { keys, beside, next_page_token })
}
