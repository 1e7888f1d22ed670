//! Names of objects. Everything of a cluster is below `PREFIX/CLUSTER_ID`:
//!
//! ```text
//! blobs/SHA256                        the bytes of an artifact, exactly; artifacts of equal content share it
//! names/NAME/@ID.json                 what has a name; NAME may have `/` in it
//! models/JOB/VERSION@ID.json          a version of a job's model
//! unnamed/KIND/@ID.json               everything else
//! uploads/SHA256@NODE                 the id of an upload of several parts that has not ended
//! ```
//!
//! The `.json` files are pointers: written after the bytes, never changed, since an id is given once. `@` stands in no name of an artifact, so
//! no pointer is another name's folder. A part is encoded by `object_store` (`/` as `%2F`, `..` as `%2E%2E`): whatever a name is, it stays below.

use object_store::path::{Path, PathPart};
use serde::Serialize;

use crate::source::Artifact;

/// Digits of a model's version in a key, so that the order of names is that of versions.
const VERSION_DIGITS: usize = 8;
/// Kinds that have a folder of their own; those of users' are `other`.
const KINDS: &[&str] = &["bundle", "checkpoint", "file", "gradient", "model", "state"];

/// What a pointer says.
#[derive(Serialize)]
struct Pointer<'a> {
    artifact_id: u64,
    cluster_id: &'a str,
    name: &'a str,
    kind: &'a str,
    job_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_version: Option<u64>,
    total_bytes: u64,
    sha256: String,
    /// Of the bytes, from the cluster's folder on.
    object: String,
}

/// The keys of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    cluster_id: String,
    root: Path,
}

pub(crate) fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Keys {
    /// Below `prefix`.
    pub(crate) fn new(prefix: &[String], cluster_id: &str) -> Self {
        let parts = prefix.iter().map(String::as_str).chain([cluster_id]);
        Self { cluster_id: cluster_id.to_owned(), root: parts.map(PathPart::from).collect() }
    }

    fn below<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Path {
        parts.into_iter().fold(self.root.clone(), |path, part| path.join(PathPart::from(part)))
    }

    /// The folder of bytes.
    pub(crate) fn blobs(&self) -> Path {
        self.below(["blobs"])
    }

    /// The bytes of an artifact.
    pub(crate) fn blob(&self, digest: &[u8; 32]) -> Path {
        self.below(["blobs", &hex(digest)])
    }

    /// The folder of notes.
    pub(crate) fn uploads(&self) -> Path {
        self.below(["uploads"])
    }

    /// The note of an upload of `node` that has not ended.
    pub(crate) fn upload(&self, digest: &[u8; 32], node: u64) -> Path {
        self.below(["uploads", &format!("{}@{node}", hex(digest))])
    }

    /// The bytes that a note is about; None: it is no note of ours.
    pub(crate) fn noted(&self, note: &Path) -> Option<Path> {
        let (digest, _) = note.filename()?.split_once('@')?;
        let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then(|| self.below(["blobs", digest]))
    }

    /// The pointer to an artifact.
    pub(crate) fn pointer(&self, artifact: &Artifact) -> Path {
        let id = artifact.artifact_id;
        let last = format!("@{id}.json");
        if !artifact.name.is_empty() {
            let name = artifact.name.split('/').filter(|part| !part.is_empty());
            return self.below(["names"].into_iter().chain(name).chain([last.as_str()]));
        }
        if let Some(version) = artifact.model_version {
            let last = format!("{version:0width$}@{id}.json", width = VERSION_DIGITS);
            return self.below(["models", &artifact.job_id, &last]);
        }
        let kind = KINDS.iter().find(|kind| **kind == artifact.kind).unwrap_or(&"other");
        self.below(["unnamed", kind, &last])
    }

    /// What stands in it.
    pub(crate) fn pointer_text(&self, artifact: &Artifact) -> Vec<u8> {
        let sha256 = hex(&artifact.digest);
        let pointer = Pointer {
            artifact_id: artifact.artifact_id,
            cluster_id: &self.cluster_id,
            name: &artifact.name,
            kind: &artifact.kind,
            job_id: &artifact.job_id,
            model_version: artifact.model_version,
            total_bytes: artifact.total_bytes,
            object: format!("blobs/{sha256}"),
            sha256,
        };
        let mut text = serde_json::to_vec_pretty(&pointer).expect("strings and numbers are JSON");
        text.push(b'\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(name: &str, kind: &str, job_id: &str, model_version: Option<u64>) -> Artifact {
        let (name, kind, job_id) = (name.to_owned(), kind.to_owned(), job_id.to_owned());
        Artifact { artifact_id: 77, name, kind, job_id, model_version, total_bytes: 9, digest: [0xab; 32] }
    }

    #[test]
    fn a_name_a_model_and_everything_else_have_their_folders() {
        let keys = Keys::new(&["a".to_owned(), "b".to_owned()], "prod-00ff");
        let pointer = |artifact: &Artifact| keys.pointer(artifact).to_string();
        assert_eq!(
            pointer(&artifact("digits/best.st", "file", "", None)),
            "a/b/prod-00ff/names/digits/best.st/@77.json"
        );
        let model = artifact("", "model", "digits-3", Some(12));
        assert_eq!(pointer(&model), "a/b/prod-00ff/models/digits-3/00000012@77.json");
        assert_eq!(pointer(&artifact("", "state", "digits-3", None)), "a/b/prod-00ff/unnamed/state/@77.json");
        assert_eq!(pointer(&artifact("", "my kind", "", None)), "a/b/prod-00ff/unnamed/other/@77.json");
        assert_eq!(keys.blob(&[0xab; 32]).to_string(), format!("a/b/prod-00ff/blobs/{}", "ab".repeat(32)));
        let note = keys.upload(&[0xab; 32], 3);
        assert_eq!(keys.noted(&note), Some(keys.blob(&[0xab; 32])));
        assert_eq!(keys.noted(&keys.below(["uploads", "..@3"])), None);
        let text = String::from_utf8(keys.pointer_text(&model)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((value["model_version"].as_u64(), value["total_bytes"].as_u64()), (Some(12), Some(9)));
        assert_eq!(value["object"], format!("blobs/{}", "ab".repeat(32)));
    }

    #[test]
    fn no_name_leaves_the_cluster_s_folder_or_is_in_another_s_way() {
        let keys = Keys::new(&[], "prod-00ff");
        for name in
            ["..", "../..", "a/../../../b", "/etc/passwd", ".", "a//b", "a\\..\\b", "a\0b", "a#1", "ä", "a%2e%2e/b"]
        {
            for artifact in [artifact(name, "file", "", None), artifact("", "model", name, Some(1))] {
                let key = keys.pointer(&artifact).to_string();
                let parts: Vec<&str> = key.split('/').collect();
                assert_eq!(parts[0], "prod-00ff", "{key}");
                assert!(matches!(parts[1], "names" | "models"), "{key}");
                assert!(parts.iter().all(|part| !matches!(*part, "" | "." | "..")), "{key}");
                assert!(!key.contains(['\\', '\0', '#']), "{key}");
            }
        }
        let (short, long) = (artifact("a", "file", "", None), artifact("a/b", "file", "", None));
        let (short, long) = (keys.pointer(&short).to_string(), keys.pointer(&long).to_string());
        assert!(!long.starts_with(&format!("{short}/")), "{short} would be a folder of {long}");
    }
}
