//! GPUs of this machine, and which attempt has which. A GPU belongs to one attempt at a time, from before its process is started until
//! nothing of it runs any more.
//!
//! They are found by nvidia-smi, or named by a setting for tests. The scheduler counts; here it is decided *which*.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use crate::clock::boottime_ms;
use crate::executor::LeaseId;
use crate::limits::{GPUS_MAX, GPU_LOOK_MS, GPU_MEMORIES_MAX, GPU_WAIT_MS};
use crate::plan::{exit_code, PlanError};
use crate::probe;
use crate::table::lock;

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpu {
    /// As CUDA_VISIBLE_DEVICES counts.
    pub index: u32,
    /// As its driver names it.
    pub model: String,
    /// Of its own.
    pub memory_bytes: u64,
}

/// What nvidia-smi is asked for; `parse_nvidia_smi` reads the answer.
const QUERY: [&str; 2] = ["--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"];

/// Reads nvidia-smi's lines `index, name, memory in MiB`. A GPU whose memory it cannot tell (`[N/A]`) has 0 bytes.
pub fn parse_nvidia_smi(text: &str) -> Result<Vec<Gpu>, String> {
    let mut gpus = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let unreadable = || format!("nvidia-smi says `{line}`, which is not index, name, memory");
        // A name may have commas in it: the ends are split off.
        let (index, rest) = line.split_once(',').ok_or_else(unreadable)?;
        let (model, memory) = rest.rsplit_once(',').ok_or_else(unreadable)?;
        let index: u32 = index.trim().parse().map_err(|_| unreadable())?;
        let memory_mib: u64 = match memory.trim() {
            text if text.starts_with('[') => 0,
            text => text.parse().map_err(|_| unreadable())?,
        };
        gpus.push(Gpu { index, model: model.trim().to_owned(), memory_bytes: memory_mib.saturating_mul(1 << 20) });
    }
    if gpus.len() > GPUS_MAX {
        return Err(format!("nvidia-smi names {} GPUs; at most {GPUS_MAX} are known here", gpus.len()));
    }
    gpus.sort_by_key(|gpu| gpu.index);
    if gpus.windows(2).any(|pair| pair[0].index == pair[1].index) {
        return Err("nvidia-smi names an index twice".to_owned());
    }
    Ok(gpus)
}

/// Reads `N[:MODEL[:MEMORY]]`, as in `4:H100:80GiB`; 0 is none.
pub fn parse_simulated(text: &str) -> Result<Vec<Gpu>, String> {
    let mut parts = text.splitn(3, ':');
    let count = parts.next().unwrap_or_default();
    let count: u32 = count.parse().map_err(|_| format!("`{count}` is not a number of GPUs"))?;
    if count as usize > GPUS_MAX {
        return Err(format!("at most {GPUS_MAX} GPUs, is {count}"));
    }
    let model = parts.next().filter(|model| !model.is_empty()).unwrap_or("simulated").to_owned();
    let memory_bytes = parts.next().map_or(Ok(0), bytes)?;
    Ok((0..count).map(|index| Gpu { index, model: model.clone(), memory_bytes }).collect())
}

/// `80GiB`, `512MiB` or a plain number of bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        other => return Err(format!("unit `{other}` of `{text}` is unknown; use KiB, MiB or GiB")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("`{text}` is not a size such as 80GiB"))?;
    number.checked_mul(unit).ok_or_else(|| format!("`{text}` is too large"))
}

/// The GPUs of this machine; none without nvidia-smi. Err: it is there and fails, in one line.
pub fn look() -> Result<Vec<Gpu>, String> {
    let mut command = Command::new("nvidia-smi");
    command.args(QUERY);
    match probe::output_of(command, GPU_LOOK_MS) {
        Ok(text) => parse_nvidia_smi(&text),
        Err(probe::ProbeError::Absent) => Ok(Vec::new()),
        Err(error) => Err(format!("nvidia-smi: {error}")),
    }
}

/// Who has which GPU.
#[derive(Debug, Default)]
pub(crate) struct GpuPool {
    all: Vec<u32>,
    state: Mutex<PoolState>,
}

#[derive(Debug, Default)]
struct PoolState {
    taken: BTreeMap<u32, LeaseId>,
    /// What a task had last: its next attempt gets the same if they are free. In the order of their use, the newest last.
    last: Vec<(String, Vec<u32>)>,
}

impl GpuPool {
    pub(crate) fn new(gpus: &[Gpu]) -> Self {
        Self { all: gpus.iter().map(|gpu| gpu.index).collect(), state: Mutex::default() }
    }

