//! A mirror in a bucket of an S3-compatible server that checks signatures. The objects are looked at by another client.

mod world;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::Arc;

use raftgrid_mirror::limits::PART_BYTES;
use raftgrid_mirror::{Config, Mirror, Reach};
use raftgrid_telemetry::{silent, Registry};
use sha2::{Digest, Sha256};
use world::{value, wait_for, Fake, Mood, World};

fn checkout() -> PathBuf {
    // Asked when it runs: a shared target directory may hold this test as another checkout compiled it.
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests")).join("../..")
}

/// The interpreter with ml-code's packages.
fn python() -> String {
    std::env::var("RAFTGRID_PYTHON").unwrap_or_else(|_| {
        let own = checkout().join(".venv/bin/python");
        if own.is_file() {
            own.display().to_string()
        } else {
            "python3".to_owned()
        }
    })
}

fn script() -> PathBuf {
    checkout().join("bins/controld/tests/scripts/s3_server.py")
}

struct Server {
    child: Child,
    port: u16,
    key: String,
    secret: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("there is a port").port();
        let mut command = Command::new(python());
        command.arg(script()).args(["serve", &port.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the interpreter runs");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("readable");
        let (key, secret) = line.trim().split_once(' ').expect("the packages `dev` of ml-code have the server");
        Self { port, key: key.to_owned(), secret: secret.to_owned(), child }
    }

    /// (key → SHA-256 of its bytes) of all objects; how many uploads of several parts have not ended.
    fn objects(&self) -> (Vec<(String, String)>, usize) {
        let folder = tempfile::tempdir().expect("a directory can be made");
        let mut command = Command::new(python());
        command.arg(script()).args(["objects", &self.port.to_string(), &self.key, &self.secret, "models"]);
        let output = command.arg(folder.path()).output().expect("the interpreter runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (mut found, mut folders) = (Vec::new(), vec![folder.path().to_owned()]);
        while let Some(at) = folders.pop() {
            for path in std::fs::read_dir(at).expect("readable").flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(folder.path()).expect("it is below").display().to_string();
                    found.push((name, hex(&Sha256::digest(std::fs::read(&path).expect("readable")))));
                }
            }
        }
        found.sort();
        (found, String::from_utf8_lossy(&output.stdout).trim().parse().expect("it prints a number"))
    }

    fn names(&self) -> Vec<String> {
        self.objects().0.into_iter().map(|(name, _)| name).collect()
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn started(world: &Arc<World>, server: &Server) -> (Mirror, Registry) {
    let config = Config {
        address: "s3://models/raft/grid".parse().expect("an address"),
        reach: Reach { endpoint: Some(format!("http://127.0.0.1:{}", server.port)), region: None, plain: true },
        cluster_id: "test-00ff".to_owned(),
        node: 1,
        bytes_per_second: 0,
        without_kinds: Vec::new(),
    };
    let registry = Registry::new();
    let mirror = Mirror::start(config, Box::new(Fake(world.clone())), &registry, &silent());
    (mirror.expect("threads can be started"), registry)
}

/// One test: the credentials are variables of the whole process.
#[test]
fn a_bucket_refuses_strangers_shows_no_half_upload_and_in_the_end_has_everything_once() {
    let (server, world) = (Server::start(), World::leading());
    std::env::set_var("AWS_ACCESS_KEY_ID", &server.key);
    std::env::set_var("AWS_SECRET_ACCESS_KEY", "another-secret");
    let bytes = 2 * PART_BYTES as usize + 99;
    let large = hex(&world.add(1, "large", "model", bytes, Mood::WaitsAt(2 * PART_BYTES)));
    let (stranger, registry) = started(&world, &server);
    wait_for("a refusal", || (value(&registry, "raftgrid_mirror_failing_state") == 1.0).then_some(()));
    drop(stranger);
    assert_eq!(server.objects(), (Vec::new(), 0));

    // A leader that stands still between two parts, as one that was killed: nothing is seen of them but the note.
    std::env::set_var("AWS_SECRET_ACCESS_KEY", &server.secret);
    let (_still, of_the_old) = started(&world, &server);
    wait_for("two parts", || world.waits.load(Ordering::SeqCst).then_some(()));
    let note = format!("raft/grid/test-00ff/uploads/{large}@1");
    assert_eq!((server.names(), server.objects().1), (vec![note], 1));

    // The next leader clears that away and sends everything.
    let next = World::leading();
    assert_eq!(hex(&next.add(1, "large", "model", bytes, Mood::Good)), large);
    let small = hex(&next.add(2, "a/b", "file", 1_000, Mood::Good));
    let (_next, registry) = started(&next, &server);
    let sent = "raftgrid_mirror_artifacts_total{outcome=\"sent\"}";
    wait_for("both", || (value(&registry, sent) == 2.0).then_some(()));
    assert_eq!(value(&registry, "raftgrid_mirror_uploads_aborted_total"), 1.0);
    let blob = |digest: &str| format!("raft/grid/test-00ff/blobs/{digest}");
    let mut names = vec![
        blob(&large),
        blob(&small),
        "raft/grid/test-00ff/names/a/b/@2.json".to_owned(),
        "raft/grid/test-00ff/names/large/@1.json".to_owned(),
    ];
    names.sort();
    let (found, unended) = server.objects();
    assert_eq!((found.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), unended), (names, 0));
    for (name, digest) in &found {
        assert!(name.ends_with(".json") || *name == blob(digest), "{name} has other bytes");
    }
    // The old one goes on where it stood: its upload is gone (which the server of this test says with a trace), and it finds what the other sent.
    world.mood(1, Mood::Good);
    let turns =
        |outcome: &str| value(&of_the_old, &format!("raftgrid_mirror_artifacts_total{{outcome=\"{outcome}\"}}"));
    wait_for("its questions", || (turns("found") == 1.0).then_some(()));
    assert_eq!((turns("failed"), turns("sent")), (1.0, 0.0));
    assert_eq!(server.objects(), (found, 0));
}
