//! The commands and the script of README.md, as they stand there, against the real binaries.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Words that mark a line to be typed while the one before it runs.
const MEANWHILE: &str = "# in another terminal";

/// What the script leaves to the reader: a model, data, a gradient.
const PRELUDE: &str = "\
import numpy as np
data = np.random.default_rng(7).uniform(-1.0, 1.0, (64, 2)).astype(np.float32)
def make_params(seed):
    return {'w': np.random.default_rng(seed).uniform(-1.0, 1.0, 2).astype(np.float32)}
def gradient(params, data, shard, num_shards, seed):
    rows = data[shard::num_shards]
    error = rows @ params['w'] - rows.sum(axis=1)
    return {'w': (rows.T @ error / len(rows)).astype(np.float32)}, len(rows), {'loss': float(np.mean(error ** 2))}
";

fn checkout() -> PathBuf {
    // Asked when it runs: a shared target directory may hold this test as another checkout compiled it.
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests")).join("../..")
}

/// The fenced block of this language that has `word` in it.
fn block(language: &str, word: &str) -> String {
    let readme = std::fs::read_to_string(checkout().join("README.md")).expect("there is a README");
    let blocks = readme.split("\n```").skip(1).step_by(2);
    let found = blocks.filter_map(|block| block.strip_prefix(language)).find(|block| block.contains(word));
    found.unwrap_or_else(|| panic!("README.md has no {language} block with `{word}`")).to_owned()
}

/// The interpreter with ml-code's packages: the project's virtual environment, or the one that RAFTGRID_PYTHON names.
fn python() -> PathBuf {
    std::env::var_os("RAFTGRID_PYTHON").map_or_else(|| checkout().join(".venv/bin/python"), PathBuf::from)
}

/// A folder that looks like a checkout after `make build`, and a dev cluster that goes with it.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let ml_code = checkout().join("ml-code").canonicalize().expect("the checkout has ml-code");
        symlink(ml_code, folder.path().join("ml-code")).expect("writable");
        // Its folder, not what it links to: a virtual environment is known by its path.
        let environment = python().parent().and_then(Path::parent).map(Path::to_owned).expect("ENVIRONMENT/bin/python");
        symlink(std::path::absolute(environment).expect("a path"), folder.path().join(".venv")).expect("writable");
        Self { folder }
    }

    /// A shell with the binaries in its path.
    fn shell(&self, line: &str) -> Command {
        let binaries = Path::new(env!("CARGO_BIN_EXE_gridctl")).parent().expect("a folder").display().to_string();
        assert!(
            Path::new(&binaries).join("controld").is_file(),
            "controld is not built; run `cargo build --release --bins` first"
        );
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .current_dir(self.folder.path())
            .env("PATH", format!("{binaries}:{path}"))
            .env_remove("RAFTGRID_ENDPOINTS")
            .env_remove("VIRTUAL_ENV")
            .env("PYTHONPATH", self.folder.path().join("ml-code/src"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Output {
        let output = self.shell(line).output().expect("sh runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {errors}{}", String::from_utf8_lossy(&output.stdout));
        output
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // It may be down already.
        let _ended = self.shell("gridctl dev down").output();
    }
}

/// A command under way, after its first line that begins with `word`.
fn started(mut command: Command, word: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    #[allow(clippy::zombie_processes, reason = "given back, or the test fails and ends with its process")]
    let mut child = command.stdout(Stdio::piped()).spawn().expect("sh runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    loop {
        let mut line = String::new();
        let count = lines.read_line(&mut line).expect("text");
        assert!(count > 0, "it ended before a line with `{word}`");
        if line.starts_with(word) {
            return (child, lines);
        }
    }
}

#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    let desk = Desk::new();
    let block = block("sh", "gridctl dev up");
    let lines: Vec<&str> = block.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert!(lines.len() >= 5 && lines.iter().any(|line| line.contains(MEANWHILE)), "{lines:?}");
    let mut at = 0;
    let mut audited = String::new();
    while at < lines.len() {
        if lines.get(at + 1).is_some_and(|next| next.contains(MEANWHILE)) {
            let (mut child, rest) = started(desk.shell(lines[at]), "round");
            desk.run(lines[at + 1]);
            let last = rest.lines().map_while(Result::ok).last().unwrap_or_default();
            assert!(child.wait().expect("ours").success(), "{}: {last}", lines[at]);
            at += 2;
            continue;
        }
        let output = desk.run(lines[at]);
        if lines[at].contains("job audit") {
            audited = String::from_utf8(output.stdout).expect("UTF-8");
        }
        at += 1;
    }
    // The job lived through the kill of its leader, and its ledger says so.
    let has =
        |name: &str, value: &str| audited.lines().any(|line| line.starts_with(name) && line.trim().ends_with(value));
    assert!(has("accepted", "360") && has("lost", "0"), "{audited}");
}

#[test]
fn the_script_of_the_readme_runs_alone_and_unchanged_on_a_cluster() {
    let desk = Desk::new();
    let folder = desk.folder.path().join("work");
    std::fs::create_dir(&folder).expect("writable");
    let script = format!("{PRELUDE}{}", block("python", "raftgrid.init"));
    std::fs::write(folder.join("train.py"), script).expect("writable");
    let alone = String::from_utf8(desk.run(".venv/bin/python work/train.py").stdout).expect("UTF-8");
    assert!(alone.contains("round 20/20"), "{alone}");
    desk.run("gridctl dev up --peers 1 --workers 1 --detach");
    let train = "gridctl train work/train.py --name readme --shards 2 --workers 1 --rounds 3 --watch";
    let watched = String::from_utf8(desk.run(train).stdout).expect("UTF-8");
    assert!(watched.contains("round 3/3"), "{watched}");
}

/// Everything that a program's help texts say, those of its commands included.
fn help(program: &Path, words: &[String]) -> String {
    let output = Command::new(program).args(words).arg("--help").output().expect("it starts");
    let mut text = String::from_utf8(output.stdout).expect("UTF-8");
    let below = text.split_once("SUBCOMMANDS:").map(|(_, below)| below.to_owned()).unwrap_or_default();
    let names = below.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     "));
    for name in names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        text.push_str(&help(program, &[words, &[name.to_owned()]].concat()));
    }
    text
}

