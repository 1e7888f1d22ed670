//! Named limits of the simulator.

/// Virtual time for which faults go on, at least and at most, in milliseconds.
pub const FAULTS_MS: (u64, u64) = (15_000, 60_000);
/// Virtual time within which a healed world must have converged, in milliseconds.
pub const HEAL_MS: u64 = 120_000;
/// Time that a healed world has on top, again and again as long as tasks ended within it, in milliseconds.
pub const HEAL_MORE_MS: u64 = 10_000;
/// Lines of the trace that a failure keeps.
pub const TRACE_TAIL_LINES: usize = 40;
/// Events of one run; more means that something turns in circles.
pub const EVENTS_MAX: u64 = 40_000_000;
/// Events on top for each task that a run is asked for.
pub const EVENTS_PER_TASK_MAX: u64 = 2_000;
/// Time on top within which a healed world must have converged, for each such task, in milliseconds.
pub const HEAL_PER_TASK_MS: u64 = 10;
/// Violations after which a run ends.
pub const VIOLATIONS_MAX: usize = 8;
/// How often an idle apply side looks whether the tables were flushed, in milliseconds of virtual time; as the driver's thread does.
pub const FLUSH_LOOK_MS: u64 = 500;
/// How often the disk's room is looked at, in milliseconds of virtual time.
pub const ROOM_LOOK_MS: u64 = 1_000;
/// Unix time at which virtual time begins, in milliseconds.
pub const EPOCH_MS: u64 = 1_700_000_000_000;
