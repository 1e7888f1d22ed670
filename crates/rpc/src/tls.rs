//! Mutual TLS between replicas: which certificate is shown, whom it makes believe, and what a connection's other end has proved to be.
//!
//! Owned here: a node's name in certificates, the files in force and how a change of them is noticed, gRPC's credentials made of them. The
//! files are checked before they are used (`certificate`), so that a half-written one never replaces one that works. Called by `peer` for
//! what it dials, by `controld` for the port that it opens. Never here: what a name may do.

use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use grpcio::{
    CertificateRequestType, ChannelBuilder, ChannelCredentialsBuilder, RpcContext, ServerCredentials,
    ServerCredentialsBuilder, ServerCredentialsFetcher,
};
use slog::{info, warn, Logger};

use crate::certificate::{check, Checked};

/// How often the files are looked at, at most; and at least as often as somebody connects.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A certificate that ends sooner is warned of when it is taken into use.
pub const EXPIRY_WARNING_DAYS: u64 = 30;
/// Largest file that is read, in bytes: hundreds of authorities.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The auth property in which gRPC gives a verified certificate's DNS names.
const DNS_NAME_PROPERTY: &str = "peer_dns";

/// The DNS name that a replica's certificate has among its subject alternative names. The cluster is its name, not its id: the name is known
/// before the cluster is founded, and stays when it is recovered or restored under another id.
pub fn node_name(cluster_name: &str, node_id: u64) -> String {
    format!("node-{node_id}.{cluster_name}")
}

/// Whether a cluster's name can stand in a DNS name: 1 to 63 letters, digits, hyphens and underscores, a letter or digit first and last.
pub fn can_be_certified(cluster_name: &str) -> bool {
    let bytes = cluster_name.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let ends = [bytes.first(), bytes.last()];
    bytes.len() <= 63 && bytes.iter().all(plain) && ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
}

/// One of the three files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// The certificate, and behind it those between it and the authority.
    Certificate,
    /// The certificate's private key.
    Key,
    /// The authorities whose certificates are believed.
    Authorities,
}

/// What a replica proves itself with, and whom it believes. PEM each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities; several while they are being exchanged.
    pub authorities: PathBuf,
}

impl TlsFiles {
    /// The path of one.
    pub fn path(&self, file: TlsFile) -> &Path {
        match file {
            TlsFile::Certificate => &self.certificate,
            TlsFile::Key => &self.key,
            TlsFile::Authorities => &self.authorities,
        }
    }
}

/// A file cannot be used. Trying again helps once it was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to use {}: {cause}", path.display())]
pub struct TlsError {
    /// Which of the three.
    pub file: TlsFile,
    /// Where it is.
    pub path: PathBuf,
    /// Why; worded to follow "failed to use FILE: ".
    pub cause: String,
}

/// The three files' content, checked.
#[derive(Clone, PartialEq, Eq)]
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Vec<u8>,
}

impl Pem {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |file| {
            let path = files.path(file);
            read_small(path).map_err(|cause| TlsError { file, path: path.to_owned(), cause })
        };
        Ok(Self {
            certificate: read(TlsFile::Certificate)?,
            key: read(TlsFile::Key)?,
            authorities: read(TlsFile::Authorities)?,
        })
    }
}

fn read_small(path: &Path) -> Result<Vec<u8>, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("it has {length} bytes, more than {FILE_BYTES_MAX}"));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    // gRPC takes them as C strings.
    match bytes.contains(&0) {
        true => Err("it has a zero byte, so it is no PEM".to_owned()),
        false => Ok(bytes),
    }
}

/// What is in force. It holds a private key: never printed.
struct InForce {
    pem: Pem,
    checked: Checked,
    /// Rises with every change.
    generation: u64,
}

struct State {
    in_force: Arc<InForce>,
    looked: Instant,
    /// Why the files as they are now are not used; told once.
    refused: Option<TlsError>,
}

/// A replica's certificate, key and authorities, as the files have them now.
pub struct Tls {
    files: TlsFiles,
    cluster_name: String,
    node_id: u64,
    state: Mutex<State>,
    logger: Logger,
}

