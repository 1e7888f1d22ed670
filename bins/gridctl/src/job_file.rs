//! A job file (TOML) as the messages of the control plane. docs/job-files.md has the table of all keys; a test holds it against `KEYS` here.

use std::path::{Path, PathBuf};

use raftgrid_proto::v1::{
    CatchUp, Condition, Constraint, DagEdge, DagTask, Dependency, JobSpec, Label, Overlap, Schedule, SweepParameter,
    TaskSpec,
};
use serde_json::{json, Map, Value as Json};
use toml::{Table, Value};

use crate::failure::{Failure, Result};
use crate::job_section::{json, Section};
use crate::limits::{JOB_DATA_BYTES_MAX, JOB_FILE_BYTES_MAX};

/// Types of jobs.
const TYPES: &[&str] = &["command", "python", "train", "matmul", "eval", "dag", "torchrun"];
/// Every section with its keys, in the order of the document.
pub(crate) const KEYS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "name", "type", "task", "command", "python", "train", "matmul", "eval", "dag", "array", "sweep",
            "schedule", "torchrun", "gang",
        ],
    ),
    (
        "task",
        &[
            "cpu",
            "memory",
            "gpus",
            "slots",
            "priority",
            "max_retries",
            "start_timeout",
            "run_timeout",
            "queue_ttl",
            "deadline_unix_ms",
            "constraints",
            "env",
            "on_disconnect",
            "preferred_nodes",
            "depends_on",
            "queue",
            "preemptible",
            "spread_over",
            "requirements",
            "memory_limit",
        ],
    ),
    ("command", &["argv", "env", "stdin"]),
    ("python", &["script", "code", "args", "env", "stdin", "config", "inputs"]),
    (
        "torchrun",
        &["script", "args", "env", "inputs", "nnodes", "nproc_per_node", "max_restarts", "rdzv_conf", "local_addr"],
    ),
    ("eval", &["script", "code", "args", "env", "config", "inputs", "model"]),
    (
        "train",
        &[
            "script",
            "args",
            "shards",
            "workers",
            "rounds",
            "quorum",
            "min_contributions",
            "round_deadline",
            "extensions_max",
            "on_shortfall",
            "mode",
            "staleness",
            "seed",
            "verify",
            "pin_numeric_class",
            "openblas_coretype",
            "native_environment",
            "retain_rounds",
            "norm_limit",
        ],
    ),
    ("matmul", &["n", "seed", "rows", "inner", "columns", "block", "left", "right", "check"]),
    ("dag.NAME", &["type", "depends_on", "task", "command", "python", "eval", "matmul"]),
    ("array", &["count", "max_parallel"]),
    ("schedule", &["cron", "time_zone", "overlap", "catch_up", "paused"]),
    ("gang", &["min", "max"]),
];

fn keys(section: &str) -> &'static [&'static str] {
    KEYS.iter().find(|(name, _)| *name == section).map_or(&[], |(_, keys)| keys)
}

/// What a file says. Scripts are still to be packed: the JSON names them as they stand in their folder.
#[derive(Debug, Default)]
pub(crate) struct JobFile {
    pub(crate) spec: JobSpec,
    /// Scripts of all its tasks.
    pub(crate) scripts: Vec<PathBuf>,
    /// With cron line, zone and policies.
    pub(crate) schedule: Option<Schedule>,
}

/// Reads a file. `settings`: KEY=VALUE in place of what it says.
pub(crate) fn read(path: &Path, settings: &[String]) -> Result<JobFile> {
    let unreadable = |cause: String| {
        Failure::new(format!("failed to read job file {}: {cause}", path.display()), "gridctl job submit FILE.toml")
    };
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > JOB_FILE_BYTES_MAX {
        return Err(unreadable(format!("it has {size} bytes, more than {} MiB", JOB_FILE_BYTES_MAX >> 20)));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    parse(&text, folder, settings).map_err(|failure| failure.in_file(path))
}

/// Scripts are found beside `folder`.
pub(crate) fn parse(text: &str, folder: &Path, settings: &[String]) -> Result<JobFile> {
    let mut table: Table = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
        Failure::usage(format!("line {line}: {}", error.message()), "docs/job-files.md")
    })?;
    for setting in settings {
        set(&mut table, setting)?;
    }
    let file = Section::new("", &table, keys(""))?;
    let job_type = file.word("type", TYPES)?.ok_or_else(|| file.wrong("type", "is missing", "type = \"command\""))?;
    let mut reader = Reader { folder, scripts: Vec::new() };
    let mut spec = JobSpec { field_type: job_type.to_owned(), ..JobSpec::default() };
    spec.name = file.text("name")?.unwrap_or_default().to_owned();
    spec.task = reader.task(&file)?.into();
    reader.work(&file, job_type, &mut spec)?;
    spec.task_data = data(&spec.task_data, "the job's data")?;
    array(&file, &mut spec)?;
    gang(&file, &mut spec)?;
    let schedule = schedule(&file)?;
    Ok(JobFile { spec, scripts: reader.scripts, schedule })
}

