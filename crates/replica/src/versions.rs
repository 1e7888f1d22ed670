//! Which machine version every other replica can run, and when the group may go to a newer one.
//!
//! A replica says on every stream that it opens which version it can run (`PeerHello`); it counts as long as that stream is open. A leader
//! proposes `SetMachineVersion(v)` once every member, learners too, has said v or more and is connected: a replica that met a version that
//! it does not know would have to stop. Who is away is waited for. Afterwards a replica that says less is refused at the door, and sent no
//! more, whatever its program knows of this. Nothing here is durable: the version itself is, in the state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raftgrid_driver::{ConfState, NodeId};

/// A proposal that brought nothing is made again after so long, in milliseconds.
const RAISE_AGAIN_MS: u64 = 1_000;

/// Called after every change of what was said.
type Told = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Streams {
    /// Number of the last one.
    last: u64,
    /// (node, number of the stream) → version.
    said: BTreeMap<(NodeId, u64), u64>,
    /// Refused, and not let in since.
    barred: BTreeSet<NodeId>,
}

impl Streams {
    /// What `node` says on its open streams, all of which were let in.
    fn open(&self, node: NodeId) -> impl Iterator<Item = u64> + '_ {
        self.said.range((node, 0)..=(node, u64::MAX)).map(|(_, version)| *version)
    }
}

struct Said {
    streams: Mutex<Streams>,
    /// Of the state here.
    current: AtomicU64,
    /// Whether anybody is barred: looked at for each message.
    any_barred: AtomicBool,
    told: Told,
}

/// What the others say. Clones share it.
#[derive(Clone)]
pub struct Versions {
    said: Arc<Said>,
}

/// A stream on which a replica said its version; the word counts until this is dropped.
pub struct Heard {
    versions: Versions,
    key: (NodeId, u64),
}

impl Versions {
    /// Nobody has said anything. `told` is called after every change, on the thread that brings it; it must not block.
    pub fn new(told: impl Fn() + Send + Sync + 'static) -> Self {
        let said = Said {
            streams: Mutex::default(),
            current: AtomicU64::new(0),
            any_barred: AtomicBool::new(false),
            told: Box::new(told),
        };
        Self { said: Arc::new(said) }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.said.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream of `node` begins with this version.
    pub fn heard(&self, node: NodeId, version: u64) -> Heard {
        let key = {
            let mut streams = self.streams();
            streams.last += 1;
            let key = (node, streams.last);
            streams.said.insert(key, version);
            streams.barred.remove(&node);
            self.said.any_barred.store(!streams.barred.is_empty(), Ordering::Relaxed);
            key
        };
        (self.said.told)();
        Heard { versions: self.clone(), key }
    }

    /// Whoever spoke for `node` was refused, since his program cannot follow the state here.
    pub fn bar(&self, node: NodeId) {
        let mut streams = self.streams();
        streams.barred.insert(node);
        self.said.any_barred.store(true, Ordering::Relaxed);
    }

    /// Whether nothing is to be sent to `node`: it was refused, and was not let in since. One whose stream is open is let in, whatever somebody
    /// else says in its name.
    pub fn barred(&self, node: NodeId) -> bool {
        if !self.said.any_barred.load(Ordering::Relaxed) {
            return false;
        }
        let streams = self.streams();
        streams.barred.contains(&node) && streams.open(node).next().is_none()
    }

    /// The version of the state here, as applied. Who runs less cannot follow it, and must not be let in.
    pub fn current(&self) -> u64 {
        self.said.current.load(Ordering::Relaxed)
    }

    /// The state here is at this version; told by the apply thread.
    pub fn reached(&self, version: u64) {
        self.said.current.store(version, Ordering::Relaxed);
    }

    /// What `node` says; None: it has no stream open to here. Of several the lowest: one of them may be that of its last life.
    pub fn of(&self, node: NodeId) -> Option<u64> {
        self.streams().open(node).min()
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.versions.streams().said.remove(&self.key);
        (self.versions.said.told)();
    }
}

/// A leader's care for the version of its group.
pub(crate) struct Raise {
    /// Newest version that this replica runs, or is allowed to.
    newest: u64,
    versions: Versions,
    /// Of the state, as known last: it never falls.
    current: u64,
    asked_at_ms: Option<u64>,
}

impl Raise {
    pub(crate) fn new(newest: u64, versions: Versions) -> Self {
        Self { newest, versions, current: 0, asked_at_ms: None }
    }

    /// Whether the state may still go to a newer version: if not, nobody need look at it again.
    pub(crate) fn open(&self) -> bool {
        self.current < self.newest
    }

    /// The version to propose now, of a state at `current`, by the leader `own`; at most once a while.
    pub(crate) fn due(&mut self, now_ms: u64, current: u64, own: NodeId, conf: &ConfState) -> Option<u64> {
        self.current = current;
        if self.asked_at_ms.is_some_and(|at| now_ms < at + RAISE_AGAIN_MS) {
            return None;
        }
        let wanted = self.all_run(own, conf).filter(|wanted| *wanted > current)?;
        self.asked_at_ms = Some(now_ms);
        Some(wanted)
    }

