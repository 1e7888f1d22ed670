//! What the settings mean: who this replica is, with whom it founds, how patient it is. Pure, but for the names of addresses.

use std::net::SocketAddr;
use std::path::PathBuf;

use raftgrid_driver::NodeId;
use raftgrid_manifest::MACHINE_VERSION;
use raftgrid_peer::limits::SNAPSHOT_BYTES_PER_SECOND_MIN;
use raftgrid_proto::v1::MemberRow;
use raftgrid_replica::BlobSettings;
use raftgrid_settings::{founding, Settings, SettingsError};
use raftgrid_store::limits::LOW_WATER_BYTES;
use raftgrid_store::BootMode;

use crate::addresses::{addresses, advertised_client, items, with_port, Addresses, CLIENT_PORT, RAFT_PORT};
use crate::http::{self, HttpPlan};
use crate::lease;
use crate::mirror::{self, MirrorPlan};
use crate::tls::{self, TlsPlan};

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
    /// Certificates of the Raft port; None: it is plain.
    pub tls: Option<TlsPlan>,
    /// Metrics and health.
    pub http: HttpPlan,
    /// Clients are told to come here.
    pub advertised_client: String,
    /// Peers are told to come here.
    pub advertised_raft: String,
    /// Streams that one client's connection may have open; None: the server's default.
    pub streams_max: Option<i32>,
    /// Members whose addresses are known at the start.
    pub members: Vec<MemberRow>,
    /// Bytes per second of one snapshot on its way to another replica; 0: no limit.
    pub snapshot_bytes_per_second: u64,
    /// Newest version of the state machine that this replica says it can run.
    pub machine_version: u64,
    /// How artifacts are kept, and how much they may take.
    pub blob: BlobSettings,
    /// Below so many free bytes this replica takes nothing new.
    pub low_water_bytes: u64,
    /// Where committed artifacts are copied to; None: nowhere.
    pub mirror: Option<MirrorPlan>,
    /// Of the raft group.
    pub driver: raftgrid_driver::Config,
    /// Of the leader's loops.
    pub control: raftgrid_control::Config,
}

