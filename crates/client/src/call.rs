//! One logical call: attempts on one endpoint after another until an answer or the deadline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use protobuf::Message;
use raftgrid_rpc::answer::ask_now;
use raftgrid_rpc::grpcio::{CallOption, Client as Stub, Environment};
use raftgrid_rpc::methods::Rpc;
use uuid::Uuid;

use crate::config::ClientConfig;
use crate::endpoints::{leader_hint, Endpoints};
use crate::error::ClientError;
use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX};

/// A new request id: UUIDv7, so that it carries its creation time. Made once per logical call.
pub fn request_id() -> String {
    Uuid::now_v7().to_string()
}

/// A blocking client of the control plane. Clones share endpoints and connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    env: Arc<Environment>,
    endpoints: Mutex<Endpoints>,
    small: Mutex<BTreeMap<String, Stub>>,
    bulk: Mutex<BTreeMap<String, Stub>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data behind our locks is valid after every statement, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Client {
    /// A client with an environment of its own. Connects to nobody yet.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        let env = raftgrid_rpc::environment(&config.name);
        Self::with_environment(config, env)
    }

    /// A client on the process's environment, with connections of its own.
    pub fn with_environment(config: ClientConfig, env: Arc<Environment>) -> Result<Self, ClientError> {
        let endpoints = Endpoints::new(&config.endpoints).map_err(ClientError::Endpoints)?;
        let inner = Inner {
            config,
            env,
            endpoints: Mutex::new(endpoints),
            small: Mutex::new(BTreeMap::new()),
            bulk: Mutex::new(BTreeMap::new()),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The settings.
    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    /// host:port of all known replicas.
    pub fn endpoints(&self) -> Vec<String> {
        lock(&self.inner.endpoints).all()
    }

    /// Whom the next call asks first.
    pub fn preferred(&self) -> String {
        lock(&self.inner.endpoints).preferred()
    }

    /// `address` leads: ask it first. Learned if it is new; ignored if it is not host:port.
    pub fn prefer(&self, address: &str) {
        lock(&self.inner.endpoints).prefer(address);
    }

    /// The same, but only if it is one of the endpoints: a name that a server has for itself may not be in reach from here.
    pub fn prefer_known(&self, address: &str) {
        lock(&self.inner.endpoints).prefer_known(address);
    }

    /// More replicas, as a server named them.
    pub fn learn(&self, addresses: &[String]) {
        let mut endpoints = lock(&self.inner.endpoints);
        addresses.iter().for_each(|address| endpoints.learn(address));
    }

    /// One logical call: UNAVAILABLE, a lost connection and an attempt that hangs lead to the next endpoint, with backoff after each
    /// round, until `timeout` has passed. The request must be safe to send twice: a request id or a natural key stands in it.
    pub fn call<Req: Message, Resp: Message + Unpin>(
        &self,
        rpc: &Rpc<Req, Resp>,
        request: &Req,
        timeout: Duration,
    ) -> Result<Resp, ClientError> {
        self.call_patient(rpc, request, timeout, self.inner.config.attempt_timeout)
    }

    /// The same with another time for each attempt: long polls wait longer than others.
    pub fn call_patient<Req: Message, Resp: Message + Unpin>(
        &self,
        rpc: &Rpc<Req, Resp>,
        request: &Req,
        timeout: Duration,
        attempt_timeout: Duration,
    ) -> Result<Resp, ClientError> {
        self.attempts(timeout, |endpoint, left| self.call_on(endpoint, rpc, request, left.min(attempt_timeout)))
    }

    /// One attempt at the preferred endpoint. On a failure that another endpoint may not have, that one is preferred next.
    pub fn call_once<Req: Message, Resp: Message + Unpin>(
        &self,
        rpc: &Rpc<Req, Resp>,
        request: &Req,
        timeout: Duration,
    ) -> Result<Resp, ClientError> {
        let endpoint = self.preferred();
        let result = self.call_on(&endpoint, rpc, request, timeout);
        if let Err(error) = &result {
            self.note(&endpoint, error);
        }
        result
    }

    /// One attempt at this endpoint (host:port), no other.
    pub fn call_on<Req: Message, Resp: Message + Unpin>(
        &self,
        endpoint: &str,
        rpc: &Rpc<Req, Resp>,
        request: &Req,
        timeout: Duration,
    ) -> Result<Resp, ClientError> {
        let option = CallOption::default().timeout(timeout);
        ask_now(&self.stub(endpoint), &rpc.method, request, option).map_err(|error| ClientError::of(endpoint, error))
    }

    /// The loop of every logical call: `attempt(endpoint, time left)`.
    pub(crate) fn attempts<T>(
        &self,
        timeout: Duration,
        mut attempt: impl FnMut(&str, Duration) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let started = Instant::now();
        let left = || timeout.saturating_sub(started.elapsed());
        self.attempts_while(&left, |endpoint| attempt(endpoint, left().max(Duration::from_millis(1))))
    }

    /// The same; `left` says how much time there is for further attempts.
    pub(crate) fn attempts_while<T>(
        &self,
        left: &dyn Fn() -> Duration,
        mut attempt: impl FnMut(&str) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let started = Instant::now();
        let mut backoff = Backoff::default();
        let mut tried = 0;
        loop {
            let endpoint = self.preferred();
            let error = match attempt(&endpoint) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if !error.retryable() {
                return Err(error);
            }
            self.note(&endpoint, &error);
            tried += 1;
            let overloaded = matches!(error, ClientError::Exhausted(_));
            let pause = if overloaded || tried % lock(&self.inner.endpoints).count() == 0 {
                backoff.next()
            } else {
                Duration::ZERO
            };
            if pause >= left() {
                return Err(self.given_up(error, started.elapsed()));
            }
            std::thread::sleep(pause);
        }
    }

    /// Moves on from `endpoint` after `error`, to the leader if the error names it.
    pub(crate) fn note(&self, endpoint: &str, error: &ClientError) {
        if !error.retryable() {
            return;
        }
        let mut endpoints = lock(&self.inner.endpoints);
        match error {
            ClientError::Unavailable { cause, .. } => match leader_hint(cause).filter(|hint| *hint != endpoint) {
                Some(hint) => endpoints.prefer(hint),
                None => endpoints.failed(endpoint),
            },
            _ => endpoints.failed(endpoint),
        }
    }

    fn given_up(&self, error: ClientError, waited: Duration) -> ClientError {
        match error {
            ClientError::Unavailable { cause, .. } => {
                ClientError::Unavailable { endpoints: self.endpoints().join(","), waited_ms: waited.as_millis(), cause }
            }
            other => other,
        }
    }

    /// The connection for small calls.
    pub(crate) fn stub(&self, endpoint: &str) -> Stub {
        lock(&self.inner.small)
            .entry(endpoint.to_owned())
            .or_insert_with(|| Stub::new(raftgrid_rpc::channel(&self.inner.env, endpoint)))
            .clone()
    }

    /// The connection for bytes.
    pub(crate) fn bulk_stub(&self, endpoint: &str) -> Stub {
        lock(&self.inner.bulk)
            .entry(endpoint.to_owned())
            .or_insert_with(|| Stub::new(raftgrid_rpc::bulk_channel(&self.inner.env, endpoint)))
            .clone()
    }
}

/// Doubling pauses with jitter: between half and the whole of the current step.
pub(crate) struct Backoff {
    step: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { step: BACKOFF_FIRST }
    }
}

