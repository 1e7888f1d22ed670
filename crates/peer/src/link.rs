//! Opens the stream of Raft messages to one peer, and learns why one broke, on a thread of its own. The messages go through the lane.
//!
//! A stream that breaks is opened again at the address that the book has by then. A frame that met a dead stream is sent once more on the
//! new one (raft takes duplicates); after that it is dropped, and raft hears that the peer is unreachable.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use futures::executor::block_on;
use grpcio::{CallOption, Client, ClientCStreamReceiver, ClientCStreamSender, RpcStatusCode};
use raftgrid_driver::NodeId;
use raftgrid_proto::v1::{RaftDone, RaftFrame};
use raftgrid_rpc::core_log::explained;
use raftgrid_rpc::methods::PEER_RAFT;
use slog::{info, warn, Logger};

use crate::book::AddressBook;
use crate::dialer::Dialer;
use crate::hello::Identity;
use crate::lane::{Lane, News};
use crate::limits;
use crate::raft::RaftSeat;

/// What a link is made of.
pub(crate) struct Link {
    pub(crate) dialer: Dialer,
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
                    Ok((sender, opened)) => {
                        stream = Some(opened);
                        self.lane.install(sender, self.identity.hello(self.to));
                        continue;
                    }
                    Err(why) => Sent::Broken(why),
                },
                News::Broken { delivered } => match self.why(stream.take()) {
                    // It served for a while: what was on its way is tried on a new one at once.
                    Sent::Broken(_) if delivered => {
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
            // Often only that it has gone; what is in the way is known when the next stream cannot be opened.
            _ => Sent::Broken(String::new()),
        }
    }

    /// Or why there is none.
    fn open(&self) -> Result<(ClientCStreamSender<RaftFrame>, Stream), String> {
        let address = self.book.get(self.to).ok_or("its address is not known")?;
        let channel = self.dialer.channel(self.to, &address);
        let connected = block_on(channel.wait_for_connected(limits::CONNECT_TIMEOUT));
        let client = Client::new(channel);
        if connected {
            let opened = client.client_streaming(&PEER_RAFT.method, CallOption::default());
            let (sender, receiver) = opened.map_err(|error| error.to_string())?;
            return Ok((sender, Stream { receiver, _client: client }));
        }
        Err(why_not(&client))
    }
}

/// Why a connection did not come up: a call on it fails at once, and says. Empty: it is not known.
fn why_not(client: &Client) -> String {
    let option = CallOption::default().timeout(limits::REASON_TIMEOUT);
    let Ok((mut sender, receiver)) = client.client_streaming(&PEER_RAFT.method, option) else { return String::new() };
    let ended = block_on(receiver);
    sender.cancel();
    match ended {
        Err(grpcio::Error::RpcFailure(status)) if status.code() == RpcStatusCode::UNAVAILABLE => {
            explained(status.message())
        }
        // Still under way.
        _ => String::new(),
    }
}

enum Sent {
    Done,
    /// Why, as far as it is known: the stream could not be opened, or broke.
    Broken(String),
    /// By its word.
    Refused(String),
}

/// What raft and the log are told; only changes are logged.
#[derive(Default)]
struct Reports {
    down: bool,
    /// Why it is not reachable, as it was told.
    reasons: BTreeSet<String>,
    refused: Option<String>,
    told: Option<Instant>,
}

impl Reports {
    fn note(&mut self, link: &Link, sent: &Sent) {
        match sent {
            Sent::Done if self.down && self.refused.is_none() => {
                info!(link.logger, "peer is reachable again"; "to" => link.to);
                self.down = false;
                self.reasons.clear();
            }
            Sent::Done => {}
            Sent::Broken(why) => {
                let news = !why.is_empty() && self.reasons.len() < limits::REASONS_TOLD_MAX;
                let news = news && self.reasons.insert(why.clone());
                if !self.down || news {
                    info!(link.logger, "peer is not reachable"; "to" => link.to, "reason" => why);
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
