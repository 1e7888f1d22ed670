//! `gridctl artifact`: bytes that outlive processes.

use std::fs::{self, File};
use std::path::Path;

use raftgrid_client::{Client, Upload};
use raftgrid_proto::v1::{ArtifactInfo, ArtifactUsage, ListArtifactsRequest};
use raftgrid_rpc::methods::LIST_ARTIFACTS;
use serde_json::{json, Value};

use crate::cli_artifact::Artifact;
use crate::context::{connect, exit_on_interrupt, Context};
use crate::failure::{Failure, Result};
use crate::output::{hex, thousands, Progress};

/// Artifacts asked for at once.
const PAGE: i32 = 1_000;

pub(crate) fn run(context: &Context, command: Artifact) -> Result<()> {
    exit_on_interrupt();
    let client = context.client()?;
    match command {
        Artifact::Push { file, to, name, from, keep } => match from {
            None => push(context, &client, &file, name.or(to), keep),
            Some(from) => {
                let mut names = [to, name, file.to_str().map(str::to_owned)].into_iter().flatten();
                match (names.next(), names.next()) {
                    (Some(name), None) => name_it(context, &client, &from, &name, keep),
                    _ => Err(Failure::usage("--from takes one name and no file", "--from ARTIFACT NAME")),
                }
            }
        },
        Artifact::Get { artifact, file, to } => {
            let file = file.or(to).ok_or_else(|| Failure::usage("no file is named", "-o FILE"))?;
            get(context, &client, &artifact, &file)
        }
        Artifact::Rm { artifacts, all } => artifacts.iter().try_for_each(|artifact| {
            let gone = client.delete_artifact(artifact, all)?;
            let (id, versions) = (gone.get_artifact_id(), gone.get_versions());
            let said = if versions > 1 {
                format!("{artifact}: {versions} versions deleted")
            } else {
                format!("artifact {id} deleted")
            };
            context.output.done(said, &json!({"artifact": id, "deleted": true, "versions": versions}));
            Ok(())
        }),
        Artifact::Verify { artifacts } => artifacts.iter().try_for_each(|artifact| verify(context, artifact)),
        Artifact::Ls { usage: true, .. } => usage(context, &client),
        Artifact::Ls { name, usage: false } => {
            let all = list(context, &client, name.as_deref())?;
            if let (Some(name), true) = (&name, all.is_empty()) {
                return Err(Failure::new(format!("nothing is called {name}"), "gridctl artifact ls"));
            }
            let headers = ["id", "kind", "bytes", "state", "name", "sha-256"];
            let json = Value::Array(all.iter().map(info_json).collect());
            context.output.show(&headers, all.iter().map(row).collect(), &json);
            Ok(())
        }
    }
}

fn push(context: &Context, client: &Client, file: &Path, name: Option<String>, keep: u32) -> Result<()> {
    if keep != 0 && name.is_none() {
        return Err(Failure::usage("--keep without a name", "a name, whose versions are counted"));
    }
    let failed = |error| Failure::new(format!("failed to read {}: {error}", file.display()), "the path of a file");
    let mut source = File::open(file).map_err(failed)?;
    if !source.metadata().map_err(failed)?.is_file() {
        return Err(Failure::new(format!("{} is not a file", file.display()), "the path of a file"));
    }
    let versioned = name.is_some();
    let upload = Upload { name: name.clone().unwrap_or_default(), kind: "file".to_owned(), versioned, keep };
    let progress = Progress::bytes("uploading", context.output);
    let stored = client.put_artifact(&upload, &mut source, &mut |done, all| progress.set(done, all));
    progress.finish();
    let stored = stored?;
    let (id, digest) = (stored.get_artifact_id(), hex(stored.get_digest()));
    let (version, existing) = (stored.get_version(), stored.get_existing());
    let json = json!({"artifact": id, "sha256": digest, "existing": existing, "name": name, "version": version});
    let called = name.filter(|_| version != 0).map_or_else(String::new, |name| format!(", {name}@{version}"));
    let before = if existing { " (it was there)" } else { "" };
    context.output.done(format!("artifact {id}, SHA-256 {digest}{called}{before}"), &json);
    Ok(())
}

/// Another name of what is there.
fn name_it(context: &Context, client: &Client, from: &str, name: &str, keep: u32) -> Result<()> {
    let named = client.name_artifact(from, name, keep)?;
    let (id, version, existing) = (named.get_artifact_id(), named.get_version(), named.get_existing());
    let before = if existing { " (it was)" } else { "" };
    let json = json!({"artifact": id, "name": name, "version": version, "existing": existing});
    context.output.done(format!("artifact {id} is {name}@{version}{before}"), &json);
    Ok(())
}

