//! Arrays: while fewer elements are open than the window takes, the next ones become tasks. Proposes MaterializeElements.

use raftgrid_manifest::views;
use raftgrid_proto::v1::{Command_oneof_kind, MaterializeElements};

use crate::moment::Moment;
use crate::outbox::{Outbox, Subject};

/// One step. An array goes on when its row changes: when elements became tasks, and when they end.
pub(crate) fn step(moment: &Moment<'_>, outbox: &mut Outbox) {
    for (sequence, job) in &moment.view.jobs {
        let Some((from, count, generation)) = views::next_elements(&job.row) else { continue };
        let subject = Subject::Job(*sequence);
        if outbox.free(&subject) {
            let job_id = job.row.get_job().job_id.clone();
            let next = MaterializeElements { job_id, from, count, generation, ..MaterializeElements::default() };
            outbox.put(subject, Command_oneof_kind::materialize_elements(next));
        }
    }
}
