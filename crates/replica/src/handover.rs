//! An orderly end: leadership goes to another before this replica stops, so that nobody waits for an election.

use std::time::Duration;

use crossbeam::channel::bounded;
use raftgrid_driver::Role;
use slog::{info, warn, Logger};

use crate::node::Replica;

/// Longest wait for somebody to take leadership; after that the others elect one as after a crash.
const HAND_OVER_WAIT: Duration = Duration::from_secs(3);

impl Replica {
    /// Hands leadership to the replica that is most caught up, if this one leads and there is another. Blocks.
    pub fn hand_over(&self, logger: &Logger) {
        let status = self.handle().status();
        if status.role != Role::Leader || status.conf.voters.len() < 2 {
            return;
        }
        let (sender, outcome) = bounded(1);
        self.handle().transfer_leadership(None, Box::new(move |moved| drop(sender.send(moved))));
        match outcome.recv_timeout(HAND_OVER_WAIT) {
            Ok(Ok(to)) => info!(logger, "leadership handed over"; "to" => to),
            Ok(Err(error)) => warn!(logger, "leadership not handed over"; "cause" => %error),
            Err(_) => warn!(logger, "leadership not handed over"; "cause" => "nobody took it in time"),
        }
    }
}
