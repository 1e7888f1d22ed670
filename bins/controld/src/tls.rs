//! Which certificates this replica shows to the others, as the settings say it.

use std::sync::Arc;

use anyhow::Result;
use raftgrid_driver::NodeId;
use raftgrid_rpc::tls::{can_be_certified, Tls, TlsFile, TlsFiles};
use raftgrid_settings::{Settings, SettingsError};
use slog::{warn, Logger};

const CERT: &str = "tls.peer_cert";
const KEY: &str = "tls.peer_key";
const CA: &str = "tls.peer_ca";

/// Certificates that are not read yet.
#[derive(Debug)]
pub(crate) struct TlsPlan {
    files: TlsFiles,
    cluster_name: String,
    node: NodeId,
}

/// Whether the Raft port asks for certificates. The three settings are given together or not at all.
pub(crate) fn given(settings: &Settings) -> bool {
    [CERT, KEY, CA].into_iter().any(|key| path(settings, key).is_some())
}

fn path<'a>(settings: &'a Settings, key: &str) -> Option<&'a str> {
    settings.get(key).filter(|path| !path.is_empty())
}

/// Reads them.
pub(crate) fn plan(settings: &Settings, node: NodeId, cluster_name: &str) -> Result<Option<TlsPlan>, SettingsError> {
    let keys = [CERT, KEY, CA];
    let Some(first) = keys.into_iter().find(|key| path(settings, key).is_some()) else { return Ok(None) };
    if let Some(missing) = keys.into_iter().find(|key| path(settings, key).is_none()) {
        return Err(
            settings.bad(first, format!("it needs `{missing}`, too: certificate, key and authority go together"))
        );
    }
    if !can_be_certified(cluster_name) {
        let cause = "with certificates it has at most 63 letters, digits, `-` and `_`: it is part of the names in them";
        return Err(settings.bad("cluster_name", cause));
    }
    let file = |key| path(settings, key).unwrap_or_default().into();
    let files = TlsFiles { certificate: file(CERT), key: file(KEY), authorities: file(CA) };
    Ok(Some(TlsPlan { files, cluster_name: cluster_name.to_owned(), node }))
}

impl TlsPlan {
    /// Reads the files.
    pub(crate) fn load(&self, logger: &Logger) -> Result<Arc<Tls>> {
        self.warn_of_open_key(logger);
        Tls::load(self.files.clone(), &self.cluster_name, self.node, logger.clone()).map_err(|error| {
            let key = match error.file {
                TlsFile::Certificate => CERT,
                TlsFile::Key => KEY,
                TlsFile::Authorities => CA,
            };
            anyhow::anyhow!("failed to use `{key}` = `{}`: {}", error.path.display(), error.cause)
        })
    }

    /// Secrets that are mounted for a container are often open; so it is said, not refused.
    fn warn_of_open_key(&self, logger: &Logger) {
        use std::os::unix::fs::PermissionsExt;
        let key = &self.files.key;
        if std::fs::metadata(key).is_ok_and(|found| found.permissions().mode() & 0o077 != 0) {
            warn!(logger, "private key can be read by others, chmod 600 it"; "file" => key.display().to_string());
        }
    }
}
