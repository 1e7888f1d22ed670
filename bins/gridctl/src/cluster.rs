//! `gridctl cluster`: the replicas of the control plane.

use raftgrid_client::request_id;
use raftgrid_proto::v1::{
    BarrierRequest, ChangeMemberRequest, ChangeMemberResponse, LeaderRequest, LeadershipTransferRequest, Member,
    SetTimeRequest, SnapshotRequest, StateResponse, StatsRequest, VerifyLeaderRequest,
};
use raftgrid_rpc::methods as rpc;
use serde_json::{json, Value};

use crate::cli::{Change, Cluster};
use crate::context::{exit_on_interrupt, Context};
use crate::failure::{Failure, Result};
use crate::output::hex;
use crate::{backup, certs, recover, restore};

pub(crate) fn run(context: &Context, command: Cluster) -> Result<()> {
    // These need no cluster, or more than one call.
    match &command {
        Cluster::Backup { target } => return backup::run(context, target),
        Cluster::Restore(restore) => return restore::run(context, restore),
        Cluster::Recover(recover) => return recover::run(context, recover),
        Cluster::Certs(certs) => return certs::run(context, certs),
        _ => {}
    }
    exit_on_interrupt();
    let client = context.client()?;
    let (output, timeout) = (context.output, context.global.timeout());
    match command {
        Cluster::Members => {
            let members = client.members()?;
            let json = Value::Array(members.iter().map(member_json).collect());
            let headers = ["id", "role", "leader", "client", "raft", "match index", "active", "machine"];
            output.show(&headers, members.iter().map(member_row).collect(), &json);
        }
        Cluster::Status => return status(context),
        Cluster::Backup { .. } | Cluster::Restore(_) | Cluster::Recover(_) | Cluster::Certs(_) => {}
        Cluster::Leader => {
            let leader = client.call(&rpc::CLUSTER_LEADER, &LeaderRequest::new(), timeout)?;
            if leader.get_node_id() == 0 {
                return Err(Failure::new("nobody leads now", "gridctl cluster status, then again in a moment"));
            }
            let (id, address, term) = (leader.get_node_id(), leader.get_address(), leader.get_term());
            let json = json!({"node_id": id, "address": address, "term": term});
            output.done(format!("replica {id} at {address} leads in term {term}"), &json);
        }
        Cluster::Stats => {
            let stats = client.call(&rpc::CLUSTER_STATS, &StatsRequest::new(), timeout)?;
            let rows =
                stats.get_stats().iter().map(|s| vec![s.get_name().to_owned(), s.get_value().to_string()]).collect();
            let json = stats.get_stats().iter().map(|s| (s.get_name().to_owned(), json!(s.get_value())));
            output.show(&["name", "value"], rows, &Value::Object(json.collect()));
        }
        Cluster::Snapshot => {
            let index = client.call(&rpc::CLUSTER_SNAPSHOT, &SnapshotRequest::new(), timeout)?.get_index();
            output.done(format!("snapshot at index {index}"), &json!({"index": index}));
        }
        Cluster::VerifyLeader => {
            let index =
                client.call(&rpc::CLUSTER_VERIFY_LEADER, &VerifyLeaderRequest::new(), timeout)?.get_read_index();
            output.done(format!("the leader holds a quorum at index {index}"), &json!({"read_index": index}));
        }
        Cluster::Barrier => {
            let index = client.call(&rpc::CLUSTER_BARRIER, &BarrierRequest::new(), timeout)?.get_index();
            output.done(format!("applied up to index {index}"), &json!({"index": index}));
        }
        Cluster::SetTime { unix_ms } => {
            let mut request = SetTimeRequest::new();
            request.set_unix_ms(unix_ms.unwrap_or(0));
            let answer = client.call(&rpc::CLUSTER_SET_TIME, &request, timeout)?;
            let (before, after) = (answer.get_before_ms(), answer.get_after_ms());
            let moved = format!("cluster time moved forward by {} ms", after - before);
            output.done(moved, &json!({"before_ms": before, "after_ms": after}));
        }
        Cluster::LeadershipTransfer { to } => {
            let mut request = LeadershipTransferRequest::new();
            request.set_to(to.unwrap_or(0));
            client.call(&rpc::CLUSTER_TRANSFER, &request, timeout)?;
            output.done("leadership was handed over", &json!({"transferred": true}));
        }
        Cluster::AddLearner(change) => {
            changed(context, client.call(&rpc::CLUSTER_ADD_LEARNER, &request(&change), timeout)?)
        }
        Cluster::AddVoter(change) => {
            changed(context, client.call(&rpc::CLUSTER_ADD_VOTER, &request(&change), timeout)?)
        }
        Cluster::DemoteVoter(change) => {
            changed(context, client.call(&rpc::CLUSTER_DEMOTE_VOTER, &request(&change), timeout)?)
        }
        Cluster::RemoveServer { node_id, force_losing_data } => {
            let mut request = request(&Change { node_id, raft_address: None, client_address: None });
            request.set_force(force_losing_data);
            changed(context, client.call(&rpc::CLUSTER_REMOVE_SERVER, &request, timeout)?)
        }
        Cluster::ReplaceServer { old, new, force_losing_data } => {
            let mut request = request(&new);
            request.set_replaces(old);
            request.set_force(force_losing_data);
            changed(context, client.call(&rpc::CLUSTER_REPLACE_SERVER, &request, timeout)?)
        }
    }
    Ok(())
}

