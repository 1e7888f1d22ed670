//! What the services are built on: the replica's ports, and the calls about the cluster itself.

use std::sync::Arc;

use raftgrid_proto::v1::{LeaderResponse, MembersResponse, StateResponse, StatsResponse};
use raftgrid_replica::ports::{Bytes, Callback, Commands, Leader, Peers, Reads};

/// Everything that the services ask.
pub struct Ports {
    /// Replicated writes.
    pub commands: Arc<dyn Commands>,
    /// Rows.
    pub reads: Arc<dyn Reads>,
    /// The leader's memory.
    pub leader: Arc<dyn Leader>,
    /// Models, gradients, artifacts.
    pub bytes: Arc<dyn Bytes>,
    /// The other replicas.
    pub peers: Arc<dyn Peers>,
    /// The group itself.
    pub cluster: Arc<dyn Cluster>,
}

/// What a membership call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberVerb {
    /// A new replica, without a vote; promoted when it has caught up.
    AddLearner,
    /// A vote for a replica that is a member, or a new voter.
    AddVoter,
    /// A voter becomes a learner.
    Demote,
    /// A member is taken out.
    Remove,
}

/// A change of membership with the member's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// What to do.
    pub verb: MemberVerb,
    /// To whom; never 0.
    pub node_id: u64,
    /// host:port of its Raft port; "" if it is a member already.
    pub raft_address: String,
    /// host:port of its client port; "" if it is a member already.
    pub client_address: String,
    /// For a retry.
    pub request_id: String,
    /// Take it out although bytes lose redundancy.
    pub force: bool,
}

/// Calls about the group. None of them blocks.
pub trait Cluster: Send + Sync {
    /// This replica, as it sees itself.
    fn state(&self) -> StateResponse;
    /// Its counters.
    fn stats(&self) -> StatsResponse;
    /// The members as applied here; `match_index` is known on the leader only.
    fn members(&self) -> MembersResponse;
    /// The leader as known here; `node_id` 0: none.
    fn leader(&self) -> LeaderResponse;
    /// Makes a snapshot of this replica; answers its index.
    fn snapshot(&self, done: Callback<u64>);
    /// On the leader: changes the membership; answers the index at which it was applied.
    fn change_member(&self, change: MemberChange, done: Callback<u64>);
    /// On the leader: hands leadership to `to`; 0: to the one that is most caught up.
    fn transfer(&self, to: u64, done: Callback<()>);
    /// On the leader: confirms leadership with a quorum; answers the read index.
    fn verify_leader(&self, done: Callback<u64>);
    /// On the leader: answers an index when everything proposed before is applied here.
    fn barrier(&self, done: Callback<u64>);
    /// Ends this replica, after the answer has gone out.
    fn shutdown(&self);
}
