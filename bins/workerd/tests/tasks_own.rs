//! What an attempt has to itself: GPUs, limits, a virtual environment, a log that is kept. Real processes.

mod harness;

use std::path::Path;
use std::sync::Arc;

use crossbeam::channel::{unbounded, Receiver};
use harness::*;
use raftgrid_proto::v1::{GangPlace, Task};
use raftgrid_worker::executor::{Exit, StopSignal, Why};
use raftgrid_worker::gpus::parse_simulated;
use raftgrid_worker::host::{Exited, Host, ProcessHost};
use raftgrid_worker::{LeaseId, TaskTable, WorkerConfig, WorkerDir};

struct Bench {
    host: ProcessHost,
    exits: Receiver<Exited>,
    plane: Arc<Plane>,
    folder: tempfile::TempDir,
}

fn bench(change: impl FnOnce(&mut WorkerConfig)) -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let plane = plane();
    let (exits_in, exits) = unbounded();
    let dir = WorkerDir::take(folder.path(), &silent()).expect("free");
    let mut config = config(folder.path().to_owned());
    change(&mut config);
    let table = TaskTable::new();
    let host = ProcessHost::new(config, dir, "127.0.0.1:1".to_owned(), plane.clone(), table, exits_in, &silent());
    Bench { host: host.expect("a host"), exits, plane, folder }
}

impl Bench {
    fn launch(&mut self, task: Task) -> LeaseId {
        let lease = LeaseId { task_id: task.task_id.clone(), epoch: task.lease_epoch };
        self.host.launch(&lease, task);
        lease
    }

    fn exit(&self) -> Exit {
        self.exits.recv_timeout(PATIENCE).expect("it ends").exit
    }

    fn run(&mut self, task: Task) -> Exit {
        self.launch(task);
        self.exit()
    }

    fn kept(&self, exit: &Exit) -> String {
        let bytes = self.plane.change(|script| script.kept.get(&exit.log_artifact).cloned());
        String::from_utf8(bytes.unwrap_or_default()).expect("text")
    }
}

fn shell(epoch: u64, line: &str) -> Task {
    task(epoch, "command", &serde_json::json!({"argv": ["sh", "-c", line]}).to_string())
}

fn with_gpus(mut task: Task, gpus: u32) -> Task {
    task.mut_spec().mut_resources().set_gpus(gpus);
    task
}

fn python(epoch: u64, code: &str) -> Task {
    task(epoch, "python", &serde_json::json!({"code": code}).to_string())
}

#[test]
fn tasks_that_run_at_once_never_see_the_same_gpu() {
    let mut bench = bench(|config| config.gpus = parse_simulated("3").expect("a number"));
    let seen = bench.folder.path().join("seen");
    std::fs::create_dir(&seen).expect("writable");
    // Each holds a folder named after each of its GPUs while it runs; mkdir fails if another one holds it.
    let line = format!(
        "cd {} && for g in $(echo $CUDA_VISIBLE_DEVICES | tr , ' '); do mkdir $g || exit 9; done; sleep 0.05; \
         for g in $(echo $CUDA_VISIBLE_DEVICES | tr , ' '); do rmdir $g; echo $g; done",
        seen.display()
    );
    let tasks = 12;
    for epoch in 1..=tasks {
        bench.launch(with_gpus(shell(epoch, &line), 1 + (epoch % 2) as u32));
    }
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..tasks {
        let exit = bench.exit();
        assert_eq!(exit.code, 0, "{exit:?}");
        used.extend(bench.kept(&exit).split_whitespace().map(str::to_owned));
    }
    assert_eq!(used.into_iter().collect::<Vec<_>>(), ["0", "1", "2"], "all of them were given");
}

#[test]
fn a_task_that_asks_for_no_gpu_sees_none_and_one_that_asks_for_too_many_goes_elsewhere() {
    let mut bench = bench(|config| config.gpus = parse_simulated("2").expect("a number"));
    let exit = bench.run(shell(1, "echo \"[$CUDA_VISIBLE_DEVICES]\""));
    assert_eq!(bench.kept(&exit), "[]\n");
    let exit = bench.run(with_gpus(shell(2, "true"), 3));
    assert!(exit.code != 0 && exit.node_failed && exit.reason.contains("has 2 GPUs"), "{exit:?}");
}