fn request(change: &Change) -> ChangeMemberRequest {
    let mut request = ChangeMemberRequest::new();
    request.set_node_id(change.node_id);
    request.set_raft_address(change.raft_address.clone().unwrap_or_default());
    request.set_client_address(change.client_address.clone().unwrap_or_default());
    request.set_request_id(request_id());
    request
}

fn changed(context: &Context, answer: ChangeMemberResponse) {
    let index = answer.get_index();
    context.output.done(format!("the configuration changed at index {index}"), &json!({"index": index}));
}

fn member_row(member: &Member) -> Vec<String> {
    let yes = |flag: bool| if flag { "yes" } else { "" }.to_owned();
    vec![
        member.get_node_id().to_string(),
        member.get_role().to_owned(),
        yes(member.get_leader()),
        member.get_client_address().to_owned(),
        member.get_raft_address().to_owned(),
        member.get_match_index().to_string(),
        yes(member.get_recently_active()),
        Some(member.machine_version).filter(|it| *it != 0).map_or_else(String::new, |it| it.to_string()),
    ]
}

fn member_json(member: &Member) -> Value {
    json!({
        "node_id": member.get_node_id(), "role": member.get_role(), "leader": member.get_leader(),
        "client_address": member.get_client_address(), "raft_address": member.get_raft_address(),
        "match_index": member.get_match_index(), "recently_active": member.get_recently_active(),
        "machine_version": member.get_machine_version(),
    })
}

/// Every replica by its own word. Fails if no majority answers.
fn status(context: &Context) -> Result<()> {
    let client = context.client()?;
    let states = client.cluster_states();
    let (mut rows, mut items, mut answered) = (Vec::new(), Vec::new(), 0);
    for (address, state) in &states {
        match state {
            Ok(state) => {
                answered += 1;
                rows.push(state_row(address, state));
                items.push(state_json(address, state));
            }
            Err(error) => {
                let mut row = vec![String::new(), address.clone(), "no answer".to_owned()];
                row.resize(9, String::new());
                rows.push(row);
                items.push(json!({"endpoint": address, "role": "no answer", "error": error.to_string()}));
            }
        }
    }
    let headers = ["id", "endpoint", "role", "term", "leader", "commit", "applied", "snapshot", "version"];
    context.output.show(&headers, rows, &Value::Array(items));
    if answered * 2 > states.len() {
        return Ok(());
    }
    let cause = format!("only {answered} of {} replicas answer: there is no majority", states.len());
    Err(Failure::new(cause, "start the others (gridctl dev restart NODE, or controld on their machines)"))
}

fn state_row(address: &str, state: &StateResponse) -> Vec<String> {
    vec![
        state.get_node_id().to_string(),
        address.to_owned(),
        state.get_role().to_owned(),
        state.get_term().to_string(),
        state.get_leader_id().to_string(),
        state.get_commit_index().to_string(),
        state.get_applied_index().to_string(),
        state.get_snapshot_index().to_string(),
        state.get_version().to_owned(),
    ]
}

fn state_json(address: &str, state: &StateResponse) -> Value {
    json!({
        "node_id": state.get_node_id(), "endpoint": address, "cluster_id": state.get_cluster_id(), "role": state.get_role(),
        "term": state.get_term(), "leader_id": state.get_leader_id(), "leader_address": state.get_leader_address(),
        "commit_index": state.get_commit_index(), "applied_index": state.get_applied_index(),
        "last_index": state.get_last_index(), "first_index": state.get_first_index(),
        "snapshot_index": state.get_snapshot_index(), "flushed_index": state.get_flushed_index(),
        "state_digest": hex(state.get_state_digest()), "machine_version": state.get_machine_version(),
        "machine_version_since": state.get_machine_version_since(),
        "machine_version_since_ms": state.get_machine_version_since_ms(),
        "version": state.get_version(),
    })
}
