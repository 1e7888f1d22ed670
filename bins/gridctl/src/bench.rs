//! `gridctl bench`: our control plane beside etcd, in one run, round by round in turn. A benchmark, never a test: it decides nothing.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use raftgrid_proto::v1::Consistency;
use serde_json::{json, Value};

use crate::bench_failover;
use crate::bench_fetch;
use crate::bench_life::{self, Load};
use crate::bench_load::{Connections, Seen};
use crate::bench_model;
use crate::bench_python::PythonWorkers;
use crate::bench_ray::Ray;
use crate::bench_scale;
use crate::bench_side::{Side, What};
use crate::bench_spread::Spread;
use crate::bench_value;
use crate::cli_bench::{Bench, BenchFailover, BenchLife, BenchScale, BenchTask};
use crate::context::{Context, Interrupt};
use crate::failure::{Failure, Result};
use crate::limits::BENCH_IDLE_TIME;

pub(crate) fn run(context: &Context, command: Bench) -> Result<()> {
    match command {
        Bench::Task(args) => task(context, &args),
        Bench::Failover(args) => failover(context, &args),
        Bench::Life(args) => life(context, &args),
        Bench::Scale(args) => scale(context, &args),
        Bench::Model(args) => bench_model::model(context, &args),
        Bench::Sum(args) => bench_model::sum(context, &args),
        Bench::Fetch(args) => bench_fetch::fetch(context, &args),
        Bench::Value(args) => bench_value::value(context, &args),
        Bench::ValueClient(args) => bench_value::client(&args),
    }
}

/// What one side did in one round.
struct Round {
    seen: Seen,
    cpu_seconds: f64,
}

fn task(context: &Context, args: &BenchTask) -> Result<()> {
    let clients = counts(&args.clients)?;
    let interrupt = Interrupt::install()?;
    let folder = folder(context)?;
    let etcd = etcd_program(&args.etcd)?;
    let mut results = Vec::new();
    {
        let sides = sides(folder.path(), etcd.as_deref(), false, &interrupt)?;
        for side in &sides {
            context.output.note(format_args!("{}: three processes, leader at {}", side.version, side.leader));
        }
        for count in &clients {
            let rounds = alternate(&sides, *count, args, &interrupt)?;
            for (side, rounds) in sides.iter().zip(rounds) {
                results.push((side.what, *count, rounds));
            }
        }
        for side in &sides {
            context.output.note(format_args!(
                "{}: {} MiB in memory at the end",
                side.version,
                side.memory_bytes() >> 20
            ));
        }
    }
    let fsyncs =
        if args.fsyncs { fsyncs(folder.path(), etcd.as_deref(), &clients, args, &interrupt)? } else { Vec::new() };
    show(context, args, &results, &fsyncs);
    Ok(())
}

/// Where both sides keep their data until the end: below --dir, else where temporary files go.
pub(crate) fn folder(context: &Context) -> Result<tempfile::TempDir> {
    let parent = context.global.dir.clone().unwrap_or_else(std::env::temp_dir);
    let made = std::fs::create_dir_all(&parent);
    let folder = made.and_then(|()| tempfile::Builder::new().prefix("raftgrid-bench-").tempdir_in(&parent));
    folder.map_err(|error| Failure::new(format!("{}: {error}", parent.display()), "--dir DIR"))
}

fn failover(context: &Context, args: &BenchFailover) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let (folder, etcd) = (folder(context)?, etcd_program(&args.etcd)?);
    let (mut rows, mut json) = (Vec::new(), Vec::new());
    for side in &mut sides(folder.path(), etcd.as_deref(), false, &interrupt)? {
        let times = bench_failover::measure(side, args.kills, &interrupt)?;
        let at = |share: f64| times.get(((times.len().max(1) - 1) as f64 * share).round() as usize).copied();
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| at(share).unwrap_or(f64::NAN));
        let shown = [p50, p99, max].map(|ms| format!("{ms:.0}"));
        rows.push([vec![side.version.clone(), times.len().to_string()], shown.to_vec()].concat());
        json.push(json!({ "side": side.version, "kills": times.len(), "p50_ms": p50, "p99_ms": p99, "max_ms": max }));
    }
    let headers = ["side", "kills of the leader", "p50 ms", "p99 ms", "max ms"];
    context.output.show(&headers, rows, &Value::Array(json));
    Ok(())
}

