//! Holds docs/ARCHITECTURE.md, "who may know whom": the direction of the arrows between crates, the crates that alone may know raft,
//! RocksDB and gRPC, what pure crates must not touch, and the size of files.
//!
//! Each check is a function over text, and each has a test that feeds it a breach: a check that cannot fail is no check.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Crate of ours → crates of ours that it may depend on. Dev-dependencies are exempt; telemetry's facade is open to all that are not pure.
const ARROWS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("telemetry", &[]),
    // Files, environment and flags of programs; only programs read them.
    ("settings", &[]),
    // Shells only: what is pure is replayed, and must not end a process.
    ("crashpoint", &[]),
    ("manifest", &["proto"]),
    ("train", &["proto"]),
    ("control", &["manifest", "proto"]),
    ("driver", &[]),
    ("store", &["driver", "manifest", "crashpoint"]),
    ("store-rocks", &["store"]),
    ("blob", &["proto", "crashpoint"]),
    ("worker", &["proto", "crashpoint"]),
    ("replica", &["driver", "manifest", "control", "train", "blob", "store", "proto", "crashpoint"]),
    ("rpc", &["proto"]),
    ("client", &["proto", "rpc"]),
    // It carries what driver, store and replica define the traits of.
    ("peer", &["proto", "rpc", "driver", "store", "replica"]),
    // Replica's `Reads` hands out rows; manifest's views decode them.
    ("api", &["proto", "rpc", "replica", "manifest"]),
    // It shows what its caller brings.
    ("gateway", &[]),
    // It copies what its caller brings.
    ("mirror", &[]),
    // It passes on what Python sends, with client's retries.
    ("agent", &["proto", "rpc", "client", "worker", "crashpoint"]),
    ("simulator", &["driver", "store", "replica", "manifest", "control", "train", "worker", "blob", "proto"]),
    // Real processes under fire: it starts built programs, talks to them as a client, opens what a power cut left, and has the
    // simulator's checkers judge. No program links it.
    ("chaos", &["proto", "rpc", "client", "simulator", "driver", "manifest", "store", "store-rocks", "crashpoint"]),
];

/// Programs: they may know every crate of ours, and none of the libraries below.
const PROGRAMS: &[&str] = &["controld", "workerd", "gridctl", "raftgrid-benches"];

/// Test harnesses, which no program may link: what they bring (proxies, kills, strace) has no place in what is shipped.
const NEVER_LINKED: &[&str] = &["chaos"];

/// A library → the only crates that may know it.
const ONLY_HERE: &[(&str, &[&str])] = &[
    ("raft", &["driver"]),
    ("raft-proto", &["driver"]),
    ("rocksdb", &["store-rocks"]),
    ("librocksdb-sys", &["store-rocks"]),
    ("grpcio", &["rpc", "client", "peer", "api", "agent"]),
    ("grpcio-sys", &[]),
    ("grpcio-health", &["api"]),
    // What a certificate is good for is decided in one place.
    ("ring", &["rpc"]),
    ("rustls-webpki", &["rpc"]),
    ("protobuf-build", &["proto"]),
    // Stores of others, with the HTTP and TLS that it takes to reach them.
    ("object_store", &["mirror"]),
    ("reqwest", &["mirror"]),
    ("rustls", &["mirror"]),
    // What is on disk is decided in one place.
    ("reed-solomon-simd", &["blob"]),
];

/// Crates without clock, thread, socket, file, random number or logging, and all that they may know besides crates of ours.
const PURE: &[&str] = &["proto", "manifest", "control", "train"];
const PURE_LIBRARIES: &[&str] =
    &["protobuf", "protobuf-build", "bytes", "sha2", "thiserror", "libm", "safetensors", "serde", "serde_json"];

/// Further libraries of one pure crate. Calendars and time zones are data; the clock of `chrono` is among what is forbidden below.
const PURE_EXTRA: &[(&str, &[&str])] = &[("control", &["chrono", "chrono-tz", "croner"])];

/// Sources that are pure: folders and files under the root.
const PURE_SOURCES: &[&str] = &[
    "crates/proto/src",
    "crates/manifest/src",
    "crates/control/src",
    "crates/train/src",
    "crates/driver/src/core",
    "crates/driver/src/core.rs",
    "crates/blob/src/coding",
    "crates/blob/src/coding.rs",
];

/// What stands nowhere in pure sources. Words are whole identifiers, paths are runs of them.
const FORBIDDEN: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "thread::spawn",
    "std::thread",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "HashMap",
    "HashSet",
    "RandomState",
    "thread_rng",
    "Utc::now",
    "Local::now",
];

const LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests")).join("../..")
}

/// The crate's name without the prefix that all of ours have.
fn short(name: &str) -> &str {
    name.strip_prefix("raftgrid-").unwrap_or(name)
}

/// Crate → its normal and build dependencies, from the answer of `cargo metadata`.
fn dependencies(metadata: &Value) -> BTreeMap<String, Vec<String>> {
    let packages = metadata["packages"].as_array().expect("metadata lists packages");
    let counted = |dependency: &&Value| dependency["kind"].as_str() != Some("dev");
    let name = |value: &Value| value["name"].as_str().expect("it has a name").to_owned();
    let all = |package: &Value| {
        let list = package["dependencies"].as_array().expect("it lists dependencies");
        list.iter().filter(counted).map(name).collect()
    };
    packages.iter().map(|package| (name(package), all(package))).collect()
}

fn breaches_of_crate(name: &str, dependencies: &[String], ours: &[&str]) -> Vec<String> {
    let krate = short(name);
    let program = PROGRAMS.contains(&name);
    let arrows = ARROWS.iter().find(|(from, _)| *from == krate).map(|(_, to)| *to);
    if arrows.is_none() && !program {
        return vec![format!("{name} is not in the table of docs/ARCHITECTURE.md: give it a place there and here")];
    }
    let mut breaches = Vec::new();
    for dependency in dependencies {
        let target = short(dependency);
        let pure = PURE.contains(&krate);
        if NEVER_LINKED.contains(&target) {
            breaches.push(format!("{name} must not link {dependency}: it is a test harness"));
            continue;
        }
        if ours.contains(&dependency.as_str()) {
            let facade = target == "telemetry" && !pure;
            if !program && !facade && !arrows.unwrap_or_default().contains(&target) {
                breaches.push(format!("{name} must not know {dependency}"));
            }
            continue;
        }
        if let Some((_, only)) = ONLY_HERE.iter().find(|(library, _)| library == dependency) {
            if !only.contains(&krate) {
                breaches.push(format!("{name} must not know {dependency}: only {only:?} may"));
            }
        }
        let extra = PURE_EXTRA.iter().any(|(of, list)| *of == krate && list.contains(&dependency.as_str()));
        if pure && !extra && !PURE_LIBRARIES.contains(&dependency.as_str()) {
            breaches.push(format!("{name} is pure and must not know {dependency}"));
        }
    }
    breaches
}

fn breaches_of_table(metadata: &Value) -> Vec<String> {
    let crates = dependencies(metadata);
    let ours: Vec<&str> = crates.keys().map(String::as_str).collect();
    let mut breaches: Vec<String> =
        crates.iter().flat_map(|(name, list)| breaches_of_crate(name, list, &ours)).collect();
    for (krate, _) in ARROWS {
        if !ours.iter().any(|name| short(name) == *krate) {
            breaches.push(format!("the table names {krate}, which is no crate of the workspace"));
        }
    }
    breaches
}

#[test]
fn crates_depend_on_each_other_as_the_table_says() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata = serde_json::from_slice(&output.stdout).expect("cargo metadata answers in JSON");
    let breaches = breaches_of_table(&metadata);
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn each_kind_of_breach_of_the_table_is_seen() {
    let breach = |name: &str, dependency: &str, kind: Value| {
        let mut packages: Vec<Value> = ARROWS
            .iter()
            .map(|(krate, _)| serde_json::json!({"name": format!("raftgrid-{krate}"), "dependencies": []}))
            .collect();
        packages.retain(|package| package["name"] != name);
        let dependencies = serde_json::json!([{"name": dependency, "kind": kind}]);
        packages.push(serde_json::json!({"name": name, "dependencies": dependencies}));
        breaches_of_table(&serde_json::json!({ "packages": packages }))
    };
    let normal = || Value::Null;
    for (name, dependency) in [
        ("raftgrid-manifest", "raftgrid-control"),
        ("raftgrid-control", "raftgrid-telemetry"),
        ("raftgrid-driver", "raftgrid-manifest"),
        ("raftgrid-store-rocks", "raftgrid-manifest"),
        ("raftgrid-replica", "raftgrid-store-rocks"),
        ("raftgrid-replica", "raft"),
        ("raftgrid-store", "rocksdb"),
        ("raftgrid-worker", "grpcio"),
        ("raftgrid-replica", "object_store"),
        ("raftgrid-mirror", "raftgrid-replica"),
        ("raftgrid-agent", "grpcio-health"),
        ("raftgrid-manifest", "slog"),
        ("raftgrid-manifest", "raftgrid-crashpoint"),
        ("raftgrid-control", "raftgrid-crashpoint"),
        ("raftgrid-driver", "raftgrid-crashpoint"),
        ("raftgrid-train", "crossbeam"),
        ("controld", "grpcio"),
        ("gridctl", "rocksdb"),
        ("gridctl", "raftgrid-chaos"),
        ("raftgrid-simulator", "raftgrid-chaos"),
        ("raftgrid-benches", "raft"),
        ("raftgrid-stranger", "serde"),
    ] {
        assert_eq!(breach(name, dependency, normal()).len(), 1, "{name} → {dependency}");
        assert_eq!(breach(name, dependency, Value::from("build")).len(), 1, "{name} → {dependency}, to build");
    }
    for (name, dependency) in [
        ("raftgrid-control", "raftgrid-manifest"),
        ("raftgrid-driver", "raft"),
        ("raftgrid-driver", "slog"),
        ("raftgrid-api", "grpcio-health"),
        ("raftgrid-replica", "raftgrid-telemetry"),
        ("controld", "raftgrid-store-rocks"),
    ] {
        assert_eq!(breach(name, dependency, normal()), Vec::<String>::new(), "{name} → {dependency}");
    }
    assert_eq!(
        breach("raftgrid-store", "raft", Value::from("dev")),
        Vec::<String>::new(),
        "dev-dependencies are exempt"
    );
}

