//! What a job's messages say for one round: the optimiser with that round's learning rate, and how contributions are combined.

use raftgrid_proto::v1::{Combine as CombineMessage, Optimizer};

use crate::aggregate::TrainError;
use crate::combine::Combine;
use crate::optimizer::ServerOptimizer;
use crate::schedule::Schedule;

/// The rule of one round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoundRule {
    /// With the round's learning rate: the message's times the schedule's factor, in f64.
    pub optimizer: ServerOptimizer,
    /// Strategy and clipping.
    pub combine: Combine,
}

impl RoundRule {
    /// Checks both messages. `round`: the round that is summed, 0 for the one that makes model 1. Errors: whatever a message has wrong; a
    /// schedule for `fedavg`, whose learning rate is 1.
    pub fn from_proto(optimizer: &Optimizer, combine: &CombineMessage, round: u64) -> Result<Self, TrainError> {
        let mut server = ServerOptimizer::from_proto(optimizer)?;
        if optimizer.has_schedule() {
            let schedule = Schedule::from_proto(optimizer.get_schedule())?;
            if matches!(server, ServerOptimizer::FedAvg(_)) {
                return Err(TrainError::ScheduleUnused(crate::optimizer::FEDAVG));
            }
            server = server.with_learning_rate(server.learning_rate() * schedule.factor(round));
        }
        Ok(Self { optimizer: server, combine: Combine::from_proto(combine)? })
    }
}
