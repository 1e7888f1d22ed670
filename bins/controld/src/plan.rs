//! What the settings mean: who this replica is, with whom it founds, how patient it is. Pure, but for the names of addresses.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use raftgrid_driver::NodeId;
use raftgrid_peer::limits::SNAPSHOT_BYTES_PER_SECOND_MIN;
use raftgrid_proto::v1::MemberRow;
use raftgrid_settings::{founding, Settings, SettingsError};
use raftgrid_store::limits::LOW_WATER_BYTES;
use raftgrid_store::BootMode;

/// Default port of the client API.
const CLIENT_PORT: u16 = 40_051;

/// Longest time for which one snapshot is sent.
pub(crate) const SNAPSHOT_TIMEOUT_MS: u64 = 3_600_000;
/// How much later raft takes a snapshot for lost whose end was never reported.
const SNAPSHOT_REPORT_SLACK_MS: u64 = 60_000;

/// Everything that `start` needs.
#[derive(Debug)]
pub(crate) struct Plan {
    /// This replica.
    pub node: NodeId,
    /// Found or join.
    pub boot: BootMode,
    /// State.
    pub data_dir: PathBuf,
    /// Listens for clients here.
    pub client_addr: String,
    /// Listens for peers here.
    pub raft_addr: String,
    /// Members whose addresses are known at the start.
    pub members: Vec<MemberRow>,
    /// Bytes per second of one snapshot on its way to another replica; 0: no limit.
    pub snapshot_bytes_per_second: u64,
    /// Below so many free bytes this replica takes nothing new.
    pub low_water_bytes: u64,
    /// Of the raft group.
    pub driver: raftgrid_driver::Config,
    /// Of the leader's loops.
    pub control: raftgrid_control::Config,
}

/// Makes the plan, or says which setting is wrong.
pub(crate) fn plan(settings: &Settings) -> Result<Plan, SettingsError> {
    let node = node_id(settings)?;
    let cluster_name: String = settings.need("cluster_name", "cluster-name")?;
    let data_dir: PathBuf = settings.need::<String>("data_dir", "data-dir")?.into();
    let (client_addr, raft_addr) = addresses(settings)?;
    let mut members = peers(settings)?;
    let join: bool = settings.parse("join")?.unwrap_or(false);
    let expects_itself_alone = members.is_empty() && settings.parse("bootstrap_expect")? == Some(1_usize);
    let bootstrap = settings.parse("bootstrap")?.unwrap_or(false) || expects_itself_alone;
    if join && bootstrap {
        return Err(settings.bad("join", "a replica founds a cluster or joins one, not both"));
    }
    if join && members.is_empty() {
        return Err(settings.bad("join", "peers must name the founders, as they were founded"));
    }
    let this = member(node, &raft_addr, &client_addr);
    if members.is_empty() && !join && !bootstrap {
        return Err(SettingsError::Missing {
            key: "peers".to_owned(),
            flag: "peers (or --bootstrap, or --join)".to_owned(),
        });
    }
    if bootstrap {
        members = vec![this.clone()];
    }
    if !join && !members.iter().any(|row| row.node_id == node) {
        return Err(settings.bad("peers", format!("replica {node} itself is not on the list")));
    }
    if let Some(expected) = settings.parse::<usize>("bootstrap_expect")? {
        if !join && expected != members.len() {
            return Err(settings.bad("bootstrap_expect", format!("the list of peers has {}", members.len())));
        }
    }
    let founders: Vec<NodeId> = members.iter().map(|row| row.node_id).collect();
    let cluster_id = founding::cluster_id(&cluster_name, &founders);
    let boot = if join {
        BootMode::Join {
            cluster_id: settings.get("cluster_id").filter(|id| !id.is_empty()).map_or(cluster_id, str::to_owned),
            node_id: node,
        }
    } else {
        BootMode::Found { cluster_id, node_id: node, founders }
    };
    let (driver, control) = patience(settings, node)?;
    let low_water_bytes = settings.parse("disk.low_water_bytes")?.unwrap_or(LOW_WATER_BYTES);
    let snapshot_bytes_per_second = snapshot_rate(settings)?;
    Ok(Plan {
        snapshot_bytes_per_second,
        low_water_bytes,
        node,
        boot,
        data_dir,
        client_addr,
        raft_addr,
        members,
        driver,
        control,
    })
}

fn snapshot_rate(settings: &Settings) -> Result<u64, SettingsError> {
    let rate = settings.parse("raft.snapshot_bytes_per_second")?.unwrap_or(0);
    if (1..SNAPSHOT_BYTES_PER_SECOND_MIN).contains(&rate) {
        let cause = format!("0 is no limit, and the slowest rate is {SNAPSHOT_BYTES_PER_SECOND_MIN}");
        return Err(settings.bad("raft.snapshot_bytes_per_second", cause));
    }
    Ok(rate)
}

