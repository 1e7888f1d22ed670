//! The leader's lease: for a while after a quorum has answered a question, nobody else can have been elected, so the leader answers reads from
//! its own tables without asking again. Pure; the reason why it is safe, and what it assumes of clocks, is in docs/decisions/0009.
//!
//! A lease counts from *before* the question began, by a clock that goes on while the machine is suspended. It belongs to one term and one
//! configuration, and is gone when leadership was given away, or tried to be.

use raftgrid_driver::{ConfState, Role, Status, Term};

/// What a confirmed question gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    term: Term,
    conf: ConfState,
    until_ms: u64,
}

impl Lease {
    /// The lease of a question that began at `begun_ms` with the status `before`, and was confirmed by a quorum by the time of `after`.
    pub(crate) fn granted(before: &Status, after: &Status, begun_ms: u64, lease_ms: u64) -> Option<Self> {
        let lease = Self { term: before.term, conf: before.conf.clone(), until_ms: begun_ms.saturating_add(lease_ms) };
        (lease.fits(before) && lease.fits(after)).then_some(lease)
    }

    /// Whether it holds now.
    pub(crate) fn holds(&self, status: &Status, now_ms: u64) -> bool {
        self.fits(status) && now_ms < self.until_ms
    }

    /// The newer one of two.
    pub(crate) fn or_later(self, other: Option<Self>) -> Self {
        other.filter(|other| (other.term, other.until_ms) > (self.term, self.until_ms)).unwrap_or(self)
    }

    fn fits(&self, status: &Status) -> bool {
        status.role == Role::Leader
            && status.term == self.term
            && status.conf == self.conf
            && !status.conf.is_joint()
            && !status.transferred
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leading(term: Term) -> Status {
        let conf = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
        Status { node: 1, role: Role::Leader, term, leader: 1, conf, ..Status::default() }
    }

    #[test]
    fn a_lease_counts_from_the_begin_of_the_question_and_ends() {
        let lease = Lease::granted(&leading(3), &leading(3), 1_000, 150).expect("a leader that stayed");
        assert!(lease.holds(&leading(3), 1_149));
        assert!(!lease.holds(&leading(3), 1_150));
    }

    #[test]
    fn whatever_could_bring_another_leader_ends_it() {
        let lease = Lease::granted(&leading(3), &leading(3), 0, 150).expect("a leader that stayed");
        let follower = Status { role: Role::Follower, ..leading(3) };
        let transferred = Status { transferred: true, ..leading(3) };
        let mut changed = leading(3);
        changed.conf.voters.push(4);
        let mut joint = leading(3);
        joint.conf.voters_outgoing = vec![1, 2, 4];
        for other in [follower, transferred, changed, joint, leading(4)] {
            assert!(!lease.holds(&other, 1), "{other:?}");
            assert_eq!(Lease::granted(&leading(3), &other, 0, 150), None, "{other:?}");
        }
        assert_eq!(Lease::granted(&leading(2), &leading(3), 0, 150), None, "elected again meanwhile");
    }

    #[test]
    fn an_answer_that_comes_late_does_not_shorten_the_lease_of_a_newer_one() {
        let lease = |begun| Lease::granted(&leading(3), &leading(3), begun, 150).expect("it stayed");
        assert_eq!(lease(10).or_later(Some(lease(60))), lease(60));
        assert_eq!(lease(60).or_later(Some(lease(10))), lease(60));
        let next = Lease::granted(&leading(4), &leading(4), 20, 150).expect("it stayed");
        assert_eq!(next.clone().or_later(Some(lease(60))), next, "of an earlier term");
    }
}
