//! What a task's JSON asks for. Pure; every mistake is one clear line.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::blocks::BlockPlan;
use crate::executor::Exit;
use crate::limits::{INPUTS_MAX, MATMUL_N_MAX};

/// File name of the model that an evaluation is given.
pub(crate) const MODEL_FILE: &str = "model";

/// Exit codes of tasks that were never started, after sysexits.h.
pub mod exit_code {
    /// An unknown task type.
    pub const USAGE: i32 = 64;
    /// task_data that does not parse or makes no sense.
    pub const DATA: i32 = 65;
    /// A script or bundle that does not exist.
    pub const NO_INPUT: i32 = 66;
    /// This machine could not do it.
    pub const OS: i32 = 71;
    /// The control plane or the machine failed: always tried again.
    pub const TRY_AGAIN: i32 = 75;
    /// The program was found but cannot be run.
    pub const CANNOT_RUN: i32 = 126;
    /// No such program.
    pub const NOT_FOUND: i32 = 127;
}

/// Why a task cannot be started.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{reason}")]
pub struct PlanError {
    /// See `exit_code`.
    pub code: i32,
    /// One line: the cause and the next step.
    pub reason: String,
}

impl PlanError {
    pub(crate) fn new(code: i32, reason: impl Into<String>) -> Self {
        Self { code, reason: crate::output::one_line(&reason.into()) }
    }

    pub(crate) fn exit(self) -> Exit {
        let node_failed = match self.code {
            exit_code::OS | exit_code::CANNOT_RUN | exit_code::NOT_FOUND => true,
            // USAGE, DATA and NO_INPUT are the task's; TRY_AGAIN is tried again anyhow.
            _ => false,
        };
        Exit { code: self.code, reason: self.reason, node_failed, ..Exit::default() }
    }
}

/// `command`: {"argv": […], "env": {…}, "stdin": "…"}.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct CommandPlan {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Added to the environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Given to standard input; none: it is empty.
    #[serde(default)]
    pub stdin: Option<String>,
}

/// `python`: {"script": "x.py", "args": […]} or {"code": "…"}; `train`: {"script": "x.py", "args": […], "config": {…}}.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct PythonPlan {
    /// Path in the bundle, or absolute without one.
    #[serde(default)]
    pub script: String,
    /// Source text, instead of a script.
    #[serde(default)]
    pub code: String,
    /// Arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Added to the environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Given to standard input; none: it is empty.
    #[serde(default)]
    pub stdin: Option<String>,
    /// Handed to the script as RAFTGRID_CONFIG.
    #[serde(default)]
    pub config: Option<serde_json::Value>,
    /// This trainer makes model 0.
    #[serde(default)]
    pub init: bool,
    /// File name → artifact: fetched before it starts, into the folder that RAFTGRID_INPUTS names.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// `eval`: the model to look at, as an artifact (an id, a name, JOB/model@latest). RAFTGRID_MODEL names the file.
    #[serde(default)]
    pub model: String,
    /// Of an element of a sweep.
    #[serde(default)]
    pub parameters: serde_json::Map<String, serde_json::Value>,
}

/// `matmul`: {"n": 512, "seed": 7}.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct MatmulPlan {
    /// The matrices are n × n.
    pub n: usize,
    /// Of both matrices.
    #[serde(default)]
    pub seed: u64,
}

/// `torchrun`: {"script": "x.py", "args": […], "nnodes": "2:4", "nproc_per_node": 1, "max_restarts": 3}.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct TorchrunPlan {
    /// What each process runs.
    #[serde(flatten)]
    pub python: PythonPlan,
    /// MIN:MAX or a number of nodes; none: as many as the gang has members.
    #[serde(default)]
    pub nnodes: Option<String>,
    /// Processes of each node.
    #[serde(default = "one")]
    pub nproc_per_node: u32,
    /// How often the group of processes is started anew.
    #[serde(default)]
    pub max_restarts: u32,
    /// Further options of the rendezvous: KEY=VALUE,…
    #[serde(default)]
    pub rdzv_conf: String,
    /// Under which the other nodes reach this one; none: its host name.
    #[serde(default)]
    pub local_addr: String,
}

fn one() -> u32 {
    1
}

