//! Calls as clients and workers make them.

use crate::calls::Request;
use crate::rng::Rng;

/// A call to be sent.
#[derive(Debug)]
pub struct Ask {
    /// To which node.
    pub node: u64,
    /// Comes back with the answer.
    pub number: u64,
    /// What is asked.
    pub request: Request,
}

/// Which node is asked next: the leader as far as it is known, else anyone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Target(u64);

impl Target {
    /// The node to ask.
    pub fn node(&mut self, nodes: &[u64], rng: &mut Rng) -> u64 {
        if !nodes.contains(&self.0) {
            self.0 = rng.pick(nodes).copied().unwrap_or(0);
        }
        self.0
    }

    /// A node said who leads (0: it does not know), or did not answer (None).
    pub fn learned(&mut self, leader: Option<u64>) {
        self.0 = leader.unwrap_or(0);
    }
}
