//! What leaves a node and what reaches one: raft messages, snapshots, forwarded batches, calls and answers.

use raftgrid_driver::Message;
use raftgrid_manifest::views;
use raftgrid_proto::v1::{HeartbeatRequest, HeartbeatResponse, Lease};
use raftgrid_replica::ports::CallError;
use raftgrid_store::{Acquaintance, SnapshotReader, SnapshotShelf};

use super::event::{Event, Transfer, Turn};
use super::turns::begin;
use super::World;
use crate::ask::Ask;
use crate::calls::{serve, Caller, Request, Response};
use crate::check::wire::{self, Kind};
use crate::client::Around;
use crate::disk::SimDisk;
use crate::network::OUTSIDE;
use crate::rng::hash_bytes;

/// Bytes of one piece of a snapshot on its way.
const PIECE_BYTES: usize = 8 << 10;
/// Mean time that a snapshot takes, in microseconds.
const SNAPSHOT_US: u64 = 200_000;
/// Mean time that a late report or first heartbeat takes, in microseconds.
const LATE_REPORT_US: u64 = 4_000_000;
/// How long a caller waits to hear that nobody listens, in microseconds.
pub(super) const REFUSED_US: u64 = 2_000;

impl World {
    /// Carries away what a node's process has left in its outboxes.
    pub(super) fn carry(&mut self, node: u64) {
        let Some(live) = self.nodes.get(&node).and_then(|machine| machine.live.as_ref()) else { return };
        let store = live.store_uuid;
        let messages = live.messages.take();
        let answers = std::mem::take(&mut *live.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.judge_messages(node, &messages);
        for message in messages {
            if message.snapshot.is_some() {
                self.send_snapshot(node, store, message);
            } else {
                self.send(node, store, &message);
            }
        }
        self.carry_questions(node);
        for (caller, number, response) in answers {
            for at in self.network.arrivals(self.now_us, node, OUTSIDE).into_iter().take(1) {
                self.order(at, Event::Answer { caller, number, response: response.clone() });
            }
        }
    }

    fn send(&mut self, from: u64, store: [u8; 16], message: &Message) {
        let to = message.to;
        let cut = self.network.is_blocked(from, to) || self.nodes.get(&to).is_none_or(|it| it.live.is_none());
        if cut && self.rng.chance(200) {
            // The stream broke, and the transport noticed.
            if let Some(live) = self.nodes.get(&from).and_then(|machine| machine.live.as_ref()) {
                live.hand.replica.handle().unreachable(to);
            }
        }
        for at in self.network.arrivals(self.now_us, from, to) {
            self.order(at, Event::Message { to, from, store, message: message.clone() });
        }
    }

    pub(super) fn deliver(&mut self, to: u64, from: u64, store: [u8; 16], message: Message) {
        self.note("message", [from, to, hash_bytes(&message.data), message.data.len() as u64]);
        self.within(to, |live| {
            if knows(live, from, store) {
                live.hand.replica.handle().step(message);
            }
            Ok(())
        });
    }

    fn send_snapshot(&mut self, from: u64, store: [u8; 16], message: Message) {
        self.count("snapshot sent");
        let to = message.to;
        let Some(machine) = self.nodes.get(&from) else { return };
        let from_life = machine.life;
        let name = message.snapshot.as_ref().map(|snapshot| snapshot.name.clone()).unwrap_or_default();
        if self.plan.rotten_snapshot > 0 && !self.healing && self.rng.chance(300) {
            machine.disk.rot_snapshot();
        }
        let opened = machine.live.as_ref().and_then(|live| live.shelf.open(&name).ok());
        let takes = 1_000 + self.rng.around(SNAPSHOT_US);
        let broken = !self.healing && self.rng.chance(self.plan.broken_snapshots);
        match opened {
            Some(reader) if !broken => {
                let transfer = Transfer { from, from_life, to, store, message, reader };
                self.after(takes, Event::Snapshot(Box::new(transfer)));
            }
            _ => self.after(takes, Event::SnapshotReport { node: from, life: from_life, to, ok: false }),
        }
    }

    pub(super) fn deliver_snapshot(&mut self, transfer: Transfer) {
        let Transfer { from, from_life, to, store, message, reader } = transfer;
        let cut = self.network.is_blocked(from, to) || self.network.is_blocked(to, from);
        let meta = reader.snapshot().meta.clone();
        self.note("snapshot", [from, to, meta.index, u64::from(cut)]);
        let mut ok = false;
        if !cut {
            self.within(to, |live| {
                if !knows(live, from, store) {
                    return Ok(());
                }
                if let Ok(staged) = receive(&live.shelf, &reader) {
                    let message = Message { snapshot: Some(staged), ..message };
                    live.hand.replica.handle().step(message);
                    ok = true;
                }
                Ok(())
            });
        }
        // Who sent it hears of it, or its stream breaks: it is always told.
        let takes = 500 + self.rng.around(5_000);
        if ok {
            self.count("snapshot received");
            if self.plan.crash > 0 && !self.healing && self.rng.chance(300) {
                if let Some(live) = self.nodes.get_mut(&to).and_then(|machine| machine.live.as_mut()) {
                    live.doomed = true;
                }
            }
        }
        self.after(takes, Event::SnapshotReport { node: from, life: from_life, to, ok });
    }

    pub(super) fn report_snapshot(&mut self, node: u64, to: u64, ok: bool) {
        self.note("reported", [node, to, u64::from(ok), 0]);
        self.within(node, |live| {
            live.hand.replica.handle().snapshot_sent(to, ok);
            Ok(())
        });
    }

    /// A client or worker calls.
    pub(super) fn send_call(&mut self, caller: Caller, ask: Ask) {
        let Ask { node, number, request } = ask;
        if let Request::Beat(beat) = &request {
            let over = self.leases_that_are_over(beat);
            self.over_when_asked.insert((caller, number), over);
        }
        let late = self.comes_late(caller, &request);
        for at in self.network.arrivals(self.now_us, OUTSIDE, node) {
            self.order(at + late, Event::Call { node, caller, number, request: request.clone() });
        }
    }

    /// How much longer than others a report or a first heartbeat takes; its worker may be gone by then.
    fn comes_late(&mut self, caller: Caller, request: &Request) -> u64 {
        let Caller::Worker(number) = caller else { return 0 };
        if self.healing || !may_be_late(request) || !self.rng.chance(self.plan.late_reports) {
            return 0;
        }
        self.count(match request {
            Request::Beat(_) => "late hello",
            Request::Upload(_) => "late upload",
            Request::Command(_) | Request::Read(_) | Request::Poll(_) | Request::NextShards(_) | Request::Model(_) => {
                "late report"
            }
        });
        if self.rng.chance(500) {
            let away = 10_000 + self.rng.around(500_000);
            self.after(1, Event::Gone { worker: number, until_us: self.now_us + away });
        }
        self.rng.around(LATE_REPORT_US)
    }

    pub(super) fn deliver_call(&mut self, node: u64, caller: Caller, number: u64, request: Request) {
        self.note("call", [node, caller.number(), number, request.code()]);
        let listening = self.nodes.get(&node).is_some_and(|machine| machine.live.is_some());
        if !listening {
            let response = refused(&request);
            return self.after(REFUSED_US, Event::Answer { caller, number, response });
        }
        self.within(node, |live| {
            if let Some(work) = serve(&live.hand.replica, &live.answers, caller, number, request) {
                begin(live, work);
            }
            Ok(())
        });
    }

    pub(super) fn deliver_answer(&mut self, caller: Caller, number: u64, response: Response) {
        self.note("answer", [caller.number(), number, response.code(), 0]);
        if let Response::Beat(answer) = &response {
            let over = self.over_when_asked.remove(&(caller, number)).unwrap_or_default();
            if let Ok(answer) = answer {
                over.iter().filter_map(|lease| renewed(answer, lease)).for_each(|what| self.checks.violated(what));
            }
        }
        match caller {
            Caller::Client(client) => {
                let mut around =
                    Around { now_us: self.now_us, nodes: &self.known, keys: &mut self.keys, checks: &mut self.checks };
                if let Some(it) = self.clients.get_mut(client) {
                    it.answered(number, response, &mut around);
                    self.after_client(client, None);
                }
            }
            Caller::Worker(worker) => {
                let Some(it) = self.workers.get_mut(worker) else { return };
                if it.away_until_us > self.now_us {
                    let at = it.away_until_us;
                    return self.order(at, Event::Answer { caller, number, response });
                }
                let asks = it.answered(self.now_us, number, &response, &self.known, &mut self.checks);
                self.judge_acks();
                self.after_worker(worker, asks);
            }
        }
    }
}

impl World {
    /// Holds what leaves a node against what is durable there.
    fn judge_messages(&mut self, node: u64, messages: &[Message]) {
        let mut promised = false;
        for message in messages {
            let Some(said) = wire::read(&message.data) else {
                self.checks.violated(format!("node {node} sends what is no message"));
                continue;
            };
            let Some(machine) = self.nodes.get(&node) else { return };
            let found = self.checks.promises.saw_message(node, message.to, &said, &machine.disk);
            if let Err(violation) = found {
                self.checks.violated(violation);
            }
            promised |= match said.kind {
                Kind::RequestVote | Kind::RequestVoteResponse => true,
                Kind::AppendResponse | Kind::PreVote | Kind::Other => false,
            };
        }
        if promised && !self.healing && self.rng.chance(self.plan.crash_voters) {
            // It votes, and its machine loses power at once.
            let delay = self.rng.below(3_000);
            self.order_turn(node, delay, Turn::PowerLoss);
        }
    }