impl TorchrunPlan {
    /// `python` is interpreter, script and arguments; they meet under `meeting`.
    pub(crate) fn argv(&self, python: Vec<String>, nodes: u32, meeting: &str) -> Vec<String> {
        let mut python = python.into_iter();
        let nnodes = self.nnodes.clone().unwrap_or_else(|| nodes.to_string());
        let options = [
            ("--nnodes", nnodes),
            ("--nproc-per-node", self.nproc_per_node.to_string()),
            ("--max-restarts", self.max_restarts.to_string()),
            ("--rdzv-backend", "raftgrid".to_owned()),
            ("--rdzv-id", meeting.to_owned()),
            ("--rdzv-conf", self.rdzv_conf.clone()),
            ("--local-addr", self.local_addr.clone()),
        ];
        let options = options.into_iter().filter(|(_, value)| !value.is_empty());
        let options = options.map(|(name, value)| format!("{name}={value}"));
        // torchrun itself, with our rendezvous registered even where the package is not installed but on the path.
        let module = ["-m", "raftgrid.torchrun"].map(str::to_owned);
        python.next().into_iter().chain(module).chain(options).chain(python).collect()
    }
}

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// A program.
    Command(CommandPlan),
    /// A Python script or code.
    Python(PythonPlan),
    /// A product of two matrices.
    Matmul(MatmulPlan),
    /// A step of a product by blocks.
    Block(BlockPlan),
    /// A trainer of a job with rounds.
    Train(PythonPlan),
    /// An agent of torchrun: one of the nodes of an elastic job.
    Torchrun(TorchrunPlan),
}

/// Reads a task.
pub fn plan(task_type: &str, task_data: &[u8]) -> Result<Plan, PlanError> {
    let plan = match task_type {
        "command" => Plan::Command(parse(task_data)?),
        "python" => Plan::Python(python(task_data)?),
        "eval" => Plan::Python(eval(task_data)?),
        "matmul" if is_block(task_data) => Plan::Block(parse(task_data)?),
        "matmul" => Plan::Matmul(parse(task_data)?),
        "train" => Plan::Train(parse(task_data)?),
        "torchrun" => Plan::Torchrun(parse(task_data)?),
        other => {
            let reason = format!(
                "unknown task type `{other}`; this worker knows command, python, matmul, eval, train and torchrun"
            );
            return Err(PlanError::new(exit_code::USAGE, reason));
        }
    };
    check(&plan).map_err(|reason| PlanError::new(exit_code::DATA, format!("task_data: {reason}")))?;
    Ok(plan)
}

fn python(task_data: &[u8]) -> Result<PythonPlan, PlanError> {
    let mut plan: PythonPlan = parse(task_data)?;
    plan.model.clear();
    Ok(with_parameters(plan))
}

fn eval(task_data: &[u8]) -> Result<PythonPlan, PlanError> {
    let mut plan: PythonPlan = parse(task_data)?;
    if plan.model.is_empty() {
        return Err(PlanError::new(exit_code::DATA, "task_data: model is missing: the artifact to evaluate"));
    }
    plan.inputs.insert(MODEL_FILE.to_owned(), plan.model.clone());
    Ok(with_parameters(plan))
}

/// A script finds the parameters of its element in its configuration, in place of what the job says there.
fn with_parameters(mut plan: PythonPlan) -> PythonPlan {
    if plan.parameters.is_empty() {
        return plan;
    }
    let mut config = match plan.config.take() {
        Some(serde_json::Value::Object(config)) => config,
        Some(_) | None => serde_json::Map::new(),
    };
    config.extend(std::mem::take(&mut plan.parameters));
    plan.config = Some(config.into());
    plan
}

fn is_block(task_data: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(task_data).is_ok_and(|data| data.get("step").is_some())
}

fn parse<T: for<'a> Deserialize<'a>>(task_data: &[u8]) -> Result<T, PlanError> {
    serde_json::from_slice(task_data).map_err(|error| {
        PlanError::new(exit_code::DATA, format!("task_data is not the JSON that is expected: {error}"))
    })
}

