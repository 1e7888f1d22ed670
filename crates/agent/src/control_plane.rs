//! The worker's control plane over gRPC: three clients, each with connections of its own, so that neither bulk nor long polls delay a
//! heartbeat.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use grpcio::Environment;
use raftgrid_client::{Client, ClientConfig, ClientError, Upload};
use raftgrid_proto::v1::*;
use raftgrid_rpc::methods::*;
use raftgrid_worker::limits::LOG_UPLOAD_MS;
use raftgrid_worker::plane::ModelSink;
use raftgrid_worker::{ControlPlane, Fetch, PlaneError, ReadSeek};

use crate::limits::{ATTEMPT_EXTRA, STREAM_ATTEMPT, STREAM_BYTES_PER_S_MIN};

/// The control plane behind its endpoints.
pub struct GrpcControlPlane {
    beats: Client,
    calls: Client,
    bulk: Client,
    /// Its transfers have little time: logs.
    logs: Client,
}

impl GrpcControlPlane {
    /// Connects to nobody yet.
    pub fn new(endpoints: &[String], env: &Arc<Environment>) -> Result<Self, ClientError> {
        let client = || Client::with_environment(ClientConfig::new(endpoints.iter().cloned()), env.clone());
        let mut brief = ClientConfig::new(endpoints.iter().cloned());
        brief.transfer_timeout = Duration::from_millis(LOG_UPLOAD_MS);
        let logs = Client::with_environment(brief, env.clone())?;
        Ok(Self { beats: client()?, calls: client()?, bulk: client()?, logs })
    }

    fn learn(&self, response: &HeartbeatResponse) {
        let leader = response.get_leader_address();
        for client in [&self.beats, &self.calls, &self.bulk, &self.logs] {
            client.learn(response.get_endpoints());
            // Bytes are served by any replica, but those of the leader's round are on its disk for sure.
            client.prefer_known(leader);
        }
    }
}

fn plane_error(error: ClientError) -> PlaneError {
    let text = error.to_string();
    match error {
        ClientError::Unavailable { cause, .. } => PlaneError::Unavailable(cause),
        ClientError::Deadline(_) | ClientError::Exhausted(_) | ClientError::Bytes(_) => PlaneError::Unavailable(text),
        ClientError::StaleLease(message) => PlaneError::StaleLease(message),
        ClientError::Precondition(message) | ClientError::AlreadyExists(message) => PlaneError::Precondition(message),
        ClientError::NotFound(message) => PlaneError::NotFound(message),
        ClientError::Invalid(message) => PlaneError::Invalid(message),
        ClientError::Unimplemented(message) => PlaneError::Unimplemented(message),
        ClientError::Endpoints(_)
        | ClientError::Denied(_)
        | ClientError::Internal(_)
        | ClientError::Refused(_)
        | ClientError::Io(_)
        | ClientError::Compacted => PlaneError::Internal(text),
    }
}

fn client_error(error: PlaneError) -> ClientError {
    ClientError::Internal(error.to_string())
}

fn stream_timeout(total_bytes: u64) -> Duration {
    STREAM_ATTEMPT + Duration::from_secs(total_bytes / STREAM_BYTES_PER_S_MIN)
}

impl ControlPlane for GrpcControlPlane {
    fn heartbeat(&self, request: &HeartbeatRequest, timeout: Duration) -> Result<HeartbeatResponse, PlaneError> {
        let response = self.beats.call_once(&HEARTBEAT, request, timeout).map_err(plane_error)?;
        self.learn(&response);
        Ok(response)
    }

    fn poll(&self, request: &PollTaskRequest) -> Result<PollTaskResponse, PlaneError> {
        let timeout = Duration::from_millis(u64::from(request.get_wait_ms())) + ATTEMPT_EXTRA;
        self.calls.call_once(&POLL_TASK, request, timeout).map_err(plane_error)
    }

    fn start_task(&self, request: &StartTaskRequest, timeout: Duration) -> Result<StartTaskResponse, PlaneError> {
        self.calls.call_once(&START_TASK, request, timeout).map_err(plane_error)
    }

