//! The leader's loops: one thread (or whoever runs the replica by hand) that feeds `control` while this replica leads, and carries out its actions.
//!
//! Nothing here decides anything: `control` does. State is built from the tables on gaining leadership, folded from the ring, and dropped
//! with it. A heartbeat is answered only after a read index that began after its arrival.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{bounded, Receiver, RecvTimeoutError, Sender, TrySendError};
use raftgrid_control::{Action, Beat, BeatAnswer, Config, Control, Input};
use raftgrid_crashpoint::{reach, Point};
use raftgrid_driver::{RaftHandle, Role};
use raftgrid_manifest::limits::REASON_BYTES_MAX;
use raftgrid_manifest::{views, Rows};
use raftgrid_proto::v1::{
    Command, Command_oneof_kind, ExplainTaskResponse, HeartbeatRequest, HeartbeatResponse, Lease, MemberRow, PutMember,
    SetMachineVersion,
};
use slog::{info, warn, Logger};

use crate::aggregate::Aggregator;
use crate::clock::Clock;
use crate::explain;
use crate::limits::{LEADER_INBOX_MAX, SHARED_READ_MS};
use crate::metrics::seconds;
use crate::ports::{CallError, Callback, Commands};
use crate::proposals::Proposals;
use crate::ring::{Ring, Since};
use crate::versions::{Raise, Versions};
use crate::views::Views;

/// A read index that has not answered by then is asked again, in milliseconds.
const ASK_AGAIN_MS: u64 = 1_000;
/// How often a new leader looks whether it may take over, in milliseconds.
const TAKE_OVER_AGAIN_MS: u64 = 20;

/// What wakes the thread.
pub(crate) enum Event {
    /// Role, term or leader changed, or something was applied.
    Look,
    /// A heartbeat and who waits for its answer.
    Beat(Box<HeartbeatRequest>, Callback<HeartbeatResponse>),
    /// The group was read-indexed in this term: leadership is real, and everything before it is applied.
    Confirmed {
        /// Of the read.
        term: u64,
        /// The last beat before the read began.
        ticket: u64,
        /// Whether a quorum stands behind it.
        ok: bool,
    },
    /// Why a task waits, and who asks.
    Explain(String, Callback<Option<ExplainTaskResponse>>),
    /// For `control`.
    Input(Box<Input>),
    /// End the thread.
    Stop,
}

/// Sends events to the thread.
#[derive(Clone)]
pub(crate) struct LeaderInbox {
    events: Sender<Event>,
}

impl LeaderInbox {
    /// Something may have changed. Never blocks; one pending look is enough.
    pub(crate) fn look(&self) {
        // A full inbox wakes the thread anyway.
        let _ = self.events.try_send(Event::Look);
    }

    /// A heartbeat.
    pub(crate) fn beat(&self, request: HeartbeatRequest, done: Callback<HeartbeatResponse>) {
        match self.events.try_send(Event::Beat(Box::new(request), done)) {
            Ok(()) => {}
            Err(TrySendError::Full(Event::Beat(_, done)) | TrySendError::Disconnected(Event::Beat(_, done))) => {
                done(Err(CallError::Exhausted("the leader has too many heartbeats to answer".to_owned())));
            }
            Err(_) => unreachable!("a beat was sent"),
        }
    }

    /// Why a task waits.
    pub(crate) fn explain(&self, task_id: String, done: Callback<Option<ExplainTaskResponse>>) {
        match self.events.try_send(Event::Explain(task_id, done)) {
            Ok(()) => {}
            Err(TrySendError::Full(Event::Explain(_, done)) | TrySendError::Disconnected(Event::Explain(_, done))) => {
                done(Err(CallError::Exhausted("the leader has too much to answer".to_owned())));
            }
            Err(_) => unreachable!("a question was sent"),
        }
    }

    /// Blocks until there is room; from the replica's own threads only.
    pub(crate) fn input(&self, input: Input) {
        // A stopped thread needs no input.
        let _ = self.events.send(Event::Input(Box::new(input)));
    }

    /// The same from the leader's own thread, which must not wait for itself: what does not go in is ordered again by the step's own time-out.
    pub fn input_from_inside(&self, input: Input) {
        let _ = self.events.try_send(Event::Input(Box::new(input)));
    }

    /// Events that wait.
    pub(crate) fn queued(&self) -> usize {
        self.events.len()
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        let _ = self.events.send(Event::Stop);
    }
}

