//! Virtual environments of jobs: made once per machine for each text of requirements and Python, kept, shared by all attempts that ask for
//! the same; the one that was used longest ago goes first.
//!
//! An environment's programs name its path, so it is made where it stays; it counts as complete once its marker is there, which is written
//! last and by a rename. What has none is a broken one and is made again. Files of the folder: `HASH/` the environment, `HASH.lock` whose
//! exclusive lock makes and removes it and whose shared lock uses it, also by other workers of the machine.
//!
//! pip's own settings on this machine (its index, its certificates, folders of wheels) are what it has them to be.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use rustix::fs::{flock, FlockOperation};
use sha2::{Digest, Sha256};

use crate::limits::{REQUIREMENTS_BYTES_MAX, VENVS_KEPT, VENV_LOOK_MS};
use crate::output::one_line;
use crate::plan::{exit_code, PlanError};
use crate::probe;
use crate::stage::disk;

const MARKER: &str = "raftgrid-complete";
/// Asked of the machine's interpreter: what it is, and where its own packages are.
const ASK: &str = "\
import site, sys
print(sys.version.replace(chr(10), ' '))
print(sys.prefix)
for path in site.getsitepackages():
    print(path)
";

/// Runs a program for an attempt, its output in the attempt's log; gives its exit code and what it said last on stderr.
pub(crate) type Run<'a> = &'a mut dyn FnMut(&[String], &Path) -> Result<(i32, Option<String>), PlanError>;

/// What a task asks for.
pub(crate) struct Wanted<'a> {
    /// The text.
    pub(crate) requirements: &'a str,
    /// Where paths in it begin.
    pub(crate) folder: &'a Path,
    /// SHA-256 of the code that comes with the task, "" for none: it counts where the text names files.
    pub(crate) bundle: &'a str,
}

/// Environments below one folder.
pub(crate) struct Venvs {
    folder: PathBuf,
    python: String,
    identity: OnceLock<Identity>,
}

/// The machine's Python.
#[derive(Clone, Debug)]
struct Identity {
    text: String,
    packages: Vec<String>,
}

/// One environment in use: it is not removed meanwhile.
#[derive(Debug)]
pub(crate) struct Venv {
    folder: PathBuf,
    _lock: File,
}

