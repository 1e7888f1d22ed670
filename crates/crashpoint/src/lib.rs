//! Named points, before and after what makes something durable, at which a process ends itself as SIGKILL ends it: no destructor runs, no
//! buffer is flushed. `make prove-bits` arms them (docs/chaos.md); docs/decisions/0035 says why every build has them.
//!
//! A process is armed with one point, by `RAFTGRID_CRASH_AT=name` or `name:N` (the N-th time that it is reached), read once, in `main`.
//! Disarmed, a point costs one relaxed load. Shells only: what is pure (proto, manifest, control, train, the driver's core) has none, since a
//! simulator replays it.

mod points;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::process::{getpid, kill_process, Signal};

pub use points::{Owner, Place, Point, PLACES};

/// The variable that arms a process.
pub const VARIABLE: &str = "RAFTGRID_CRASH_AT";

/// 0: none; else the armed point's number and 1.
static ARMED: AtomicUsize = AtomicUsize::new(0);
/// How often it must still be reached.
static LEFT: AtomicU64 = AtomicU64::new(0);

/// Why a process was not armed. It must not run: a test would take it for one that was.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArmError {
    /// No such point.
    #[error("RAFTGRID_CRASH_AT: `{0}` is no crash point; docs/chaos.md lists them")]
    Unknown(String),
    /// A point of the other program.
    #[error("RAFTGRID_CRASH_AT: {} is a crash point of {}", .0.name(), .0.place().owner)]
    Elsewhere(Point),
    /// What stands behind the colon.
    #[error("RAFTGRID_CRASH_AT: `{0}` is no count of 1 or more")]
    Count(String),
}

/// Arms this process if the environment says so. Call it in `main`, before any thread.
pub fn arm_from_environment(owner: Owner) -> Result<(), ArmError> {
    match std::env::var_os(VARIABLE) {
        None => Ok(()),
        Some(words) if words.is_empty() => Ok(()),
        Some(words) => {
            let (point, count) = parse(&words.to_string_lossy(), owner)?;
            LEFT.store(count, Ordering::SeqCst);
            ARMED.store(point as usize + 1, Ordering::SeqCst);
            Ok(())
        }
    }
}

/// `name` or `name:N`.
fn parse(words: &str, owner: Owner) -> Result<(Point, u64), ArmError> {
    let (name, count) = words.split_once(':').unwrap_or((words, "1"));
    let point = Point::named(name).ok_or_else(|| ArmError::Unknown(name.to_owned()))?;
    if point.place().owner != owner {
        return Err(ArmError::Elsewhere(point));
    }
    match count.parse() {
        Ok(count) if count > 0 => Ok((point, count)),
        Ok(_) | Err(_) => Err(ArmError::Count(count.to_owned())),
    }
}

/// This point is reached. Returns unless the process is armed with it, and this is the time that counts.
#[inline]
pub fn reach(point: Point) {
    if ARMED.load(Ordering::Relaxed) == point as usize + 1 {
        reached(point);
    }
}

#[cold]
fn reached(point: Point) {
    if LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
        die(point);
    }
}

/// What a process writes to standard error before it ends at a point.
pub fn last_words(point: Point) -> String {
    format!("raftgrid: crash point {} is reached, this process kills itself", point.name())
}

fn die(point: Point) -> ! {
    // Straight to the descriptor: standard error has no buffer.
    eprintln!("{}", last_words(point));
    // It cannot fail for the own process; and where it did, this must not go on all the same.
    let _ = kill_process(getpid(), Signal::KILL);
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_point_of_this_program_or_no_count_is_refused() {
        let controld = |words: &str| parse(words, Owner::Controld);
        assert_eq!(controld("log.synced"), Ok((Point::LogSynced, 1)));
        assert_eq!(controld("log.synced:17"), Ok((Point::LogSynced, 17)));
        assert_eq!(controld("log.sinced"), Err(ArmError::Unknown("log.sinced".to_owned())));
        for count in ["0", "", "-1", "many", "1:2"] {
            assert_eq!(controld(&format!("log.synced:{count}")), Err(ArmError::Count(count.to_owned())));
        }
        assert_eq!(controld("shards.taken"), Err(ArmError::Elsewhere(Point::ShardsTaken)));
        assert_eq!(parse("shards.taken", Owner::Workerd), Ok((Point::ShardsTaken, 1)));
        let said = ArmError::Elsewhere(Point::ShardsTaken).to_string();
        assert_eq!(said, "RAFTGRID_CRASH_AT: shards.taken is a crash point of workerd");
    }

    #[test]
    fn a_disarmed_process_passes_every_point() {
        PLACES.iter().for_each(|place| reach(place.point));
    }
}
