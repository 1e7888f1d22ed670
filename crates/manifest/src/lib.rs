//! The replicated state machine: commands, guards, rows, predicates.
//!
//! Owns what a command may do to the state. The apply thread calls [`apply`] with each committed entry and writes the changes that come
//! back; control and api read through [`views`] and decide with [`predicates`]. Nothing here knows a clock, a thread, a disk, a random
//! number or raft: the same entries give the same bytes on every replica.
//!
//! Invariants: `invariants.rs` checks all of them; the cheap ones are asserted where the rows are written (`tables/`).

mod apply;
mod attempts;
mod attributes;
mod coding;
mod commands;
mod digest;
mod error;
mod facade;
mod invariants;
pub mod keys;
mod ledger;
pub mod limits;
mod machine;
mod make;
mod memo;
#[doc(hidden)]
pub mod mutant;
pub mod neighbours;
mod overlay;
mod position;
pub mod predicates;
mod quota;
mod read;
pub mod refound;
mod reply;
mod requests;
mod round_policy;
mod row_change;
pub mod rows;
mod tables;
mod text;
pub mod views;
pub mod watched;

pub use apply::{apply, Applied};
pub use coding::Code;
pub use commands::{
    check_training, fields_version, minimum_version, report_digest, BESIDE_SINCE, MACHINE_VERSION, NAMES_SINCE,
    STATES_EXPIRE_SINCE, STATE_KIND,
};
pub use error::ApplyError;
pub use facade::{Manifest, ManifestError};
pub use invariants::check_invariants;
pub use ledger::{chain_hash, round_inputs_hash, InputContribution, RoundInputs, ALGORITHM_ID};
pub use make::{batch, command, command_for, encode_batch};
pub use position::Position;
pub use quota::{within_quota, OverQuota};
pub use round_policy::{RoundMode, RoundPolicy};
pub use row_change::{row_change, RowChange};
pub use rows::{Change, MemRows, Rows, RowsError, Table, TABLES};
