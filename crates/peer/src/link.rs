//! Opens the stream of Raft messages to one peer, and learns why one broke, on a thread of its own. The messages go through the lane.
//!
//! A stream that breaks is opened again at the address that the book has by then. A frame that met a dead stream is sent once more on the
//! new one (raft takes duplicates); after that it is dropped, and raft hears that the peer is unreachable.

use std::sync::Arc;
use std::time::Instant;

use futures::executor::block_on;
use grpcio::{CallOption, Client, ClientCStreamReceiver, ClientCStreamSender, Environment, RpcStatusCode};
use raftgrid_driver::NodeId;
use raftgrid_proto::v1::{RaftDone, RaftFrame};
use raftgrid_rpc::methods::PEER_RAFT;
use slog::{info, warn, Logger};

use crate::book::AddressBook;
use crate::hello::Identity;
use crate::lane::{Lane, News};
use crate::limits;
use crate::raft::RaftSeat;

/// What a link is made of.
pub(crate) struct Link {
    pub(crate) env: Arc<Environment>,
    pub(crate) identity: Identity,
    pub(crate) to: NodeId,
    pub(crate) book: Arc<AddressBook>,
    pub(crate) seat: RaftSeat,
    pub(crate) lane: Arc<Lane>,
    pub(crate) logger: Logger,
}

/// The thread's end of an open stream.
struct Stream {
    receiver: ClientCStreamReceiver<RaftDone>,
    /// Holds the connection.
    _client: Client,
}

impl Link {
    /// The body of the thread `peer-<node>`; ends when the lane is closed.
    pub(crate) fn run(self) {
        let mut stream: Option<Stream> = None;
        let mut reports = Reports::default();
        let mut pause = limits::RECONNECT_PAUSE_MIN;
        loop {
            let failed = match self.lane.next() {
                News::Closed => break,
                News::Delivered => {
                    reports.note(&self, &Sent::Done);
                    pause = limits::RECONNECT_PAUSE_MIN;
                    continue;
                }
                News::Wanted => match self.open() {
                    Some((sender, opened)) => {
                        stream = Some(opened);
                        self.lane.install(sender, self.identity.hello(self.to));
                        continue;
                    }
                    None => Sent::Broken,
                },
                News::Broken { delivered } => match self.why(stream.take()) {
                    // It served for a while: what was on its way is tried on a new one at once.
                    Sent::Broken if delivered => {
                        self.lane.pump();
                        continue;
                    }
                    why => why,
                },
            };
            reports.note(&self, &failed);
            if matches!(failed, Sent::Refused(_)) {
                pause = limits::RECONNECT_PAUSE_MAX;
            }
            self.lane.drop_waiting();
            if self.lane.closed_within(pause) {
                break;
            }
            pause = (pause * 2).min(limits::RECONNECT_PAUSE_MAX);
            self.lane.pump();
        }
    }

    /// A peer that refuses says why in the status of the call; one that is gone leaves none.
    fn why(&self, stream: Option<Stream>) -> Sent {
        match stream.map(|stream| block_on(stream.receiver)) {
            Some(Err(grpcio::Error::RpcFailure(status))) if status.code() == RpcStatusCode::FAILED_PRECONDITION => {
                Sent::Refused(status.message().to_owned())
            }
            _ => Sent::Broken,
        }
    }

    fn open(&self) -> Option<(ClientCStreamSender<RaftFrame>, Stream)> {
        let address = self.book.get(self.to)?;
        let channel = raftgrid_rpc::channel(&self.env, &address);
        if !block_on(channel.wait_for_connected(limits::CONNECT_TIMEOUT)) {
            return None;
        }
        let client = Client::new(channel);
        let (sender, receiver) = client.client_streaming(&PEER_RAFT.method, CallOption::default()).ok()?;
        Some((sender, Stream { receiver, _client: client }))
    }
}

enum Sent {
    Done,
    Broken,
    /// By its word.
    Refused(String),
}

/// What raft and the log are told; only changes are logged.
#[derive(Default)]
struct Reports {
    down: bool,
    refused: Option<String>,
    told: Option<Instant>,
}

impl Reports {
    fn note(&mut self, link: &Link, sent: &Sent) {
        match sent {
            Sent::Done if self.down && self.refused.is_none() => {
                info!(link.logger, "peer is reachable again"; "to" => link.to);
                self.down = false;
            }
            Sent::Done => {}
            Sent::Broken => {
                if !self.down {
                    info!(link.logger, "peer is not reachable"; "to" => link.to);
                }
                self.refused = None;
                self.down = true;
            }
            Sent::Refused(why) => {
                if self.refused.as_ref() != Some(why) {
                    warn!(link.logger, "peer refuses this replica"; "to" => link.to, "reason" => why);
                    self.refused = Some(why.clone());
                }
                self.down = true;
            }
        }
        let failed = !matches!(sent, Sent::Done);
        if failed && self.told.is_none_or(|told| told.elapsed() >= limits::UNREACHABLE_PAUSE) {
            self.told = Some(Instant::now());
            link.seat.unreachable(link.to);
        }
    }
}
