//! The nodes of a plan, in order of load: what their rows say, the newest loads, and what was planned on them since. Owned by the planner.
//!
//! A node that fits nothing of a shape fits nothing of it until it *improves*: more of it is free, it comes earlier in the order, or it is
//! another node than it was. Each improvement gets a number, so that a search that failed goes on with the nodes improved since, and one that
//! succeeded goes on where it stopped. That makes a decision cost O(log n) but for nodes that improved.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use raftgrid_proto::v1::{Eligibility, Node, NodeStatus, Resources};

use crate::limits::LOAD_STEP;

pub(super) type HostId = u32;

/// Place in the order: active tasks per slot (32 bits behind the point: exact for up to 4,096 slots), free GPUs, cpu and memory in use
/// (in steps), label: labels are in the order of the ids. `manifest`'s `compare_load` is the same order for nodes that fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    load: u64,
    gpus_free: u32,
    cpu: u32,
    memory: u32,
    label: u64,
}

/// Sums of resources, and of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) tasks: u64,
    pub(super) slots: u64,
    pub(super) gpus: u64,
    pub(super) cpu_milli: u64,
    pub(super) memory_bytes: u64,
}

impl Taken {
    fn of(resources: &Resources, tasks: u64) -> Self {
        Self {
            tasks,
            slots: u64::from(resources.slots),
            gpus: u64::from(resources.gpus),
            cpu_milli: resources.cpu_milli,
            memory_bytes: resources.memory_bytes,
        }
    }

    /// What one task with this demand takes.
    pub(super) fn task(demand: &Resources) -> Self {
        Self::of(demand, 1)
    }

    pub(super) fn add(&mut self, other: Self) {
        self.tasks = self.tasks.saturating_add(other.tasks);
        self.slots = self.slots.saturating_add(other.slots);
        self.gpus = self.gpus.saturating_add(other.gpus);
        self.cpu_milli = self.cpu_milli.saturating_add(other.cpu_milli);
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes);
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.tasks = self.tasks.saturating_sub(other.tasks);
        self.slots = self.slots.saturating_sub(other.slots);
        self.gpus = self.gpus.saturating_sub(other.gpus);
        self.cpu_milli = self.cpu_milli.saturating_sub(other.cpu_milli);
        self.memory_bytes = self.memory_bytes.saturating_sub(other.memory_bytes);
    }

    pub(super) fn resources(&self) -> Resources {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Resources {
            slots: small(self.slots),
            gpus: small(self.gpus),
            cpu_milli: self.cpu_milli,
            memory_bytes: self.memory_bytes,
            ..Resources::default()
        }
    }
}

/// One node.
#[derive(Debug)]
pub(super) struct Host {
    /// As its row says, with the newest loads; `allocated` and `active_tasks` with what is planned.
    pub(super) node: Node,
    pub(super) id: Arc<str>,
    /// Orders hosts as their ids do.
    label: u64,
    /// As its row says.
    base: Taken,
    /// Planned and not in the row yet.
    extra: Taken,
    /// The leader hears it.
    pub(super) present: bool,
    /// Its place in the order; None: it takes nothing now.
    key: Option<Key>,
    free: Taken,
    improved_at: u64,
}

impl Host {
    fn refresh(&mut self) {
        let mut sum = self.base;
        sum.add(self.extra);
        self.node.active_tasks = i32::try_from(sum.tasks).unwrap_or(i32::MAX);
        *self.node.mut_allocated() = sum.resources();
    }

    fn takes_work(&self) -> bool {
        self.present && self.node.status == NodeStatus::HEALTHY && self.node.eligibility == Eligibility::ELIGIBLE
    }

    fn new_key(&self) -> Option<Key> {
        if !self.takes_work() {
            return None;
        }
        let (capacity, allocated) = (self.node.get_capacity(), self.node.get_allocated());
        let active = self.node.active_tasks.max(0) as u64;
        Some(Key {
            load: (active << 32) / u64::from(capacity.slots.max(1)),
            gpus_free: capacity.gpus.saturating_sub(allocated.gpus),
            cpu: steps(self.node.cpu_usage),
            memory: steps(self.node.memory_usage),
            label: self.label,
        })
    }

    fn now_free(&self) -> Taken {
        let mut free = Taken::of(self.node.get_capacity(), 0);
        free.subtract(Taken::of(self.node.get_allocated(), 0));
        free
    }
}

fn steps(load: f64) -> u32 {
    (load / LOAD_STEP) as u32
}

/// What a change of resources came to, to be taken back.
#[derive(Debug)]
pub(super) struct Undo {
    host: HostId,
    extra: Taken,
}

#[derive(Debug, Default)]
pub(super) struct Hosts {
    list: Vec<Host>,
    vacant: Vec<HostId>,
    ids: BTreeMap<Arc<str>, HostId>,
    /// Those that take work.
    order: BTreeMap<Key, HostId>,
    /// By number of their last improvement.
    improved: BTreeMap<u64, HostId>,
    improvements: u64,
    /// To be looked at before the next search.
    dirty: BTreeSet<HostId>,
    /// Of the hosts that are heard.
    capacity: Taken,
}

