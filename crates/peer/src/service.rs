//! PeerService, for the Raft port. Raft messages are handed on as they come; what reads or writes files runs on threads of its own, of
//! which there are only so many at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use futures::channel::oneshot;
use futures::executor::block_on;
use futures::{SinkExt, TryStreamExt};
use grpcio::{
    ClientStreamingSink, RequestStream, RpcContext, RpcStatus, RpcStatusCode, ServerStreamingSink, UnarySink,
};
use raftgrid_driver::Message;
use raftgrid_proto::v1::*;
use raftgrid_replica::ports::{Bytes, CallError, Callback};
use raftgrid_replica::{Versions, PROPOSE_PATH, READ_INDEX_PATH};
use raftgrid_rpc::methods;
use raftgrid_rpc::serve::Handlers;
use raftgrid_rpc::status::status;
use raftgrid_rpc::tls::Tls;
use raftgrid_telemetry::Registry;
use slog::{debug, info, warn, Logger};

use crate::book::AddressBook;
use crate::hello::{Doorkeeper, Identity, KnownStores, Visitor};
use crate::metrics::Metrics;
use crate::raft::RaftSeat;
use crate::snapshot_receive::{receive, Parked};
use crate::snapshots::SnapshotFiles;
use crate::wire::{broken, encode, encode_index};
use crate::{fragments, limits};

/// Serves what followers forward. Neither call blocks.
pub trait Forwarding: Send + Sync {
    /// An encoded CommandBatch: proposes it here or nowhere (`NotLeader`), and answers length-delimited CommandReply.
    fn propose(&self, batch: Vec<u8>, done: Callback<Vec<u8>>);
    /// A read index, confirmed by a quorum after this call (`NotLeader` if this replica does not lead).
    fn read_index(&self, done: Callback<u64>);
    /// A public unary call: full method path, whose request it is, encoded request. What it answers is passed on as it is.
    fn call(&self, method: &str, principal: &str, request: Vec<u8>) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send>>;
}

/// What the service hands things to.
#[derive(Clone)]
struct Parts {
    identity: Identity,
    stores: Arc<dyn KnownStores>,
    seat: RaftSeat,
    snapshots: Arc<dyn SnapshotFiles>,
    bytes: Arc<dyn Bytes>,
    forwarding: Arc<dyn Forwarding>,
    tls: Option<Arc<Tls>>,
    logger: Logger,
    metrics: Metrics,
    /// None: nobody asks.
    versions: Option<Versions>,
    /// None: who speaks is not asked where he is.
    book: Option<Arc<AddressBook>>,
}

/// The service of a replica for the others.
pub struct PeerService {
    parts: Parts,
}

#[derive(Clone)]
struct Served {
    parts: Parts,
    door: Arc<Doorkeeper>,
    snapshots: Arc<AtomicUsize>,
    parked: Arc<Parked>,
    fragments: Arc<AtomicUsize>,
}

impl PeerService {
    /// Raft messages go to whoever sits in `seat`, snapshots are staged in `snapshots`, fragments kept in `bytes`.
    pub fn new(
        identity: Identity,
        stores: Arc<dyn KnownStores>,
        seat: RaftSeat,
        snapshots: Arc<dyn SnapshotFiles>,
        bytes: Arc<dyn Bytes>,
        forwarding: impl Forwarding + 'static,
        logger: Logger,
    ) -> Self {
        let (forwarding, metrics) = (Arc::new(forwarding), Metrics::default());
        Self {
            parts: Parts {
                identity,
                stores,
                seat,
                snapshots,
                bytes,
                forwarding,
                tls: None,
                logger,
                metrics,
                versions: None,
                book: None,
            },
        }
    }

    /// Tells `versions` what each raft stream says of its sender's machine version.
    pub fn with_versions(mut self, versions: Versions) -> Self {
        self.parts.versions = Some(versions);
        self
    }

    /// Counts in `registry`.
    pub fn with_metrics(mut self, registry: &Registry) -> Self {
        self.parts.metrics = Metrics::new(registry);
        self
    }

    /// Every call must come with the certificate of the node in whose name it is made; for a port that asks for certificates.
    pub fn with_tls(mut self, tls: Option<Arc<Tls>>) -> Self {
        self.parts.tls = tls;
        self
    }

    /// Whoever opens a stream here is found in `book` from then on, if he was not before.
    pub fn with_book(mut self, book: Arc<AddressBook>) -> Self {
        self.parts.book = Some(book);
        self
    }

