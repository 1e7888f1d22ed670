//! What a task printed.

use futures::executor::block_on;
use futures::TryStreamExt;
use raftgrid_proto::v1::{LogChunk, StreamLogsRequest};
use raftgrid_rpc::grpcio::CallOption;
use raftgrid_rpc::methods::STREAM_LOGS;

use crate::call::Client;
use crate::error::ClientError;

impl Client {
    /// Hands the log of a task to `sink`, from byte `offset` on; until the task is over if `follow`. Goes on at the same byte on another
    /// endpoint when the connection breaks. A chunk that starts later than the last one ended: bytes in between are no longer kept.
    pub fn stream_logs(
        &self,
        task_id: &str,
        offset: u64,
        follow: bool,
        sink: &mut dyn FnMut(&LogChunk),
    ) -> Result<(), ClientError> {
        let mut next = offset;
        // What may be waited for is the task when it is followed, an answer when it is not.
        let timeout = if follow { self.config().stream_timeout } else { self.config().timeout };
        self.attempts(timeout, |endpoint, left| {
            let mut request = StreamLogsRequest::new();
            request.set_task_id(task_id.to_owned());
            request.set_offset(next);
            request.set_follow(follow);
            let mut stream = self
                .stub(endpoint)
                .server_streaming(&STREAM_LOGS.method, &request, CallOption::default().timeout(left))
                .map_err(|error| ClientError::of(endpoint, error))?;
            while let Some(chunk) = block_on(stream.try_next()).map_err(|error| ClientError::of(endpoint, error))? {
                next = chunk.get_offset() + chunk.get_data().len() as u64;
                sink(&chunk);
            }
            Ok(())
        })
    }
}
