//! The world: one thread, virtual time, a heap of events. Everything that happens to a node, happens here, one event after another; what an
//! event leads to is drawn from the seed and put into the heap.
//!
//! `turns` runs a node's loops, `traffic` carries what leaves a node, `workers` holds the workers' machines, `faults` makes trouble, `healing`
//! ends it and looks whether everything converges.

mod event;
mod faults;
mod healing;
mod members;
mod questions;
mod traffic;
mod training;
mod turns;
mod workers;

use std::collections::BTreeMap;

use raftgrid_driver::{ChangeError, Index, MembershipChange, Role, Status};
use raftgrid_proto::v1::Lease;
use raftgrid_store::BootMode;
use slog::Logger;

use crate::ask::Ask;
use crate::calls::Caller;
use crate::check::Checks;
use crate::client::{Around, Client, Habits};
use crate::disk::Crash;
use crate::limits::{EVENTS_MAX, EVENTS_PER_TASK_MAX};
use crate::network::{Network, OUTSIDE};
use crate::node::SimNode;
use crate::plan::Plan;
use crate::ports::Outbox;
use crate::rng::Rng;
use crate::trace::{Sink, Trace};
use crate::worker::Worker;

use event::{Event, Fault};

/// Name of the cluster.
const CLUSTER: &str = "simulated";

/// How often it is looked whether enough tasks were made.
const HEAL_AGAIN_US: u64 = 500_000;

/// What a run is given.
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Founders.
    pub nodes: u64,
    /// Tasks that are to be made, while all kinds of trouble with them go on; 0: faults and their time are drawn from the seed.
    pub tasks: u64,
    /// Gets each event as a line.
    pub sink: Option<Sink>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// A number of everything that happened.
    pub hash: u64,
    /// Events.
    pub events: u64,
    /// Virtual time, in microseconds.
    pub virtual_us: u64,
    /// Entries that were committed.
    pub entries: u64,
    /// What could not be, and was; empty: all is well.
    pub violations: Vec<String>,
    /// The last events, if something was wrong.
    pub tail: String,
    /// What happened how often: for people, and to see that faults do happen.
    pub counts: BTreeMap<&'static str, u64>,
}

/// Outcomes of membership changes.
type Changes = Outbox<(MembershipChange, Result<Index, ChangeError>)>;

/// See the module's head.
pub struct World {
    plan: Plan,
    rng: Rng,
    now_us: u64,
    sequence: u64,
    heap: BTreeMap<(u64, u64), Box<Event>>,
    trace: Trace,
    nodes: BTreeMap<u64, SimNode>,
    /// How many there were at first.
    founders: usize,
    /// Reads of all artifacts, when everything else is over.
    reading: Option<training::Reading>,
    reading_until_us: u64,
    /// Ids of the nodes that clients know.
    known: Vec<u64>,
    next_node: u64,
    network: Network,
    clients: Vec<Client>,
    workers: Vec<Worker>,
    /// When each client, and each worker, is woken next; a wake that is ordered anew replaces the one before it.
    wakes: BTreeMap<Caller, u64>,
    /// Leases that were over when a heartbeat that wants to renew them was sent.
    over_when_asked: BTreeMap<(Caller, u64), Vec<Lease>>,
    keys: Vec<String>,
    checks: Checks,
    changes: Changes,
    healing: bool,
    /// When the last fault was mended.
    healed_us: u64,
    /// When everything must have converged, unless tasks still end.
    converged_until_us: u64,
    /// Tasks that had ended when that time was last over.
    ended_late: u64,
    over: bool,
    counts: BTreeMap<&'static str, u64>,
    logger: Logger,
}

/// Runs a seed to its end.
pub fn run(options: Options) -> Report {
    let mut rng = plan_rng(options.seed);
    let plan = match options.tasks {
        0 => Plan::draw(&mut rng),
        tasks => Plan::of_tasks(tasks, &mut rng),
    };
    run_plan(options, plan)
}

/// The stream that a seed's plan is drawn from. The world draws from others: a plan by hand leaves them as they are.
pub(crate) fn plan_rng(seed: u64) -> Rng {
    Rng::new(seed).split()
}

/// Runs a seed to its end with a plan that somebody made by hand.
pub fn run_plan(options: Options, plan: Plan) -> Report {
    let _quiet = crate::panics::quiet();
    let seed = options.seed;
    let mut world = World::new(options, plan);
    // A node's own panics are its crashes; one that gets here is a judge's, or the world's.
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.go())).is_err() {
        world.checks.violated(format!("panic: {}", crate::panics::last()));
    }
    world.report(seed)
}

