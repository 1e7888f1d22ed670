//! Certificates for replicas of the harness, as `gridctl cluster certs` makes them, and connections to their Raft ports that have whatever a
//! test gives them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use raftgrid_proto::v1::{ForwardRequest, PeerHello};
use raftgrid_rpc::grpcio::{
    CallOption, Channel, ChannelBuilder, ChannelCredentialsBuilder, Client, Environment, RpcStatus, RpcStatusCode,
};
use raftgrid_rpc::methods::PEER_FORWARD;
use raftgrid_rpc::tls::{node_name, TlsFiles};

use super::{program, Cluster, PATIENCE};

/// The harness's clusters are called so.
pub const CLUSTER: &str = "test";

/// Has certificates made into `dir` for these nodes.
pub fn make(dir: &Path, nodes: &str) {
    let output = Command::new(program("gridctl"))
        .args(["cluster", "certs", "--nodes", nodes, "--cluster-name", CLUSTER, "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .output()
        .expect("gridctl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The files of one node in `dir`.
pub fn files(dir: &Path, node: u64) -> TlsFiles {
    TlsFiles {
        certificate: dir.join(format!("node-{node}.pem")),
        key: dir.join(format!("node-{node}-key.pem")),
        authorities: dir.join("ca.pem"),
    }
}

/// What controld is told.
pub fn flags(files: &TlsFiles) -> Vec<String> {
    let flag = |name: &str, path: &PathBuf| [name.to_owned(), path.display().to_string()];
    [
        flag("--tls-peer-cert", &files.certificate),
        flag("--tls-peer-key", &files.key),
        flag("--tls-peer-ca", &files.authorities),
    ]
    .concat()
}

/// `count` founders that have certificates in the folder `certs` of the cluster's; nothing runs.
pub fn prepare(count: u64) -> (Cluster, PathBuf) {
    let mut cluster = Cluster::prepare(count, &[]);
    let dir = cluster.dir.path().join("certs");
    let nodes: Vec<String> = (1..=count).map(|node| node.to_string()).collect();
    make(&dir, &nodes.join(","));
    for replica in &mut cluster.replicas {
        replica.extra.extend(flags(&files(&dir, replica.node)));
    }
    (cluster, dir)
}

/// What somebody shows at a Raft port.
#[derive(Clone)]
pub enum Shown {
    /// No TLS at all.
    Plain,
    /// TLS without a certificate.
    Nothing,
    /// A certificate and its key, PEM.
    Pair(String, String),
}

/// The certificate and key of these files.
pub fn pair(files: &TlsFiles) -> Shown {
    let read = |path: &Path| std::fs::read_to_string(path).expect("gridctl made it");
    Shown::Pair(read(&files.certificate), read(&files.key))
}

/// A connection to replica `to`, whoever comes.
pub fn connect(env: &Arc<Environment>, cluster: &Cluster, at: usize, authorities: &Path, shown: Shown) -> Channel {
    let options = raftgrid_rpc::channel::options(env).use_local_subchannel_pool(true);
    let replica = &cluster.replicas[at];
    secured(options, authorities, shown, replica.node).connect(&replica.raft)
}

/// `options` for a connection to node `to`.
pub fn secured(options: ChannelBuilder, authorities: &Path, shown: Shown, to: u64) -> ChannelBuilder {
    let authorities = std::fs::read(authorities).expect("gridctl made it");
    let credentials = ChannelCredentialsBuilder::new().root_cert(authorities);
    let credentials = match shown {
        Shown::Plain => return options,
        Shown::Nothing => credentials,
        Shown::Pair(certificate, key) => credentials.cert(certificate.into_bytes(), key.into_bytes()),
    };
    options.set_credentials(credentials.build()).override_ssl_target(node_name(CLUSTER, to))
}

/// How `from` introduces itself to `to`.
pub fn hello(cluster_id: &str, from: u64, to: u64, store: u8) -> PeerHello {
    let mut hello = PeerHello::new();
    hello.set_cluster_id(cluster_id.to_owned());
    hello.set_from_node(from);
    hello.set_to_node(to);
    hello.set_store_uuid(vec![store; 16]);
    hello.set_machine_version(raftgrid_manifest::MACHINE_VERSION);
    hello
}

/// The id of a harness's cluster.
pub fn cluster_id(cluster: &Cluster) -> String {
    let founders: Vec<u64> = cluster.replicas.iter().map(|replica| replica.node).collect();
    raftgrid_settings::founding::cluster_id(CLUSTER, &founders)
}

/// What a forwarded call ends with that nobody serves: Ok if the door was passed.
pub fn knock(channel: Channel, hello: PeerHello) -> Result<(), RpcStatus> {
    let mut request = ForwardRequest::new();
    request.set_hello(hello);
    request.set_method("/nobody/serves".to_owned());
    let option = CallOption::default().timeout(PATIENCE);
    match Client::new(channel).unary_call(&PEER_FORWARD.method, &request, option) {
        Ok(_) => Ok(()),
        Err(raftgrid_rpc::grpcio::Error::RpcFailure(status)) => Err(status),
        Err(error) => Err(RpcStatus::with_message(RpcStatusCode::UNKNOWN, error.to_string())),
    }
}
