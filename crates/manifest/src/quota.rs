//! Whether a queue may hold more. The guard of `Assign` and the scheduler call the same function.

use std::fmt;

use raftgrid_proto::v1::{Queue, Resources};

/// The limit of its queue that keeps a task waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverQuota {
    /// The queue.
    pub queue: String,
    /// `running tasks`, `slots`, `cpu_milli`, `memory_bytes` or `gpus`.
    pub resource: &'static str,
    /// What the task asks for.
    pub wanted: u64,
    /// What the queue's tasks hold.
    pub used: u64,
    /// The limit.
    pub quota: u64,
}

impl fmt::Display for OverQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, resource, wanted, used, quota } = self;
        write!(f, "quota of queue {queue}: {resource}: {used} of {quota} in use, wanted {wanted}")
    }
}

/// Whether tasks that hold `usage` in `running` leases leave room for `wanted` in `tasks` more. A limit of 0 is none; the range of the
/// counters always is one.
pub fn within_quota(
    queue: &Queue,
    usage: &Resources,
    running: u64,
    wanted: &Resources,
    tasks: u64,
) -> Result<(), OverQuota> {
    let quota = queue.get_quota();
    let limit = |quota: u64, range: u64| if quota == 0 { range } else { quota };
    let small = u64::from(u32::MAX);
    let checks = [
        ("running tasks", tasks, running, limit(u64::from(queue.max_running), small)),
        ("slots", u64::from(wanted.slots), u64::from(usage.slots), limit(u64::from(quota.slots), small)),
        ("gpus", u64::from(wanted.gpus), u64::from(usage.gpus), limit(u64::from(quota.gpus), small)),
        ("cpu_milli", wanted.cpu_milli, usage.cpu_milli, limit(quota.cpu_milli, u64::MAX)),
        ("memory_bytes", wanted.memory_bytes, usage.memory_bytes, limit(quota.memory_bytes, u64::MAX)),
    ];
    for (resource, wanted, used, quota) in checks {
        if wanted > 0 && used.checked_add(wanted).is_none_or(|sum| sum > quota) {
            return Err(OverQuota { queue: queue.name.clone(), resource, wanted, used, quota });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds_by_itself_and_0_is_none() {
        let quota = Resources { cpu_milli: 1_000, gpus: 2, ..Resources::default() };
        let mut queue = Queue { name: "q".into(), max_running: 3, ..Queue::default() };
        queue.set_quota(quota);
        let want = |cpu_milli, gpus| Resources { cpu_milli, gpus, slots: 1, ..Resources::default() };
        let used = want(600, 1);
        let over = |wanted: Resources, running, tasks| {
            within_quota(&queue, &used, running, &wanted, tasks).err().map(|over| over.resource)
        };
        assert_eq!(over(want(400, 1), 2, 1), None);
        assert_eq!(over(want(401, 1), 2, 1), Some("cpu_milli"));
        assert_eq!(over(want(0, 2), 2, 1), Some("gpus"));
        assert_eq!(over(want(0, 0), 3, 1), Some("running tasks"));
        assert_eq!(over(want(0, 0), 1, 3), Some("running tasks"));
        let full = Resources { memory_bytes: u64::MAX - 1, ..Resources::default() };
        let two = Resources { memory_bytes: 2, ..Resources::default() };
        let over = within_quota(&Queue::default(), &full, 0, &two, 1).expect_err("the counter would overflow");
        assert_eq!(over.resource, "memory_bytes");
    }
}
