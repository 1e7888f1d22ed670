//! A disk that can lose what was not made durable.
//!
//! A medium is a tree of inodes. Directories and files have a visible and a durable image, and the operations between the two in order; the
//! databases of the log and of the tables live in directories of their own and know their unsynced batches. A crash of the process keeps the
//! files and a prefix of the log's unsynced batches; a loss of power keeps, of each file, directory and database, the durable image and a
//! prefix of what came after it, files torn at a sector. Handles of before the crash fail for ever: what a dropped replica still writes is
//! lost.

mod crash;
mod files;
mod image;
mod log_db;
mod medium;
mod node;
mod state_db;
mod tree;

pub use crash::Crash;
pub use log_db::SimLog;
pub use medium::{Damage, SimDisk};
pub use state_db::{SimState, SimStateView};
