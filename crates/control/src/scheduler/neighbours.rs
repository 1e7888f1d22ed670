//! Which nodes hold tasks of a job, or with a label; what spread and affinities make of it. Owned by the planner.

use std::collections::{BTreeMap, BTreeSet};

use raftgrid_manifest::predicates::attribute;
use raftgrid_manifest::MACHINE_VERSION;
use raftgrid_proto::v1::{Affinity, Node, Task};

/// What tasks have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tag {
    Job(String),
    Label(String, String),
}

/// The tags of a task.
pub(super) fn tags(task: &Task) -> Vec<Tag> {
    let job = (!task.job_id.is_empty()).then(|| Tag::Job(task.job_id.clone()));
    let labels = task.get_spec().labels.iter().map(|label| Tag::Label(label.key.clone(), label.value.clone()));
    job.into_iter().chain(labels).collect()
}

fn tag_of(affinity: &Affinity) -> Tag {
    if affinity.job_id.is_empty() {
        let label = affinity.get_label();
        Tag::Label(label.key.clone(), label.value.clone())
    } else {
        Tag::Job(affinity.job_id.clone())
    }
}

/// Tasks that hold something, by tag and node.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    by_tag: BTreeMap<Tag, BTreeMap<String, u32>>,
}

impl Neighbours {
    pub(super) fn add(&mut self, tags: &[Tag], node_id: &str) {
        for tag in tags {
            *self.by_tag.entry(tag.clone()).or_default().entry(node_id.to_owned()).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, tags: &[Tag], node_id: &str) {
        for tag in tags {
            let Some(nodes) = self.by_tag.get_mut(tag) else { continue };
            if let Some(count) = nodes.get_mut(node_id) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(node_id);
                }
            }
            if nodes.is_empty() {
                self.by_tag.remove(tag);
            }
        }
    }

    fn nodes(&self, tag: &Tag) -> impl Iterator<Item = (&String, &u32)> {
        self.by_tag.get(tag).into_iter().flatten()
    }

    /// Tasks with the tag by the value of the attribute at their nodes. `node`: finds a node by its id.
    fn by_value<'a>(&self, tag: &Tag, over: &str, node: &dyn Fn(&str) -> Option<&'a Node>) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for (node_id, count) in self.nodes(tag) {
            let value = node(node_id).and_then(|node| value(node, over));
            if let Some(value) = value {
                *counts.entry(value).or_default() += count;
            }
        }
        counts
    }

    /// What is known of the task's neighbours before nodes are weighed.
    pub(super) fn weigher<'a>(&self, task: &Task, node: &dyn Fn(&str) -> Option<&'a Node>) -> Weigher {
        let spec = task.get_spec();
        let own: BTreeSet<Tag> = tags(task).into_iter().collect();
        let affinities = spec.affinities.iter().map(|affinity| {
            let tag = tag_of(affinity);
            let over = if affinity.over.is_empty() { "node" } else { &affinity.over };
            let counts = self.by_value(&tag, over, node);
            Near {
                over: over.to_owned(),
                // The first of tasks that want to be together has nobody to join.
                is_first: counts.is_empty() && own.contains(&tag),
                counts,
                affinity: affinity.clone(),
            }
        });
        let spread = (!spec.spread_over.is_empty()).then(|| {
            let mut counts = BTreeMap::new();
            let group = tags(task);
            let job_only: Vec<&Tag> = group.iter().filter(|tag| matches!(tag, Tag::Job(_))).collect();
            let group = if job_only.is_empty() { group.iter().collect() } else { job_only };
            for tag in group {
                for (value, count) in self.by_value(tag, &spec.spread_over, node) {
                    *counts.entry(value).or_default() += count;
                }
            }
            (spec.spread_over.clone(), counts)
        });
        Weigher { affinities: affinities.collect(), spread }
    }
}

fn value(node: &Node, over: &str) -> Option<String> {
    attribute(MACHINE_VERSION, node, over).map(|value| value.into_owned())
}

#[derive(Debug)]
struct Near {
    affinity: Affinity,
    over: String,
    counts: BTreeMap<String, u32>,
    is_first: bool,
}

/// Weighs nodes for one task.
#[derive(Debug)]
pub(super) struct Weigher {
    affinities: Vec<Near>,
    /// The attribute, and how many of the group are at each of its values.
    spread: Option<(String, BTreeMap<String, u32>)>,
}

impl Weigher {
    /// The hard affinity that the node breaks, in words.
    pub(super) fn refuses(&self, node: &Node) -> Option<String> {
        self.affinities.iter().filter(|near| near.affinity.hard).find_map(|near| {
            let there = value(node, &near.over).and_then(|value| near.counts.get(&value).copied()).unwrap_or(0);
            let whose = match tag_of(&near.affinity) {
                Tag::Job(job) => format!("tasks of job {job}"),
                Tag::Label(key, value) => format!("tasks labelled {key}={value}"),
            };
            match (near.affinity.anti, there) {
                (true, 1..) => Some(format!("must stay away from {whose} over {}", near.over)),
                (false, 0) if !near.is_first => Some(format!("must be with {whose} over {}", near.over)),
                _ => None,
            }
        })
    }

    /// Soft affinities earn or cost their weight; each task of its group at the node's value costs the most that one weight can earn.
    pub(super) fn score(&self, node: &Node) -> i64 {
        let mut score = 0;
        for near in self.affinities.iter().filter(|near| !near.affinity.hard) {
            let there = value(node, &near.over).is_some_and(|value| near.counts.contains_key(&value));
            let weight = i64::from(near.affinity.weight);
            score += match (there, near.affinity.anti) {
                (true, true) => -weight,
                (true, false) => weight,
                (false, _) => 0,
            };
        }
        if let Some((over, counts)) = &self.spread {
            let crowd = value(node, over).and_then(|value| counts.get(&value).copied()).unwrap_or(0);
            score -= i64::from(crowd) * i64::from(raftgrid_manifest::limits::PREFERENCE_WEIGHT_MAX);
        }
        score
    }
}
