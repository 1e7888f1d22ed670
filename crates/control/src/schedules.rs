//! Schedules: which ticks are due, and what becomes of each. Owns the timers; proposes FireSchedule.
//!
//! A schedule's ticks are those after its row's last one, reckoned anew from the row: a new leader goes on where the log is, and the machine
//! lets each tick pass once. One tick of a schedule is under way at a time, the oldest first.

use std::collections::BTreeMap;

use raftgrid_proto::v1::{CatchUp, Command_oneof_kind, FireSchedule, ScheduleRow};

use crate::cron::Cron;
use crate::limits::{CATCH_UP_TICKS_MAX, RETRY_PAUSE_MS, SCHEDULES_PER_STEP_MAX, TICKS_COUNTED_MAX, TICK_LATE_MS};
use crate::moment::Moment;
use crate::outbox::{Outbox, Subject};
use crate::timers::Timers;
use crate::types::Millis;
use crate::view::View;

#[derive(Debug, Default)]
pub(crate) struct Schedules {
    /// Cluster time of the next tick.
    next: Timers<String>,
    /// By id, with the generation that it was read of. A line that does not parse has none: only another program can have let it in.
    lines: BTreeMap<String, (u64, Option<Cron>)>,
}

/// What is proposed for a schedule whose tick is due.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    tick_ms: u64,
    skip: bool,
    passed: u64,
}

impl Schedules {
    /// The schedule's row changed.
    pub(crate) fn on_schedule(&mut self, view: &View, id: &str) {
        let key = id.to_owned();
        self.next.clear(&key);
        let Some(row) = view.schedules.get(id) else {
            self.lines.remove(id);
            return;
        };
        let schedule = row.get_schedule();
        if self.lines.get(id).is_none_or(|(generation, _)| *generation != row.generation) {
            let cron = Cron::parse(&schedule.cron, &schedule.time_zone, schedule.last_tick_ms).ok();
            self.lines.insert(key.clone(), (row.generation, cron));
        }
        if schedule.paused {
            return;
        }
        if let Some(tick) = self.cron(id).and_then(|cron| cron.next(schedule.last_tick_ms)) {
            self.next.set(key, tick);
        }
    }

    fn cron(&self, id: &str) -> Option<&Cron> {
        self.lines.get(id).and_then(|(_, cron)| cron.as_ref())
    }

    pub(crate) fn step(&mut self, moment: &Moment<'_>, outbox: &mut Outbox) {
        let cluster_ms = moment.cluster_ms();
        let mut due = self.next.pop_due(cluster_ms);
        let later = due.split_off(due.len().min(SCHEDULES_PER_STEP_MAX));
        for id in later {
            self.next.set(id, cluster_ms + 1);
        }
        for id in due {
            // Again until the row shows that it was dealt with.
            self.next.set(id.clone(), cluster_ms + RETRY_PAUSE_MS);
            let subject = Subject::Schedule(id.clone());
            let (Some(row), Some(cron)) = (moment.view.schedules.get(&id), self.cron(&id)) else { continue };
            if let Some(due) = due_tick(row, cron, cluster_ms).filter(|_| outbox.free(&subject)) {
                outbox.put(subject, fire(row, &due));
            }
        }
    }

    pub(crate) fn next_wake(&self, moment: &Moment<'_>) -> Option<Millis> {
        self.next.next().map(|at| moment.local(at))
    }
}

fn fire(row: &ScheduleRow, due: &Due) -> Command_oneof_kind {
    Command_oneof_kind::fire_schedule(FireSchedule {
        schedule_id: row.get_schedule().schedule_id.clone(),
        generation: row.generation,
        tick_ms: due.tick_ms,
        skip: due.skip,
        passed: due.passed,
        ..FireSchedule::default()
    })
}

