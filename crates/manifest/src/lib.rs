//! The replicated state machine: commands, guards, rows, predicates. Pure.

pub mod rows;

pub use rows::{Change, MemRows, Rows, RowsError, Table, TABLES};
