//! The loopback service: who asks is known by a token, and what is asked goes to the worker's table, its model cache or the control
//! plane. Handlers only take the call in; what may wait runs on a thread of its own.

use std::path::Path;
use std::sync::Arc;

use futures::executor::block_on;
use futures::{FutureExt, SinkExt, TryFutureExt};
use grpcio::{
    ClientStreamingSink, Environment, MetadataBuilder, RequestStream, RpcContext, RpcStatus, RpcStatusCode, Server,
    ServerStreamingSink, UnarySink, WriteFlags,
};
use raftgrid_crashpoint::{reach, Point};
use raftgrid_proto::v1::*;
use raftgrid_rpc::chunk::room;
use raftgrid_rpc::methods::*;
use raftgrid_rpc::serve::{listen, Handlers, ListenError};
use raftgrid_rpc::status::{invalid, status};
use raftgrid_worker::models::{CachedModel, Models};
use raftgrid_worker::{ControlPlane, TaskContext, TaskTable};
use slog::{warn, Logger};

use crate::acks::Acks;
use crate::calls::Calls;
use crate::forward::{persistently, stale, Caller};
use crate::limits::{PLACE_BYTES_MAX, RESULT_BYTES_MAX, SHARD_WAIT_MS_MAX, TOKEN_BYTES_MAX};
use crate::spool::Spools;
use crate::upload::{receive, take, UpChunk};

/// The metadata key of a task's token.
const TOKEN_KEY: &str = "raftgrid-token";
/// The metadata key of a sealed file that stands for the bytes of a stream (`raftgrid_worker::sealed`). In a request for a model: the process can
/// open one, and the answer's head may name it. With a gradient: here it is.
const FILE_KEY: &str = "raftgrid-file";

/// What the service works with.
#[derive(Clone)]
pub struct Parts {
    /// Where gradients go and models come from.
    pub plane: Arc<dyn ControlPlane>,
    /// Who may ask.
    pub table: Arc<TaskTable>,
    /// Models of this machine.
    pub models: Arc<Models>,
    /// Where it says what went wrong.
    pub logger: Logger,
}

#[derive(Clone)]
struct Agent {
    parts: Parts,
    acks: Arc<Acks>,
    spools: Spools,
    calls: Calls,
}

/// The running service; dropping it ends all calls.
pub struct AgentServer {
    _server: Server,
    port: u16,
}

impl AgentServer {
    /// Listens on a free loopback port. Spools and acks.jsonl are made in `folder`.
    pub fn start(env: &Arc<Environment>, folder: &Path, parts: Parts) -> Result<Self, ListenError> {
        let failed =
            |cause: std::io::Error| ListenError { address: folder.display().to_string(), cause: cause.to_string() };
        let agent = Agent {
            parts,
            acks: Arc::new(Acks::open(&folder.join("acks.jsonl")).map_err(failed)?),
            spools: Spools::new(folder.join("spool")).map_err(failed)?,
            calls: Calls::default(),
        };
        let (server, port) = listen(env, "127.0.0.1:0", vec![agent.service()])?;
        Ok(Self { _server: server, port })
    }

    /// What tasks are told as RAFTGRID_AGENT.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Agent {
    fn service(&self) -> grpcio::Service {
        let agent = || self.clone();
        let (hello, result, stop, shards) = (agent(), agent(), agent(), agent());
        let (model, gradients, init) = (agent(), agent(), agent());
        Handlers::new()
            .unary(&HELLO, move |ctx, request, sink| hello.quick(ctx, request, sink, said_hello))
            .unary(&SET_RESULT, move |ctx, request, sink| result.quick(ctx, request, sink, set_result))
            .unary(&SHOULD_STOP, move |ctx, request, sink| stop.quick(ctx, request, sink, should_stop))
            .unary(&NEXT_SHARDS, move |ctx, request, sink| shards.next_shards(ctx, request, sink))
            .server_streaming(&GET_MODEL, move |ctx, request, sink| model.get_model(ctx, request, sink))
            .client_streaming(&SEND_GRADIENTS, move |ctx, stream, sink| {
                gradients.send_up(ctx, stream, sink, note_gradient)
            })
            .client_streaming(&INIT_MODEL, move |ctx, stream, sink| init.send_up(ctx, stream, sink, |_, _, _| Ok(())))
            .build()
    }

