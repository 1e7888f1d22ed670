//! `workerd run-task --parent PID (exec -- ARGV… | matmul N SEED | block FOLDER)`: what a worker starts its tasks through. Not for people.

use raftgrid_worker::shim::{run_task, RunTask};

/// The first word of the command line that leads here.
pub(crate) const COMMAND: &str = "run-task";

const USAGE: &str = "usage: workerd run-task --parent PID (exec -- PROGRAM [ARGUMENTS] | matmul N SEED | block FOLDER)";

/// Runs in the child with the words behind `run-task`; returns its exit code unless it became another program.
pub(crate) fn run(words: &[String]) -> i32 {
    match parse(words) {
        Some((parent, what)) => run_task(parent, &what),
        None => {
            eprintln!("{USAGE}");
            raftgrid_worker::plan::exit_code::USAGE
        }
    }
}

fn parse(words: &[String]) -> Option<(u32, RunTask)> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--parent", parent, "exec", "--", argv @ ..] if !argv.is_empty() => {
            let argv = argv.iter().map(|word| (*word).to_owned()).collect();
            Some((parent.parse().ok()?, RunTask::Exec(argv)))
        }
        ["--parent", parent, "matmul", n, seed] => {
            Some((parent.parse().ok()?, RunTask::Matmul { n: n.parse().ok()?, seed: seed.parse().ok()? }))
        }
        ["--parent", parent, "block", folder] => Some((parent.parse().ok()?, RunTask::Block(folder.into()))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(u32, RunTask)> {
        parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_forms_are_read_and_a_task_s_own_flags_are_left_alone() {
        let argv = ["python3", "--parent", "7"].map(str::to_owned).to_vec();
        assert_eq!(parsed("--parent 4 exec -- python3 --parent 7"), Some((4, RunTask::Exec(argv))));
        assert_eq!(parsed("--parent 4 matmul 64 7"), Some((4, RunTask::Matmul { n: 64, seed: 7 })));
        assert_eq!(parsed("--parent 4 block /a"), Some((4, RunTask::Block("/a".into()))));
        assert_eq!(parsed("--parent 4 exec --"), None);
        assert_eq!(parsed("matmul 64 7"), None);
    }
}
