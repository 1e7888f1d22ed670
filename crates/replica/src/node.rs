//! The replica: everything put together, behind the ports.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::Sender;
use raftgrid_blob::medium::SystemMedium;
use raftgrid_blob::SpareLimits;
use raftgrid_driver::{RaftHandle, Runner, Transport};
use raftgrid_manifest::watched::Watched;
use raftgrid_manifest::{views, Table};
use raftgrid_proto::v1::{
    Command, CommandReply, ExplainTaskResponse, HeartbeatRequest, HeartbeatResponse, MemberRow, NextShardsRequest,
    NextShardsResponse, Node, PollTaskRequest, PollTaskResponse,
};
use raftgrid_store::{Booted, Disk};
use slog::{warn, Logger};

use crate::aggregate::Aggregator;
use crate::arriving::{Announced, Arriving};
use crate::artifacts::Artifacts;
use crate::assembly::{assemble, Assembly, Outside};
use crate::backoff::Backoff;
use crate::backup::OpenSnapshot;
use crate::budget::BlobSettings;
use crate::census::Census;
use crate::clock::Clock;
use crate::copies::Served;
use crate::janitor::{self, JanitorStop};
use crate::leader::{self, LeaderInbox};
use crate::membership::Membership;
use crate::mender;
use crate::mending::Mending;
use crate::models::Models;
use crate::polls::{rows_failed, Polls};
use crate::pool::Hands;
use crate::ports::{
    Bytes, CallError, Callback, Caller, Commands, Download, FragmentSink, Freshness, Leader, ModelQuery, Peers,
    Purpose, ReadView, Reads, Recomputed, SnapshotOut, Upload,
};
use crate::proposals::Proposals;
use crate::reads;
use crate::ring::Ring;
use crate::room::{self, RoomGauge};
use crate::timer::Timer;
use crate::uploads::Uploads;
use crate::versions::Versions;
use crate::views::Views;

/// How often the members are looked at even if no change of them was seen.
const FOLLOW_AGAIN: Duration = Duration::from_secs(60);

/// Called with all members that are recorded.
pub type MembersTold = Arc<dyn Fn(&[MemberRow]) + Send + Sync>;

/// What a replica is told.
pub struct ReplicaConfig {
    /// Of the driver.
    pub driver: raftgrid_driver::Config,
    /// Of the leader's loops.
    pub control: raftgrid_control::Config,
    /// Folder of the fragments.
    pub blob_dir: PathBuf,
    /// What is kept there to be written over.
    pub spare: SpareLimits,
    /// Addresses of the founders, this one among them.
    pub members: Vec<MemberRow>,
    /// host:port of this replica's client API, as others reach it.
    pub client_address: String,
    /// Looks at the disk.
    pub room: RoomGauge,
    /// How artifacts are kept, and how much they may take.
    pub blob: BlobSettings,
    /// Newest version of the state machine that this replica may run: that of the program, unless it is held back.
    pub machine_version: u64,
}

/// Why a replica did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Of the driver.
    #[error(transparent)]
    Driver(#[from] raftgrid_driver::StartError),
    /// Of the fragment files.
    #[error(transparent)]
    Blob(#[from] raftgrid_blob::BlobError),
    /// The state is of a newer program, or of a version above the one that this replica is held at. Nothing was changed.
    #[error("failed to start: the state in this data directory is at machine version {found}, which never falls, and this replica may run {newest} at most; start a program that knows version {found}, without a setting that holds it back")]
    TooNew {
        /// Of the state.
        found: u64,
        /// That this replica may run.
        newest: u64,
    },
}

/// A running control-plane node.
pub struct Replica {
    pub(crate) node: u64,
    pub(crate) client_address: String,
    pub(crate) handle: RaftHandle,
    pub(crate) proposals: Arc<Proposals>,
    pub(crate) backoff: Backoff,
    pub(crate) views: Arc<dyn Views>,
    pub(crate) ring: Ring,
    pub(crate) polls: Arc<Polls>,
    pub(crate) artifacts: Arc<Artifacts>,
    pub(crate) models: Arc<Models>,
    pub(crate) aggregator: Arc<Aggregator>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) uploads: Uploads,
    pub(crate) leader: LeaderInbox,
    pub(crate) reads: Arc<reads::Reads>,
    pub(crate) census: Census,
    pub(crate) timer: Timer,
    pub(crate) versions: Versions,
    pub(crate) machine_version: u64,
    pub(crate) flushed: Box<dyn Fn() -> u64 + Send + Sync>,
    pub(crate) open_snapshot: OpenSnapshot,
    /// None while it is run by hand, and after the stop.
    pub(crate) running: Mutex<Option<Running>>,
}