    /// Whether this machine has any.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Takes `count` GPUs. Those of an attempt that is just ending are waited for; `stopped` ends the wait.
    pub(crate) fn take(
        &self,
        lease: &LeaseId,
        count: u32,
        stopped: &dyn Fn() -> bool,
    ) -> Result<GpuLease<'_>, PlanError> {
        if count as usize > self.all.len() {
            let reason = format!("this worker has {} GPUs, the task asks for {count}", self.all.len());
            return Err(PlanError::new(exit_code::OS, reason));
        }
        let deadline = boottime_ms() + GPU_WAIT_MS;
        loop {
            if let Some(indexes) = self.try_take(lease, count) {
                return Ok(GpuLease { pool: self, lease: lease.clone(), indexes, kept: false });
            }
            if stopped() {
                return Err(PlanError::new(exit_code::TRY_AGAIN, "stopped before it was started"));
            }
            if boottime_ms() > deadline {
                let reason = format!("no {count} GPUs of this worker are free, against its own account");
                return Err(PlanError::new(exit_code::TRY_AGAIN, reason));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn try_take(&self, lease: &LeaseId, count: u32) -> Option<Vec<u32>> {
        let mut state = lock(&self.state);
        let free = |index: &u32| !state.taken.contains_key(index);
        let before = state.last.iter().find(|(task, _)| *task == lease.task_id).map(|(_, had)| had.clone());
        let before = before.unwrap_or_default();
        let mut indexes: Vec<u32> = before.iter().copied().filter(free).collect();
        indexes.extend(self.all.iter().copied().filter(|index| free(index) && !before.contains(index)));
        indexes.truncate(count as usize);
        if indexes.len() < count as usize {
            return None;
        }
        indexes.sort_unstable();
        for index in &indexes {
            let other = state.taken.insert(*index, lease.clone());
            assert!(other.is_none(), "a GPU belongs to one attempt at a time");
        }
        if count > 0 {
            state.last.retain(|(task, _)| *task != lease.task_id);
            state.last.push((lease.task_id.clone(), indexes.clone()));
            let excess = state.last.len().saturating_sub(GPU_MEMORIES_MAX);
            state.last.drain(..excess);
        }
        Some(indexes)
    }
}

/// GPUs of one attempt, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct GpuLease<'a> {
    pool: &'a GpuPool,
    lease: LeaseId,
    indexes: Vec<u32>,
    kept: bool,
}

impl GpuLease<'_> {
    /// As CUDA_VISIBLE_DEVICES has them.
    pub(crate) fn visible(&self) -> String {
        self.indexes.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
    }

    /// A process of the attempt does not die: nobody else gets them.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for GpuLease<'_> {
    fn drop(&mut self) {
        if !self.kept {
            lock(&self.pool.state).taken.retain(|_, lease| *lease != self.lease);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(task: &str, epoch: u64) -> LeaseId {
        LeaseId { task_id: task.to_owned(), epoch }
    }

    fn pool(count: u32) -> GpuPool {
        GpuPool::new(&parse_simulated(&count.to_string()).expect("a number"))
    }

    const NEVER: &dyn Fn() -> bool = &|| false;
    const NOW: &dyn Fn() -> bool = &|| true;

    #[test]
    fn what_nvidia_smi_prints_is_read() {
        let text = "1, NVIDIA A100-SXM4-80GB, 81920\n0, NVIDIA H100, special, 1024\n2, Tegra, [N/A]\n\n";
        let gpus = parse_nvidia_smi(text).expect("well formed");
        let seen: Vec<_> = gpus.iter().map(|gpu| (gpu.index, gpu.model.as_str(), gpu.memory_bytes)).collect();
        let wanted = [(0, "NVIDIA H100, special", 1 << 30), (1, "NVIDIA A100-SXM4-80GB", 80 << 30), (2, "Tegra", 0)];
        assert_eq!(seen, wanted);
        assert_eq!(parse_nvidia_smi("").expect("no GPU"), []);
        for wrong in ["No devices were found", "0, a", "x, a, 1", "0, a, much", "0, a, 1\n0, b, 1"] {
            assert!(parse_nvidia_smi(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn simulated_gpus_are_a_number_a_model_and_a_size() {
        let gpus = parse_simulated("2:H100:80GiB").expect("well formed");
        assert_eq!((gpus.len(), gpus[1].index, gpus[1].model.as_str(), gpus[1].memory_bytes), (2, 1, "H100", 80 << 30));
        assert_eq!(parse_simulated("0").expect("none"), []);
        assert_eq!(parse_simulated("1").expect("one")[0].model, "simulated");
        for wrong in ["", "many", "2:H100:80GB", "2:H100:x", "5000", "1::99999999999999GiB"] {
            assert!(parse_simulated(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_gpu_belongs_to_one_attempt_and_is_free_when_that_ends() {
        let pool = pool(3);
        let first = pool.take(&lease("a", 1), 2, NEVER).expect("free");
        let second = pool.take(&lease("b", 2), 1, NEVER).expect("free");
        assert_eq!((first.visible(), second.visible()), ("0,1".to_owned(), "2".to_owned()));
        let refused = pool.take(&lease("c", 3), 1, NOW).expect_err("none is free");
        assert_eq!(refused.code, exit_code::TRY_AGAIN);
        drop(first);
        assert_eq!(pool.take(&lease("c", 3), 2, NOW).expect("free again").visible(), "0,1");
        assert_eq!(pool.take(&lease("d", 4), 4, NOW).expect_err("too many").code, exit_code::OS);
        assert_eq!(pool.take(&lease("e", 5), 0, NOW).expect("none asked for").visible(), "");
    }

    #[test]
    fn the_next_attempt_of_a_task_gets_the_same_gpus_if_they_are_free() {
        let pool = pool(4);
        let first = pool.take(&lease("a", 1), 1, NEVER).expect("free");
        let second = pool.take(&lease("b", 2), 2, NEVER).expect("free");
        assert_eq!(second.visible(), "1,2");
        drop((first, second));
        assert_eq!(pool.take(&lease("b", 3), 2, NEVER).expect("free").visible(), "1,2");
        let other = pool.take(&lease("c", 4), 2, NEVER).expect("free");
        assert_eq!(other.visible(), "0,1");
        assert_eq!(pool.take(&lease("b", 5), 2, NEVER).expect("free").visible(), "2,3", "one of them is taken");
    }

    #[test]
    fn gpus_of_a_process_that_does_not_die_are_not_given_away() {
        let pool = pool(1);
        let mut first = pool.take(&lease("a", 1), 1, NEVER).expect("free");
        first.keep();
        drop(first);
        assert!(pool.take(&lease("b", 2), 1, NOW).is_err());
    }
}
