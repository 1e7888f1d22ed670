//! Deadlines of rounds: one that is over seals its round, extends it, or ends the job's patience. Proposes SealRound and ExtendRound; which of
//! them takes effect, and once, is decided where they are applied.

use raftgrid_manifest::RoundPolicy;
use raftgrid_proto::v1::{Command_oneof_kind, ExtendRound, JobPhase, SealRound};

use crate::moment::Moment;
use crate::outbox::{Outbox, Subject};
use crate::types::Millis;
use crate::view::{JobView, RoundView};

/// One step; the answer is when to look again.
pub(crate) fn step(moment: &Moment<'_>, outbox: &mut Outbox) -> Option<Millis> {
    let mut wake: Option<Millis> = None;
    for (sequence, job) in &moment.view.jobs {
        if job.row.get_job().phase != JobPhase::JOB_RUNNING {
            continue;
        }
        let (policy, Some(head)) = (RoundPolicy::of(&job.row), job.head()) else { continue };
        let Some(deadline) = policy.deadline(&head.row) else { continue };
        if moment.cluster_ms() < deadline {
            let at = moment.local(deadline);
            wake = Some(wake.map_or(at, |wake| wake.min(at)));
            continue;
        }
        let subject = Subject::Job(*sequence);
        if outbox.free(&subject) {
            outbox.put(subject, command(job, &policy, head));
        }
    }
    wake
}

fn command(job: &JobView, policy: &RoundPolicy, head: &RoundView) -> Command_oneof_kind {
    let (job_id, round, extension) = (job.row.get_job().job_id.clone(), head.row.round, head.row.extensions);
    if head.row.accepted >= policy.minimum {
        Command_oneof_kind::seal_round(SealRound { job_id, round, extension, ..SealRound::default() })
    } else {
        Command_oneof_kind::extend_round(ExtendRound { job_id, round, extension, ..ExtendRound::default() })
    }
}
