//! What a core is started with, and whether it may start.

use super::conf;
use crate::error::StartError;
use crate::limits;
use crate::traits::LogReader;
use crate::types::{ConfState, InitialState, NodeId};

/// What a core is started with. Times are in ticks.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// This replica.
    pub node: NodeId,
    /// Silence of a leader after which a follower campaigns; the random spread reaches up to twice this.
    pub election_ticks: u64,
    /// Between two heartbeats of a leader.
    pub heartbeat_ticks: u64,
    /// Spreads election timeouts; the same seed gives the same trace.
    pub timeout_seed: u64,
    /// Requests for votes are ignored for an election timeout after the last word of a leader, and after the start: leases stand on it.
    pub hold_votes: bool,
    /// Another number at every start of the process: read contexts are never reused.
    pub boot_nonce: u64,
    /// A leader refuses proposals while commit − applied is over this many entries.
    pub apply_lag_max: u64,
    /// Applied entries that stay in the log for slow followers.
    pub log_tail_entries: u64,
    /// Between two snapshots made for their own sake; 0: none are.
    pub snapshot_interval_ticks: u64,
    /// Such a snapshot is made only if this many entries were applied since the last.
    pub snapshot_threshold_entries: u64,
    /// After this long without a report, a snapshot sent to a follower counts as failed.
    pub snapshot_report_ticks: u64,
    /// Followers hear of a commit with the next append, or when `tell_commit` is called, or at the next tick; else at once.
    pub lazy_commit: bool,
    /// The leader promotes learners that are caught up.
    pub auto_promote: bool,
    /// A learner within this many entries of the commit index is caught up.
    pub promote_lag_entries: u64,
}

impl CoreConfig {
    /// Defaults for a group on a local network, 20 ticks to an election.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            election_ticks: 20,
            heartbeat_ticks: 2,
            timeout_seed: 0,
            hold_votes: false,
            boot_nonce: 0,
            apply_lag_max: 100_000,
            log_tail_entries: 10_000,
            snapshot_interval_ticks: 0,
            snapshot_threshold_entries: 8_192,
            snapshot_report_ticks: 20 * 600,
            lazy_commit: false,
            auto_promote: true,
            promote_lag_entries: 64,
        }
    }
}

/// raft-rs panics on what does not fit; this says what it is instead.
pub(super) fn check_start<R: LogReader>(
    config: &CoreConfig,
    initial: &InitialState,
    reader: &R,
) -> Result<(), StartError> {
    let wrong = |what: &str| Err(StartError::Config(what.to_owned()));
    if config.node == 0 {
        return wrong("the node id is 0");
    }
    if config.election_ticks < limits::ELECTION_TICKS_MIN || config.heartbeat_ticks == 0 {
        return wrong("the election timeout is too short for the tick");
    }
    if config.election_ticks <= config.heartbeat_ticks {
        return wrong("the election timeout is not longer than the heartbeat interval");
    }
    if config.log_tail_entries == 0 {
        return wrong("log_tail_entries is 0");
    }
    let (first, last) = (reader.first_index(), reader.last_index());
    let (applied, commit) = (initial.applied, initial.hard_state.commit);
    let unfit = |what: String| Err(StartError::Inconsistent(what));
    if !(first - 1 <= applied && applied <= commit && commit <= last) {
        return unfit(format!("first {first}, applied {applied}, commit {commit}, last {last}"));
    }
    if initial.conf == ConfState::default() {
        // An empty replica waits for a snapshot, which carries the configuration.
        if last != 0 || initial.hard_state.commit != 0 {
            return unfit(format!("the log reaches {last} and there is no configuration"));
        }
        return Ok(());
    }
    if applied == 0 {
        return unfit("there is a configuration, and nothing is applied: it is not the founding".to_owned());
    }
    conf::check(&initial.conf).or_else(|reason| unfit(format!("the configuration cannot be: {reason}")))
}