impl Backoff {
    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let step = self.step;
        self.step = (step * 2).min(BACKOFF_MAX);
        // The random part of a version 4 id is the only source of chance this crate needs.
        let share = (Uuid::new_v4().as_u128() & 0xffff) as f64 / 65_536.0;
        step.mul_f64(0.5 + share / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(endpoints: &[&str]) -> Client {
        Client::new(ClientConfig::new(endpoints.iter().copied())).expect("the endpoints are valid")
    }

    fn unavailable(endpoint: &str, cause: &str) -> ClientError {
        ClientError::unavailable(endpoint, cause.to_owned())
    }

    #[test]
    fn an_unavailable_endpoint_is_followed_by_the_next_one_and_then_by_the_leader_it_names() {
        let client = client(&["a:1", "b:2", "c:3"]);
        let mut asked = Vec::new();
        let got = client.attempts(Duration::from_secs(60), |endpoint, _| {
            asked.push(endpoint.to_owned());
            match endpoint {
                "a:1" => Err(unavailable(endpoint, "connection refused")),
                "b:2" => Err(unavailable(endpoint, "leader=d:4; try there")),
                other => Ok(other.to_owned()),
            }
        });
        assert_eq!(got.expect("the leader answers"), "d:4");
        assert_eq!(asked, ["a:1", "b:2", "d:4"]);
        assert_eq!(client.preferred(), "d:4", "who answered is asked first next time");
    }

    #[test]
    fn an_answer_that_another_endpoint_would_repeat_ends_the_call() {
        let client = client(&["a:1", "b:2"]);
        let mut asked = 0;
        let got: Result<(), _> = client.attempts(Duration::from_secs(60), |_, _| {
            asked += 1;
            Err(ClientError::NotFound("job digits".to_owned()))
        });
        assert!(matches!(got, Err(ClientError::NotFound(_))));
        assert_eq!(asked, 1);
    }

    #[test]
    fn the_deadline_ends_the_attempts_and_the_error_names_all_endpoints() {
        let client = client(&["a:1", "b:2"]);
        let got: Result<(), _> =
            client.attempts(Duration::from_millis(30), |endpoint, _| Err(unavailable(endpoint, "refused")));
        let text = got.expect_err("nobody answers").to_string();
        assert!(text.contains("a:1,b:2") && text.contains("refused"), "{text}");
    }

    #[test]
    fn backoff_doubles_within_its_bounds() {
        let mut backoff = Backoff::default();
        for exponent in 0..20 {
            let step = (BACKOFF_FIRST * 2u32.saturating_pow(exponent)).min(BACKOFF_MAX);
            let pause = backoff.next();
            assert!(pause >= step / 2 && pause <= step, "{exponent}: {pause:?}");
        }
    }
}
