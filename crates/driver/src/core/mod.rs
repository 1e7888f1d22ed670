//! The pure core: one raft group member, without thread, clock, socket or randomness of the operating system.
//!
//! Owns raft-rs' `RawNode` and the log. Inputs are method calls; whoever runs it (the threaded runner, or a simulator) then
//! calls [`Core::drain`] and carries out the [`Effects`], in this order: waiters first (`proposed`, `changes`), then `sync`,
//! `send`, `apply`, then the answers. Time is the count of [`Core::tick`]s.
//!
//! Invariants: no message of a term leaves before that term is durable; no message of a Ready that must be synced leaves before
//! it is; truncated ≤ flushed ≤ applied ≤ commit ≤ last outside an install; an input that is stale is ignored.
//!
//! The order of the drain step (`drain.rs`) is law: the design page on driving raft-rs gives the reason for each line.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use raft::{RawNode, StateRole};
use slog::Logger;

use crate::error::StartError;
use crate::limits;
use crate::mutant;
use crate::traits::{LogError, LogReader, LogStore};
use crate::types::{ConfState, Index, InitialState, NodeId, Role, Snapshot, Status, Term};

mod applier;
mod commit;
pub(crate) mod conf;
mod config;
mod convert;
mod drain;
mod effects;
mod guard;
mod membership;
mod peers;
mod promise;
mod propose;
mod read;
mod snapshots;
mod transfer;
mod view;

pub use applier::{Applied, AppliedChange, AppliedEntry, Applier, ApplyError, Outcome};
pub use config::CoreConfig;
pub use effects::{ApplyTask, ChangeStart, Effects, Proposed, Ticket};
pub use guard::Dropped;

use config::check_start;
use view::LogView;

/// A Ready on its way to the disk.
struct Unpersisted {
    /// The sync that makes it durable.
    sync_number: u64,
    /// The newest Ready that rides along: later ones that needed no sync of their own.
    persist_number: u64,
    term: Term,
    after: Vec<raft::eraftpb::Message>,
    snapshot: Option<Snapshot>,
}

/// See the module's head.
pub struct Core<L: LogStore> {
    config: CoreConfig,
    logger: Logger,
    node: RawNode<LogView<L::Reader>>,
    log: L,
    reader: L::Reader,
    /// What was there at boot.
    initial: InitialState,
    effects: Effects,
    ticks: u64,

    unpersisted: VecDeque<Unpersisted>,
    durable_term: Term,
    synced: u64,
    /// Index of the snapshot that is being installed.
    installing: Option<Index>,
    /// Newest snapshot index ever put into raft: changes at or below it are already in its configuration.
    snapshot_floor: Index,
    applied: Index,
    flushed: Index,
    conf: ConfState,

    waiting: VecDeque<(Ticket, Bytes)>,
    waiting_bytes: usize,
    reads: read::Reads,
    transfer: Option<transfer::Transfer>,
    snapshots: snapshots::Snapshots,
    /// Voters that were made learners on purpose: they are not promoted again by themselves.
    demoted: BTreeSet<NodeId>,
    /// Tick of the last message of each member.
    heard: BTreeMap<NodeId, u64>,
    dropped: BTreeMap<Dropped, u64>,
    contact: promise::Contact,
    /// The commit index that each member was last sent, while this replica leads.
    told_commit: BTreeMap<NodeId, Index>,
    /// The log ends below what a leader knows to be here: no votes until restart.
    distrusted: bool,
    low_room: bool,

    timeout_epoch: u64,
    timeout_key: (Term, StateRole, NodeId),
    announced: (Role, Term, NodeId, ConfState),
}

impl<L: LogStore> Core<L> {
    /// Starts from what `log` holds. Fails rather than panics when log, hard state and configuration do not fit one another.
    pub fn new(config: CoreConfig, log: L, logger: Logger) -> Result<Self, StartError> {
        let initial = log.initial_state();
        let reader = log.reader();
        check_start(&config, &initial, &reader)?;
        let raft_config = raft::Config {
            id: config.node,
            election_tick: to_ticks(config.election_ticks),
            heartbeat_tick: to_ticks(config.heartbeat_ticks),
            applied: initial.applied,
            // 0 would mean one entry for each message.
            max_size_per_msg: limits::MESSAGE_BYTES_MAX,
            max_inflight_msgs: limits::MESSAGES_INFLIGHT_MAX,
            max_uncommitted_size: limits::UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: limits::COMMITTED_BYTES_PER_READY_MAX,
            // A leader cut off steps down; a replica cut off does not depose the leader when it returns.
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            skip_bcast_commit: config.lazy_commit,
            // Never raft-rs' lease: it counts ticks, which a stopped process does not notice.
            read_only_option: raft::ReadOnlyOption::Safe,
            ..raft::Config::default()
        };
        let view = LogView::new(reader.clone(), &initial);
        let node = RawNode::new(&raft_config, view, &logger).map_err(|e| StartError::Config(e.to_string()))?;
        let conf = convert::sorted(&initial.conf);
        let mut core = Self {
            reads: read::Reads::new(config.node, config.boot_nonce),
            snapshots: snapshots::Snapshots::new(initial.applied),
            config,
            logger,
            node,
            log,
            reader,
            effects: Effects::default(),
            ticks: 0,
            unpersisted: VecDeque::new(),
            durable_term: initial.hard_state.term,
            synced: 0,
            installing: None,
            snapshot_floor: initial.applied,
            applied: initial.applied,
            flushed: 0,
            announced: (Role::Follower, initial.hard_state.term, 0, conf.clone()),
            conf,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            transfer: None,
            demoted: BTreeSet::new(),
            heard: BTreeMap::new(),
            dropped: BTreeMap::new(),
            contact: promise::Contact::default(),
            told_commit: BTreeMap::new(),
            distrusted: false,
            low_room: false,
            timeout_epoch: 0,
            timeout_key: (0, StateRole::Follower, 0),
            initial,
        };
        core.after_raft();
        Ok(core)
    }