/// Every `.rs` file under the path (a folder or a file); none if it does not exist.
fn rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder can be read").path()).collect();
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The code without comments and the insides of literals; line breaks stay.
fn code(source: &str) -> String {
    let bytes: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let skipped = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['"', ..] => string(rest),
            ['r', '"', ..] | ['r', '#', ..] if !ends_in_word(&out) => raw_string(rest),
            ['\'', '\\', ..] => rest.iter().skip(3).position(|c| *c == '\'').map_or(rest.len(), |end| end + 4),
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        };
        if skipped == 0 {
            out.push(rest[0]);
            at += 1;
        } else {
            out.extend(rest[..skipped].iter().filter(|c| **c == '\n'));
            out.push(' ');
            at += skipped;
        }
    }
    out
}

fn ends_in_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// 0 if it is a raw identifier.
fn raw_string(rest: &[char]) -> usize {
    let hashes = rest.iter().skip(1).take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = 2 + hashes;
    (body..rest.len()).find(|at| rest[*at..].starts_with(&end)).map_or(rest.len(), |at| at + end.len())
}

/// The code without items under `#[cfg(test)]`; line breaks stay.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::new();
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        out.push_str(&rest[..start]);
        let item = &rest[start + MARK.len()..];
        let end = item_end(item);
        out.extend(item[..end].chars().filter(|c| *c == '\n'));
        rest = &item[end..];
    }
    out.push_str(rest);
    out
}

/// Where an item ends: after its `;`, or after the brace that closes its first one.
fn item_end(item: &str) -> usize {
    let mut depth = 0;
    for (at, c) in item.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// (line, what) of everything forbidden in a pure source.
fn impurities(source: &str) -> Vec<(usize, &'static str)> {
    let text = without_tests(&code(source));
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        // `a :: b` is the same path as `a::b`.
        let line: String = line.split("::").map(str::trim_end).collect::<Vec<_>>().join("::");
        found.extend(FORBIDDEN.iter().filter(|word| contains_word(&line, word)).map(|word| (at + 1, *word)));
    }
    found
}

fn contains_word(line: &str, word: &str) -> bool {
    let edge = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word)
        .any(|(at, _)| edge(line[..at].chars().next_back()) && edge(line[at + word.len()..].chars().next()))
}