fn check(plan: &Plan) -> Result<(), String> {
    match plan {
        Plan::Command(command) => match command.argv.first() {
            Some(program) if !program.is_empty() => no_zero_bytes(command.argv.iter(), &command.env),
            _ => Err("argv: the program is missing".to_owned()),
        },
        Plan::Python(python) => {
            if python.script.is_empty() == python.code.is_empty() {
                return Err("either script or code must be given".to_owned());
            }
            check_inputs(&python.inputs)?;
            no_zero_bytes(python.args.iter().chain([&python.script]), &python.env)
        }
        Plan::Block(block) => block.check(),
        Plan::Train(train) => {
            if train.script.is_empty() {
                return Err("script is missing".to_owned());
            }
            no_zero_bytes(train.args.iter().chain([&train.script]), &train.env)
        }
        Plan::Torchrun(torchrun) => {
            if torchrun.nproc_per_node == 0 {
                return Err("nproc_per_node must be at least 1".to_owned());
            }
            check(&Plan::Python(torchrun.python.clone()))
        }
        Plan::Matmul(matmul) => match matmul.n {
            1..=MATMUL_N_MAX => Ok(()),
            n => Err(format!("n is {n}, it must be 1 to {MATMUL_N_MAX}")),
        },
    }
}

fn check_inputs(inputs: &BTreeMap<String, String>) -> Result<(), String> {
    if inputs.len() > INPUTS_MAX {
        return Err(format!("inputs: {} files, at most {INPUTS_MAX} are fetched", inputs.len()));
    }
    let plain = |name: &str| matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
    match inputs.iter().find(|(name, artifact)| !plain(name) || name.contains(['/', '\0']) || artifact.is_empty()) {
        Some((name, _)) => {
            Err(format!("inputs: `{}` must be a file name, and its value an artifact", name.escape_default()))
        }
        None => Ok(()),
    }
}

/// The operating system takes no zero bytes in arguments and environment.
fn no_zero_bytes<'a>(mut args: impl Iterator<Item = &'a String>, env: &BTreeMap<String, String>) -> Result<(), String> {
    if args.any(|argument| argument.contains('\0')) {
        return Err("an argument has a zero byte".to_owned());
    }
    let bad = |key: &str| key.is_empty() || key.contains(['=', '\0']);
    match env.iter().find(|(key, value)| bad(key) || value.contains('\0')) {
        Some((key, _)) => Err(format!("env: `{}` cannot be a variable", key.escape_default())),
        None => Ok(()),
    }
}

/// Where a script is: in the bundle, never outside it; or anywhere if there is no bundle and the path is absolute.
pub fn script_path(script: &str, bundle: Option<&Path>) -> Result<PathBuf, PlanError> {
    let missing = |reason: String| PlanError::new(exit_code::NO_INPUT, reason);
    let relative = Path::new(script);
    let Some(bundle) = bundle else {
        return match (relative.is_absolute(), relative.is_file()) {
            (true, true) => Ok(relative.to_owned()),
            (true, false) => Err(missing(format!("script `{script}` does not exist on this worker"))),
            (false, _) => Err(missing(format!(
                "script `{script}` is in no bundle; give its absolute path on the workers, or its text as `code`"
            ))),
        };
    };
    let inside = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let path = bundle.join(relative);
    if !inside {
        return Err(missing(format!("script `{script}` is not a path inside the bundle")));
    }
    if path.is_file() {
        return Ok(path);
    }
    Err(missing(format!("script `{script}` is not in the bundle, which has {}", top_of(bundle))))
}

