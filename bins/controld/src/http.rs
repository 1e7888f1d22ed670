//! The HTTP port of this replica: where it is, and what is behind it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use raftgrid_api::Services;
use raftgrid_gateway::{Gateway, GatewayError, Site};
use raftgrid_replica::Replica;
use raftgrid_rpc::tls::Tls;
use raftgrid_settings::{Settings, SettingsError};
use raftgrid_telemetry::{sample_process, Registry};
use slog::{info, warn, Logger};

/// A raft thread that takes no turn for so long is stuck: it takes one each tick at least.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Where the port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpPlan {
    /// host:port; None: there is no port.
    pub address: Option<String>,
    /// Somebody asked for this address: without it the replica does not start. The default is given up to who has it already, since several
    /// replicas on one machine would quarrel for it.
    pub insisted: bool,
}

/// What the settings say.
pub(crate) fn plan(settings: &Settings) -> Result<HttpPlan, SettingsError> {
    let insisted = settings.given("http_addr");
    let address: String = settings.need("http_addr", "http-addr")?;
    if matches!(address.as_str(), "off" | "") {
        return Ok(HttpPlan { address: None, insisted });
    }
    let host = match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => host,
        _ => return Err(settings.bad("http_addr", "an address is HOST:PORT, or off")),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !loopback && !settings.parse("insecure")?.unwrap_or(false) {
        let cause = "only loopback may be listened on without TLS and tokens; --insecure allows it";
        return Err(settings.bad("http_addr", cause));
    }
    Ok(HttpPlan { address: Some(address), insisted })
}

/// Opens the port, if there is to be one.
pub(crate) fn open(
    plan: &HttpPlan,
    registry: Registry,
    replica: Arc<Replica>,
    services: Services,
    tls: Option<Arc<Tls>>,
    logger: &Logger,
) -> Result<Option<Gateway>> {
    let Some(address) = &plan.address else { return Ok(None) };
    let site = Shown { registry: registry.clone(), replica, services, tls, turns: Mutex::new((0, Instant::now())) };
    match Gateway::start(address, Arc::new(site), &registry) {
        Ok(gateway) => {
            info!(logger, "metrics and health are served"; "http_addr" => %gateway.address());
            Ok(Some(gateway))
        }
        Err(error @ GatewayError::Listen { .. }) if !plan.insisted => {
            warn!(logger, "no metrics: the default HTTP port is not free, --http-addr gives another"; "cause" => %error);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

struct Shown {
    registry: Registry,
    replica: Arc<Replica>,
    services: Services,
    tls: Option<Arc<Tls>>,
    /// Turns of the raft thread, and when they were seen to move.
    turns: Mutex<(u64, Instant)>,
}

impl Site for Shown {
    fn metrics(&self) -> String {
        self.replica.sample(&self.registry);
        self.services.sample();
        sample_process(&self.registry);
        if let Some(tls) = &self.tls {
            let help = "until the certificate of the Raft port, or one above it, ends";
            self.registry.gauge("raftgrid_peer_certificate_left_seconds", help, &[]).set(tls.left_s() as f64);
        }
        self.registry.exposition()
    }

    fn healthy(&self) -> Result<(), String> {
        let now = (self.replica.handle().turns(), Instant::now());
        let mut seen = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != now.0 {
            *seen = now;
        }
        let still = now.1.duration_since(seen.1);
        if still >= STUCK_AFTER {
            return Err(format!("the raft thread has made no step for {} s", still.as_secs()));
        }
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        self.replica.ready()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::KEYS;

    fn planned(flags: &[(&'static str, &str)]) -> Result<HttpPlan, String> {
        let flags: Vec<_> = flags.iter().map(|(key, value)| (*key, Some((*value).to_owned()))).collect();
        let settings = Settings::load(KEYS, None, "NONE_", std::iter::empty(), &flags).map_err(|it| it.to_string())?;
        plan(&settings).map_err(|error| error.to_string())
    }

    #[test]
    fn the_port_has_a_default_can_be_moved_and_turned_off_and_is_not_opened_to_the_world() {
        let default = planned(&[]).unwrap();
        assert_eq!((default.address.as_deref(), default.insisted), (Some("127.0.0.1:30051"), false));
        let moved = planned(&[("http_addr", "[::1]:9")]).unwrap();
        assert_eq!((moved.address.as_deref(), moved.insisted), (Some("[::1]:9"), true));
        assert_eq!(planned(&[("http_addr", "off")]).unwrap().address, None);
        assert!(planned(&[("http_addr", "0.0.0.0:9")]).unwrap_err().contains("--insecure"));
        assert!(planned(&[("http_addr", "0.0.0.0:9"), ("insecure", "true")]).is_ok());
        assert!(planned(&[("http_addr", "9")]).unwrap_err().contains("HOST:PORT"));
    }
}