/// A number; or, in the JSON files of existing clusters, a name: then the place of this replica's address in the list of peers.
fn node_id(settings: &Settings) -> Result<NodeId, SettingsError> {
    let text: String = settings.need("node_id", "node-id")?;
    let digits: String = text.chars().skip_while(|c| !c.is_ascii_digit()).collect();
    match digits.parse() {
        Ok(node) if node > 0 => Ok(node),
        _ => Err(settings.bad("node_id", "a replica's number is 1 or more; a name must end with it")),
    }
}

fn addresses(settings: &Settings) -> Result<(String, String), SettingsError> {
    let mut client_addr: String = settings.need("client_addr", "client-addr")?;
    let raft_addr: String = settings.need("raft_addr", "raft-addr")?;
    if let Some(port) = settings.parse::<u16>("grpc.port")? {
        let host = client_addr.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
        client_addr = format!("{host}:{port}");
    }
    let insecure: bool = settings.parse("insecure")?.unwrap_or(false);
    for (key, address) in [("client_addr", &client_addr), ("raft_addr", &raft_addr)] {
        let Some((host, port)) = address.rsplit_once(':') else {
            return Err(settings.bad(key, "an address is HOST:PORT"));
        };
        if port.parse::<u16>().is_err() {
            return Err(settings.bad(key, "the port is a number below 65536"));
        }
        if !insecure && !is_loopback(host) {
            let cause = "only loopback may be listened on without TLS and tokens; --insecure allows it";
            return Err(settings.bad(key, cause));
        }
    }
    Ok((client_addr, raft_addr))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// `ID=RAFT/CLIENT`, or the bare `HOST:PORT` of existing JSON files: numbered in order, clients on the default port of the same host.
fn peers(settings: &Settings) -> Result<Vec<MemberRow>, SettingsError> {
    let Some(list) = settings.get("peers").filter(|list| !list.is_empty()) else { return Ok(Vec::new()) };
    let mut members: Vec<MemberRow> = Vec::new();
    let client_port = settings.parse::<u16>("grpc.port")?.unwrap_or(CLIENT_PORT);
    for (place, item) in list.split(',').map(str::trim).filter(|item| !item.is_empty()).enumerate() {
        let bad = |cause: &str| settings.bad("peers", format!("`{item}`: {cause}"));
        let row = match item.split_once('=') {
            Some((id, addresses)) => {
                let id: NodeId = id.parse().map_err(|_| bad("the part before `=` is the replica's number"))?;
                let (raft, client) =
                    addresses.split_once('/').ok_or_else(|| bad("write ID=RAFT_HOST:PORT/CLIENT_HOST:PORT"))?;
                member(id, raft, client)
            }
            None => {
                let (host, _) = item.rsplit_once(':').ok_or_else(|| bad("write ID=RAFT_HOST:PORT/CLIENT_HOST:PORT"))?;
                member(place as NodeId + 1, item, &format!("{host}:{client_port}"))
            }
        };
        if row.node_id == 0 || members.iter().any(|other| other.node_id == row.node_id) {
            return Err(bad("every replica has a number of its own, from 1"));
        }
        members.push(row);
    }
    members.sort_by_key(|row| row.node_id);
    Ok(members)
}

fn member(node: NodeId, raft: &str, client: &str) -> MemberRow {
    let mut row = MemberRow::new();
    row.set_node_id(node);
    row.set_raft_address(raft.to_owned());
    row.set_client_address(client.to_owned());
    row
}

fn patience(
    settings: &Settings,
    node: NodeId,
) -> Result<(raftgrid_driver::Config, raftgrid_control::Config), SettingsError> {
    let mut driver = raftgrid_driver::Config::new(node);
    let mut control = raftgrid_control::Config::lan();
    match settings.get("preset").unwrap_or("lan") {
        "local" => {
            driver.tick_ms = 10;
            driver.election_timeout_ms = 200;
            control = raftgrid_control::Config::local();
        }
        "lan" => {}
        "wan" => {
            driver.tick_ms = 100;
            driver.election_timeout_ms = 5_000;
            control.lease_ttl_ms *= 2;
            control.election_grace_ms *= 2;
        }
        _ => return Err(settings.bad("preset", "presets are local, lan and wan")),
    }
    // Of the two names that exist, the larger counts.
    let given = settings.duration_ms("raft.heartbeat_timeout")?.max(settings.duration_ms("raft.election_timeout")?);
    if let Some(timeout) = given {
        if timeout < 50 {
            return Err(settings.bad("raft.election_timeout", "less than 50ms elects without end"));
        }
        driver.election_timeout_ms = timeout;
        driver.tick_ms = (timeout / 20).clamp(5, 100);
    }
    if let Some(interval) = settings.duration_ms("raft.snapshot_interval")? {
        driver.snapshot_interval_ms = interval;
    }
    if let Some(threshold) = settings.parse("raft.snapshot_threshold")? {
        driver.snapshot_threshold_entries = threshold;
    }
    if let Some(tail) = settings.parse("raft.log_tail_entries")? {
        driver.log_tail_entries = tail;
    }
    // A snapshot that is still on its way must not count as failed.
    driver.snapshot_report_ms = SNAPSHOT_TIMEOUT_MS + SNAPSHOT_REPORT_SLACK_MS;
    // Replicas must not campaign in step: spread by number and by start.
    driver.timeout_seed = node.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    control.jitter_seed = driver.timeout_seed;
    Ok((driver, control))
}

/// Whether an address can be resolved now; a name that cannot is better refused at the start.
pub(crate) fn resolves(address: &str) -> bool {
    use std::net::ToSocketAddrs;
    address.parse::<SocketAddr>().is_ok() || address.to_socket_addrs().is_ok_and(|mut found| found.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::KEYS;

    fn planned(flags: &[(&'static str, &str)]) -> Result<Plan, String> {
        let flags: Vec<_> = flags.iter().map(|(key, value)| (*key, Some((*value).to_owned()))).collect();
        let settings =
            Settings::load(KEYS, None, "NONE_", std::iter::empty(), &flags).map_err(|error| error.to_string())?;
        plan(&settings).map_err(|error| error.to_string())
    }

    const PEERS: &str = "1=127.0.0.1:1/127.0.0.1:2,2=127.0.0.1:3/127.0.0.1:4";

    #[test]
    fn founders_with_the_same_name_and_list_get_the_same_cluster_and_others_do_not() {
        let one = planned(&[("node_id", "1"), ("data_dir", "/d"), ("peers", PEERS)]).unwrap();
        let two = planned(&[("node_id", "2"), ("data_dir", "/e"), ("peers", PEERS)]).unwrap();
        let other = planned(&[("node_id", "1"), ("data_dir", "/d"), ("peers", PEERS), ("cluster_name", "x")]).unwrap();
        let alone = planned(&[("node_id", "1"), ("data_dir", "/d"), ("bootstrap", "true")]).unwrap();
        let id = |plan: &Plan| match &plan.boot {
            BootMode::Found { cluster_id, .. } | BootMode::Join { cluster_id, .. } => cluster_id.clone(),
        };
        assert_eq!(id(&one), id(&two));
        assert_ne!(id(&one), id(&other));
        assert_ne!(id(&one), id(&alone));
        let joins = [("node_id", "9"), ("data_dir", "/d"), ("peers", PEERS), ("join", "true")];
        assert_eq!(id(&planned(&joins).unwrap()), id(&one));
        let named = planned(&[&joins[..], &[("cluster_id", "a+b")]].concat()).unwrap();
        assert_eq!(id(&named), "a+b", "a cluster that was recovered goes by its own id");
    }

    #[test]
    fn each_wrong_setting_is_named_with_its_value() {
        for (flags, expected) in [
            (vec![("data_dir", "/d"), ("peers", PEERS)], "`node_id` is not set"),
            (vec![("node_id", "3"), ("data_dir", "/d"), ("peers", PEERS)], "replica 3 itself is not on the list"),
            (vec![("node_id", "1"), ("peers", PEERS)], "`data_dir` is not set"),
            (vec![("node_id", "1"), ("data_dir", "/d")], "`peers` is not set"),
            (vec![("node_id", "1"), ("data_dir", "/d"), ("peers", "1=a")], "ID=RAFT_HOST:PORT/CLIENT_HOST:PORT"),
            (vec![("node_id", "1"), ("data_dir", "/d"), ("peers", PEERS), ("preset", "fast")], "presets are"),
            (vec![("node_id", "1"), ("data_dir", "/d"), ("peers", PEERS), ("client_addr", "0.0.0.0:1")], "--insecure"),
            (vec![("node_id", "1"), ("data_dir", "/d"), ("peers", PEERS), ("raft_addr", "here")], "HOST:PORT"),
            (vec![("node_id", "1"), ("data_dir", "/d"), ("join", "true")], "peers must name the founders"),
            (vec![("node_id", "1"), ("data_dir", "/d"), ("join", "true"), ("bootstrap", "true")], "not both"),
            (vec![("node_id", "0"), ("data_dir", "/d"), ("peers", PEERS)], "1 or more"),
            (
                vec![("node_id", "1"), ("data_dir", "/d"), ("peers", PEERS), ("raft.snapshot_bytes_per_second", "10")],
                "the slowest rate is",
            ),
        ] {
            let error = planned(&flags).unwrap_err();
            assert!(error.contains(expected), "{flags:?}: {error}");
        }
    }
}
