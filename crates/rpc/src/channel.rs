//! How channels are set up. One environment (a few completion threads) a process; separate connections for Raft, control and bulk.

use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use grpcio::{Channel, ChannelBuilder, Environment};

use crate::tls::Tls;

/// Completion threads of an environment, at most. Two for one core each would mostly wake one another: a connection is read by one of them,
/// its calls belong to another.
const COMPLETION_THREADS_MAX: usize = 4;
/// Largest message that is received or sent, in bytes: a chunk of 1 MiB with its envelope, with room.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// An environment with a completion thread for every two cores: three processes share two cores in the smallest cluster.
pub fn environment(name: &str) -> Arc<Environment> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    environment_of(name, (cores / 2).clamp(1, COMPLETION_THREADS_MAX))
}

/// An environment with so many completion threads.
pub fn environment_of(name: &str, threads: usize) -> Arc<Environment> {
    Arc::new(grpcio::EnvBuilder::new().cq_count(threads).name_prefix(name).build())
}

/// Options that clients and servers share.
pub fn options(env: &Arc<Environment>) -> ChannelBuilder {
    let message_bytes_max = i32::try_from(MESSAGE_BYTES_MAX).expect("the limit is below 2 GiB");
    let per_message_decompression =
        CString::new("grpc.per_message_decompression").expect("the literal has no zero byte");
    ChannelBuilder::new(env.clone())
        .max_receive_message_len(message_bytes_max)
        .max_send_message_len(message_bytes_max)
        .http2_bdp_probe(false)
        // The pings of our own clients are no attack.
        .http2_min_recv_ping_interval_without_data(Duration::from_secs(1))
        .http2_max_ping_strikes(0)
        // gRPC inflates after it checked the size of what it received; nobody of ours compresses.
        .raw_cfg_int(per_message_decompression, 0)
}

fn client_options(env: &Arc<Environment>) -> ChannelBuilder {
    options(env)
        .enable_retry(false)
        .enable_http_proxy(false)
        .use_local_subchannel_pool(true)
        .initial_reconnect_backoff(Duration::from_millis(50))
        .max_reconnect_backoff(Duration::from_millis(500))
        // A server that is stopped, or gone without a word, is noticed within three seconds while a call is under way.
        .keepalive_time(Duration::from_secs(1))
        .keepalive_timeout(Duration::from_secs(2))
        .http2_max_pings_without_data(0)
}

/// Whom a connection must lead to: with mutual TLS, this node of the cluster and nobody else.
#[derive(Clone, Copy, Debug)]
pub struct Proof<'a> {
    /// What this replica shows, and whom it believes.
    pub tls: &'a Tls,
    /// The node at the other end.
    pub node_id: u64,
}

fn proved(options: ChannelBuilder, proof: Option<Proof<'_>>) -> ChannelBuilder {
    match proof {
        Some(proof) => proof.tls.secured(options, proof.node_id),
        None => options,
    }
}

/// A connection of its own for small calls. `address` is host:port.
pub fn channel(env: &Arc<Environment>, address: &str) -> Channel {
    channel_to(env, address, None)
}

/// The same, to a node that proves itself. Without a proof to ask for it is plain.
pub fn channel_to(env: &Arc<Environment>, address: &str, proof: Option<Proof<'_>>) -> Channel {
    proved(client_options(env), proof).connect(address)
}

/// A connection of its own for models, gradients, fragments and snapshots.
pub fn bulk_channel(env: &Arc<Environment>, address: &str) -> Channel {
    bulk_channel_to(env, address, None)
}

/// The same, to a node that proves itself. Without a proof to ask for it is plain.
pub fn bulk_channel_to(env: &Arc<Environment>, address: &str, proof: Option<Proof<'_>>) -> Channel {
    proved(client_options(env).stream_initial_window_size(8 * 1024 * 1024), proof).connect(address)
}
