//! Gangs that wait: which members could be placed, and which the others have to wait for. Owned by the planner.

use std::collections::{BTreeMap, BTreeSet};

use raftgrid_proto::v1::TaskRow;

use super::shapes::{rank, Rank, ShapeId};

#[derive(Debug, Default)]
struct Gang {
    min: u32,
    /// Members that could be placed: by index in the gang.
    ready: BTreeMap<u32, (u64, Rank, ShapeId)>,
    /// Members with a lease, on their way to one, or at rest after a failure.
    busy: BTreeSet<u64>,
    /// The task in whose name it waits in line.
    unit: Option<u64>,
    /// Shapes that its members had.
    shapes: BTreeSet<ShapeId>,
}

/// All gangs that have members.
#[derive(Debug, Default)]
pub(super) struct Gangs {
    by_job: BTreeMap<u64, Gang>,
    jobs: BTreeMap<u64, u64>,
}

impl Gangs {
    fn entry(&mut self, job: u64, min: u32) -> &mut Gang {
        let gang = self.by_job.entry(job).or_default();
        gang.min = min;
        gang
    }

    /// A member that could be placed.
    pub(super) fn add(&mut self, job: u64, min: u32, task: u64, row: &TaskRow, shape: ShapeId) {
        self.jobs.insert(task, job);
        let gang = self.entry(job, min);
        gang.busy.remove(&task);
        gang.shapes.insert(shape);
        gang.ready.insert(row.get_gang().index, (task, rank(row), shape));
    }

    /// A member for which the others wait.
    pub(super) fn wait_for(&mut self, job: u64, min: u32, task: u64) {
        self.jobs.insert(task, job);
        let gang = self.entry(job, min);
        gang.ready.retain(|_, (other, ..)| *other != task);
        gang.busy.insert(task);
    }

    /// The member is on its way.
    pub(super) fn underway(&mut self, job: u64, task: u64) {
        if let Some(gang) = self.by_job.get_mut(&job) {
            let min = gang.min;
            self.wait_for(job, min, task);
        }
    }

    /// The member is over, suspended or gone; its gang.
    pub(super) fn remove(&mut self, task: u64) -> Option<u64> {
        let job = self.jobs.remove(&task)?;
        let gang = self.by_job.get_mut(&job)?;
        gang.busy.remove(&task);
        gang.ready.retain(|_, (other, ..)| *other != task);
        Some(job)
    }

    /// Members that could be placed, in order of their index.
    pub(super) fn members(&self, job: u64) -> Vec<u64> {
        let ready = self.by_job.get(&job).map(|gang| gang.ready.values().map(|(task, ..)| *task).collect());
        ready.unwrap_or_default()
    }

    /// (members that could be placed, members they wait for).
    pub(super) fn counts(&self, job: u64) -> (usize, usize) {
        self.by_job.get(&job).map_or((0, 0), |gang| (gang.ready.len(), gang.busy.len()))
    }

    /// The gang waits in line no more; in whose name it did. If no member is left: shapes that are needed no more.
    pub(super) fn take_unit(&mut self, job: u64) -> (Option<u64>, BTreeSet<ShapeId>) {
        let Some(gang) = self.by_job.get_mut(&job) else { return Default::default() };
        let unit = gang.unit.take();
        if gang.ready.is_empty() && gang.busy.is_empty() {
            let shapes = std::mem::take(&mut gang.shapes);
            self.by_job.remove(&job);
            return (unit, shapes);
        }
        (unit, BTreeSet::new())
    }

    /// Members with a lease, or on their way, or at rest.
    pub(super) fn busy(&self, job: u64) -> Vec<u64> {
        self.by_job.get(&job).map(|gang| gang.busy.iter().copied().collect()).unwrap_or_default()
    }

    /// The task in whose name the gang waits in line.
    pub(super) fn unit(&self, job: u64) -> Option<u64> {
        self.by_job.get(&job)?.unit
    }

    /// It was placed.
    pub(super) fn forget_unit(&mut self, job: u64) {
        if let Some(gang) = self.by_job.get_mut(&job) {
            gang.unit = None;
        }
    }

    /// If the gang can be placed: the task in whose name it waits, its rank and shape. It waits as long as its oldest member.
    pub(super) fn make_unit(&mut self, job: u64) -> Option<(u64, Rank, ShapeId)> {
        let gang = self.by_job.get_mut(&job)?;
        if !gang.busy.is_empty() || gang.ready.len() < gang.min as usize || gang.ready.is_empty() {
            return None;
        }
        let first = gang.ready.values().min_by_key(|(_, rank, _)| *rank).copied()?;
        gang.unit = Some(first.0);
        Some(first)
    }
}
