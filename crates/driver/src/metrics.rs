//! What the driver counts and measures. The core does neither: its runner does, on its threads; turns that are run by hand only count.

use std::collections::BTreeMap;

use raftgrid_telemetry::{Counter, Histogram, Registry};

use crate::core::Dropped;

/// Bounds of durations, in seconds: from a fast fsync to an election timeout of a wide network.
const SECONDS: &[f64] =
    &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Bounds of batches, in entries.
const ENTRIES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// Handles of the driver's metrics. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// One fsync of the log.
    pub(crate) fsync_seconds: Histogram,
    /// One turn of the raft thread, without its wait.
    pub(crate) turn_seconds: Histogram,
    /// One job of the apply thread.
    pub(crate) apply_seconds: Histogram,
    /// Entries in one call of the state machine.
    pub(crate) apply_batch_entries: Histogram,
    pub(crate) snapshots_made: Counter,
    pub(crate) snapshots_failed: Counter,
    pub(crate) snapshots_installed: Counter,
    pub(crate) snapshots_sent: Counter,
    pub(crate) snapshots_not_sent: Counter,
    /// Peer messages that found the inbox full.
    pub(crate) peer_inbox_full: Counter,
    /// Calls of clients that found the inbox full.
    pub(crate) client_inbox_full: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let seconds = |name: &str, help: &str| registry.histogram(name, help, &[], SECONDS);
        let made = |outcome: &str| {
            let help = "snapshots of this replica that were made, or could not be";
            registry.counter("raftgrid_snapshots_made_total", help, &[("outcome", outcome)])
        };
        let sent = |outcome: &str| {
            let help = "snapshots sent to other replicas, by how it ended";
            registry.counter("raftgrid_snapshots_sent_total", help, &[("outcome", outcome)])
        };
        Self {
            registry: registry.clone(),
            fsync_seconds: seconds("raftgrid_log_fsync_seconds", "one fsync of the raft log"),
            turn_seconds: seconds("raftgrid_raft_turn_seconds", "one turn of the raft thread, without its wait"),
            apply_seconds: seconds("raftgrid_apply_seconds", "one job of the apply thread"),
            apply_batch_entries: registry.histogram(
                "raftgrid_apply_batch_entries",
                "entries applied in one call of the state machine",
                &[],
                ENTRIES,
            ),
            snapshots_made: made("ok"),
            snapshots_failed: made("failed"),
            snapshots_installed: registry.counter(
                "raftgrid_snapshots_installed_total",
                "snapshots of other replicas that this one changed over to",
                &[],
            ),
            snapshots_sent: sent("ok"),
            snapshots_not_sent: sent("failed"),
            peer_inbox_full: dropped(registry, "inbox_full"),
            client_inbox_full: registry.counter(
                "raftgrid_client_inbox_full_total",
                "calls refused because the inbox of the raft thread was full",
                &[],
            ),
        }
    }

    /// Counts what was dropped since `counted`, and brings that up to date.
    pub(crate) fn note_dropped(&self, counted: &mut BTreeMap<Dropped, u64>, now: &BTreeMap<Dropped, u64>) {
        for (reason, count) in now {
            let before = counted.insert(*reason, *count).unwrap_or(0);
            if *count > before {
                dropped(&self.registry, reason.name()).add(count - before);
            }
        }
    }
}

fn dropped(registry: &Registry, reason: &str) -> Counter {
    let help = "raft messages of other replicas that were dropped, by reason";
    registry.counter("raftgrid_peer_messages_dropped_total", help, &[("reason", reason)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_counted_once_by_their_reason() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry);
        let mut counted = BTreeMap::new();
        let mut now = BTreeMap::from([(Dropped::Stranger, 2)]);
        metrics.note_dropped(&mut counted, &now);
        metrics.note_dropped(&mut counted, &now);
        now.insert(Dropped::Stranger, 5);
        now.insert(Dropped::LostLog, 1);
        metrics.note_dropped(&mut counted, &now);
        let text = registry.exposition();
        for line in ["{reason=\"stranger\"} 5\n", "{reason=\"lost_log\"} 1\n", "{reason=\"inbox_full\"} 0\n"] {
            assert!(text.contains(&format!("raftgrid_peer_messages_dropped_total{line}")), "{line}: {text}");
        }
    }
}
