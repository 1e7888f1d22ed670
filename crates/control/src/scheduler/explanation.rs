//! Why a task waits, as the planner sees it: its place, its queue's limits and share, what its gang lacks, what is held and avoided, and for
//! each node the first thing that keeps it away. Asked for one task at a time; it changes nothing.

use raftgrid_manifest::limits::EXPLAINED_NODES_MAX;
use raftgrid_manifest::predicates;
use raftgrid_proto::v1::{Node, TaskRow};

use super::holds::{free_members, Asker};
use super::hosts::HostId;
use super::neighbours::Weigher;
use super::planner::Planner;
use super::shapes::{rank, Shape};
use crate::limits::{EXPLAINED_POSITION_MAX, HOSTS_SETTLED_MAX};
use crate::types::Explanation;
use crate::view::Avoided;

impl Planner {
    /// Explains a task in the queue. `in_reach`: whether the leader hears a node.
    pub(crate) fn explain(
        &mut self,
        row: &TaskRow,
        avoided: &[Avoided],
        in_reach: &dyn Fn(&str) -> bool,
    ) -> Explanation {
        while !self.hosts.settle(HOSTS_SETTLED_MAX) {}
        let gang = row.gang.as_ref().map(|gang| (row.job_sequence, gang.min_members));
        let shape_id = self.shapes.of(row, if gang.is_some() { &[] } else { avoided });
        let shape = self.shapes.get(shape_id);
        let mut answer = Explanation { queue: shape.queue.to_string(), ..Explanation::default() };
        self.tell_place(row, shape, &mut answer);
        let min = gang.map_or(1, |(_, min)| min);
        self.tell_quota(shape, min, &mut answer);
        self.tell_share(shape, &mut answer);
        let weigher = self
            .neighbours
            .weigher(&shape.task, &|node_id| self.hosts.find(node_id).map(|host| &self.hosts.get(host).node));
        let mut nodes = Vec::new();
        let (mut count, mut able, mut room, mut whole) = (0_usize, 0_usize, 0_u64, 0_u64);
        for (host, entry) in self.hosts.all() {
            count += 1;
            let node = &entry.node;
            whole += predicates::capable_of(&shape.task, node);
            match self.keeps_away(shape_id, shape, host, node, &weigher, in_reach) {
                None => {
                    able += 1;
                    room += free_members(&shape.task, node);
                }
                Some(why) if nodes.len() < EXPLAINED_NODES_MAX => nodes.push(format!("node {}: {why}", node.node_id)),
                Some(_) => {}
            }
        }
        answer.never = whole < u64::from(min);
        if let Some((job, min)) = gang {
            answer.gang = Some((min, u32::try_from(room).unwrap_or(u32::MAX)));
            let (ready, busy) = self.gangs.counts(job);
            if busy > 0 {
                let why = format!("gang: {busy} members still run, stop or rest; {ready} wait for them");
                answer.reasons.push(why);
            }
        }
        self.tell_holds(shape_id, &mut answer);
        for node in avoided {
            let times = node.times;
            let how = if times > 1 { "goes there only if no other node could ever take it" } else { "prefers others" };
            answer.reasons.push(format!("avoids node {}: {times} attempts ended there; it {how}", node.node_id));
        }
        answer.reasons.extend(nodes);
        answer.summary = summary(&answer, count, able);
        answer
    }

    fn tell_place(&self, row: &TaskRow, shape: &Shape, answer: &mut Explanation) {
        let unit = match shape.gang {
            Some((job, _)) => self.gangs.unit(job),
            None => Some(row.sequence),
        };
        let place = unit.and_then(|unit| self.waiting.get(&unit)).map_or(rank(row), |(rank, _)| *rank);
        let mut before = 0;
        for other in self.shapes.iter().filter(|other| other.queue == shape.queue) {
            before += other.waiting.range(..place).take(EXPLAINED_POSITION_MAX + 1 - before).count();
            if before > EXPLAINED_POSITION_MAX {
                answer.reasons.push(format!("more than {EXPLAINED_POSITION_MAX} tasks of its queue go before it"));
                return;
            }
        }
        answer.position = before as u64 + 1;
    }