/// What the thread works with.
pub(crate) struct LeaderLoop {
    /// Settings of the loops.
    pub config: Config,
    /// Addresses of the founders; the first leader records them.
    pub members: Vec<MemberRow>,
    /// The group.
    pub handle: RaftHandle,
    /// Rows.
    pub views: Arc<dyn Views>,
    /// Changes.
    pub ring: Ring,
    /// Writes.
    pub proposals: Arc<Proposals>,
    /// Sums.
    pub aggregator: Arc<Aggregator>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What the other replicas can run.
    pub versions: Versions,
    /// What this one may run.
    pub machine_version: u64,
    /// Log.
    pub logger: Logger,
}

/// Opens the inbox.
pub(crate) fn inbox() -> (LeaderInbox, Receiver<Event>) {
    let (events, queue) = bounded(LEADER_INBOX_MAX);
    (LeaderInbox { events }, queue)
}

/// Starts the thread.
pub(crate) fn start(mut shell: Shell) -> JoinHandle<()> {
    std::thread::Builder::new()
        .name("leader".to_owned())
        .spawn(move || shell.run())
        .expect("a thread can be started while the process boots")
}

/// Leadership of one term.
struct Term {
    term: u64,
    /// None until a read index in this term was confirmed and applied.
    control: Option<Control>,
    folded: u64,
    /// When a read index was asked for that has not answered.
    asked_at: Option<u64>,
    /// The last beat that a quorum stands behind.
    confirmed: u64,
    /// The version of the state machine.
    raise: Raise,
}

/// A beat that is not answered yet.
struct Waiting {
    done: Callback<HeartbeatResponse>,
    /// When a read index is asked for that stands behind it, in milliseconds of the monotonic clock.
    ask_by: u64,
}

/// The loops between two waits.
pub(crate) struct Shell {
    context: LeaderLoop,
    inbox: LeaderInbox,
    queue: Receiver<Event>,
    term: Option<Term>,
    beats: BTreeMap<u64, Waiting>,
    /// Questions of this turn: the task and who asks.
    questions: BTreeMap<u64, (String, Callback<Option<ExplainTaskResponse>>)>,
    next_ticket: u64,
    wake_at: Option<u64>,
}

impl Shell {
    /// Loops that have not begun.
    pub(crate) fn new(context: LeaderLoop, inbox: LeaderInbox, queue: Receiver<Event>) -> Self {
        Self {
            context,
            inbox,
            queue,
            term: None,
            beats: BTreeMap::new(),
            questions: BTreeMap::new(),
            next_ticket: 1,
            wake_at: None,
        }
    }

    fn run(&mut self) {
        loop {
            let first = match self.wait() {
                Some(wait) => match self.queue.recv_timeout(wait) {
                    Ok(event) => Some(event),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                },
                None => match self.queue.recv() {
                    Ok(event) => Some(event),
                    Err(_) => return,
                },
            };
            if !self.turn(first) {
                return;
            }
        }
    }

    /// Whether something has arrived.
    pub(crate) fn has_event(&self) -> bool {
        !self.queue.is_empty()
    }

    /// When a turn is due even if nothing arrives, in milliseconds of the monotonic clock.
    pub(crate) fn wake_at_ms(&self) -> Option<u64> {
        self.wake_at
    }

    /// One turn: what has arrived (`first`, and what is queued behind it), then a step. False: it was told to end.
    pub(crate) fn turn(&mut self, first: Option<Event>) -> bool {
        let mut inputs = Vec::new();
        let mut next = first.or_else(|| self.queue.try_recv().ok());
        while let Some(event) = next {
            match event {
                Event::Stop => {
                    self.refuse_beats();
                    return false;
                }
                Event::Look => {}
                Event::Beat(request, done) => self.take_beat(*request, done, &mut inputs),
                Event::Explain(task_id, done) => self.take_question(task_id, done, &mut inputs),
                Event::Confirmed { term, ticket, ok } => self.confirmed(term, ticket, ok, &mut inputs),
                Event::Input(input) => inputs.push(*input),
            }
            next = self.queue.try_recv().ok();
        }
        let begun_us = self.context.clock.monotonic_us();
        self.follow_role();
        self.step(inputs);
        self.refuse_questions();
        let metrics = &self.context.proposals.metrics;
        metrics.leader_step_seconds.observe(seconds(self.context.clock.monotonic_us().saturating_sub(begun_us)));
        true
    }

