//! How a handler is registered and how it asks the replica: callbacks become futures, failures become statuses, NotLeader becomes one
//! forwarded call.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::{SinkExt as _, StreamExt as _};
use grpcio::{
    ClientStreamingSink, DuplexSink, RequestStream, RpcContext, RpcStatus, RpcStatusCode, ServerStreamingSink,
    UnarySink,
};
use protobuf::Message;
use raftgrid_manifest::watched::Watched;
use raftgrid_proto::v1::{Command, CommandReply, Command_oneof_kind, Consistency};
use raftgrid_replica::ports::{CallError, Callback, Freshness, ReadView};
use raftgrid_rpc::methods::Rpc;
use raftgrid_rpc::serve::Handlers;
use raftgrid_rpc::status::status;
use slog::debug;

use crate::context::{Context, Core};
use crate::failure::{invalid, taken, Answer, Failure};
use crate::forward;
use crate::limits;
use crate::pool::Gate;

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// A unary method by its encoded messages, as a follower forwards it.
pub(crate) type Dispatch = Arc<dyn Fn(Context, Vec<u8>) -> BoxFuture<Result<Vec<u8>, RpcStatus>> + Send + Sync>;

/// Services under construction: handlers for a port, and the table of what followers may forward.
pub(crate) struct Surface {
    pub(crate) core: Arc<Core>,
    pub(crate) handlers: Handlers,
    pub(crate) table: BTreeMap<&'static str, Dispatch>,
}