pub(crate) struct Running {
    runner: Runner,
    janitor: JanitorStop,
    mender: Sender<()>,
    room: Sender<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Replica {
    /// Starts every thread. `booted` is the opened store; `peers` and `transport` are the network.
    pub fn start<D: Disk>(
        config: ReplicaConfig,
        booted: Booted<D>,
        transport: impl Transport,
        peers: Arc<dyn Peers>,
        clock: Arc<dyn Clock>,
        logger: &Logger,
    ) -> Result<Arc<Self>, StartError> {
        let mut hands = Hands::Threads;
        let outside = Outside { peers, clock, medium: Arc::new(SystemMedium), logger: logger.clone() };
        let Assembly { replica, runner, leader, janitor, mender, room } =
            assemble(config, booted, outside, &mut hands, |config, log, machine, observer| {
                Runner::start(config, log, machine, transport, observer, logger.clone())
            })?;
        let timer_thread = replica.timer.start();
        let leader_thread = leader::start(leader);
        let (janitor, janitor_thread) = janitor::start(janitor);
        let (mender, mender_thread) = mender::start(mender);
        let (room, room_thread) = room::start(room);
        let threads = vec![timer_thread, leader_thread, janitor_thread, mender_thread, room_thread];
        let running = Running { runner, janitor, mender, room, threads };
        *replica.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(replica)
    }

    /// This replica's id.
    pub fn node(&self) -> u64 {
        self.node
    }

    /// The raft group.
    pub fn handle(&self) -> &RaftHandle {
        &self.handle
    }

    /// The proposer, for `peer`.
    pub fn proposals(&self) -> &Arc<Proposals> {
        &self.proposals
    }

    /// What the other replicas say of the versions that they can run, for `peer`.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Changes of the membership.
    pub(crate) fn membership(&self) -> &Arc<Membership> {
        &self.membership
    }

    /// host:port of a member's client API; "" if it is not known.
    pub fn client_address(&self, node: u64) -> String {
        if node == self.node {
            return self.client_address.clone();
        }
        self.members()
            .unwrap_or_default()
            .into_iter()
            .find(|row| row.node_id == node)
            .map_or_else(String::new, |row| row.client_address)
    }

    /// Members as recorded.
    pub fn members(&self) -> Result<Vec<MemberRow>, CallError> {
        let (rows, _) = self.views.view();
        views::members(rows.as_ref()).map_err(rows_failed)
    }

    /// Tells `told` the members that are recorded, now and after every change of them.
    pub fn follow_members(self: &Arc<Self>, told: MembersTold) {
        let (rows, position) = self.views.view();
        told(&views::members(rows.as_ref()).unwrap_or_default());
        let this = Arc::downgrade(self);
        let again = Box::new(move |_| {
            if let Some(this) = this.upgrade() {
                this.follow_members(told);
            }
        });
        self.ring.changed_after(position, Some(vec![(Table::Member, Vec::new())]), FOLLOW_AGAIN, again);
    }

    /// A read index for a replica that asks; see `ports::Peers::read_index`.
    pub fn read_index(&self, done: Callback<u64>) {
        self.reads.index(done);
    }

    /// Rows as applied here, with the position that they hold at least.
    pub fn view(&self) -> ReadView {
        let (rows, position) = self.views.view();
        ReadView { rows, position, age_ms: 0 }
    }

    /// Highest index whose rows are durable in the tables.
    pub fn flushed_index(&self) -> u64 {
        (self.flushed)()
    }

    /// The newest snapshot at or above an index. Touches the disk.
    pub(crate) fn open_snapshot(&self, min_index: u64) -> Result<Box<dyn SnapshotOut>, CallError> {
        (self.open_snapshot)(min_index)
    }

    /// Ends every thread, in an order in which nobody waits for who is gone. Safe to call twice.
    pub fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(running) = running else { return };
        self.leader.stop();
        drop(running.janitor);
        drop(running.mender);
        drop(running.room);
        running.runner.stop();
        self.timer.stop();
        for thread in running.threads {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

impl Commands for Replica {
    fn propose(&self, mut commands: Vec<Command>, done: Callback<Vec<CommandReply>>) {
        self.backoff.fill_in(&mut commands);
        self.proposals.propose(commands, done);
    }
}

impl Reads for Replica {
    fn read(&self, freshness: Freshness, done: Callback<ReadView>) {
        self.reads.read(freshness, done);
    }

    fn changed_after(
        &self,
        position: u64,
        watched: Option<Watched>,
        timeout: Duration,
        done: Box<dyn FnOnce(u64) + Send>,
    ) {
        self.ring.changed_after(position, watched, timeout, done);
    }
}

impl Leader for Replica {
    fn heartbeat(&self, request: HeartbeatRequest, done: Callback<HeartbeatResponse>) {
        let address = self.client_address.clone();
        let endpoints: Vec<String> =
            self.members().unwrap_or_default().into_iter().map(|row| row.client_address).collect();
        self.leader.beat(
            request,
            Box::new(move |answer| {
                done(answer.map(|mut response| {
                    response.set_leader_address(address);
                    response.set_endpoints(endpoints.into());
                    response
                }));
            }),
        );
    }

    fn poll_task(&self, request: PollTaskRequest, done: Callback<PollTaskResponse>) {
        self.polls.poll_task(request, done);
    }

    fn next_shards(&self, request: NextShardsRequest, done: Callback<NextShardsResponse>) {
        self.polls.next_shards(request, done);
    }

    fn explain(&self, task_id: String, done: Callback<Option<ExplainTaskResponse>>) {
        self.leader.explain(task_id, done);
    }

    fn nodes(&self, done: Callback<Vec<Node>>) {
        self.read(
            Freshness::Linearizable,
            Box::new(move |view| {
                done(view.and_then(|view| views::get_nodes(view.rows.as_ref()).map_err(rows_failed)));
            }),
        );
    }
}

impl Bytes for Replica {
    fn begin(
        &self,
        caller: &Caller,
        purpose: Purpose,
        total_bytes: Option<u64>,
        digest: Option<Vec<u8>>,
    ) -> Result<Box<dyn Upload>, CallError> {
        self.uploads.begin(caller, purpose, total_bytes, digest)
    }

    fn open_model(&self, query: &ModelQuery) -> Result<(u64, Box<dyn Download>), CallError> {
        let opened = self.models.open(query)?;
        if query.lease_epoch == 0 {
            self.polls.remember_model(query, opened.0)?;
        }
        Ok(opened)
    }

    fn open_artifact(&self, artifact: &str) -> Result<Box<dyn Download>, CallError> {
        let (rows, _) = self.views.view();
        let found = views::find_artifact(rows.as_ref(), artifact).map_err(rows_failed)?;
        drop(rows);
        let row = found.ok_or_else(|| CallError::NotFound(format!("artifact {artifact} does not exist")))?;
        Ok(Box::new(Mending::new(self.artifacts.clone(), row)?))
    }

    fn give_up(&self, artifact_id: u64) {
        self.artifacts.abandon(artifact_id);
    }

    fn recompute(&self, job_id: &str, round: u64) -> Result<Recomputed, CallError> {
        self.aggregator.recompute(job_id, round)
    }

    fn fragment_sink(
        &self,
        artifact_id: u64,
        fragment: u32,
        total_bytes: u64,
        digest: [u8; 32],
    ) -> Result<Box<dyn FragmentSink>, CallError> {
        self.proposals.room.check()?;
        let announced = Announced { artifact_id, number: fragment, total_bytes, digest };
        let arriving = Arriving::begin(&self.artifacts, announced).inspect_err(|error| {
            warn!(self.artifacts.logger, "fragment refused";
                "artifact" => artifact_id, "file" => fragment, "cause" => %error);
        });
        Ok(Box::new(arriving?))
    }

    fn open_fragment(&self, artifact_id: u64, fragment: u32) -> Result<Box<dyn Download>, CallError> {
        Ok(Box::new(Served::open(&self.artifacts, artifact_id, fragment)?))
    }
}
