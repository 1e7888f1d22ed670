//! What is done to one run: points, kills, and when. Drawn from the seed alone.

use std::fmt;

use raftgrid_crashpoint::{Owner, Point, PLACES};

use super::python::PythonPoint;
use crate::chance::Chance;

/// Workers of the runs, in turn. The shards are the same.
pub const WORKERS: [usize; 4] = [1, 2, 3, 5];
/// Every so many runs there are five replicas.
const FIVE_REPLICAS_EVERY: u64 = 8;
/// Points of controld in one run. In the short form the job has fewer rounds for them.
const REPLICA_POINTS: usize = 3;
const REPLICA_POINTS_SHORT: usize = 2;
/// Points of workerd in one run.
const WORKER_POINTS: usize = 2;

/// Whom a kill without a point hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The leader.
    Leader,
    /// A replica that does not lead.
    Follower,
    /// A worker, and with it its Python process.
    Worker,
    /// A Python process at any moment.
    Python,
    /// All replicas and workers at once.
    All,
}

impl Kind {
    /// All of them.
    pub const EACH: [Kind; 5] = [Kind::Leader, Kind::Follower, Kind::Worker, Kind::Python, Kind::All];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Leader => "leader",
            Kind::Follower => "follower",
            Kind::Worker => "worker",
            Kind::Python => "python",
            Kind::All => "all at once",
        })
    }
}

/// Who comes past a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Before model 0 is there, once.
    AtFirst,
    /// While the job goes on.
    InRounds,
    /// By a replica that was away for longer than the log is kept.
    AfterAway,
}

