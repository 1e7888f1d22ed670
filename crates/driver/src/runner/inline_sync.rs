//! Whether the raft thread fsyncs by itself.
//!
//! Handing an fsync to `raft-sync` and hearing of its end wakes two threads: more than a fast disk takes for the fsync. While nothing else
//! waits, the raft thread does it. It must not be deaf for long, nor keep proposals from being packed behind an fsync that is under way: one
//! slow fsync, or a queue that grew meanwhile, sends the next ones to `raft-sync`.

use std::time::Duration;

/// An fsync that took longer is slow: well below any election timeout.
const SLOW: Duration = Duration::from_millis(20);
/// Fsyncs that `raft-sync` does after a queue has grown.
const PAUSE_BUSY: u32 = 64;
/// The first pause after a slow one; each further slow one doubles it.
const PAUSE_SLOW_MIN: u32 = 64;
const PAUSE_SLOW_MAX: u32 = 1 << 20;
/// So many fast ones in a row, and the disk counts as fast again.
const FAST_AGAIN: u32 = 1_024;

/// What was seen of the last ones.
pub(super) struct InlineSync {
    pause: u32,
    pause_slow: u32,
    fast: u32,
}

impl InlineSync {
    pub(super) fn new() -> Self {
        Self { pause: 0, pause_slow: PAUSE_SLOW_MIN, fast: 0 }
    }

    /// Whether the next fsync may be done on the raft thread.
    pub(super) fn allows(&self) -> bool {
        self.pause == 0
    }

    /// `raft-sync` was given one.
    pub(super) fn note_handed(&mut self) {
        self.pause = self.pause.saturating_sub(1);
    }

    /// One was done, and this is how long it took and whether work has piled up behind it.
    pub(super) fn note(&mut self, took: Duration, piled_up: bool) {
        if took > SLOW {
            self.pause = self.pause_slow;
            self.pause_slow = (self.pause_slow * 2).min(PAUSE_SLOW_MAX);
            self.fast = 0;
            return;
        }
        self.fast += 1;
        if self.fast == FAST_AGAIN {
            (self.fast, self.pause_slow) = (0, PAUSE_SLOW_MIN);
        }
        if piled_up {
            self.pause = PAUSE_BUSY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(inline: &mut InlineSync) -> u32 {
        let mut handed = 0;
        while !inline.allows() {
            inline.note_handed();
            handed += 1;
        }
        handed
    }

    #[test]
    fn a_slow_disk_is_left_to_the_other_thread_for_longer_each_time() {
        let mut inline = InlineSync::new();
        assert_eq!(pause(&mut inline), 0);
        inline.note(SLOW, false);
        assert_eq!(pause(&mut inline), 0, "at the limit is not over it");
        inline.note(SLOW * 2, false);
        assert_eq!(pause(&mut inline), PAUSE_SLOW_MIN);
        inline.note(Duration::from_secs(1), false);
        assert_eq!(pause(&mut inline), 2 * PAUSE_SLOW_MIN);
        inline.note(Duration::from_micros(100), true);
        assert_eq!(pause(&mut inline), PAUSE_BUSY);
        for _ in 0..40 {
            inline.note(Duration::from_secs(1), false);
        }
        assert_eq!(pause(&mut inline), PAUSE_SLOW_MAX);
        (0..FAST_AGAIN).for_each(|_| inline.note(SLOW, false));
        inline.note(SLOW * 2, false);
        assert_eq!(pause(&mut inline), PAUSE_SLOW_MIN, "a disk that is fast again is asked again");
    }
}