    /// Whose token came with the call.
    fn caller(&self, ctx: &RpcContext<'_>) -> Result<Caller, RpcStatus> {
        let refused = |why: &str| status(RpcStatusCode::UNAUTHENTICATED, format!("{TOKEN_KEY}: {why}"));
        let token = ctx.request_headers().iter().find(|(key, _)| *key == TOKEN_KEY).map(|(_, value)| value);
        let token = token.ok_or_else(|| refused("it is missing; a task finds it in RAFTGRID_TOKEN"))?;
        let known = match std::str::from_utf8(token) {
            Ok(token) if token.len() <= TOKEN_BYTES_MAX => self.parts.table.by_token(token),
            _ => None,
        };
        let task = known.ok_or_else(|| refused("it is not that of a task that runs here"))?;
        Ok(Caller { task, deadline: ctx.deadline() })
    }

    /// Like `caller`, and its lease stands.
    fn live_caller(&self, ctx: &RpcContext<'_>) -> Result<Caller, RpcStatus> {
        let caller = self.caller(ctx)?;
        if caller.task.is_fenced() {
            return Err(stale(&caller.task, "this attempt lost its lease"));
        }
        Ok(caller)
    }

    /// What came under the key of sealed files.
    fn file_of(ctx: &RpcContext<'_>) -> Option<String> {
        let value = ctx.request_headers().iter().find(|(key, _)| *key == FILE_KEY).map(|(_, value)| value)?;
        std::str::from_utf8(value).ok().filter(|text| text.len() <= PLACE_BYTES_MAX).map(str::to_owned)
    }

    /// Answers from memory, on the completion thread.
    fn quick<Req, Resp>(
        &self,
        ctx: RpcContext<'_>,
        request: Req,
        sink: UnarySink<Resp>,
        answer: fn(&TaskContext, Req) -> Result<Resp, RpcStatus>,
    ) {
        let answer = self.live_caller(&ctx).and_then(|caller| answer(&caller.task, request));
        let sent = match answer {
            Ok(response) => sink.success(response),
            Err(status) => sink.fail(status),
        };
        // A caller that is gone needs no answer.
        ctx.spawn(sent.unwrap_or_else(|_| ()).map(|()| ()));
    }

    fn next_shards(&self, ctx: RpcContext<'_>, mut request: NextShardsRequest, sink: UnarySink<NextShardsResponse>) {
        let (agent, caller) = (self.clone(), self.live_caller(&ctx));
        self.calls.spawn(move || {
            let answer = caller.and_then(|caller| {
                request.set_job_id(caller.task.job_id.clone());
                request.set_task_id(caller.task.task_id.clone());
                request.set_lease_epoch(caller.task.epoch);
                request.set_wait_ms(request.get_wait_ms().min(SHARD_WAIT_MS_MAX));
                let response = persistently(&caller, &agent.parts.table, || agent.parts.plane.next_shards(&request))?;
                for step in response.get_steps() {
                    caller.task.remember_model(step.get_model_version(), step.get_model_digest());
                }
                if !response.get_steps().is_empty() {
                    reach(Point::ShardsTaken);
                }
                Ok(response)
            });
            let sent = match answer {
                Ok(response) => sink.success(response),
                Err(status) => sink.fail(status),
            };
            // A caller that is gone needs no answer.
            let _ = block_on(sent);
        });
    }

    fn get_model(&self, ctx: RpcContext<'_>, request: ModelRequest, sink: ServerStreamingSink<ModelChunk>) {
        let (agent, caller, opens_files) = (self.clone(), self.live_caller(&ctx), Self::file_of(&ctx).is_some());
        self.calls.spawn(move || {
            let version = request.get_version_given().then_some(request.get_version());
            let model = caller.and_then(|caller| {
                let parts = &agent.parts;
                persistently(&caller, &parts.table, || parts.models.get(&caller.task, version, parts.plane.as_ref()))
            });
            // A caller that is gone needs no answer.
            let _ = match model {
                Ok(model) => match model.place().filter(|_| opens_files) {
                    Some(place) => name_model(&model, &place, sink),
                    None => send_model(&model, request.get_offset(), sink),
                },
                Err(status) => block_on(sink.fail(status)),
            };
        });
    }

