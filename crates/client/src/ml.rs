//! Models down, gradients up: single attempts. Whether there is another one is the caller's to decide, who knows whether its lease still
//! stands.

use std::ops::ControlFlow;
use std::time::Duration;

use raftgrid_proto::v1::{Ack, GradientChunk, InitModelChunk, ModelChunk, ModelRequest};
use raftgrid_rpc::chunk::Sequence;
use raftgrid_rpc::methods::{GET_MODEL, INIT_MODEL, SEND_GRADIENTS};

use crate::call::Client;
use crate::error::ClientError;
use crate::limits::ARTIFACT_BYTES_MAX;
use crate::stream::ReadSeek;

fn fill_gradient(chunk: &mut GradientChunk, offset: u64, crc32c: u32, data: Vec<u8>) {
    chunk.set_offset(offset);
    chunk.set_crc32c(crc32c);
    chunk.set_data(data);
}

fn fill_model(chunk: &mut InitModelChunk, offset: u64, crc32c: u32, data: Vec<u8>) {
    chunk.set_offset(offset);
    chunk.set_crc32c(crc32c);
    chunk.set_data(data);
}

impl Client {
    /// One attempt to send a gradient: `head` has everything but the data.
    pub fn send_gradients_once(
        &self,
        head: &GradientChunk,
        body: &mut dyn ReadSeek,
        timeout: Duration,
    ) -> Result<Ack, ClientError> {
        self.at_preferred(|endpoint| {
            self.stream_up(endpoint, &SEND_GRADIENTS, head.clone(), fill_gradient, body, timeout, &mut |_, _| {})
        })
    }

    /// One attempt to send model 0: `head` has everything but the data.
    pub fn init_model_once(
        &self,
        head: &InitModelChunk,
        body: &mut dyn ReadSeek,
        timeout: Duration,
    ) -> Result<Ack, ClientError> {
        self.at_preferred(|endpoint| {
            self.stream_up(endpoint, &INIT_MODEL, head.clone(), fill_model, body, timeout, &mut |_, _| {})
        })
    }

    /// One attempt to get a model from its first byte: each chunk is verified, then given to `sink`, which may end it early, and which holds the
    /// whole against the digest of its head.
    pub fn get_model_once(
        &self,
        request: &ModelRequest,
        timeout: Duration,
        sink: &mut dyn FnMut(&ModelChunk) -> Result<ControlFlow<()>, ClientError>,
    ) -> Result<(), ClientError> {
        self.at_preferred(|endpoint| {
            let mut stream = self.stream_down(endpoint, &GET_MODEL, request, timeout)?;
            let mut sequence = Sequence::new(ARTIFACT_BYTES_MAX);
            while let Some(chunk) = stream.next()? {
                sequence.chunk(chunk.get_offset(), chunk.get_data(), Some(chunk.get_crc32c()))?;
                if sink(&chunk)?.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn at_preferred<T>(&self, attempt: impl FnOnce(&str) -> Result<T, ClientError>) -> Result<T, ClientError> {
        let endpoint = self.preferred();
        let result = attempt(&endpoint);
        if let Err(error) = &result {
            self.note(&endpoint, error);
        }
        result
    }
}