/// `a.b=value`: a TOML value where it is one, else text.
fn set(table: &mut Table, setting: &str) -> Result<()> {
    let hint = "--set matmul.block=256";
    let wrong = |why: &str| Failure::usage(format!("--set {setting}: {why}"), hint);
    let (key, value) = setting.split_once('=').ok_or_else(|| wrong("there is no `=`"))?;
    let parsed = toml::from_str::<Table>(&format!("value = {value}")).ok().and_then(|mut one| one.remove("value"));
    let parsed = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().filter(|last| !last.is_empty()).ok_or_else(|| wrong("there is no key"))?;
    let mut at = table;
    for part in parts {
        let inner = at.entry(part.to_owned()).or_insert_with(|| Value::Table(Table::new()));
        at = inner.as_table_mut().ok_or_else(|| wrong(&format!("`{part}` is no section")))?;
    }
    at.insert(last.to_owned(), parsed);
    Ok(())
}

/// JSON of a task within what the machine takes.
fn data(data: &[u8], what: &str) -> Result<Vec<u8>> {
    if data.len() <= JOB_DATA_BYTES_MAX {
        return Ok(data.to_vec());
    }
    let cause = format!("{what} has {} bytes of JSON, more than {} KiB", data.len(), JOB_DATA_BYTES_MAX >> 10);
    Err(Failure::usage(cause, "gridctl artifact push FILE, and name the artifact in `inputs`"))
}

struct Reader<'a> {
    folder: &'a Path,
    scripts: Vec<PathBuf>,
}