impl Venv {
    /// Its interpreter.
    pub(crate) fn python(&self) -> String {
        self.folder.join("bin/python").to_string_lossy().into_owned()
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Venvs {
    pub(crate) fn new(folder: PathBuf, python: String) -> Self {
        Self { folder, python, identity: OnceLock::new() }
    }

    /// The environment, made if it is not there. `stopped` ends the wait for another attempt that makes it.
    pub(crate) fn get(&self, wanted: &Wanted<'_>, stopped: &dyn Fn() -> bool, run: Run<'_>) -> Result<Venv, PlanError> {
        if wanted.requirements.len() > REQUIREMENTS_BYTES_MAX {
            let reason = format!("requirements: at most {REQUIREMENTS_BYTES_MAX} bytes");
            return Err(PlanError::new(exit_code::DATA, reason));
        }
        let identity = self.identity()?;
        fs::create_dir_all(&self.folder).map_err(disk("make the folder of environments"))?;
        let name = name(wanted, &identity);
        let folder = self.folder.join(&name);
        let lock =
            File::options().create(true).truncate(false).write(true).open(self.folder.join(format!("{name}.lock")));
        let lock = lock.map_err(disk("lock an environment"))?;
        loop {
            patiently(&lock, FlockOperation::NonBlockingLockShared, stopped)?;
            if is_complete(&folder) {
                touch(&folder);
                self.prune(&name);
                return Ok(Venv { folder, _lock: lock });
            }
            // Given back first: two that hold it shared would wait for each other.
            flock(&lock, FlockOperation::Unlock).map_err(io::Error::from).map_err(disk("unlock an environment"))?;
            patiently(&lock, FlockOperation::NonBlockingLockExclusive, stopped)?;
            if !is_complete(&folder) {
                make(&self.python, &identity, wanted, &folder, run)?;
            }
        }
    }

    fn identity(&self) -> Result<Identity, PlanError> {
        if let Some(identity) = self.identity.get() {
            return Ok(identity.clone());
        }
        let mut command = std::process::Command::new(&self.python);
        command.args(["-c", ASK]);
        let text = probe::output_of(command, VENV_LOOK_MS).map_err(|error| {
            PlanError::new(exit_code::OS, format!("failed to ask the interpreter {}: {error}", self.python))
        })?;
        let packages = text.lines().skip(2).map(str::to_owned).collect();
        let text = text.lines().take(2).collect::<Vec<_>>().join("\n");
        Ok(self.identity.get_or_init(|| Identity { text, packages }).clone())
    }

    /// Removes what was used longest ago beyond `VENVS_KEPT`; what is in use stays.
    fn prune(&self, keep: &str) {
        let mut found: Vec<(SystemTime, String)> = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .map(|entry| (used(&entry.path()), entry.file_name().to_string_lossy().into_owned()))
            .collect();
        found.sort();
        let excess = found.len().saturating_sub(VENVS_KEPT);
        for (_, name) in found.iter().filter(|(_, name)| name != keep).take(excess) {
            let Ok(lock) =
                File::options().create(true).truncate(false).write(true).open(self.folder.join(format!("{name}.lock")))
            else {
                continue;
            };
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            let folder = self.folder.join(name);
            // Incomplete first: what is removed by half is then made again.
            let _ = fs::remove_file(folder.join(MARKER));
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Of the folder: the same requirements of the same Python have the same.
fn name(wanted: &Wanted<'_>, identity: &Identity) -> String {
    let mut hash = Sha256::new();
    let bundle = if names_files(wanted.requirements) { wanted.bundle } else { "" };
    for part in [wanted.requirements, &identity.text, bundle] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the text speaks of files beside it: then what they hold counts, too.
fn names_files(requirements: &str) -> bool {
    requirements.lines().map(str::trim).any(|line| {
        let path = line.starts_with('.') || line.contains("./") || line.contains("file:");
        path || line.starts_with("-r") || line.starts_with("-c") || line.starts_with("-e") || line.starts_with("--")
    })
}

fn is_complete(folder: &Path) -> bool {
    folder.join(MARKER).is_file() && folder.join("bin/python").exists()
}

fn used(folder: &Path) -> SystemTime {
    fs::metadata(folder.join(MARKER)).and_then(|it| it.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn touch(folder: &Path) {
    // The order of removal is an aid.
    let _ = File::options().write(true).open(folder.join(MARKER)).and_then(|file| file.set_modified(SystemTime::now()));
}

fn patiently(lock: &File, operation: FlockOperation, stopped: &dyn Fn() -> bool) -> Result<(), PlanError> {
    loop {
        match flock(lock, operation) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(disk("lock an environment")(io::Error::from(error))),
        }
        if stopped() {
            return Err(PlanError::new(exit_code::TRY_AGAIN, "stopped before it was started"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn make(python: &str, identity: &Identity, wanted: &Wanted<'_>, folder: &Path, run: Run<'_>) -> Result<(), PlanError> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(disk("remove a broken environment"))?;
    }
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
    let target = folder.to_string_lossy().into_owned();
    let own = folder.join("bin/python").to_string_lossy().into_owned();
    let mut step = |argv: &[String], what: &str| -> Result<(), PlanError> {
        match run(argv, wanted.folder)? {
            (0, _) => Ok(()),
            (code, said) => {
                let said = said.unwrap_or_else(|| format!("exit code {code}"));
                Err(PlanError::new(1, format!("requirements: failed to {what}: {said}")))
            }
        }
    };
    step(&words(&[python, "-m", "venv", "--without-pip", &target]), "make an environment")?;
    let list = folder.join("requirements.txt");
    fs::write(&list, wanted.requirements).map_err(disk("write the requirements"))?;
    let list = list.to_string_lossy().into_owned();
    let install =
        ["install", "--disable-pip-version-check", "--no-input", "--no-color", "--progress-bar", "off", "-r", &list];
    // The machine's own packages are there too, behind the environment's: raftgrid and what it needs.
    write_path_file(folder, &identity.packages).map_err(disk("prepare an environment"))?;
    let with_machines_pip = words(&[&[python, "-m", "pip", "--python", &own], &install[..]].concat());
    if has_pip(python) {
        step(&with_machines_pip, "install")?;
    } else {
        step(&words(&[&own, "-m", "ensurepip", "--default-pip"]), "get pip")?;
        step(&words(&[&[own.as_str(), "-m", "pip"], &install[..]].concat()), "install")?;
    }
    let part = folder.join("marker.part");
    fs::write(&part, &identity.text).map_err(disk("complete an environment"))?;
    fs::rename(&part, folder.join(MARKER)).map_err(disk("complete an environment"))
}

/// Whether this interpreter's pip can install into another environment: from 22.3 on.
fn has_pip(python: &str) -> bool {
    let mut command = std::process::Command::new(python);
    command.args(["-m", "pip", "--version"]);
    let Ok(text) = probe::output_of(command, VENV_LOOK_MS) else { return false };
    let version = text.strip_prefix("pip ").and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (22, 3)
}

/// A `.pth` file puts folders behind the environment's own packages.
fn write_path_file(folder: &Path, packages: &[String]) -> io::Result<()> {
    for library in fs::read_dir(folder.join("lib"))? {
        let site = library?.path().join("site-packages");
        if site.is_dir() {
            fs::write(site.join("raftgrid-machine.pth"), packages.join("\n") + "\n")?;
        }
    }
    Ok(())
}

/// The text of a requirements file in the bundle.
pub(crate) fn of_file(name: &str, bundle: Option<&Path>) -> Result<String, PlanError> {
    let path = crate::plan::script_path(name, bundle)?;
    let size = fs::metadata(&path).map(|it| it.len()).unwrap_or(0);
    if size > REQUIREMENTS_BYTES_MAX as u64 {
        return Err(PlanError::new(
            exit_code::DATA,
            format!("requirements: `{name}` has more than {REQUIREMENTS_BYTES_MAX} bytes"),
        ));
    }
    fs::read_to_string(&path).map_err(|error| {
        let error = one_line(&error.to_string());
        PlanError::new(exit_code::NO_INPUT, format!("requirements: failed to read `{name}` of the bundle: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted<'a>(requirements: &'a str, bundle: &'a str) -> Wanted<'a> {
        Wanted { requirements, folder: Path::new("/"), bundle }
    }

    fn identity(text: &str) -> Identity {
        Identity { text: text.to_owned(), packages: Vec::new() }
    }

    #[test]
    fn requirements_and_python_make_the_name_and_the_bundle_only_where_files_are_named() {
        let base = name(&wanted("numpy==1", "b1"), &identity("3.11"));
        assert_eq!(base, name(&wanted("numpy==1", "b2"), &identity("3.11")));
        assert_ne!(base, name(&wanted("numpy==2", "b1"), &identity("3.11")));
        assert_ne!(base, name(&wanted("numpy==1", "b1"), &identity("3.12")));
        for text in ["./wheels/a.whl", "--find-links wheels\nnumpy", "-r more.txt"] {
            assert_ne!(
                name(&wanted(text, "b1"), &identity("3.11")),
                name(&wanted(text, "b2"), &identity("3.11")),
                "{text}"
            );
        }
    }

    #[test]
    fn an_environment_without_its_marker_is_made_again_and_one_with_it_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let venvs = Venvs::new(folder.path().to_owned(), "python3".to_owned());
        let mut calls = Vec::new();
        let get = |calls: &mut Vec<String>| {
            let mut run = |argv: &[String], _: &Path| {
                calls.push(argv.join(" "));
                if let Some(at) = argv.iter().position(|word| word == "--without-pip") {
                    let bin = Path::new(&argv[at + 1]).join("bin");
                    fs::create_dir_all(&bin).expect("writable");
                    fs::create_dir_all(Path::new(&argv[at + 1]).join("lib/python3/site-packages")).expect("writable");
                    fs::write(bin.join("python"), "").expect("writable");
                }
                Ok((0, None))
            };
            venvs.get(&wanted("x", ""), &|| false, &mut run).expect("made")
        };
        let venv = get(&mut calls);
        let made = calls.len();
        assert!(made >= 2, "{calls:?}");
        drop(get(&mut calls));
        assert_eq!(calls.len(), made, "it is there");
        fs::remove_file(venv.folder().join(MARKER)).expect("there");
        drop(venv);
        drop(get(&mut calls));
        assert_eq!(calls.len(), 2 * made, "it was broken");
    }

    #[test]
    fn a_failure_is_one_line_and_leaves_nothing_that_counts_as_complete() {
        let folder = tempfile::tempdir().expect("a folder");
        let venvs = Venvs::new(folder.path().to_owned(), "python3".to_owned());
        let mut run = |_: &[String], _: &Path| Ok((1, Some("ERROR: No matching distribution found for x".to_owned())));
        let error = venvs.get(&wanted("x", ""), &|| false, &mut run).expect_err("it failed");
        assert!(error.reason.starts_with("requirements: failed to make an environment: ERROR: No matching"), "{error}");
        let complete = fs::read_dir(folder.path()).expect("there").flatten().any(|entry| is_complete(&entry.path()));
        assert!(!complete);
    }

    #[test]
    fn those_used_longest_ago_go_and_those_in_use_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let venvs = Venvs::new(folder.path().to_owned(), "python3".to_owned());
        for number in 0..VENVS_KEPT as u64 + 3 {
            let one = folder.path().join(format!("v{number:02}"));
            fs::create_dir(&one).expect("writable");
            let marker = File::create(one.join(MARKER)).expect("writable");
            marker.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(number + 1)).expect("ours");
        }
        let used = File::create(folder.path().join("v00.lock")).expect("writable");
        flock(&used, FlockOperation::NonBlockingLockShared).expect("free");
        venvs.prune("v01");
        let there = |name: &str| folder.path().join(name).exists();
        assert!(there("v00") && there("v01") && !there("v02") && !there("v03") && there("v05"));
    }
}
