//! The replica's `Peers`: fragments and forwarded calls to other replicas, over connections of their own. Everything here blocks, but for
//! `read_index`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::executor::block_on;
use futures::{SinkExt, TryStreamExt};
use grpcio::{CallOption, Client, ClientCStreamSender, RpcStatusCode, WriteFlags};
use raftgrid_driver::NodeId;
use raftgrid_proto::v1::{ForwardRequest, FragmentChunk, GetFragmentRequest};
use raftgrid_replica::ports::{Attempt, Attempted, CallError, Callback, Download, Peers};
use raftgrid_replica::READ_INDEX_PATH;
use raftgrid_rpc::answer::{ask, ask_now};
use raftgrid_rpc::chunk::{room, Sequence, CHUNK_BYTES_MAX};
use raftgrid_rpc::methods::{PEER_FORWARD, PEER_GET_FRAGMENT, PEER_PUT_FRAGMENT};
use raftgrid_rpc::wait::within;
use raftgrid_telemetry::Registry;

use crate::book::AddressBook;
use crate::dialer::Dialer;
use crate::hedge::Hedge;
use crate::hello::Identity;
use crate::limits;
use crate::metrics::Metrics;
use crate::wire::{decode, decode_index, of};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// Small calls.
    Control,
    /// Bytes.
    Bulk,
}

/// What a connection was made for: an address, and the certificates of that moment.
type Made = (String, u64);

/// Calls other replicas.
pub struct PeerClients {
    dialer: Dialer,
    identity: Identity,
    book: Arc<AddressBook>,
    clients: Mutex<BTreeMap<(NodeId, Use), (Made, Client)>>,
    hedge: Hedge,
    metrics: Metrics,
}

impl PeerClients {
    /// Connects to nobody yet.
    pub fn new(dialer: impl Into<Dialer>, identity: Identity, book: Arc<AddressBook>) -> Self {
        Self {
            dialer: dialer.into(),
            identity,
            book,
            clients: Mutex::new(BTreeMap::new()),
            hedge: Hedge::default(),
            metrics: Metrics::default(),
        }
    }

