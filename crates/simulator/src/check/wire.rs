//! Raft messages as they are on the wire, read by nobody's code but this: kind, term, index, whether it refuses. Field numbers are those of
//! raft-rs' `eraftpb.proto`.

use protobuf::CodedInputStream;

/// Kinds of messages, as far as judges care. Numbers are those of `MessageType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Entries were taken, or refused.
    AppendResponse,
    /// A vote is asked for.
    RequestVote,
    /// A vote is given, or refused.
    RequestVoteResponse,
    /// Whether somebody would vote, in a term that nobody has begun.
    PreVote,
    /// Anything else that speaks in a term.
    Other,
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its kind.
    pub kind: Kind,
    /// In which term; 0: in none.
    pub term: u64,
    /// An index, if its kind has one.
    pub index: u64,
    /// It is a refusal.
    pub reject: bool,
}

/// Reads an encoded message; None: it is none.
pub fn read(data: &[u8]) -> Option<Said> {
    let mut input = CodedInputStream::from_bytes(data);
    let mut said = Said { kind: Kind::Other, term: 0, index: 0, reject: false };
    while !input.eof().ok()? {
        let (field, wire_type) = input.read_tag_unpack().ok()?;
        match field {
            1 => said.kind = kind(input.read_raw_varint64().ok()?),
            4 => said.term = input.read_raw_varint64().ok()?,
            6 => said.index = input.read_raw_varint64().ok()?,
            10 => said.reject = input.read_raw_varint64().ok()? != 0,
            _ => input.skip_field(wire_type).ok()?,
        }
    }
    Some(said)
}

fn kind(number: u64) -> Kind {
    match number {
        4 => Kind::AppendResponse,
        5 => Kind::RequestVote,
        6 => Kind::RequestVoteResponse,
        17 | 18 => Kind::PreVote,
        _ => Kind::Other,
    }
}
