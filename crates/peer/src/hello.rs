//! Who speaks: the first thing on every stream. A stream of another cluster, for another node, or from a store that took over a node's id is
//! refused, and that is logged once. With mutual TLS the caller's certificate must be that of the node in whose name it speaks: one member's
//! key is of no use for the name of another.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use grpcio::{RpcContext, RpcStatus, RpcStatusCode};
use raftgrid_driver::NodeId;
use raftgrid_proto::v1::PeerHello;
use raftgrid_replica::Versions;
use raftgrid_rpc::status::status;
use raftgrid_rpc::tls::{proved_names, Tls};
use raftgrid_telemetry::Counter;
use slog::{warn, Logger};

use crate::metrics::Metrics;

/// This replica, as it introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Of the cluster.
    pub cluster_id: String,
    /// Of the node; never 0.
    pub node_id: NodeId,
    /// Of the store on its disk: a wiped disk is a new node.
    pub store_uuid: Vec<u8>,
    /// host:port of its client API.
    pub client_address: String,
    /// host:port of its Raft port, as others reach it.
    pub raft_address: String,
    /// The newest machine version that it can run.
    pub machine_version: u64,
}

impl Identity {
    /// The hello for a stream to `to`.
    pub(crate) fn hello(&self, to: NodeId) -> PeerHello {
        let mut hello = PeerHello::new();
        hello.set_cluster_id(self.cluster_id.clone());
        hello.set_from_node(self.node_id);
        hello.set_to_node(to);
        hello.set_store_uuid(self.store_uuid.clone());
        hello.set_client_address(self.client_address.clone());
        hello.set_raft_address(self.raft_address.clone());
        hello.set_machine_version(self.machine_version);
        hello
    }
}

/// Remembers durably which store each node speaks from.
pub trait KnownStores: Send + Sync {
    /// Notes the store of a node that is not known; fails with the reason if it is known by another one, or cannot be noted. May wait for
    /// the disk, once for each node.
    fn meet(&self, node: NodeId, store_uuid: &[u8]) -> Result<(), String>;
    /// What the replicated rows say of a node; it stands if the node is not known. Never waits.
    fn learn(&self, node: NodeId, store_uuid: &[u8]);
}

/// Refusals that are remembered so that each is logged once.
const LOGGED_MAX: usize = 1_024;

/// Checks the hellos of others.
pub(crate) struct Doorkeeper {
    identity: Identity,
    stores: Arc<dyn KnownStores>,
    /// What names certificates have; None: nobody has one.
    tls: Option<Arc<Tls>>,
    logger: Logger,
    /// Refusals that were logged.
    logged: Mutex<BTreeSet<(NodeId, String)>>,
    refused: Counter,
    /// None: whoever it is may run what he wants.
    versions: Option<Versions>,
}

impl Doorkeeper {
    pub(crate) fn new(identity: Identity, stores: Arc<dyn KnownStores>, logger: Logger) -> Self {
        let refused = Counter::default();
        Self { identity, stores, tls: None, versions: None, logger, logged: Mutex::default(), refused }
    }

    /// Nobody comes in without a certificate that has its name.
    pub(crate) fn with_tls(mut self, tls: Option<Arc<Tls>>) -> Self {
        self.tls = tls;
        self
    }

    /// Counts refusals.
    pub(crate) fn with_metrics(mut self, metrics: &Metrics) -> Self {
        self.refused = metrics.refused.clone();
        self
    }

    /// Whoever made this call.
    pub(crate) fn visitor(self: &Arc<Self>, ctx: &RpcContext<'_>) -> Visitor {
        let proved = if self.tls.is_some() { proved_names(ctx) } else { Vec::new() };
        Visitor { door: self.clone(), proved }
    }

    /// Why the certificate with these names does not make its owner node `from`.
    fn unproved(&self, from: NodeId, proved: &[String]) -> Option<String> {
        let name = self.tls.as_ref()?.name_of(from);
        if proved.iter().any(|own| own.eq_ignore_ascii_case(&name)) {
            return None;
        }
        Some(format!("node {from} speaks with the certificate of {:?}, not with that of {name}", proved.join(", ")))
    }

    /// Lets nobody in who runs a program too old for the state here.
    pub(crate) fn with_versions(mut self, versions: Option<Versions>) -> Self {
        self.versions = versions;
        self
    }

    /// The version of the state here, if a program that runs `version` cannot follow it.
    fn too_old(&self, version: u64) -> Option<u64> {
        self.versions.as_ref().map(Versions::current).filter(|current| version < *current)
    }