impl Hosts {
    pub(super) fn get(&self, host: HostId) -> &Host {
        &self.list[host as usize]
    }

    pub(super) fn find(&self, node_id: &str) -> Option<HostId> {
        self.ids.get(node_id).copied()
    }

    /// All, in order of their ids.
    pub(super) fn all(&self) -> impl Iterator<Item = (HostId, &Host)> {
        self.ids.values().map(|host| (*host, self.get(*host)))
    }

    /// What the nodes that are heard have, all together.
    pub(super) fn capacity(&self) -> Taken {
        self.capacity
    }

    /// The node's row as it is now.
    pub(super) fn put(&mut self, node: &Node, present: bool) {
        let base = Taken::of(node.get_allocated(), node.active_tasks.max(0) as u64);
        let host = match self.find(&node.node_id) {
            Some(host) => host,
            None => self.insert(node),
        };
        if self.list[host as usize].present {
            self.capacity.subtract(Taken::of(self.list[host as usize].node.get_capacity(), 0));
        }
        if present {
            self.capacity.add(Taken::of(node.get_capacity(), 0));
        }
        let entry = &mut self.list[host as usize];
        let another = !same_node(&entry.node, node);
        entry.node = node.clone();
        entry.base = base;
        entry.present = present;
        entry.refresh();
        if another {
            self.unlist(host);
        }
        self.dirty.insert(host);
    }

    fn insert(&mut self, node: &Node) -> HostId {
        let id: Arc<str> = node.node_id.as_str().into();
        let host = Host {
            node: Node::default(),
            id: id.clone(),
            label: 0,
            base: Taken::default(),
            extra: Taken::default(),
            present: false,
            key: None,
            free: Taken::default(),
            improved_at: 0,
        };
        let place = match self.vacant.pop() {
            Some(place) => {
                self.list[place as usize] = host;
                place
            }
            None => {
                self.list.push(host);
                (self.list.len() - 1) as HostId
            }
        };
        self.ids.insert(id.clone(), place);
        self.label(&id, place);
        place
    }

    /// A label between those of its neighbours; if there is none left, all get new ones.
    fn label(&mut self, id: &Arc<str>, host: HostId) {
        use Bound::{Excluded, Unbounded};
        let label = |found: Option<(&Arc<str>, &HostId)>| found.map(|(_, host)| self.list[*host as usize].label);
        let before = label(self.ids.range::<Arc<str>, _>((Unbounded, Excluded(id))).next_back()).unwrap_or(0);
        let after = label(self.ids.range::<Arc<str>, _>((Excluded(id), Unbounded)).next()).unwrap_or(u64::MAX);
        let between = before + (after - before) / 2;
        if between != before {
            self.list[host as usize].label = between;
            return;
        }
        let gap = u64::MAX / (self.ids.len() as u64 + 1);
        let hosts: Vec<HostId> = self.ids.values().copied().collect();
        for (n, host) in hosts.into_iter().enumerate() {
            self.unlist(host);
            self.list[host as usize].label = gap * (n as u64 + 1);
            self.dirty.insert(host);
        }
    }

    /// The node is gone.
    pub(super) fn remove(&mut self, node_id: &str) {
        let Some(host) = self.ids.remove(node_id) else { return };
        self.unlist(host);
        self.dirty.remove(&host);
        let entry = &mut self.list[host as usize];
        if entry.present {
            self.capacity.subtract(Taken::of(entry.node.get_capacity(), 0));
        }
        self.improved.remove(&entry.improved_at);
        self.vacant.push(host);
    }

    /// Its silence was noticed.
    pub(super) fn silent(&mut self, host: HostId) {
        let entry = &mut self.list[host as usize];
        if entry.present {
            entry.present = false;
            self.capacity.subtract(Taken::of(entry.node.get_capacity(), 0));
            self.unlist(host);
        }
    }

    fn unlist(&mut self, host: HostId) {
        if let Some(key) = self.list[host as usize].key.take() {
            self.order.remove(&key);
        }
    }

    /// Takes in what changed since the last search, of so many hosts at most. False: there are more.
    pub(super) fn settle(&mut self, most: usize) -> bool {
        for _ in 0..most {
            let Some(host) = self.dirty.first().copied() else { return true };
            self.reindex(host, true);
        }
        self.dirty.is_empty()
    }

    fn reindex(&mut self, host: HostId, may_improve: bool) {
        // A change that was not taken in yet counts now: what is free would look as if it had always been.
        let may_improve = self.dirty.remove(&host) || may_improve;
        let entry = &mut self.list[host as usize];
        let (key, free) = (entry.new_key(), entry.now_free());
        let better = key.is_some()
            && (entry.key.is_none()
                || key < entry.key
                || free.slots > entry.free.slots
                || free.gpus > entry.free.gpus
                || free.cpu_milli > entry.free.cpu_milli
                || free.memory_bytes > entry.free.memory_bytes);
        entry.free = free;
        if key != entry.key {
            if let Some(old) = entry.key.take() {
                self.order.remove(&old);
            }
            if let Some(key) = key {
                self.order.insert(key, host);
            }
            self.list[host as usize].key = key;
        }
        if may_improve && better {
            self.improve(host);
        }
    }

