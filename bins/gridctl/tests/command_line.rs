//! The binary itself: exit statuses, and one line for what went wrong.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// Nobody listens on port 1 of the loopback.
const NOBODY: &str = "127.0.0.1:1";

fn gridctl(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gridctl"));
    command.current_dir(folder).env_remove("RAFTGRID_ENDPOINTS").stdin(Stdio::null());
    command
}

fn run(folder: &Path, line: &str) -> Output {
    gridctl(folder).args(line.split(' ')).output().expect("it starts")
}

/// The only line on standard error.
fn one_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(output.stdout.is_empty(), "nothing is printed as a result: {output:?}");
    text.trim_end().to_owned()
}

#[test]
fn each_mistake_ends_with_its_status_and_one_line_that_names_cause_and_next_step() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(folder.path().join("a.py"), "print(1)\n").expect("written");
    for (line, status, cause, next) in [
        ("dev up --pers 3", 2, "unknown flag `--pers`", "--peers"),
        ("jobs list", 2, "unknown command `jobs`", "job"),
        ("dev up --peers 2", 2, "2 replicas", "--peers 1, 3, 5 or 7"),
        ("job list --output yaml", 2, "yaml", "gridctl job list --help"),
        ("job list --endpoints ,", 2, "endpoints is empty", "--endpoints"),
        ("job list --endpoints nowhere", 2, "nowhere", "--endpoints"),
        ("task submit --type matmul --data {n:2}", 2, "--data is not JSON", "--data"),
        ("task submit --type matmul --data @none.json", 1, "none.json", "--data"),
        ("train a.py --name n --shards 0 --workers 1 --rounds 1", 2, "--shards", "--shards"),
        (
            "train b.py --name n --shards 1 --workers 1 --rounds 1 --endpoints 127.0.0.1:1",
            1,
            "script b.py does not exist",
            "path",
        ),
        ("job list", 1, "no cluster is known", "gridctl dev up"),
        ("dev kill leader", 1, "no dev cluster here", "gridctl dev up"),
        ("dev down", 1, "no dev cluster here", "gridctl dev up"),
        ("job list --endpoints 127.0.0.1:1 --timeout 200ms", 1, NOBODY, "gridctl cluster status"),
        (
            "train a.py --name n --shards 1 --workers 1 --rounds 1 --endpoints 127.0.0.1:1 --timeout 200ms",
            1,
            NOBODY,
            "--timeout",
        ),
        ("cluster add_leaner 4", 2, "unknown command `add_leaner`", "add-learner"),
        ("cluster certs --nodes 1,2", 2, "--dir is not given", "--dir DIR"),
        ("cluster certs --nodes 1,x --dir c", 2, "`x` is no number", "--nodes 1,2,3"),
        ("cluster certs --nodes 1 --cluster-name a.b --dir c", 2, "\"a.b\"", "letters, digits"),
        ("cluster certs --nodes 1 --days 0 --dir c", 2, "0 days", "--days 1 to"),
        ("demo --script none.py", 1, "script none.py does not exist", "path"),
    ] {
        let output = run(folder.path(), line);
        let text = one_line(&output);
        assert_eq!(output.status.code(), Some(status), "{line}: {text}");
        let (told, tried) = text.split_once("; try: ").unwrap_or_else(|| panic!("{line}: no next step in `{text}`"));
        assert!(told.starts_with("gridctl: ") && told.contains(cause), "{line}: {text}");
        assert!(tried.contains(next), "{line}: {text}");
    }
    assert!(!folder.path().join(".raftgrid-dev").exists(), "a command that fails leaves nothing behind");
}

#[test]
fn an_empty_list_in_the_environment_counts_as_none() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let with = |list: &str| {
        let output = gridctl(folder.path()).args(["job", "list"]).env("RAFTGRID_ENDPOINTS", list).output();
        one_line(&output.expect("it starts"))
    };
    assert!(with("").contains("no cluster is known"), "{}", with(""));
    assert!(with("nowhere").contains("nowhere"), "{}", with("nowhere"));
}