/// Who holds how much.
fn usage(context: &Context, client: &Client) -> Result<()> {
    let mut request = ListArtifactsRequest::new();
    request.set_usage(true);
    let all = client.call(&LIST_ARTIFACTS, &request, context.global.timeout())?.take_usage();
    let of = |it: &ArtifactUsage| match (it.get_node_id(), it.get_principal()) {
        (0, "") => "callers without a token".to_owned(),
        (0, principal) => principal.to_owned(),
        (node, _) => format!("replica {node}"),
    };
    let most = |it: &ArtifactUsage| match it.get_bytes_max() {
        0 => "none".to_owned(),
        most => thousands(u128::from(most)),
    };
    let row = |it: &ArtifactUsage| {
        let (bytes, artifacts) = (u128::from(it.get_bytes()), u128::from(it.get_artifacts()));
        vec![of(it), thousands(bytes), thousands(artifacts), most(it)]
    };
    let shown = |it: &ArtifactUsage| {
        let node = Some(it.get_node_id()).filter(|node| *node != 0);
        let principal = Some(it.get_principal()).filter(|_| node.is_none());
        let (bytes, artifacts, most) = (it.get_bytes(), it.get_artifacts(), it.get_bytes_max());
        json!({"principal": principal, "node_id": node, "bytes": bytes, "artifacts": artifacts, "bytes_max": most})
    };
    let json = Value::Array(all.iter().map(shown).collect());
    context.output.show(&["of", "bytes", "artifacts", "limit"], all.iter().map(row).collect(), &json);
    Ok(())
}

/// Writes beside the target and renames: a broken download leaves no half file under the wanted name.
fn get(context: &Context, client: &Client, artifact: &str, file: &Path) -> Result<()> {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let failed = |error: std::io::Error| {
        Failure::new(format!("failed to write {}: {error}", file.display()), "a path that you may write")
    };
    let mut target = File::create(&part).map_err(failed)?;
    let progress = Progress::bytes("downloading", context.output);
    let head = client.get_artifact(artifact, &mut target, &mut |done, all| progress.set(done, all));
    progress.finish();
    let head = match head {
        Ok(head) => head,
        Err(error) => {
            // What came did not check out or is not whole.
            let _absent = fs::remove_file(&part);
            return Err(error.into());
        }
    };
    target.sync_all().and_then(|()| fs::rename(&part, file)).map_err(failed)?;
    let digest = hex(&head.digest);
    let json = json!({"artifact": head.artifact_id, "sha256": digest, "bytes": head.total_bytes, "file": file});
    let bytes = thousands(u128::from(head.total_bytes));
    context.output.done(format!("{}: {bytes} bytes, SHA-256 {digest}", file.display()), &json);
    Ok(())
}

/// Reads it whole from each replica, one after another. The client holds what comes against the SHA-256 of the manifest.
fn verify(context: &Context, artifact: &str) -> Result<()> {
    for endpoint in context.endpoints()? {
        let client = connect(vec![endpoint.clone()], &context.global)?;
        let progress = Progress::bytes("reading", context.output);
        let head = client.get_artifact(artifact, &mut std::io::sink(), &mut |done, all| progress.set(done, all));
        progress.finish();
        let head =
            head.map_err(|error| Failure::from(error).of(format!("artifact {artifact}, replica at {endpoint}")))?;
        let (digest, bytes) = (hex(&head.digest), thousands(u128::from(head.total_bytes)));
        let json = json!({
            "artifact": head.artifact_id, "endpoint": endpoint, "sha256": digest, "bytes": head.total_bytes,
        });
        context
            .output
            .done(format!("artifact {} from {endpoint}: {bytes} bytes, SHA-256 {digest}", head.artifact_id), &json);
    }
    Ok(())
}

fn list(context: &Context, client: &Client, name: Option<&str>) -> Result<Vec<ArtifactInfo>> {
    let mut request = ListArtifactsRequest::new();
    request.set_name(name.unwrap_or_default().to_owned());
    request.set_limit(PAGE);
    let mut all = Vec::new();
    loop {
        let mut page = client.call(&LIST_ARTIFACTS, &request, context.global.timeout())?;
        all.extend(page.take_artifacts());
        let token = page.take_next_page_token();
        if token.is_empty() || token == request.get_page_token() {
            return Ok(all);
        }
        request.set_page_token(token);
    }
}

fn row(info: &ArtifactInfo) -> Vec<String> {
    vec![
        info.get_artifact_id().to_owned(),
        info.get_kind().to_owned(),
        thousands(u128::from(info.get_total_bytes())),
        info.get_state().to_owned(),
        called(info).join(" "),
        hex(info.get_digest()).chars().take(16).collect(),
    ]
}

/// NAME@7 of each name that it goes by; the name that it was begun with if it goes by none yet.
fn called(info: &ArtifactInfo) -> Vec<String> {
    let all: Vec<String> =
        info.get_versions().iter().map(|it| format!("{}@{}", it.get_name(), it.get_version())).collect();
    if all.is_empty() && !info.get_name().is_empty() {
        return vec![info.get_name().to_owned()];
    }
    all
}

fn info_json(info: &ArtifactInfo) -> Value {
    json!({
        "artifact": info.get_artifact_id(), "name": info.get_name(), "kind": info.get_kind(),
        "bytes": info.get_total_bytes(), "sha256": hex(info.get_digest()), "holders": info.get_holders(),
        "state": info.get_state(), "names": called(info), "principal": info.get_principal(),
    })
}