    fn report(
        &self,
        request: &ReportTaskResultRequest,
        timeout: Duration,
    ) -> Result<ReportTaskResultResponse, PlaneError> {
        self.calls.call_once(&REPORT_TASK_RESULT, request, timeout).map_err(plane_error)
    }

    fn append_log(&self, request: &AppendLogRequest) -> Result<AppendLogResponse, PlaneError> {
        self.calls.call_once(&APPEND_LOG, request, ATTEMPT_EXTRA).map_err(plane_error)
    }

    fn deregister(&self, request: &DeregisterRequest, timeout: Duration) -> Result<(), PlaneError> {
        self.calls.call(&DEREGISTER, request, timeout).map(|_| ()).map_err(plane_error)
    }

    fn put_log(&self, bytes: Vec<u8>) -> Result<String, PlaneError> {
        let upload = Upload { name: String::new(), kind: "log".to_owned(), ..Upload::default() };
        let mut source = std::io::Cursor::new(bytes);
        let stored = self.logs.put_artifact(&upload, &mut source, &mut |_, _| {}).map_err(plane_error)?;
        Ok(stored.get_artifact_id().to_owned())
    }

    fn job(&self, job_id: &str) -> Result<Job, PlaneError> {
        let mut response = self.calls.get_job(job_id).map_err(plane_error)?;
        Ok(response.take_job())
    }

    fn next_shards(&self, request: &NextShardsRequest) -> Result<NextShardsResponse, PlaneError> {
        let timeout = Duration::from_millis(u64::from(request.get_wait_ms())) + ATTEMPT_EXTRA;
        self.calls.call_once(&NEXT_SHARDS, request, timeout).map_err(plane_error)
    }

    fn fetch_model(&self, request: &ModelRequest, sink: ModelSink<'_>) -> Result<(), PlaneError> {
        // The sink's own error must come back as it is, not as what the client makes of it.
        let mut refused = None;
        let result =
            self.bulk.get_model_once(request, self.bulk.config().stream_timeout, &mut |chunk| match sink(chunk) {
                Ok(Fetch::Continue) => Ok(ControlFlow::Continue(())),
                Ok(Fetch::Enough) => Ok(ControlFlow::Break(())),
                Err(error) => {
                    refused = Some(error.clone());
                    Err(client_error(error))
                }
            });
        match refused {
            Some(error) => Err(error),
            None => result.map_err(plane_error),
        }
    }

    fn send_gradients(&self, head: &GradientChunk, body: &mut dyn ReadSeek) -> Result<Ack, PlaneError> {
        let timeout = stream_timeout(head.get_total_bytes());
        self.bulk.send_gradients_once(head, &mut Body(body), timeout).map_err(plane_error)
    }

    fn init_model(&self, head: &InitModelChunk, body: &mut dyn ReadSeek) -> Result<Ack, PlaneError> {
        let timeout = stream_timeout(head.get_total_bytes());
        self.bulk.init_model_once(head, &mut Body(body), timeout).map_err(plane_error)
    }

    fn get_artifact(&self, artifact: &str, target: &mut dyn Write) -> Result<Vec<u8>, PlaneError> {
        let head = self.bulk.get_artifact(artifact, target, &mut |_, _| {}).map_err(plane_error)?;
        Ok(head.digest)
    }

    fn put_artifact(&self, name: &str, body: &mut dyn ReadSeek) -> Result<String, PlaneError> {
        let upload = Upload { name: name.to_owned(), kind: "file".to_owned(), ..Upload::default() };
        let mut response = self.bulk.put_artifact(&upload, &mut Body(body), &mut |_, _| {}).map_err(plane_error)?;
        Ok(response.take_artifact_id())
    }
}

/// The worker's body as the client's.
struct Body<'a>(&'a mut dyn ReadSeek);

impl std::io::Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl std::io::Seek for Body<'_> {
    fn seek(&mut self, position: std::io::SeekFrom) -> std::io::Result<u64> {
        self.0.seek(position)
    }
}
