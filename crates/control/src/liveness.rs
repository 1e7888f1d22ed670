//! Liveness: who beat when. Owns contacts and the beats that wait for an answer; proposes registrations, node statuses and load reports.
//!
//! Heartbeats are the leader's memory. A beat is answered only after a read index that began after its arrival, and only when the rows
//! show the node's registration; without a quorum it is answered "none" after a third of the TTL.

use std::collections::{BTreeMap, BTreeSet};

use raftgrid_manifest::predicates::{fell_silent, overtaken};
use raftgrid_proto::v1::{
    Command_oneof_kind, LoadReport, Node, NodeLoad, NodeRow, NodeStatus, NodeStatusChange, RegisterNode,
};

use crate::leases::Leases;
use crate::limits::{
    IDLE_BEAT_MS_MAX, LOADS_PER_REPORT_MAX, LOAD_REPORT_EVERY_MS, LOAD_REPORT_IDLE_MS, LOAD_STEP, PENDING_BEATS_MAX,
    RETRY_PAUSE_MS, SMALL_FLEET,
};
use crate::moment::Moment;
use crate::outbox::{Outbox, Subject};
use crate::timers::Timers;
use crate::types::{Action, Beat, BeatAnswer, Config, Millis};
use crate::view::View;

/// The machine version from which on the row of a node says what is wrong with it.
const PROBLEMS_SINCE: u64 = 3;
/// The machine version from which on it says which of the node's processes it is.
const GENERATIONS_SINCE: u64 = 4;

/// What this leader knows of a node at first hand.
#[derive(Clone, Debug)]
struct Contact {
    /// By this leader.
    heard: bool,
    /// When; before that, from when its silence counts (None: from the next step).
    last: Option<Millis>,
    /// The interval that the node was told.
    interval: Millis,
    cpu_usage: f64,
    memory_usage: f64,
    /// What the node's own checks found, as of its last beat.
    problem: String,
    /// (nonce, generation) of the process that beat last.
    process: (u64, u64),
    heard_unix_s: i64,
    /// (when, cpu, memory) of the last load report.
    reported: Option<(Millis, f64, f64)>,
}

#[derive(Debug)]
struct Pending {
    beat: Beat,
    arrived: Millis,
}

/// How a beat stands to its node's row.
enum Registration {
    Known,
    /// Of an older incarnation, or of one that was overtaken.
    Stale,
    /// A first beat of a process that was started before the one that is registered.
    Overtaken,
    /// A first beat beside a row that does not say when its process was started, before that process was heard: wait for it, or its silence.
    Undecided,
    Needed,
}

#[derive(Debug, Default)]
pub(crate) struct Liveness {
    /// Silence of nodes that were not heard yet counts from here at the earliest.
    grace_until: Millis,
    contacts: BTreeMap<String, Contact>,
    /// When to look at a node's silence again.
    silences: Timers<String>,
    /// Nodes whose status may have to change.
    doubtful: BTreeSet<String>,
    pending: BTreeMap<u64, Pending>,
    confirmed: u64,
    next_load_report: Millis,
    /// Nodes that came back within reach, or whose load moved, since this was last asked.
    pub(crate) stirred: BTreeSet<String>,
}

impl Liveness {
    /// A new leader's, whose grace ends then.
    pub(crate) fn new(grace_until: Millis) -> Self {
        Self { grace_until, ..Self::default() }
    }

    /// The node's row changed.
    pub(crate) fn on_node(&mut self, config: &Config, view: &View, node_id: &str) {
        if !view.nodes.contains_key(node_id) {
            self.contacts.remove(node_id);
            self.silences.clear(&node_id.to_owned());
            return;
        }
        self.contacts.entry(node_id.to_owned()).or_insert(Contact {
            heard: false,
            last: None,
            interval: config.beat_ms,
            cpu_usage: 0.0,
            memory_usage: 0.0,
            problem: String::new(),
            process: (0, 0),
            heard_unix_s: 0,
            reported: None,
        });
        self.doubtful.insert(node_id.to_owned());
    }

    /// Has the node been heard by this leader, and lately?
    pub(crate) fn in_reach(&self, moment: &Moment<'_>, node_id: &str) -> bool {
        self.contacts.get(node_id).is_some_and(|contact| contact.in_reach(moment))
    }

    /// When the node counts as lost to its shards if it is not heard before: its beat window after the last beat; for one that this leader has
    /// never heard, two windows after it took over. None: not a node. Leases live longer; computing a shard twice does no harm.
    pub(crate) fn lost_at(&self, moment: &Moment<'_>, node_id: &str) -> Option<Millis> {
        let contact = self.contacts.get(node_id)?;
        let window = contact.unknown_after(moment.config);
        Some(match contact.last.filter(|_| contact.heard) {
            Some(last) => last + window,
            None => self.grace_until.saturating_sub(moment.config.election_grace_ms) + 2 * window,
        })
    }