/// Lives of tasks, ours and Ray's in turn.
fn life(context: &Context, args: &BenchLife) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let folder = folder(context)?;
    let env = raftgrid_rpc::environment("bench");
    let load =
        Load { workers: args.workers.max(1), open: args.open.max(args.batch), batch: args.batch.clamp(1, 4_096) };
    let side = Side::raftgrid(&folder.path().join("raftgrid"), false, &interrupt)?;
    let start = |python| PythonWorkers::start(python, folder.path(), &side.leader, load.workers, load.open);
    let mut python = args.serve.as_deref().map(start).transpose()?;
    let mut ray = args.ray.as_deref().map(|python| Ray::start(python, folder.path())).transpose()?;
    let (mut ours, mut theirs, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..=args.rounds {
        interrupt.check()?;
        let time = if at == 0 { Duration::from_millis(500) } else { Duration::from_secs(args.seconds) };
        let before = side.cpu_seconds();
        let lives = bench_life::run(&env, &side.leader, load, time, python.as_mut())?;
        let spent = side.cpu_seconds() - before;
        let other = ray.as_mut().map(|ray| ray.round(time)).transpose()?;
        if at > 0 {
            ours.push(lives.rate());
            cpu.push(spent * 1_000.0 / lives.ended.max(1) as f64);
            theirs.extend(other);
        }
    }
    let ratio = Spread::of(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs));
    let (ours, cpu) = (Spread::of(ours.into_iter()), Spread::of(cpu.into_iter()));
    let did = if python.is_some() { "call in Python, report" } else { "report" };
    let mut rows = vec![vec![
        format!("{}: submit, assign, {did}", side.version),
        ours.whole(),
        if theirs.is_empty() { String::new() } else { ratio.digits(1) },
        cpu.digits(3),
    ]];
    let mut json = json!({ "per_second": ours.json(), "cpu_seconds_per_1000": cpu.json() });
    if let Some(ray) = &ray {
        let theirs = Spread::of(theirs.into_iter());
        rows.push(vec![format!("{}: no-op tasks", ray.version), theirs.whole(), String::new(), String::new()]);
        json["ray_per_second"] = theirs.json();
        json["ratio_to_ray"] = ratio.json();
    }
    context.output.show(&["side", "lives/s", "× Ray", "cpu s per 1,000"], rows, &json);
    Ok(())
}

/// Idle workers first, on an empty cluster; then tasks on another, which nobody runs.
fn scale(context: &Context, args: &BenchScale) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let folder = folder(context)?;
    let env = raftgrid_rpc::environment("bench");
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut json = json!({});
    let mut told = |what: String, value: String, key: &str, figure: f64| {
        rows.push(vec![what, value]);
        json[key] = json!(figure);
    };
    if args.workers > 0 {
        let side = Side::raftgrid(&folder.path().join("workers"), false, &interrupt)?;
        let before = side.memory_bytes();
        let mut figures = (0, 0.0);
        let idle = bench_scale::idle_workers(&env, &side.leader, args.workers, || {
            // The first beats and registrations are over by then.
            thread::sleep(BENCH_IDLE_TIME / 2);
            let cpu = side.cpu_seconds();
            thread::sleep(BENCH_IDLE_TIME);
            figures = (side.memory_bytes(), side.cpu_seconds() - cpu);
            Ok(())
        })?;
        let each = figures.0.saturating_sub(before) as f64 / args.workers as f64 / 1_024.0;
        let share = figures.1 / BENCH_IDLE_TIME.as_secs_f64() * 100.0;
        let workers = args.workers;
        told(
            format!("{workers} idle workers: memory each, all replicas"),
            format!("{each:.1} KiB"),
            "worker_kib",
            each,
        );
        told(
            format!("{workers} idle workers: CPU of all replicas"),
            format!("{share:.1} % of a core"),
            "idle_cpu",
            share,
        );
        told("heartbeats meanwhile".to_owned(), idle.beats.to_string(), "beats", idle.beats as f64);
    }
    if args.tasks > 0 {
        let side = Side::raftgrid(&folder.path().join("tasks"), false, &interrupt)?;
        let stub = raftgrid_rpc::grpcio::Client::new(raftgrid_rpc::channel(&env, &side.leader));
        let before = side.memory_bytes();
        let took = bench_scale::submit(&stub, args.tasks, || What::task_data(args.bytes))?;
        let rate = args.tasks as f64 / took.as_secs_f64();
        let tasks = args.tasks;
        told(
            format!("{tasks} tasks of {} B submitted over a session", args.bytes),
            format!("{rate:.0}/s"),
            "submit",
            rate,
        );
        let each = side.memory_bytes().saturating_sub(before) as f64 / 3.0 / tasks as f64;
        told("memory for a waiting task, a replica".to_owned(), format!("{each:.0} B"), "task_bytes", each);
        for (name, consistency) in [("linearizable", Consistency::LINEARIZABLE), ("local", Consistency::LOCAL)] {
            let times = bench_scale::list(&stub, args.pages, consistency)?;
            let at = |share: f64| times[((times.len().max(1) - 1) as f64 * share).round() as usize];
            let (p50, p99) = (at(0.5), at(0.99));
            let shown = format!("{p50:.2} ms, p99 {p99:.2} ms");
            told(format!("a page of 1,000 of them, {name}, p50"), shown, &format!("page_{name}_p99_ms"), p99);
        }
    }
    context.output.show(&["measured", "figure"], rows, &json);
    Ok(())
}

