//! What the services count and measure.

use std::time::Instant;

use grpcio::RpcStatusCode;
use raftgrid_telemetry::{Counter, Histogram, Registry};

/// Bounds of durations, in seconds. Long polls end at half a minute.
const SECONDS: &[f64] = &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Handles of the services' metrics. Clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Bytes of gradients, models and artifacts that clients sent.
    pub(crate) uploaded_bytes: Counter,
    /// Bytes of models and artifacts that clients were sent.
    pub(crate) downloaded_bytes: Counter,
    /// Calls sent on to the leader.
    pub(crate) forwarded: Counter,
}

/// Of one unary method.
#[derive(Clone)]
pub(crate) struct MethodMetrics {
    registry: Registry,
    method: String,
    served: Counter,
    seconds: Histogram,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let plain = |name: &str, help: &str| registry.counter(name, help, &[]);
        Self {
            registry: registry.clone(),
            uploaded_bytes: plain(
                "raftgrid_upload_bytes_total",
                "bytes of gradients, models and artifacts from clients",
            ),
            downloaded_bytes: plain("raftgrid_download_bytes_total", "bytes of models and artifacts to clients"),
            forwarded: plain("raftgrid_calls_forwarded_total", "calls sent on to the leader, whole"),
        }
    }

    /// Of the method with this full path.
    pub(crate) fn method(&self, path: &str) -> MethodMetrics {
        let method = path.strip_prefix("/raftgrid.v1.").unwrap_or(path).to_owned();
        let served = calls(&self.registry, &method, "OK");
        let help = "unary calls of clients, forwarded ones included, by method";
        let seconds = self.registry.histogram("raftgrid_call_seconds", help, &[("method", &method)], SECONDS);
        MethodMetrics { registry: self.registry.clone(), method, served, seconds }
    }

    /// What is open now, by kind.
    pub(crate) fn open(&self, kinds: &[(&str, usize)]) {
        for (kind, count) in kinds {
            let help = "uploads, downloads, watches and forwarded calls under way";
            self.registry.gauge("raftgrid_streams_open_count", help, &[("kind", kind)]).set(*count as f64);
        }
    }
}

impl MethodMetrics {
    /// A call that began then is answered with this code.
    pub(crate) fn answered(&self, began: Instant, code: RpcStatusCode) {
        self.seconds.observe(began.elapsed().as_secs_f64());
        if code == RpcStatusCode::OK {
            self.served.inc();
        } else {
            calls(&self.registry, &self.method, &name(code)).inc();
        }
    }
}

fn calls(registry: &Registry, method: &str, code: &str) -> Counter {
    let help = "unary calls of clients, by method and status";
    registry.counter("raftgrid_calls_total", help, &[("method", method), ("code", code)])
}

/// `UNAVAILABLE` of `14-UNAVAILABLE`.
fn name(code: RpcStatusCode) -> String {
    let text = code.to_string();
    text.split_once('-').map_or(text.clone(), |(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_method_and_status() {
        let registry = Registry::new();
        let method = Metrics::new(&registry).method("/raftgrid.v1.TaskService/GetTask");
        method.answered(Instant::now(), RpcStatusCode::OK);
        method.answered(Instant::now(), RpcStatusCode::RESOURCE_EXHAUSTED);
        method.answered(Instant::now(), RpcStatusCode::RESOURCE_EXHAUSTED);
        let text = registry.exposition();
        for line in [
            "raftgrid_calls_total{method=\"TaskService/GetTask\",code=\"OK\"} 1\n",
            "raftgrid_calls_total{method=\"TaskService/GetTask\",code=\"RESOURCE_EXHAUSTED\"} 2\n",
            "raftgrid_call_seconds_count{method=\"TaskService/GetTask\"} 3\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