    /// When to look again although nothing happened: a proposal may have been lost.
    pub(crate) fn again_at_ms(&self) -> Option<u64> {
        self.asked_at_ms.filter(|_| self.open()).map(|at| at + RAISE_AGAIN_MS)
    }

    /// The newest version that every member runs; None if one of them has not said.
    fn all_run(&self, own: NodeId, conf: &ConfState) -> Option<u64> {
        let members = [&conf.voters, &conf.voters_outgoing, &conf.learners, &conf.learners_next];
        let others = members.into_iter().flatten().filter(|node| **node != own);
        others.map(|node| self.versions.of(*node)).try_fold(self.newest, |least, said| Some(least.min(said?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(voters: &[NodeId], learners: &[NodeId]) -> ConfState {
        ConfState { voters: voters.to_vec(), learners: learners.to_vec(), ..ConfState::default() }
    }

    fn raise(newest: u64) -> (Raise, Versions) {
        let versions = Versions::new(|| ());
        (Raise::new(newest, versions.clone()), versions)
    }

    #[test]
    fn a_version_is_due_when_every_member_has_said_it_and_learners_count() {
        let (mut raise, versions) = raise(3);
        let group = conf(&[1, 2], &[3]);
        let _two = versions.heard(2, 2);
        assert_eq!(raise.due(0, 1, 1, &group), None, "a learner has not said anything");
        let old = versions.heard(3, 1);
        assert_eq!(raise.due(0, 1, 1, &group), None, "a learner runs an older program");
        drop(old);
        assert_eq!(raise.due(0, 1, 1, &group), None, "it is away");
        let _new = versions.heard(3, 5);
        assert_eq!(raise.due(0, 1, 1, &group), Some(2), "the least of what they run");
        assert_eq!(raise.due(RAISE_AGAIN_MS - 1, 1, 1, &group), None, "once a while");
        assert_eq!(raise.again_at_ms(), Some(RAISE_AGAIN_MS));
        assert_eq!(raise.due(RAISE_AGAIN_MS, 1, 1, &group), Some(2), "the proposal may have been lost");
        assert_eq!(raise.due(9 * RAISE_AGAIN_MS, 2, 1, &group), None, "done");
    }

    #[test]
    fn those_on_their_way_out_of_a_joint_configuration_count_and_strangers_do_not() {
        let (mut raise, versions) = raise(2);
        let _two = versions.heard(2, 2);
        let _stranger = versions.heard(9, 1);
        let joint = ConfState { voters_outgoing: vec![1, 4], ..conf(&[1, 2], &[]) };
        assert_eq!(raise.due(0, 1, 1, &joint), None);
        assert_eq!(raise.due(0, 1, 1, &conf(&[1, 2], &[])), Some(2));
    }

    #[test]
    fn a_stream_of_the_last_life_holds_back_until_it_is_gone() {
        let (mut raise, versions) = raise(2);
        let last_life = versions.heard(2, 1);
        let _new = versions.heard(2, 2);
        assert_eq!(versions.of(2), Some(1));
        assert_eq!(raise.due(0, 1, 1, &conf(&[1, 2], &[])), None);
        drop(last_life);
        assert_eq!(raise.due(0, 1, 1, &conf(&[1, 2], &[])), Some(2));
    }

    #[test]
    fn who_was_refused_is_barred_until_it_is_let_in() {
        let versions = Versions::new(|| ());
        assert!(!versions.barred(2));
        versions.bar(2);
        versions.bar(3);
        assert!(versions.barred(2) && versions.barred(3) && !versions.barred(4));
        let _let_in = versions.heard(2, 2);
        assert!(!versions.barred(2) && versions.barred(3));
    }

    #[test]
    fn a_refusal_in_the_name_of_one_whose_stream_is_open_does_not_bar_it() {
        let versions = Versions::new(|| ());
        let stream = versions.heard(2, 2);
        versions.bar(2);
        assert!(!versions.barred(2), "a stranger, or its own last life, spoke");
        drop(stream);
        assert!(versions.barred(2), "now it may be the one that was refused");
        let _again = versions.heard(2, 2);
        assert!(!versions.barred(2));
    }

    #[test]
    fn one_that_is_held_back_never_asks_for_more_and_one_alone_asks_at_once() {
        let (mut held, versions) = raise(1);
        let _two = versions.heard(2, 2);
        assert_eq!(held.due(0, 1, 1, &conf(&[1, 2], &[])), None);
        assert!(!held.open());
        let (mut alone, _) = raise(2);
        assert_eq!(alone.due(0, 1, 1, &conf(&[1], &[])), Some(2));
    }
}
