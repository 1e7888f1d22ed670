//! What this worker's Python can do: asked once, before the worker registers, so that a wrong interpreter is told at the start and not by
//! every task that comes.
//!
//! It starts one short process and decides nothing: the binaries say what follows from the answer.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use slog::{warn, Logger};

use crate::clock::boottime_ms;
use crate::config::WorkerConfig;
use crate::limits::INTERPRETER_LOOK_MS;
use crate::output::one_line;

/// Modules that a `train` task cannot do without: the package raftgrid and what it imports.
pub(crate) const PACKAGES: [&str; 5] = ["raftgrid", "numpy", "grpc", "google.protobuf", "safetensors"];

/// Looked for, not imported: importing takes a second.
const SCRIPT: &str = "\
import importlib.util as u, sys
def there(name):
    try:
        return u.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
print('missing', *[name for name in sys.argv[1:] if not there(name)])
";

/// What an interpreter can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interpreter {
    /// `python` and `train` tasks.
    Ready,
    /// `python` tasks; for `train` tasks these modules are missing.
    Lacks(Vec<String>),
    /// Nothing; why, on one line.
    Unusable(String),
}

impl Interpreter {
    /// Asks `python` (a path, or a name to be found in PATH) with `python_path` as its tasks get it.
    pub fn look(python: &str, python_path: &str) -> Self {
        match ask(python, python_path) {
            Ok(missing) if missing.is_empty() => Self::Ready,
            Ok(missing) => Self::Lacks(missing),
            Err(cause) => Self::Unusable(one_line(&cause)),
        }
    }

    /// Types of tasks that a worker with this interpreter cannot run.
    pub fn unable(&self) -> Vec<String> {
        let types: &[&str] = match self {
            Self::Ready => &[],
            Self::Lacks(_) => &["train"],
            Self::Unusable(_) => &["python", "eval", "train"],
        };
        types.iter().map(|name| (*name).to_owned()).collect()
    }
}

/// Looks at the interpreter of `config` and notes what it cannot run. Err: somebody chose an interpreter that is none (`chosen` is the flag
/// for it); one line for whoever starts the worker. One that nobody chose may be missing: the worker then takes what it can run, as a node
/// without a driver does elsewhere.
pub fn look_at_python(config: &mut WorkerConfig, chosen: Option<&str>, logger: &Logger) -> Result<(), String> {
    let found = Interpreter::look(&config.python, &config.python_path);
    config.unable = found.unable();
    let python = &config.python;
    match (found, chosen) {
        (Interpreter::Ready, _) => {}
        (Interpreter::Unusable(cause), Some(flag)) => {
            return Err(format!(
                "failed to use the interpreter {python}: {cause}; try: {flag} FILE, a Python with the package raftgrid"
            ));
        }
        (Interpreter::Unusable(cause), None) => {
            warn!(logger, "no python: this node takes no python and no train tasks"; "python" => python, "cause" => cause);
        }
        (Interpreter::Lacks(missing), _) => {
            warn!(logger, "the interpreter lacks packages: this node takes no train tasks";
                "python" => python, "missing" => missing.join(", "), "try" => "pip install ./ml-code");
        }
    }
    Ok(())
}

/// Whether a Python program's last words are that it lacks one of `PACKAGES`: then the node is to blame, not the script.
pub(crate) fn lacks_package(reason: &str) -> bool {
    let Some((_, rest)) = reason.split_once("ModuleNotFoundError: No module named '") else { return false };
    let Some((module, _)) = rest.split_once('\'') else { return false };
    PACKAGES.iter().any(|package| {
        let top = package.split('.').next().unwrap_or(package);
        module == *package || module == top || module.starts_with(&format!("{package}."))
    })
}

