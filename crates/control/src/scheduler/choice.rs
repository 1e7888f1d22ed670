//! Which node a task goes to: the search in the order of load, nodes on which it failed, and the weighing of every node where a task prefers
//! some. Part of the planner.

use raftgrid_manifest::predicates;
use raftgrid_proto::v1::Node;

use super::holds::fits;
use super::hosts::{Found, Host, HostId};
use super::planner::{Gate, Planner};
use super::shapes::{Shape, ShapeId};

impl Planner {
    /// The best host for one task of the shape, however long the search takes: what is chosen for a gang is chosen in one go.
    pub(super) fn choose(&mut self, shape: ShapeId, gate: &mut dyn Gate) -> Option<HostId> {
        match self.choose_within(usize::MAX, shape, gate) {
            Found::Host(host) => Some(host),
            Found::Nowhere | Found::Later => None,
        }
    }

    /// The same while this pass has made fewer than `most` looks.
    pub(super) fn choose_within(&mut self, most: usize, shape: ShapeId, gate: &mut dyn Gate) -> Found {
        loop {
            let host = match self.find(most, shape) {
                Found::Host(host) => host,
                other => return other,
            };
            if gate.in_reach(&self.hosts.get(host).node.node_id) {
                return Found::Host(host);
            }
            self.hosts.silent(host);
        }
    }

    fn find(&mut self, most: usize, shape: ShapeId) -> Found {
        if self.shapes.get(shape).is_choosy {
            return self.weigh(shape).map_or(Found::Nowhere, Found::Host);
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
            if let Some(best) = best {
                return Found::Host(best);
            }
        }
        let mut search = entry.search;
        let mut probes = self.probes;
        let fits_anew = |host, entry: &Host| fits(host, &entry.node) && !is_avoided(&entry.node);
        let found = match self.hosts.search(&mut search, most, &mut probes, &fits_anew) {
            Found::Nowhere => self.second_best(entry, &fits).map_or(Found::Nowhere, Found::Host),
            found => found,
        };
        self.probes = probes;
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

#[cfg(test)]
mod tests {
    use raftgrid_proto::v1::{Constraint, Label, Task, TaskRow, TaskSpec};

    use super::*;
    use crate::limits::PASS_PROBES_MAX;

    const NODES: usize = 3 * PASS_PROBES_MAX;

    struct Open;

    impl Gate for Open {
        fn in_reach(&mut self, _: &str) -> bool {
            true
        }
        fn admits(&mut self, _: u64) -> bool {
            true
        }
    }

    fn node(n: usize, slots: u32, rare: bool) -> Node {
        let mut node = Node { node_id: format!("node-{n:06}"), ..Node::default() };
        node.mut_capacity().slots = slots;
        if rare {
            node.labels.push(Label { key: "rare".into(), value: "yes".into(), ..Label::default() });
        }
        node
    }

    /// Passes until something is placed; where.
    fn passes(planner: &mut Planner) -> (usize, String) {
        for pass in 1..=20 {
            let plan = planner.plan(0, 256, &mut Open);
            assert!(planner.probes <= PASS_PROBES_MAX + 1, "{} looks in a pass", planner.probes);
            if let Some(placement) = plan.placements.first() {
                return (pass, placement.tasks[0].1.clone());
            }
            assert!(plan.more, "it goes on");
        }
        panic!("nothing is placed");
    }

    #[test]
    fn a_search_of_many_nodes_takes_several_passes_and_finds_what_it_is_for() {
        let mut planner = Planner::default();
        (0..NODES).for_each(|n| planner.put_node(&node(n, 4, n + 1 == NODES), true));
        let mut spec = TaskSpec::default();
        spec.constraints.push(Constraint { key: "rare".into(), value: "yes".into(), ..Constraint::default() });
        let task = Task { task_id: "t".into(), spec: Some(spec).into(), ..Task::default() };
        let mut row = TaskRow { sequence: 1, task: Some(task).into(), ..TaskRow::default() };
        planner.add_task(&row);
        // Nodes are taken in by the planner a few at a time; that is not the search.
        while !planner.hosts.settle(NODES) {}
        let (first, place) = passes(&mut planner);
        assert_eq!((first, place.as_str()), (3, format!("node-{:06}", NODES - 1).as_str()));
        // Every node has more room now: all are looked at again, and one that was passed is found.
        row.sequence = 2;
        row.mut_task().task_id = "u".into();
        planner.add_task(&row);
        (0..NODES).for_each(|n| planner.put_node(&node(n, 8, n == 5), true));
        while !planner.hosts.settle(NODES) {}
        let (second, place) = passes(&mut planner);
        assert!(second >= 3, "{second}");
        assert_eq!(place, "node-000005");
    }
}