#[test]
fn gpus_of_an_attempt_that_is_killed_are_free_for_the_next() {
    let mut bench = bench(|config| config.gpus = parse_simulated("1").expect("a number"));
    let started = bench.folder.path().join("started");
    let lease = bench.launch(with_gpus(shell(1, &format!("echo $$ > {}; sleep 60", started.display())), 1));
    numbers_in(&started, 1);
    bench.launch(with_gpus(shell(2, "echo $CUDA_VISIBLE_DEVICES"), 1));
    bench.host.stop(&lease, StopSignal::Kill, &Why::Fenced);
    let first = bench.exit();
    assert_eq!(first.code, 137, "{first:?}");
    assert_eq!(first.log_artifact, "", "nothing is kept of a lease that is lost");
    let second = bench.exit();
    assert_eq!((second.code, bench.kept(&second).as_str()), (0, "0\n"));
}

#[test]
fn a_task_over_its_memory_limit_fails_and_says_so() {
    let mut bench = bench(|_| ());
    let mut greedy = python(1, "x = bytearray(600 << 20)");
    greedy.mut_spec().mut_limits().set_memory_bytes(256 << 20);
    let exit = bench.run(greedy);
    assert!(exit.code != 0 && exit.reason.contains("over its memory limit of 268435456 bytes"), "{exit:?}");
    let mut modest = python(2, "x = bytearray(16 << 20)");
    modest.mut_spec().mut_limits().set_memory_bytes(256 << 20);
    assert_eq!(bench.run(modest).code, 0);
}

#[test]
fn a_task_over_its_processor_time_files_or_file_size_fails_and_says_so() {
    let mut bench = bench(|_| ());
    let mut busy = shell(1, "while :; do :; done");
    busy.mut_spec().mut_limits().set_cpu_seconds(1);
    let exit = bench.run(busy);
    assert!(exit.reason.contains("over its limit of 1 s of processor time"), "{exit:?}");
    let mut many = python(2, "fs = [open('/dev/null') for _ in range(100)]");
    many.mut_spec().mut_limits().set_open_files(50);
    let exit = bench.run(many);
    assert!(exit.reason.contains("over its limit of 50 open files"), "{exit:?}");
    let mut large = shell(3, "exec head -c 100000 /dev/zero > large");
    large.mut_spec().mut_limits().set_file_bytes(1_000);
    let exit = bench.run(large);
    assert!(exit.reason.contains("over its limit of 1000 bytes of a file"), "{exit:?}");
}

#[test]
fn the_log_of_an_attempt_is_kept_before_its_end_is_told_and_an_empty_one_is_not() {
    let mut bench = bench(|_| ());
    let exit = bench.run(shell(1, "echo out; echo err >&2; exit 3"));
    let kept = bench.kept(&exit);
    assert!(kept.contains("out\n") && kept.contains("err\n"), "{kept}");
    assert_eq!(bench.run(shell(2, "true")).log_artifact, "");
}

#[test]
fn a_member_of_a_gang_knows_its_place_and_a_task_where_the_replicas_are() {
    let mut bench = bench(|config| config.endpoints = vec!["a:1".to_owned(), "b:2".to_owned()]);
    let mut member =
        shell(1, "echo $RANK $WORLD_SIZE $MASTER_ADDR $LOCAL_RANK $RAFTGRID_ENDPOINTS $RAFTGRID_LEASE_EPOCH");
    let place = GangPlace { rank: 2, world_size: 4, master_address: "host-a".to_owned(), ..GangPlace::default() };
    member.set_gang_place(place);
    let exit = bench.run(member);
    assert_eq!(bench.kept(&exit), "2 4 host-a 0 a:1,b:2 1\n");
}

/// A package of one module, as a folder that pip can install without any index.
fn package(folder: &Path, name: &str, value: u32) -> String {
    let root = folder.join(format!("{name}-src"));
    std::fs::create_dir_all(&root).expect("writable");
    std::fs::write(root.join(format!("{name}.py")), format!("VALUE = {value}\n")).expect("writable");
    let wheel = folder.join(format!("{name}-1.0-py3-none-any.whl"));
    // A wheel is a zip; Python's own module writes one.
    let script = format!(
        "import zipfile,base64,hashlib\n\
         z=zipfile.ZipFile({wheel:?},'w')\n\
         files={{'{name}.py':'VALUE = {value}\\n','{name}-1.0.dist-info/METADATA':'Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n',\
         '{name}-1.0.dist-info/WHEEL':'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'}}\n\
         record=''\n\
         for n,t in files.items():\n\
         \x20z.writestr(n,t); record+=n+',sha256='+base64.urlsafe_b64encode(hashlib.sha256(t.encode()).digest()).decode().rstrip('=')+','+str(len(t))+'\\n'\n\
         z.writestr('{name}-1.0.dist-info/RECORD',record+'{name}-1.0.dist-info/RECORD,,\\n')\n\
         z.close()\n",
        wheel = wheel.display().to_string(),
    );
    let made = std::process::Command::new("python3").args(["-c", &script]).status().expect("python3 runs");
    assert!(made.success());
    format!("--no-index\n--find-links {}\n{name}==1.0\n", folder.display())
}

