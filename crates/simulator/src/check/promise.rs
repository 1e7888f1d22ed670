//! What a message promises must survive a loss of power: each message that leaves a process is held against what is durable on its disk at
//! that instant, and all votes of all time against one another. Keys and records are those of docs/storage-format.md, read by nobody's code
//! but this.

use std::collections::BTreeMap;

use raftgrid_driver::{NodeId, Term};

use super::wire::{Kind, Said};
use crate::disk::SimDisk;

/// (index, term) up to which entries were cut away.
const TRUNCATED: &[u8] = &[0x02];
/// Term, vote, commit.
const HARD_STATE: &[u8] = &[0x03];
/// First byte of an entry's key; its index follows, big-endian.
const ENTRY: u8 = 0x20;

/// Every vote that was ever given, those for oneself among them.
#[derive(Debug, Default)]
pub struct Promises {
    votes: BTreeMap<(NodeId, Term), NodeId>,
}

fn number(record: &[u8], place: usize) -> Option<u64> {
    Some(u64::from_le_bytes(record.get(place * 8..place * 8 + 8)?.try_into().ok()?))
}

/// The term that would be left after a loss of power.
pub fn durable_term(disk: &SimDisk) -> Term {
    disk.durable_log_row(HARD_STATE).and_then(|state| number(&state, 0)).unwrap_or(0)
}

impl Promises {
    /// A message leaves `from`, whose log is on `disk`. Gives what cannot be.
    pub fn saw_message(&mut self, from: NodeId, to: NodeId, said: &Said, disk: &SimDisk) -> Result<(), String> {
        if said.kind == Kind::PreVote || said.term == 0 {
            // It speaks of a term that may never be.
            return Ok(());
        }
        let vote = match said.kind {
            Kind::RequestVote => Some(from),
            Kind::RequestVoteResponse if !said.reject => Some(to),
            Kind::RequestVoteResponse | Kind::AppendResponse | Kind::PreVote | Kind::Other => None,
        };
        if let Some(vote) = vote {
            let first = *self.votes.entry((from, said.term)).or_insert(vote);
            if first != vote {
                return Err(format!("node {from} votes for {first} and for {vote} in term {}", said.term));
            }
        }
        let state = disk.durable_log_row(HARD_STATE).unwrap_or_default();
        let (Some(term), Some(voted)) = (number(&state, 0), number(&state, 1)) else {
            return Err(format!("node {from} speaks in term {} without a durable hard state", said.term));
        };
        if term > said.term {
            // Durably further: what was promised in the older term was kept for as long as it was of use.
            return Ok(());
        }
        if term < said.term {
            return Err(format!("node {from} speaks in term {} while term {term} is durable", said.term));
        }
        if let Some(vote) = vote.filter(|vote| *vote != voted) {
            return Err(format!("node {from} votes for {vote} in term {term}, and {voted} is durable"));
        }
        if said.kind == Kind::AppendResponse && !said.reject && !holds(disk, said.index) {
            return Err(format!("node {from} acknowledges entry {} in term {term}, which is not durable", said.index));
        }
        Ok(())
    }
}

/// Whether an entry, or what it led to, is durable.
fn holds(disk: &SimDisk, index: u64) -> bool {
    let truncated = disk.durable_log_row(TRUNCATED).and_then(|record| number(&record, 0)).unwrap_or(0);
    let mut key = vec![ENTRY];
    key.extend_from_slice(&index.to_be_bytes());
    index <= truncated || disk.durable_log_row(&key).is_some()
}
