//! The way of Raft messages onto the open stream of one peer, without a thread of its own.
//!
//! Whoever puts a message sends it, if nothing is on its way: handing it to a thread would cost two wake-ups for each message. While a frame is
//! on its way, messages gather in the outbox, and gRPC's completion sends the next frame. A lane never waits: it neither opens streams nor asks
//! why one broke. That is the link's thread, which is told (`next`).

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::Sink;
use grpcio::{ClientCStreamSender, WriteFlags};
use raftgrid_driver::NodeId;
use raftgrid_proto::v1::{PeerHello, RaftFrame};

use crate::metrics::LinkMetrics;
use crate::outbox::Outbox;
use crate::raft::RaftSeat;

/// What the link's thread is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Messages wait, and there is no stream.
    Wanted,
    /// The first frame went out on this stream.
    Delivered,
    /// The stream takes no more; whether it ever took a frame.
    Broken {
        /// Its first frame went out.
        delivered: bool,
    },
    /// The end.
    Closed,
}

/// An open stream.
struct Open {
    sender: ClientCStreamSender<RaftFrame>,
    /// Goes with the first frame.
    hello: Option<PeerHello>,
    /// The frame that is on its way.
    under_way: Vec<Bytes>,
    delivered: bool,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    news: Option<News>,
    closed: bool,
}

/// One peer's lane.
pub(crate) struct Lane {
    to: NodeId,
    /// Knows whether the peer may have messages.
    seat: RaftSeat,
    outbox: Outbox,
    state: Mutex<State>,
    told: Condvar,
    /// Calls of `pump` that have not been seen to: whoever makes it 1 works until it is 0 again.
    calls: AtomicUsize,
    metrics: LinkMetrics,
}

impl Lane {
    pub(crate) fn new(to: NodeId, seat: RaftSeat, metrics: LinkMetrics) -> Arc<Self> {
        Arc::new(Self {
            to,
            seat,
            outbox: Outbox::default(),
            state: Mutex::default(),
            told: Condvar::new(),
            calls: AtomicUsize::new(0),
            metrics,
        })
    }

    /// Takes a message, and sends it if nothing is on its way. False: it does not fit, or the peer may have none.
    pub(crate) fn send(self: &Arc<Self>, message: Bytes) -> bool {
        let taken = !self.seat.barred(self.to) && self.outbox.put(message);
        if taken {
            self.pump();
        }
        self.metrics.waiting.set(self.outbox.len() as f64);
        taken
    }

    /// Sends what waits on this stream from now on.
    pub(crate) fn install(self: &Arc<Self>, sender: ClientCStreamSender<RaftFrame>, hello: PeerHello) {
        let open = Open { sender, hello: Some(hello), under_way: Vec::new(), delivered: false };
        let mut state = self.lock();
        // Wanted again while this one was opened: another would take its place, and lose what is on its way.
        state.news = state.news.take().filter(|news| *news != News::Wanted);
        state.open = Some(open);
        drop(state);
        self.pump();
    }

    /// Waits for news.
    pub(crate) fn next(&self) -> News {
        let mut state = self.lock();
        loop {
            if state.closed {
                return News::Closed;
            }
            if let Some(news) = state.news.take() {
                return news;
            }
            state = self.told.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until it is closed, or for `time`; true: closed.
    pub(crate) fn closed_within(&self, time: Duration) -> bool {
        let waited = self.told.wait_timeout_while(self.lock(), time, |state| !state.closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    /// Drops what waits: it is old by the time there is a connection again, and raft sends anew.
    pub(crate) fn drop_waiting(&self) {
        self.metrics.dropped.add(self.outbox.clear() as u64);
        self.metrics.waiting.set(0.0);
    }

    /// Ends everything.
    pub(crate) fn close(&self) {
        self.outbox.close();
        let mut state = self.lock();
        state.closed = true;
        state.open = None;
        self.told.notify_all();
    }

    /// Sends as much as the stream takes now. Whoever calls while another is at it leaves it to him.
    pub(crate) fn pump(self: &Arc<Self>) {
        if self.calls.fetch_add(1, Ordering::SeqCst) > 0 {
            return;
        }
        let mut seen = 1;
        loop {
            self.work();
            // Somebody called meanwhile: once more, for all who did.
            match self.calls.compare_exchange(seen, 0, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    fn work(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let Some(open) = &mut state.open else {
            if self.outbox.len() > 0 && state.news.is_none() {
                self.tell(&mut state, News::Wanted);
            }
            return;
        };
        let waker = Waker::from(Arc::clone(self));
        match self.send_frames(open, &mut Context::from_waker(&waker)) {
            Ok(false) => {}
            Ok(true) => self.tell(&mut state, News::Delivered),
            Err(_) => {
                // What was on its way goes first on the next stream: raft takes duplicates.
                let (under_way, delivered) = (std::mem::take(&mut open.under_way), open.delivered);
                open.sender.cancel();
                state.open = None;
                self.outbox.put_back(under_way);
                self.tell(&mut state, News::Broken { delivered });
            }
        }
    }

    /// Whether the first frame has gone out by now.
    fn send_frames(&self, open: &mut Open, context: &mut Context<'_>) -> Result<bool, grpcio::Error> {
        let mut first = false;
        loop {
            match Pin::new(&mut open.sender).poll_ready(context) {
                Poll::Pending => return Ok(first),
                Poll::Ready(ready) => ready?,
            }
            if !open.under_way.is_empty() {
                self.metrics.messages.add(open.under_way.len() as u64);
                self.metrics.bytes.add(open.under_way.iter().map(|message| message.len() as u64).sum());
                open.under_way.clear();
                first |= !std::mem::replace(&mut open.delivered, true);
            }
            if self.seat.barred(self.to) {
                // What waits is from before it was refused.
                self.drop_waiting();
            }
            let Some(messages) = self.outbox.take() else { return Ok(first) };
            let mut frame = RaftFrame::new();
            if let Some(hello) = open.hello.take() {
                frame.set_hello(hello);
            }
            frame.set_messages(messages.iter().map(|message| message.to_vec()).collect());
            open.under_way = messages;
            self.metrics.waiting.set(self.outbox.len() as f64);
            Pin::new(&mut open.sender).start_send((frame, WriteFlags::default()))?;
        }
    }

    fn tell(&self, state: &mut State, news: News) {
        state.news = Some(news);
        self.told.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Lane {
    /// A frame has gone out, or the stream is over.
    fn wake(self: Arc<Self>) {
        self.pump();
    }
}