impl Surface {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, handlers: Handlers::new(), table: BTreeMap::new() }
    }

    /// One request, one answer; forwarded whole if only the leader can give it.
    pub(crate) fn unary<Req, Resp, H, F>(self, rpc: &'static Rpc<Req, Resp>, handler: H) -> Self
    where
        Req: Message + Clone,
        Resp: Message,
        H: Fn(Arc<Core>, Context, Req) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer<Resp>> + Send + 'static,
    {
        self.unary_shortened(rpc, |_| {}, handler)
    }

    /// As `unary`; `shorten` changes the request before it is forwarded.
    pub(crate) fn unary_shortened<Req, Resp, H, F>(
        mut self,
        rpc: &'static Rpc<Req, Resp>,
        shorten: fn(&mut Req),
        handler: H,
    ) -> Self
    where
        Req: Message + Clone,
        Resp: Message,
        H: Fn(Arc<Core>, Context, Req) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer<Resp>> + Send + 'static,
    {
        let path = rpc.method.name;
        let (core, local, metrics) = (self.core.clone(), handler.clone(), self.core.metrics.method(path));
        self.handlers = self.handlers.unary(rpc, move |ctx: RpcContext<'_>, request: Req, sink: UnarySink<Resp>| {
            let (core, local, context) = (core.clone(), local.clone(), Context::of(&core, &ctx));
            let (metrics, began) = (metrics.clone(), Instant::now());
            ctx.spawn(async move {
                let mut kept = request.clone();
                let answer = match local(core.clone(), context.clone(), request).await {
                    Err(Failure::NotLeader { leader }) => {
                        shorten(&mut kept);
                        forward::to_leader(&core, leader, path, &kept).await
                    }
                    other => other,
                };
                let sent = match answer {
                    Ok(message) => {
                        metrics.answered(began, RpcStatusCode::OK);
                        sink.success(message).await
                    }
                    Err(failure) => {
                        let status = shown(&core, failure);
                        metrics.answered(began, status.code());
                        sink.fail(status).await
                    }
                };
                if let Err(error) = sent {
                    debug!(core.logger, "answer not delivered"; "method" => path, "error" => %error);
                }
            });
        });
        let core = self.core.clone();
        let dispatch: Dispatch = Arc::new(move |context, request| {
            let (core, handler) = (core.clone(), handler.clone());
            Box::pin(async move {
                let request = Req::parse_from_bytes(&request)
                    .map_err(|error| status(RpcStatusCode::INVALID_ARGUMENT, format!("request: {error}")))?;
                let answer = handler(core.clone(), context, request).await.map_err(|failure| shown(&core, failure))?;
                answer.write_to_bytes().map_err(|error| status(RpcStatusCode::INTERNAL, error.to_string()))
            })
        });
        self.table.insert(path, dispatch);
        self
    }

    /// A stream of requests, one answer. Served here, whoever leads.
    pub(crate) fn client_streaming<Req, Resp, H, F>(mut self, rpc: &'static Rpc<Req, Resp>, handler: H) -> Self
    where
        Req: Message,
        Resp: Message,
        H: Fn(Arc<Core>, Context, Incoming<Req>) -> F + Clone + Send + 'static,
        F: Future<Output = (Incoming<Req>, Answer<Resp>)> + Send + 'static,
    {
        let (core, path) = (self.core.clone(), rpc.method.name);
        self.handlers = self.handlers.client_streaming(
            rpc,
            move |ctx: RpcContext<'_>, stream: RequestStream<Req>, sink: ClientStreamingSink<Resp>| {
                let (core, handler, context) = (core.clone(), handler.clone(), Context::of(&core, &ctx));
                ctx.spawn(async move {
                    // The stream is kept until the answer is out: dropping it early cancels the call and the client never learns why.
                    let (_stream, answer) = handler(core.clone(), context, Incoming(stream)).await;
                    let sent = match answer {
                        Ok(message) => sink.success(message).await,
                        Err(failure) => sink.fail(shown(&core, failure)).await,
                    };
                    if let Err(error) = sent {
                        debug!(core.logger, "answer not delivered"; "method" => path, "error" => %error);
                    }
                });
            },
        );
        self
    }

    /// A stream of requests, each answered when it is done, `under_way` of them at a time. `handler` gives no failure: what is wrong with a
    /// request stands in its answer.
    pub(crate) fn duplex<Req, Resp, H, F>(
        mut self,
        rpc: &'static Rpc<Req, Resp>,
        gate: fn(&Core) -> &Gate,
        under_way: usize,
        handler: H,
    ) -> Self
    where
        Req: Message,
        Resp: Message,
        H: Fn(Arc<Core>, Context, Req) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Resp> + Send + 'static,
    {
        let (core, path) = (self.core.clone(), rpc.method.name);
        self.handlers = self.handlers.duplex(
            rpc,
            move |ctx: RpcContext<'_>, stream: RequestStream<Req>, sink: DuplexSink<Resp>| {
                let (core, handler, context) = (core.clone(), handler.clone(), Context::of(&core, &ctx));
                ctx.spawn(async move {
                    let permit = match gate(&core).admit() {
                        Ok(permit) => permit,
                        Err(failure) => {
                            // The client has gone if this fails.
                            let _ = sink.fail(shown(&core, failure)).await;
                            return;
                        }
                    };
                    let requests = stream.map(|request| {
                        let (core, context, handler) = (core.clone(), context.clone(), handler.clone());
                        async move {
                            match request {
                                Ok(request) => Some(handler(core, context, request).await),
                                Err(_) => None,
                            }
                        }
                    });
                    if let Err(error) = converse(requests.buffer_unordered(under_way), sink).await {
                        debug!(core.logger, "stream not ended"; "method" => path, "error" => %error);
                    }
                    drop(permit);
                });
            },
        );
        self
    }

    /// One request, a stream of answers. Served here, whoever leads.
    pub(crate) fn server_streaming<Req, Resp, H, F>(mut self, rpc: &'static Rpc<Req, Resp>, handler: H) -> Self
    where
        Req: Message,
        Resp: Message,
        H: Fn(Arc<Core>, Context, Req, Outgoing<Resp>) -> F + Clone + Send + 'static,
        F: Future<Output = (Outgoing<Resp>, Answer<()>)> + Send + 'static,
    {
        let (core, path) = (self.core.clone(), rpc.method.name);
        self.handlers = self.handlers.server_streaming(
            rpc,
            move |ctx: RpcContext<'_>, request: Req, sink: ServerStreamingSink<Resp>| {
                let (core, handler, context) = (core.clone(), handler.clone(), Context::of(&core, &ctx));
                ctx.spawn(async move {
                    let (sink, answer) = handler(core.clone(), context, request, Outgoing::new(sink)).await;
                    if let Err(error) = sink.end(answer.map_err(|failure| shown(&core, failure))).await {
                        debug!(core.logger, "stream not ended"; "method" => path, "error" => %error);
                    }
                });
            },
        );
        self
    }
}

