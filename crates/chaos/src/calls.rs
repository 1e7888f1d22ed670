//! Calls of the load: which answers are answers. A write is tried at one replica after another under one request id; what is not an answer
//! by the end of its time is an unknown outcome, whatever the last error said.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use raftgrid_client::{Client, ClientConfig, ClientError};
use raftgrid_proto::v1::*;
use raftgrid_rpc::methods::{Rpc, GET_TASK, LIST_TASKS};

use crate::chance::Chance;
use crate::limits::{ATTEMPT_TIMEOUT, PAGE_ROWS, READ_TIMEOUT, WRITE_TIMEOUT};

/// What came of a write.
pub enum Told<T> {
    /// It took effect.
    Done(T),
    /// It did not, and never will: the machine refused it.
    Refused(ClientError),
    /// It may have, or may yet.
    Unknown,
}

/// Where the replicas are; changes with the membership. Clones share it; never empty.
#[derive(Clone)]
pub struct Endpoints(Arc<RwLock<Vec<String>>>);

impl Endpoints {
    /// These, for now.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self(Arc::new(RwLock::new(endpoints)))
    }

    /// Those of now.
    pub fn now(&self) -> Vec<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on these.
    pub fn set(&self, endpoints: Vec<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = endpoints;
    }
}

/// One client with connections of its own.
pub struct Caller {
    client: Client,
    endpoints: Endpoints,
    preferred: usize,
    /// One attempt of a write.
    pub attempt_timeout: Duration,
    /// Where it asks next, and how long it waits.
    pub chance: Chance,
}

impl Caller {
    /// A client of these replicas.
    pub fn new(endpoints: Endpoints, chance: Chance) -> Result<Self> {
        let client = Client::new(ClientConfig::new(endpoints.now())).context("failed to make a client")?;
        Ok(Self { client, endpoints, preferred: 0, attempt_timeout: ATTEMPT_TIMEOUT, chance })
    }

    /// Tries until it is answered or its time is over. The request must carry an id, or be one that may be done twice.
    pub fn write<Req, Resp>(&mut self, rpc: &Rpc<Req, Resp>, request: &Req) -> Told<Resp>
    where
        Req: protobuf::Message,
        Resp: protobuf::Message + Unpin,
    {
        let start = Instant::now();
        // Now and then somebody else is asked first: a follower forwards, a deposed leader must not answer.
        if self.chance.one_in(4) {
            self.preferred = self.chance.below(self.endpoints.now().len() as u64) as usize;
        }
        while start.elapsed() < WRITE_TIMEOUT {
            let endpoints = self.endpoints.now();
            let endpoint = &endpoints[self.preferred % endpoints.len()];
            match self.client.call_on(endpoint, rpc, request, self.attempt_timeout) {
                Ok(response) => return Told::Done(response),
                Err(error) => match error {
                    ClientError::Precondition(ref cause) if cause.contains("OUTCOME_UNKNOWN") => return Told::Unknown,
                    ClientError::AlreadyExists(_)
                    | ClientError::NotFound(_)
                    | ClientError::StaleLease(_)
                    | ClientError::Precondition(_)
                    | ClientError::Invalid(_) => return Told::Refused(error),
                    // All else says nothing about what became of it.
                    _ => {
                        self.preferred = (self.preferred + 1) % endpoints.len();
                        std::thread::sleep(Duration::from_millis(self.chance.between(2, 30)));
                    }
                },
            }
        }
        Told::Unknown
    }

    /// One attempt at any one replica.
    pub fn once<Req, Resp>(
        &mut self,
        rpc: &Rpc<Req, Resp>,
        request: &Req,
        timeout: Duration,
    ) -> Result<Resp, ClientError>
    where
        Req: protobuf::Message,
        Resp: protobuf::Message + Unpin,
    {
        let endpoint = self.chance.pick(&self.endpoints.now()).clone();
        self.client.call_on(&endpoint, rpc, request, timeout)
    }

    /// A linearizable read at any one replica; None: no answer.
    pub fn read(&mut self, task_id: &str) -> Option<GetTaskResponse> {
        let mut request = GetTaskRequest::new();
        request.set_task_id(task_id.to_owned());
        self.once(&GET_TASK, &request, READ_TIMEOUT).ok()
    }

    /// Every task there is, as this replica lists them. Nothing may change meanwhile.
    pub fn all_tasks(&self, endpoint: &str) -> Result<Vec<Task>> {
        let mut all = Vec::new();
        let mut request = ListTasksRequest::new();
        request.set_limit(PAGE_ROWS);
        loop {
            let mut page = self
                .client
                .call_on(endpoint, &LIST_TASKS, &request, Duration::from_secs(10))
                .with_context(|| format!("failed to list the tasks at {endpoint}"))?;
            all.extend(page.take_tasks().into_vec());
            let next = page.take_next_page_token();
            if next.is_empty() {
                return Ok(all);
            }
            request.set_page_token(next);
        }
    }
}

/// Data of a task that says whose it is.
pub fn data_with_tag(tag: u64) -> Vec<u8> {
    format!(r#"{{"argv":["true"],"tag":{tag}}}"#).into_bytes()
}

/// The tag in a task's data.
pub fn tag_in(data: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(data).ok()?.get("tag")?.as_u64()
}

/// A spec that no node of the run can satisfy: the task stays where its clients put it.
pub fn nowhere() -> TaskSpec {
    let mut constraint = Constraint::new();
    constraint.set_key("chaos".to_owned());
    constraint.set_value("nowhere".to_owned());
    let mut spec = TaskSpec::new();
    spec.mut_constraints().push(constraint);
    spec
}
