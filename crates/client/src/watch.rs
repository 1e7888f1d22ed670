//! A watch that goes on elsewhere when its connection ends: in order, none missing, none twice.

use std::time::{Duration, Instant};

use futures::executor::block_on;
use futures::TryStreamExt;
use raftgrid_proto::v1::{JobPhase, WatchJobRequest, WatchJobResponse};
use raftgrid_rpc::grpcio::{CallOption, ClientSStreamReceiver};
use raftgrid_rpc::methods::WATCH_JOB;

use crate::call::{Backoff, Client};
use crate::error::ClientError;

/// Changes of one job; see `Client::watch_job`.
pub struct JobWatch {
    client: Client,
    job_id: String,
    position: u64,
    stream: Option<(String, ClientSStreamReceiver<WatchJobResponse>)>,
    over: bool,
}

impl JobWatch {
    pub(crate) fn new(client: Client, job_id: String, from_position: u64) -> Self {
        Self { client, job_id, position: from_position, stream: None, over: false }
    }

    /// Position of the last change that was handed out.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn open(&mut self) -> Result<(), ClientError> {
        let mut request = WatchJobRequest::new();
        request.set_job_id(self.job_id.clone());
        request.set_from_position(self.position);
        let endpoint = self.client.preferred();
        let option = CallOption::default().timeout(self.client.config().stream_timeout);
        let stream = self
            .client
            .stub(&endpoint)
            .server_streaming(&WATCH_JOB.method, &request, option)
            .map_err(|error| ClientError::of(&endpoint, error))?;
        self.stream = Some((endpoint, stream));
        Ok(())
    }

    /// The next message of the open stream; None: the server ended it.
    fn receive(&mut self) -> Result<Option<WatchJobResponse>, ClientError> {
        if self.stream.is_none() {
            self.open()?;
        }
        let (endpoint, stream) = self.stream.as_mut().expect("opened above");
        block_on(stream.try_next()).map_err(|error| ClientError::of(endpoint, error))
    }

    fn lost(&mut self, error: &ClientError) {
        if let Some((endpoint, _)) = self.stream.take() {
            self.client.note(&endpoint, error);
        }
    }
}

/// Whether a phase is the job's last.
fn is_over(phase: JobPhase) -> bool {
    match phase {
        JobPhase::JOB_DONE | JobPhase::JOB_FAILED | JobPhase::JOB_CANCELLED | JobPhase::JOB_REJECTED => true,
        JobPhase::JOB_INIT | JobPhase::JOB_RUNNING | JobPhase::JOB_PAUSED => false,
    }
}

impl Iterator for JobWatch {
    type Item = Result<WatchJobResponse, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        let started = Instant::now();
        let mut backoff = Backoff::default();
        while !self.over {
            match self.receive() {
                Ok(Some(message)) if message.get_compacted() => {
                    self.stream = None;
                    self.over = true;
                    return Some(Err(ClientError::Compacted));
                }
                // A server may repeat the change that we resume from; it was handed out already.
                Ok(Some(message)) if self.position != 0 && message.get_position() <= self.position => {
                    self.over = is_over(message.get_job().get_phase());
                }
                Ok(Some(message)) => {
                    self.position = message.get_position();
                    self.over = is_over(message.get_job().get_phase());
                    return Some(Ok(message));
                }
                // The end of the stream without the end of the job: the server stops, or its time was up.
                Ok(None) => {
                    self.lost(&ClientError::unavailable("", "the watch was ended".to_owned()));
                    std::thread::sleep(backoff.next());
                }
                Err(error) if error.retryable() => {
                    self.lost(&error);
                    if started.elapsed() > self.client.config().timeout {
                        return Some(Err(error));
                    }
                    std::thread::sleep(backoff.next().min(Duration::from_millis(200)));
                }
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