    /// Load as last beaten: (cpu, memory) shares.
    pub(crate) fn load(&self, node_id: &str) -> (f64, f64) {
        self.contacts.get(node_id).map_or((0.0, 0.0), |contact| (contact.cpu_usage, contact.memory_usage))
    }

    /// Unix seconds (cluster time) at which this leader last heard of each node.
    pub(crate) fn last_heard(&self) -> impl Iterator<Item = (&str, i64)> {
        self.contacts
            .iter()
            .filter(|(_, contact)| contact.heard)
            .map(|(id, contact)| (id.as_str(), contact.heard_unix_s))
    }

    /// A beat arrived. False: it cannot be kept, answer that there is no quorum.
    pub(crate) fn on_beat(&mut self, moment: &Moment<'_>, ticket: u64, beat: Beat) -> bool {
        if self.pending.len() >= PENDING_BEATS_MAX {
            return false;
        }
        if matches!(self.registration(moment.view, &beat), Registration::Known) {
            self.hear(moment, moment.now, &beat);
        }
        self.pending.insert(ticket, Pending { beat, arrived: moment.now });
        true
    }

    fn hear(&mut self, moment: &Moment<'_>, arrived: Millis, beat: &Beat) {
        let Some(contact) = self.contacts.get_mut(&beat.node_id) else { return };
        let moved =
            moved(contact.cpu_usage, sane(beat.cpu_usage)) || moved(contact.memory_usage, sane(beat.memory_usage));
        if moved || !contact.in_reach(moment) {
            self.stirred.insert(beat.node_id.clone());
        }
        contact.heard = true;
        contact.last = Some(arrived);
        contact.cpu_usage = sane(beat.cpu_usage);
        contact.memory_usage = sane(beat.memory_usage);
        contact.problem.clone_from(&beat.problem);
        contact.process = (beat.boot_nonce, beat.generation);
        contact.heard_unix_s = (moment.cluster_ms() / 1_000) as i64;
        self.doubtful.insert(beat.node_id.clone());
    }

    /// Every beat up to `ticket` has a quorum behind it.
    pub(crate) fn on_quorum(&mut self, ticket: u64) {
        self.confirmed = self.confirmed.max(ticket);
    }

    /// Answers beats that may be answered, proposes registrations for those that need one, gives up on those without a quorum.
    pub(crate) fn step_beats(
        &mut self,
        moment: &Moment<'_>,
        leases: &mut Leases,
        outbox: &mut Outbox,
        actions: &mut Vec<Action>,
    ) {
        for (ticket, pending) in std::mem::take(&mut self.pending) {
            let confirmed = ticket <= self.confirmed;
            let answer = match self.registration(moment.view, &pending.beat) {
                Registration::Known if confirmed => {
                    if lacks_generation(moment.view, &pending.beat) {
                        register(moment.view, outbox, &pending.beat);
                    }
                    Some(self.answer(moment, leases, outbox, &pending))
                }
                Registration::Stale if confirmed => Some(refuse(moment, &pending.beat)),
                Registration::Overtaken if confirmed => Some(BeatAnswer { overtaken: true, ..BeatAnswer::default() }),
                Registration::Known | Registration::Stale | Registration::Overtaken | Registration::Undecided => None,
                Registration::Needed => {
                    register(moment.view, outbox, &pending.beat);
                    None
                }
            };
            if answer.is_some() || moment.now >= pending.arrived + patience(moment.config) {
                actions.push(Action::AnswerBeat { ticket, answer });
            } else {
                self.pending.insert(ticket, pending);
            }
        }
    }

    fn registration(&self, view: &View, beat: &Beat) -> Registration {
        let Some(row) = view.nodes.get(&beat.node_id) else { return Registration::Needed };
        if beat.boot_nonce == 0 || beat.boot_nonce == row.boot_nonce {
            return Registration::Known;
        }
        // It had an incarnation under its nonce, and the node has another nonce now: it was overtaken.
        if beat.incarnation != 0 {
            return Registration::Stale;
        }
        if overtaken(row, beat.boot_nonce, beat.generation) {
            return Registration::Overtaken;
        }
        if beat.generation == 0 || row.generation != 0 || fell_silent(row) {
            return Registration::Needed;
        }
        // Registered under a machine version whose rows know no order: what the process says itself decides.
        match self.contacts.get(&beat.node_id).filter(|contact| contact.heard).map(|contact| contact.process) {
            Some((nonce, generation)) if nonce == row.boot_nonce && generation > beat.generation => {
                Registration::Overtaken
            }
            Some((nonce, _)) if nonce == row.boot_nonce => Registration::Needed,
            _ => Registration::Undecided,
        }
    }

