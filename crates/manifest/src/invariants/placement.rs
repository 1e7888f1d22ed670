//! What must hold of queues and gangs: a queue counts its tasks and what they hold; a gang is on nodes whole or not at all (9).

use std::collections::BTreeMap;

use raftgrid_proto::v1::{QueueRow, Resources, TaskRow};

use crate::read;
use crate::rows::{Rows, RowsError, Table};
use crate::tables::{demand, is_over};

pub(super) fn check_queues(rows: &dyn Rows, tasks: &[TaskRow], broken: &mut Vec<String>) -> Result<(), RowsError> {
    let mut counted: BTreeMap<&str, (u64, u32, Resources)> = BTreeMap::new();
    for row in tasks.iter().filter(|row| !row.get_task().queue.is_empty()) {
        let (open, running, usage) = counted.entry(row.get_task().get_queue()).or_default();
        *open += u64::from(!is_over(row.get_task()));
        if row.open_epoch != 0 {
            let demand = demand(row.get_task());
            *running += 1;
            usage.cpu_milli += demand.cpu_milli;
            usage.memory_bytes += demand.memory_bytes;
            usage.gpus += demand.gpus;
            usage.slots += demand.slots;
        }
    }
    read::each(rows, Table::Queue, &[], &[], |row: QueueRow| {
        let queue = row.get_queue();
        let (open, running, usage) = counted.remove(queue.get_name()).unwrap_or_default();
        if (queue.open_tasks, queue.running_tasks, queue.get_usage()) != (open, running, &usage) {
            let kept = (queue.open_tasks, queue.running_tasks, queue.get_usage());
            broken
                .push(format!("0: queue {} counts {kept:?}, its tasks make {open}, {running}, {usage:?}", queue.name));
        }
        true
    })?;
    let gone = counted.iter().filter(|(_, (open, ..))| *open > 0);
    broken.extend(gone.map(|(name, _)| format!("0: queue {name} has open tasks and no row")));
    Ok(())
}

/// Open members of a gang were opened together; those of them that completed since have made it smaller.
pub(super) fn check_gangs(rows: &dyn Rows, tasks: &[TaskRow], broken: &mut Vec<String>) -> Result<(), RowsError> {
    let mut gangs: BTreeMap<u64, Vec<&TaskRow>> = BTreeMap::new();
    for row in tasks.iter().filter(|row| row.gang.is_some()) {
        gangs.entry(row.job_sequence).or_default().push(row);
    }
    for (job_sequence, members) in gangs {
        let Some(job) = read::job(rows, job_sequence)? else { continue };
        let id = job.get_job().get_job_id();
        let generation = job.get_job().gang_generation;
        let of_now = |row: &&&TaskRow| row.get_task().get_gang_place().generation == generation;
        let open: Vec<&&TaskRow> = members.iter().filter(|row| row.open_epoch != 0).collect();
        if !open.iter().all(&of_now) || open.windows(2).any(|pair| pair[0].open_epoch != pair[1].open_epoch) {
            broken.push(format!("9: members of gang {id} on nodes were not placed together"));
        }
        let min = members.first().map_or(0, |row| row.get_gang().min_members) as usize;
        let placed = members.iter().filter(of_now).count();
        if !open.is_empty() && placed < min {
            broken.push(format!("9: gang {id} was placed with {placed} of at least {min} members"));
        }
    }
    Ok(())
}
