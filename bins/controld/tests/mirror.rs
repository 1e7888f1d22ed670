//! The mirror of real clusters: in a directory, and in a bucket of an S3-compatible server. The objects are looked at by another client.

mod harness;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{checkout, free_port, python, wait_for, Cluster, Process};
use raftgrid_client::Upload;
use sha2::{Digest, Sha256};

const MIB: usize = 1024 * 1024;
/// Of an artifact that is sent in several parts.
const LARGE: usize = 3 * 8 * MIB + 4_321;
/// So slow that a leader can be killed in the middle of it.
const SLOW: &str = "4194304";
/// A leader that was killed too late is no leader killed amid an upload: then another one is.
const KILLS_MAX: u64 = 5;

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn content(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// What was pushed: name ("" for none) with the SHA-256 of its bytes.
#[derive(Default)]
struct Pushed(Vec<(String, String)>);

impl Pushed {
    /// Pushes an artifact; it is committed when this returns.
    fn push(&mut self, cluster: &Cluster, name: &str, bytes: Vec<u8>) {
        let digest = hex(&Sha256::digest(&bytes));
        let upload = Upload { name: name.to_owned(), kind: "file".to_owned(), ..Upload::default() };
        let put = cluster.client().put_artifact(&upload, &mut Cursor::new(bytes), &mut |_, _| ());
        put.expect("a majority runs");
        self.0.push((name.to_owned(), digest));
    }

    /// Whether each has its pointer among the objects below `folder`.
    fn are_in(&self, folder: &Path) -> bool {
        let objects = files(folder);
        let pointers = objects.iter().filter(|(name, _)| name.ends_with(".json"));
        let texts: Vec<String> = pointers.filter_map(|(_, path)| std::fs::read_to_string(path).ok()).collect();
        self.0.iter().all(|(_, digest)| texts.iter().any(|text| text.contains(digest)))
    }

    /// Holds all objects below `folder` against what was pushed: each object of bytes is what its name says, each artifact's are there, and
    /// each pointer names its bytes.
    fn compare(&self, folder: &Path) {
        let objects = files(folder);
        let mut pointed = BTreeMap::new();
        for (name, path) in &objects {
            let parts: Vec<&str> = name.split('/').skip_while(|part| !is_folder(part)).collect();
            match parts.as_slice() {
                ["blobs", digest] if digest.contains('#') => panic!("half an upload is left: {name}"),
                ["blobs", digest] => {
                    assert_eq!(&hex(&Sha256::digest(std::fs::read(path).expect("readable"))), digest, "{name}");
                }
                ["names" | "unnamed", ..] => {
                    let text = std::fs::read(path).expect("readable");
                    let pointer: serde_json::Value = serde_json::from_slice(&text).expect("a pointer is JSON");
                    let text = |key: &str| pointer[key].as_str().expect("it is text").to_owned();
                    let cluster = name.split_once("/names").or_else(|| name.split_once("/unnamed")).expect("it has").0;
                    assert!(objects.contains_key(&format!("{cluster}/{}", text("object"))), "{name} points to nothing");
                    pointed.insert(text("sha256"), text("name"));
                }
                _ => panic!("nobody wrote {name}"),
            }
        }
        for (name, digest) in &self.0 {
            assert_eq!(pointed.get(digest), Some(name), "{name} has no pointer");
        }
        assert_eq!(pointed.len(), self.0.len());
    }
}

/// Each object of bytes is what its name says. A file with `#` has no name yet.
fn whole(folder: &Path) {
    for (name, path) in files(folder) {
        let Some((_, digest)) = name.split_once("blobs/").filter(|(_, digest)| !digest.contains('#')) else { continue };
        // A file that got its name since is read under it the next time.
        let Ok(bytes) = std::fs::read(&path) else { continue };
        assert_eq!(hex(&Sha256::digest(bytes)), digest, "half an upload can be seen");
    }
}

fn is_folder(part: &str) -> bool {
    matches!(part, "blobs" | "names" | "models" | "unnamed" | "uploads")
}

/// Every file below the folder: its path from there on → its path.
fn files(folder: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for path in std::fs::read_dir(at).expect("readable").flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("it is below").display().to_string();
                found.insert(name, path);
            }
        }
    }
    found
}

/// A cluster of three that mirrors to `url`.
fn cluster(url: &str, env: &[(&str, &str)]) -> Cluster {
    let mut cluster = Cluster::prepare(3, &["--mirror", url]);
    cluster.env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for at in 0..3 {
        cluster.start_replica(at);
    }
    cluster.leader();
    cluster
}

/// Of all replicas that run: who leads may change at any moment.
fn sum(cluster: &Cluster, series: &str) -> f64 {
    let running = (0..cluster.replicas.len()).filter(|at| cluster.replicas[*at].process.is_some());
    running.map(|at| cluster.metrics(at).value(series)).sum()
}

fn failing(cluster: &Cluster) -> bool {
    sum(cluster, "raftgrid_mirror_failing_state") >= 1.0
}