impl Reader<'_> {
    /// [task]: what every type has.
    fn task(&self, parent: &Section<'_>) -> Result<Option<TaskSpec>> {
        let Some(task) = parent.section("task", keys("task"))? else { return Ok(None) };
        let mut spec = TaskSpec::new();
        let resources = spec.mut_resources();
        if let Some(cores) = task.real("cpu", 1e6)? {
            resources.set_cpu_milli((cores * 1_000.0).round() as u64);
        }
        resources.set_memory_bytes(task.bytes("memory")?.unwrap_or(0));
        resources.set_gpus(task.number_u32("gpus")?.unwrap_or(0));
        resources.set_slots(task.number_u32("slots")?.unwrap_or(0));
        spec.set_priority(task.number("priority", 100)?.unwrap_or(0) as i32);
        if let Some(retries) = task.number_u32("max_retries")? {
            spec.set_max_retries(retries);
            spec.set_retries_given(true);
        }
        spec.set_start_timeout_ms(task.duration_ms("start_timeout")?.unwrap_or(0));
        spec.set_run_timeout_ms(task.duration_ms("run_timeout")?.unwrap_or(0));
        spec.set_queue_ttl_ms(task.duration_ms("queue_ttl")?.unwrap_or(0));
        spec.set_deadline_unix_ms(task.number("deadline_unix_ms", i64::MAX as u64)?.unwrap_or(0));
        let constraint = |(key, value): (String, String)| Constraint { key, value, ..Constraint::default() };
        spec.set_constraints(task.pairs("constraints")?.into_iter().map(constraint).collect());
        let label = |(key, value): (String, String)| Label { key, value, ..Label::default() };
        spec.set_env(task.pairs("env")?.into_iter().map(label).collect());
        let on_disconnect = task.word("on_disconnect", &["stop", "continue"])?;
        spec.set_on_disconnect(on_disconnect.unwrap_or_default().to_owned());
        spec.set_preferred_nodes(task.texts("preferred_nodes")?.into());
        spec.set_queue(task.text("queue")?.unwrap_or_default().to_owned());
        spec.set_preemptible(task.flag("preemptible")?);
        spec.set_spread_over(task.text("spread_over")?.unwrap_or_default().to_owned());
        spec.set_requirements(task.texts("requirements")?.join("\n"));
        if let Some(bytes) = task.bytes("memory_limit")? {
            spec.mut_limits().set_memory_bytes(bytes);
        }
        let dependency = |(task_id, condition)| Dependency { task_id, condition, ..Dependency::default() };
        spec.set_depends_on(depends_on(&task)?.into_iter().map(dependency).collect());
        Ok(Some(spec))
    }

    /// The section that says what to do. Another type's section is a mistake.
    fn work(&mut self, parent: &Section<'_>, job_type: &str, spec: &mut JobSpec) -> Result<()> {
        for other in TYPES {
            if parent.has(other) && *other != job_type {
                return Err(parent.wrong(
                    other,
                    format!("is not for a job of type {job_type}"),
                    &format!("[{job_type}]"),
                ));
            }
        }
        match job_type {
            "dag" => self.dag(parent, spec),
            "train" => self.train(parent, spec),
            "matmul" => self.matmul(parent, spec),
            other => self.one(parent, other, &mut spec.task_data),
        }
    }

    /// command, python, eval, torchrun: the section is the task's JSON.
    fn one(&mut self, parent: &Section<'_>, kind: &str, task_data: &mut Vec<u8>) -> Result<()> {
        let section = parent
            .section(kind, keys(kind))?
            .ok_or_else(|| parent.wrong(kind, "is missing", &format!("a section [{}]", parent.place(kind))))?;
        let mut object = Map::new();
        for key in ["argv", "args"] {
            if section.has(key) {
                object.insert(key.to_owned(), json!(section.texts(key)?));
            }
        }
        for key in ["stdin", "code", "model", "nnodes", "rdzv_conf", "local_addr"] {
            if let Some(text) = section.text(key)? {
                object.insert(key.to_owned(), text.into());
            }
        }
        for key in ["nproc_per_node", "max_restarts"] {
            if let Some(number) = section.number_u32(key)? {
                object.insert(key.to_owned(), number.into());
            }
        }
        for key in ["env", "inputs"] {
            if section.has(key) {
                let pairs = section.pairs(key)?.into_iter().map(|(name, value)| (name, Json::from(value)));
                object.insert(key.to_owned(), Json::Object(pairs.collect()));
            }
        }
        if let Some(config) = section.json("config")? {
            object.insert("config".to_owned(), config);
        }
        if kind == "command" && section.texts("argv")?.is_empty() {
            return Err(section.wrong("argv", "is missing", "argv = [\"program\", \"argument\"]"));
        }
        if kind != "command" && section.has("script") == section.has("code") {
            return Err(section.wrong("script", "or code must be given, one of them", "script = \"a.py\""));
        }
        if kind == "eval" && !section.has("model") {
            return Err(section.wrong("model", "is missing", "model = \"JOB/model@latest\""));
        }
        if section.has("script") {
            object.insert("script".to_owned(), self.script(&section, "script")?.into());
        }
        *task_data = Json::Object(object).to_string().into_bytes();
        Ok(())
    }

    /// A script beside the file; its folder travels with it. Its name in the bundle.
    fn script(&mut self, section: &Section<'_>, key: &str) -> Result<String> {
        let script = section.text(key)?.unwrap_or_default();
        let path = self.folder.join(script);
        let name = Path::new(script).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let first = self.scripts.first().and_then(|first| first.parent()).map(Path::to_owned);
        if first.is_some_and(|first| Some(first.as_path()) != path.parent()) {
            let why = "is in another folder than the scripts before it: one folder travels with a job";
            return Err(section.wrong(key, why, "the scripts of a job in one folder"));
        }
        self.scripts.push(path);
        Ok(name.to_owned())
    }

    fn train(&mut self, parent: &Section<'_>, spec: &mut JobSpec) -> Result<()> {
        let missing = || parent.wrong("train", "is missing", "a section [train]");
        let section = parent.section("train", keys("train"))?.ok_or_else(missing)?;
        if !section.has("script") {
            return Err(section.wrong("script", "is missing", "script = \"train.py\""));
        }
        let args = section.texts("args")?;
        let script = self.script(&section, "script")?;
        spec.task_data = json!({"script": script, "args": args}).to_string().into_bytes();
        let train = spec.mut_train();
        for (key, value) in [("shards", &mut train.shards), ("workers", &mut train.workers)] {
            *value = section.number_u32(key)?.ok_or_else(|| section.wrong(key, "is missing", &format!("{key} = 3")))?;
        }
        train.rounds = section
            .number("rounds", u64::MAX >> 1)?
            .ok_or_else(|| section.wrong("rounds", "is missing", "rounds = 60"))?;
        train.quorum = section.number_u32("quorum")?.unwrap_or(0);
        train.min_contributions = section.number_u32("min_contributions")?.unwrap_or(0);
        train.round_deadline_ms = section.duration_ms("round_deadline")?.unwrap_or(0);
        train.extensions_max = section.number_u32("extensions_max")?.unwrap_or(0);
        train.on_shortfall = section.word("on_shortfall", &["pause", "fail"])?.unwrap_or_default().to_owned();
        train.mode = section.word("mode", &["sync", "bounded", "async"])?.unwrap_or_default().to_owned();
        train.staleness = section.number("staleness", u64::MAX >> 1)?.unwrap_or(0);
        train.seed = section.number("seed", u64::MAX >> 1)?.unwrap_or(0);
        train.verify = section.real("verify", 1.0)?.unwrap_or(0.01);
        train.pin_numeric_class = section.flag("pin_numeric_class")?;
        train.openblas_coretype = section.text("openblas_coretype")?.unwrap_or_default().to_owned();
        train.native_environment = section.flag("native_environment")?;
        train.retain_rounds = section.number("retain_rounds", u64::MAX >> 1)?.unwrap_or(0);
        train.norm_limit = section.real("norm_limit", f64::MAX)?.unwrap_or(0.0);
        Ok(())
    }

    /// n and seed: one task; rows, inner, columns and block: a graph.
    fn matmul(&mut self, parent: &Section<'_>, spec: &mut JobSpec) -> Result<()> {
        let missing = || parent.wrong("matmul", "is missing", "a section [matmul]");
        let section = parent.section("matmul", keys("matmul"))?.ok_or_else(missing)?;
        let seed = section.number("seed", u64::MAX >> 1)?.unwrap_or(0);
        let sides = ["rows", "inner", "columns", "block"];
        if let Some(n) = section.number("n", 1 << 20)? {
            let other = section.keys().find(|key| !matches!(key.as_str(), "n" | "seed"));
            if let Some(key) = other {
                return Err(section.wrong(
                    key,
                    "is not for a product in one task",
                    "rows, inner and columns in place of n",
                ));
            }
            spec.task_data = json!({"n": n, "seed": seed}).to_string().into_bytes();
            return Ok(());
        }
        let mut numbers = [0; 4];
        for (key, number) in sides.iter().zip(&mut numbers) {
            let absent = || section.wrong(key, "is missing", "rows, inner, columns and block; or n for one task");
            *number = section.number_u32(key)?.ok_or_else(absent)?;
        }
        let check = if section.has("check") { self.script(&section, "check")? } else { String::new() };
        let product = spec.mut_matmul();
        [product.rows, product.inner, product.columns, product.block] = numbers;
        product.seed = seed;
        product.left = section.text("left")?.unwrap_or_default().to_owned();
        product.right = section.text("right")?.unwrap_or_default().to_owned();
        product.check = check;
        Ok(())
    }

    fn dag(&mut self, parent: &Section<'_>, spec: &mut JobSpec) -> Result<()> {
        let tasks = parent.table("dag")?.filter(|tasks| !tasks.is_empty());
        let tasks = tasks.ok_or_else(|| parent.wrong("dag", "is missing", "a section [dag.NAME] for each task"))?;
        for (name, value) in tasks {
            let place = format!("dag.{name}");
            let Value::Table(table) = value else {
                return Err(parent.wrong(&place, "must be a section", &format!("[{place}]")));
            };
            let section = Section::new(&place, table, keys("dag.NAME"))?;
            let kind = section.word("type", &["command", "python", "eval", "matmul"])?;
            let kind = kind.ok_or_else(|| section.wrong("type", "is missing", "type = \"command\""))?;
            let mut one = JobSpec::default();
            self.work(&section, kind, &mut one)?;
            if one.matmul.is_some() {
                return Err(section.wrong("matmul", "by blocks is a job of its own", "n and seed"));
            }
            let edge = |(name, condition)| DagEdge { name, condition, ..DagEdge::default() };
            spec.dag.push(DagTask {
                name: name.clone(),
                field_type: kind.to_owned(),
                task_data: data(&one.task_data, &place)?,
                spec: self.task(&section)?.into(),
                depends_on: depends_on(&section)?.into_iter().map(edge).collect(),
                ..DagTask::default()
            });
        }
        Ok(())
    }
}

