//! Positions: where in the log a command stands.

use std::fmt;

use crate::limits::COMMANDS_PER_ENTRY_MAX;

/// (entry index, ordinal of the command in the entry), packed as index·2¹⁶ + ordinal. Lease epochs, revisions, artifact ids and incarnations
/// are positions: unique, rising, with no counter to keep. 0 is "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// Packs. `ordinal` is below 2¹⁶ and `index` below 2⁴⁸: a log of a million entries a second fills that in nine years.
    pub fn new(index: u64, ordinal: u64) -> Self {
        assert!(ordinal < COMMANDS_PER_ENTRY_MAX, "an ordinal has 16 bits");
        assert!(index < 1 << 48, "an index has 48 bits");
        Self(index << 16 | ordinal)
    }

    /// The packed number, as it stands in rows and answers.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Index of the entry.
    pub fn index(self) -> u64 {
        self.0 >> 16
    }

    /// Place in the entry, from 0.
    pub fn ordinal(self) -> u64 {
        self.0 & 0xffff
    }
}

impl From<u64> for Position {
    fn from(packed: u64) -> Self {
        Self(packed)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.ordinal())
    }
}
