//! Tasks that are over while not all that wait for them were told, since one command tells only so many. Proposes ResolveDependents.

use raftgrid_proto::v1::{Command_oneof_kind, ResolveDependents};

use crate::limits::UNRESOLVED_PER_STEP_MAX;
use crate::moment::Moment;
use crate::outbox::{Outbox, Subject};

pub(crate) fn step(moment: &Moment<'_>, outbox: &mut Outbox) {
    for task in moment.view.unresolved.iter().take(UNRESOLVED_PER_STEP_MAX) {
        let subject = Subject::Unresolved(*task);
        if outbox.free(&subject) {
            let resolve = ResolveDependents { task_sequence: *task, ..ResolveDependents::default() };
            outbox.put(subject, Command_oneof_kind::resolve_dependents(resolve));
        }
    }
}
