//! How a replica is put together: the same for one on threads and one that is run by hand.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use raftgrid_blob::medium::Medium;
use raftgrid_blob::FragmentStore;
use raftgrid_driver::{Observer, RaftHandle, Role, Status};
use raftgrid_manifest::views;
use raftgrid_store::{Booted, Disk, RaftLog};
use slog::Logger;

use crate::aggregate::Aggregator;
use crate::artifacts::Artifacts;
use crate::backoff::Backoff;
use crate::backup;
use crate::budget::RoomSpeaker;
use crate::census::Census;
use crate::clock::Clock;
use crate::cluster_time::ClusterTime;
use crate::contact::Contact;
use crate::damaged::Damaged;
use crate::evacuate::Evacuation;
use crate::gather::Gates;
use crate::janitor::{self, Janitor, Rounds};
use crate::leader::{self, LeaderInbox, LeaderLoop, Shell};
use crate::limits::{
    AGGREGATE_THREADS, FORWARD_THREADS, MEMBER_CHANGES_WAITING_MAX, POOL_WAITING_MAX, SNAPSHOTS_WAITING_MAX,
    UPLOAD_THREADS,
};
use crate::machine::{Machine, TableViews};
use crate::membership::Membership;
use crate::mender::Mender;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::node::{Replica, ReplicaConfig, StartError};
use crate::polls::Polls;
use crate::pool::Hands;
use crate::ports::Peers;
use crate::proposals::Proposals;
use crate::reads::{Questions, Reads};
use crate::ring::Ring;
use crate::room::{Room, RoomWatch};
use crate::silent::SilentPeers;
use crate::timer::Timer;
use crate::uploads::Uploads;
use crate::versions::Versions;
use crate::views::{end_of_entry, Views};
use crate::waits::Waits;

/// What a replica gets from outside.
pub(crate) struct Outside {
    /// The network, for calls.
    pub peers: Arc<dyn Peers>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where the fragments are.
    pub medium: Arc<dyn Medium>,
    /// Log.
    pub logger: Logger,
}

/// A replica and what must be run for it.
pub(crate) struct Assembly<R> {
    /// Behind the ports.
    pub replica: Arc<Replica>,
    /// The raft group.
    pub runner: R,
    /// The leader's loops.
    pub leader: Shell,
    /// Deletes bytes.
    pub janitor: Rounds,
    /// Makes lost fragments anew.
    pub mender: Mender,
    /// Looks at the disk.
    pub room: RoomWatch,
}

/// Wakes the leader's loops when role or leader change, and notes contact with the leader.
pub(crate) struct Wakes {
    leader: LeaderInbox,
    contact: Contact,
    clock: Arc<dyn Clock>,
    leads: Arc<AtomicBool>,
}

impl Observer for Wakes {
    fn changed(&mut self, status: &Status) {
        self.leads.store(status.role == Role::Leader, Ordering::SeqCst);
        self.leader.look();
    }

    fn contact(&mut self, ago_ms: u64) {
        self.contact.note(self.clock.boottime_ms(), ago_ms);
    }
}

/// Starts the raft group over its parts.
type Started<R> = Result<(RaftHandle, R), raftgrid_driver::StartError>;