#[test]
fn requirements_are_installed_once_and_imported() {
    let wheels = tempfile::tempdir().expect("a folder");
    let requirements = package(wheels.path(), "raftgrid_test_extra", 41);
    let mut bench = bench(|_| ());
    let ask = |epoch, requirements: &str| {
        let mut task = python(epoch, "import raftgrid_test_extra as m, sys; print(m.VALUE, sys.prefix)");
        task.mut_spec().set_requirements(requirements.to_owned());
        task
    };
    // Both at once: one makes it, the other waits for it.
    bench.launch(ask(1, &requirements));
    bench.launch(ask(2, &requirements));
    let (first, second) = (bench.exit(), bench.exit());
    assert_eq!((first.code, second.code), (0, 0), "{first:?} {second:?} {}", bench.kept(&first));
    let logs = [bench.kept(&first), bench.kept(&second)];
    let installed = logs.iter().filter(|log| {
        log.contains("Successfully installed raftgrid_test_extra-1.0")
            || log.contains("Successfully installed raftgrid-test-extra-1.0")
    });
    assert_eq!(installed.count(), 1, "{logs:?}");
    let last = |log: &String| log.lines().last().unwrap_or_default().to_owned();
    assert!(last(&logs[0]).starts_with("41 ") && last(&logs[0]) == last(&logs[1]), "{logs:?}");
    // Without them the module is not there: nothing was installed into the machine's Python.
    let mut plain = ask(3, "");
    plain.mut_spec().clear_requirements();
    let exit = bench.run(plain);
    assert!(exit.reason.contains("No module named 'raftgrid_test_extra'"), "{exit:?}");
    // A broken environment is made again.
    let folder =
        std::fs::read_dir(bench.folder.path().join("venvs")).expect("there").flatten().find(|it| it.path().is_dir());
    std::fs::remove_file(folder.expect("one").path().join("raftgrid-complete")).expect("complete");
    let again = bench.run(ask(4, &requirements));
    assert!(again.code == 0 && bench.kept(&again).contains("Successfully installed"), "{again:?}");
}

#[test]
fn requirements_that_cannot_be_met_fail_the_task_with_one_line_and_pips_words_in_its_log() {
    let mut bench = bench(|_| ());
    let mut task = python(1, "print('never')");
    task.mut_spec().set_requirements("--no-index\nraftgrid-test-nothing==9\n".to_owned());
    let exit = bench.run(task);
    assert!(exit.code != 0 && exit.reason.starts_with("requirements: failed to install: ERROR:"), "{exit:?}");
    let log = bench.kept(&exit);
    assert!(log.contains("raftgrid-test-nothing") && !log.contains("never\n"), "{log}");
}

#[test]
fn requirements_may_be_a_file_of_the_bundle() {
    let wheels = tempfile::tempdir().expect("a folder");
    let requirements = package(wheels.path(), "raftgrid_test_file", 7);
    let mut bench = bench(|_| ());
    let tar = tar_of(&[("main.py", "import raftgrid_test_file as m; print(m.VALUE)"), ("reqs.txt", &requirements)]);
    bench.plane.change(|script| script.artifact = tar);
    let mut task = task(1, "python", r#"{"script":"main.py"}"#);
    task.mut_spec().set_bundle_artifact("9".to_owned());
    task.mut_spec().set_requirements_file("reqs.txt".to_owned());
    let exit = bench.run(task.clone());
    assert!(exit.code == 0 && bench.kept(&exit).ends_with("7\n"), "{exit:?} {}", bench.kept(&exit));
    task.set_lease_epoch(2);
    task.mut_spec().set_requirements_file("../elsewhere".to_owned());
    let exit = bench.run(task);
    assert!(matches!(exit.code, 65 | 66) && !exit.node_failed, "{exit:?}");
}