/// Sends every answer; None: the client's stream broke. After the first failure the sink is not touched any more (see `Outgoing`).
async fn converse<T>(
    answers: impl futures::Stream<Item = Option<T>> + Send,
    mut sink: DuplexSink<T>,
) -> grpcio::Result<()> {
    let mut answers = std::pin::pin!(answers);
    while let Some(answer) = answers.next().await {
        let Some(answer) = answer else {
            return sink.fail(status(RpcStatusCode::CANCELLED, "the stream of requests broke")).await;
        };
        sink.send((answer, grpcio::WriteFlags::default())).await?;
    }
    sink.close().await
}

/// What a client sends, piece by piece.
pub(crate) struct Incoming<T>(pub(crate) RequestStream<T>);

impl<T> Incoming<T> {
    /// The next piece; None at the end. A broken connection is CANCELLED.
    pub(crate) async fn next(&mut self) -> Answer<Option<T>> {
        use futures::TryStreamExt;
        self.0.try_next().await.map_err(|error| Failure::Status(status(RpcStatusCode::CANCELLED, error.to_string())))
    }
}

/// What a client is sent, piece by piece, at the pace at which it takes it.
///
/// grpcio panics when a sink is polled again after it has said that the call is over, and such a panic ends a completion thread: after the
/// first failure the sink is not touched any more.
pub(crate) struct Outgoing<T> {
    sink: ServerStreamingSink<T>,
    over: bool,
}

impl<T> Outgoing<T> {
    fn new(sink: ServerStreamingSink<T>) -> Self {
        Self { sink, over: false }
    }

    /// Many large messages: let gRPC pack them.
    pub(crate) fn pack(&mut self) {
        self.sink.enhance_batch(true);
    }

    /// Sends at once.
    pub(crate) async fn send(&mut self, message: T) -> Answer<()> {
        use futures::SinkExt;
        self.alive()?;
        let sent = self.sink.send((message, grpcio::WriteFlags::default())).await;
        self.note(sent)
    }

    /// Hands the message over and returns when the one before it is on its way: the next can be read meanwhile.
    pub(crate) async fn feed(&mut self, message: T) -> Answer<()> {
        use futures::SinkExt;
        self.alive()?;
        let fed = self.sink.feed((message, grpcio::WriteFlags::default())).await;
        self.note(fed)
    }

    /// Fails if the client has gone.
    pub(crate) async fn still_there(&mut self) -> Answer<()> {
        use futures::Sink;
        self.alive()?;
        let ready = futures::future::poll_fn(|cx| Pin::new(&mut self.sink).poll_ready(cx)).await;
        self.note(ready)
    }

    fn alive(&self) -> Answer<()> {
        if self.over {
            return Err(Failure::Status(status(RpcStatusCode::CANCELLED, "the client has gone")));
        }
        Ok(())
    }

    fn note(&mut self, outcome: grpcio::Result<()>) -> Answer<()> {
        outcome.map_err(|error| {
            self.over = true;
            Failure::Status(status(RpcStatusCode::CANCELLED, error.to_string()))
        })
    }

    async fn end(mut self, answer: Result<(), RpcStatus>) -> grpcio::Result<()> {
        use futures::SinkExt;
        if self.over {
            return Ok(());
        }
        // What was accepted goes out first.
        self.sink.flush().await?;
        match answer {
            Ok(()) => self.sink.close().await,
            Err(status) => self.sink.fail(status).await,
        }
    }
}

/// The status that a client sees.
pub(crate) fn shown(core: &Core, failure: Failure) -> RpcStatus {
    let hint = || {
        let leader = core.ports.cluster.leader();
        match leader.get_address() {
            "" => "no leader is known".to_owned(),
            address => format!("leader: {address}"),
        }
    };
    match failure {
        Failure::Status(status) => status,
        // The hint goes first: clients take the first address that follows the word "leader".
        Failure::Unavailable(why) => status(RpcStatusCode::UNAVAILABLE, format!("{}; {why}", hint())),
        Failure::NotLeader { .. } => {
            status(RpcStatusCode::UNAVAILABLE, format!("{}; leadership is moving, try again", hint()))
        }
    }
}

