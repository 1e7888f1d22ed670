//! Generates the messages of `proto/`; the services are a table in `raftgrid-rpc`.
use std::path::Path;

const FILES: &[&str] =
    &["agent", "artifact", "cluster", "command", "job", "kv", "ml", "peer", "queue", "row", "task", "types"];

fn main() {
    // Asked when it runs: a target directory that several checkouts share may hold this program as another one compiled it.
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the crate is");
    let root = Path::new(&here).join("../../proto");
    let root = root.to_str().expect("the path of the checkout is UTF-8");
    let mut files: Vec<String> = FILES.iter().map(|file| format!("{root}/raftgrid/v1/{file}.proto")).collect();
    files.extend(["api", "raftpb", "reflection"].map(|file| format!("{root}/compat/{file}.proto")));
    // Relative: a target directory that several checkouts share must not take another checkout's messages.
    println!("cargo:rerun-if-changed=../../proto");
    protobuf_build::Builder::new().includes(&[root]).files(&files).package_name("v1").generate();
}
