//! The event ring: what apply changed, by position, bounded. Waiters, watches, the leader's loops and the janitor read it.
//!
//! Apply publishes, everybody else reads; whoever falls out of it starts again from the tables. Callbacks are called after the lock is free.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use raftgrid_manifest::watched::{touches, Watched};
use raftgrid_manifest::Change;

use crate::interests::Interests;
use crate::limits::{RING_CHANGES_MAX, RING_EVENTS_MAX};
use crate::timer::{Ticket, Timer};

/// Changes of one entry.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Position of the entry's last command.
    pub position: u64,
    /// Its changes, final values.
    pub changes: Arc<Vec<Change>>,
}

type Woken = Box<dyn FnOnce(u64) + Send>;
/// Called with the changes of each publication; none: the tables were replaced.
type Tap = Box<dyn Fn(&[Change]) + Send>;

struct Waiter {
    woken: Woken,
    ticket: Option<Ticket>,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    changes: usize,
    /// Events at or below this position are gone.
    dropped: u64,
    last: u64,
    waiters: BTreeMap<u64, Waiter>,
    interests: Interests,
    next_waiter: u64,
    taps: Vec<Tap>,
}

/// What happened since a position.
pub(crate) enum Since {
    /// Everything, in order.
    Events(Vec<Event>),
    /// The ring no longer reaches back so far: start from the tables.
    Compacted,
}

/// The ring of one replica.
#[derive(Clone)]
pub(crate) struct Ring {
    state: Arc<Mutex<State>>,
    timer: Timer,
}

