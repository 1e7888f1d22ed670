//! What a replica counts and measures, and what is looked at when somebody asks for its metrics.

use raftgrid_driver::{Role, Status};
use raftgrid_telemetry::{Counter, Histogram, Registry};

use crate::clock::Clock;
use crate::node::Replica;
use crate::ports::CallError;

/// Bounds of durations, in seconds.
const SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds of batches of reads.
const READS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0];

/// Microseconds as the seconds that metrics have.
pub(crate) fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}

/// Reads of one kind that wait for somebody's word.
#[derive(Clone, Debug)]
pub(crate) struct Timed {
    seconds: Histogram,
    failed: Counter,
}

impl Timed {
    /// One of them ended.
    pub(crate) fn took(&self, clock: &dyn Clock, begun_us: u64, served: bool) {
        if served {
            self.seconds.observe(seconds(clock.monotonic_us().saturating_sub(begun_us)));
        } else {
            self.failed.inc();
        }
    }
}

/// Handles of the replica's metrics. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    propose_seconds: Histogram,
    /// Batches of commands sent to the leader.
    pub(crate) forwarded: Counter,
    /// One step of the leader's loops, the fold of events included.
    pub(crate) leader_step_seconds: Histogram,
    /// By a question to a quorum, on the leader.
    pub(crate) quorum_reads: Timed,
    /// By a question to the leader.
    pub(crate) follower_reads: Timed,
    pub(crate) lease_reads: Counter,
    pub(crate) local_reads: Counter,
    pub(crate) reads_per_question: Histogram,
    pub(crate) questions_answered: Counter,
    pub(crate) questions_failed: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let timed = |by: &str| Timed {
            seconds: registry.histogram(
                "raftgrid_read_seconds",
                "linearizable reads served here, by whose word: a quorum's (on the leader) or the leader's (elsewhere)",
                &[("by", by)],
                SECONDS,
            ),
            failed: registry.counter(
                "raftgrid_reads_failed_total",
                "linearizable reads not served here",
                &[("by", by)],
            ),
        };
        let questions = |outcome: &str| {
            let help = "questions to the leader for a read index";
            registry.counter("raftgrid_read_questions_total", help, &[("outcome", outcome)])
        };
        let plain = |name: &str, help: &str| registry.counter(name, help, &[]);
        Self {
            registry: registry.clone(),
            propose_seconds: registry.histogram(
                "raftgrid_propose_seconds",
                "from a proposal on the leader to its reply, applied",
                &[],
                SECONDS,
            ),
            forwarded: plain("raftgrid_proposals_forwarded_total", "batches of commands sent on to the leader"),
            leader_step_seconds: registry.histogram(
                "raftgrid_leader_step_seconds",
                "one step of the leader's loops",
                &[],
                SECONDS,
            ),
            quorum_reads: timed("quorum"),
            follower_reads: timed("leader"),
            lease_reads: plain("raftgrid_lease_reads_total", "reads served by the leader's lease, without a question"),
            local_reads: plain("raftgrid_local_reads_total", "reads of whatever is applied here"),
            reads_per_question: registry.histogram(
                "raftgrid_reads_per_question_count",
                "reads that one question to the leader serves",
                &[],
                READS,
            ),
            questions_answered: questions("ok"),
            questions_failed: questions("failed"),
        }
    }

    /// A proposal on the leader ended.
    pub(crate) fn proposed(&self, took_us: u64, error: Option<&CallError>) {
        match error {
            None => self.propose_seconds.observe(seconds(took_us)),
            Some(error) => {
                let help = "proposals that were not applied, or whose outcome is not known, by reason";
                let labels = [("reason", reason(error))];
                self.registry.counter("raftgrid_proposals_refused_total", help, &labels).inc();
            }
        }
    }
}

fn reason(error: &CallError) -> &'static str {
    match error {
        CallError::NotLeader { .. } => "not_leader",
        CallError::Unavailable(_) => "unavailable",
        CallError::Exhausted(_) => "exhausted",
        CallError::Unknown => "unknown",
        CallError::Invalid(_) => "invalid",
        CallError::Precondition(_) => "precondition",
        CallError::NotFound(_) => "not_found",
        CallError::Internal(_) => "internal",
    }
}

impl Replica {
    /// Brings what is looked at, rather than counted, up to date in `registry`. Reads rows now and then: call it where one may wait.
    pub fn sample(&self, registry: &Registry) {
        let status = self.handle.status();
        of_group(registry, &status, self.flushed_index());
        of_peers(registry, &status);
        self.of_queues(registry);
        self.census.sample(registry, &*self.views, &*self.reads.clock);
        let (low, free_bytes) = self.proposals.room.seen();
        let gauge = |name: &str, help: &str, value: f64| registry.gauge(name, help, &[]).set(value);
        gauge(
            "raftgrid_disk_free_bytes",
            "free bytes of the data directory's disk, as of the last look",
            free_bytes as f64,
        );
        gauge(
            "raftgrid_disk_low_state",
            "1: the disk is almost full and nothing new is taken",
            f64::from(u8::from(low)),
        );
        let age_ms = self.reads.contact.age_ms(self.reads.clock.boottime_ms());
        let help = "since this replica last heard of the leader (leading: of a quorum)";
        gauge("raftgrid_contact_age_seconds", help, age_ms as f64 / 1e3);
    }