/// `["a", {task = "b", when = "failed"}]`.
fn depends_on(section: &Section<'_>) -> Result<Vec<(String, Condition)>> {
    let hint = "depends_on = [\"a\", {task = \"b\", when = \"ended\"}]";
    let one = |value: &Value| match value {
        Value::String(name) => Ok((name.clone(), Condition::WHEN_SUCCEEDED)),
        Value::Table(table) => {
            let edge = Section::new(&section.place("depends_on"), table, &["task", "when"])?;
            let name = edge.text("task")?.ok_or_else(|| edge.wrong("task", "is missing", hint))?;
            let when = match edge.word("when", &["succeeded", "failed", "ended"])? {
                Some("failed") => Condition::WHEN_FAILED,
                Some("ended") => Condition::WHEN_ENDED,
                Some(_) | None => Condition::WHEN_SUCCEEDED,
            };
            Ok((name.to_owned(), when))
        }
        other => Err(section.wrong("depends_on", format!("must hold names, holds {}", other.type_str()), hint)),
    };
    section.list("depends_on")?.iter().map(one).collect()
}

fn array(file: &Section<'_>, spec: &mut JobSpec) -> Result<()> {
    if let Some(section) = file.section("array", keys("array"))? {
        let array = spec.mut_array();
        array.count = section.number_u32("count")?.unwrap_or(0);
        array.max_parallel = section.number_u32("max_parallel")?.unwrap_or(0);
    }
    let Some(sweep) = file.table("sweep")? else { return Ok(()) };
    for (name, values) in sweep {
        let place = format!("sweep.{name}");
        let Value::Array(values) = values else {
            return Err(file.wrong(&place, "must be a list of values", "lr = [0.1, 0.01]"));
        };
        let text = |value: &Value| json(value).map(|value| value.to_string());
        let values: std::result::Result<Vec<String>, String> = values.iter().map(text).collect();
        let values = values.map_err(|why| file.wrong(&place, why, "JSON's kinds of values"))?;
        spec.sweep.push(SweepParameter { name: name.clone(), values: values.into(), ..SweepParameter::default() });
    }
    Ok(())
}

