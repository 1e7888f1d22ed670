//! A replica without threads: whoever holds it runs each of its loops, one turn at a time, by a clock of his own. The simulator runs replicas
//! so; what they do in a turn is what the threads of `Replica::start` do between two waits.

use std::sync::Arc;

use raftgrid_blob::medium::Medium;
use raftgrid_driver::{Fatal, LogStore, ManualRunner, Observer, StateMachine, Transport};
use raftgrid_store::{Booted, Disk};
use slog::Logger;

use crate::assembly::{assemble, Assembly, Outside};
use crate::clock::Clock;
use crate::janitor::Rounds;
use crate::leader::Shell;
use crate::node::{Replica, ReplicaConfig, StartError};
use crate::pool::{Hands, PoolJob, PoolQueue};
use crate::ports::Peers;
use crate::room::RoomWatch;

/// The raft group of a replica that is run by hand, whatever its store and transport are. See `raftgrid_driver::ManualRunner`.
pub trait Group {
    /// One tick of time; a turn follows.
    fn tick(&mut self);
    /// Whether the raft side has something to do.
    fn has_input(&self) -> bool;
    /// One turn of the raft side.
    fn turn(&mut self) -> Result<(), Fatal>;
    /// Whether an fsync is wanted and none is under way.
    fn wants_sync(&self) -> bool;
    /// An fsync begins, if one is wanted.
    fn begin_sync(&mut self) -> bool;
    /// It ends.
    fn end_sync(&mut self) -> Result<(), Fatal>;
    /// Whether the apply side has something to do.
    fn has_job(&self) -> bool;
    /// One task of the apply side.
    fn apply(&mut self) -> Result<(), Fatal>;
    /// What an idle apply side does each half second.
    fn look_at_flushed(&mut self);
}

impl<L: LogStore, M: StateMachine, T: Transport, O: Observer> Group for ManualRunner<L, M, T, O> {
    fn tick(&mut self) {
        ManualRunner::tick(self);
    }
    fn has_input(&self) -> bool {
        ManualRunner::has_input(self)
    }
    fn turn(&mut self) -> Result<(), Fatal> {
        ManualRunner::turn(self)
    }
    fn wants_sync(&self) -> bool {
        ManualRunner::wants_sync(self)
    }
    fn begin_sync(&mut self) -> bool {
        ManualRunner::begin_sync(self)
    }
    fn end_sync(&mut self) -> Result<(), Fatal> {
        ManualRunner::end_sync(self)
    }
    fn has_job(&self) -> bool {
        ManualRunner::has_job(self)
    }
    fn apply(&mut self) -> Result<(), Fatal> {
        ManualRunner::apply(self)
    }
    fn look_at_flushed(&mut self) {
        ManualRunner::look_at_flushed(self);
    }
}

/// A replica that is run by hand. Dropping it is a crash.
pub struct ReplicaByHand {
    /// Behind the ports.
    pub replica: Arc<Replica>,
    /// Its raft group: ticks each `tick_ms`, turns whenever it has input.
    pub group: Box<dyn Group>,
    leader: Shell,
    janitor: Rounds,
    room: RoomWatch,
    pools: Vec<PoolQueue>,
}

impl ReplicaByHand {
    /// Puts it together; nothing runs. `medium` has the folder of the fragments.
    pub fn start<D: Disk>(
        config: ReplicaConfig,
        booted: Booted<D>,
        medium: Arc<dyn Medium>,
        transport: impl Transport,
        peers: Arc<dyn Peers>,
        clock: Arc<dyn Clock>,
        logger: &Logger,
    ) -> Result<Self, StartError> {
        let mut hands = Hands::Nobody(Vec::new());
        let outside = Outside { peers, clock, medium, logger: logger.clone() };
        // Nobody mends by hand: whoever runs a replica so loses no disk without the whole replica.
        let Assembly { replica, runner, leader, mut janitor, mender: _, room } =
            assemble(config, booted, outside, &mut hands, |config, log, machine, observer| {
                ManualRunner::start(&config, log, machine, transport, observer, logger)
            })?;
        // As its thread does first.
        janitor.round();
        let pools = match hands {
            Hands::Nobody(pools) => pools,
            Hands::Threads => Vec::new(),
        };
        Ok(Self { replica, group: Box::new(runner), leader, janitor, room, pools })
    }

    /// When the next callback of the timer is due, in milliseconds of the replica's monotonic clock.
    pub fn timer_due_ms(&self) -> Option<u64> {
        self.replica.timer.next_due_ms()
    }

    /// Calls what is due.
    pub fn run_timer(&self) {
        self.replica.timer.run_due();
    }

    /// Whether the leader's loops have something to do.
    pub fn leader_has_event(&self) -> bool {
        self.leader.has_event()
    }

    /// When the leader's loops are due even if nothing happens, in milliseconds of the replica's monotonic clock.
    pub fn leader_due_ms(&self) -> Option<u64> {
        self.leader.wake_at_ms()
    }

    /// One turn of the leader's loops.
    pub fn run_leader(&mut self) {
        self.leader.turn(None);
    }

    /// Whether the janitor has something to do.
    pub fn janitor_is_woken(&self) -> bool {
        self.janitor.is_woken()
    }

    /// One round of the janitor.
    pub fn run_janitor(&mut self) {
        if self.janitor.take_wake() {
            self.janitor.round();
        }
    }

    /// One look at the disk; due each second.
    pub fn look_at_room(&mut self) {
        self.room.look();
    }

    /// Jobs that wait in the pools: snapshots, forwarding, sums.
    pub fn pool_jobs(&self) -> usize {
        self.pools.iter().map(PoolQueue::len).sum()
    }

    /// One job, of the first pool that has one from `first` on, round about.
    pub fn take_pool_job(&self, first: usize) -> Option<PoolJob> {
        let count = self.pools.len();
        (0..count).find_map(|step| self.pools[(first + step) % count].take())
    }
}

impl Drop for ReplicaByHand {
    /// Callbacks hold the replica, and the replica holds callbacks.
    fn drop(&mut self) {
        self.replica.timer.clear();
        self.replica.ring.abandon();
    }
}
