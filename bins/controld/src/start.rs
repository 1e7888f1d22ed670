//! Puts a replica together and opens its ports. Construction only: what any part does is its own business.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam::channel::Sender;
use raftgrid_api::{ApiConfig, Ports, Services};
use raftgrid_gateway::Gateway;
use raftgrid_mirror::Mirror;
use raftgrid_peer::{
    handshakes_failed, AddressBook, Dialer, DurableStores, Identity, KnownStores, PeerClients, PeerService,
    PeerTransport, RaftSeat, ShelfSnapshots, TransportConfig,
};
use raftgrid_replica::clock::SystemClock;
use raftgrid_replica::{Replica, ReplicaCluster, ReplicaConfig, RoomGauge, SpareLimits};
use raftgrid_rpc::grpcio::{Environment, Server};
use raftgrid_rpc::serve::{listen_mutual, listen_with, STREAMS_PER_CONNECTION_MAX};
use raftgrid_rpc::tls::Tls;
use raftgrid_store::limits::BALLAST_BYTES;
use raftgrid_store::{Booted, RoomWatch, Store};
use raftgrid_store_rocks::RocksDisk;
use slog::{info, Logger};

use crate::forwarding::ForwardedHere;
use crate::http;
use crate::mirror;
use crate::plan::{resolves, Plan, SNAPSHOT_TIMEOUT_MS};

/// A running replica with its ports. Dropped in the order of its fields: ports first.
pub(crate) struct Running {
    http: Option<Gateway>,
    servers: Vec<Server>,
    mirror: Option<Mirror>,
    replica: Arc<Replica>,
    logger: Logger,
}

impl Running {
    /// Hands leadership over, closes the ports, then ends the replica.
    pub(crate) fn stop(mut self) {
        self.replica.hand_over(&self.logger);
        for server in &mut self.servers {
            server.cancel_all_calls();
        }
        self.servers.clear();
        drop(self.http.take());
        drop(self.mirror.take());
        self.replica.stop();
    }
}

/// Opens the store, starts the replica and its services.
pub(crate) fn start(plan: Plan, logger: &Logger, shutdown: Sender<()>) -> Result<Running> {
    for member in &plan.members {
        if !resolves(&member.raft_address) {
            anyhow::bail!(
                "failed to use peer {}: {} is no address; check --peers",
                member.node_id,
                member.raft_address
            );
        }
    }
    let tls = plan.tls.as_ref().map(|tls| tls.load(logger)).transpose()?;
    std::fs::create_dir_all(&plan.data_dir).with_context(|| {
        format!("failed to create {}; give --data-dir a place that can be written", plan.data_dir.display())
    })?;
    let booted = Store::open(RocksDisk::new(), &plan.data_dir, plan.boot.clone())?;
    for name in &booted.report.removed {
        info!(logger, "leftover removed"; "name" => name);
    }
    // Raft has a thread to itself: clients and bulk bytes are read by others.
    let raft_env = raftgrid_rpc::environment_of("raft-io", 1);
    let metrics = &plan.driver.metrics;
    if tls.is_some() {
        // gRPC formats every line of its log for this, so a plain replica does without.
        let refused = handshakes_failed(metrics);
        raftgrid_rpc::core_log::watch(logger.clone(), move || refused.inc());
    }
    let env = raftgrid_rpc::environment("controld");
    let raft_dialer = Dialer::new(raft_env.clone(), tls.clone());
    let dialer = Dialer::new(env.clone(), tls.clone());
    let identity = Identity {
        cluster_id: booted.identity.cluster_id.clone(),
        node_id: plan.node,
        store_uuid: booted.identity.store_uuid.as_bytes().to_vec(),
        client_address: plan.advertised_client.clone(),
        raft_address: plan.advertised_raft.clone(),
        machine_version: plan.machine_version,
    };
    let addresses = plan.members.iter().map(|row| (row.node_id, row.raft_address.clone()));
    let book = Arc::new(AddressBook::new(addresses));
    let seat = RaftSeat::new();
    let snapshots = Arc::new(ShelfSnapshots::new(booted.snapshots.clone()));
    let config = TransportConfig {
        identity: identity.clone(),
        snapshot_bytes_per_second: plan.snapshot_bytes_per_second,
        snapshot_timeout: Duration::from_millis(SNAPSHOT_TIMEOUT_MS),
        logger: logger.clone(),
    };
    let transport = PeerTransport::new(raft_dialer, config, book.clone(), seat.clone(), snapshots.clone());
    let transport = transport.with_metrics(metrics);
    let peers = Arc::new(PeerClients::new(dialer, identity.clone(), book.clone()).with_metrics(metrics));
    let known: Arc<dyn KnownStores> = Arc::new(DurableStores::new(booted.peer_stores.clone()));
    let replica = run(&plan, booted, transport, peers.clone(), logger)?;
    let met_here = book.clone();
    let (own, store, met) = (Arc::downgrade(&replica), identity.store_uuid.clone(), known.clone());
    replica.follow_members(Arc::new(move |members| {
        for row in members {
            book.set(row.node_id, row.raft_address.clone());
            met.learn(row.node_id, &row.store_uuid);
        }
        if let Some(replica) = own.upgrade() {
            replica.announce_store(members, &store);
        }
    }));
    seat.heed(replica.versions().clone());
    seat.fill(Arc::new(replica.handle().clone()));
    let cluster_id = identity.cluster_id.clone();
    let opened = open_ports(
        &plan,
        (&raft_env, &env),
        tls,
        identity,
        known,
        met_here,
        seat,
        snapshots,
        peers,
        &replica,
        shutdown,
        logger,
    );
    let mirrored = opened.and_then(|(servers, http)| {
        let mirror = plan.mirror.as_ref().map(|mirror| mirror::start(mirror, &cluster_id, &replica, metrics, logger));
        Ok((servers, http, mirror.transpose()?))
    });
    match mirrored {
        Ok((servers, http, mirror)) => {
            info!(logger, "replica ready"; "node" => plan.node, "client_addr" => &plan.client_addr,
                "raft_addr" => &plan.raft_addr, "cluster" => &cluster_id, "data_dir" => shown(&plan.data_dir));
            Ok(Running { http, servers, mirror, replica, logger: logger.clone() })
        }
        Err(error) => {
            // Its threads must be gone before the process ends: they use the databases.
            replica.stop();
            Err(error)
        }
    }
}

