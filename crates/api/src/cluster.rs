//! ClusterService: the group itself. State, stats, leader, snapshot and shutdown are about the replica that is asked; membership, transfer,
//! verification and barrier are the leader's.

use std::sync::Arc;

use raftgrid_proto::v1::*;
use raftgrid_replica::ports::{MemberChange, MemberVerb};
use raftgrid_rpc::methods;

use crate::calls::{ask, pause, read, Surface};
use crate::context::{Context, Core};
use crate::failure::{invalid, Answer, Failure};
use crate::limits;
use crate::validate;

pub(crate) fn register(surface: Surface) -> Surface {
    surface
        .unary(&methods::CLUSTER_STATE, |core, _, _| async move { Ok(core.ports.cluster.state()) })
        .unary(&methods::CLUSTER_STATS, |core, _, _| async move { Ok(core.ports.cluster.stats()) })
        .unary(&methods::CLUSTER_LEADER, |core, _, _| async move { Ok(core.ports.cluster.leader()) })
        .unary(&methods::CLUSTER_MEMBERS, members)
        .unary(&methods::CLUSTER_SNAPSHOT, snapshot)
        .unary(&methods::CLUSTER_ADD_LEARNER, |core, _, request| change(core, MemberVerb::AddLearner, request))
        .unary(&methods::CLUSTER_ADD_VOTER, |core, _, request| change(core, MemberVerb::AddVoter, request))
        .unary(&methods::CLUSTER_DEMOTE_VOTER, |core, _, request| change(core, MemberVerb::Demote, request))
        .unary(&methods::CLUSTER_REMOVE_SERVER, |core, _, request| change(core, MemberVerb::Remove, request))
        .unary(&methods::CLUSTER_REPLACE_SERVER, |core, _, request| change(core, MemberVerb::Replace, request))
        .unary(&methods::CLUSTER_TRANSFER, transfer)
        .unary(&methods::CLUSTER_VERIFY_LEADER, verify_leader)
        .unary(&methods::CLUSTER_BARRIER, barrier)
        .unary(&methods::CLUSTER_SET_TIME, set_time)
        .unary(&methods::CLUSTER_SHUTDOWN, shutdown)
}

async fn members(core: Arc<Core>, _: Context, request: MembersRequest) -> Answer<MembersResponse> {
    // The leader alone knows how far each member is.
    let leader = core.ports.cluster.leader().get_node_id();
    if request.get_consistency() != Consistency::LOCAL && leader != core.node_id {
        return Err(Failure::NotLeader { leader });
    }
    read(&core, request.get_consistency()).await?;
    Ok(core.ports.cluster.members())
}

async fn snapshot(core: Arc<Core>, _: Context, _: SnapshotRequest) -> Answer<SnapshotResponse> {
    let mut response = SnapshotResponse::new();
    response.set_index(ask(|done| core.ports.cluster.snapshot(done)).await?);
    Ok(response)
}

async fn change(core: Arc<Core>, verb: MemberVerb, mut request: ChangeMemberRequest) -> Answer<ChangeMemberResponse> {
    if request.get_node_id() == 0 {
        return Err(invalid("node_id", "must not be 0"));
    }
    validate::optional_name("raft_address", request.get_raft_address())?;
    validate::optional_name("client_address", request.get_client_address())?;
    validate::optional_name("request_id", request.get_request_id())?;
    if verb == MemberVerb::AddLearner {
        validate::name("raft_address", request.get_raft_address())?;
    }
    if (verb == MemberVerb::Replace) != (request.get_replaces() != 0) {
        return Err(invalid("replaces", "is the replica that goes, with ReplaceServer only"));
    }
    if request.get_replaces() == request.get_node_id() {
        return Err(invalid("replaces", "a replica cannot replace itself"));
    }
    let change = MemberChange {
        verb,
        node_id: request.get_node_id(),
        raft_address: request.take_raft_address(),
        client_address: request.take_client_address(),
        request_id: request.take_request_id(),
        replaces: request.get_replaces(),
        force: request.get_force(),
    };
    let mut response = ChangeMemberResponse::new();
    response.set_index(ask(|done| core.ports.cluster.change_member(change, done)).await?);
    Ok(response)
}

async fn transfer(
    core: Arc<Core>,
    _: Context,
    request: LeadershipTransferRequest,
) -> Answer<LeadershipTransferResponse> {
    ask(|done| core.ports.cluster.transfer(request.get_to(), done)).await?;
    Ok(LeadershipTransferResponse::new())
}

async fn verify_leader(core: Arc<Core>, _: Context, _: VerifyLeaderRequest) -> Answer<VerifyLeaderResponse> {
    let mut response = VerifyLeaderResponse::new();
    response.set_read_index(ask(|done| core.ports.cluster.verify_leader(done)).await?);
    Ok(response)
}

async fn set_time(core: Arc<Core>, _: Context, request: SetTimeRequest) -> Answer<SetTimeResponse> {
    let (before, after) = ask(|done| core.ports.cluster.set_time(request.get_unix_ms(), done)).await?;
    let mut response = SetTimeResponse::new();
    response.set_before_ms(before);
    response.set_after_ms(after);
    Ok(response)
}

async fn barrier(core: Arc<Core>, _: Context, _: BarrierRequest) -> Answer<BarrierResponse> {
    let mut response = BarrierResponse::new();
    response.set_index(ask(|done| core.ports.cluster.barrier(done)).await?);
    Ok(response)
}

async fn shutdown(core: Arc<Core>, _: Context, _: ShutdownRequest) -> Answer<ShutdownResponse> {
    let later = core.clone();
    // The answer goes out first; then the replica ends.
    let wait = pause(&core, limits::CATCH_UP_WAIT);
    std::thread::Builder::new()
        .name("api-shutdown".to_owned())
        .spawn(move || {
            futures::executor::block_on(wait);
            later.ports.cluster.shutdown();
        })
        .map_err(|error| invalid("shutdown", format!("no thread can be started: {error}")))?;
    Ok(ShutdownResponse::new())
}
