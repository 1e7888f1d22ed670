//! Wrong flags and settings of the daemons: one line on standard error and exit status 2, before anything is touched.

mod harness;

use std::process::{Command, Output};

use harness::program;

fn run(daemon: &str, folder: &std::path::Path, line: &str) -> Output {
    let mut command = Command::new(program(daemon));
    command.args(line.split(' ')).current_dir(folder);
    for name in ["RAFTGRID_PYTHON", "RAFTGRID_ENDPOINTS"] {
        command.env_remove(name);
    }
    command.output().expect("it starts")
}

#[test]
fn each_mistake_is_one_line_with_the_status_of_wrong_usage() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("torn.json"), "{\"node_id\": ").expect("writable");
    std::fs::write(folder.path().join("odd.toml"), "node_idd = 1\n").expect("writable");
    for (daemon, line, words) in [
        ("controld", "--data-dri d", "controld: unknown flag `--data-dri`; try: --data-dir (see controld --help)"),
        ("controld", "start", "controld: unknown argument `start`; try: controld --help"),
        ("controld", "--config torn.json", "failed to parse torn.json"),
        ("controld", "--config none.toml", "check the path given to --config"),
        ("controld", "--config odd.toml", "unknown key `node_idd`; did you mean `node_id`?"),
        ("controld", "--node-id 1 --data-dir d --bootstrap --preset fast", "presets are local, lan and wan"),
        ("controld", "--node-id 1 --data-dir d --bootstrap --log-level loud", "levels are trace, debug"),
        (
            "controld",
            "--node-id 1 --data-dir d --bootstrap --with-worker --worker-slots many",
            "`worker_slots` = `many`",
        ),
        ("controld", "--node-id 1 --data-dir d --bootstrap --client-addr 10.0.0.1:4", "--insecure"),
        ("workerd", "--dri d", "workerd: unknown flag `--dri`; try: --dir (see workerd --help)"),
        ("workerd", "--slots 1", "give --dir"),
        ("workerd", "--dir d --slots many", "`slots` = `many`"),
        ("workerd", "--dir d --log-level loud", "levels are trace, debug"),
    ] {
        let output = run(daemon, folder.path(), line);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{daemon} {line}: {text}");
        assert!(text.contains(words) && text.starts_with(daemon), "{daemon} {line}: {text}");
    }
    assert!(!folder.path().join("d").exists(), "nothing was touched");
    for daemon in ["controld", "workerd"] {
        for line in ["--help", "--version"] {
            let output = run(daemon, folder.path(), line);
            assert!(
                output.status.success() && !output.stdout.is_empty() && output.stderr.is_empty(),
                "{daemon} {line}"
            );
        }
    }
}