    fn wait(&self) -> Option<Duration> {
        let at = self.wake_at?;
        Some(Duration::from_millis(at.saturating_sub(self.context.clock.monotonic_ms())))
    }

    fn take_beat(&mut self, request: HeartbeatRequest, done: Callback<HeartbeatResponse>, inputs: &mut Vec<Input>) {
        let status = self.context.handle.status();
        if status.role != Role::Leader {
            return done(Err(CallError::NotLeader { leader: status.leader }));
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let ask_by = self.context.clock.monotonic_ms() + patience_ms(&request);
        self.beats.insert(ticket, Waiting { done, ask_by });
        inputs.push(Input::Beat { ticket, beat: beat_of(request) });
        if raftgrid_driver::mutant::on("renewal_without_quorum") {
            inputs.push(Input::QuorumConfirmed { ticket });
        }
    }

    fn take_question(&mut self, task_id: String, done: Callback<Option<ExplainTaskResponse>>, inputs: &mut Vec<Input>) {
        let status = self.context.handle.status();
        if status.role != Role::Leader {
            return done(Err(CallError::NotLeader { leader: status.leader }));
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.questions.insert(ticket, (task_id.clone(), done));
        inputs.push(Input::Explain { ticket, task_id });
    }

    /// Questions that the step of their turn did not answer: there is no step before the loops have their state.
    fn refuse_questions(&mut self) {
        for (_, (_, done)) in std::mem::take(&mut self.questions) {
            done(Err(CallError::Unavailable("a new leader is taking over".to_owned())));
        }
    }

    fn confirmed(&mut self, of_term: u64, ticket: u64, ok: bool, inputs: &mut Vec<Input>) {
        let Some(term) = self.term.as_mut().filter(|term| term.term == of_term) else { return };
        term.asked_at = None;
        if !ok {
            return;
        }
        if term.control.is_none() {
            self.take_over();
        }
        if let Some(term) = self.term.as_mut() {
            term.confirmed = term.confirmed.max(ticket);
        }
        inputs.push(Input::QuorumConfirmed { ticket });
    }

    /// Gains or drops leadership as the driver says.
    fn follow_role(&mut self) {
        let status = self.context.handle.status();
        let leads = status.role == Role::Leader;
        if self.term.as_ref().is_some_and(|term| !leads || term.term != status.term) {
            info!(self.context.logger, "leadership lost"; "term" => status.term, "leader" => status.leader);
            self.term = None;
            self.wake_at = None;
            self.refuse_beats();
        }
        if !leads && !self.beats.is_empty() {
            self.refuse_beats();
        }
        if leads && self.term.is_none() {
            info!(self.context.logger, "leadership gained"; "term" => status.term);
            let raise = Raise::new(self.context.machine_version, self.context.versions.clone());
            self.term = Some(Term { term: status.term, control: None, folded: 0, asked_at: None, confirmed: 0, raise });
            self.ask_quorum();
        }
    }

    /// Builds the loops' state: everything committed before this term is applied now.
    fn take_over(&mut self) {
        let now = self.context.clock.monotonic_ms();
        let (rows, position) = self.context.views.view();
        if let Ok(meta) = views::meta(rows.as_ref()) {
            let mut time =
                self.context.proposals.cluster_time.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            time.seen(meta.cluster_time_ms, now);
            if time.alarm(self.context.clock.wall_ms()) {
                warn!(self.context.logger, "wall clock and cluster time differ by more than a minute");
            }
        }
        self.record_members(rows.as_ref());
        let mut control = Control::new(self.context.config.clone(), now);
        match control.load(rows.as_ref()) {
            Ok(()) => {
                if let Some(term) = self.term.as_mut() {
                    term.control = Some(control);
                    term.folded = position;
                }
            }
            Err(error) => slog::error!(self.context.logger, "leader state not loaded"; "cause" => %error),
        }
    }

    /// Addresses of founders that are not in the tables yet.
    fn record_members(&self, rows: &dyn Rows) {
        let Ok(known) = views::members_ever(rows) else { return };
        let missing: Vec<Command> = self
            .context
            .members
            .iter()
            .filter(|member| {
                !known.iter().any(|row| row.removed && row.node_id == member.node_id || same_place(row, member))
            })
            .map(|member| {
                let mut put = PutMember::new();
                put.set_node_id(member.node_id);
                put.set_raft_address(member.raft_address.clone());
                put.set_client_address(member.client_address.clone());
                let mut command = Command::new();
                command.kind = Some(Command_oneof_kind::put_member(put));
                command
            })
            .collect();
        if !missing.is_empty() {
            // Lost with this leader, it is done by the next.
            self.context.proposals.propose(missing, Box::new(|_| ()));
        }
    }

    /// A read index for the beats that no quorum stands behind, once one of them is due. It stands behind all that wait then.
    fn ask_for_beats(&mut self, now: u64) {
        let Some(term) = self.term.as_ref() else { return };
        let Some(due) = self.beats.range(term.confirmed + 1..).map(|(_, beat)| beat.ask_by).min() else { return };
        if due <= now {
            self.ask_quorum();
        } else {
            self.wake_at = Some(self.wake_at.map_or(due, |other| other.min(due)));
        }
    }

    fn ask_quorum(&mut self) {
        let now = self.context.clock.monotonic_ms();
        let waits = |term: &&mut Term| term.asked_at.is_none_or(|at| now.saturating_sub(at) > ASK_AGAIN_MS);
        let Some(term) = self.term.as_mut().filter(waits) else { return };
        term.asked_at = Some(now);
        let (of_term, ticket) = (term.term, self.next_ticket - 1);
        let inbox = self.inbox.clone();
        self.context.handle.read(Box::new(move |index| {
            let _ = inbox.events.try_send(Event::Confirmed { term: of_term, ticket, ok: index.is_ok() });
        }));
    }

    fn step(&mut self, inputs: Vec<Input>) {
        let now = self.context.clock.monotonic_ms();
        let Some(Term { control: Some(control), folded, .. }) = self.term.as_mut() else {
            if self.term.is_some() {
                self.hold(inputs);
                self.ask_quorum();
                self.wake_at = Some(now + TAKE_OVER_AGAIN_MS);
            }
            return;
        };
        match self.context.ring.since(*folded) {
            Since::Events(events) => {
                for event in events {
                    *folded = event.position;
                    for change in event.changes.iter() {
                        if let Err(error) = control.fold(change) {
                            // A row that does not decode is damage: this replica must not go on (the panic ends the process).
                            panic!("failed to read a changed row: {error}; this replica stops, nothing acknowledged is lost");
                        }
                    }
                }
            }
            Since::Compacted => {
                warn!(self.context.logger, "leader loops fell out of the event ring");
                // The new state knows neither the beats that wait nor what is under way: both are asked for again.
                self.refuse_beats();
                self.take_over();
                self.inbox.look();
                return;
            }
        }
        let actions = control.step(now, inputs);
        self.wake_at = None;
        for action in actions {
            self.carry_out(action);
        }
        self.ask_for_beats(now);
        self.raise_version(now);
    }

    /// Proposes a newer version of the state machine once every member runs it.
    fn raise_version(&mut self, now: u64) {
        let Some(raise) = self.term.as_mut().map(|term| &mut term.raise).filter(|raise| raise.open()) else { return };
        // As the apply thread told it: nothing is read in each step while a member is away.
        let current = self.context.versions.current();
        let status = self.context.handle.status();
        if let Some(version) = raise.due(now, current, status.node, &status.conf) {
            info!(self.context.logger, "every replica runs a newer machine version, it is proposed";
                "version" => version, "from" => current);
            let mut set = SetMachineVersion::new();
            set.set_version(version);
            let mut command = Command::new();
            command.kind = Some(Command_oneof_kind::set_machine_version(set));
            // Lost, it is proposed again.
            self.context.proposals.propose(vec![command], Box::new(|_| ()));
        }
        if let Some(again) = raise.again_at_ms() {
            self.wake_at = Some(self.wake_at.map_or(again, |other| other.min(again)));
        }
    }

    /// Beats that came before the loops had their state are refused as retryable; nothing else can come so early.
    fn hold(&mut self, inputs: Vec<Input>) {
        for input in inputs {
            if let Input::Beat { ticket, .. } = input {
                if let Some(Waiting { done, .. }) = self.beats.remove(&ticket) {
                    done(Err(CallError::Unavailable("a new leader is taking over".to_owned())));
                }
            }
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Propose { tag, commands } => {
                let inbox = self.inbox.clone();
                let ends_round = commands.iter().any(|command| command.has_commit_model());
                self.context.proposals.propose(
                    commands,
                    Box::new(move |replies| {
                        if ends_round && replies.is_ok() {
                            reach(Point::RoundCommitted);
                        }
                        let input = Input::Proposed { tag, replies: replies.ok() };
                        let _ = inbox.events.try_send(Event::Input(Box::new(input)));
                    }),
                );
            }
            Action::Aggregate { job_id, round } => {
                self.context.aggregator.start(job_id, round, self.inbox.clone());
            }
            Action::AnswerBeat { ticket, answer } => {
                if let Some(Waiting { done, .. }) = self.beats.remove(&ticket) {
                    done(answer.map_or_else(
                        || Err(CallError::Unavailable("the leader has no quorum".to_owned())),
                        |answer| match answer.overtaken {
                            true => Err(CallError::Precondition(
                                "the node was started anew; this is an older process of it".to_owned(),
                            )),
                            false => Ok(response_of(answer)),
                        },
                    ));
                }
            }
            Action::Explained { ticket, explanation } => {
                if let Some((task_id, done)) = self.questions.remove(&ticket) {
                    done(Ok(explanation.map(|explanation| explain::response_of(task_id, *explanation))));
                }
            }
            Action::WakeAt(at) => self.wake_at = Some(self.wake_at.map_or(at, |other| other.min(at))),
        }
    }

    fn refuse_beats(&mut self) {
        let leader = self.context.handle.status().leader;
        for (_, Waiting { done, .. }) in std::mem::take(&mut self.beats) {
            done(Err(CallError::NotLeader { leader }));
        }
    }
}

/// Whether a founder's addresses are recorded as they are.
fn same_place(row: &MemberRow, founder: &MemberRow) -> bool {
    row.node_id == founder.node_id
        && row.raft_address == founder.raft_address
        && row.client_address == founder.client_address
}

/// How long a beat may wait for others that share its read index: one of a worker that has nothing to lose is not urgent.
fn patience_ms(request: &HeartbeatRequest) -> u64 {
    let idle = request.held.is_empty() && request.incarnation != 0;
    if idle {
        SHARED_READ_MS
    } else {
        0
    }
}

fn beat_of(request: HeartbeatRequest) -> Beat {
    Beat {
        held: request.held.iter().map(|lease| (lease.task_id.clone(), lease.epoch)).collect(),
        boot_nonce: request.boot_nonce,
        generation: request.generation,
        incarnation: request.incarnation,
        cpu_usage: request.cpu_usage,
        memory_usage: request.memory_usage,
        problem: shortened(request.problem),
        node: request.node.as_ref().cloned(),
        node_id: request.node_id,
    }
}

/// The machine keeps no longer ones, and one that it cuts would never be what the node says.
fn shortened(mut problem: String) -> String {
    let end = (0..=REASON_BYTES_MAX.min(problem.len())).rev().find(|&at| problem.is_char_boundary(at)).unwrap_or(0);
    problem.truncate(end);
    problem
}

fn response_of(answer: BeatAnswer) -> HeartbeatResponse {
    let leases = |held: Vec<(String, u64)>| -> protobuf::RepeatedField<Lease> {
        held.into_iter()
            .map(|(task_id, epoch)| {
                let mut lease = Lease::new();
                lease.set_task_id(task_id);
                lease.set_epoch(epoch);
                lease
            })
            .collect::<Vec<_>>()
            .into()
    };
    let mut response = HeartbeatResponse::new();
    response.set_acknowledged(true);
    response.set_incarnation(answer.incarnation);
    response.set_next_beat_ms(answer.next_beat_ms);
    response.set_lease_ttl_ms(answer.lease_ttl_ms);
    response.set_revoked(leases(answer.revoked));
    response.set_stopping(leases(answer.stopping));
    response.set_not_renewed(leases(answer.not_renewed));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_beat_of_a_known_worker_without_leases_waits_for_others() {
        let mut request = HeartbeatRequest::new();
        assert_eq!(patience_ms(&request), 0, "a first beat");
        request.set_incarnation(7);
        assert_eq!(patience_ms(&request), SHARED_READ_MS);
        request.mut_held().push(Lease::new());
        assert_eq!(patience_ms(&request), 0, "its leases run");
    }
}