/// Waits until so many artifacts wait to be mirrored.
fn waiting(cluster: &Cluster, artifacts: usize) {
    wait_for("artifacts that wait", || {
        (sum(cluster, "raftgrid_mirror_pending_count") == artifacts as f64).then_some(())
    });
}

/// The line in which a leader says that it cannot mirror.
fn warning(cluster: &Cluster) -> String {
    wait_for("a warning", || {
        let logs = (0..cluster.replicas.len()).filter_map(|at| std::fs::read_to_string(cluster.log(at)).ok());
        logs.flat_map(|log| log.lines().map(str::to_owned).collect::<Vec<_>>())
            .find(|line| line.contains("artifacts are not mirrored"))
    })
}

/// Waits until everything has its pointer among the objects that `look` gives.
fn all_mirrored(pushed: &Pushed, look: &dyn Fn() -> PathBuf) {
    wait_for("everything in the mirror", || pushed.are_in(&look()).then_some(()));
}

/// Kills the leader between two parts of an upload, as often as it takes until its successor finds half of one.
fn kill_the_leader_amid_an_upload(cluster: &mut Cluster, pushed: &mut Pushed, look: &dyn Fn() -> PathBuf) {
    for kill in 0..KILLS_MAX {
        let sent = || sum(cluster, "raftgrid_mirror_sent_bytes_total");
        all_mirrored(pushed, look);
        let before = sent();
        pushed.push(cluster, &format!("large/{kill}"), content(100 + kill, LARGE));
        wait_for("its first part", || (sent() >= before + (8 * MIB) as f64).then_some(()));
        let leader = cluster.leader();
        cluster.kill_replica(leader);
        whole(&look());
        all_mirrored(pushed, look);
        let aborted = sum(cluster, "raftgrid_mirror_uploads_aborted_total");
        cluster.start_replica(leader);
        if aborted >= 1.0 {
            return;
        }
    }
    panic!("{KILLS_MAX} leaders were killed, and none amid an upload");
}

/// An S3-compatible server with one bucket and one user.
struct S3 {
    process: Process,
    port: String,
    key: String,
    secret: String,
}

impl S3 {
    const URL: &'static str = "s3://models/raft/grid";

    fn script() -> PathBuf {
        checkout().join("bins/controld/tests/scripts/s3_server.py")
    }

    fn start(folder: &Path) -> Self {
        let (port, log) = (free_port().to_string(), folder.join("s3.out"));
        let process = Process::start(Command::new(python()).arg(Self::script()).args(["serve", &port]), &log);
        let mut s3 = Self { process, port, key: String::new(), secret: String::new() };
        (s3.key, s3.secret) = wait_for("the S3-compatible server", || {
            let text = std::fs::read_to_string(&log).ok()?;
            assert!(s3.process.exited().is_none(), "the server ended; the packages `dev` of ml-code have it:\n{text}");
            let line = text.lines().find(|line| line.starts_with("AKIA"))?;
            line.split_once(' ').map(|(key, secret)| (key.to_owned(), secret.to_owned()))
        });
        s3
    }

    /// What a replica is told.
    fn env<'a>(&'a self, endpoint: &'a str, secret: &'a str) -> [(&'a str, &'a str); 4] {
        let rate = ("RAFTGRID_MIRROR_BYTES_PER_SECOND", SLOW);
        [("AWS_ENDPOINT_URL", endpoint), ("AWS_ACCESS_KEY_ID", &self.key), ("AWS_SECRET_ACCESS_KEY", secret), rate]
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All objects as files in an empty folder.
    fn copied(&self, folder: &Path) -> PathBuf {
        // Not there the first time.
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir(folder).expect("it can be made");
        self.objects(folder);
        folder.to_owned()
    }

    /// All objects as files, by another client; how many uploads of several parts have not ended.
    fn objects(&self, folder: &Path) -> usize {
        let mut command = Command::new(python());
        command.arg(Self::script()).args(["objects", &self.port, &self.key, &self.secret, "models"]).arg(folder);
        let output = command.output().expect("the interpreter runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("it prints a number")
    }
}

#[test]
fn a_directory_has_every_artifact_though_the_leader_is_killed_amid_an_upload_and_gives_them_back() {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let url = format!("file://{}", folder.path().display());
    let mut cluster = cluster(&url, &[("RAFTGRID_MIRROR_BYTES_PER_SECOND", SLOW)]);
    let mut pushed = Pushed::default();
    pushed.push(&cluster, "digits/best.safetensors", content(1, 3 * MIB + 17));
    pushed.push(&cluster, "", content(2, 70));
    let look = || folder.path().to_owned();
    kill_the_leader_amid_an_upload(&mut cluster, &mut pushed, &look);
    pushed.push(&cluster, "after", content(3, 300_000));
    all_mirrored(&pushed, &look);
    pushed.compare(folder.path());
    // A file of the mirror is the artifact: another cluster takes it by its name.
    let objects = files(folder.path());
    let found =
        objects.keys().find(|name| name.contains("/names/digits/best.safetensors/@")).expect("it has a pointer");
    let pointer: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&objects[found]).expect("readable")).expect("a pointer is JSON");
    let cluster_folder = found.split_once('/').expect("below the cluster's folder").0;
    let file = folder.path().join(cluster_folder).join(pointer["object"].as_str().expect("it names its bytes"));
    let other = Cluster::start(1, &[]);
    let (code, _, errors) =
        other.gridctl(&["artifact", "push", &file.display().to_string(), "--name", "digits/best.safetensors"]);
    assert_eq!(code, 0, "{errors}");
    let mut bytes = Vec::new();
    other.client().get_artifact("digits/best.safetensors", &mut bytes, &mut |_, _| ()).expect("it is committed");
    assert!(bytes == content(1, 3 * MIB + 17), "what came back is something else");
}

