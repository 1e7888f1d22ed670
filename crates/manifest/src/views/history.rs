//! Committed rounds of a job, long after the ledger let them go.

use std::collections::BTreeMap;

use protobuf::Message;
use raftgrid_proto::v1::{JobHistoryResponse, RoundHistoryRow, RoundPhase, RoundRow, RoundSummary};

use crate::keys;
use crate::limits::HISTORY_PAGE_BYTES;
use crate::read;
use crate::rows::{Rows, RowsError, Table};
use crate::views::page_rows;

/// A page of at most `limit` rounds (0: the most that a page holds) and about `HISTORY_PAGE_BYTES`, from round `from` on, oldest first; None if
/// there is no such job. Rounds that were committed before machine version 6 are there as long as the ledger keeps them.
pub fn round_history(
    rows: &dyn Rows,
    job_id: &str,
    from: u64,
    limit: usize,
) -> Result<Option<JobHistoryResponse>, RowsError> {
    let Some(job) = read::job_by_id(rows, job_id)? else { return Ok(None) };
    let (begin, end) = (keys::pair(job.sequence, from), keys::after_prefix(&keys::number(job.sequence)));
    let most = page_rows(limit);
    // One more than fits tells whether there is a next page.
    let mut found = BTreeMap::new();
    read::each(rows, Table::RoundHistory, &begin, &end, |row: RoundHistoryRow| {
        found.insert(row.round, summary(row.round, row.contributions, row.metrics_json, row.committed_at_ms));
        found.len() <= most
    })?;
    let mut in_ledger = 0;
    read::each(rows, Table::Round, &begin, &end, |row: RoundRow| {
        if row.phase == RoundPhase::ROUND_COMMITTED {
            in_ledger += 1;
            let of_ledger = || summary(row.round, row.accepted, row.metrics_json.clone(), row.committed_at_ms);
            found.entry(row.round).or_insert_with(of_ledger);
        }
        in_ledger <= most
    })?;
    let mut page = JobHistoryResponse::new();
    let mut bytes = 0;
    for (round, summary) in found {
        bytes += u64::from(summary.compute_size());
        if page.rounds.len() == most || (bytes > HISTORY_PAGE_BYTES && !page.rounds.is_empty()) {
            page.next_round = round;
            break;
        }
        page.rounds.push(summary);
    }
    Ok(Some(page))
}

fn summary(round: u64, contributions: u32, metrics_json: String, committed_at_ms: u64) -> RoundSummary {
    let committed_at_ms = i64::try_from(committed_at_ms).unwrap_or(i64::MAX);
    RoundSummary { round, contributions, metrics_json, committed_at_ms, ..RoundSummary::default() }
}
