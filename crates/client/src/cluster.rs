//! State of the replicas.

use std::time::Duration;

use futures::executor::block_on;
use raftgrid_proto::v1::*;
use raftgrid_rpc::answer::ask;
use raftgrid_rpc::grpcio::CallOption;
use raftgrid_rpc::methods::{CLUSTER_MEMBERS, CLUSTER_STATE};

use crate::call::Client;
use crate::error::ClientError;
use crate::limits::STATE_TIMEOUT;

impl Client {
    /// State of one replica, from its own memory.
    pub fn cluster_state(&self, endpoint: &str) -> Result<StateResponse, ClientError> {
        self.call_on(endpoint, &CLUSTER_STATE, &StateRequest::new(), self.state_timeout())
    }

    /// State of every known replica, asked at the same moment. The leader they agree on is preferred from now on.
    pub fn cluster_states(&self) -> Vec<(String, Result<StateResponse, ClientError>)> {
        let request = StateRequest::new();
        let option = || CallOption::default().timeout(self.state_timeout());
        let asked: Vec<_> = self
            .endpoints()
            .into_iter()
            .map(|endpoint| {
                let call = ask(&self.stub(&endpoint), &CLUSTER_STATE.method, &request, option());
                (endpoint, call.map(Box::pin))
            })
            .collect();
        let states: Vec<_> = asked
            .into_iter()
            .map(|(endpoint, call)| {
                let result = call.and_then(block_on).map_err(|error| ClientError::of(&endpoint, error));
                (endpoint, result)
            })
            .collect();
        let newest = states
            .iter()
            .filter_map(|(endpoint, state)| state.as_ref().ok().map(|state| (endpoint, state)))
            .filter(|(_, state)| state.get_role() == "leader")
            .max_by_key(|(_, state)| state.get_term());
        if let Some((endpoint, _)) = newest {
            self.prefer(endpoint);
        }
        states
    }

    /// The members of the cluster.
    pub fn members(&self) -> Result<Vec<Member>, ClientError> {
        let mut response = self.call(&CLUSTER_MEMBERS, &MembersRequest::new(), self.config().timeout)?;
        Ok(response.take_members().into_vec())
    }

    fn state_timeout(&self) -> Duration {
        self.config().timeout.min(STATE_TIMEOUT)
    }
}