    fn answer(&mut self, moment: &Moment<'_>, leases: &mut Leases, outbox: &Outbox, pending: &Pending) -> BeatAnswer {
        let node_id = &pending.beat.node_id;
        // A node that was registered by this very beat was not known when it arrived.
        if self.contacts.get(node_id).is_some_and(|contact| !contact.heard) {
            self.hear(moment, pending.arrived, &pending.beat);
        }
        let idle = pending.beat.held.is_empty() && moment.view.leases_of_node(node_id).is_empty();
        let config = moment.config;
        let interval = if idle { idle_interval(config, moment.view.nodes.len()) } else { config.beat_ms };
        if let Some(contact) = self.contacts.get_mut(node_id) {
            contact.interval = interval;
        }
        let mut answer = frame(moment, node_id, interval);
        leases.renew(moment, outbox, &pending.beat, pending.arrived, &mut answer);
        answer
    }

    /// Proposes what silence or a beat says of nodes, and the load report.
    pub(crate) fn step_nodes(&mut self, moment: &Moment<'_>, outbox: &mut Outbox) {
        self.doubtful.extend(self.silences.pop_due(moment.now));
        for node_id in std::mem::take(&mut self.doubtful) {
            let Some(row) = moment.view.nodes.get(&node_id) else { continue };
            let Some(contact) = self.contacts.get_mut(&node_id) else { continue };
            contact.last.get_or_insert(self.grace_until.max(moment.now));
            if let Some(at) = contact.next_look(moment) {
                self.silences.set(node_id.clone(), at);
            }
            let Some((status, problem)) = contact.verdict(moment, row.get_node()) else { continue };
            let subject = Subject::Node(node_id.clone());
            if outbox.free(&subject) {
                outbox.put(subject, Command_oneof_kind::node_status_change(status_change(row, status, problem)));
            }
            // Until the row shows it: the proposal may be refused (a full disk) or lost.
            self.silences.set(node_id, moment.now + RETRY_PAUSE_MS);
        }
        self.report_loads(moment, outbox);
    }

    fn report_loads(&mut self, moment: &Moment<'_>, outbox: &mut Outbox) {
        let now = moment.now;
        if now < self.next_load_report || !outbox.free(&Subject::Load) {
            return;
        }
        let mut report = LoadReport::default();
        for (node_id, contact) in &mut self.contacts {
            if !contact.news(now) || !moment.view.nodes.contains_key(node_id) {
                continue;
            }
            contact.reported = Some((now, contact.cpu_usage, contact.memory_usage));
            report.loads.push(NodeLoad {
                node_id: node_id.clone(),
                cpu_usage: contact.cpu_usage,
                memory_usage: contact.memory_usage,
                last_heartbeat: contact.heard_unix_s,
                ..NodeLoad::default()
            });
            if report.loads.len() == LOADS_PER_REPORT_MAX {
                break;
            }
        }
        if !report.loads.is_empty() && moment.cluster_ms() > 0 {
            self.next_load_report = now + LOAD_REPORT_EVERY_MS;
            outbox.put(Subject::Load, Command_oneof_kind::load_report(report));
        }
    }

    pub(crate) fn next_wake(&self, config: &Config) -> Option<Millis> {
        // Tickets rise by arrival: the first pending beat is the oldest.
        let oldest = self.pending.values().next().map(|pending| pending.arrived + patience(config));
        [oldest, self.silences.next()].into_iter().flatten().min()
    }
}

impl Contact {
    fn unknown_after(&self, config: &Config) -> Millis {
        self.interval * config.unknown_after_beats
    }

    fn in_reach(&self, moment: &Moment<'_>) -> bool {
        self.heard && !self.silent(moment)
    }

    fn silent(&self, moment: &Moment<'_>) -> bool {
        self.last.is_some_and(|last| moment.now >= last + self.unknown_after(moment.config))
    }

    fn unhealthy_after(&self, config: &Config) -> Millis {
        self.unknown_after(config).max(config.lease_ttl_ms)
    }

    /// The status that the node should have and has not. Silence never makes a status better.
    fn verdict(&self, moment: &Moment<'_>, node: &Node) -> Option<(NodeStatus, String)> {
        let silent = self.silent(moment);
        let gone = self.last.is_some_and(|last| moment.now >= last + self.unhealthy_after(moment.config));
        let status = match node.status {
            NodeStatus::HEALTHY | NodeStatus::UNKNOWN if gone => NodeStatus::UNHEALTHY,
            NodeStatus::HEALTHY if silent => NodeStatus::UNKNOWN,
            // Whatever it said of itself, it says nothing any more.
            NodeStatus::UNHEALTHY if gone && !node.problem.is_empty() => NodeStatus::UNHEALTHY,
            _ if !self.heard || silent => return None,
            _ if !self.problem.is_empty() => return self.troubled(moment, node),
            NodeStatus::UNKNOWN | NodeStatus::UNHEALTHY => NodeStatus::HEALTHY,
            NodeStatus::HEALTHY => return None,
        };
        Some((status, String::new()))
    }

