//! What the streams between replicas count.

use raftgrid_driver::NodeId;
use raftgrid_telemetry::{Counter, Gauge, Registry};

/// Handles of the metrics of streams. Clones share them; by default they count for nobody.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) snapshot_bytes_in: Counter,
    pub(crate) snapshot_bytes_out: Counter,
    pub(crate) fragment_bytes_in: Counter,
    pub(crate) fragment_bytes_out: Counter,
    /// Streams of other clusters, of unknown stores, for other nodes, in the name of others.
    pub(crate) refused: Counter,
}

/// Connections to ports of this process that did not get past the handshake: without a certificate, with one that is not believed, without
/// TLS where there is one, given up. They are no streams yet.
pub fn handshakes_failed(registry: &Registry) -> Counter {
    registry.counter(
        "raftgrid_peer_handshakes_failed_total",
        "connections that did not get past the handshake: no certificate, one that is not believed, no TLS",
        &[],
    )
}

/// Of the stream of raft messages to one peer.
#[derive(Clone)]
pub(crate) struct LinkMetrics {
    pub(crate) messages: Counter,
    pub(crate) bytes: Counter,
    /// Messages that found the outbox full, or waited in it when the stream broke.
    pub(crate) dropped: Counter,
    pub(crate) waiting: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(&Registry::new())
    }
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let bytes = |name: &str, help: &str, direction: &str| registry.counter(name, help, &[("direction", direction)]);
        let snapshot = |direction| {
            bytes(
                "raftgrid_snapshot_bytes_total",
                "bytes of snapshots received from and sent to other replicas",
                direction,
            )
        };
        let fragment = |direction| {
            bytes(
                "raftgrid_fragment_bytes_total",
                "bytes of fragments received from and sent to other replicas",
                direction,
            )
        };
        Self {
            registry: registry.clone(),
            snapshot_bytes_in: snapshot("in"),
            snapshot_bytes_out: snapshot("out"),
            fragment_bytes_in: fragment("in"),
            fragment_bytes_out: fragment("out"),
            refused: registry.counter(
                "raftgrid_peer_streams_refused_total",
                "streams refused at the door: of another cluster, for another node, from another store, without its certificate",
                &[],
            ),
        }
    }

    /// Of one peer; there are at most `PEERS_MAX`.
    pub(crate) fn link(&self, to: NodeId) -> LinkMetrics {
        let (to, registry) = (to.to_string(), &self.registry);
        let counter = |name: &str, help: &str| registry.counter(name, help, &[("peer", &to)]);
        LinkMetrics {
            messages: counter("raftgrid_peer_messages_sent_total", "raft messages sent, by addressee"),
            bytes: counter("raftgrid_peer_bytes_sent_total", "bytes of raft messages sent, by addressee"),
            dropped: counter(
                "raftgrid_peer_messages_not_sent_total",
                "raft messages that did not fit the outbox, or were in it when the stream broke",
            ),
            waiting: registry.gauge(
                "raftgrid_peer_outbox_messages_count",
                "raft messages that wait, by addressee",
                &[("peer", &to)],
            ),
        }
    }
}
