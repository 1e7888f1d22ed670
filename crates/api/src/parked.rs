//! Uploads whose stream broke off wait a while for their rest: whoever sends the same again goes on at the byte that is here.
//!
//! In memory, and the bytes in the replica's incoming files: a replica that was started anew has nothing of before. What was announced must be
//! the same to the last bit (`Key`): size, SHA-256, whose it is and what for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::limits::{PARKED_FOR, PARKED_MAX};
use crate::streams::Receiver;

/// SHA-256 of who sends, and of what the first chunk says.
pub(crate) type Key = [u8; 32];

/// Where an upload is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing of it is here.
    Nowhere,
    /// So many bytes are here, and wait.
    Waits(u64),
    /// A stream of it is open, or has broken unnoticed.
    Comes,
}

/// The uploads that wait.
#[derive(Default)]
pub(crate) struct Parked {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<Key, (Receiver, Instant)>,
    /// Streams that are open.
    coming: BTreeMap<Key, usize>,
}

/// A stream is open as long as this is there.
pub(crate) struct Coming {
    parked: Arc<Parked>,
    key: Key,
}

impl Drop for Coming {
    fn drop(&mut self) {
        let mut state = self.parked.lock();
        if let Some(count) = state.coming.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                state.coming.remove(&self.key);
            }
        }
    }
}

impl Parked {
    /// What is here of the upload.
    pub(crate) fn place(&self, key: &Key) -> Place {
        let state = self.lock();
        match state.waiting.get(key) {
            Some((receiver, _)) => Place::Waits(receiver.received()),
            None if state.coming.contains_key(key) => Place::Comes,
            None => Place::Nowhere,
        }
    }

    /// A stream of it begins.
    pub(crate) fn comes(self: &Arc<Self>, key: Key) -> Coming {
        *self.lock().coming.entry(key).or_default() += 1;
        Coming { parked: self.clone(), key }
    }

    /// What waits, if a stream that begins at `offset` goes on there.
    pub(crate) fn take(&self, key: &Key, offset: u64) -> Option<Receiver> {
        let mut state = self.lock();
        let goes_on = state.waiting.get(key).is_some_and(|(receiver, _)| receiver.received() == offset);
        goes_on.then(|| state.waiting.remove(key)).flatten().map(|(receiver, _)| receiver)
    }

    /// Its stream broke off. What comes back is to be dropped where a disk may be waited for.
    #[must_use]
    pub(crate) fn park(&self, key: Key, receiver: Receiver) -> Vec<Receiver> {
        let mut state = self.lock();
        let mut gone = over(&mut state);
        gone.extend(state.waiting.insert(key, (receiver, Instant::now())).map(|(receiver, _)| receiver));
        while state.waiting.len() > PARKED_MAX {
            let oldest = state.waiting.iter().min_by_key(|(_, (_, since))| *since).map(|(key, _)| *key);
            let Some((receiver, _)) = oldest.and_then(|key| state.waiting.remove(&key)) else { break };
            gone.push(receiver);
        }
        gone
    }

    /// What has waited too long.
    #[must_use]
    pub(crate) fn over(&self) -> Vec<Receiver> {
        over(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn over(state: &mut State) -> Vec<Receiver> {
    let old: Vec<Key> =
        state.waiting.iter().filter(|(_, (_, since))| since.elapsed() >= PARKED_FOR).map(|(key, _)| *key).collect();
    old.into_iter().filter_map(|key| state.waiting.remove(&key)).map(|(receiver, _)| receiver).collect()
}
