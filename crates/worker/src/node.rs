//! What this machine is and how busy it is, from /proc.

use raftgrid_proto::v1::{Gpu, Label, Node, Resources};

use crate::config::WorkerConfig;

/// The description that goes with a registration.
pub(crate) fn describe(config: &WorkerConfig) -> Node {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let mut capacity = Resources::new();
    capacity.set_cpu_milli(cores * 1_000);
    capacity.set_memory_bytes(memory().map_or(0, |(total, _)| total));
    capacity.set_slots(config.slots_or_cores());
    capacity.set_gpus(u32::try_from(config.gpus.len()).unwrap_or(u32::MAX));
    let mut node = Node::new();
    node.set_node_id(config.node_id.clone());
    node.set_address(rustix::system::uname().nodename().to_string_lossy().into_owned());
    node.set_cloud_provider(config.cloud_provider.clone());
    node.set_region(config.region.clone());
    node.set_labels(labels(config));
    node.set_gpus(config.gpus.iter().map(gpu).collect());
    node.set_capacity(capacity);
    node.set_version(config.version.clone());
    node.set_unable(config.unable.iter().cloned().collect());
    node
}

fn gpu(gpu: &crate::gpus::Gpu) -> Gpu {
    Gpu { model: gpu.model.clone(), memory_bytes: gpu.memory_bytes, ..Gpu::default() }
}

/// Those of the configuration, and what the machine is where they do not say it.
fn labels(config: &WorkerConfig) -> protobuf::RepeatedField<Label> {
    let mut labels = config.labels.clone();
    for (key, value) in [("arch", std::env::consts::ARCH), ("os", std::env::consts::OS)] {
        if !labels.iter().any(|label| label.get_key() == key) {
            labels.push(Label { key: key.to_owned(), value: value.to_owned(), ..Label::default() });
        }
    }
    labels.into()
}

/// (total, available) bytes of memory.
fn memory() -> Option<(u64, u64)> {
    memory_of(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn memory_of(meminfo: &str) -> Option<(u64, u64)> {
    let field = |name: &str| -> Option<u64> {
        let rest = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        rest.trim_start_matches(':').split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some((field("MemTotal")?, field("MemAvailable")?))
}

/// (busy, all) clock ticks of all cores since boot.
fn processor_of(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().take(8).map_while(|word| word.parse().ok()).collect();
    let all = ticks.iter().sum::<u64>();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((all - idle, all))
}

/// Shares in use.
#[derive(Default)]
pub(crate) struct Usage {
    last: (u64, u64),
}

impl Usage {
    /// (share of the cores since the last call, share of the memory now), each 0..=1; 0 where it cannot be read.
    pub(crate) fn now(&mut self) -> (f64, f64) {
        let ticks =
            std::fs::read_to_string("/proc/stat").ok().and_then(|stat| processor_of(&stat)).unwrap_or(self.last);
        let (busy, all) = (ticks.0.saturating_sub(self.last.0), ticks.1.saturating_sub(self.last.1));
        self.last = ticks;
        let processor = if all == 0 { 0.0 } else { (busy as f64 / all as f64).clamp(0.0, 1.0) };
        let memory = memory().map_or(0.0, |(total, available)| 1.0 - available as f64 / total.max(1) as f64);
        (processor, memory.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_its_gpus_and_what_machine_it_is() {
        let mut config = WorkerConfig::new("n", "/d", "/s");
        config.gpus = crate::gpus::parse_simulated("2:H100:80GiB").expect("well formed");
        config.labels.push(Label { key: "os".to_owned(), value: "mine".to_owned(), ..Label::default() });
        let node = describe(&config);
        assert_eq!((node.get_capacity().get_gpus(), node.get_gpus()[1].get_model()), (2, "H100"));
        let label = |key: &str| node.get_labels().iter().find(|it| it.get_key() == key).map(|it| it.get_value());
        assert_eq!((label("arch"), label("os")), (Some(std::env::consts::ARCH), Some("mine")));
    }

    #[test]
    fn the_files_of_the_kernel_are_read() {
        let meminfo = "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    250 kB\n";
        assert_eq!(memory_of(meminfo), Some((1_024_000, 256_000)));
        let stat = "cpu  10 20 30 400 50 6 7 8 900 1000\ncpu0 1 2\n";
        assert_eq!(processor_of(stat), Some((81, 531)));
        assert_eq!(processor_of("nonsense"), None);
    }
}
