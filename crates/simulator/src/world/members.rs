//! Changes of the membership: new machines join as learners, others go, leadership moves.

use bytes::Bytes;
use raftgrid_driver::MembershipChange;
use raftgrid_store::BootMode;

use super::event::Event;
use super::{World, CLUSTER};
use crate::node::SimNode;

/// Most members that a group is given.
const MEMBERS_MAX: usize = 6;
/// How often it is looked whether a machine may be switched off, in microseconds.
const RETIRE_LOOK_US: u64 = 300_000;

impl World {
    /// One change, through the leader.
    pub(super) fn change(&mut self) {
        self.note_changes();
        let Some(leader) = self.leader() else { return };
        let conf = &leader.conf;
        let members: Vec<u64> = conf.voters.iter().chain(&conf.learners).copied().collect();
        let gone = |node: &u64| self.nodes.get(node).is_none_or(|machine| machine.gone);
        let lost = members.iter().copied().find(gone);
        let others: Vec<u64> = conf.voters.iter().copied().filter(|node| *node != leader.node).collect();
        let learner = self.rng.pick(&conf.learners).copied();
        let voter = self.rng.pick(&others).copied();
        let standby = self.rng.chance(self.plan.standbys);
        let change = match (lost, self.rng.below(5)) {
            (Some(node), 0..=1) => MembershipChange::Remove { node },
            (Some(old), 4) if learner.is_some() && conf.voters.contains(&old) => {
                MembershipChange::Replace { old, new: learner.unwrap_or(0) }
            }
            (None, 4) if learner.is_some() && voter.is_some() => {
                MembershipChange::Replace { old: voter.unwrap_or(0), new: learner.unwrap_or(0) }
            }
            (_, 0 | 1 | 3) if members.len() < MEMBERS_MAX && standby => {
                MembershipChange::AddStandby { node: self.new_machine() }
            }
            (_, 0 | 1 | 3) if members.len() < MEMBERS_MAX => MembershipChange::AddLearner { node: self.new_machine() },
            (_, draw) => match (draw, voter, learner) {
                (2, Some(node), _) if conf.voters.len() > 3 => MembershipChange::Demote { node },
                (_, Some(node), _) if conf.voters.len() > 3 => MembershipChange::Remove { node },
                (_, _, Some(node)) => MembershipChange::Promote { node },
                _ => MembershipChange::AddLearner { node: self.new_machine() },
            },
        };
        let node = leader.node;
        let changes = self.changes.clone();
        self.note("change", [node, self.next_node, 0, 0]);
        self.within(node, |live| {
            let told = change.clone();
            let callback = Box::new(move |outcome| changes.push([(told, outcome)]));
            live.hand.replica.handle().change_membership(change, Bytes::new(), callback);
            Ok(())
        });
    }

    /// Outcomes that have come: who was taken out is switched off some time later.
    pub(super) fn note_changes(&mut self) {
        for (change, outcome) in self.changes.take() {
            self.count(if outcome.is_ok() { "changed" } else { "not changed" });
            let out = match change {
                MembershipChange::Remove { node } | MembershipChange::Replace { old: node, .. } => Some(node),
                MembershipChange::AddLearner { .. }
                | MembershipChange::AddStandby { .. }
                | MembershipChange::Promote { .. }
                | MembershipChange::Demote { .. } => None,
            };
            if let (Some(node), Ok(_)) = (out, outcome) {
                let delay = self.rng.around(3_000_000);
                self.after(delay, Event::Retire { node });
            }
        }
    }

    /// A machine that was taken out of the group is switched off, when the group has left the joint configuration, in which it still counts:
    /// as `gridctl cluster` waits, too.
    pub(super) fn retire(&mut self, node: u64) {
        if self.leader().is_none_or(|leader| leader.conf.contains(node)) {
            return self.after(RETIRE_LOOK_US, Event::Retire { node });
        }
        if self.nodes.get(&node).is_some_and(|machine| !machine.gone) {
            self.lose(node);
        }
    }

    fn new_machine(&mut self) -> u64 {
        let node = self.next_node;
        self.next_node += 1;
        let mode = BootMode::Join { cluster_id: CLUSTER.to_owned(), node_id: node };
        let machine = SimNode::new(node, mode, &self.plan, &mut self.rng);
        self.nodes.insert(node, machine);
        self.known.push(node);
        let delay = self.rng.around(300_000);
        self.after(delay, Event::Start { node });
        node
    }

    /// Leadership is handed to somebody.
    pub(super) fn transfer(&mut self) {
        let Some(leader) = self.leader() else { return };
        let to = if self.rng.chance(500) { None } else { self.rng.pick(&leader.conf.voters).copied() };
        self.within(leader.node, |live| {
            live.hand.replica.handle().transfer_leadership(to, Box::new(|_| ()));
            Ok(())
        });
    }
}