#[test]
fn a_bucket_has_every_artifact_though_the_leader_is_killed_amid_an_upload_and_no_half_upload_is_left() {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let s3 = S3::start(folder.path());
    let endpoint = s3.endpoint();
    let mut cluster = cluster(S3::URL, &s3.env(&endpoint, &s3.secret));
    let mut pushed = Pushed::default();
    pushed.push(&cluster, "digits/best.safetensors", content(1, 3 * MIB + 17));
    pushed.push(&cluster, "", content(2, 70));
    let copies = folder.path().join("copies");
    let look = || s3.copied(&copies);
    kill_the_leader_amid_an_upload(&mut cluster, &mut pushed, &look);
    pushed.push(&cluster, "after", content(3, 300_000));
    all_mirrored(&pushed, &look);
    assert_eq!(s3.objects(&copies), 0, "an upload of several parts was never ended");
    pushed.compare(&copies);
    let below = files(&copies).keys().all(|name| name.starts_with("raft/grid/test-"));
    assert!(below, "an object is outside of the prefix and the cluster's folder");
}

#[test]
fn a_store_that_hangs_or_is_away_keeps_no_commit_waiting_and_gets_all_when_it_is_back() {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let s3 = S3::start(folder.path());
    let endpoint = s3.endpoint();
    let cluster = cluster(S3::URL, &s3.env(&endpoint, &s3.secret));
    let mut pushed = Pushed::default();
    let copies = folder.path().join("copies");
    let look = || s3.copied(&copies);
    pushed.push(&cluster, "before", content(1, 1_000));
    all_mirrored(&pushed, &look);
    // It takes connections and answers nothing.
    s3.process.signal("STOP");
    pushed.push(&cluster, "while-it-hangs", content(2, 1_000));
    pushed.push(&cluster, "while-it-hangs-too", content(3, 2 * MIB));
    s3.process.signal("CONT");
    all_mirrored(&pushed, &look);
    // It takes no connections.
    s3.process.signal("USR1");
    wait_for("a closed port", || std::net::TcpStream::connect(("127.0.0.1", s3.port.parse().ok()?)).err());
    pushed.push(&cluster, "while-it-is-away", content(4, 3 * MIB));
    pushed.push(&cluster, "while-it-is-away-too", content(5, 12 * MIB));
    wait_for("a failure", || failing(&cluster).then_some(()));
    waiting(&cluster, 2);
    warning(&cluster);
    s3.process.signal("USR2");
    wait_for("an open port", || std::net::TcpStream::connect(("127.0.0.1", s3.port.parse().ok()?)).ok());
    all_mirrored(&pushed, &look);
    wait_for("success", || (!failing(&cluster)).then_some(()));
    waiting(&cluster, 0);
    assert_eq!(s3.objects(&copies), 0);
    pushed.compare(&copies);
}

#[test]
fn wrong_credentials_are_a_warning_with_its_cause_and_a_metric_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let s3 = S3::start(folder.path());
    let endpoint = s3.endpoint();
    let cluster = cluster(S3::URL, &s3.env(&endpoint, "another-secret-that-nobody-knows"));
    let mut pushed = Pushed::default();
    pushed.push(&cluster, "refused", content(1, 4_000));
    wait_for("a failure", || failing(&cluster).then_some(()));
    let line = warning(&cluster);
    assert!(line.contains("403") || line.contains("SignatureDoesNotMatch"), "{line}");
    pushed.push(&cluster, "committed-all-the-same", content(2, 4_000));
    waiting(&cluster, 2);
    for (at, name) in [(1, "refused"), (2, "committed-all-the-same")] {
        let mut bytes = Vec::new();
        cluster.client().get_artifact(name, &mut bytes, &mut |_, _| ()).expect("it is committed");
        assert!(bytes == content(at, 4_000), "{name} is something else");
    }
    // The first question of a term is refused already: no artifact has a turn.
    wait_for("all bytes wait", || (sum(&cluster, "raftgrid_mirror_pending_bytes") >= 8_000.0).then_some(()));
    assert_eq!(sum(&cluster, "raftgrid_mirror_sent_bytes_total"), 0.0);
    for at in 0..3 {
        let log = std::fs::read_to_string(cluster.log(at)).expect("readable");
        assert!(!log.contains("another-secret-that-nobody-knows"), "a secret is in the log");
    }
    let copies = s3.copied(&folder.path().join("copies"));
    assert_eq!(files(&copies), BTreeMap::new(), "the store took what was not signed");
}
