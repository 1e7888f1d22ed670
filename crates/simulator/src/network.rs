//! Who can reach whom, and how long it takes.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::Plan;
use crate::rng::Rng;

/// A machine: a node's id, or 0 for where clients and workers are.
pub type Place = u64;

/// Mean time that a late message takes.
const LATE_US: u64 = 2_000_000;

/// Where clients and workers are.
pub const OUTSIDE: Place = 0;

/// The network.
pub struct Network {
    rng: Rng,
    delay_us: (u64, u64),
    loss: u64,
    duplicates: u64,
    late: u64,
    reorders: bool,
    blocked: BTreeSet<(Place, Place)>,
    /// When the last message on a link arrives.
    last: BTreeMap<(Place, Place), u64>,
}

impl Network {
    /// As planned.
    pub fn new(plan: &Plan, rng: Rng) -> Self {
        Self {
            rng,
            delay_us: plan.delay_us,
            loss: plan.loss,
            duplicates: plan.duplicates,
            late: plan.late,
            reorders: plan.reorders,
            blocked: BTreeSet::new(),
            last: BTreeMap::new(),
        }
    }

    /// Whether nothing gets from one to the other.
    pub fn is_blocked(&self, from: Place, to: Place) -> bool {
        self.blocked.contains(&(from, to))
    }

    /// When a message that is sent now arrives: never, once or twice.
    pub fn arrivals(&mut self, now_us: u64, from: Place, to: Place) -> Vec<u64> {
        if self.is_blocked(from, to) || self.rng.chance(self.loss) {
            return Vec::new();
        }
        let copies = 1 + u64::from(self.rng.chance(self.duplicates));
        (0..copies).map(|_| self.arrival(now_us, from, to)).collect()
    }

    fn arrival(&mut self, now_us: u64, from: Place, to: Place) -> u64 {
        let at = now_us + self.delay_us.0 + self.rng.around(self.delay_us.1);
        if self.rng.chance(self.late) {
            // Stuck in a stream that was given up; what comes after it does not wait for it.
            return at + self.rng.around(LATE_US);
        }
        if self.reorders {
            return at;
        }
        let last = self.last.entry((from, to)).or_insert(0);
        *last = at.max(*last + 1);
        *last
    }

    /// A new cut among `places`, in place of any other. Gives what was cut, for the trace.
    pub fn cut(&mut self, places: &[Place]) -> u64 {
        self.blocked.clear();
        let kind = self.rng.below(4);
        let victim = self.rng.pick(places).copied().unwrap_or(OUTSIDE);
        match kind {
            // One on its own, in both directions.
            0 => self.block_all(places, |from, to| (from == victim) != (to == victim)),
            // One that is not heard, or does not hear.
            1 => self.block_all(places, |from, _| from == victim),
            2 => self.block_all(places, |_, to| to == victim),
            // Two halves.
            _ => {
                let left: BTreeSet<Place> = places.iter().copied().filter(|_| self.rng.chance(500)).collect();
                self.block_all(places, |from, to| left.contains(&from) != left.contains(&to));
            }
        }
        kind << 32 | victim
    }

    fn block_all(&mut self, places: &[Place], cut: impl Fn(Place, Place) -> bool) {
        for from in places {
            for to in places {
                if from != to && cut(*from, *to) {
                    self.blocked.insert((*from, *to));
                }
            }
        }
    }

    /// Everybody reaches everybody.
    pub fn mend(&mut self) {
        self.blocked.clear();
    }

    /// No fault any more.
    pub fn heal(&mut self) {
        self.mend();
        self.loss = 0;
        self.duplicates = 0;
        self.late = 0;
    }
}
