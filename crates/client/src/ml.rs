//! Models down, gradients up: single attempts. Whether there is another one is the caller's to decide, who knows whether its lease still
//! stands.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use protobuf::Message;
use raftgrid_proto::v1::{Ack, GradientChunk, InitModelChunk, ModelChunk, ModelRequest};
use raftgrid_rpc::chunk::{Sequence, NOT_ENDED};
use raftgrid_rpc::methods::{Rpc, GET_MODEL, INIT_MODEL, SEND_GRADIENTS};

use crate::call::Client;
use crate::error::ClientError;
use crate::limits::{
    ARTIFACT_BYTES_MAX, CHUNK_STALL, RESUME_BYTES_MIN, RESUME_BYTES_PER_MS, RESUME_PAUSE, RESUME_REACH,
};
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
    /// One attempt to send a gradient: `head` has everything but the data. A stream that breaks goes on where the replica has it still.
    pub fn send_gradients_once(
        &self,
        head: &GradientChunk,
        body: &mut dyn ReadSeek,
        timeout: Duration,
    ) -> Result<Ack, ClientError> {
        self.send_once(&SEND_GRADIENTS, head, head.get_total_bytes(), fill_gradient, body, timeout)
    }

    /// One attempt to send model 0: `head` has everything but the data. A stream that breaks goes on where the replica has it still.
    pub fn init_model_once(
        &self,
        head: &InitModelChunk,
        body: &mut dyn ReadSeek,
        timeout: Duration,
    ) -> Result<Ack, ClientError> {
        self.send_once(&INIT_MODEL, head, head.get_total_bytes(), fill_model, body, timeout)
    }

    fn send_once<Chunk: Message + Clone>(
        &self,
        rpc: &Rpc<Chunk, Ack>,
        head: &Chunk,
        total_bytes: u64,
        fill: fn(&mut Chunk, u64, u32, Vec<u8>),
        body: &mut dyn ReadSeek,
        timeout: Duration,
    ) -> Result<Ack, ClientError> {
        self.at_preferred(|endpoint| {
            let mut from = 0;
            loop {
                let sent = self.stream_up(endpoint, rpc, head.clone(), fill, body, from, timeout, &mut |_, _| {});
                let broken = match sent {
                    Err(error @ ClientError::Unavailable { .. }) if total_bytes >= RESUME_BYTES_MIN => error,
                    other => return other,
                };
                match self.reached(endpoint, rpc, head, total_bytes) {
                    // Each time a piece further: it comes to an end.
                    Some(reached) if reached > from => from = reached,
                    _ => return Err(broken),
                }
            }
        })
    }

    /// How much of an upload the replica has whose stream broke. None: it does not say.
    fn reached<Chunk: Message + Clone>(
        &self,
        endpoint: &str,
        rpc: &Rpc<Chunk, Ack>,
        head: &Chunk,
        total_bytes: u64,
    ) -> Option<u64> {
        let anew = Duration::from_millis(total_bytes / RESUME_BYTES_PER_MS).clamp(RESUME_REACH, CHUNK_STALL);
        let begun = Instant::now();
        let mut heard = begun;
        loop {
            match self.ask_up(endpoint, rpc, head.clone()) {
                Ok(ack) if !ack.reason.starts_with(NOT_ENDED) => return (!ack.success).then_some(ack.resume_offset),
                // It has not noticed yet.
                Ok(_) => heard = Instant::now(),
                // The connection is being made anew, or it is dead.
                Err(ClientError::Unavailable { .. }) => {}
                Err(_) => return None,
            }
            if begun.elapsed() >= anew || heard.elapsed() >= RESUME_REACH {
                return None;
            }
            std::thread::sleep(RESUME_PAUSE);
        }
    }

    /// One attempt to get a model from `request.offset` on: each chunk is verified, then given to `sink`, which may end it early, and which holds the
    /// whole against the digest of its head.
    pub fn get_model_once(
        &self,
        request: &ModelRequest,
        timeout: Duration,
        sink: &mut dyn FnMut(&ModelChunk) -> Result<ControlFlow<()>, ClientError>,
    ) -> Result<(), ClientError> {
        self.at_preferred(|endpoint| {
            let mut stream = self.stream_down(endpoint, &GET_MODEL, request, timeout)?;
            let mut sequence = Sequence::rest(request.get_offset(), ARTIFACT_BYTES_MAX);
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