    fn send_up<Chunk: UpChunk>(
        &self,
        ctx: RpcContext<'_>,
        mut stream: RequestStream<Chunk>,
        sink: ClientStreamingSink<Ack>,
        note: fn(&Acks, &Chunk, &Ack) -> std::io::Result<()>,
    ) {
        let (agent, caller, file) = (self.clone(), self.live_caller(&ctx), Self::file_of(&ctx));
        self.calls.spawn(move || {
            let answer = caller.and_then(|caller| {
                let mut received = match file {
                    Some(place) => take(&mut stream, &caller.task, &place)?,
                    None => receive(&mut stream, &caller.task, &agent.spools)?,
                };
                let (parts, head) = (&agent.parts, &received.head);
                let ack = persistently(&caller, &parts.table, || head.send(parts.plane.as_ref(), &mut received.body))?;
                note(&agent.acks, head, &ack).map_err(|error| {
                    warn!(parts.logger, "acknowledgement was not noted"; "error" => %error);
                    status(RpcStatusCode::UNAVAILABLE, format!("failed to note the acknowledgement: {error}"))
                })?;
                Ok(ack)
            });
            let sent = match answer {
                Ok(ack) => sink.success(ack),
                Err(status) => sink.fail(status),
            };
            // A caller that is gone needs no answer; it sends again, and the ledger knows the digest.
            let _ = block_on(sent);
        });
    }
}

fn note_gradient(acks: &Acks, head: &GradientChunk, ack: &Ack) -> std::io::Result<()> {
    reach(Point::GradientAcked);
    acks.note(head, ack)?;
    reach(Point::GradientNoted);
    Ok(())
}

fn said_hello(task: &TaskContext, _: HelloRequest) -> Result<HelloResponse, RpcStatus> {
    let mut response = HelloResponse::new();
    response.set_job_id(task.job_id.clone());
    response.set_task_id(task.task_id.clone());
    response.set_attempt(task.attempt);
    response.set_num_shards(task.num_shards);
    response.set_rounds(task.rounds);
    response.set_seed(task.seed);
    response.set_config_json(task.config_json.clone());
    response.set_init_task(task.init_task);
    response.set_node_id(task.node_id.clone());
    response.set_opens_files(true);
    Ok(response)
}

fn set_result(task: &TaskContext, mut request: SetResultRequest) -> Result<SetResultResponse, RpcStatus> {
    let json = request.take_result_json();
    if json.len() > RESULT_BYTES_MAX {
        return Err(invalid(
            "result_json",
            format!("{} bytes, {RESULT_BYTES_MAX} is the limit; use an artifact", json.len()),
        ));
    }
    if let Err(error) = serde_json::from_str::<serde_json::Value>(&json) {
        return Err(invalid("result_json", format!("it is not JSON: {error}")));
    }
    task.set_result(json);
    Ok(SetResultResponse::new())
}

fn should_stop(task: &TaskContext, _: ShouldStopRequest) -> Result<ShouldStopResponse, RpcStatus> {
    let mut response = ShouldStopResponse::new();
    if let Some(reason) = task.stop_reason() {
        response.set_stop(true);
        response.set_reason(reason);
    }
    Ok(response)
}

/// Names the sealed file of a model in the answer's metadata; the only chunk has version, size and digest.
fn name_model(model: &CachedModel, place: &str, mut sink: ServerStreamingSink<ModelChunk>) -> grpcio::Result<()> {
    let mut names = MetadataBuilder::with_capacity(1);
    names.add_str(FILE_KEY, place)?;
    sink.set_headers(names.build());
    block_on(sink.send((head_of(model), WriteFlags::default())))?;
    block_on(sink.close())
}

fn head_of(model: &CachedModel) -> ModelChunk {
    let mut chunk = ModelChunk::new();
    chunk.set_version(model.version);
    chunk.set_total_bytes(model.total_bytes);
    chunk.set_digest(model.digest.clone());
    chunk
}

/// Streams a model from byte `offset` on; version, size and digest stand in the first chunk. An offset at or behind the end gives one
/// empty chunk.
fn send_model(model: &CachedModel, offset: u64, mut sink: ServerStreamingSink<ModelChunk>) -> grpcio::Result<()> {
    let mut offset = offset.min(model.total_bytes);
    let mut number = 0;
    loop {
        let left = usize::try_from(model.total_bytes - offset).unwrap_or(usize::MAX);
        let mut data = room(left);
        match model.read_at(offset, &mut data) {
            Ok(count) if count == data.len() => {}
            Ok(_) => return block_on(sink.fail(status(RpcStatusCode::UNAVAILABLE, "the cached model is cut short"))),
            Err(error) => return block_on(sink.fail(status(RpcStatusCode::UNAVAILABLE, error.to_string()))),
        }
        let length = data.len() as u64;
        let mut chunk = if number == 0 { head_of(model) } else { ModelChunk::new() };
        chunk.set_chunk_id(number);
        chunk.set_offset(offset);
        chunk.set_crc32c(crc32c::crc32c(&data));
        chunk.set_data(data);
        block_on(sink.send((chunk, WriteFlags::default())))?;
        offset += length;
        number = number.saturating_add(1);
        if offset >= model.total_bytes {
            return block_on(sink.close());
        }
    }
}