/// Members that are placed together or not at all.
fn gang(file: &Section<'_>, spec: &mut JobSpec) -> Result<()> {
    let Some(section) = file.section("gang", keys("gang"))? else { return Ok(()) };
    let min = section.number_u32("min")?.ok_or_else(|| section.wrong("min", "is missing", "min = 4"))?;
    let max = section.number_u32("max")?.unwrap_or(min);
    if min == 0 || max < min {
        return Err(section.wrong("max", "is less than min, or min is 0", "max = the most members"));
    }
    spec.mut_gang().set_min_members(min);
    spec.mut_gang().set_max_members(max);
    Ok(())
}

fn schedule(file: &Section<'_>) -> Result<Option<Schedule>> {
    let Some(section) = file.section("schedule", keys("schedule"))? else { return Ok(None) };
    let cron = section.text("cron")?.ok_or_else(|| section.wrong("cron", "is missing", "cron = \"0 3 * * *\""))?;
    let mut schedule = Schedule { cron: cron.to_owned(), ..Schedule::default() };
    schedule.time_zone = section.text("time_zone")?.unwrap_or_default().to_owned();
    schedule.overlap = match section.word("overlap", &["forbid", "allow", "replace"])? {
        Some("allow") => Overlap::OVERLAP_ALLOW,
        Some("replace") => Overlap::OVERLAP_REPLACE,
        Some(_) | None => Overlap::OVERLAP_FORBID,
    };
    schedule.catch_up = match section.word("catch_up", &["none", "last", "all"])? {
        Some("last") => CatchUp::CATCH_UP_LAST,
        Some("all") => CatchUp::CATCH_UP_ALL,
        Some(_) | None => CatchUp::CATCH_UP_NONE,
    };
    schedule.paused = section.flag("paused")?;
    Ok(Some(schedule))
}

#[cfg(test)]
#[path = "job_file_tests.rs"]
mod tests;
