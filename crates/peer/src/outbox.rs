//! The bounded queue in front of one peer. Putting never waits; what does not fit is refused.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::limits;

#[derive(Default)]
struct State {
    messages: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
}

/// Encoded messages for one peer.
#[derive(Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    filled: Condvar,
}

impl Outbox {
    /// False: full, closed, or larger than any frame may be.
    pub(crate) fn put(&self, message: Bytes) -> bool {
        let mut state = self.lock();
        let fits = message.len() <= limits::MESSAGE_BYTES_MAX
            && state.messages.len() < limits::OUTBOX_MESSAGES_MAX
            && state.bytes + message.len() <= limits::OUTBOX_BYTES_MAX;
        if state.closed || !fits {
            return false;
        }
        state.bytes += message.len();
        state.messages.push_back(message);
        self.filled.notify_one();
        true
    }

    /// The messages of the next frame, in order; waits for one. None: closed.
    pub(crate) fn take(&self) -> Option<Vec<Bytes>> {
        let mut state = self.lock();
        while state.messages.is_empty() && !state.closed {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return None;
        }
        let mut frame = Vec::new();
        let mut bytes = 0;
        while let Some(message) = state.messages.front() {
            let full = frame.len() >= limits::FRAME_MESSAGES_MAX || bytes + message.len() > limits::FRAME_BYTES_MAX;
            if full && !frame.is_empty() {
                break;
            }
            bytes += message.len();
            frame.extend(state.messages.pop_front());
        }
        state.bytes -= bytes;
        Some(frame)
    }

    /// Messages that wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().messages.len()
    }

    /// Waits until it is closed, or for `time`; true: closed.
    pub(crate) fn closed_within(&self, time: std::time::Duration) -> bool {
        let state = self.lock();
        let waited = self.filled.wait_timeout_while(state, time, |state| !state.closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    /// Drops what waits: it is old by the time there is a connection again, and raft sends anew. How many.
    pub(crate) fn clear(&self) -> usize {
        let mut state = self.lock();
        let dropped = state.messages.len();
        state.messages.clear();
        state.bytes = 0;
        dropped
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_outbox_refuses_and_a_frame_is_bounded() {
        let outbox = Outbox::default();
        let mut taken = 0;
        while outbox.put(Bytes::from_static(b"abc")) {
            taken += 1;
        }
        assert_eq!(taken, limits::OUTBOX_MESSAGES_MAX);
        assert_eq!(outbox.take().map(|frame| frame.len()), Some(limits::FRAME_MESSAGES_MAX));
        assert!(outbox.put(Bytes::from_static(b"abc")), "there is room again");
        assert_eq!(outbox.clear(), limits::OUTBOX_MESSAGES_MAX - limits::FRAME_MESSAGES_MAX + 1);
    }

    #[test]
    fn bytes_are_bounded_too_and_a_large_message_goes_alone() {
        let outbox = Outbox::default();
        let large = Bytes::from(vec![0; limits::FRAME_BYTES_MAX + 1]);
        let mut taken = 0;
        while outbox.put(large.clone()) {
            taken += 1;
        }
        assert_eq!(taken, limits::OUTBOX_BYTES_MAX / large.len());
        assert_eq!(outbox.take().map(|frame| frame.len()), Some(1));
        assert!(!outbox.put(Bytes::from(vec![0; limits::MESSAGE_BYTES_MAX + 1])));
        outbox.close();
        assert_eq!(outbox.take(), None);
        assert!(!outbox.put(Bytes::new()));
    }
}
