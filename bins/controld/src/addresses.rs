//! Where this replica listens, and where others are told to find it.

use std::net::IpAddr;

use raftgrid_proto::v1::MemberRow;
use raftgrid_settings::{Settings, SettingsError};

use crate::tls;

/// Default port of the client API.
pub(crate) const CLIENT_PORT: u16 = 40_051;
/// Default port of Raft.
pub(crate) const RAFT_PORT: u16 = 50_051;

/// Where this replica listens, and where others find it. Each is host:port.
pub(crate) struct Addresses {
    pub client: String,
    pub raft: String,
    pub advertised_raft: String,
    /// None: nobody said.
    pub advertised_client: Option<String>,
}

/// Reads them.
pub(crate) fn addresses(settings: &Settings) -> Result<Addresses, SettingsError> {
    let mut client = with_port(&settings.need::<String>("client_addr", "client-addr")?, CLIENT_PORT);
    let raft = with_port(&settings.need::<String>("raft_addr", "raft-addr")?, RAFT_PORT);
    if let Some(port) = settings.parse::<u16>("grpc.port")? {
        // A node file has one address to bind and two ports.
        let bound = if settings.given("client_addr") { &client } else { &raft };
        client = format!("{}:{port}", host(bound));
    }
    let insecure: bool = settings.parse("insecure")?.unwrap_or(false);
    let client_rule = (insecure, "only loopback may be listened on without TLS and tokens; --insecure allows it");
    let raft_rule = (
        insecure || tls::given(settings),
        "only loopback may be listened on without certificates; give tls.peer_cert, tls.peer_key and tls.peer_ca \
         (gridctl cluster certs makes them), or --insecure",
    );
    for (key, address, (open, cause)) in [("client_addr", &client, client_rule), ("raft_addr", &raft, raft_rule)] {
        check_address(settings, key, address)?;
        if !open && !is_loopback(host(address)) {
            return Err(settings.bad(key, cause));
        }
    }
    let Some(advertised) = settings.get("advertise_address").filter(|address| !address.is_empty()) else {
        return Ok(Addresses { advertised_raft: raft.clone(), advertised_client: None, client, raft });
    };
    let (_, port) = raft.rsplit_once(':').unwrap_or_default();
    let advertised_raft = if advertised.contains(':') { advertised.to_owned() } else { format!("{advertised}:{port}") };
    check_address(settings, "advertise_address", &advertised_raft)?;
    let (_, port) = client.rsplit_once(':').unwrap_or_default();
    let advertised_client = Some(format!("{}:{port}", host(&advertised_raft)));
    Ok(Addresses { client, raft, advertised_raft, advertised_client })
}

/// What clients are told: what was said; or what the list of peers says of a replica that listens everywhere; or where it listens.
pub(crate) fn advertised_client(addresses: &Addresses, own: Option<&MemberRow>) -> String {
    if let Some(said) = &addresses.advertised_client {
        return said.clone();
    }
    let bare = host(&addresses.client).trim_start_matches('[').trim_end_matches(']');
    let everywhere = bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    own.filter(|_| everywhere).map_or_else(|| addresses.client.clone(), |own| own.client_address.clone())
}

fn check_address(settings: &Settings, key: &str, address: &str) -> Result<(), SettingsError> {
    match address.rsplit_once(':') {
        None | Some(("", _)) => Err(settings.bad(key, "an address is HOST:PORT")),
        Some((_, port)) if port.parse::<u16>().is_err() => Err(settings.bad(key, "the port is a number below 65536")),
        Some(_) => Ok(()),
    }
}

/// An IP address alone gets the port; what may be a host's name stays as it is.
pub(crate) fn with_port(address: &str, port: u16) -> String {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        Ok(IpAddr::V4(ip)) => format!("{ip}:{port}"),
        Err(_) if address == "localhost" => format!("localhost:{port}"),
        Err(_) => address.to_owned(),
    }
}

fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// Items of a list with commas.
pub(crate) fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
