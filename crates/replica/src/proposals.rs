//! How commands get into the log: stamped and proposed on the leader, forwarded once by everybody else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use crossbeam::channel::bounded;
use protobuf::{CodedInputStream, Message};
use raftgrid_driver::{ProposeError, RaftHandle, Role};
use raftgrid_manifest::fields_version;
use raftgrid_proto::v1::{Command, CommandBatch, CommandReply};

use crate::clock::Clock;
use crate::cluster_time::ClusterTime;
use crate::limits::{COMMAND_BYTES_MAX, PROPOSE_WAIT_MS};
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::ports::{CallError, Callback, Commands, Peers};
use crate::room::Room;
use crate::versions::Versions;

/// The path under which a peer takes a batch.
pub const PROPOSE_PATH: &str = "raftgrid/propose";

/// Proposes for everybody in this replica.
pub struct Proposals {
    /// The raft group.
    pub handle: RaftHandle,
    /// For forwarding.
    pub peers: Arc<dyn Peers>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What batches are stamped with.
    pub cluster_time: Mutex<ClusterTime>,
    /// Whether this replica may take more.
    pub(crate) room: Room,
    /// The version that the machine is at.
    pub(crate) versions: Versions,
    /// Counts.
    pub(crate) metrics: Metrics,
    /// Where forwarding blocks.
    pub pool: Pool,
}

impl Proposals {
    /// Proposes here or nowhere.
    pub fn propose_here(&self, mut batch: CommandBatch, done: Callback<Vec<CommandReply>>) {
        let done = self.measured(done);
        if let Err(full) = self.room.check_commands(batch.get_commands()) {
            return done(Err(full));
        }
        if let Err(new) = self.check_version(batch.get_commands()) {
            return done(Err(new));
        }
        let stamp = {
            let mut time = self.cluster_time.lock().unwrap_or_else(PoisonError::into_inner);
            let stamp = time.stamp(self.clock.monotonic_ms(), self.clock.wall_ms());
            let wall = raftgrid_driver::mutant::on("cluster_time_from_wall_clock");
            if wall {
                self.clock.wall_ms()
            } else {
                stamp
            }
        };
        batch.set_cluster_time_ms(stamp);
        let Ok(payload) = batch.write_to_bytes() else {
            return done(Err(CallError::Internal("failed to encode a command".to_owned())));
        };
        if payload.len() > COMMAND_BYTES_MAX {
            return done(Err(CallError::Invalid(format!(
                "the request is {} bytes as a command; the limit is {COMMAND_BYTES_MAX}: put the bytes into an artifact",
                payload.len()
            ))));
        }
        self.handle.propose(
            Bytes::from(payload),
            Box::new(move |outcome| done(outcome.map_err(refused).and_then(|it| decode_replies(&it.reply)))),
        );
    }

    /// Moves cluster time and answers (before, after) once a batch with the new time is committed.
    pub fn set_time(&self, unix_ms: u64, done: Callback<(u64, u64)>) {
        let status = self.handle.status();
        if status.role != Role::Leader {
            return done(Err(CallError::NotLeader { leader: status.leader }));
        }
        let (before, to) = {
            let mut time = self.cluster_time.lock().unwrap_or_else(PoisonError::into_inner);
            let to = if unix_ms == 0 { self.clock.wall_ms() } else { unix_ms };
            let before = time.stamp(self.clock.monotonic_ms(), self.clock.wall_ms());
            if !time.jump(to, self.clock.monotonic_ms()) {
                return done(Err(CallError::Precondition(format!(
                    "cluster time is {before} ms since 1970, which is after {to}; it never goes back"
                ))));
            }
            (before, to)
        };
        // Any batch carries the time; this one nothing else.
        self.propose_here(CommandBatch::new(), Box::new(move |replies| done(replies.map(|_| (before, to)))));
    }

    /// What an older replica would read as something else must not come into the log before the whole cluster knows it.
    fn check_version(&self, commands: &[Command]) -> Result<(), CallError> {
        let has = self.versions.current();
        let needs = commands.iter().filter_map(|command| command.kind.as_ref()).map(fields_version).max();
        match needs.filter(|needs| *needs > has) {
            Some(needs) => {
                Err(CallError::Precondition(format!("needs machine version {needs}, the cluster is at {has}")))
            }
            None => Ok(()),
        }
    }

    fn measured(&self, done: Callback<Vec<CommandReply>>) -> Callback<Vec<CommandReply>> {
        let (metrics, clock, begun_us) = (self.metrics.clone(), self.clock.clone(), self.clock.monotonic_us());
        Box::new(move |outcome| {
            metrics.proposed(clock.monotonic_us().saturating_sub(begun_us), outcome.as_ref().err());
            done(outcome);
        })
    }