#[test]
fn every_flag_and_verb_that_operations_md_names_is_one() {
    let document = std::fs::read_to_string(checkout().join("docs/operations.md")).expect("there is one");
    let gridctl = Path::new(env!("CARGO_BIN_EXE_gridctl"));
    let known: Vec<String> =
        ["gridctl", "controld", "workerd"].map(|name| help(&gridctl.with_file_name(name), &[])).into();
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let flags = |text: &str| -> Vec<String> {
        let words = text
            .split(|c| !word(c))
            .filter(|flag| flag.starts_with("--") && flag[2..].starts_with(|c: char| c.is_ascii_alphabetic()));
        words.map(str::to_owned).collect()
    };
    let known_flags: Vec<String> = known.iter().flat_map(|text| flags(text)).collect();
    let named = flags(&document);
    assert!(named.len() > 40, "{named:?}");
    // The flags of old have underscores and stand in no help text.
    for flag in named.iter().filter(|flag| !flag.contains('_')) {
        assert!(known_flags.contains(flag), "docs/operations.md names {flag}, which no program has");
    }
    // Verbs: the rows of the table in the section on gridctl.
    let section = document.split("## ").find(|section| section.starts_with("gridctl")).expect("a section on gridctl");
    for noun in ["job", "node", "cluster", "artifact", "task", "kv"] {
        let row = section.lines().find(|line| line.starts_with(&format!("| `{noun}` |"))).expect("a row for each noun");
        let commands = help(gridctl, &[noun.to_owned()]);
        let below = commands.split_once("SUBCOMMANDS:").expect("it has verbs").1;
        let rows = below.lines().take_while(|line| !line.contains("USAGE"));
        let rows = rows.filter(|line| line.starts_with("    ") && !line.starts_with("     "));
        let verbs: Vec<&str> = rows.filter_map(|line| line.split_whitespace().next()).collect();
        let plain = row.split('`').step_by(2).collect::<String>();
        for verb in verbs.iter().filter(|verb| **verb != "help" && !verb.starts_with("gridctl")) {
            assert!(
                plain.split(|c| !word(c)).any(|named| named == *verb),
                "docs/operations.md does not name {noun} {verb}"
            );
        }
    }
}