impl World {
    fn new(options: Options, plan: Plan) -> Self {
        let mut rng = Rng::new(options.seed);
        let _plan = rng.split();
        let network = Network::new(&plan, rng.split());
        let founders: Vec<u64> = (1..=options.nodes).collect();
        let mut nodes = BTreeMap::new();
        for id in &founders {
            let mode = BootMode::Found { cluster_id: CLUSTER.to_owned(), node_id: *id, founders: founders.clone() };
            nodes.insert(*id, SimNode::new(*id, mode, &plan, &mut rng));
        }
        let clients =
            (0..plan.clients as usize).map(|number| Client::new(number, Habits::of(&plan), rng.split())).collect();
        let workers = (0..plan.workers as usize).map(|number| Worker::new(number, &plan, rng.split())).collect();
        Self {
            rng,
            now_us: 0,
            sequence: 0,
            heap: BTreeMap::new(),
            trace: Trace::new(options.sink),
            nodes,
            founders: founders.len(),
            reading: None,
            reading_until_us: 0,
            next_node: options.nodes + 1,
            known: founders,
            network,
            clients,
            workers,
            wakes: BTreeMap::new(),
            over_when_asked: BTreeMap::new(),
            keys: Vec::new(),
            checks: Checks::default(),
            changes: Changes::default(),
            healing: false,
            healed_us: 0,
            converged_until_us: 0,
            ended_late: 0,
            over: false,
            counts: BTreeMap::new(),
            logger: Logger::root(slog::Discard, slog::o!()),
            plan,
        }
    }

    fn go(&mut self) {
        for id in self.known.clone() {
            let at = self.rng.below(50_000);
            self.order(at, Event::Start { node: id });
        }
        for number in 0..self.clients.len() {
            self.order_wake(Caller::Client(number), 100_000);
        }
        for number in 0..self.workers.len() {
            self.order_wake(Caller::Worker(number), 200_000);
        }
        for fault in Fault::ALL {
            self.order_fault(fault);
        }
        self.order(self.plan.faults_ms * 1_000, Event::Heal);
        while let Some(((at, _), event)) = self.heap.pop_first() {
            self.now_us = at;
            self.happen(*event);
            if self.over || self.checks.violations().len() >= crate::limits::VIOLATIONS_MAX {
                break;
            }
            if self.trace.events() > EVENTS_MAX + self.plan.tasks * EVENTS_PER_TASK_MAX {
                self.checks.violated("too many events: something turns in circles".to_owned());
                break;
            }
        }
    }

    fn report(self, seed: u64) -> Report {
        let violations = self.checks.violations().to_vec();
        Report {
            seed,
            hash: self.trace.hash(),
            events: self.trace.events(),
            virtual_us: self.now_us,
            entries: self.checks.logs.last_committed(),
            tail: if violations.is_empty() { String::new() } else { self.trace.tail() },
            violations,
            counts: self.counts,
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn note(&mut self, what: &'static str, figures: [u64; 4]) {
        self.trace.note(self.now_us, what, figures);
    }

    fn order(&mut self, at_us: u64, event: Event) {
        self.sequence += 1;
        self.heap.insert((at_us.max(self.now_us), self.sequence), Box::new(event));
    }

    fn after(&mut self, delay_us: u64, event: Event) {
        self.order(self.now_us + delay_us, event);
    }

    fn happen(&mut self, event: Event) {
        if let Some((node, life)) = event.node() {
            let Some(machine) = self.nodes.get_mut(&node) else { return };
            if life.is_some_and(|life| life != machine.life || machine.live.is_none()) {
                return;
            }
            if machine.paused_until_us > self.now_us {
                let at = machine.paused_until_us;
                return self.order(at, event);
            }
            let thread = if let Event::Turn { turn, .. } = &event { turn.thread() } else { None };
            let stalled = thread.map_or(0, |thread| machine.stalled_until_us[thread]);
            if stalled > self.now_us {
                return self.order(stalled, event);
            }
            machine.clock.set(self.now_us);
        }
        match event {
            Event::Start { node } => self.start(node),
            Event::Turn { node, turn, .. } => self.turn(node, turn),
            Event::Message { to, from, store, message } => self.deliver(to, from, store, message),
            Event::Snapshot(transfer) => self.deliver_snapshot(*transfer),
            Event::SnapshotReport { node, to, ok, .. } => self.report_snapshot(node, to, ok),
            Event::Question { to, from, life, number, wanted } => {
                self.deliver_question(to, (from, life, number), wanted)
            }
            Event::Told { to, number, answer, .. } => self.deliver_told(to, number, answer),
            Event::Call { node, caller, number, request } => self.deliver_call(node, caller, number, request),
            Event::Answer { caller, number, response } => self.deliver_answer(caller, number, response),
            Event::Wake(caller) => self.wake(caller),
            Event::Gone { worker, until_us } => self.send_away(worker, until_us, true),
            Event::Fault(fault) => self.fault(fault),
            Event::Mend => {
                self.note("mend", [0; 4]);
                self.network.mend();
            }
            Event::Repair { node } => self.repair(node),
            Event::Retire { node } => self.retire(node),
            Event::Heal if self.is_short_of_tasks() => self.after(HEAL_AGAIN_US, Event::Heal),
            Event::Heal => self.heal(),
            Event::Look => self.look(),
        }
    }

    /// Starts a node's process, if it is down and is to come back.
    fn start(&mut self, node: u64) {
        let Some(machine) = self.nodes.get_mut(&node) else { return };
        machine.starting = false;
        if machine.gone || machine.live.is_some() {
            return;
        }
        if self.plan.crash_inside > 0 && !self.healing && self.rng.chance(self.plan.crash_inside / 2) {
            machine.disk.set_fuse(Some(self.rng.between(1, 30)));
        }
        let started = machine.start(&self.plan, &self.logger);
        let (life, may_fail, suspect) = (machine.life, machine.may_fail(), machine.suspect);
        match started {
            Ok(()) => {
                self.note("start", [node, life, 0, 0]);
                if !machine_blown(self.nodes.get(&node)) {
                    self.order_loops(node);
                    self.settle(node);
                } else {
                    self.crash(node, Crash::Power);
                }
            }
            Err(cause) => {
                self.note("no-start", [node, life, 0, 0]);
                self.count("start refused");
                if machine_blown(self.nodes.get(&node)) {
                    self.crash(node, Crash::Power);
                } else if suspect {
                    self.lose(node);
                } else if may_fail {
                    self.crash(node, Crash::Process);
                } else {
                    self.checks.violated(format!("node {node} does not start again: {}", cause.0));
                    self.lose(node);
                }
            }
        }
    }

    /// Ends a node's process without a word, and orders the next.
    fn crash(&mut self, node: u64, crash: Crash) {
        // Sometimes it is back before anybody has missed it.
        let pause =
            if self.rng.chance(500) { 1_000 + self.rng.below(60_000) } else { 100_000 + self.rng.around(1_500_000) };
        let Some(machine) = self.nodes.get_mut(&node) else { return };
        // First the disk: what the process still writes while it is torn down is not written.
        machine.disk.crash(crash);
        let live = machine.live.take();
        let torn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(live)));
        let (gone, starting) = (machine.gone, machine.starting);
        machine.starting = !gone;
        self.note("crash", [node, crash as u64, 0, 0]);
        if torn.is_err() {
            let cause = crate::panics::last();
            self.checks.violated(format!("node {node} panicked while it was torn down: {cause}"));
        }
        if !gone && !starting {
            self.after(pause, Event::Start { node });
        }
    }

