//! `gridctl cluster certs`: a small authority of one cluster, and a certificate for each replica, so that mutual TLS takes two commands.
//!
//! Offline. No file is ever overwritten: an authority that lies in the directory signs again, and who wants new certificates of the same nodes
//! takes a new directory with the authority's two files in it. What is made is checked as controld checks it.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use raftgrid_rpc::tls::{can_be_certified, node_name, verify};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::cli::Certs;
use crate::context::Context;
use crate::failure::{Failure, Result};

/// The authority's certificate and key.
const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
const CA_DAYS: i64 = 3_650;
/// Longest life of a replica's certificate: that of the authority.
const DAYS_MAX: u32 = 3_650;
/// Clocks of the machines may differ by so much.
const CLOCK_SLACK: Duration = Duration::hours(1);
/// Replicas of one call.
const NODES_MAX: usize = 1_000;

pub(crate) fn run(context: &Context, command: &Certs) -> Result<()> {
    let name = &command.cluster_name;
    if !can_be_certified(name) {
        let cause = format!("cluster name {name:?} cannot stand in a certificate");
        return Err(Failure::usage(cause, "at most 63 letters, digits, `-` and `_`, a letter or digit first and last"));
    }
    if command.days == 0 || command.days > DAYS_MAX {
        let cause = format!("{} days are no life of a certificate", command.days);
        return Err(Failure::usage(cause, format!("--days 1 to {DAYS_MAX}")));
    }
    let nodes = nodes(&command.nodes)?;
    let dir = context.global.dir.clone();
    let dir = dir.ok_or_else(|| Failure::usage("--dir is not given", "--dir DIR, where the files shall be"))?;
    let taken = nodes.iter().flat_map(|node| [certificate(&dir, *node), key(&dir, *node)]);
    if let Some(path) = taken.into_iter().find(|path| path.exists()) {
        let cause = format!("{} is there already, and no key is overwritten", path.display());
        return Err(Failure::new(
            cause,
            format!("another --dir (with {CA} and {CA_KEY} copied, to keep the authority)"),
        ));
    }
    fs::create_dir_all(&dir).map_err(|error| failed(&dir, error))?;
    let (authority, made) = authority(&dir, name)?;
    let signed = nodes.iter().map(|node| sign(&authority, &node_name(name, *node), command.days));
    for (node, signed) in nodes.iter().zip(signed.collect::<Result<Vec<_>>>()?) {
        write(&key(&dir, *node), &signed.key, 0o600)?;
        write(&certificate(&dir, *node), &signed.certificate, 0o644)?;
    }
    if made {
        context.output.note(format!(
            "{} signs for the whole cluster: keep it away from the replicas, which need {CA} only",
            dir.join(CA_KEY).display()
        ));
    }
    let first = nodes.iter().next().copied().unwrap_or_default();
    context.output.note(format!(
        "on replica {first}: controld … --cluster-name {name} --tls-peer-cert {} --tls-peer-key {} --tls-peer-ca {}",
        certificate(&dir, first).display(),
        key(&dir, first).display(),
        dir.join(CA).display()
    ));
    let what = if made { "an authority and certificates" } else { "certificates" };
    let list = nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let sentence = format!("{what} for replicas {list} of {name} are in {}", dir.display());
    let json = json!({
        "dir": dir, "cluster_name": name, "nodes": nodes, "authority_made": made, "days": command.days,
    });
    context.output.done(sentence, &json);
    Ok(())
}

fn certificate(dir: &Path, node: u64) -> PathBuf {
    dir.join(format!("node-{node}.pem"))
}

fn key(dir: &Path, node: u64) -> PathBuf {
    dir.join(format!("node-{node}-key.pem"))
}

fn nodes(list: &str) -> Result<BTreeSet<u64>> {
    let bad = |what: &str| Failure::usage(format!("--nodes {list}: {what}"), "--nodes 1,2,3");
    let mut nodes = BTreeSet::new();
    for item in list.split(',').map(str::trim) {
        let node = item.parse().ok().filter(|node| *node > 0);
        let node = node.ok_or_else(|| bad(&format!("`{item}` is no number of a replica, which are 1 and more")))?;
        if !nodes.insert(node) {
            return Err(bad(&format!("{node} is listed twice")));
        }
    }
    if nodes.len() > NODES_MAX {
        return Err(bad(&format!("more than {NODES_MAX}")));
    }
    Ok(nodes)
}

/// Whoever signs, and its certificate.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// PEM.
struct Signed {
    certificate: String,
    key: String,
}

/// That of the directory, or a new one; and whether it is new.
fn authority(dir: &Path, cluster_name: &str) -> Result<(Authority, bool)> {
    let (certificate_path, key_path) = (dir.join(CA), dir.join(CA_KEY));
    let params = authority_params(cluster_name)?;
    match (certificate_path.exists(), key_path.exists()) {
        (true, true) => {
            let read = |path: &Path| fs::read_to_string(path).map_err(|error| failed(path, error));
            let (certificate, key) = (read(&certificate_path)?, read(&key_path)?);
            let key = KeyPair::from_pem(&key).map_err(|error| failed(&key_path, error))?;
            Ok((Authority { issuer: Issuer::new(params, key), certificate }, false))
        }
        (false, false) => {
            let key = KeyPair::generate().map_err(unmade)?;
            let certificate = params.self_signed(&key).map_err(unmade)?.pem();
            write(&key_path, &key.serialize_pem(), 0o600)?;
            write(&certificate_path, &certificate, 0o644)?;
            Ok((Authority { issuer: Issuer::new(params, key), certificate }, true))
        }
        (there, _) => {
            let missing = if there { &key_path } else { &certificate_path };
            let cause = format!("{} has one half of an authority, {} is missing", dir.display(), missing.display());
            Err(Failure::new(cause, "another --dir, or the missing half put there"))
        }
    }
}

fn authority_params(cluster_name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(unmade)?;
    params.distinguished_name = named(&format!("raftgrid replicas of {cluster_name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - CLOCK_SLACK, now + Duration::days(CA_DAYS));
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// A certificate for this name and no other, for both ends of a connection; checked as controld checks it.
fn sign(authority: &Authority, name: &str, days: u32) -> Result<Signed> {
    let key = KeyPair::generate().map_err(unmade)?;
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(unmade)?;
    params.distinguished_name = named(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - CLOCK_SLACK, now + Duration::days(i64::from(days)));
    let certificate = params.signed_by(&key, &authority.issuer).map_err(unmade)?.pem();
    let signed = Signed { certificate, key: key.serialize_pem() };
    verify(&signed.certificate, &signed.key, &authority.certificate, name).map_err(|cause| {
        let cause = format!("the authority in --dir does not fit: of the certificate for {name}, {cause}");
        Failure::new(cause, "the --cluster-name that it was made for, or another --dir")
    })?;
    Ok(signed)
}

/// Never over a file that is there.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| failed(path, error))
}

fn failed(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("failed to use {}: {error}", path.display()), "another --dir, or other permissions")
}

fn unmade(error: rcgen::Error) -> Failure {
    Failure::new(format!("failed to make a certificate: {error}"), "the same command again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_numbers_from_one_each_once() {
        assert_eq!(nodes("3, 1,2").expect("they are numbers").into_iter().collect::<Vec<_>>(), [1, 2, 3]);
        for bad in ["", "0", "1,1", "1,,2", "a", "-1"] {
            assert!(nodes(bad).is_err(), "{bad}");
        }
    }
}
