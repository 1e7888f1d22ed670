//! A trainer's gradients as they are sent: the frame, its chunks, and what the call came to.

use std::time::Duration;

use futures::executor::block_on;
use futures::SinkExt;
use raftgrid_proto::v1::*;
use raftgrid_rpc::grpcio::{CallOption, Client as Stub, Error, WriteFlags};
use raftgrid_rpc::methods::SEND_GRADIENTS;
use sha2::{Digest, Sha256};

use super::numbers::Rng;
use super::trainer::Trainer;

const CALL: Duration = Duration::from_secs(20);

/// A tensor of a frame.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

/// The model's layout: two of f32, one of f64.
pub fn tensors(rng: &mut Rng) -> Vec<Tensor> {
    let mut small = || (rng.next() % 2_000) as f64 / 1_000.0 - 1.0;
    let mut f32s = |count: usize| (0..count).flat_map(|_| (small() as f32).to_le_bytes()).collect();
    let (w, b) = (f32s(12), f32s(3));
    let s = (0..2).flat_map(|_| small().to_le_bytes()).collect();
    let tensor =
        |name: &str, dtype, shape: &[usize], data| Tensor { name: name.to_owned(), dtype, shape: shape.to_vec(), data };
    vec![tensor("b", "F32", &[3], b), tensor("s", "F64", &[2], s), tensor("w", "F32", &[4, 3], w)]
}

/// A safetensors file.
pub fn frame(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    // The widest elements first, as the format's own package writes them: offsets stay aligned.
    let mut order: Vec<&Tensor> = tensors.iter().collect();
    order.sort_by_key(|tensor| (tensor.dtype != "F64", tensor.name.clone()));
    for tensor in order {
        let begin = data.len();
        data.extend_from_slice(&tensor.data);
        let entry =
            serde_json::json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, data.len()]});
        header.insert(tensor.name.clone(), entry);
    }
    let mut text = serde_json::to_vec(&header).expect("JSON");
    text.resize(text.len().div_ceil(8) * 8, b' ');
    [(text.len() as u64).to_le_bytes().to_vec(), text, data].concat()
}

/// What is sent, before it is cut into chunks.
#[derive(Clone)]
pub struct Case {
    pub bytes: Vec<u8>,
    pub head: GradientChunk,
    /// (offset, length) of each chunk.
    pub cuts: Vec<(usize, usize)>,
    /// The chunk whose checksum is wrong.
    pub wrong_checksum: Option<usize>,
}

impl Case {
    pub fn of(bytes: Vec<u8>, trainer: &Trainer, shard: u32) -> Self {
        let mut head = GradientChunk::new();
        head.set_job_id(trainer.job.clone());
        head.set_worker_id(trainer.node.clone());
        head.set_task_id(trainer.task.clone());
        head.set_lease_epoch(trainer.epoch);
        head.set_shard(shard);
        head.set_weight(1.0);
        head.set_total_bytes(bytes.len() as u64);
        head.set_digest(Sha256::digest(&bytes).to_vec());
        let cuts = vec![(0, bytes.len())];
        Self { bytes, head, cuts, wrong_checksum: None }
    }

    /// Cut into three to six chunks.
    pub fn in_pieces(mut self, rng: &mut Rng) -> Self {
        let pieces = 3 + rng.index(4);
        let at = |piece: usize| piece * self.bytes.len() / pieces;
        self.cuts = (0..pieces).map(|piece| (at(piece), at(piece + 1) - at(piece))).collect();
        self
    }

    pub fn chunks(&self) -> Vec<GradientChunk> {
        let chunk = |(number, (offset, length)): (usize, &(usize, usize))| {
            let mut chunk = if number == 0 { self.head.clone() } else { GradientChunk::new() };
            let data = &self.bytes[*offset..offset + length];
            let flip = u32::from(self.wrong_checksum == Some(number));
            chunk.set_offset(*offset as u64);
            chunk.set_crc32c(crc32c::crc32c(data) ^ flip);
            chunk.set_data(data.to_vec());
            chunk
        };
        self.cuts.iter().enumerate().map(chunk).collect()
    }
}

/// What it came to: the words of the refusal, or the acknowledgement.
pub fn send(stub: &Stub, chunks: Vec<GradientChunk>) -> Result<Ack, String> {
    let option = CallOption::default().timeout(CALL);
    let (mut sink, answer) = stub.client_streaming(&SEND_GRADIENTS.method, option).expect("a call can be made");
    for chunk in chunks {
        // One that was refused midway is not read to its end.
        if block_on(sink.send((chunk, WriteFlags::default()))).is_err() {
            break;
        }
    }
    let _refused_midway = block_on(sink.close());
    match block_on(answer) {
        Ok(ack) if ack.success => Ok(ack),
        Ok(ack) => Err(format!("{:?} {}", ack.outcome, ack.reason)),
        Err(Error::RpcFailure(status)) => Err(format!("{} {}", status.code(), status.message())),
        Err(other) => panic!("no answer: {other}"),
    }
}