/// Makes the plan, or says which setting is wrong.
pub(crate) fn plan(settings: &Settings) -> Result<Plan, SettingsError> {
    let addresses = addresses(settings)?;
    let node = node_id(settings, &addresses)?;
    let cluster_name: String = settings.need("cluster_name", "cluster-name")?;
    let data_dir: PathBuf = settings.need::<String>("data_dir", "data-dir")?.into();
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
    if members.is_empty() && !join && !bootstrap {
        return Err(SettingsError::Missing {
            key: "peers".to_owned(),
            flag: "peers (or --bootstrap, or --join)".to_owned(),
        });
    }
    let advertised_client = advertised_client(&addresses, members.iter().find(|row| row.node_id == node));
    if bootstrap {
        members = vec![member(node, &addresses.advertised_raft, &advertised_client)];
    }
    if !join && !members.iter().any(|row| row.node_id == node) {
        return Err(settings.bad("peers", format!("replica {node} itself is not on the list")));
    }
    if let Some(expected) = settings.parse::<usize>("bootstrap_expect")? {
        if !join && expected != members.len() {
            return Err(settings.bad("bootstrap_expect", format!("the list of peers has {}", members.len())));
        }
    }
    let own = members.iter().find(|row| row.node_id == node).map(|row| row.raft_address.clone());
    let advertised_raft = own.unwrap_or_else(|| addresses.advertised_raft.clone());
    let boot = boot(settings, node, join, &cluster_name, &members)?;
    let (driver, control) = patience(settings, node)?;
    let snapshot_bytes_per_second = snapshot_rate(settings)?;
    Ok(Plan {
        snapshot_bytes_per_second,
        machine_version: machine_version(settings)?,
        blob: BlobSettings {
            bytes_max: settings.parse("blob.bytes_max")?.unwrap_or(0),
            principal_bytes_max: settings.parse("blob.principal_bytes_max")?.unwrap_or(0),
            coded: settings.parse("blob.coded")?.unwrap_or(true),
        },
        low_water_bytes: settings.parse("disk.low_water_bytes")?.unwrap_or(LOW_WATER_BYTES),
        mirror: mirror::plan(settings, &|name| std::env::var(name).ok())?,
        node,
        boot,
        data_dir,
        client_addr: addresses.client,
        raft_addr: addresses.raft,
        tls: tls::plan(settings, node, &cluster_name)?,
        http: http::plan(settings)?,
        advertised_client,
        advertised_raft,
        streams_max: streams_max(settings)?,
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

/// One that is held back keeps the whole group where it is, so that the older program can still be started again.
fn machine_version(settings: &Settings) -> Result<u64, SettingsError> {
    match settings.parse("raft.machine_version_max")? {
        None => Ok(MACHINE_VERSION),
        Some(version) if (1..=MACHINE_VERSION).contains(&version) => Ok(version),
        Some(_) => Err(settings.bad("raft.machine_version_max", format!("this program knows 1 to {MACHINE_VERSION}"))),
    }
}

/// Whether this replica founds its cluster or joins one, and that cluster's id.
fn boot(
    settings: &Settings,
    node: NodeId,
    join: bool,
    cluster_name: &str,
    members: &[MemberRow],
) -> Result<BootMode, SettingsError> {
    let founders: Vec<NodeId> = members.iter().map(|row| row.node_id).collect();
    let derived = founding::cluster_id(cluster_name, &founders);
    let given = settings.get("cluster_id").filter(|id| !id.is_empty());
    match (join, given) {
        (true, given) => Ok(BootMode::Join { cluster_id: given.map_or(derived, str::to_owned), node_id: node }),
        (false, Some(_)) => Err(settings
            .bad("cluster_id", "only a replica that joins is told the id; a founder's follows from name and peers")),
        (false, None) => Ok(BootMode::Found { cluster_id: derived, node_id: node, founders }),
    }
}

fn streams_max(settings: &Settings) -> Result<Option<i32>, SettingsError> {
    match settings.parse::<i32>("grpc.max_concurrent_streams")? {
        Some(streams) if streams < 1 => Err(settings.bad("grpc.max_concurrent_streams", "it must be at least 1")),
        streams => Ok(streams),
    }
}

/// A number; or, as in the JSON files of existing clusters, a name. Bare peers are numbered by their place, so a name without a number is that
/// of this replica's address among them, and a number must be the same as the place.
fn node_id(settings: &Settings, addresses: &Addresses) -> Result<NodeId, SettingsError> {
    let text: String = settings.need("node_id", "node-id")?;
    let digits = &text[text.trim_end_matches(|c: char| c.is_ascii_digit()).len()..];
    let number: Option<NodeId> = match (digits, digits.parse()) {
        ("", _) => None,
        (_, Ok(number)) if number > 0 => Some(number),
        (_, _) => return Err(settings.bad("node_id", "a replica's number is 1 or more")),
    };
    let own = [&addresses.advertised_raft, &addresses.raft];
    let place = items(settings.get("peers").unwrap_or_default())
        .position(|item| own.iter().any(|own| *own == &with_port(item, RAFT_PORT)))
        .map(|place| place as NodeId + 1);
    match (number, place) {
        (Some(number), Some(place)) if number != place => {
            let cause = format!("its address is number {place} of peers, and bare peers are numbered by their place");
            Err(settings.bad("node_id", cause))
        }
        (Some(number), _) => Ok(number),
        (None, Some(place)) => Ok(place),
        (None, None) => {
            let cause = "it has no number; end it with one, or list advertise_address (or bind_address) among peers";
            Err(settings.bad("node_id", cause))
        }
    }
}

/// `ID=RAFT/CLIENT`, or the bare `HOST:PORT` of existing JSON files: numbered in order, clients on the default port of the same host.
fn peers(settings: &Settings) -> Result<Vec<MemberRow>, SettingsError> {
    let Some(list) = settings.get("peers").filter(|list| !list.is_empty()) else { return Ok(Vec::new()) };
    let mut members: Vec<MemberRow> = Vec::new();
    let client_port = settings.parse::<u16>("grpc.port")?.unwrap_or(CLIENT_PORT);
    for (place, item) in items(list).enumerate() {
        let bad = |cause: &str| settings.bad("peers", format!("`{item}`: {cause}"));
        let row = match item.split_once('=') {
            Some((id, addresses)) => {
                let id: NodeId = id.parse().map_err(|_| bad("the part before `=` is the replica's number"))?;
                let (raft, client) =
                    addresses.split_once('/').ok_or_else(|| bad("write ID=RAFT_HOST:PORT/CLIENT_HOST:PORT"))?;
                member(id, raft, client)
            }
            None => {
                let raft = with_port(item, RAFT_PORT);
                let (host, _) = raft.rsplit_once(':').ok_or_else(|| bad("write ID=RAFT_HOST:PORT/CLIENT_HOST:PORT"))?;
                member(place as NodeId + 1, &raft, &format!("{host}:{client_port}"))
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
    if let Some(timeout) = settings.duration_ms("raft.commit_timeout")? {
        driver.commit_timeout_ms = timeout;
    }
    driver.lease_ms = lease::lease_ms(settings, &driver)?;
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

    /// The plan of a JSON node file, as existing clusters have them.
    fn of_file(text: &str) -> Result<Plan, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.json");
        std::fs::write(&path, text).unwrap();
        let flags = [("insecure", Some("true".to_owned())), ("data_dir", Some("/d".to_owned()))];
        let settings = Settings::load(KEYS, Some(&path), "NONE_", std::iter::empty(), &flags);
        plan(&settings.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
    }

    const NODE: &str = r#""bind_address": "0.0.0.0", "bootstrap_expect": 3, "cloud_provider": "aws", "region": "eu-1",
        "peers": ["10.0.0.1:50051", "10.0.0.2:50051", "10.0.0.3"],
        "raft": {"heartbeat_timeout": "1s", "election_timeout": "2s", "commit_timeout": "50ms", "snapshot_interval": "2m",
                 "snapshot_threshold": 100},
        "grpc": {"port": 40099, "max_concurrent_streams": 250}"#;

    #[test]
    fn a_node_file_of_an_existing_cluster_is_used_key_by_key() {
        let text = format!(r#"{{"node_id": "aws-node-b", "advertise_address": "10.0.0.2:50051", {NODE}}}"#);
        let plan = of_file(&text).unwrap();
        assert_eq!(plan.node, 2, "a name without a number is the place of its address");
        assert_eq!((plan.raft_addr.as_str(), plan.client_addr.as_str()), ("0.0.0.0:50051", "0.0.0.0:40099"));
        assert_eq!(plan.advertised_client, "10.0.0.2:40099");
        assert_eq!(plan.streams_max, Some(250));
        assert_eq!(plan.driver.election_timeout_ms, 2_000);
        assert_eq!(plan.driver.commit_timeout_ms, 50);
        let third = &plan.members[2];
        assert_eq!((third.raft_address.as_str(), third.client_address.as_str()), ("10.0.0.3:50051", "10.0.0.3:40099"));
        // An address to advertise needs no port; a name may end with the number.
        let plan = of_file(&format!(r#"{{"node_id": "node-3", "advertise_address": "10.0.0.3", {NODE}}}"#)).unwrap();
        assert_eq!((plan.node, plan.advertised_client.as_str()), (3, "10.0.0.3:40099"));
        let plan = of_file(&format!(r#"{{"node_id": "eu-1-node-3", {NODE}}}"#)).unwrap();
        assert_eq!((plan.node, plan.advertised_client.as_str()), (3, "10.0.0.3:40099"), "as the list says");
    }

    #[test]
    fn what_a_node_file_has_wrong_is_refused_by_its_name() {
        for (keys, expected) in [
            (r#""node_id": "aws-node-b""#, "`node_id` = `aws-node-b`"),
            (r#""node_id": "node-1", "advertise_address": "10.0.0.2:50051""#, "its address is number 2 of peers"),
            (r#""node_id": "node-0""#, "1 or more"),
            (r#""node_id": "node-1", "advertise_address": "10.0.0.1:x""#, "`advertise_address` = `10.0.0.1:x`"),
        ] {
            let error = of_file(&format!("{{{keys}, {NODE}}}")).unwrap_err();
            assert!(error.contains(expected), "{keys}: {error}");
        }
        let bad =
            |from: &str, to: &str| of_file(&format!("{{\"node_id\": 1, {}}}", NODE.replace(from, to))).unwrap_err();
        assert!(bad("50ms", "soon").contains("`raft.commit_timeout` = `soon`"));
        assert!(bad("250", "0").contains("`grpc.max_concurrent_streams` = `0`"));
        assert!(bad("\"0.0.0.0\"", "\"here\"").contains("`bind_address` = `here`"));
    }

    #[test]
    fn a_joiner_may_be_told_the_cluster_s_id_and_a_founder_may_not() {
        let joiner = [("node_id", "4"), ("data_dir", "/d"), ("peers", PEERS), ("cluster_id", "prod-0011223344556677")];
        let plan = planned(&[&joiner[..], &[("join", "true")]].concat()).unwrap();
        assert!(
            matches!(plan.boot, BootMode::Join { cluster_id, node_id: 4 } if cluster_id == "prod-0011223344556677")
        );
        assert!(planned(&joiner).unwrap_err().contains("replica 4 itself is not on the list"));
        let founder = [("node_id", "1"), ("data_dir", "/d"), ("peers", PEERS), ("cluster_id", "x")];
        assert!(planned(&founder).unwrap_err().contains("only a replica that joins"));
    }

    #[test]
    fn certificates_open_the_raft_port_and_no_other_and_are_given_whole_or_not_at_all() {
        let tls = [("tls.peer_cert", "/c"), ("tls.peer_key", "/k"), ("tls.peer_ca", "/a")];
        let peers = [("node_id", "1"), ("data_dir", "/d"), ("peers", PEERS)];
        let with = |more: &[(&'static str, &'static str)]| planned(&[&peers[..], more].concat());
        assert!(with(&[]).unwrap().tls.is_none());
        let open = ("raft_addr", "0.0.0.0:1");
        assert!(with(&[open]).unwrap_err().contains("tls.peer_cert, tls.peer_key and tls.peer_ca"));
        assert!(with(&[&tls[..], &[open]].concat()).unwrap().tls.is_some());
        assert!(with(&[&tls[..], &[("client_addr", "0.0.0.0:1")]].concat()).unwrap_err().contains("--insecure"));
        for missing in 0..3 {
            let some: Vec<_> = tls.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, it)| *it).collect();
            let error = with(&some).unwrap_err();
            let wanted = format!("it needs `{}`, too", tls[missing].0);
            assert!(error.contains(&wanted) && error.contains(some[0].1), "{error}");
        }
        let error = with(&[&tls[..], &[("cluster_name", "two words")]].concat()).unwrap_err();
        assert!(error.contains("`cluster_name` = `two words`"), "{error}");
    }
}
