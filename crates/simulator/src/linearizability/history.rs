//! What clients asked and what they were told.

use std::collections::BTreeMap;
use std::fmt;

/// A moment, in any unit, on one clock for the whole history.
pub type Time = u64;
/// What was written. Every write of a key has its own: then a value says whose it is.
pub type Tag = u64;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value {
    /// Who wrote it.
    pub tag: Tag,
    /// Sealed since (a task: cancelled).
    pub sealed: bool,
}

impl Value {
    /// An unsealed value.
    pub fn of(tag: Tag) -> Self {
        Self { tag, sealed: false }
    }
}

/// What is asked of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sets the value whatever it is.
    Write {
        /// The new value.
        tag: Tag,
    },
    /// Reads the value.
    Read,
    /// Sets the value if it is `expect`, unsealed. Submitting a task under an id of one's own is the one that expects nothing.
    Swap {
        /// None: nothing may be there.
        expect: Option<Tag>,
        /// The new value.
        tag: Tag,
    },
    /// Seals what is there; done already, it is done. Refused where nothing is there. Cancelling a task is one.
    Seal,
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of `Write`, `Swap` and `Seal`: it took effect.
    Taken,
    /// Of `Swap` and `Seal`: it found something else and changed nothing.
    Refused,
    /// Of `Read`.
    Found(Option<Value>),
}

/// An answer that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// When it came.
    pub at: Time,
    /// What it said.
    pub answer: Answer,
    /// Where in the log: of a change, its own place; of a read or a refusal, everything up to here was looked at. None: it does not say.
    pub position: Option<u64>,
    /// Of what was found: the place of its last change. None: it does not say.
    pub version: Option<u64>,
}

/// How an operation ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No answer: it may take effect at any later time, or never.
    Unknown,
    /// An answer.
    Done(Done),
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Who; for people only.
    pub client: u32,
    /// Of which key.
    pub key: String,
    /// What was asked.
    pub kind: Kind,
    /// When it was asked.
    pub invoked: Time,
    /// How it ended.
    pub outcome: Outcome,
}

impl Op {
    /// The answer, if one came.
    pub fn done(&self) -> Option<&Done> {
        match &self.outcome {
            Outcome::Unknown => None,
            Outcome::Done(done) => Some(done),
        }
    }

    /// Whether it was over before `other` was asked.
    pub fn precedes(&self, other: &Op) -> bool {
        self.done().is_some_and(|done| done.at < other.invoked)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12} client {:<3} {} {:?}", self.invoked, self.client, self.key, self.kind)?;
        match &self.outcome {
            Outcome::Unknown => write!(f, " → unknown"),
            Outcome::Done(done) => {
                write!(f, " → {:?} at {}", done.answer, done.at)?;
                done.position.map_or(Ok(()), |position| write!(f, " position {position}"))?;
                done.version.map_or(Ok(()), |version| write!(f, " version {version}"))
            }
        }
    }
}

/// Operations in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// All of them; a violation names them by their place here.
    pub ops: Vec<Op>,
}

impl History {
    /// Key → places of its operations.
    pub fn by_key(&self) -> BTreeMap<&str, Vec<usize>> {
        let mut keys: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (place, op) in self.ops.iter().enumerate() {
            keys.entry(&op.key).or_default().push(place);
        }
        keys
    }

    /// Every operation on its own line, as it was asked.
    pub fn lines(&self, places: &[usize]) -> String {
        places.iter().filter_map(|place| self.ops.get(*place)).map(|op| format!("{op}\n")).collect()
    }
}