/// Who comes past it, and the largest count with which it is armed at first: so often it is surely reached early in a run.
pub fn reached(point: Point) -> (Reached, u64) {
    match point {
        Point::FirstModelPlaced | Point::FirstModelCommitted => (Reached::AtFirst, 1),
        Point::SnapshotBeforeInstall | Point::SnapshotInstalled => (Reached::AfterAway, 1),
        Point::LogBeforeWrite
        | Point::LogWritten
        | Point::LogSynced
        | Point::StateBeforeWrite
        | Point::StateWritten => (Reached::InRounds, 80),
        Point::UploadReceived
        | Point::FragmentBeforeSync
        | Point::FragmentSynced
        | Point::FragmentNamed
        | Point::PeerFragmentKept
        | Point::GradientPlaced
        | Point::GradientCommitted => (Reached::InRounds, 12),
        Point::SnapshotMade
        | Point::RoundBeforeSum
        | Point::RoundSummed
        | Point::RoundModelPlaced
        | Point::RoundPlaced
        | Point::RoundCommitted => (Reached::InRounds, 3),
        Point::ShardsTaken
        | Point::ModelFetched
        | Point::ModelCached
        | Point::GradientReceived
        | Point::GradientAcked
        | Point::GradientNoted => (Reached::InRounds, 4),
        Point::ProcessNoted
        | Point::ProcessStarted
        | Point::BundleUnpacked
        | Point::ResultBeforeReport
        | Point::ResultReported => (Reached::InRounds, 1),
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// From 1.
    pub number: u64,
    /// Worker nodes, and trainers of the job.
    pub workers: usize,
    /// Replicas.
    pub replicas: usize,
    /// Points that replicas are armed with, one after another. Those of model 0 come first.
    pub replica_points: Vec<Point>,
    /// The same for workers.
    pub worker_points: Vec<Point>,
    /// (committed rounds, whom), rising: as soon as so many are committed.
    pub kills: Vec<(u64, Kind)>,
    /// (committed rounds, where a Python process kills itself), rising.
    pub python: Vec<(u64, PythonPoint)>,
    /// What else is drawn in the run.
    pub chance: Chance,
}

/// A stack of points that begins anew, in another order, when it is used up.
struct Deck {
    all: Vec<Point>,
    left: Vec<Point>,
}

impl Deck {
    fn of(owner: Owner) -> Self {
        let all = PLACES.iter().filter(|place| place.owner == owner).map(|place| place.point).collect();
        Self { all, left: Vec::new() }
    }

    fn draw(&mut self, count: usize, chance: &mut Chance) -> Vec<Point> {
        let mut drawn: Vec<Point> = Vec::new();
        while drawn.len() < count.min(self.all.len()) {
            if self.left.is_empty() {
                self.left = self.all.clone();
            }
            let at = chance.below(self.left.len() as u64) as usize;
            // One that this run has already stays for the next.
            match self.left.iter().cycle().skip(at).take(self.left.len()).find(|point| !drawn.contains(point)) {
                Some(point) => {
                    let point = *point;
                    self.left.retain(|left| *left != point);
                    drawn.push(point);
                }
                None => self.left = self.all.clone(),
            }
        }
        drawn
    }
}

/// All runs of a campaign. `rounds`: of the job.
pub fn campaign(seed: u64, runs: u64, rounds: u64, short: bool) -> Vec<Plan> {
    let mut chance = Chance::new(seed, 40);
    let (mut replica_deck, mut worker_deck) = (Deck::of(Owner::Controld), Deck::of(Owner::Workerd));
    let mut plans = Vec::new();
    for number in 1..=runs {
        let count = if short { REPLICA_POINTS_SHORT } else { REPLICA_POINTS };
        let mut replica_points = replica_deck.draw(count, &mut chance);
        replica_points
            .sort_by_key(|point| (reached(*point).0 != Reached::AtFirst, *point == Point::FirstModelCommitted));
        let worker_points = worker_deck.draw(WORKER_POINTS, &mut chance);
        // The last third is for points that were not come past by then.
        let early = |chance: &mut Chance| chance.between(1, (rounds * 3 / 5).max(2));
        let mut kills: Vec<(u64, Kind)> = [Kind::Leader, Kind::Follower, Kind::Worker, Kind::Python]
            .into_iter()
            .map(|kind| (early(&mut chance), kind))
            .collect();
        if chance.one_in(3) {
            kills.push((early(&mut chance), Kind::All));
        }
        kills.sort();
        let first = (number - 1) as usize % PythonPoint::EACH.len();
        let mut python: Vec<(u64, PythonPoint)> = [first, (first + 1) % PythonPoint::EACH.len()]
            .into_iter()
            .map(|at| (early(&mut chance), PythonPoint::EACH[at]))
            .collect();
        python.sort();
        plans.push(Plan {
            number,
            workers: WORKERS[(number - 1) as usize % WORKERS.len()],
            replicas: if number % FIVE_REPLICAS_EVERY == 0 { 5 } else { 3 },
            replica_points,
            worker_points,
            kills,
            python,
            chance: Chance::new(seed, 1_000 + number),
        });
    }
    plans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forty_runs_arm_every_point_at_least_twice_whatever_the_seed() {
        for seed in 1..50 {
            let plans = campaign(seed, 40, 40, false);
            for place in PLACES {
                let armed = plans.iter().flat_map(|plan| plan.replica_points.iter().chain(&plan.worker_points));
                let count = armed.filter(|point| **point == place.point).count();
                assert!(count >= 2, "seed {seed}: {} is armed {count} times", place.name);
            }
        }
    }

    #[test]
    fn a_plan_follows_from_its_seed_and_the_workers_go_round() {
        let shown = |seed| format!("{:?}", campaign(seed, 12, 40, false));
        assert_eq!(shown(3), shown(3));
        assert_ne!(shown(3), shown(4));
        let plans = campaign(3, 9, 40, false);
        let workers: Vec<usize> = plans.iter().map(|plan| plan.workers).collect();
        assert_eq!(workers, [1, 2, 3, 5, 1, 2, 3, 5, 1]);
        assert_eq!(plans[7].replicas, 5);
    }

    #[test]
    fn a_point_of_model_0_is_armed_from_the_start() {
        for seed in 1..200 {
            for plan in campaign(seed, 8, 40, false) {
                let at_first = plan.replica_points.iter().map(|point| reached(*point).0 == Reached::AtFirst);
                let order: Vec<bool> = at_first.collect();
                assert!(order.windows(2).all(|pair| pair[0] || !pair[1]), "{:?}", plan.replica_points);
            }
        }
    }
}