fn counts(text: &str) -> Result<Vec<usize>> {
    numbers(text, 4_096, "--clients 1,64,256")
}

/// A list of numbers from 1 to `max`; `hint` shows one.
pub(crate) fn numbers(text: &str, max: usize, hint: &str) -> Result<Vec<usize>> {
    let numbers: std::result::Result<Vec<usize>, _> = text.split(',').map(|word| word.trim().parse()).collect();
    match numbers {
        Ok(numbers) if numbers.iter().all(|count| (1..=max).contains(count)) => Ok(numbers),
        _ => Err(Failure::usage(format!("`{text}` is no list of numbers from 1 to {max}"), hint)),
    }
}

/// The etcd to measure beside.
fn etcd_program(word: &str) -> Result<Option<PathBuf>> {
    program(word, "apt install etcd-server, --etcd FILE, or --etcd none")
}

/// The server to measure beside: the one given, else that of PATH or of the system's folder; None for `none`.
pub(crate) fn program(word: &str, hint: &str) -> Result<Option<PathBuf>> {
    if word == "none" {
        return Ok(None);
    }
    let given = Path::new(word);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut all = folders.map(|folder| folder.join(given)).chain([given.to_owned()]);
    match all.find(|program| program.is_file()) {
        Some(program) => Ok(Some(program)),
        None => Err(Failure::new(format!("{} is not installed", given.display()), hint)),
    }
}

/// How busy the machine is: the load of the last minute.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

fn sides(folder: &Path, etcd: Option<&Path>, traced: bool, interrupt: &Interrupt) -> Result<Vec<Side>> {
    let env = raftgrid_rpc::environment("bench-probe");
    let name = |what: &str| folder.join(format!("{what}-{}", if traced { "traced" } else { "plain" }));
    let mut sides = vec![Side::raftgrid(&name("raftgrid"), traced, interrupt)?];
    if let Some(program) = etcd {
        sides.push(Side::etcd(&name("etcd"), program, &env, traced)?);
    }
    Ok(sides)
}

/// A B A B …; the rounds of each side. One short round of each before does not count.
fn alternate(sides: &[Side], clients: usize, args: &BenchTask, interrupt: &Interrupt) -> Result<Vec<Vec<Round>>> {
    let env = raftgrid_rpc::environment("bench");
    let connections: Vec<Connections> =
        sides.iter().map(|side| Connections::new(&env, &side.leader, clients)).collect();
    let mut rounds: Vec<Vec<Round>> = sides.iter().map(|_| Vec::new()).collect();
    for at in 0..=args.rounds {
        for (side, (connections, rounds)) in sides.iter().zip(connections.iter().zip(&mut rounds)) {
            interrupt.check()?;
            let time = if at == 0 { Duration::from_millis(500) } else { Duration::from_secs(args.seconds) };
            let cpu = side.cpu_seconds();
            let (what, bytes) = (side.what, args.bytes);
            let seen = connections.run(side.method(), clients, time, move || what.request(bytes))?;
            let round = Round { seen, cpu_seconds: side.cpu_seconds() - cpu };
            if at > 0 {
                rounds.push(round);
            }
        }
    }
    Ok(rounds)
}