/// The tick to deal with now, and how many older ones go by with it.
fn due_tick(row: &ScheduleRow, cron: &Cron, cluster_ms: u64) -> Option<Due> {
    let schedule = row.get_schedule();
    let mut ticks = std::collections::VecDeque::new();
    let (mut at, mut counted) = (schedule.last_tick_ms, 0_u64);
    while let Some(tick) = cron.next(at).filter(|tick| *tick <= cluster_ms) {
        if counted as usize == TICKS_COUNTED_MAX {
            // Nobody looked for very long; what is before yesterday is not counted one by one.
            at = at.max(cluster_ms.saturating_sub(24 * 60 * 60 * 1_000));
            counted += 1;
            continue;
        }
        if counted as usize >= 2 * TICKS_COUNTED_MAX {
            break;
        }
        at = tick;
        counted += 1;
        ticks.push_back(tick);
        if ticks.len() > CATCH_UP_TICKS_MAX {
            ticks.pop_front();
        }
    }
    let (oldest, newest) = (*ticks.front()?, *ticks.back()?);
    let before = |kept: usize| counted.saturating_sub(kept as u64);
    let late = cluster_ms.saturating_sub(newest) > TICK_LATE_MS;
    Some(match schedule.catch_up {
        CatchUp::CATCH_UP_ALL => Due { tick_ms: oldest, skip: false, passed: before(ticks.len()) },
        CatchUp::CATCH_UP_LAST => Due { tick_ms: newest, skip: false, passed: before(1) },
        CatchUp::CATCH_UP_NONE => Due { tick_ms: newest, skip: late, passed: before(1) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn due(catch_up: CatchUp, minutes: u64, late_ms: u64) -> Option<Due> {
        let mut row = ScheduleRow::default();
        row.mut_schedule().catch_up = catch_up;
        row.mut_schedule().last_tick_ms = 100 * MINUTE;
        let cron = Cron::parse("* * * * *", "", 0).expect("good");
        due_tick(&row, &cron, (100 + minutes) * MINUTE + late_ms)
    }

    #[test]
    fn missed_ticks_go_by_or_are_made_up_for_as_the_schedule_says() {
        let tick = |minutes: u64, skip, passed| Some(Due { tick_ms: (100 + minutes) * MINUTE, skip, passed });
        for catch_up in [CatchUp::CATCH_UP_NONE, CatchUp::CATCH_UP_LAST, CatchUp::CATCH_UP_ALL] {
            assert_eq!(due(catch_up, 0, 59_999), None);
            assert_eq!(due(catch_up, 1, 5), tick(1, false, 0), "in time");
        }
        assert_eq!(due(CatchUp::CATCH_UP_NONE, 5, 5), tick(5, false, 4), "the newest is in time");
        assert_eq!(due(CatchUp::CATCH_UP_LAST, 5, 5), tick(5, false, 4));
        assert_eq!(due(CatchUp::CATCH_UP_ALL, 5, 5), tick(1, false, 0), "one after another");
        assert_eq!(due(CatchUp::CATCH_UP_ALL, 150, 5), tick(51, false, 50), "the newest hundred");
    }

    #[test]
    fn a_tick_that_is_too_late_goes_by_unless_it_is_made_up_for() {
        let late = |catch_up| {
            let mut row = ScheduleRow::default();
            row.mut_schedule().catch_up = catch_up;
            row.mut_schedule().last_tick_ms = 1;
            let cron = Cron::parse("0 * * * *", "", 0).expect("good");
            due_tick(&row, &cron, 60 * MINUTE + TICK_LATE_MS + 1).expect("due")
        };
        assert!(late(CatchUp::CATCH_UP_NONE).skip);
        assert!(!late(CatchUp::CATCH_UP_LAST).skip && !late(CatchUp::CATCH_UP_ALL).skip);
    }

    #[test]
    fn years_without_a_leader_cost_a_bounded_reckoning() {
        let due = due(CatchUp::CATCH_UP_ALL, 60 * 24 * 365 * 50, 0).expect("due");
        assert!(due.passed > TICKS_COUNTED_MAX as u64, "{due:?}");
        assert_eq!(due.tick_ms, (100 + 60 * 24 * 365 * 50 - 99) * MINUTE);
    }
}
