//! MLWorkerService: models down, gradients up, shards to compute.

use std::sync::Arc;

use protobuf::Message;
use raftgrid_proto::v1::*;
use raftgrid_replica::ports::{CallError, GradientMeta, InitModelMeta, ModelQuery, Purpose, Uploaded};
use raftgrid_rpc::chunk::NOT_ENDED;
use raftgrid_rpc::methods;

use crate::calls::{ask, Incoming, Outgoing, Surface};
use crate::context::{Context, Core};
use crate::failure::{invalid, Answer, Failure};
use crate::parked::Place;
use crate::streams::{receive, send, Begin, Piece, Taken};
use crate::{limits, validate};

pub(crate) fn register(surface: Surface) -> Surface {
    surface
        .server_streaming(&methods::GET_MODEL, get_model)
        .client_streaming(&methods::SEND_GRADIENTS, send_gradients)
        .client_streaming(&methods::INIT_MODEL, init_model)
        .unary_shortened(
            &methods::NEXT_SHARDS,
            |request| request.wait_ms = request.wait_ms.min(limits::FORWARDED_POLL_WAIT_MS_MAX),
            next_shards,
        )
}

/// What the request says, or else what the metadata says.
fn or_metadata(field: String, metadata: &str) -> String {
    if field.is_empty() {
        metadata.to_owned()
    } else {
        field
    }
}

async fn get_model(
    core: Arc<Core>,
    context: Context,
    mut request: ModelRequest,
    mut sink: Outgoing<ModelChunk>,
) -> (Outgoing<ModelChunk>, Answer<()>) {
    let offset = request.get_offset();
    let query = ModelQuery {
        job_id: request.take_job_id(),
        task_id: or_metadata(request.take_task_id(), &context.task_id),
        node_id: context.node_id,
        lease_epoch: request.get_lease_epoch(),
        version: request.get_version_given().then_some(request.get_version()),
    };
    let bytes = core.ports.bytes.clone();
    let mut number = 0;
    let answer = send(
        &core,
        &mut sink,
        offset,
        move || bytes.open_model(&query),
        |piece| {
            let mut chunk = ModelChunk::new();
            chunk.set_chunk_id(number);
            number = number.saturating_add(1);
            chunk.set_offset(piece.offset);
            chunk.set_crc32c(piece.crc32c);
            if let Some(head) = piece.head {
                chunk.set_version(head.version);
                chunk.set_total_bytes(head.total_bytes);
                chunk.set_digest(head.digest.to_vec());
            }
            chunk.set_data(piece.data);
            chunk
        },
    )
    .await;
    (sink, answer)
}

impl Piece for GradientChunk {
    fn begin(&mut self, context: &Context) -> Answer<Begin> {
        validate::optional_name("job_id", self.get_job_id())?;
        validate::optional_name("worker_id", self.get_worker_id())?;
        validate::optional_name("task_id", self.get_task_id())?;
        validate::json("metrics_json", self.get_metrics_json(), limits::METRICS_BYTES_MAX)?;
        validate::size("numeric_class", self.get_numeric_class().len(), limits::NUMERIC_CLASS_BYTES_MAX)?;
        let weight = self.get_weight();
        if !weight.is_finite() || weight < 0.0 {
            return Err(invalid("weight", "must be a finite number and not negative"));
        }
        // Clients that exist send neither lease nor offset nor checksum.
        let checked = self.get_lease_epoch() != 0 || self.get_crc32c() != 0;
        let meta = GradientMeta {
            job_id: self.take_job_id(),
            worker_id: or_metadata(self.take_worker_id(), &context.node_id),
            round: self.get_round(),
            shard: self.get_shard(),
            task_id: or_metadata(self.take_task_id(), &context.task_id),
            lease_epoch: self.get_lease_epoch(),
            weight: if weight == 0.0 { 1.0 } else { weight },
            metrics_json: self.take_metrics_json(),
            state_artifact: self.take_state_artifact(),
            numeric_class: self.take_numeric_class(),
            model_version: self.get_model_version_given().then_some(self.get_model_version()),
        };
        Ok(Begin {
            purpose: Purpose::Gradient(meta),
            total_bytes: (self.get_total_bytes() > 0).then_some(self.get_total_bytes()),
            digest: self.take_digest(),
            checked,
        })
    }
    fn whole(&self) -> Option<Vec<u8>> {
        let mut whole = self.clone();
        whole.clear_data();
        whole.set_offset(0);
        whole.set_crc32c(0);
        whole.write_to_bytes().ok()
    }
    fn offset(&self) -> u64 {
        self.get_offset()
    }
    fn checksum(&self) -> u32 {
        self.get_crc32c()
    }
    fn take(&mut self) -> Vec<u8> {
        self.take_data()
    }
}