    /// Who speaks, or FAILED_PRECONDITION. `None` is a stream without a hello.
    fn check(&self, hello: Option<&PeerHello>, proved: &[String]) -> Result<NodeId, RpcStatus> {
        let Some(hello) = hello else {
            self.refused.inc();
            return Err(refused("the stream does not begin with a hello"));
        };
        let from = hello.get_from_node();
        let why = if hello.get_cluster_id() != self.identity.cluster_id {
            format!("cluster {:?} speaks, this is cluster {:?}", hello.get_cluster_id(), self.identity.cluster_id)
        } else if hello.get_to_node() != self.identity.node_id {
            format!("node {} is meant, this is node {}", hello.get_to_node(), self.identity.node_id)
        } else if from == 0 || from == self.identity.node_id {
            format!("node {from} speaks, which is no other member")
        } else if let Some(why) = self.unproved(from, proved) {
            // Before its store is noted, or a stranger could close the door to a node that has not spoken yet.
            why
        } else if let Some(current) = self.too_old(hello.machine_version) {
            let runs = hello.machine_version;
            if let Some(versions) = &self.versions {
                versions.bar(from);
            }
            format!("it runs machine version {runs}, this group is at {current}; upgrade replica {from}")
        } else {
            match self.stores.meet(from, hello.get_store_uuid()) {
                Ok(()) => return Ok(from),
                Err(why) => why,
            }
        };
        self.refused.inc();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() < LOGGED_MAX && logged.insert((from, why.clone())) {
            warn!(self.logger, "peer stream refused"; "from" => from, "reason" => &why);
        }
        Err(refused(&why))
    }
}

/// The other end of one call.
pub(crate) struct Visitor {
    door: Arc<Doorkeeper>,
    /// The names in its certificate.
    proved: Vec<String>,
}

impl Visitor {
    /// Who speaks, or FAILED_PRECONDITION. `None` is a stream without a hello.
    pub(crate) fn check(&self, hello: Option<&PeerHello>) -> Result<NodeId, RpcStatus> {
        self.door.check(hello, &self.proved)
    }

    /// Whom it visits.
    pub(crate) fn host(&self) -> NodeId {
        self.door.identity.node_id
    }
}

fn refused(why: &str) -> RpcStatus {
    status(RpcStatusCode::FAILED_PRECONDITION, format!("failed to accept the stream: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(node_id: NodeId) -> Identity {
        Identity {
            cluster_id: "blue".to_owned(),
            node_id,
            store_uuid: vec![node_id as u8; 16],
            client_address: String::new(),
            raft_address: String::new(),
            machine_version: 1,
        }
    }

    /// Knows node 2 by its store.
    struct OnlyTwo;

    impl KnownStores for OnlyTwo {
        fn meet(&self, node: NodeId, store_uuid: &[u8]) -> Result<(), String> {
            if node == 2 && store_uuid == vec![2; 16] {
                Ok(())
            } else {
                Err("another store".to_owned())
            }
        }
        fn learn(&self, _node: NodeId, _store_uuid: &[u8]) {}
    }

    #[test]
    fn only_the_right_cluster_node_and_store_come_in() {
        let door = Doorkeeper::new(identity(1), Arc::new(OnlyTwo), Logger::root(slog::Discard, slog::o!()));
        let good = identity(2).hello(1);
        assert_eq!(door.check(Some(&good), &[]).ok(), Some(2));
        let refused = |change: fn(&mut PeerHello)| {
            let mut hello = good.clone();
            change(&mut hello);
            let status = door.check(Some(&hello), &[]).expect_err("refused");
            assert_eq!(status.code(), RpcStatusCode::FAILED_PRECONDITION);
            status.message().to_owned()
        };
        assert!(refused(|hello| hello.set_cluster_id("red".to_owned())).contains("\"red\""));
        assert!(refused(|hello| hello.set_to_node(3)).contains("node 3 is meant"));
        assert!(refused(|hello| hello.set_from_node(0)).contains("node 0"));
        assert!(refused(|hello| hello.set_store_uuid(vec![9; 16])).contains("another store"));
        assert!(door.check(None, &[]).is_err());
        assert_eq!(door.check(Some(&good), &[]).ok(), Some(2), "the right one still comes in");
    }

    #[test]
    fn who_runs_an_older_version_than_the_state_does_not_come_in() {
        let versions = Versions::new(|| ());
        let door = Doorkeeper::new(identity(1), Arc::new(OnlyTwo), Logger::root(slog::Discard, slog::o!()));
        let door = door.with_versions(Some(versions.clone()));
        let mut hello = identity(2).hello(1);
        hello.set_machine_version(1);
        for (current, comes_in) in [(0, true), (1, true), (2, false)] {
            versions.reached(current);
            assert_eq!(door.check(Some(&hello), &[]).is_ok(), comes_in, "the state is at {current}");
        }
        let why = door.check(Some(&hello), &[]).expect_err("refused").message().to_owned();
        assert!(why.contains("it runs machine version 1, this group is at 2; upgrade replica 2"), "{why}");
        hello.set_machine_version(3);
        assert!(door.check(Some(&hello), &[]).is_ok(), "a newer one");
    }
}