    /// The node counts as new to every search that passed it.
    pub(super) fn improve(&mut self, host: HostId) {
        self.improvements += 1;
        let entry = &mut self.list[host as usize];
        self.improved.remove(&entry.improved_at);
        entry.improved_at = self.improvements;
        self.improved.insert(self.improvements, host);
    }

    /// A plan puts something on the host.
    pub(super) fn take(&mut self, host: HostId, what: Taken) -> Undo {
        let entry = &mut self.list[host as usize];
        let undo = Undo { host, extra: entry.extra };
        entry.extra.add(what);
        entry.refresh();
        self.reindex(host, false);
        undo
    }

    /// As it was before; nothing else may have happened to the host meanwhile.
    pub(super) fn undo(&mut self, undo: Undo) {
        let entry = &mut self.list[undo.host as usize];
        entry.extra = undo.extra;
        entry.refresh();
        self.reindex(undo.host, false);
    }

    /// For a moment the host looks as if `what` of what its row counts were gone.
    pub(super) fn imagine_without(&mut self, host: HostId, what: Taken) -> Taken {
        let entry = &mut self.list[host as usize];
        let base = entry.base;
        entry.base.subtract(what);
        entry.refresh();
        self.reindex(host, false);
        base
    }

    /// Ends `imagine_without`.
    pub(super) fn restore(&mut self, host: HostId, base: Taken) {
        let entry = &mut self.list[host as usize];
        entry.base = base;
        entry.refresh();
        self.reindex(host, false);
    }

    /// What was planned came to nothing, or is in the row.
    pub(super) fn give_back(&mut self, host: HostId, what: Taken) {
        let entry = &mut self.list[host as usize];
        entry.extra.subtract(what);
        entry.refresh();
        self.dirty.insert(host);
    }

    /// The first host in the order that `fits`, by a search that goes on where it stopped, and stops after `most` looks. Counts them.
    pub(super) fn search(
        &self,
        search: &mut Search,
        most: usize,
        probes: &mut usize,
        fits: &dyn Fn(HostId, &Host) -> bool,
    ) -> Found {
        let since = match search.cursor {
            // It comes past all of them.
            Cursor::Start => self.improvements,
            Cursor::At(_) | Cursor::End => search.proved_at,
        };
        for (improvement, host) in self.improved.range((Bound::Excluded(since), Bound::Unbounded)) {
            if *probes >= most {
                return Found::Later;
            }
            *probes += 1;
            search.proved_at = *improvement;
            let entry = self.get(*host);
            let Some(key) = &entry.key else { continue };
            if !search.cursor.is_beyond(key) && fits(*host, entry) {
                search.cursor = Cursor::At(*key);
            }
        }
        search.proved_at = self.improvements;
        let from = match &search.cursor {
            Cursor::Start => Bound::Unbounded,
            Cursor::At(key) => Bound::Included(key),
            Cursor::End => return Found::Nowhere,
        };
        for (key, host) in self.order.range::<Key, _>((from, Bound::Unbounded)) {
            if *probes >= most {
                search.cursor = Cursor::At(*key);
                return Found::Later;
            }
            *probes += 1;
            if fits(*host, self.get(*host)) {
                search.cursor = Cursor::At(*key);
                return Found::Host(*host);
            }
        }
        search.cursor = Cursor::End;
        Found::Nowhere
    }

    /// Every host that takes work, in order.
    pub(super) fn ordered(&self) -> impl Iterator<Item = (HostId, &Host)> {
        self.order.values().map(|host| (*host, self.get(*host)))
    }
}

/// Equal but for what changes by itself.
fn same_node(a: &Node, b: &Node) -> bool {
    a.labels == b.labels
        && a.capacity == b.capacity
        && a.region == b.region
        && a.cloud_provider == b.cloud_provider
        && a.unable == b.unable
        && a.arch == b.arch
        && a.os == b.os
        && a.gpus == b.gpus
        && a.incarnation == b.incarnation
}

/// Up to where the order is known to hold nothing that fits.
#[derive(Clone, Copy, Debug, Default)]
enum Cursor {
    #[default]
    Start,
    At(Key),
    End,
}

impl Cursor {
    /// Whether the search will come past this key anyway.
    fn is_beyond(&self, key: &Key) -> bool {
        match self {
            Self::Start => true,
            Self::At(at) => at <= key,
            Self::End => false,
        }
    }
}

/// What a search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Host(HostId),
    /// No host that takes work fits.
    Nowhere,
    /// It looked at as many as it may. The next one goes on from there.
    Later,
}

/// Where a shape's search stands. It stays true as long as hosts change by `take`, or improve.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Search {
    cursor: Cursor,
    proved_at: u64,
}
