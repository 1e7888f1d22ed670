//! Low disk: a replica whose disk is almost full takes nothing new and hands leadership to one that has room.
//!
//! A write that fails ends the process (durability rule 6), so it must not come to that. Below the mark proposals and uploads are refused as
//! RESOURCE_EXHAUSTED and a follower drops appends; what frees space (deletions, cancellations) goes on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{bounded, RecvTimeoutError, Sender};
use raftgrid_blob::Cache;
use raftgrid_driver::{RaftHandle, Role};
use raftgrid_proto::v1::{Command, Command_oneof_kind};
use slog::{error, info, warn, Logger};

use crate::budget::RoomSpeaker;
use crate::ports::CallError;

/// How often the disk is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// After handing leadership away for want of room, so many looks pass until it is tried again.
const TRANSFER_AGAIN_LOOKS: u32 = 120;

/// Looks at the disk: free bytes, and whether they are below the mark. An error is logged and changes nothing.
pub type RoomGauge = Box<dyn FnMut() -> Result<(u64, bool), String> + Send>;

/// Whether this replica has room; shared by everything that would need some.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    low: Arc<AtomicBool>,
    free_bytes: Arc<AtomicU64>,
}

impl Room {
    /// An error if the disk is almost full.
    pub(crate) fn check(&self) -> Result<(), CallError> {
        if self.low.load(Ordering::Relaxed) {
            let why = "the disk of this replica is almost full; free space, or delete jobs and artifacts";
            return Err(CallError::Exhausted(why.to_owned()));
        }
        Ok(())
    }

    /// Whether the disk is almost full, and its free bytes, as of the last look; 0 before it.
    pub(crate) fn seen(&self) -> (bool, u64) {
        (self.low.load(Ordering::Relaxed), self.free_bytes.load(Ordering::Relaxed))
    }

    /// The same for commands; those that free space may always go.
    pub(crate) fn check_commands(&self, commands: &[Command]) -> Result<(), CallError> {
        let frees = |command: &Command| {
            matches!(
                command.kind,
                Some(
                    Command_oneof_kind::delete_artifact(_)
                        | Command_oneof_kind::remove_artifact(_)
                        | Command_oneof_kind::set_room(_)
                        | Command_oneof_kind::cancel_task(_)
                        | Command_oneof_kind::cancel_job(_)
                )
            )
        };
        if commands.iter().all(frees) {
            return Ok(());
        }
        self.check()
    }
}

/// Looks at the disk now and then, and tells the replica.
pub(crate) struct RoomWatch {
    /// Told.
    pub room: Room,
    /// Looks.
    pub gauge: RoomGauge,
    /// The first to go when there is no room.
    pub cache: Cache,
    /// To hand leadership away.
    pub handle: RaftHandle,
    /// Looks until leadership may be handed away again.
    pub transfer_in: u32,
    /// Says this replica's limit.
    pub speaker: RoomSpeaker,
    /// Log.
    pub logger: Logger,
}

/// Starts the thread that looks; it ends when the sender is dropped.
pub(crate) fn start(mut watch: RoomWatch) -> (Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = bounded::<()>(0);
    let thread = std::thread::Builder::new()
        .name("room".to_owned())
        .spawn(move || {
            while stopped.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                watch.look();
            }
        })
        .expect("a thread can be started while the process boots");
    (stop, thread)
}

impl RoomWatch {
    /// One look.
    pub(crate) fn look(&mut self) {
        let mut seen = (self.gauge)();
        if matches!(seen, Ok((_, true))) {
            // What is kept only to be quicker goes first: without it there may be room.
            self.cache.clear();
            seen = (self.gauge)();
        }
        match seen {
            Ok((free_bytes, low)) => {
                self.cache.fit_spares(free_bytes);
                self.told(free_bytes, low);
            }
            Err(cause) => warn!(self.logger, "free space not known"; "cause" => cause),
        }
        self.speaker.look();
    }

    fn told(&mut self, free_bytes: u64, low: bool) {
        self.room.free_bytes.store(free_bytes, Ordering::Relaxed);
        let before = self.room.low.swap(low, Ordering::Relaxed);
        if low && !before {
            error!(self.logger, "disk almost full, nothing new is taken"; "free_bytes" => free_bytes);
        } else if before && !low {
            info!(self.logger, "disk has room again"; "free_bytes" => free_bytes);
        }
        if low != before {
            self.handle.set_low_room(low);
        }
        self.transfer_in = self.transfer_in.saturating_sub(1);
        if low && self.transfer_in == 0 && self.handle.status().role == Role::Leader {
            // Seldom: where all replicas share one full disk, leadership must not go round and round.
            self.transfer_in = TRANSFER_AGAIN_LOOKS;
            self.handle.transfer_leadership(None, Box::new(|_| ()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftgrid_proto::v1::{DeleteArtifact, SubmitTask};

    #[test]
    fn without_room_only_what_frees_space_goes_through() {
        let room = Room::default();
        let submit = Command { kind: Some(Command_oneof_kind::submit_task(SubmitTask::new())), ..Command::default() };
        let delete =
            Command { kind: Some(Command_oneof_kind::delete_artifact(DeleteArtifact::new())), ..Command::default() };
        assert_eq!(room.check_commands(std::slice::from_ref(&submit)), Ok(()));
        room.low.store(true, Ordering::Relaxed);
        assert!(matches!(room.check_commands(&[delete.clone(), submit]), Err(CallError::Exhausted(_))));
        assert_eq!(room.check_commands(&[delete]), Ok(()));
        assert!(matches!(room.check(), Err(CallError::Exhausted(_))));
    }
}