#[test]
fn help_is_printed_as_a_result() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for line in ["--help", "train --help", "--version"] {
        let output = run(folder.path(), line);
        assert_eq!(output.status.code(), Some(0), "{line}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{line}: {output:?}");
    }
}

#[test]
fn a_file_of_another_cluster_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(folder.path().join(".raftgrid-dev")).expect("made");
    std::fs::write(folder.path().join(".raftgrid-dev/dev.json"), "{\"version\": ").expect("written");
    let output = run(folder.path(), "job list");
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("dev.json does not parse"));
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended, or must.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

#[test]
fn an_interrupt_ends_a_waiting_command_with_130() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    // A listener that never answers: the command waits until it is interrupted.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = listener.local_addr().expect("bound").to_string();
    let mut child = Running(
        gridctl(folder.path())
            .args(["job", "wait", "x", "--timeout", "10m", "--endpoints", &endpoint])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts"),
    );
    // It connects only after it has taken over the signals.
    let (stream, _) = listener.accept().expect("it connects");
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    let status = child.0.wait().expect("it ends");
    drop(stream);
    let errors = BufReader::new(child.0.stderr.take().expect("piped"));
    assert_eq!(status.code(), Some(130), "{:?}", errors.lines().collect::<Vec<_>>());
}

#[test]
fn certificates_are_made_for_each_node_with_keys_that_nobody_else_reads_and_nothing_is_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let made = run(folder.path(), "cluster certs --nodes 1,2,3 --cluster-name blue --dir c --output json");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let json: serde_json::Value = serde_json::from_slice(&made.stdout).expect("JSON");
    assert_eq!((&json["nodes"], &json["authority_made"]), (&serde_json::json!([1, 2, 3]), &true.into()));
    let read = |name: &str| std::fs::read_to_string(folder.path().join("c").join(name)).expect("it was made");
    let ca = read("ca.pem");
    let keys = ["ca-key.pem", "node-1-key.pem", "node-2-key.pem", "node-3-key.pem"];
    for name in keys {
        let mode = std::fs::metadata(folder.path().join("c").join(name)).expect("it was made").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let verify =
        |certificate: &str, key: &str, name: &str| raftgrid_rpc::tls::verify(&read(certificate), &read(key), &ca, name);
    for node in 1..=3 {
        let (certificate, key) = (format!("node-{node}.pem"), format!("node-{node}-key.pem"));
        assert_eq!(verify(&certificate, &key, &format!("node-{node}.blue")), Ok(()));
        assert!(verify(&certificate, &key, &format!("node-{}.blue", node + 1)).is_err(), "for itself only");
        assert!(verify(&certificate, &key, &format!("node-{node}.red")).is_err(), "in its cluster only");
    }

    let before: Vec<String> = keys.map(read).into();
    let again = one_line(&run(folder.path(), "cluster certs --nodes 4,3 --cluster-name blue --dir c"));
    assert!(again.contains("node-3.pem is there already") && again.contains("try: another --dir"), "{again}");
    assert_eq!(Vec::from(keys.map(read)), before);
    assert!(!folder.path().join("c/node-4.pem").exists(), "all or nothing");
    // One that joins later is signed by the same authority.
    let joiner = run(folder.path(), "cluster certs --nodes 4 --cluster-name blue --dir c");
    assert!(joiner.status.success(), "{}", String::from_utf8_lossy(&joiner.stderr));
    assert_eq!(verify("node-4.pem", "node-4-key.pem", "node-4.blue"), Ok(()));
    assert_eq!(read("ca.pem"), ca);
    // The authority of one cluster does not sign for another by a slip.
    let other = one_line(&run(folder.path(), "cluster certs --nodes 9 --cluster-name red --dir c"));
    assert!(other.contains("does not fit"), "{other}");
    std::fs::remove_file(folder.path().join("c/ca-key.pem")).expect("it is there");
    let half = one_line(&run(folder.path(), "cluster certs --nodes 9 --cluster-name blue --dir c"));
    assert!(half.contains("ca-key.pem is missing"), "{half}");
}
