//! What every part of a step reads: the time, the settings, the rows.

use crate::clock::ClusterClock;
use crate::types::{Config, Millis};
use crate::view::View;

/// One step's surroundings. They do not change while it runs.
#[derive(Clone, Copy)]
pub(crate) struct Moment<'a> {
    /// The leader's clock.
    pub(crate) now: Millis,
    pub(crate) config: &'a Config,
    pub(crate) view: &'a View,
    pub(crate) clock: &'a ClusterClock,
}

impl Moment<'_> {
    /// Cluster time now.
    pub(crate) fn cluster_ms(&self) -> u64 {
        self.clock.at(self.now)
    }

    /// When it will be that cluster time, on the leader's clock.
    pub(crate) fn local(&self, cluster_ms: u64) -> Millis {
        self.clock.local(self.now, cluster_ms)
    }
}