#[test]
fn pure_sources_know_no_clock_thread_file_or_random_order() {
    let mut breaches = Vec::new();
    for folder in PURE_SOURCES {
        for file in rust_files(&root().join(folder)) {
            // `mod tests;` in a file of its own.
            if file.file_stem().is_some_and(|stem| stem == "tests") {
                continue;
            }
            let source = fs::read_to_string(&file).expect("a source file can be read");
            for (line, word) in impurities(&source) {
                breaches.push(format!("{}:{line}: {word}", file.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn every_pure_source_is_where_it_is_looked_for() {
    for folder in ["crates/proto/src", "crates/manifest/src", "crates/control/src", "crates/train/src"] {
        assert!(!rust_files(&root().join(folder)).is_empty(), "{folder} holds no source");
    }
    let core = ["crates/driver/src/core", "crates/driver/src/core.rs"].map(|path| rust_files(&root().join(path)).len());
    assert!(core.iter().sum::<usize>() > 0, "driver's core is not where this test looks for it");
}

#[test]
fn each_impurity_is_seen_and_comments_strings_and_tests_are_not() {
    for (source, expected) in [
        ("let now = Instant::now();", vec![(1, "Instant::now")]),
        ("use std::time::SystemTime;", vec![(1, "SystemTime")]),
        ("fn a() {\n    std::thread::spawn(|| ());\n}", vec![(2, "thread::spawn"), (2, "std::thread")]),
        ("use std::collections::{BTreeMap, HashMap};", vec![(1, "HashMap")]),
        ("use std::collections::HashSet as Set;", vec![(1, "HashSet")]),
        ("let n = rand::thread_rng();", vec![(1, "thread_rng")]),
        ("let t = Instant ::now();", vec![(1, "Instant::now")]),
        ("/* a /* b */ c */ use std::fs;", vec![(1, "std::fs")]),
        ("let quote = '\"'; let now = SystemTime::now(); let other = '\"';", vec![(1, "SystemTime")]),
        ("let r = r#\"a \" b\"#; HashMap::new();", vec![(1, "HashMap")]),
        ("#[cfg(test)]\nmod tests {\n    use std::fs;\n}\nuse std::net::TcpStream;", vec![(5, "std::net")]),
        ("#[cfg(test)]\nuse std::collections::HashMap;\nuse std::env;", vec![(3, "std::env")]),
    ] {
        assert_eq!(impurities(source), expected, "{source}");
    }
    for clean in [
        "// Instant::now, SystemTime\n/// HashMap\nlet a = 1;",
        "/* thread::spawn */ let a = 1;",
        "let why = \"no SystemTime here \\\" HashMap\";",
        "let why = r#\"thread_rng \" HashSet\"#;",
        "#[cfg(test)]\nmod tests {\n    fn a() { let m = HashMap::new(); }\n    use std::fs;\n}\nlet b = 2;",
        "struct MyHashMapLike; fn instant_now() {}",
        "let life: &'static str = a; let c = 'x';",
    ] {
        assert_eq!(impurities(clean), vec![], "{clean}");
    }
}

/// Dependencies of `name` that ask for the feature.
fn asks_for(metadata: &Value, name: &str, feature: &str) -> Vec<String> {
    let packages = metadata["packages"].as_array().expect("metadata lists packages");
    let package = packages.iter().find(|package| package["name"] == name).expect("the package is there");
    let dependencies = package["dependencies"].as_array().expect("it lists dependencies");
    let asks = |dependency: &&Value| {
        dependency["features"].as_array().is_some_and(|features| features.iter().any(|it| it == feature))
    };
    let mut found: Vec<String> = dependencies.iter().filter(asks).map(|it| it["name"].to_string()).collect();
    // A feature of its own that switches it on by default is as bad.
    let default = package["features"]["default"].as_array().cloned().unwrap_or_default();
    found.extend(default.iter().filter(|it| it.to_string().contains(feature)).map(Value::to_string));
    found
}

#[test]
fn planted_bugs_are_in_no_program_and_in_no_default() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata answers in JSON");
    let names: Vec<&str> =
        metadata["packages"].as_array().expect("packages").iter().filter_map(|it| it["name"].as_str()).collect();
    for name in names {
        assert_eq!(asks_for(&metadata, name, "mutants"), Vec::<String>::new(), "{name} switches planted bugs on");
    }
    let bad = serde_json::json!({"packages": [{
        "name": "controld",
        "features": {"default": ["raftgrid-driver/mutants"]},
        "dependencies": [{"name": "raftgrid-driver", "features": ["mutants"]}],
    }]});
    assert_eq!(asks_for(&bad, "controld", "mutants").len(), 2, "both ways are seen");
}

/// Line breaks of a file, and one for a last line without.
fn lines(source: &str) -> usize {
    source.lines().count()
}

#[test]
fn every_source_file_is_below_800_lines() {
    let mut files = Vec::new();
    for group in ["crates", "bins"] {
        for entry in fs::read_dir(root().join(group)).expect("the workspace has crates and programs") {
            files.extend(rust_files(&entry.expect("a folder can be read").path().join("src")));
        }
    }
    assert!(files.len() > 50, "only {} source files were found", files.len());
    let mut long = Vec::new();
    for file in files {
        let count = lines(&fs::read_to_string(&file).expect("a source file can be read"));
        if count >= LINES_MAX {
            long.push(format!("{} has {count} lines; split it", file.display()));
        }
    }
    assert!(long.is_empty(), "\n{}\n", long.join("\n"));
}