    fn tell_quota(&self, shape: &Shape, min: u32, answer: &mut Explanation) {
        if let Some(Err(over)) = self.lines.get(&shape.queue).map(|line| line.admits(&shape.demand, u64::from(min))) {
            answer.reasons.push(over.to_string());
            answer.quota = Some(over);
        }
    }

    /// Only where there is another queue to share with.
    fn tell_share(&self, shape: &Shape, answer: &mut Explanation) {
        let capacity = self.hosts.capacity();
        let Some(mine) = self.lines.get(&shape.queue) else { return };
        let share = mine.share(&capacity);
        let before = self
            .lines
            .iter()
            .filter(|(name, line)| *name != &*shape.queue && !line.heads.is_empty() && line.share(&capacity) < share);
        let before: Vec<&str> = before.map(|(name, _)| named(name)).collect();
        if !before.is_empty() {
            let part = (mine.share_with(&capacity, Default::default(), Default::default()) * 100) >> 32;
            let (name, weight) = (named(&shape.queue), mine.settings.weight.max(1));
            let why = format!("queue {name} holds {part} % of the cluster for each of its weight of {weight}");
            answer.reasons.push(format!("{why}; with less, {} go first", before.join(", ")));
        }
    }

    fn tell_holds(&self, shape: u64, answer: &mut Explanation) {
        for hold in self.holds.iter().filter(|hold| hold.shape == shape) {
            let nodes: Vec<&str> = hold.hosts.iter().map(|host| self.hosts.get(*host).node.get_node_id()).collect();
            let why = if hold.until.is_some() { "being emptied" } else { "held" };
            answer.reasons.push(format!("{why} for it: {}", nodes.join(", ")));
        }
    }

    fn keeps_away(
        &self,
        shape_id: u64,
        shape: &Shape,
        host: HostId,
        node: &Node,
        weigher: &Weigher,
        in_reach: &dyn Fn(&str) -> bool,
    ) -> Option<String> {
        let task = &shape.task;
        let unfit = predicates::eligible(task, node)
            .and_then(|()| predicates::able(task, node))
            .and_then(|()| predicates::fits(task.get_spec().get_resources(), node));
        if let Err(unfit) = unfit {
            return Some(unfit.to_string());
        }
        if !in_reach(&node.node_id) {
            return Some("not heard from by this leader".to_owned());
        }
        if let Some(why) = weigher.refuses(node) {
            return Some(why);
        }
        let asker = Asker::of(shape_id, shape);
        let other = self.holds.iter().find(|hold| hold.keeps(host, &asker))?;
        let whose = self.shapes.known(other.shape).and_then(|shape| shape.gang).map_or("another task", |_| "a gang");
        Some(format!("held for {whose} that waits longer"))
    }
}

fn named(queue: &str) -> &str {
    if queue.is_empty() {
        "(default)"
    } else {
        queue
    }
}

fn summary(answer: &Explanation, nodes: usize, able: usize) -> String {
    if nodes == 0 {
        return "no node is registered; start a worker".to_owned();
    }
    if answer.never {
        return "no node of this cluster can ever run it".to_owned();
    }
    if let Some(over) = &answer.quota {
        return format!("its queue is full: {over}");
    }
    if let Some((min, fit)) = answer.gang {
        if fit < min {
            return format!("its gang is placed whole: {fit} of at least {min} members would fit now");
        }
        return format!(
            "its gang is placed whole: {fit} members would fit, {min} are needed; it is about to be placed"
        );
    }
    if able == 0 {
        return format!("none of {nodes} nodes can take it");
    }
    format!("{able} of {nodes} nodes can take it; it is about to be placed")
}