impl Ring {
    /// Empty, standing at the position of the tables.
    pub(crate) fn new(position: u64, timer: Timer) -> Self {
        let state = State { dropped: position, last: position, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), timer }
    }

    /// `tap` is called after each publication with its changes; it must only look at them, set a flag or send to a channel.
    pub(crate) fn tap(&self, tap: Tap) {
        self.lock().taps.push(tap);
    }

    /// Called from apply, in order.
    pub(crate) fn publish(&self, position: u64, changes: Vec<Change>) {
        let mut state = self.lock();
        assert!(position >= state.last, "apply goes forward: {position} after {}", state.last);
        state.last = position;
        let hit = state.interests.take(&changes);
        let woken: Vec<Waiter> = hit.iter().filter_map(|id| state.waiters.remove(id)).collect();
        state.changes += changes.len();
        state.events.push_back(Event { position, changes: Arc::new(changes) });
        while state.events.len() > RING_EVENTS_MAX || state.changes > RING_CHANGES_MAX {
            let Some(oldest) = state.events.pop_front() else { break };
            state.changes -= oldest.changes.len();
            state.dropped = oldest.position;
        }
        for tap in &state.taps {
            tap(state.events.back().map_or(&[], |event| &event.changes));
        }
        drop(state);
        self.wake(woken, position);
    }

    /// The tables were replaced by an installed snapshot: everybody starts again.
    pub(crate) fn reset(&self, position: u64) {
        let mut state = self.lock();
        state.events.clear();
        state.changes = 0;
        state.dropped = position;
        state.last = position;
        state.interests = Interests::default();
        let woken: Vec<Waiter> = std::mem::take(&mut state.waiters).into_values().collect();
        for tap in &state.taps {
            tap(&[]);
        }
        drop(state);
        self.wake(woken, position);
    }

    /// (events kept, waiters).
    pub(crate) fn held(&self) -> (usize, usize) {
        let state = self.lock();
        (state.events.len(), state.waiters.len())
    }

    /// The replica is gone: nobody who waits is called.
    pub(crate) fn abandon(&self) {
        let (waiters, taps) = {
            let mut state = self.lock();
            state.interests = Interests::default();
            (std::mem::take(&mut state.waiters), std::mem::take(&mut state.taps))
        };
        drop((waiters, taps));
    }

    /// Everything after `position`.
    pub(crate) fn since(&self, position: u64) -> Since {
        let state = self.lock();
        if position < state.dropped {
            return Since::Compacted;
        }
        // In order of position: whoever follows closely looks at the end only.
        let gap = u64::from(raftgrid_driver::mutant::on("watch_gap")) << 16;
        let first = state.events.partition_point(|event| event.position <= position + gap);
        Since::Events(state.events.range(first..).cloned().collect())
    }

    /// Calls `woken` once: at the first change after `position` of what is `watched` (None: any), or after `timeout`.
    pub(crate) fn changed_after(&self, position: u64, watched: Option<Watched>, timeout: Duration, woken: Woken) {
        let mut state = self.lock();
        let missed = position < state.dropped
            || state
                .events
                .iter()
                .rev()
                .take_while(|event| event.position > position)
                .any(|event| watched.as_ref().is_none_or(|watched| touches(watched, &event.changes)));
        if missed {
            let last = state.last;
            drop(state);
            return woken(last);
        }
        let id = state.next_waiter;
        state.next_waiter += 1;
        let ring = self.clone();
        let ticket = self.timer.after(timeout, Box::new(move || ring.expire(id)));
        state.interests.insert(id, watched);
        state.waiters.insert(id, Waiter { woken, ticket: Some(ticket) });
    }

    fn expire(&self, id: u64) {
        let mut state = self.lock();
        let waiter = state.waiters.remove(&id);
        state.interests.remove(id);
        let last = state.last;
        drop(state);
        if let Some(waiter) = waiter {
            (waiter.woken)(last);
        }
    }

    fn wake(&self, woken: Vec<Waiter>, position: u64) {
        for waiter in woken {
            if let Some(ticket) = waiter.ticket {
                self.timer.cancel(ticket);
            }
            (waiter.woken)(position);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::channel::unbounded;
    use raftgrid_manifest::Table;

    fn change(table: Table, key: &[u8]) -> Change {
        Change { table, key: key.to_vec(), value: None }
    }

    #[test]
    fn a_waiter_wakes_for_its_rows_and_for_nothing_else() {
        let timer = Timer::new(Arc::new(crate::clock::SystemClock::default()));
        let thread = timer.start();
        let ring = Ring::new(10, timer.clone());
        let (sender, woken) = unbounded();
        let interest = vec![(Table::TaskByNode, b"node-1".to_vec())];
        let hour = Duration::from_secs(3600);
        ring.changed_after(10, Some(interest.clone()), hour, Box::new(move |at| sender.send(at).unwrap()));
        ring.publish(11, vec![change(Table::TaskByNode, b"node-2/1"), change(Table::Task, b"node-1")]);
        assert!(woken.try_recv().is_err());
        ring.publish(12, vec![change(Table::TaskByNode, b"node-1/7")]);
        assert_eq!(woken.recv().unwrap(), 12);
        let (sender, late) = unbounded();
        ring.changed_after(11, Some(interest), hour, Box::new(move |at| sender.send(at).unwrap()));
        assert_eq!(late.recv().unwrap(), 12, "a change between the read and the wait is not missed");
        timer.stop();
        thread.join().unwrap();
    }

    #[test]
    fn whoever_fell_out_of_the_ring_is_told_to_start_again() {
        let timer = Timer::new(Arc::new(crate::clock::SystemClock::default()));
        let thread = timer.start();
        let ring = Ring::new(0, timer.clone());
        for position in 1..=(RING_EVENTS_MAX as u64 + 5) {
            ring.publish(position, vec![change(Table::Meta, b"")]);
        }
        assert!(matches!(ring.since(3), Since::Compacted));
        let Since::Events(events) = ring.since(RING_EVENTS_MAX as u64) else { panic!("still in the ring") };
        assert_eq!(events.iter().map(|event| event.position).collect::<Vec<_>>().len(), 5);
        timer.stop();
        thread.join().unwrap();
    }
}
