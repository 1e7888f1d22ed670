//! Which node a task goes to: the search in the order of load, nodes on which it failed, and the weighing of every node where a task prefers
//! some. Part of the planner.

use raftgrid_manifest::predicates;
use raftgrid_proto::v1::Node;

use super::holds::fits;
use super::hosts::HostId;
use super::planner::{Gate, Planner};
use super::shapes::{Shape, ShapeId};

impl Planner {
    /// The best host for one task of the shape.
    pub(super) fn choose(&mut self, shape: ShapeId, gate: &mut dyn Gate) -> Option<HostId> {
        loop {
            let host = self.find(shape)?;
            if gate.in_reach(&self.hosts.get(host).node.node_id) {
                return Some(host);
            }
            self.hosts.silent(host);
        }
    }

    fn find(&mut self, shape: ShapeId) -> Option<HostId> {
        if self.shapes.get(shape).is_choosy {
            return self.weigh(shape);
        }
        let entry = self.shapes.get(shape);
        let Shape { task, avoided, .. } = entry;
        let (holds, asker) = (&self.holds, self.asker(shape));
        let fits = |host: HostId, node: &Node| fits(holds, asker.as_ref(), host, task, node);
        let is_avoided = |node: &Node| avoided.iter().any(|avoided| avoided.node_id == node.node_id);
        let preferred = &task.get_spec().preferred_nodes;
        if !preferred.is_empty() {
            self.probes += preferred.len();
            let known = preferred.iter().filter_map(|node_id| self.hosts.find(node_id));
            let known = known.filter(|host| self.hosts.get(*host).present);
            let able = known.filter(|host| {
                let node = &self.hosts.get(*host).node;
                !is_avoided(node) && fits(*host, node)
            });
            let best =
                able.min_by(|a, b| predicates::compare_load(task, &self.hosts.get(*a).node, &self.hosts.get(*b).node));
            if best.is_some() {
                return best;
            }
        }
        let mut search = entry.search;
        let mut probes = 0;
        let found = self
            .hosts
            .search(&mut search, &mut probes, &|host, entry| fits(host, &entry.node) && !is_avoided(&entry.node));
        let found = found.or_else(|| self.second_best(entry, &fits));
        self.probes += probes;
        self.shapes.get_mut(shape).search = search;
        found
    }

    /// A node on which the task failed, the one where that was longest ago first. Where it failed twice it only goes if no other node could
    /// ever take it.
    fn second_best(&self, shape: &Shape, fits: &dyn Fn(HostId, &Node) -> bool) -> Option<HostId> {
        if shape.avoided.is_empty() {
            return None;
        }
        let other_could = || {
            let twice =
                |node: &Node| shape.avoided.iter().any(|avoided| avoided.times > 1 && avoided.node_id == node.node_id);
            self.hosts
                .ordered()
                .any(|(_, host)| !twice(&host.node) && predicates::ever(&shape.task, &host.node).is_ok())
        };
        shape.avoided.iter().find_map(|avoided| {
            let host = self.hosts.find(&avoided.node_id)?;
            let entry = self.hosts.get(host);
            let may = entry.present && fits(host, &entry.node) && (avoided.times < 2 || !other_could());
            may.then_some(host)
        })
    }

    /// All hosts, by preferences, spread and affinities; load decides between equals.
    fn weigh(&mut self, shape: ShapeId) -> Option<HostId> {
        let entry = self.shapes.get(shape);
        let task = &entry.task;
        let weigher =
            self.neighbours.weigher(task, &|node_id| self.hosts.find(node_id).map(|host| &self.hosts.get(host).node));
        let avoided = |node: &Node| entry.avoided.iter().any(|avoided| avoided.node_id == node.node_id);
        let mut best: Option<((bool, i64), HostId)> = None;
        let asker = self.asker(shape);
        let mut probes = 0;
        for (host, candidate) in self.hosts.ordered() {
            probes += 1;
            let node = &candidate.node;
            if !fits(&self.holds, asker.as_ref(), host, task, node) || weigher.refuses(node).is_some() {
                continue;
            }
            let preferred = i64::from(task.get_spec().preferred_nodes.contains(&node.node_id)) << 32;
            let score = (!avoided(node), preferred + predicates::preference(task, node) + weigher.score(node));
            if best.is_none_or(|(most, _)| score > most) {
                best = Some((score, host));
            }
        }
        self.probes += probes;
        best.map(|(_, host)| host)
    }
}
