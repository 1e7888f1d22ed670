//! How connections to the other replicas are made: plain, or with certificates.

use std::sync::Arc;

use grpcio::{Channel, Environment};
use raftgrid_driver::NodeId;
use raftgrid_rpc::channel::{bulk_channel_to, channel_to, Proof};
use raftgrid_rpc::tls::Tls;

/// Connects to other replicas. Clones share what they are made of.
#[derive(Clone)]
pub struct Dialer {
    env: Arc<Environment>,
    tls: Option<Arc<Tls>>,
}

impl From<Arc<Environment>> for Dialer {
    /// Plain connections.
    fn from(env: Arc<Environment>) -> Self {
        Self { env, tls: None }
    }
}

impl Dialer {
    /// Connections on which both ends prove who they are; plain ones without certificates.
    pub fn new(env: Arc<Environment>, tls: Option<Arc<Tls>>) -> Self {
        Self { env, tls }
    }

    fn proof(&self, to: NodeId) -> Option<Proof<'_>> {
        self.tls.as_deref().map(|tls| Proof { tls, node_id: to })
    }

    /// A connection of its own for small calls.
    pub(crate) fn channel(&self, to: NodeId, address: &str) -> Channel {
        channel_to(&self.env, address, self.proof(to))
    }

    /// A connection of its own for bytes.
    pub(crate) fn bulk_channel(&self, to: NodeId, address: &str) -> Channel {
        bulk_channel_to(&self.env, address, self.proof(to))
    }

    /// Another number once the certificates were replaced: a connection made before is not to be used for ever.
    pub(crate) fn generation(&self) -> u64 {
        self.tls.as_ref().map_or(0, |tls| tls.generation())
    }
}
