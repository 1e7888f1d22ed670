//! What a membership change makes of a configuration, by raft-rs' own `Changer`, away from any running replica.
//!
//! The apply side needs the new configuration before raft has it; raft's answer is compared with this one later.

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeSingle, ConfChangeType, ConfChangeV2};
use raft::{Changer, ProgressTracker};

use super::convert::{conf_from, sorted};
use crate::types::{ConfState, Entry, EntryKind};

pub(crate) fn single(node: u64, kind: ConfChangeType) -> ConfChangeSingle {
    let mut single = ConfChangeSingle { node_id: node, ..Default::default() };
    single.set_change_type(kind);
    single
}

/// The change that an entry carries. By the entry's type: empty data of a V2 entry leaves a joint configuration.
pub(super) fn decode(kind: EntryKind, data: &[u8]) -> Result<Option<ConfChangeV2>, String> {
    match kind {
        EntryKind::Normal => Ok(None),
        EntryKind::ConfChange => {
            let v1 = ConfChange::parse_from_bytes(data).map_err(|e| e.to_string())?;
            let mut v2 = ConfChangeV2::default();
            v2.mut_changes().push(single(v1.node_id, v1.get_change_type()));
            Ok(Some(v2))
        }
        EntryKind::ConfChangeV2 => Ok(Some(ConfChangeV2::parse_from_bytes(data).map_err(|e| e.to_string())?)),
    }
}

/// `conf` after the change of `entry`; `Err` says why the change cannot be made, the same on every replica.
pub(super) fn after_entry(conf: &ConfState, entry: &Entry) -> Result<ConfState, String> {
    match decode(entry.kind, &entry.data)? {
        Some(change) => next(conf, &change),
        None => Ok(conf.clone()),
    }
}

/// `conf` after `change`.
pub(super) fn next(conf: &ConfState, change: &ConfChangeV2) -> Result<ConfState, String> {
    let mut tracker = tracker(conf).map_err(|e| e.to_string())?;
    let changer = &mut Changer::new(&tracker);
    let (configuration, changes) = if change.leave_joint() {
        changer.leave_joint()
    } else if let Some(auto_leave) = change.enter_joint() {
        changer.enter_joint(auto_leave, change.get_changes())
    } else {
        changer.simple(change.get_changes())
    }
    .map_err(|e| e.to_string())?;
    tracker.apply_conf(configuration, changes, 1);
    Ok(conf_from(&tracker.conf().to_conf_state()))
}

/// Whether raft-rs could start from `conf`, or restore it: otherwise it panics.
pub(super) fn check(conf: &ConfState) -> Result<(), String> {
    if conf.voters.is_empty() {
        return Err("it has no voter".to_owned());
    }
    let restored = tracker(conf).map_err(|e| e.to_string())?;
    if conf_from(&restored.conf().to_conf_state()) != sorted(conf) {
        return Err("it names a replica twice, or replica 0".to_owned());
    }
    Ok(())
}

/// A tracker that stands at `conf`: first the outgoing voters one by one, then, jointly, what replaces them.
fn tracker(conf: &ConfState) -> raft::Result<ProgressTracker> {
    let mut tracker = ProgressTracker::new(1);
    let add = |nodes: &[u64], kind| nodes.iter().map(|n| single(*n, kind)).collect::<Vec<_>>();
    let mut incoming = add(&conf.voters_outgoing, ConfChangeType::RemoveNode);
    incoming.extend(add(&conf.voters, ConfChangeType::AddNode));
    incoming.extend(add(&conf.learners, ConfChangeType::AddLearnerNode));
    incoming.extend(add(&conf.learners_next, ConfChangeType::AddLearnerNode));
    let singly = if conf.is_joint() { add(&conf.voters_outgoing, ConfChangeType::AddNode) } else { incoming.clone() };
    for change in singly {
        let (configuration, changes) = Changer::new(&tracker).simple(&[change])?;
        tracker.apply_conf(configuration, changes, 1);
    }
    if conf.is_joint() {
        let (configuration, changes) = Changer::new(&tracker).enter_joint(conf.auto_leave, &incoming)?;
        tracker.apply_conf(configuration, changes, 1);
    }
    Ok(tracker)
}