/// Starts a call with a callback; the future is its outcome. A callback that is dropped is an unknown outcome.
pub(crate) fn ask<T: Send + 'static>(start: impl FnOnce(Callback<T>)) -> impl Future<Output = Answer<T>> + Send {
    let (sender, receiver) = oneshot::channel();
    start(Box::new(move |outcome| {
        let _ = sender.send(outcome);
    }));
    async move { receiver.await.unwrap_or(Err(CallError::Unknown)).map_err(Failure::from) }
}

/// Proposes one command; its reply if it took effect.
pub(crate) async fn propose(
    core: &Core,
    context: &Context,
    request_id: &str,
    kind: Command_oneof_kind,
) -> Answer<CommandReply> {
    taken(reply_to(core, context, request_id, kind).await?)
}

/// Proposes one command; its reply, whatever it says.
pub(crate) async fn reply_to(
    core: &Core,
    context: &Context,
    request_id: &str,
    kind: Command_oneof_kind,
) -> Answer<CommandReply> {
    let mut command = Command { kind: Some(kind), ..Command::default() };
    command.set_principal(context.caller.principal.clone());
    command.set_request_id(request_id.to_owned());
    if command.compute_size() as usize > limits::COMMAND_BYTES_MAX {
        return Err(invalid("request", format!("more than {} bytes", limits::COMMAND_BYTES_MAX)));
    }
    let replies = ask(|done| core.ports.commands.propose(vec![command], done)).await?;
    match replies.into_iter().next() {
        Some(reply) => Ok(reply),
        None => Err(Failure::from(CallError::Internal("the replica gave no reply to the command".to_owned()))),
    }
}

/// Rows, as fresh as the client asks.
pub(crate) async fn read(core: &Core, consistency: Consistency) -> Answer<ReadView> {
    let freshness = match consistency {
        Consistency::LINEARIZABLE => Freshness::Linearizable,
        Consistency::LEASE => Freshness::Lease,
        Consistency::LOCAL => Freshness::Local,
    };
    ask(|done| core.ports.reads.read(freshness, done)).await
}

/// Resolves when something is applied after `position`, or after `timeout`.
pub(crate) fn changed_after(core: &Core, position: u64, timeout: Duration) -> impl Future<Output = ()> + Send {
    rows_changed_after(core, position, None, timeout)
}

/// The same for a change of certain rows.
pub(crate) fn rows_changed_after(
    core: &Core,
    position: u64,
    watched: Option<Watched>,
    timeout: Duration,
) -> impl Future<Output = ()> + Send {
    let (sender, receiver) = oneshot::channel();
    core.ports.reads.changed_after(
        position,
        watched,
        timeout,
        Box::new(move |_| {
            let _ = sender.send(());
        }),
    );
    async move {
        let _ = receiver.await;
    }
}

/// A pause.
pub(crate) fn pause(core: &Core, time: Duration) -> impl Future<Output = ()> + Send {
    changed_after(core, u64::MAX, time)
}

/// Local rows that hold everything up to `position` (of a command that the leader has answered). A replica that does not get that far in
/// time says that it cannot tell what came of the command: older rows would be a wrong answer, such as a task that does not exist.
pub(crate) async fn read_at(core: &Core, position: u64) -> Answer<ReadView> {
    let asked = Instant::now();
    let mut view = read(core, Consistency::LOCAL).await?;
    // By time, not by wake-ups: one that catches up wakes with every entry.
    while view.position < position {
        if asked.elapsed() >= limits::CATCH_UP_TIMEOUT {
            return Err(Failure::from(CallError::Unknown));
        }
        changed_after(core, view.position, limits::CATCH_UP_WAIT).await;
        view = read(core, Consistency::LOCAL).await?;
    }
    Ok(view)
}
