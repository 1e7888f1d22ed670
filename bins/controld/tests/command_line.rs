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
        (
            "controld",
            "--node-id 1 --data-dir d --bootstrap --raft-addr 10.0.0.1:4",
            "give tls.peer_cert, tls.peer_key and tls.peer_ca",
        ),
        (
            "controld",
            "--node-id 1 --data-dir d --bootstrap --tls-peer-key k.pem",
            "`tls.peer_key` = `k.pem` (flag): it needs `tls.peer_cert`, too",
        ),
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

#[test]
fn a_crash_point_that_is_none_of_this_program_is_wrong_usage() {
    let folder = tempfile::tempdir().expect("a folder");
    for (daemon, line, point, words) in [
        ("controld", "--node-id 1 --data-dir d --bootstrap", "log.sinced", "`log.sinced` is no crash point"),
        (
            "controld",
            "--node-id 1 --data-dir d --bootstrap",
            "gradient.acked",
            "gradient.acked is a crash point of workerd",
        ),
        ("controld", "--node-id 1 --data-dir d --bootstrap", "log.synced:0", "`0` is no count of 1 or more"),
        ("workerd", "--dir d", "log.synced:3", "log.synced is a crash point of controld"),
    ] {
        let mut command = Command::new(program(daemon));
        command.args(line.split(' ')).current_dir(folder.path()).env("RAFTGRID_CRASH_AT", point);
        let output = command.output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{daemon} {point}: {text}");
        assert!(text.contains(words) && text.starts_with(daemon), "{daemon} {point}: {text}");
    }
    assert!(!folder.path().join("d").exists(), "nothing was touched");
}

#[test]
fn certificates_that_cannot_be_used_are_one_line_with_the_setting_and_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let certs = folder.path().join("certs");
    harness::certs::make(&certs, "1,2");
    std::fs::write(folder.path().join("n.toml"), "[tls]\npeer_cert = 'certs/node-1.pem'\npeer_ca = 'certs/ca.pem'\n")
        .expect("writable");
    let start = |key: &str, more: &str| {
        let line = format!("--config n.toml --cluster-name test --bootstrap --data-dir d --tls-peer-key {key} {more}");
        run("controld", folder.path(), &line)
    };
    for (key, more, words) in [
        ("none.pem", "--node-id 1", "failed to use `tls.peer_key` = `none.pem`: No such file"),
        ("certs/node-2-key.pem", "--node-id 1", "`tls.peer_key` = `certs/node-2-key.pem`: it is not the key"),
        ("certs/node-1-key.pem", "--node-id 2", "`tls.peer_cert` = `certs/node-1.pem`: this replica is node-2.test"),
        // Off the loopback the certificates are enough for the Raft port, so it is they that are looked at.
        ("none.pem", "--node-id 1 --raft-addr 10.0.0.1:4", "failed to use `tls.peer_key`"),
    ] {
        let output = start(key, more);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("controld: ")).collect();
        assert!(lines.len() == 1 && lines[0].contains(words), "{more}: {text}");
        assert_eq!(output.status.code(), Some(1), "{text}");
    }
    assert!(!folder.path().join("d").exists(), "nothing was touched");
    let printed = start("certs/node-1-key.pem", "--node-id 1 --print-config");
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.contains("tls.peer_key = \"certs/node-1-key.pem\"  # flag"), "{printed}");
    assert!(printed.contains("tls.peer_cert = \"certs/node-1.pem\"  # file n.toml"), "{printed}");
}