    /// Of the leases that a beat wants to renew, those that are over already, as the node that is furthest knows.
    fn leases_that_are_over(&self, beat: &HeartbeatRequest) -> Vec<Lease> {
        let up = self.nodes.values().filter_map(|machine| machine.live.as_ref());
        let views = up.map(|live| live.hand.replica.view());
        let Some(view) = views.max_by_key(|view| view.position) else { return Vec::new() };
        let is_over = |lease: &&Lease| {
            let row = views::task_row(view.rows.as_ref(), lease.get_task_id()).ok().flatten();
            // A task that is not known there yet has its lease from a node that is further and down.
            row.is_some_and(|row| {
                row.open_epoch != lease.get_epoch() && row.get_task().lease_epoch >= lease.get_epoch()
            })
        };
        beat.held.iter().filter(is_over).cloned().collect()
    }
}

/// A lease that was over before the beat was sent must not be renewed by its answer: the leader confirms its leadership after the arrival.
fn renewed(answer: &HeartbeatResponse, lease: &Lease) -> Option<String> {
    let named = |list: &[Lease]| list.contains(lease);
    let refused = named(&answer.revoked) || named(&answer.not_renewed);
    let (task, epoch) = (lease.get_task_id(), lease.get_epoch());
    (answer.acknowledged && !refused).then(|| format!("1: the lease {epoch} of {task} was renewed after it was over"))
}

fn may_be_late(request: &Request) -> bool {
    match request {
        Request::Command(command) => command.has_report_result(),
        Request::Beat(beat) => beat.incarnation == 0,
        Request::Upload(_) => true,
        Request::Read(_) | Request::Poll(_) | Request::NextShards(_) | Request::Model(_) => false,
    }
}

/// Whether the node is known by this store, as the doorkeeper of the peer port asks.
fn knows(live: &crate::node::Live, from: u64, store: [u8; 16]) -> bool {
    matches!(live.peer_stores.meet(from, store), Ok(Acquaintance::Known))
}

fn refused(request: &Request) -> Response {
    let gone = || CallError::Unavailable("nobody listens".to_owned());
    match request {
        Request::Command(_) => Response::Command(Err(gone())),
        Request::Read(_) => Response::Read(Err(gone())),
        Request::Beat(_) => Response::Beat(Err(gone())),
        Request::Poll(_) => Response::Poll(Err(gone())),
        Request::NextShards(_) => Response::NextShards(Err(gone())),
        Request::Model(_) => Response::Model(Err(gone())),
        Request::Upload(_) => Response::Upload(Err(gone())),
    }
}

/// As `peer` does: every file, piece by piece, then the check of the whole.
fn receive(
    shelf: &SnapshotShelf<SimDisk>,
    reader: &SnapshotReader<SimDisk>,
) -> Result<raftgrid_driver::Snapshot, raftgrid_store::StoreError> {
    let meta = &reader.snapshot().meta;
    let mut staging = shelf.stage(meta.index, meta.term)?;
    for file in reader.files() {
        let mut offset = 0;
        while offset < file.bytes {
            let piece = reader.read(&file.name, offset, PIECE_BYTES)?;
            if piece.is_empty() {
                break;
            }
            staging.write(&file.name, offset, &piece)?;
            offset += piece.len() as u64;
        }
    }
    staging.finish()
}
