//! Replicated keys.

use std::time::Duration;

use futures::executor::block_on;
use futures::TryStreamExt;
use raftgrid_proto::v1::*;
use raftgrid_rpc::grpcio::CallOption;
use raftgrid_rpc::methods::{KV_ADD, KV_COMPARE_AND_SET, KV_DELETE, KV_GET, KV_LIST, KV_WATCH};

use crate::call::{request_id, Client};
use crate::error::ClientError;
use crate::limits::PAGE_ROWS_MAX;
use crate::task::all_pages;

impl Client {
    /// Sets a key; gives its revision.
    pub fn kv_put(&self, key: &str, value: &[u8], job_id: &str) -> Result<u64, ClientError> {
        let mut request = AddRequest::new();
        request.set_key(key.to_owned());
        request.set_data(value.to_vec());
        request.set_job_id(job_id.to_owned());
        request.set_request_id(request_id());
        Ok(self.call(&KV_ADD, &request, self.config().timeout)?.get_revision())
    }

    /// The value of a key as of now, with its revision; None if it does not exist.
    pub fn kv_get(&self, key: &str) -> Result<Option<(Vec<u8>, u64)>, ClientError> {
        let mut request = GetRequest::new();
        request.set_key(key.to_owned());
        request.set_linearizable(true);
        let mut response = self.call(&KV_GET, &request, self.config().timeout)?;
        Ok(response.get_found().then(|| (response.take_data(), response.get_revision())))
    }

    /// Sets a key if its revision is `expected` (0: it must not exist).
    pub fn kv_compare_and_set(
        &self,
        key: &str,
        expected: u64,
        value: &[u8],
    ) -> Result<CompareAndSetResponse, ClientError> {
        let mut request = CompareAndSetRequest::new();
        request.set_key(key.to_owned());
        request.set_data(value.to_vec());
        request.set_expected(expected);
        request.set_request_id(request_id());
        self.call(&KV_COMPARE_AND_SET, &request, self.config().timeout)
    }

    /// Deletes a key; false: there was none.
    pub fn kv_delete(&self, key: &str) -> Result<bool, ClientError> {
        let mut request = DeleteRequest::new();
        request.set_key(key.to_owned());
        request.set_request_id(request_id());
        Ok(self.call(&KV_DELETE, &request, self.config().timeout)?.get_deleted())
    }

    /// All keys that begin with `prefix`, without their values.
    pub fn kv_list(&self, prefix: &str) -> Result<Vec<KeyValue>, ClientError> {
        all_pages(
            |token| {
                let mut request = ListRequest::new();
                request.set_prefix(prefix.to_owned());
                request.set_limit(PAGE_ROWS_MAX);
                request.set_page_token(token);
                self.call(&KV_LIST, &request, self.config().timeout)
            },
            |mut page| (page.take_keys().into_vec(), page.take_next_page_token()),
        )
    }

    /// Hands the newest value of a key to `sink`, and again after each change, until `sink` says false or `time` (None: for ever) is over.
    /// Goes on after the last revision on another endpoint when the connection breaks.
    pub fn kv_watch(
        &self,
        key: &str,
        time: Option<Duration>,
        sink: &mut dyn FnMut(&WatchResponse) -> bool,
    ) -> Result<(), ClientError> {
        let mut revision = 0;
        let timeout = time.unwrap_or(self.config().stream_timeout);
        self.attempts(timeout, |endpoint, left| {
            let mut request = WatchRequest::new();
            request.set_key(key.to_owned());
            request.set_from_revision(revision);
            // The server ends the stream in time: then nothing has failed.
            request.set_timeout_seconds(i64::try_from(left.as_secs().max(1)).unwrap_or(i64::MAX));
            let option = CallOption::default().timeout(left.saturating_add(Duration::from_secs(5)));
            let mut stream = self
                .stub(endpoint)
                .server_streaming(&KV_WATCH.method, &request, option)
                .map_err(|error| ClientError::of(endpoint, error))?;
            while let Some(change) = block_on(stream.try_next()).map_err(|error| ClientError::of(endpoint, error))? {
                revision = change.get_revision();
                if !sink(&change) {
                    stream.cancel();
                    return Ok(());
                }
            }
            Ok(())
        })
    }
}
