//! Waiting on a thread of one's own for a future, for so long and no longer. Never on a gRPC thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The future's outcome; None if there is none after `time`. The future is dropped then: whoever began a call ends it.
pub fn within<F: Future + Unpin>(time: Duration, mut future: F) -> Option<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let started = Instant::now();
    loop {
        if let Poll::Ready(outcome) = Pin::new(&mut future).poll(&mut context) {
            return Some(outcome);
        }
        let left = time.saturating_sub(started.elapsed());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::channel::oneshot;

    #[test]
    fn an_outcome_of_another_thread_is_awaited_and_nothing_is_awaited_for_ever() {
        let (sender, receiver) = oneshot::channel();
        let other = std::thread::spawn(move || sender.send(7));
        assert_eq!(within(Duration::from_secs(3600), receiver), Some(Ok(7)));
        assert_eq!(other.join().expect("no panic"), Ok(()));
        let (_kept, receiver) = oneshot::channel::<()>();
        assert_eq!(within(Duration::from_millis(5), receiver), None);
        assert_eq!(within(Duration::ZERO, futures::future::ready(1)), Some(1), "what is there needs no time");
    }
}