    /// A batch that a peer forwarded, encoded; the answer is `encode_replies`.
    pub fn propose_forwarded(&self, batch: &[u8], done: Callback<Vec<u8>>) {
        match CommandBatch::parse_from_bytes(batch) {
            Ok(batch) => self.propose_here(batch, Box::new(move |it| done(it.map(|replies| encode_replies(&replies))))),
            Err(error) => done(Err(CallError::Invalid(format!("failed to decode a forwarded command: {error}")))),
        }
    }

    /// Proposes and waits; for threads that may block.
    pub fn propose_and_wait(&self, commands: Vec<Command>) -> Result<Vec<CommandReply>, CallError> {
        let (sender, outcome) = bounded(1);
        self.propose(commands, Box::new(move |it| drop(sender.send(it))));
        let (wait, told) = (Duration::from_millis(PROPOSE_WAIT_MS), outcome.clone());
        let waited = self.clock.stand_by(Box::new(move || !told.is_empty()), wait);
        match outcome.recv_timeout(if waited { Duration::ZERO } else { wait }) {
            Ok(outcome) => outcome,
            Err(_) => Err(CallError::Unknown),
        }
    }

    /// One command, its reply.
    pub fn propose_one(&self, command: Command) -> Result<CommandReply, CallError> {
        let replies = self.propose_and_wait(vec![command])?;
        replies.into_iter().next().ok_or_else(|| CallError::Internal("failed to get the reply of a command".to_owned()))
    }
}

impl Commands for Proposals {
    fn propose(&self, commands: Vec<Command>, done: Callback<Vec<CommandReply>>) {
        let mut batch = CommandBatch::new();
        batch.set_commands(commands.into());
        let status = self.handle.status();
        if status.role == Role::Leader {
            self.propose_here(batch, done);
        } else {
            self.forward(status.leader, &batch, done);
        }
    }
}

impl Proposals {
    fn forward(&self, leader: u64, batch: &CommandBatch, done: Callback<Vec<CommandReply>>) {
        self.metrics.forwarded.inc();
        if leader == 0 {
            return done(Err(CallError::Unavailable("there is no leader at present".to_owned())));
        }
        let Ok(payload) = batch.write_to_bytes() else {
            return done(Err(CallError::Internal("failed to encode a command".to_owned())));
        };
        let Some(slot) = self.pool.slot() else {
            return done(Err(CallError::Exhausted("too many calls are being forwarded".to_owned())));
        };
        let peers = self.peers.clone();
        slot.run(Box::new(move || {
            let wait = Duration::from_millis(PROPOSE_WAIT_MS);
            let told = Box::new(move |replies| done(forwarded(replies)));
            peers.forward_then(leader, PROPOSE_PATH, payload, wait, told);
        }));
    }
}

fn forwarded(replies: Result<Vec<u8>, CallError>) -> Result<Vec<CommandReply>, CallError> {
    match replies {
        Ok(replies) => decode_replies(&replies),
        // A forwarded batch is never forwarded again.
        Err(CallError::NotLeader { .. }) => Err(CallError::Unavailable("leadership is changing".to_owned())),
        // The leader refuses this replica, not the caller.
        Err(CallError::Precondition(why)) => Err(CallError::Unavailable(why)),
        Err(error) => Err(error),
    }
}

fn refused(error: ProposeError) -> CallError {
    match error {
        ProposeError::NotLeader { leader } => CallError::NotLeader { leader },
        ProposeError::Busy => CallError::Exhausted("this replica has too much to do".to_owned()),
        ProposeError::TooLarge => CallError::Invalid(format!("a command is larger than {COMMAND_BYTES_MAX} bytes")),
        ProposeError::Superseded => {
            CallError::Unavailable("leadership changed before the command was recorded".to_owned())
        }
        ProposeError::Unknown => CallError::Unknown,
        ProposeError::Stopped => CallError::Unavailable("this replica is shutting down".to_owned()),
    }
}

/// Replies of one batch as they travel: each behind its length.
pub(crate) fn encode_replies(replies: &[CommandReply]) -> Vec<u8> {
    let mut out = Vec::new();
    for reply in replies {
        reply.write_length_delimited_to_vec(&mut out).expect("a reply can be encoded into memory");
    }
    out
}

/// The reverse of `encode_replies`.
pub(crate) fn decode_replies(bytes: &[u8]) -> Result<Vec<CommandReply>, CallError> {
    let mut input = CodedInputStream::from_bytes(bytes);
    let mut replies = Vec::new();
    let failed = |error| CallError::Internal(format!("failed to decode the reply of a command: {error}"));
    while !input.eof().map_err(failed)? {
        replies.push(input.read_message::<CommandReply>().map_err(failed)?);
    }
    Ok(replies)
}
