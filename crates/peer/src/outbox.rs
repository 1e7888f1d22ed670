//! The bounded queue in front of one peer. Putting never waits; what does not fit is refused.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
        true
    }

    /// The messages of the next frame, in order. None: there are none, or it is closed.
    pub(crate) fn take(&self) -> Option<Vec<Bytes>> {
        let mut state = self.lock();
        if state.closed || state.messages.is_empty() {
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

    /// Puts the messages of a frame back to the front.
    pub(crate) fn put_back(&self, frame: Vec<Bytes>) {
        let mut state = self.lock();
        for message in frame.into_iter().rev() {
            state.bytes += message.len();
            state.messages.push_front(message);
        }
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
        outbox.put_back(vec![Bytes::from_static(b"1"), Bytes::from_static(b"2")]);
        let again = outbox.take().unwrap_or_default();
        assert_eq!((again[0].as_ref(), again[1].as_ref(), again[2].as_ref()), (&b"1"[..], &b"2"[..], &b"abc"[..]));
        outbox.put_back(again[2..].to_vec());
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
