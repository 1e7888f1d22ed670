//! Certificates of these tests.

use std::path::Path;
use std::sync::Arc;

use raftgrid_driver::NodeId;
use raftgrid_rpc::tls::{node_name, Tls, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use time::{Duration, OffsetDateTime};

use crate::ground::logger;

/// The clusters of these tests are called so.
pub const CLUSTER: &str = "blue";

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("random numbers");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "the authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key).expect("it signs").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for this name, good for so many days from now; negative: it was.
    pub fn sign(&self, name: &str, days: i64) -> Pair {
        let key = KeyPair::generate().expect("random numbers");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.use_authority_key_identifier_extension = true;
        let end = OffsetDateTime::now_utc() + Duration::days(days);
        (params.not_before, params.not_after) = (end - Duration::days(900), end);
        let certificate = params.signed_by(&key, &self.issuer).expect("it signs").pem();
        Pair { certificate, key: key.serialize_pem() }
    }

    pub fn member(&self, node: NodeId) -> Pair {
        self.sign(&node_name(CLUSTER, node), 300)
    }
}

/// Puts the three files where `files` finds them.
pub fn put(folder: &Path, pair: &Pair, authorities: &str) -> TlsFiles {
    let files = TlsFiles {
        certificate: folder.join("node.pem"),
        key: folder.join("node-key.pem"),
        authorities: folder.join("ca.pem"),
    };
    for (path, text) in
        [(&files.certificate, &*pair.certificate), (&files.key, &pair.key), (&files.authorities, authorities)]
    {
        std::fs::write(path, text).expect("writable");
    }
    files
}

/// What node `node` would load.
pub fn loaded(authority: &Authority, node: NodeId) -> Arc<Tls> {
    let folder = tempfile::tempdir().expect("writable");
    let files = put(folder.path(), &authority.member(node), &authority.pem);
    // The folder goes, and with it the files: what was loaded stays in force.
    Tls::load(files, CLUSTER, node, logger()).expect("they go together")
}