/// Fsyncs for 1,000 writes, of all three servers together: fresh clusters below strace, one round each.
fn fsyncs(
    folder: &Path,
    etcd: Option<&Path>,
    clients: &[usize],
    args: &BenchTask,
    interrupt: &Interrupt,
) -> Result<Vec<(What, usize, f64)>> {
    let env = raftgrid_rpc::environment("bench-fsync");
    let mut found = Vec::new();
    for side in sides(folder, etcd, true, interrupt)? {
        for count in clients {
            let connections = Connections::new(&env, &side.leader, *count);
            let before = side.fsyncs();
            let time = Duration::from_secs(args.seconds);
            let (what, bytes) = (side.what, args.bytes);
            let seen = connections.run(side.method(), *count, time, move || what.request(bytes))?;
            found.push((side.what, *count, (side.fsyncs() - before) as f64 * 1_000.0 / seen.calls as f64));
        }
    }
    Ok(found)
}

fn word(what: What) -> &'static str {
    match what {
        What::Raftgrid => "raftgrid task submit",
        What::Etcd => "etcd put",
    }
}

fn show(context: &Context, args: &BenchTask, results: &[(What, usize, Vec<Round>)], fsyncs: &[(What, usize, f64)]) {
    context.output.note(format_args!(
        "{} B each, to the leader; {} rounds of {} s in turn; median (p10–p90)",
        args.bytes, args.rounds, args.seconds
    ));
    let (mut rows, mut json) = (Vec::new(), Vec::new());
    for (what, clients, rounds) in results {
        let rate = Spread::of(rounds.iter().map(|round| round.seen.rate()));
        let p50 = Spread::of(rounds.iter().map(|round| round.seen.latency_ms(0.5)));
        let p99 = Spread::of(rounds.iter().map(|round| round.seen.latency_ms(0.99)));
        let cpu = Spread::of(rounds.iter().map(|round| round.cpu_seconds * 1_000.0 / round.seen.calls.max(1) as f64));
        let other = results.iter().find(|(other, count, _)| *other == What::Etcd && count == clients);
        // Round by round: what slows both down cancels out.
        let ratio = other.filter(|_| *what == What::Raftgrid).map(|(_, _, others)| {
            Spread::of(rounds.iter().zip(others).map(|(ours, theirs)| ours.seen.rate() / theirs.seen.rate()))
        });
        let synced = fsyncs.iter().find(|(side, count, _)| side == what && count == clients);
        rows.push(vec![
            word(*what).to_owned(),
            clients.to_string(),
            rate.whole(),
            ratio.as_ref().map(|ratio| ratio.digits(2)).unwrap_or_default(),
            p50.digits(2),
            p99.digits(2),
            cpu.digits(3),
            synced.map(|(_, _, count)| format!("{count:.0}")).unwrap_or_default(),
        ]);
        json.push(json!({
            "side": word(*what), "clients": clients, "per_second": rate.json(), "ratio_to_etcd": ratio.map(|it| it.json()),
            "p50_ms": p50.json(), "p99_ms": p99.json(), "cpu_seconds_per_1000": cpu.json(),
            "fsyncs_per_1000": synced.map(|(_, _, count)| count),
        }));
    }
    let headers = ["side", "clients", "writes/s", "× etcd", "p50 ms", "p99 ms", "cpu s per 1,000", "fsyncs per 1,000"];
    context.output.show(&headers, rows, &Value::Array(json));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_clients_are_a_list() {
        assert_eq!(counts("1, 64,256").expect("it is one"), [1, 64, 256]);
        assert!(counts("").is_err() && counts("0").is_err() && counts("1,x").is_err());
    }
}
