//! What the mirror counts. On a replica that does not lead, the gauges are 0.

use raftgrid_telemetry::{Counter, Gauge, Registry};

/// Handles of the mirror's metrics.
#[derive(Clone)]
pub(crate) struct Metrics {
    /// Artifacts of which the destination has everything, sent by this process or found there.
    pub(crate) sent: Counter,
    pub(crate) found: Counter,
    /// Gone from the cluster before their turn.
    pub(crate) gone: Counter,
    pub(crate) failed: Counter,
    /// Bytes of artifacts by how their turn ended.
    pub(crate) mirrored_bytes: Counter,
    pub(crate) failed_bytes: Counter,
    /// Bytes that went out, those of parts included.
    pub(crate) sent_bytes: Counter,
    pub(crate) aborted: Counter,
    pending: Gauge,
    pending_bytes: Gauge,
    failing: Gauge,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let turns = |outcome: &str| {
            let help = "artifacts whose turn ended, by how: sent, found there, gone from the cluster, failed";
            registry.counter("raftgrid_mirror_artifacts_total", help, &[("outcome", outcome)])
        };
        let counter = |name: &str, help: &str| registry.counter(name, help, &[]);
        let gauge = |name: &str, help: &str| registry.gauge(name, help, &[]);
        Self {
            sent: turns("sent"),
            found: turns("found"),
            gone: turns("gone"),
            failed: turns("failed"),
            mirrored_bytes: counter("raftgrid_mirror_mirrored_bytes_total", "bytes of artifacts that the mirror has"),
            failed_bytes: counter(
                "raftgrid_mirror_failed_bytes_total",
                "bytes of artifacts that could not be mirrored, counted at each try",
            ),
            sent_bytes: counter("raftgrid_mirror_sent_bytes_total", "bytes sent to the mirror"),
            aborted: counter("raftgrid_mirror_uploads_aborted_total", "half uploads that were thrown away"),
            pending: gauge("raftgrid_mirror_pending_count", "on the leader: artifacts that wait to be mirrored"),
            pending_bytes: gauge("raftgrid_mirror_pending_bytes", "on the leader: bytes of these artifacts"),
            failing: gauge(
                "raftgrid_mirror_failing_state",
                "on the leader: 1 if the last turn failed; the log says why",
            ),
        }
    }

    pub(crate) fn pending(&self, (artifacts, bytes): (usize, u64)) {
        self.pending.set(artifacts as f64);
        self.pending_bytes.set(bytes as f64);
    }

    pub(crate) fn failing(&self, failing: bool) {
        self.failing.set(f64::from(u8::from(failing)));
    }
}
