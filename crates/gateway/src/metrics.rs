//! What the HTTP port counts of itself.

use raftgrid_telemetry::{Counter, Registry};

/// Counters of the HTTP port.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Connections that were closed without an answer because too many were open.
    pub(crate) refused: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let help = "HTTP connections closed without an answer because too many were open";
        Self {
            registry: registry.clone(),
            refused: registry.counter("raftgrid_http_connections_refused_total", help, &[]),
        }
    }

    /// One answer. `route` is one of ours, so the labels have a bound.
    pub(crate) fn answered(&self, route: &'static str, status: u16) {
        let labels = [("route", route), ("status", &status.to_string())];
        self.registry.counter("raftgrid_http_requests_total", "HTTP requests, by route and status", &labels).inc();
    }
}
