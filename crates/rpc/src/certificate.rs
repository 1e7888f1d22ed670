//! Whether a certificate, its key and the authorities go together, before gRPC gets them: it would refuse every connection later, and say
//! less. Pure, but for the time of day.

use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage};

use crate::tls::TlsFile;

/// A moment after every certificate: RFC 5280 gives 9999-12-31 to one that never ends.
const FOR_EVER_UNIX_S: u64 = 253_402_300_799;

/// What is known of a certificate that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Its DNS names.
    pub names: Vec<String>,
    /// When it, or one above it, ends, in seconds since 1970.
    pub expires_unix_s: u64,
}

impl Checked {
    /// Seconds until it ends; 0: it has.
    pub(crate) fn left_s(&self) -> u64 {
        self.expires_unix_s.saturating_sub(UnixTime::now().as_secs())
    }

    /// Whole days until it ends.
    pub(crate) fn days_left(&self) -> u64 {
        self.left_s() / 86_400
    }
}

/// Which file is to blame, and for what.
pub(crate) type Blame = (TlsFile, String);

/// All PEM; `name` must be among the certificate's.
pub(crate) fn check(certificate: &[u8], key: &[u8], authorities: &[u8], name: &str) -> Result<Checked, Blame> {
    let authorities = certificates(authorities).map_err(|cause| (TlsFile::Authorities, cause))?;
    let anchors = authorities.iter().map(anchor).collect::<Result<Vec<_>, _>>();
    let anchors = anchors.map_err(|error| (TlsFile::Authorities, format!("an authority cannot be used: {error}")))?;
    let blamed = |cause| (TlsFile::Certificate, cause);
    let chain = certificates(certificate).map_err(blamed)?;
    let (leaf, between) = chain.split_first().expect("there is at least one");
    let leaf = EndEntityCert::try_from(leaf).map_err(|error| blamed(format!("it cannot be used: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| (TlsFile::Key, "it has no private key".to_owned()))?;
    if !belongs(&key, &leaf) {
        return Err((TlsFile::Key, "it is not the key of the certificate".to_owned()));
    }
    let now = UnixTime::now();
    // It is shown to those who call and to those who are called.
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        verify(&leaf, &anchors, between, now, usage).map_err(|error| blamed(said(&error)))?;
    }
    let names: Vec<String> = leaf.valid_dns_names().map(str::to_owned).collect();
    if !names.iter().any(|own| own.eq_ignore_ascii_case(name)) {
        let has = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
        return Err(blamed(format!("this replica is {name}, and the certificate is for {has}")));
    }
    Ok(Checked { names, expires_unix_s: expires(&leaf, &anchors, between) })
}

/// At least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| format!("it is no PEM: {error}"))?;
    if found.is_empty() {
        return Err("it has no certificate (PEM, BEGIN CERTIFICATE)".to_owned());
    }
    Ok(found)
}

fn anchor(der: &CertificateDer<'_>) -> Result<TrustAnchor<'static>, Error> {
    webpki::anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned())
}

fn verify(
    leaf: &EndEntityCert<'_>,
    anchors: &[TrustAnchor<'_>],
    between: &[CertificateDer<'_>],
    at: UnixTime,
    usage: KeyUsage,
) -> Result<(), Error> {
    leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, anchors, between, at, usage, None, None).map(|_| ())
}

/// When the certificate, or the first one above it that does, ends.
fn expires(leaf: &EndEntityCert<'_>, anchors: &[TrustAnchor<'_>], between: &[CertificateDer<'_>]) -> u64 {
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(FOR_EVER_UNIX_S));
    match verify(leaf, anchors, between, at, KeyUsage::server_auth()) {
        Err(Error::CertExpired { not_after, .. }) => not_after.as_secs(),
        _ => FOR_EVER_UNIX_S,
    }
}

fn said(error: &Error) -> String {
    match error {
        Error::CertExpired { not_after, .. } => {
            let ago = UnixTime::now().as_secs().saturating_sub(not_after.as_secs());
            format!("it expired {} days and {} hours ago", ago / 86_400, ago % 86_400 / 3_600)
        }
        Error::CertNotValidYet { .. } => "it is not valid yet; is this machine's clock right?".to_owned(),
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => {
            "none of the authorities has signed it".to_owned()
        }
        other => format!("it is not good for both ends of a connection: {other}"),
    }
}

/// False only if it is known not to: keys of forms that are not read here are left to gRPC.
fn belongs(key: &PrivateKeyDer<'_>, leaf: &EndEntityCert<'_>) -> bool {
    let public = match key {
        PrivateKeyDer::Pkcs8(key) => pkcs8_public(key.secret_pkcs8_der()),
        PrivateKeyDer::Pkcs1(key) => {
            RsaKeyPair::from_der(key.secret_pkcs1_der()).ok().map(|pair| pair.public_key().as_ref().to_vec())
        }
        _ => None,
    };
    // The bits of the public key end its description.
    public.is_none_or(|public| leaf.subject_public_key_info().as_ref().ends_with(&public))
}

fn pkcs8_public(der: &[u8]) -> Option<Vec<u8>> {
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING};
    let random = ring::rand::SystemRandom::new();
    for curve in [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING] {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve, der, &random) {
            return Some(pair.public_key().as_ref().to_vec());
        }
    }
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
        return Some(pair.public_key().as_ref().to_vec());
    }
    RsaKeyPair::from_pkcs8(der).ok().map(|pair| pair.public_key().as_ref().to_vec())
}
