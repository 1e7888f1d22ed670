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

use crate::error::{ChangeError, ProposeError, ReadError, SnapshotError, StartError, TransferError};
use crate::limits;
use crate::traits::{LogError, LogReader, LogStore, SyncMark};
use crate::types::{ConfState, Entry, Index, Message, NodeId, Role, Snapshot, SnapshotMeta, Status, Term};

mod applier;
pub(crate) mod conf;
mod convert;
mod drain;
mod guard;
mod membership;
mod peers;
mod propose;
mod read;
mod snapshots;
mod transfer;
mod view;

pub use applier::{Applied, AppliedChange, AppliedEntry, Applier, ApplyError, Outcome};
pub use guard::Dropped;

use view::LogView;

/// The caller's number for a request; never reused within one core.
pub type Ticket = u64;

/// What a core is started with. Times are in ticks.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// This replica.
    pub node: NodeId,
    /// Silence of a leader after which a follower campaigns; the random spread reaches up to twice this.
    pub election_ticks: u64,
    /// Between two heartbeats of a leader.
    pub heartbeat_ticks: u64,
    /// Spreads election timeouts; the same seed gives the same trace.
    pub timeout_seed: u64,
    /// Another number at every start of the process: read contexts are never reused.
    pub boot_nonce: u64,
    /// A leader refuses proposals while commit − applied is over this many entries.
    pub apply_lag_max: u64,
    /// Applied entries that stay in the log for slow followers.
    pub log_tail_entries: u64,
    /// Between two snapshots made for their own sake; 0: none are.
    pub snapshot_interval_ticks: u64,
    /// Such a snapshot is made only if this many entries were applied since the last.
    pub snapshot_threshold_entries: u64,
    /// After this long without a report, a snapshot sent to a follower counts as failed.
    pub snapshot_report_ticks: u64,
    /// The leader promotes learners that are caught up.
    pub auto_promote: bool,
    /// A learner within this many entries of the commit index is caught up.
    pub promote_lag_entries: u64,
}

impl CoreConfig {
    /// Defaults for a group on a local network, 20 ticks to an election.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            election_ticks: 20,
            heartbeat_ticks: 2,
            timeout_seed: 0,
            boot_nonce: 0,
            apply_lag_max: 100_000,
            log_tail_entries: 10_000,
            snapshot_interval_ticks: 0,
            snapshot_threshold_entries: 8_192,
            snapshot_report_ticks: 20 * 600,
            auto_promote: true,
            promote_lag_entries: 64,
        }
    }
}

/// Work for the apply side, in order.
#[derive(Clone, Debug)]
pub enum ApplyTask {
    /// Committed entries, without gaps.
    Entries(Vec<Entry>),
    /// A snapshot that is durable in the log; tasks before it may be of entries that the log no longer has.
    Restore(Snapshot),
    /// Start making a snapshot; its end is told by [`Core::snapshot_built`].
    BuildSnapshot,
}

/// Proposals that became one entry: ticket i is payload i.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Index of the entry.
    pub index: Index,
    /// Term of the entry.
    pub term: Term,
    /// Whose proposals are in it, in order.
    pub tickets: Vec<Ticket>,
}

/// What a drain asks of its runner.
#[derive(Debug, Default)]
pub struct Effects {
    /// Entries that were appended for proposals; note them before anything is applied.
    pub proposed: Vec<Proposed>,
    /// Proposals that were not tried.
    pub refused: Vec<(Ticket, ProposeError)>,
    /// Membership changes: where the entry stands, or why there is none.
    pub changes: Vec<(Ticket, Result<(Index, Term), ChangeError>)>,
    /// Make everything written so far durable, then call [`Core::synced`] with the mark's number.
    pub sync: Option<SyncMark>,
    /// Messages that may leave now.
    pub send: Vec<Message>,
    /// Work for the apply side.
    pub apply: Vec<ApplyTask>,
    /// Reads: the state machine here covers this index, or why not.
    pub reads: Vec<(Ticket, Result<Index, ReadError>)>,
    /// Transfers of leadership: the new leader, or why not.
    pub transfers: Vec<(Ticket, Result<NodeId, TransferError>)>,
    /// Snapshots that were asked for.
    pub snapshots: Vec<(Ticket, Result<SnapshotMeta, SnapshotError>)>,
    /// Role, term, leader or configuration is not what it was.
    pub changed: bool,
}

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
    /// The log ends below what a leader knows to be here: no votes until restart.
    distrusted: bool,

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
            distrusted: false,
            timeout_epoch: 0,
            timeout_key: (0, StateRole::Follower, 0),
        };
        core.after_raft();
        Ok(core)
    }

    /// One tick of time: heartbeats, elections, deadlines.
    pub fn tick(&mut self) {
        self.ticks += 1;
        let leads = self.leads();
        // During an install, `hup` would read entries that the log no longer has. A single voter becomes leader within the
        // call, and raft-rs asserts that its log is synced. A log that lost its end must not win.
        let may_campaign = self.installing.is_none() && !self.campaign_unsafe() && !self.distrusted;
        if leads || may_campaign {
            self.node.tick();
            self.after_raft();
        }
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

fn check_start<R: LogReader>(
    config: &CoreConfig,
    initial: &crate::types::InitialState,
    reader: &R,
) -> Result<(), StartError> {
    let wrong = |what: &str| Err(StartError::Config(what.to_owned()));
    if config.node == 0 {
        return wrong("the node id is 0");
    }
    if config.election_ticks < limits::ELECTION_TICKS_MIN || config.heartbeat_ticks == 0 {
        return wrong("the election timeout is too short for the tick");
    }
    if config.election_ticks <= config.heartbeat_ticks {
        return wrong("the election timeout is not longer than the heartbeat interval");
    }
    if config.log_tail_entries == 0 {
        return wrong("log_tail_entries is 0");
    }
    let (first, last) = (reader.first_index(), reader.last_index());
    let (applied, commit) = (initial.applied, initial.hard_state.commit);
    let unfit = |what: String| Err(StartError::Inconsistent(what));
    if !(first - 1 <= applied && applied <= commit && commit <= last) {
        return unfit(format!("first {first}, applied {applied}, commit {commit}, last {last}"));
    }
    if initial.conf == ConfState::default() {
        // An empty replica waits for a snapshot, which carries the configuration.
        if last != 0 || initial.hard_state.commit != 0 {
            return unfit(format!("the log reaches {last} and there is no configuration"));
        }
        return Ok(());
    }
    if applied == 0 {
        return unfit("there is a configuration, and nothing is applied: it is not the founding".to_owned());
    }
    conf::check(&initial.conf).or_else(|reason| unfit(format!("the configuration cannot be: {reason}")))
}

/// A log error ends the process; this alias says so where it is returned.
pub(crate) type Fatal = LogError;