    /// The service, for a server.
    pub fn build(self) -> grpcio::Service {
        let parts = self.parts;
        let door = Doorkeeper::new(parts.identity.clone(), parts.stores.clone(), parts.logger.clone());
        let door = door.with_metrics(&parts.metrics).with_versions(parts.versions.clone());
        let door = Arc::new(door.with_tls(parts.tls.clone()));
        let served =
            Served { parts, door, snapshots: Arc::default(), parked: Arc::default(), fragments: Arc::default() };
        let (raft, snapshot, put) = (served.clone(), served.clone(), served.clone());
        let (get, forward, progress) = (served.clone(), served.clone(), served);
        Handlers::new()
            .client_streaming(&methods::PEER_RAFT, move |ctx, stream, sink| raft.raft(&ctx, stream, sink))
            .client_streaming(&methods::PEER_SNAPSHOT, move |ctx, stream, sink| snapshot.snapshot(&ctx, stream, sink))
            .unary(&methods::PEER_SNAPSHOT_PROGRESS, move |ctx, request, sink| progress.progress(&ctx, &request, sink))
            .client_streaming(&methods::PEER_PUT_FRAGMENT, move |ctx, stream, sink| put.put(&ctx, stream, sink))
            .server_streaming(&methods::PEER_GET_FRAGMENT, move |ctx, request, sink| get.get(&ctx, request, sink))
            .unary(&methods::PEER_FORWARD, move |ctx, request, sink| forward.forward(&ctx, request, sink))
            .build()
    }
}

