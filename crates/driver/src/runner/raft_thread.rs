//! Thread `raft`: owns the core and the log. It waits for an input or the clock, and takes turns. Ticks that were missed collapse into one.

use std::time::{Duration, Instant};

use crossbeam::select;
use slog::Logger;

use super::die;
use super::raft_turn::RaftTurn;
use crate::traits::{LogStore, Observer, Transport};

pub(super) struct RaftThread<L: LogStore, T, O> {
    pub(super) turn: RaftTurn<L, T, O>,
    pub(super) logger: Logger,
}

impl<L: LogStore, T: Transport, O: Observer> RaftThread<L, T, O> {
    pub(super) fn run(mut self) {
        let tick = Duration::from_millis(self.turn.config.tick_ms);
        let mut next_tick = Instant::now() + tick;
        loop {
            if self.wait(next_tick) {
                break;
            }
            let began = Instant::now();
            if self.turn.take_inputs() {
                break;
            }
            let now = Instant::now();
            if now >= next_tick {
                self.turn.tick();
                // From when it was due, not from now: being woken a little late each time must not make elections a third longer. Of ticks
                // that were missed altogether one is made.
                next_tick += tick;
                if next_tick <= now {
                    next_tick = now + tick;
                }
            }
            if let Err(error) = self.turn.turn() {
                die(&self.logger, &error.to_string());
            }
            self.turn.metrics.turn_seconds.observe(began.elapsed().as_secs_f64());
        }
        self.turn.end();
    }

    /// Waits for an input or the next tick, and takes that input. True: stop.
    fn wait(&mut self, until: Instant) -> bool {
        let timeout = until.saturating_duration_since(Instant::now());
        let turn = &mut self.turn;
        select! {
            recv(turn.inbox.completions) -> message => match message {
                Ok(completion) => return turn.completion(completion),
                Err(_) => return true,
            },
            recv(turn.inbox.peers) -> message => if let Ok(input) = message { turn.peer(input) },
            recv(turn.inbox.clients) -> message => if let Ok(input) = message { turn.client(input) },
            default(timeout) => {}
        }
        false
    }
}