impl Piece for InitModelChunk {
    fn begin(&mut self, context: &Context) -> Answer<Begin> {
        validate::optional_name("job_id", self.get_job_id())?;
        validate::optional_name("task_id", self.get_task_id())?;
        validate::size("numeric_class", self.get_numeric_class().len(), limits::NUMERIC_CLASS_BYTES_MAX)?;
        let meta = InitModelMeta {
            job_id: self.take_job_id(),
            task_id: or_metadata(self.take_task_id(), &context.task_id),
            lease_epoch: self.get_lease_epoch(),
            optimizer: self.take_optimizer(),
            combine: self.combine.take(),
            numeric_class: self.take_numeric_class(),
        };
        Ok(Begin {
            purpose: Purpose::InitModel(meta),
            total_bytes: (self.get_total_bytes() > 0).then_some(self.get_total_bytes()),
            digest: self.take_digest(),
            checked: true,
        })
    }
    fn whole(&self) -> Option<Vec<u8>> {
        let mut whole = self.clone();
        whole.clear_data();
        whole.set_offset(0);
        whole.set_crc32c(0);
        whole.write_to_bytes().ok()
    }
    fn offset(&self) -> u64 {
        self.get_offset()
    }
    fn checksum(&self) -> u32 {
        self.get_crc32c()
    }
    fn take(&mut self) -> Vec<u8> {
        self.take_data()
    }
}

fn acknowledged(taken: Taken) -> Answer<Ack> {
    match taken {
        Taken::Whole(Uploaded::Ack(ack)) => Ok(ack),
        Taken::Asked(place) => {
            let mut ack = Ack::new();
            ack.set_outcome(AckOutcome::ACK_STALE);
            match place {
                Place::Waits(here) => {
                    ack.set_reason(format!("INCOMPLETE: {here} bytes are here"));
                    ack.set_resume_offset(here);
                }
                Place::Nowhere => ack.set_reason("INCOMPLETE: nothing is here".to_owned()),
                // Its sender knows that it is broken; here it is about to be noticed.
                Place::Comes => ack.set_reason(format!("{NOT_ENDED}: the stream before has not ended here yet")),
            }
            Ok(ack)
        }
        Taken::Whole(Uploaded::Artifact { .. } | Uploaded::Value { .. }) => {
            Err(Failure::from(CallError::Internal("the replica filed a gradient as an artifact".to_owned())))
        }
    }
}

async fn send_gradients(
    core: Arc<Core>,
    context: Context,
    mut stream: Incoming<GradientChunk>,
) -> (Incoming<GradientChunk>, Answer<Ack>) {
    let answer = receive(&core, &context, &mut stream).await.and_then(acknowledged);
    (stream, answer)
}

async fn init_model(
    core: Arc<Core>,
    context: Context,
    mut stream: Incoming<InitModelChunk>,
) -> (Incoming<InitModelChunk>, Answer<Ack>) {
    let answer = receive(&core, &context, &mut stream).await.and_then(acknowledged);
    (stream, answer)
}

async fn next_shards(core: Arc<Core>, context: Context, mut request: NextShardsRequest) -> Answer<NextShardsResponse> {
    let task_id = or_metadata(request.take_task_id(), &context.task_id);
    validate::name("task_id", &task_id)?;
    request.set_task_id(task_id);
    request.wait_ms = request.wait_ms.min(limits::POLL_WAIT_MS_MAX);
    ask(|done| core.ports.leader.next_shards(request, done)).await
}