/// One of the threads that may run at once.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(count: &Arc<AtomicUsize>, max: usize) -> Result<Self, RpcStatus> {
        let slot = Self(count.clone());
        if count.fetch_add(1, Ordering::AcqRel) >= max {
            let message = format!("{max} streams of this kind at once is the limit; try again later");
            return Err(status(RpcStatusCode::RESOURCE_EXHAUSTED, message));
        }
        Ok(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Served {
    fn raft(&self, ctx: &RpcContext<'_>, mut stream: RequestStream<RaftFrame>, sink: ClientStreamingSink<RaftDone>) {
        let (served, visitor) = (self.clone(), self.door.visitor(ctx));
        ctx.spawn(async move {
            let outcome = served.messages(&visitor, &mut stream).await;
            let ended = match outcome {
                Ok(()) => sink.success(RaftDone::new()).await,
                Err(status) => sink.fail(status).await,
            };
            if let Err(error) = ended {
                debug!(served.parts.logger, "raft stream not ended"; "error" => %error);
            }
        });
    }

    async fn messages(&self, visitor: &Visitor, stream: &mut RequestStream<RaftFrame>) -> Result<(), RpcStatus> {
        let mut from = None;
        // What it says of itself counts as long as its stream is open.
        let mut said = None;
        while let Some(mut frame) = stream.try_next().await.map_err(|error| broken("raft messages", &error))? {
            let sender = match from {
                Some(sender) => sender,
                None => {
                    let sender = visitor.check(frame.hello.as_ref())?;
                    let version = frame.get_hello().machine_version;
                    if let Some(book) = &self.parts.book {
                        book.learn(sender, frame.get_hello().get_raft_address());
                    }
                    info!(self.parts.logger, "peer connected"; "from" => sender, "machine_version" => version);
                    said = self.parts.versions.as_ref().map(|versions| versions.heard(sender, version));
                    sender
                }
            };
            from = Some(sender);
            for data in frame.take_messages().into_iter() {
                // A snapshot never comes this way: without its files the driver drops it.
                let to = self.parts.identity.node_id;
                self.parts.seat.step(Message { to, from: sender, data: data.into(), snapshot: None });
            }
        }
        drop(said);
        Ok(())
    }

    /// Runs `body` on a thread of its own, with a slot or with the status that says why there is none. A stream and its sink must live
    /// until the answer is out, or the caller sees a cancelled call instead: so both belong to the body.
    fn on_thread(
        &self,
        name: &str,
        slot: Result<Slot, RpcStatus>,
        body: impl FnOnce(Result<Slot, RpcStatus>) + Send + 'static,
    ) {
        if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(move || body(slot)) {
            warn!(self.parts.logger, "failed to start a thread"; "error" => %error);
        }
    }

    fn snapshot(
        &self,
        ctx: &RpcContext<'_>,
        mut stream: RequestStream<SnapshotChunk>,
        sink: ClientStreamingSink<SnapshotDone>,
    ) {
        let (served, visitor) = (self.clone(), self.door.visitor(ctx));
        let slot = Slot::take(&self.snapshots, limits::SNAPSHOTS_RECEIVED_MAX);
        self.on_thread("peer-snap-in", slot, move |slot| {
            let parts = &served.parts;
            // The slot is free again before the caller hears the answer: it may try again at once.
            let received = slot
                .and_then(|_slot| receive(&visitor, &*parts.snapshots, &parts.metrics, &served.parked, &mut stream));
            let ended = match received {
                Ok((message, index)) => {
                    info!(parts.logger, "snapshot received"; "from" => message.from, "index" => index);
                    parts.seat.step(message);
                    let mut done = SnapshotDone::new();
                    done.set_installed(true);
                    block_on(sink.success(done))
                }
                Err(status) => {
                    warn!(parts.logger, "snapshot not received"; "reason" => status.message());
                    block_on(sink.fail(status))
                }
            };
            if let Err(error) = ended {
                debug!(parts.logger, "snapshot stream not ended"; "error" => %error);
            }
        });
    }

    fn progress(
        &self,
        ctx: &RpcContext<'_>,
        request: &SnapshotProgressRequest,
        sink: UnarySink<SnapshotProgressResponse>,
    ) {
        let answer =
            self.door.visitor(ctx).check(request.hello.as_ref()).and_then(|from| self.parked.progress(from, request));
        ctx.spawn(async move {
            // A peer that has gone asks again.
            let _ = match answer {
                Ok(answer) => sink.success(answer).await,
                Err(status) => sink.fail(status).await,
            };
        });
    }

    fn put(
        &self,
        ctx: &RpcContext<'_>,
        mut stream: RequestStream<FragmentChunk>,
        sink: ClientStreamingSink<FragmentReceipt>,
    ) {
        let (served, visitor) = (self.clone(), self.door.visitor(ctx));
        let slot = Slot::take(&self.fragments, limits::FRAGMENT_STREAMS_MAX);
        self.on_thread("peer-put", slot, move |slot| {
            let ended = match slot
                .and_then(|_slot| fragments::put(&visitor, &*served.parts.bytes, &served.parts.metrics, &mut stream))
            {
                Ok(receipt) => block_on(sink.success(receipt)),
                Err(status) => block_on(sink.fail(status)),
            };
            if let Err(error) = ended {
                debug!(served.parts.logger, "fragment stream not ended"; "error" => %error);
            }
        });
    }

    fn get(&self, ctx: &RpcContext<'_>, request: GetFragmentRequest, mut sink: ServerStreamingSink<FragmentChunk>) {
        let (served, visitor) = (self.clone(), self.door.visitor(ctx));
        let slot = Slot::take(&self.fragments, limits::FRAGMENT_STREAMS_MAX);
        self.on_thread("peer-get", slot, move |slot| {
            let sent = slot.and_then(|_slot| {
                fragments::get(&visitor, &*served.parts.bytes, &served.parts.metrics, &request, &mut sink)
            });
            let ended = match sent {
                Ok(()) => block_on(sink.close()),
                Err(status) => block_on(sink.fail(status)),
            };
            if let Err(error) = ended {
                debug!(served.parts.logger, "fragment stream not ended"; "error" => %error);
            }
        });
    }

    fn forward(&self, ctx: &RpcContext<'_>, mut request: ForwardRequest, sink: UnarySink<ForwardResponse>) {
        if let Err(status) = self.door.visitor(ctx).check(request.hello.as_ref()) {
            ctx.spawn(async move {
                // A peer that has gone needs no answer.
                let _ = sink.fail(status).await;
            });
            return;
        }
        let (method, principal, body) = (request.take_method(), request.take_principal(), request.take_request());
        let served = self.clone();
        ctx.spawn(async move {
            let mut response = ForwardResponse::new();
            let answer = match method.as_str() {
                PROPOSE_PATH => served.propose(body).await,
                READ_INDEX_PATH => served.read_index().await,
                _ => Ok(served.parts.forwarding.call(&method, &principal, body).await),
            };
            match answer {
                Ok(answer) => response.set_response(answer),
                Err(error) => {
                    let (code, text) = encode(error);
                    response.set_status(i32::from(code));
                    response.set_message(text);
                }
            }
            if let Err(error) = sink.success(response).await {
                debug!(served.parts.logger, "forwarded answer not delivered"; "error" => %error);
            }
        });
    }

    async fn read_index(&self) -> Result<Vec<u8>, CallError> {
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |outcome| {
            let _ = sender.send(outcome);
        });
        self.parts.forwarding.read_index(done);
        receiver.await.unwrap_or(Err(CallError::Unknown)).map(encode_index)
    }

    async fn propose(&self, batch: Vec<u8>) -> Result<Vec<u8>, CallError> {
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |outcome| {
            let _ = sender.send(outcome);
        });
        self.parts.forwarding.propose(batch, done);
        receiver.await.unwrap_or(Err(CallError::Unknown))
    }
}
