//! Do the judges bite? Bugs that are planted in the real code (feature `mutants`), one at a time, until a seed shows them.

use std::time::{Duration, Instant};

use crate::many::{run_many, Many};

/// A planted bug.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// The name of its switch.
    pub name: &'static str,
    /// What is wrong, in words.
    pub what: &'static str,
}

/// How one was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The first seed that shows it; None: none of those that were tried does.
    pub seed: Option<u64>,
    /// How it shows.
    pub how: String,
    /// Seeds that were run.
    pub seeds: u64,
    /// Real time.
    pub took: Duration,
}

const fn mutant(name: &'static str, what: &'static str) -> Mutant {
    Mutant { name, what }
}

/// All of them.
pub const MUTANTS: &[Mutant] = &[
    mutant("ack_before_fsync", "messages that wait for an fsync leave before it"),
    mutant("fsync_skipped", "the log is never synced"),
    mutant("hard_state_skipped", "term and vote are not written"),
    mutant("vote_not_kept", "the vote is not written"),
    mutant("immediate_before_durable_term", "a leader sends before its term is durable"),
    mutant("synced_covers_later_writes", "an fsync counts for what was written after it began"),
    mutant("read_before_noop", "a new leader serves reads before it has committed in its term"),
    mutant("read_context_reused", "a read joins a round that began before it"),
    mutant("conf_of_before_recorded", "the tables record the configuration of before the change"),
    mutant("empty_change_skipped", "the entry that leaves a joint configuration is taken for an empty one"),
    mutant("old_change_over_snapshot", "a change that a newer snapshot includes is applied on top of it"),
    mutant("election_during_install", "a replica campaigns while it installs a snapshot"),
    mutant("compaction_past_flushed", "the log is cut past the durable tables"),
    mutant("superseded_counts_as_done", "a proposal is acknowledged when another entry took its place"),
    mutant("install_in_two_batches", "an install is two batches of the log"),
    mutant("snapshot_not_verified", "a received snapshot is not verified"),
    mutant("snapshot_files_not_fsynced", "the files of a received snapshot are not fsynced"),
    mutant("directory_not_fsynced", "the directory of a received snapshot is not fsynced"),
    mutant("applied_in_a_batch_of_its_own", "rows and applied position are two batches: double apply after a restart"),
    mutant("request_ids_lost_in_snapshot", "answers by request id are missing after an install"),
    mutant("mark_not_compared", "a log that lost its end is opened"),
    mutant("joiner_founds_itself", "a joiner starts with the configuration {itself}"),
    mutant("stale_report_accepted", "a report of an old lease ends the new one"),
    mutant("expiry_of_any_lease", "an expiry is applied whatever lease is open"),
    mutant("request_ids_forgotten", "a command that is tried again is executed again"),
    mutant("cluster_time_from_wall_clock", "cluster time is the leader's wall clock, not the highest so far"),
    mutant("renewal_without_quorum", "a heartbeat is answered without a read index"),
    mutant("expiry_after_start", "an attempt that was started meanwhile is expired for want of a start"),
    mutant("no_generations", "a late first heartbeat of a dead process takes the living one's place"),
    mutant("gang_in_part", "of an assignment what can be placed is placed, also of a gang"),
    mutant("dependents_not_told", "of the tasks that wait for one that ends, only the first is told"),
    mutant("tick_again", "a tick that was dealt with is dealt with again"),
    mutant("ack_before_ledger", "a gradient is acknowledged before its entry in the ledger is committed"),
    mutant("bytes_not_synced", "a receipt is given for bytes that were not synced"),
    mutant("bytes_folder_not_synced", "a receipt is given for a file whose name is not durable"),
    mutant("receipt_of_silence", "a peer that does not answer counts as one that has a copy"),
    mutant("retry_counted_twice", "a gradient that is sent again counts a second time for its round"),
    mutant("sum_by_arrival", "contributions are summed in the order in which they came"),
    mutant("behind_says_never", "a replica that is behind says that there is no model that a trainer was told of"),
    mutant("state_of_before", "a model is committed with the optimiser's state of the round before"),
    mutant("watch_gap", "the leader's loops miss a change after each look"),
];

/// Runs seeds from `first` on until one shows the bug, `seeds_max` at most.
pub fn hunt(mutant: &Mutant, first: u64, seeds_max: u64) -> Found {
    raftgrid_driver::mutant::set(mutant.name);
    raftgrid_manifest::mutant::set(mutant.name);
    raftgrid_blob::mutant::set(mutant.name);
    let started = Instant::now();
    let summary = run_many(Many { first, count: seeds_max, nodes: None, tasks: 0, failures_max: 1 }, &|_| ());
    raftgrid_driver::mutant::set("");
    raftgrid_manifest::mutant::set("");
    raftgrid_blob::mutant::set("");
    let found = summary.failed.first();
    Found {
        seed: found.map(|report| report.seed),
        how: found.and_then(|report| report.violations.first()).cloned().unwrap_or_default(),
        seeds: summary.runs,
        took: started.elapsed(),
    }
}
