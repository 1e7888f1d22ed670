//! `workerd run-task --parent PID [--cgroup DIR] [--limits D,C,O,F] (exec -- ARGV… | matmul N SEED | block FOLDER)`: what a worker starts its tasks through.
//! Not for people.

use raftgrid_worker::confinement::Confinement;
use raftgrid_worker::shim::{run_task, RunTask};

/// The first word of the command line that leads here.
pub(crate) const COMMAND: &str = "run-task";

const USAGE: &str = "usage: workerd run-task --parent PID [--cgroup DIR] [--limits D,C,O,F] (exec -- PROGRAM [ARGUMENTS] | matmul N SEED | block FOLDER)";

/// Runs in the child with the words behind `run-task`; returns its exit code unless it became another program.
pub(crate) fn run(words: &[String]) -> i32 {
    match parse(words) {
        Some((parent, confinement, what)) => run_task(parent, &confinement, &what),
        None => {
            eprintln!("{USAGE}");
            raftgrid_worker::plan::exit_code::USAGE
        }
    }
}

fn parse(words: &[String]) -> Option<(u32, Confinement, RunTask)> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ["--parent", parent, rest @ ..] = words.as_slice() else { return None };
    let (confinement, rest) = Confinement::parse(rest)?;
    let what = match rest {
        ["exec", "--", argv @ ..] if !argv.is_empty() => {
            RunTask::Exec(argv.iter().map(|word| (*word).to_owned()).collect())
        }
        ["matmul", n, seed] => RunTask::Matmul { n: n.parse().ok()?, seed: seed.parse().ok()? },
        ["block", folder] => RunTask::Block(folder.into()),
        _ => return None,
    };
    Some((parent.parse().ok()?, confinement, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(u32, RunTask)> {
        let (parent, confinement, what) = parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())?;
        assert_eq!(confinement, Confinement::default());
        Some((parent, what))
    }

    #[test]
    fn the_forms_are_read_and_a_task_s_own_flags_are_left_alone() {
        let argv = ["python3", "--parent", "7"].map(str::to_owned).to_vec();
        assert_eq!(parsed("--parent 4 exec -- python3 --parent 7"), Some((4, RunTask::Exec(argv))));
        assert_eq!(parsed("--parent 4 matmul 64 7"), Some((4, RunTask::Matmul { n: 64, seed: 7 })));
        let limited = parse(
            &"--parent 4 --limits 1,2,3,4 exec -- x --limits 9".split(' ').map(str::to_owned).collect::<Vec<_>>(),
        );
        let (_, confinement, what) = limited.expect("well formed");
        assert_eq!((confinement.data_bytes, confinement.file_bytes), (1, 4));
        assert_eq!(what, RunTask::Exec(["x", "--limits", "9"].map(str::to_owned).to_vec()));
        assert_eq!(parsed("--parent 4 block /a"), Some((4, RunTask::Block("/a".into()))));
        assert_eq!(parsed("--parent 4 exec --"), None);
        assert_eq!(parsed("matmul 64 7"), None);
    }
}
