//! Which rows a watch looks at: it is woken when one of them changes, and by nothing else.

use crate::keys;
use crate::rows::{Change, Table};

/// Rows whose change matters: a table, and how their keys start.
pub type Watched = Vec<(Table, Vec<u8>)>;

/// Of a task; `sequence`: its row's, if there is a row yet.
pub fn task(task_id: &str, sequence: Option<u64>) -> Watched {
    match sequence {
        Some(sequence) => vec![(Table::Task, keys::number(sequence))],
        None => vec![(Table::TaskById, task_id.as_bytes().to_vec())],
    }
}

/// Of a job and its rounds; `sequence`: its row's, if there is a row yet.
pub fn job(job_id: &str, sequence: Option<u64>) -> Watched {
    match sequence {
        Some(sequence) => vec![(Table::Job, keys::number(sequence)), (Table::Round, keys::number(sequence))],
        None => vec![(Table::JobById, job_id.as_bytes().to_vec())],
    }
}

/// Of a replicated key.
pub fn kv(key: &str) -> Watched {
    vec![(Table::Kv, key.as_bytes().to_vec())]
}

/// Whether one of the changes is of a row that is watched.
pub fn touches(watched: &Watched, changes: &[Change]) -> bool {
    let hit =
        |change: &Change| watched.iter().any(|(table, start)| *table == change.table && change.key.starts_with(start));
    changes.iter().any(hit)
}

#[cfg(test)]
mod tests {
    use raftgrid_proto::v1::{KvPut, SubmitJob, SubmitTask};

    use super::*;
    use crate::commands::MACHINE_VERSION;
    use crate::rows::MemRows;
    use crate::{apply, command, encode_batch, views};

    fn applied(rows: &mut MemRows, index: u64, kind: raftgrid_proto::v1::Command_oneof_kind) -> Vec<Change> {
        let payload = encode_batch(1, vec![command(kind)]);
        let applied = apply(rows, index, &[payload]).expect("it applies");
        rows.write(&applied.changes);
        applied.changes
    }

    #[test]
    fn what_is_watched_is_what_the_commands_write() {
        use raftgrid_proto::v1::Command_oneof_kind as Kind;
        let mut rows = MemRows::default();
        let version = raftgrid_proto::v1::SetMachineVersion { version: MACHINE_VERSION, ..Default::default() };
        applied(&mut rows, 1, Kind::set_machine_version(version));
        let submit = SubmitTask { task_id: "t".into(), task_type: "command".into(), ..SubmitTask::default() };
        let made = applied(&mut rows, 2, Kind::submit_task(submit));
        assert!(touches(&task("t", None), &made) && !touches(&task("u", None), &made));
        let sequence = views::task_row(&rows, "t").expect("memory").map(|row| row.sequence);
        assert!(touches(&task("t", sequence), &made) && !touches(&task("u", Some(77)), &made));
        let mut job_spec = raftgrid_proto::v1::JobSpec { name: "j".into(), ..Default::default() };
        job_spec.field_type = "command".into();
        job_spec.task_data = b"{}".to_vec();
        let made =
            applied(&mut rows, 3, Kind::submit_job(SubmitJob { spec: Some(job_spec).into(), ..Default::default() }));
        let sequence = views::job_row(&rows, "j").expect("memory").map(|row| row.sequence);
        assert!(sequence.is_some(), "{made:?}");
        assert!(touches(&job("j", None), &made) && touches(&job("j", sequence), &made));
        let put = KvPut { key: "k/1".into(), ..KvPut::default() };
        let made = applied(&mut rows, 4, Kind::kv_put(put));
        assert!(touches(&kv("k/1"), &made) && !touches(&kv("k/2"), &made));
    }
}