    /// The node answers and says what is wrong with it. Its row can say so from machine version 3 on.
    fn troubled(&self, moment: &Moment<'_>, node: &Node) -> Option<(NodeStatus, String)> {
        let told = moment.view.machine_version < PROBLEMS_SINCE || node.problem == self.problem;
        let known = node.status == NodeStatus::UNHEALTHY && told;
        (!known).then(|| (NodeStatus::UNHEALTHY, self.problem.clone()))
    }

    /// When its silence next means something.
    fn next_look(&self, moment: &Moment<'_>) -> Option<Millis> {
        let last = self.last?;
        let looks = [last + self.unknown_after(moment.config), last + self.unhealthy_after(moment.config)];
        looks.into_iter().filter(|at| *at > moment.now).min()
    }

    fn news(&self, now: Millis) -> bool {
        if !self.heard {
            return false;
        }
        match self.reported {
            None => true,
            Some((at, cpu, memory)) => {
                let moved = moved(cpu, self.cpu_usage) || moved(memory, self.memory_usage);
                self.last.is_some_and(|last| last > at) && (moved || now >= at + LOAD_REPORT_IDLE_MS)
            }
        }
    }
}

/// Whether the row does not know yet which process of the node this is: it was registered under an older machine version.
fn lacks_generation(view: &View, beat: &Beat) -> bool {
    let row = view.nodes.get(&beat.node_id).filter(|row| row.boot_nonce == beat.boot_nonce && row.generation == 0);
    beat.generation != 0 && view.machine_version >= GENERATIONS_SINCE && row.is_some()
}

/// A beat without a description keeps the one that is known.
fn register(view: &View, outbox: &mut Outbox, beat: &Beat) {
    let subject = Subject::Node(beat.node_id.clone());
    if !outbox.free(&subject) {
        return;
    }
    let known = || view.nodes.get(&beat.node_id).map(|row| row.get_node().clone());
    let mut node: Node = beat.node.clone().or_else(known).unwrap_or_default();
    node.node_id = beat.node_id.clone();
    if view.machine_version < 3 {
        // Replicas of an older version would keep what they do not know in an order of their own.
        node.arch.clear();
        node.os.clear();
    }
    let mut register =
        RegisterNode { boot_nonce: beat.boot_nonce, generation: beat.generation, ..RegisterNode::default() };
    register.set_node(node);
    outbox.put(subject, Command_oneof_kind::register_node(register));
}

fn status_change(row: &NodeRow, status: NodeStatus, problem: String) -> NodeStatusChange {
    NodeStatusChange {
        node_id: row.get_node().node_id.clone(),
        incarnation: row.get_node().incarnation,
        status,
        problem,
        ..NodeStatusChange::default()
    }
}

/// The answer to an overtaken incarnation: nothing that it holds is its own any more.
fn refuse(moment: &Moment<'_>, beat: &Beat) -> BeatAnswer {
    BeatAnswer { revoked: beat.held.clone(), ..frame(moment, &beat.node_id, moment.config.beat_ms) }
}

fn frame(moment: &Moment<'_>, node_id: &str, interval: Millis) -> BeatAnswer {
    BeatAnswer {
        incarnation: moment.view.nodes.get(node_id).map_or(0, |row| row.get_node().incarnation),
        next_beat_ms: u32::try_from(interval).unwrap_or(u32::MAX),
        lease_ttl_ms: u32::try_from(moment.config.lease_ttl_ms).unwrap_or(u32::MAX),
        ..BeatAnswer::default()
    }
}

/// How long a beat waits for its quorum.
fn patience(config: &Config) -> Millis {
    config.lease_ttl_ms / 3
}

/// Idle workers of a large fleet beat less often, so that beats a second stay bounded.
fn idle_interval(config: &Config, nodes: usize) -> Millis {
    let factor = nodes.div_ceil(SMALL_FLEET).max(1) as u64;
    (config.beat_ms * factor).min(IDLE_BEAT_MS_MAX.max(config.beat_ms))
}

/// A load as told by a stranger: finite and not negative. (Agents that exist tell per cent; only the order matters.)
fn sane(value: f64) -> f64 {
    if value.is_finite() {
        value.max(0.0)
    } else {
        0.0
    }
}

/// Did a load move enough to be news?
fn moved(old: f64, new: f64) -> bool {
    (old - new).abs() >= LOAD_STEP * old.max(1.0)
}
