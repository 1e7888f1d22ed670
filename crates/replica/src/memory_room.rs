//! A bound on bytes that are in memory at a time for one kind of work: who finds no room waits. Held for a moment, by threads of a pool.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Room for so many bytes.
#[derive(Debug)]
pub(crate) struct MemoryRoom {
    taken: Mutex<u64>,
    given_back: Condvar,
    bytes_max: u64,
}

/// Bytes that are taken; dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    room: &'a MemoryRoom,
    bytes: u64,
}

impl MemoryRoom {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { taken: Mutex::new(0), given_back: Condvar::new(), bytes_max }
    }

    /// Waits for room. More than there is room for at all is taken alone.
    pub(crate) fn take(&self, bytes: u64) -> Taken<'_> {
        let full = |taken: &mut u64| *taken > 0 && *taken + bytes > self.bytes_max;
        let mut taken = self.given_back.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        *taken += bytes;
        Taken { room: self, bytes }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.room.lock() -= self.bytes;
        self.room.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn never_more_than_its_bytes_are_taken_and_everybody_comes_in() {
        let (room, inside, most) = (MemoryRoom::new(100), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for number in 0..16_u64 {
                let (room, inside, most) = (&room, &inside, &most);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let bytes = 20 + number;
                        let _taken = room.take(bytes);
                        most.fetch_max(inside.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(bytes, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((20..=100).contains(&most.load(Ordering::SeqCst)), "{most:?}");
        // Alone, beyond the bound.
        assert_eq!(room.take(1_000).bytes, 1_000);
        assert_eq!(*room.lock(), 0);
    }
}
