//! The calls about the group, over a replica.

use std::sync::Arc;

use crate::node::Replica;
use crate::ports::{CallError, Callback, Cluster, MemberChange, SnapshotOut};
use raftgrid_driver::{Role, SnapshotError, Status, TransferError};
use raftgrid_manifest::views;
use raftgrid_proto::v1::{LeaderResponse, Member, MembersResponse, Stat, StateResponse, StatsResponse};

/// What the process brings to the calls about the group.
pub struct ReplicaCluster {
    /// The replica.
    pub replica: Arc<Replica>,
    /// Of the cluster.
    pub cluster_id: String,
    /// Of this program.
    pub version: String,
    /// Ends the process, later.
    pub shutdown: Box<dyn Fn() + Send + Sync>,
}

impl ReplicaCluster {
    fn status(&self) -> Arc<Status> {
        self.replica.handle().status()
    }
}

fn role_name(status: &Status) -> &'static str {
    match status.role {
        Role::Leader => "leader",
        Role::Candidate => "candidate",
        Role::Follower if status.learner => "learner",
        Role::Follower => "follower",
    }
}

impl Cluster for ReplicaCluster {
    fn state(&self) -> StateResponse {
        let status = self.status();
        let view = self.replica.view();
        let mut state = StateResponse::new();
        state.set_node_id(status.node);
        state.set_cluster_id(self.cluster_id.clone());
        state.set_role(role_name(&status).to_owned());
        state.set_term(status.term);
        state.set_leader_id(status.leader);
        state.set_leader_address(self.replica.client_address(status.leader));
        state.set_commit_index(status.commit);
        // The digest belongs to the rows of this very view.
        state.set_applied_index(view.position >> 16);
        state.set_last_index(status.last);
        state.set_first_index(status.first);
        state.set_flushed_index(self.replica.flushed_index());
        state.set_version(self.version.clone());
        if let Ok(digest) = views::digest(view.rows.as_ref()) {
            state.set_state_digest(digest.to_vec());
        }
        if let Ok(meta) = views::meta(view.rows.as_ref()) {
            state.set_machine_version(meta.machine_version);
            state.set_machine_version_since(meta.version_since);
            state.set_machine_version_since_ms(meta.version_since_ms);
        }
        state
    }

    fn stats(&self) -> StatsResponse {
        let status = self.status();
        let dropped = self.replica.handle().peer_messages_dropped();
        let figures = [
            ("raftgrid_term", status.term),
            ("raftgrid_commit_index", status.commit),
            ("raftgrid_applied_index", status.applied),
            ("raftgrid_flushed_index", self.replica.flushed_index()),
            ("raftgrid_log_first_index", status.first),
            ("raftgrid_log_last_index", status.last),
            ("raftgrid_peer_messages_dropped_total", dropped),
        ];
        let mut stats = StatsResponse::new();
        for (name, value) in figures {
            let mut stat = Stat::new();
            stat.set_name(name.to_owned());
            // Counters of this size lose nothing that a person would read.
            stat.set_value(value as f64);
            stats.stats.push(stat);
        }
        stats
    }

    fn members(&self) -> MembersResponse {
        let status = self.status();
        let recorded = self.replica.members().unwrap_or_default();
        let conf = &status.conf;
        let voters = conf.voters.iter().chain(&conf.voters_outgoing).map(|node| (*node, "voter"));
        let learners = conf.learners.iter().chain(&conf.learners_next).map(|node| (*node, "learner"));
        let mut response = MembersResponse::new();
        for (node, role) in voters.chain(learners) {
            if response.members.iter().any(|member| member.node_id == node) {
                continue;
            }
            let mut member = Member::new();
            member.set_node_id(node);
            member.set_role(role.to_owned());
            member.set_leader(node == status.leader);
            if let Some(row) = recorded.iter().find(|row| row.node_id == node) {
                member.set_raft_address(row.raft_address.clone());
                member.set_client_address(row.client_address.clone());
            }
            if let Some((_, matched, active)) = status.progress.iter().find(|(of, _, _)| *of == node) {
                member.set_match_index(*matched);
                member.set_recently_active(*active);
            }
            let said =
                if node == status.node { Some(self.replica.machine_version) } else { self.replica.versions.of(node) };
            member.set_machine_version(said.unwrap_or(0));
            response.members.push(member);
        }
        response.set_conf_index(status.applied);
        response
    }

    fn leader(&self) -> LeaderResponse {
        let status = self.status();
        let mut response = LeaderResponse::new();
        response.set_node_id(status.leader);
        response.set_term(status.term);
        response.set_address(self.replica.client_address(status.leader));
        response
    }

    fn snapshot(&self, done: Callback<u64>) {
        self.replica.handle().snapshot_now(Box::new(move |made| {
            done(match made {
                Ok(meta) => Ok(meta.index),
                Err(SnapshotError::Busy) => Err(CallError::Exhausted("a snapshot is being made".to_owned())),
                Err(SnapshotError::Stopped) => Err(CallError::Unavailable("this replica is shutting down".to_owned())),
                Err(SnapshotError::Failed(cause)) => Err(CallError::Internal(cause)),
            });
        }));
    }

    fn open_snapshot(&self, min_index: u64) -> Result<Box<dyn SnapshotOut>, CallError> {
        self.replica.open_snapshot(min_index)
    }

    fn change_member(&self, change: MemberChange, done: Callback<u64>) {
        self.replica.membership().change(change, done);
    }

    fn transfer(&self, to: u64, done: Callback<()>) {
        let to = (to != 0).then_some(to);
        self.replica.handle().transfer_leadership(
            to,
            Box::new(move |moved| {
                done(match moved {
                    Ok(_) => Ok(()),
                    Err(TransferError::NotLeader { leader }) => Err(CallError::NotLeader { leader }),
                    Err(TransferError::Refused { reason }) => Err(CallError::Precondition(reason)),
                    Err(error @ (TransferError::TimedOut | TransferError::Stopped)) => {
                        Err(CallError::Unavailable(error.to_string()))
                    }
                });
            }),
        );
    }

    fn verify_leader(&self, done: Callback<u64>) {
        self.replica.handle().read(Box::new(move |index| {
            done(index.map_err(|error| match error {
                raftgrid_driver::ReadError::NotLeader { leader } => CallError::NotLeader { leader },
                other => CallError::Unavailable(other.to_string()),
            }));
        }));
    }

    fn barrier(&self, done: Callback<u64>) {
        self.verify_leader(done);
    }

    fn set_time(&self, unix_ms: u64, done: Callback<(u64, u64)>) {
        self.replica.proposals().set_time(unix_ms, done);
    }

    fn shutdown(&self) {
        (self.shutdown)();
    }
}