    /// A process that ended itself. It must have had a reason.
    fn died(&mut self, node: u64, cause: &str) {
        let may = self.nodes.get(&node).is_some_and(SimNode::may_fail);
        self.note("died", [node, u64::from(may), 0, 0]);
        self.count("died");
        if !may {
            self.checks.violated(format!("node {node} ended itself: {cause}"));
        }
        let crash = if self.rng.chance(500) { Crash::Power } else { Crash::Process };
        self.crash(node, crash);
    }

    /// A node's disk is lost for good.
    fn lose(&mut self, node: u64) {
        if let Some(machine) = self.nodes.get_mut(&node) {
            machine.gone = true;
            let live = machine.live.take();
            machine.disk.crash(Crash::Power);
            // What it says while it is torn down is of no matter.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(live)));
        }
        self.known.retain(|known| *known != node);
        self.note("lost", [node, 0, 0, 0]);
        self.count("lost disk");
    }

    fn status(&self, node: u64) -> Option<std::sync::Arc<Status>> {
        self.nodes.get(&node)?.live.as_ref().map(|live| live.hand.replica.handle().status())
    }

    /// The leader of the highest term among the nodes that run.
    fn leader(&self) -> Option<std::sync::Arc<Status>> {
        let up = self.nodes.keys().filter_map(|node| self.status(*node));
        up.filter(|status| status.role == Role::Leader).max_by_key(|status| status.term)
    }

    /// Wakes a client or a worker then, or sooner if that is ordered already.
    fn order_wake(&mut self, caller: Caller, at_us: u64) {
        let at = at_us.max(self.now_us);
        if self.wakes.get(&caller).is_none_or(|ordered| at < *ordered) {
            self.wakes.insert(caller, at);
            self.order(at, Event::Wake(caller));
        }
    }

    fn wake(&mut self, caller: Caller) {
        if self.wakes.get(&caller) != Some(&self.now_us) {
            return;
        }
        self.wakes.remove(&caller);
        match caller {
            Caller::Client(number) => self.wake_client(number),
            Caller::Worker(number) => self.wake_worker(number),
        }
    }

    fn wake_client(&mut self, number: usize) {
        let Some(client) = self.clients.get_mut(number) else { return };
        let mut around =
            Around { now_us: self.now_us, nodes: &self.known, keys: &mut self.keys, checks: &mut self.checks };
        let ask = client.wake(&mut around);
        self.after_client(number, ask);
    }

    fn after_client(&mut self, number: usize, ask: Option<Ask>) {
        if let Some(ask) = ask {
            self.send_call(Caller::Client(number), ask);
        }
        if let Some(at) = self.clients.get(number).and_then(Client::wake_us) {
            self.order_wake(Caller::Client(number), at.max(self.now_us + 1));
        }
    }

    fn places(&self) -> Vec<u64> {
        let mut places: Vec<u64> = self.nodes.keys().copied().collect();
        places.push(OUTSIDE);
        places
    }
}

fn machine_blown(machine: Option<&SimNode>) -> bool {
    machine.is_some_and(|machine| machine.disk.has_blown())
}