    /// Counts in `registry`.
    pub fn with_metrics(mut self, registry: &Registry) -> Self {
        self.metrics = Metrics::new(registry);
        self
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(NodeId, Use), (Made, Client)>> {
        // Each change is one statement, so a poisoned map is whole.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client of this node, connected or not.
    fn client(&self, node: NodeId, what: Use) -> Result<Client, CallError> {
        let unknown = || CallError::Unavailable(format!("replica {node} has no known address"));
        let address = self.book.get(node).ok_or_else(unknown)?;
        let made = (address, self.dialer.generation());
        let known =
            self.lock().get(&(node, what)).filter(|(known, _)| *known == made).map(|(_, client)| client.clone());
        let client = known.unwrap_or_else(|| {
            let channel = match what {
                Use::Control => self.dialer.channel(node, &made.0),
                Use::Bulk => self.dialer.bulk_channel(node, &made.0),
            };
            let client = Client::new(channel);
            self.lock().insert((node, what), (made, client.clone()));
            client
        });
        Ok(client)
    }

    /// A client whose connection is up. One that is not comes back as `Unavailable`: nothing was sent.
    fn connected(&self, node: NodeId, what: Use) -> Result<Client, CallError> {
        let unavailable = |why: &str| CallError::Unavailable(format!("replica {node} {why}"));
        let client = self.client(node, what)?;
        if block_on(client.channel().wait_for_connected(limits::CONNECT_TIMEOUT)) {
            return Ok(client);
        }
        // The next call connects anew, without the pause that this connection has earned.
        self.lock().remove(&(node, what));
        Err(unavailable("cannot be reached"))
    }
}

/// What a transfer of this size may take.
fn fragment_time(bytes: u64) -> Duration {
    limits::FRAGMENT_TIME_MIN + Duration::from_secs(bytes / limits::FRAGMENT_BYTES_PER_SECOND_MIN)
}

impl Peers for PeerClients {
    fn put_fragment(
        &self,
        node: u64,
        artifact_id: u64,
        fragment: u32,
        digest: [u8; 32],
        data: &mut dyn Download,
    ) -> Result<(), CallError> {
        let client = self.connected(node, Use::Bulk)?;
        let option = CallOption::default().timeout(fragment_time(data.total_bytes()));
        let (mut sender, receiver) =
            client.client_streaming(&PEER_PUT_FRAGMENT.method, option).map_err(|error| of(error, false))?;
        let mut first = FragmentChunk::new();
        first.set_hello(self.identity.hello(node));
        first.set_artifact_id(artifact_id);
        first.set_fragment(fragment);
        first.set_total_bytes(data.total_bytes());
        first.set_digest(digest.to_vec());
        if let Err(error) = send_fragment(&mut sender, data, first, node) {
            sender.cancel();
            return Err(error);
        }
        // If the peer ended the call its status says why, and that is what counts. The deadline of the call ends the wait for the receipt.
        let _ = within(limits::FRAGMENT_STALL, sender.close());
        let receipt = block_on(receiver).map_err(|error| of(error, false))?;
        let right = receipt.get_stored()
            && receipt.get_node_id() == node
            && receipt.get_artifact_id() == artifact_id
            && receipt.get_fragment() == fragment
            && receipt.get_digest() == digest;
        if right {
            self.metrics.fragment_bytes_out.add(data.total_bytes());
        } else {
            return Err(CallError::Internal(format!("replica {node} gave a wrong receipt: {}", receipt.get_reason())));
        }
        Ok(())
    }

    fn get_fragment(
        &self,
        node: u64,
        artifact_id: u64,
        fragment: u32,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        let client = self.connected(node, Use::Bulk)?;
        let mut request = GetFragmentRequest::new();
        request.set_hello(self.identity.hello(node));
        request.set_artifact_id(artifact_id);
        request.set_fragment(fragment);
        // The size is not known before the first chunk, so it is the chunks that have a deadline. Dropping the stream ends the call.
        let mut stream = client
            .server_streaming(&PEER_GET_FRAGMENT.method, &request, CallOption::default())
            .map_err(|error| of(error, false))?;
        let damaged =
            |error| CallError::Unavailable(format!("fragment {artifact_id}/{fragment} of replica {node}: {error}"));
        // Whoever asks hashes the whole, for the digest that its row says.
        let mut sequence = Sequence::new(limits::FRAGMENT_BYTES_MAX);
        let mut total = None;
        while let Some(chunk) = within(limits::FRAGMENT_STALL, stream.try_next())
            .unwrap_or_else(|| Err(stalled(node)))
            .map_err(|error| of(error, false))?
        {
            sequence.chunk(chunk.get_offset(), chunk.get_data(), Some(chunk.get_crc32c())).map_err(damaged)?;
            total.get_or_insert(chunk.get_total_bytes());
            self.metrics.fragment_bytes_in.add(chunk.get_data().len() as u64);
            sink(chunk.get_data())?;
        }
        let total = total.ok_or_else(|| CallError::Unavailable(format!("replica {node} sent nothing")))?;
        sequence.finish(Some(total)).map_err(damaged)
    }

    fn first_of(&self, nodes: &[u64], wanted: usize, patience: Duration, attempt: Attempt) -> Vec<Attempted> {
        self.hedge.first_of(nodes, wanted, patience, &attempt)
    }

    fn read_index(&self, node: u64, timeout: Duration, done: Callback<u64>) {
        let client = match self.client(node, Use::Control) {
            Ok(client) => client,
            Err(error) => return done(Err(error)),
        };
        let mut forward = ForwardRequest::new();
        forward.set_hello(self.identity.hello(node));
        forward.set_method(READ_INDEX_PATH.to_owned());
        let option = CallOption::default().timeout(timeout);
        let answer = match ask(&client, &PEER_FORWARD.method, &forward, option) {
            Ok(answer) => answer,
            Err(error) => return done(Err(of(error, false))),
        };
        client.spawn(async move {
            done(match answer.await {
                Ok(response) if response.get_status() == 0 => decode_index(response.get_response(), node),
                Ok(mut response) => Err(decode(RpcStatusCode::from(response.get_status()), response.take_message())),
                Err(error) => Err(of(error, false)),
            });
        });
    }

    fn forward(&self, node: u64, method: &str, request: Vec<u8>, timeout: Duration) -> Result<Vec<u8>, CallError> {
        let client = self.connected(node, Use::Control)?;
        let mut forward = ForwardRequest::new();
        forward.set_hello(self.identity.hello(node));
        forward.set_method(method.to_owned());
        forward.set_request(request);
        let option = CallOption::default().timeout(timeout);
        // From here on the peer may have served the call, whatever comes back.
        let mut response = ask_now(&client, &PEER_FORWARD.method, &forward, option).map_err(|error| of(error, true))?;
        match response.get_status() {
            0 => Ok(response.take_response()),
            code => Err(decode(RpcStatusCode::from(code), response.take_message())),
        }
    }
}

/// No chunk moved in time.
fn stalled(node: NodeId) -> grpcio::Error {
    let why = format!("replica {node} made no step for {} s", limits::FRAGMENT_STALL.as_secs());
    grpcio::Error::RpcFailure(grpcio::RpcStatus::with_message(RpcStatusCode::UNAVAILABLE, why))
}

/// Ends early and well if the peer ends the call: the receipt, or the status, tells.
fn send_fragment(
    sender: &mut ClientCStreamSender<FragmentChunk>,
    data: &mut dyn Download,
    first: FragmentChunk,
    node: NodeId,
) -> Result<(), CallError> {
    let total = data.total_bytes();
    let mut chunk = first;
    let mut at = 0;
    loop {
        let mut buffer = room((total - at).min(CHUNK_BYTES_MAX as u64) as usize);
        let got = data.read_at(at, &mut buffer)?;
        if got == 0 && at < total {
            return Err(CallError::Internal(format!("the fragment ends at {at} instead of {total}")));
        }
        buffer.truncate(got);
        chunk.set_offset(at);
        chunk.set_crc32c(crc32c::crc32c(&buffer));
        chunk.set_data(buffer);
        at += got as u64;
        let message = std::mem::take(&mut chunk);
        let sent = within(limits::FRAGMENT_STALL, sender.send((message, WriteFlags::default())));
        let sent = sent.ok_or_else(|| of(stalled(node), false))?;
        if sent.is_err() || at >= total {
            return Ok(());
        }
    }
}