impl fmt::Debug for Tls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files; they must be those of this node of this cluster, in force now, and of one of the authorities.
    pub fn load(files: TlsFiles, cluster_name: &str, node_id: u64, logger: Logger) -> Result<Arc<Self>, TlsError> {
        let pem = Pem::read(&files)?;
        let checked = checked(&files, &pem, &node_name(cluster_name, node_id))?;
        info!(logger, "certificate in force"; "names" => checked.names.join(","), "days_left" => checked.days_left());
        warn_if_short(&logger, &checked);
        let in_force = Arc::new(InForce { pem, checked, generation: 1 });
        let state = Mutex::new(State { in_force, looked: Instant::now(), refused: None });
        Ok(Arc::new(Self { files, cluster_name: cluster_name.to_owned(), node_id, state, logger }))
    }

    /// The name that node's certificate must have.
    pub fn name_of(&self, node_id: u64) -> String {
        node_name(&self.cluster_name, node_id)
    }

    /// Rises when the files were changed and what they have is in force; a connection made before shows what was in force then.
    pub fn generation(&self) -> u64 {
        self.current().generation
    }

    /// Seconds until what is in force ends; 0: it has.
    pub fn left_s(&self) -> u64 {
        self.current().checked.left_s()
    }

    /// `options` for a connection to this node: it must prove to be that node.
    pub(crate) fn secured(&self, options: ChannelBuilder, to: u64) -> ChannelBuilder {
        let current = self.current();
        let pem = current.pem.clone();
        let credentials =
            ChannelCredentialsBuilder::new().root_cert(pem.authorities).cert(pem.certificate, pem.key).build();
        options.set_credentials(credentials).override_ssl_target(self.name_of(to))
    }

    /// For a port to which nobody comes without a certificate of one of the authorities.
    pub(crate) fn server(self: &Arc<Self>) -> ServerCredentials {
        let fetcher = Fetcher { tls: self.clone(), given: Mutex::new(0) };
        ServerCredentials::with_fetcher(
            Box::new(fetcher),
            CertificateRequestType::RequestAndRequireClientCertificateAndVerify,
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one statement, so a poisoned state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Arc<InForce> {
        let mut state = self.lock();
        if state.looked.elapsed() >= LOOK_EVERY {
            state.looked = Instant::now();
            self.look(&mut state);
        }
        state.in_force.clone()
    }

    /// Takes over what the files have now, if it is other than before and can be used.
    fn look(&self, state: &mut State) {
        let read = Pem::read(&self.files).and_then(|pem| {
            if pem == state.in_force.pem {
                return Ok(None);
            }
            let checked = checked(&self.files, &pem, &self.name_of(self.node_id))?;
            Ok(Some((pem, checked)))
        });
        match read {
            Ok(None) => state.refused = None,
            Ok(Some((pem, checked))) => {
                let days_left = checked.days_left();
                info!(self.logger, "certificate replaced"; "names" => checked.names.join(","), "days_left" => days_left);
                warn_if_short(&self.logger, &checked);
                let generation = state.in_force.generation + 1;
                state.in_force = Arc::new(InForce { pem, checked, generation });
                state.refused = None;
            }
            Err(error) => {
                if state.refused.as_ref() != Some(&error) {
                    warn!(self.logger, "certificate not replaced, the one before stays in force"; "reason" => %error);
                    state.refused = Some(error);
                }
            }
        }
    }
}

fn checked(files: &TlsFiles, pem: &Pem, name: &str) -> Result<Checked, TlsError> {
    check(&pem.certificate, &pem.key, &pem.authorities, name).map_err(|(file, cause)| TlsError {
        file,
        path: files.path(file).to_owned(),
        cause,
    })
}

fn warn_if_short(logger: &Logger, checked: &Checked) {
    if checked.days_left() < EXPIRY_WARNING_DAYS {
        warn!(logger, "certificate expires soon, replace its files"; "days_left" => checked.days_left());
    }
}

/// Asked for every connection that comes in.
struct Fetcher {
    tls: Arc<Tls>,
    /// What gRPC has.
    given: Mutex<u64>,
}

impl ServerCredentialsFetcher for Fetcher {
    fn fetch(&self) -> Result<Option<ServerCredentialsBuilder>, Box<dyn StdError>> {
        let current = self.tls.current();
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if *given == current.generation {
            return Ok(None);
        }
        *given = current.generation;
        let pem = current.pem.clone();
        let kind = CertificateRequestType::RequestAndRequireClientCertificateAndVerify;
        Ok(Some(ServerCredentialsBuilder::new().root_cert(pem.authorities, kind).add_cert(pem.certificate, pem.key)))
    }
}

/// Whether these go together as `Tls::load` wants them: PEM texts, and the name that the certificate must have. Err: why not.
pub fn verify(certificate: &str, key: &str, authorities: &str, name: &str) -> Result<(), String> {
    let checked = check(certificate.as_bytes(), key.as_bytes(), authorities.as_bytes(), name);
    checked.map(|_| ()).map_err(|(_, cause)| cause)
}

/// The DNS names that the caller's certificate proves; none on a connection without TLS.
pub fn proved_names(ctx: &RpcContext<'_>) -> Vec<String> {
    let Some(context) = ctx.auth_context().filter(|context| context.peer_is_authenticated()) else { return Vec::new() };
    let names = context.into_iter().filter(|property| property.name() == DNS_NAME_PROPERTY);
    names.filter_map(|property| property.value_str().ok().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_s_name_must_fit_into_a_certificate() {
        for good in ["raftgrid", "Blue-2", "a", "dev-e448c3b24be7453b", "a_b"] {
            assert!(can_be_certified(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "a.b", "*", "ä", &"a".repeat(64)] {
            assert!(!can_be_certified(bad), "{bad}");
        }
    }
}