    fn of_queues(&self, registry: &Registry) {
        let (clients, peers) = self.handle.queued();
        let (events, waiters) = self.ring.held();
        let depths = [
            ("raft_clients", clients),
            ("raft_peers", peers),
            ("leader_loops", self.leader.queued()),
            ("forwarded_proposals", self.proposals.pool.queued()),
            ("follower_reads", self.reads.waiting()),
            ("waiters", waiters),
        ];
        for (queue, depth) in depths {
            let help = "what waits in a queue of the replica";
            registry.gauge("raftgrid_queue_depth_count", help, &[("queue", queue)]).set(depth as f64);
        }
        let help = "entries whose changes the event ring holds";
        registry.gauge("raftgrid_ring_events_count", help, &[]).set(events as f64);
    }
}

fn of_group(registry: &Registry, status: &Status, flushed: u64) {
    let roles = [
        ("leader", status.role == Role::Leader),
        ("candidate", status.role == Role::Candidate),
        ("follower", status.role == Role::Follower && !status.learner),
        ("learner", status.role == Role::Follower && status.learner),
    ];
    for (role, is) in roles {
        let help = "1 for what this replica is";
        registry.gauge("raftgrid_role_state", help, &[("role", role)]).set(f64::from(u8::from(is)));
    }
    let figures = [
        ("raftgrid_term", "term of the raft group", status.term),
        ("raftgrid_leader_id", "id of the leader as known here; 0: none", status.leader),
        ("raftgrid_commit_index", "highest index known to be committed", status.commit),
        ("raftgrid_applied_index", "highest index applied to the tables", status.applied),
        ("raftgrid_flushed_index", "highest index whose rows are durable in the tables", flushed),
        ("raftgrid_log_first_index", "first index in the log", status.first),
        ("raftgrid_log_last_index", "last index in the log", status.last),
        ("raftgrid_voters_count", "voters of the configuration applied here", status.conf.voters.len() as u64),
        ("raftgrid_learners_count", "learners of the configuration applied here", status.conf.learners.len() as u64),
    ];
    for (name, help, value) in figures {
        registry.gauge(name, help, &[]).set(value as f64);
    }
}

/// On the leader; elsewhere the families are empty.
fn of_peers(registry: &Registry, status: &Status) {
    let others = status.progress.iter().filter(|(node, _, _)| *node != status.node);
    let figures: Vec<(String, f64, f64)> = others
        .map(|(node, matched, active)| {
            let lag = status.last.saturating_sub(*matched) as f64;
            (node.to_string(), lag, f64::from(u8::from(*active)))
        })
        .collect();
    let labels: Vec<[(&str, &str); 1]> = figures.iter().map(|(node, _, _)| [("peer", node.as_str())]).collect();
    let of = |pick: fn(&(String, f64, f64)) -> f64| -> Vec<(&[(&str, &str)], f64)> {
        labels.iter().zip(&figures).map(|(labels, figure)| (labels.as_slice(), pick(figure))).collect()
    };
    registry.sampled(
        "raftgrid_peer_lag_entries",
        "on the leader: entries that a replica does not have yet",
        &of(|it| it.1),
    );
    registry.sampled("raftgrid_peer_active_state", "on the leader: 1 if a replica was heard lately", &of(|it| it.2));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_of_a_removed_peer_is_gone_and_a_follower_shows_none() {
        let registry = Registry::new();
        let mut status = Status { node: 1, role: Role::Leader, last: 100, ..Status::default() };
        status.progress = vec![(1, 100, true), (2, 90, true), (3, 40, false)];
        of_peers(&registry, &status);
        let text = registry.exposition();
        assert!(text.contains("raftgrid_peer_lag_entries{peer=\"3\"} 60\n"), "{text}");
        assert!(text.contains("raftgrid_peer_active_state{peer=\"3\"} 0\n") && !text.contains("peer=\"1\""), "{text}");
        status.progress = vec![(1, 100, true), (2, 100, true)];
        of_peers(&registry, &status);
        let text = registry.exposition();
        assert!(text.contains("raftgrid_peer_lag_entries{peer=\"2\"} 0\n") && !text.contains("peer=\"3\""), "{text}");
        of_peers(&registry, &Status::default());
        assert!(!registry.exposition().contains("peer=\""), "a follower knows no lag");
    }
}