fn ask(python: &str, python_path: &str) -> Result<Vec<String>, String> {
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT]).args(PACKAGES).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let inherited = std::env::var("PYTHONPATH").unwrap_or_default();
    let path: Vec<&str> = [python_path, &inherited].into_iter().filter(|part| !part.is_empty()).collect();
    if !path.is_empty() {
        command.env("PYTHONPATH", path.join(":"));
    }
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "it does not exist".to_owned(),
        _ => error.to_string(),
    })?;
    let status = wait(&mut child)?;
    // Both are short: they fit into the pipes, so the process never waited for us.
    let (mut stdout, mut stderr) = (String::new(), Vec::new());
    child.stdout.take().map(|mut pipe| pipe.read_to_string(&mut stdout));
    child.stderr.take().map(|mut pipe| pipe.read_to_end(&mut stderr));
    if !status.success() {
        let words = String::from_utf8_lossy(&stderr).into_owned();
        let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("without a word");
        return Err(format!("it ends with {status}: {last}"));
    }
    let answer = stdout.lines().find_map(|line| line.strip_prefix("missing"));
    let answer = answer.ok_or_else(|| "it is no Python: it does not answer as one".to_owned())?;
    Ok(answer.split_whitespace().map(str::to_owned).collect())
}

fn wait(child: &mut Child) -> Result<std::process::ExitStatus, String> {
    let deadline = boottime_ms() + INTERPRETER_LOOK_MS;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if boottime_ms() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                // It is ours, and not reaped yet.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it does not answer within {INTERPRETER_LOOK_MS} ms"));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn program(folder: &tempfile::TempDir, text: &str) -> String {
        let path = folder.path().join("python");
        std::fs::write(&path, text).expect("writable");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("ours");
        path.display().to_string()
    }

    #[test]
    fn an_interpreter_that_is_none_can_run_neither_python_nor_train() {
        let folder = tempfile::tempdir().expect("a folder");
        let cases = [
            ("/nowhere/python".to_owned(), "it does not exist"),
            (program(&folder, "#!/bin/sh\necho broken >&2\nexit 3\n"), "broken"),
        ];
        for (python, why) in cases {
            let found = Interpreter::look(&python, "");
            assert!(matches!(&found, Interpreter::Unusable(cause) if cause.contains(why)), "{found:?}");
            assert_eq!(found.unable(), ["python", "eval", "train"]);
        }
        let found = Interpreter::look(&program(&folder, "#!/bin/sh\necho hello\n"), "");
        assert!(matches!(&found, Interpreter::Unusable(cause) if cause.contains("no Python")), "{found:?}");
    }

    #[test]
    fn missing_packages_are_named_and_keep_train_tasks_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let found = Interpreter::look(&program(&folder, "#!/bin/sh\necho missing raftgrid numpy\n"), "");
        assert_eq!(found, Interpreter::Lacks(vec!["raftgrid".to_owned(), "numpy".to_owned()]));
        assert_eq!(found.unable(), ["train"]);
        assert_eq!(Interpreter::look(&program(&folder, "#!/bin/sh\necho missing\n"), ""), Interpreter::Ready);
    }

    #[test]
    fn modules_beside_the_tasks_path_are_found() {
        // Debian's python3, or the one of the tests: its own packages do not matter here.
        let folder = tempfile::tempdir().expect("a folder");
        for package in PACKAGES {
            let path = folder.path().join(package.replace('.', "/"));
            std::fs::create_dir_all(&path).expect("writable");
            std::fs::write(path.join("__init__.py"), "").expect("writable");
        }
        std::fs::write(folder.path().join("google/__init__.py"), "").expect("writable");
        assert_eq!(Interpreter::look("python3", &folder.path().display().to_string()), Interpreter::Ready);
    }

    #[test]
    fn only_the_packages_that_every_worker_must_have_are_the_node_s_fault() {
        assert!(lacks_package("ModuleNotFoundError: No module named 'raftgrid'"));
        assert!(lacks_package("ModuleNotFoundError: No module named 'google'"));
        assert!(lacks_package("ModuleNotFoundError: No module named 'numpy.linalg'"));
        assert!(!lacks_package("ModuleNotFoundError: No module named 'my_helper'"));
        assert!(!lacks_package("ModuleNotFoundError: No module named 'raftgrid_extras'"));
        assert!(!lacks_package("ValueError: No module named 'raftgrid'"));
    }
}
