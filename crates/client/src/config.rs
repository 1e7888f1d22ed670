//! What a client needs to know.

use std::time::Duration;

use crate::limits::{ATTEMPT_TIMEOUT, CALL_TIMEOUT, STREAM_TIMEOUT};

/// Settings of a `Client`.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// host:port of any replicas; more are learned from answers.
    pub endpoints: Vec<String>,
    /// A call as a whole, all attempts together.
    pub timeout: Duration,
    /// One attempt; then the next endpoint is asked.
    pub attempt_timeout: Duration,
    /// A stream as a whole: a watch, a log that is followed.
    pub stream_timeout: Duration,
    /// An upload or a download as a whole. It ends sooner when no byte comes further for `timeout`.
    pub transfer_timeout: Duration,
    /// Completion threads of this client's environment get this name.
    pub name: String,
}

impl ClientConfig {
    /// Defaults for these endpoints.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { endpoints: endpoints.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            timeout: CALL_TIMEOUT,
            attempt_timeout: ATTEMPT_TIMEOUT,
            stream_timeout: STREAM_TIMEOUT,
            transfer_timeout: STREAM_TIMEOUT,
            name: "client".to_owned(),
        }
    }
}