/// Puts a replica together. `start` starts the raft group; `hands` make the pools.
pub(crate) fn assemble<D: Disk, R>(
    config: ReplicaConfig,
    booted: Booted<D>,
    outside: Outside,
    hands: &mut Hands,
    start: impl FnOnce(raftgrid_driver::Config, RaftLog<D>, Machine<D>, Wakes) -> Started<R>,
) -> Result<Assembly<R>, StartError> {
    let Outside { peers, clock, medium, logger } = outside;
    let node = config.driver.node;
    let (outside_peers, outside_clock) = (peers.clone(), clock.clone());
    let files = FragmentStore::open_on(medium, &config.blob_dir, config.spare)?;
    let timer = Timer::new(clock.clone());
    let open_snapshot = backup::opener(booted.snapshots);
    let tables = booted.tables;
    let ring = Ring::new(end_of_entry(tables.applied().0), timer.clone());
    let room = Room::default();
    let late_proposals = Arc::new(Mutex::new(None));
    let reader = tables.reader();
    // Before anything is proposed here: a group that has a time never takes it from a wall clock again.
    let (cluster_time_ms, found) =
        views::meta(&reader.view()).map_or((0, 1), |meta| (meta.cluster_time_ms, meta.machine_version));
    if found > config.machine_version {
        return Err(StartError::TooNew { found, newest: config.machine_version });
    }
    let snapshots = hands.pool("snapshot", 1, SNAPSHOTS_WAITING_MAX);
    let (leader, queue) = leader::inbox();
    let told = leader.clone();
    let versions = Versions::new(move || told.look());
    versions.reached(found);
    let machine = Machine::new(
        tables,
        ring.clone(),
        clock.clone(),
        snapshots,
        late_proposals.clone(),
        versions.clone(),
        logger.clone(),
    );
    let metrics = Metrics::new(&config.driver.metrics);
    let lease_ms = config.driver.lease_ms;
    let away_ms = if cluster_time_ms == 0 { 0 } else { clock.wall_ms().saturating_sub(cluster_time_ms) };
    let contact = Contact::new(clock.boottime_ms(), away_ms);
    let leads = Arc::new(AtomicBool::new(false));
    let wakes = Wakes { leader: leader.clone(), contact: contact.clone(), clock: clock.clone(), leads: leads.clone() };
    let (handle, runner) = start(config.driver, booted.log, machine, wakes)?;
    let proposals = Arc::new(Proposals {
        versions: versions.clone(),
        handle: handle.clone(),
        peers: peers.clone(),
        clock: clock.clone(),
        cluster_time: Mutex::new(ClusterTime::new(cluster_time_ms, clock.monotonic_ms())),
        room: room.clone(),
        metrics: metrics.clone(),
        pool: hands.pool("forward", FORWARD_THREADS, POOL_WAITING_MAX),
    });
    *late_proposals.lock().unwrap_or_else(PoisonError::into_inner) = Some(proposals.clone());
    let views: Arc<dyn Views> = Arc::new(TableViews { tables: reader.clone(), logger: logger.clone() });
    let artifacts = Arc::new(Artifacts {
        node,
        files: files.clone(),
        peers,
        handle: handle.clone(),
        views: views.clone(),
        proposals: proposals.clone(),
        clock: clock.clone(),
        silent: SilentPeers::default(),
        damaged: Damaged::default(),
        gates: Gates::default(),
        settling: Mutex::default(),
        settings: config.blob,
        logger: logger.clone(),
    });
    let models = Arc::new(Models::new(artifacts.clone()));
    let aggregator = Arc::new(Aggregator {
        artifacts: artifacts.clone(),
        under_way: Mutex::default(),
        pool: hands.waiting_pool("aggregate", AGGREGATE_THREADS, POOL_WAITING_MAX),
        logger: logger.clone(),
    });
    let backoff = Backoff::new(config.control.clone(), views.clone());
    let tap = leader.clone();
    // Waking a thread for each entry costs a follower as much as applying it; leadership begins with a look of its own.
    ring.tap(Box::new(move |_| {
        if leads.load(Ordering::SeqCst) {
            tap.look();
        }
    }));
    let shell = Shell::new(
        LeaderLoop {
            config: config.control,
            members: config.members,
            handle: handle.clone(),
            views: views.clone(),
            ring: ring.clone(),
            proposals: proposals.clone(),
            aggregator: aggregator.clone(),
            clock: clock.clone(),
            versions: versions.clone(),
            machine_version: config.machine_version,
            logger: logger.clone(),
        },
        leader.clone(),
        queue,
    );
    leader.look();
    let cache = files.cache().clone();
    let janitor = janitor::rounds(Janitor { files, ring: ring.clone(), views: views.clone(), logger: logger.clone() });
    let polls = Arc::new(Polls {
        views: views.clone(),
        ring: ring.clone(),
        handle: handle.clone(),
        proposals: proposals.clone(),
        clock: clock.clone(),
        handed_out: Mutex::default(),
    });
    let uploads = Uploads {
        artifacts: artifacts.clone(),
        models: models.clone(),
        proposals: proposals.clone(),
        waits: Waits {
            ring: ring.clone(),
            pool: hands.waiting_pool("uploads", UPLOAD_THREADS, POOL_WAITING_MAX),
            clock: clock.clone(),
        },
    };
    let membership = Arc::new(Membership {
        node,
        handle: handle.clone(),
        evacuation: Evacuation { artifacts: artifacts.clone(), logger: logger.clone() },
        pool: hands.waiting_pool("members", 1, MEMBER_CHANGES_WAITING_MAX),
        logger: logger.clone(),
    });
    let mender = Mender::new(Evacuation { artifacts: artifacts.clone(), logger: logger.clone() }, clock.clone());
    let speaker = RoomSpeaker {
        node,
        bytes_max: config.blob.bytes_max,
        views: views.clone(),
        proposals: proposals.clone(),
        again_in: 0,
    };
    let room = RoomWatch { room, gauge: config.room, handle: handle.clone(), cache, transfer_in: 0, speaker, logger };
    let reads = Arc::new(Reads {
        node,
        handle: Arc::new(handle.clone()),
        peers: outside_peers,
        views: views.clone(),
        ring: ring.clone(),
        clock: outside_clock,
        contact,
        lease_ms,
        lease: Mutex::new(None),
        questions: Mutex::new(Questions::default()),
        metrics,
    });
    let replica = Arc::new(Replica {
        node,
        client_address: config.client_address,
        handle,
        proposals,
        backoff,
        views,
        ring,
        polls,
        artifacts,
        models,
        aggregator,
        membership,
        uploads,
        leader,
        reads,
        census: Census::default(),
        timer,
        versions,
        machine_version: config.machine_version,
        flushed: Box::new(move || reader.flushed().unwrap_or(0)),
        open_snapshot,
        running: Mutex::new(None),
    });
    Ok(Assembly { replica, runner, leader: shell, janitor, mender, room })
}