    /// The apply side, standing where the tables stood at boot. For the one who runs the state machine.
    pub fn applier(&self) -> Applier {
        Applier::new(&self.initial)
    }

    /// One tick of time: heartbeats, elections, deadlines.
    pub fn tick(&mut self) {
        self.ticks += 1;
        let leads = self.leads();
        // During an install, `hup` would read entries that the log no longer has. A single voter becomes leader within the
        // call, and raft-rs asserts that its log is synced. A log that lost its end must not win.
        let installing = self.installing.is_some() && !mutant::on("election_during_install");
        let may_campaign = !installing && !self.campaign_unsafe() && !self.distrusted;
        if leads || may_campaign {
            self.node.tick();
            self.after_raft();
        }
        self.tell_commit();
        self.note_quorum();
        self.tick_transfer();
        self.tick_membership();
        self.tick_snapshots();
    }

    /// Another seed for election timeouts.
    pub fn set_timeout_seed(&mut self, seed: u64) {
        self.config.timeout_seed = seed;
        self.after_raft();
    }

    /// The replica's view of its group.
    pub fn status(&self) -> Status {
        let raft = &self.node.raft;
        let mut progress: Vec<_> = Vec::new();
        if self.leads() {
            progress = raft.prs().iter().map(|(id, pr)| (*id, pr.matched, self.is_healthy(*id))).collect();
            progress.sort_unstable();
        }
        Status {
            node: self.config.node,
            role: self.role(),
            learner: self.conf.learners.contains(&self.config.node),
            term: raft.term,
            leader: raft.leader_id,
            commit: raft.raft_log.committed,
            applied: self.applied,
            first: self.reader.first_index(),
            last: raft.raft_log.last_index(),
            conf: self.conf.clone(),
            progress,
            transferred: self.has_transferred(),
        }
    }

    /// Messages of peers that were dropped, by reason.
    pub fn dropped(&self) -> &BTreeMap<Dropped, u64> {
        &self.dropped
    }

    /// Whether this replica refuses to vote until restart, because its log ends below what a leader knows to be here.
    pub fn is_distrusted(&self) -> bool {
        self.distrusted
    }

    /// Whether an fsync is under way: proposals are packed meanwhile.
    pub fn is_syncing(&self) -> bool {
        !self.unpersisted.is_empty()
    }

    /// (matched, next) of a follower.
    #[cfg(test)]
    pub(crate) fn progress_of(&self, node: NodeId) -> Option<(Index, Index)> {
        self.node.raft.prs().get(node).map(|progress| (progress.matched, progress.next_idx))
    }

    fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate | StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    fn leader(&self) -> NodeId {
        self.node.raft.leader_id
    }

    /// A configuration of one voter, this one, with entries that are not durable.
    fn campaign_unsafe(&self) -> bool {
        let log = &self.node.raft.raft_log;
        self.node.raft.prs().is_singleton() && !self.leads() && log.persisted < log.last_index()
    }

    fn is_healthy(&self, node: NodeId) -> bool {
        let fresh = |tick: &u64| self.ticks - tick <= self.config.election_ticks;
        node == self.config.node || self.heard.get(&node).is_some_and(fresh)
    }

    /// After every call into raft-rs: it draws election timeouts from `thread_rng`, so ours is put in its place, always. The
    /// epoch moves when (term, role, leader) moves, so that two candidates that split a vote part the next time.
    fn after_raft(&mut self) {
        let raft = &self.node.raft;
        let key = (raft.term, raft.state, raft.leader_id);
        if key != self.timeout_key {
            self.timeout_key = key;
            self.timeout_epoch += 1;
        }
        let spread = self.config.election_ticks;
        let drawn = mix(mix(self.config.timeout_seed ^ mix(self.config.node)) ^ self.timeout_epoch) % spread;
        self.node.raft.set_randomized_election_timeout(to_ticks(self.config.election_ticks + drawn));
        if let Some(snapshot) = self.node.raft.raft_log.unstable_snapshot() {
            let index = snapshot.get_metadata().index;
            if self.installing != Some(index) {
                slog::info!(self.logger, "installing a snapshot"; "index" => index);
            }
            self.installing = Some(index);
            self.snapshot_floor = self.snapshot_floor.max(index);
        }
    }

    fn announce(&mut self) {
        let now = (self.role(), self.node.raft.term, self.leader());
        let (role, term, leader, conf) = &self.announced;
        if now != (*role, *term, *leader) || self.conf != *conf {
            self.announced = (now.0, now.1, now.2, self.conf.clone());
            self.effects.changed = true;
        }
    }
}

fn to_ticks(ticks: u64) -> usize {
    usize::try_from(ticks).unwrap_or(usize::MAX)
}

/// SplitMix64's finaliser (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A log error ends the process; this alias says so where it is returned.
pub(crate) type Fatal = LogError;