fn top_of(folder: &Path) -> String {
    const NAMES_MAX: usize = 8;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let more = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    match (names.is_empty(), more) {
        (true, _) => "no files".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torchrun_task_is_an_agent_that_meets_under_its_name() {
        let data = br#"{"script":"a.py","nnodes":"1:4","nproc_per_node":2,"rdzv_conf":"join_timeout=9"}"#;
        let Ok(Plan::Torchrun(torchrun)) = plan("torchrun", data) else { panic!("it is well formed") };
        let python = ["python3", "/code/a.py", "--lr"].map(str::to_owned).to_vec();
        let argv = torchrun.argv(python.clone(), 8, "job.3").join(" ");
        let wanted = "python3 -m raftgrid.torchrun --nnodes=1:4 --nproc-per-node=2 --max-restarts=0 \
                      --rdzv-backend=raftgrid --rdzv-id=job.3 --rdzv-conf=join_timeout=9 /code/a.py --lr";
        assert_eq!(argv, wanted);
        let Ok(Plan::Torchrun(plain)) = plan("torchrun", br#"{"script":"a.py"}"#) else { panic!("it is well formed") };
        assert!(plain.argv(python, 8, "t.1").join(" ").contains("--nnodes=8 --nproc-per-node=1"));
        assert!(plan("torchrun", br#"{"script":"a.py","nproc_per_node":0}"#).is_err());
        assert!(plan("torchrun", br#"{}"#).is_err());
    }

    #[test]
    fn each_type_is_read() {
        let command = plan("command", br#"{"argv":["echo","hi"],"env":{"A":"1"},"stdin":"x"}"#).expect("valid");
        assert!(matches!(command, Plan::Command(command) if command.argv == ["echo", "hi"] && command.env["A"] == "1"));
        assert!(matches!(plan("python", br#"{"code":"print(1)"}"#), Ok(Plan::Python(_))));
        assert!(matches!(plan("train", br#"{"script":"a.py","args":["--x"],"other":1}"#), Ok(Plan::Train(_))));
        assert_eq!(plan("matmul", br#"{"n":4,"seed":2}"#), Ok(Plan::Matmul(MatmulPlan { n: 4, seed: 2 })));
        let eval = plan("eval", br#"{"script":"e.py","model":"digits/model@7"}"#).expect("valid");
        assert!(matches!(eval, Plan::Python(eval) if eval.inputs["model"] == "digits/model@7"));
    }

    #[test]
    fn the_parameters_of_an_element_stand_in_its_configuration() {
        let data = br#"{"array_index":1,"parameters":{"lr":0.1},"script":"a.py","config":{"lr":1,"n":2}}"#;
        let Plan::Python(python) = plan("python", data).expect("valid") else { panic!("it is python") };
        assert_eq!(python.config, Some(serde_json::json!({"lr": 0.1, "n": 2})));
    }

    #[test]
    fn each_mistake_is_one_line_that_names_it() {
        let cases: [(&str, &[u8], i32, &str); 14] = [
            ("python", br#"{"code":"1","inputs":{"../x":"7"}}"#, exit_code::DATA, "`../x` must be a file name"),
            ("python", br#"{"code":"1","inputs":{"x":""}}"#, exit_code::DATA, "its value an artifact"),
            ("eval", br#"{"code":"1"}"#, exit_code::DATA, "model is missing"),
            ("matmul", br#"{"step":"map"}"#, exit_code::DATA, "missing field"),
            (
                "matmul",
                br#"{"step":"map","job":"m","rows":1,"inner":1,"columns":1,"block":0}"#,
                exit_code::DATA,
                "block is 0",
            ),
            ("rust", b"{}", exit_code::USAGE, "unknown task type `rust`"),
            ("command", b"{", exit_code::DATA, "EOF"),
            ("command", b"{}", exit_code::DATA, "argv"),
            ("command", br#"{"argv":[]}"#, exit_code::DATA, "the program is missing"),
            ("command", br#"{"argv":["a\u0000b"]}"#, exit_code::DATA, "zero byte"),
            ("command", br#"{"argv":["a"],"env":{"A=B":"1"}}"#, exit_code::DATA, "A=B"),
            ("python", br#"{"script":"a.py","code":"1"}"#, exit_code::DATA, "either script or code"),
            ("train", br#"{"args":[]}"#, exit_code::DATA, "script is missing"),
            ("matmul", br#"{"n":0}"#, exit_code::DATA, "n is 0"),
        ];
        for (task_type, task_data, code, part) in cases {
            let error = plan(task_type, task_data).expect_err(part);
            assert_eq!(error.code, code, "{error}");
            assert!(error.reason.contains(part) && !error.reason.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_script_outside_its_bundle_is_refused_and_a_missing_one_is_told_with_what_there_is() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a.py"), "").expect("writable");
        assert_eq!(script_path("a.py", Some(folder.path())), Ok(folder.path().join("a.py")));
        for outside in ["../a.py", "/etc/passwd", "x/../../a.py"] {
            assert!(script_path(outside, Some(folder.path())).is_err(), "{outside}");
        }
        let error = script_path("b.py", Some(folder.path())).expect_err("missing");
        assert_eq!((error.code, error.reason.as_str()), (66, "script `b.py` is not in the bundle, which has a.py"));
        assert!(script_path("a.py", None).expect_err("no bundle").reason.contains("is in no bundle"));
    }
}