/// The services of a replica, on its ports.
#[allow(clippy::too_many_arguments, reason = "the parts of one construction, each used once")]
fn open_ports(
    plan: &Plan,
    (raft_env, env): (&Arc<Environment>, &Arc<Environment>),
    tls: Option<Arc<Tls>>,
    identity: Identity,
    known: Arc<dyn KnownStores>,
    book: Arc<AddressBook>,
    seat: RaftSeat,
    snapshots: Arc<ShelfSnapshots<RocksDisk>>,
    peers: Arc<PeerClients>,
    replica: &Arc<Replica>,
    shutdown: Sender<()>,
    logger: &Logger,
) -> Result<(Vec<Server>, Option<Gateway>)> {
    let cluster = Arc::new(ReplicaCluster {
        replica: replica.clone(),
        cluster_id: identity.cluster_id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        shutdown: Box::new(move || {
            // One is enough.
            let _ = shutdown.try_send(());
        }),
    });
    let ports = Arc::new(Ports {
        commands: replica.clone(),
        reads: replica.clone(),
        leader: replica.clone(),
        bytes: replica.clone(),
        peers,
        cluster,
    });
    let log_dir = plan.data_dir.join("task-logs");
    let services = Services::new(
        ApiConfig { node_id: plan.node, log_dir, logger: logger.clone(), metrics: plan.driver.metrics.clone() },
        ports,
    )?;
    let forwarding =
        ForwardedHere { api: services.forwarded(), proposals: replica.proposals().clone(), replica: replica.clone() };
    let service = PeerService::new(identity, known, seat, snapshots, replica.clone(), forwarding, logger.clone());
    // Agents have no certificate. Where certificates are asked for, they use the client port.
    let mut raft_services = if tls.is_none() { services.agents() } else { Vec::new() };
    let service = service.with_metrics(&plan.driver.metrics).with_versions(replica.versions().clone()).with_book(book);
    raft_services.push(service.with_tls(tls.clone()).build());
    let (raft_server, _) = listen_mutual(raft_env, &plan.raft_addr, raft_services, tls.as_ref())?;
    let streams_max = plan.streams_max.unwrap_or(STREAMS_PER_CONNECTION_MAX);
    let (client_server, _) = listen_with(env, &plan.client_addr, services.public(), streams_max)?;
    let http = http::open(&plan.http, plan.driver.metrics.clone(), replica.clone(), services, tls, logger)?;
    Ok((vec![client_server, raft_server], http))
}

/// Looks at the disk of the data directory; a ballast file keeps some of it for truncation and deletion.
fn gauge(plan: &Plan) -> Result<RoomGauge> {
    let watch = RoomWatch::with_limits(RocksDisk::new(), &plan.data_dir, plan.low_water_bytes, BALLAST_BYTES);
    watch.keep_ballast()?;
    Ok(Box::new(move || watch.check().map(|room| (room.free_bytes, room.low)).map_err(|error| error.to_string())))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn run(
    plan: &Plan,
    booted: Booted<RocksDisk>,
    transport: PeerTransport,
    peers: Arc<PeerClients>,
    logger: &Logger,
) -> Result<Arc<Replica>> {
    let config = ReplicaConfig {
        driver: plan.driver.clone(),
        control: plan.control.clone(),
        blob_dir: plan.data_dir.join("blobs"),
        spare: SpareLimits::default(),
        members: plan.members.clone(),
        client_address: plan.advertised_client.clone(),
        room: gauge(plan)?,
        blob: plan.blob,
        machine_version: plan.machine_version,
    };
    Ok(Replica::start(config, booted, transport, peers, Arc::new(SystemClock::default()), logger)?)
}
