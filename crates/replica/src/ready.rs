//! Whether clients should be sent to this replica.

use std::time::Duration;

use crossbeam::channel::bounded;

use crate::limits::READY_WAIT_MS;
use crate::node::Replica;
use crate::views::end_of_entry;

impl Replica {
    /// It knows a leader, has applied what it knew to be committed when it was asked, and its disk has room. An error says what is missing.
    /// Waits a little for the apply thread: under load something committed is always on its way.
    pub fn ready(&self) -> Result<(), String> {
        if self.proposals.room.seen().0 {
            return Err("the disk is almost full".to_owned());
        }
        let status = self.handle.status();
        if status.leader == 0 {
            return Err("no leader is known".to_owned());
        }
        let clock = &self.reads.clock;
        let (wanted, give_up_ms) = (end_of_entry(status.commit), clock.monotonic_ms() + READY_WAIT_MS);
        loop {
            let (_, position) = self.views.view();
            if position >= wanted {
                return Ok(());
            }
            let left = give_up_ms.saturating_sub(clock.monotonic_ms());
            if left == 0 {
                return Err(format!("{} entries are committed and not applied", (wanted >> 16) - (position >> 16)));
            }
            let (sender, changed) = bounded(1);
            let wait = Duration::from_millis(left);
            let woken = move |_| {
                // Whoever asked may have given up.
                let _ = sender.send(());
            };
            self.ring.changed_after(position, None, wait, Box::new(woken));
            // The timer of the ring may be gone with the replica.
            let _ = changed.recv_timeout(wait);
        }
    }
}
