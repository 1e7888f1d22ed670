//! Registering one handler under a method's own name and all its aliases, and opening the port.

use std::sync::Arc;
use std::time::Duration;

use grpcio::{
    ClientStreamingSink, DuplexSink, Environment, RequestStream, RpcContext, Server, ServerBuilder, ServerCredentials,
    ServerStreamingSink, ServiceBuilder, UnarySink,
};
use protobuf::Message;

use crate::channel::options;
use crate::methods::{at, Rpc};
use crate::tls::Tls;

/// Streams that one connection may have open.
pub const STREAMS_PER_CONNECTION_MAX: i32 = 10_000;

/// A service under construction.
#[derive(Default)]
pub struct Handlers {
    builder: Option<ServiceBuilder>,
}

macro_rules! register {
    ($(#[$doc:meta])* $name:ident, $add:ident, $req:ty, $sink:ident) => {
        $(#[$doc])*
        pub fn $name<Req: Message, Resp: Message, F>(mut self, rpc: &'static Rpc<Req, Resp>, handler: F) -> Self
        where
            F: FnMut(RpcContext<'_>, $req, $sink<Resp>) + Send + Clone + 'static,
        {
            let mut builder = self.builder.take().unwrap_or_else(ServiceBuilder::new);
            builder = builder.$add(&rpc.method, handler.clone());
            for alias in rpc.aliases {
                builder = builder.$add(&at::<Req, Resp>(rpc.method.ty, alias), handler.clone());
            }
            self.builder = Some(builder);
            self
        }
    };
}

impl Handlers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    register!(
        /// One request, one answer.
        unary, add_unary_handler, Req, UnarySink
    );
    register!(
        /// A stream of requests, one answer.
        client_streaming, add_client_streaming_handler, RequestStream<Req>, ClientStreamingSink
    );
    register!(
        /// One request, a stream of answers.
        server_streaming, add_server_streaming_handler, Req, ServerStreamingSink
    );
    register!(
        /// Streams both ways.
        duplex, add_duplex_streaming_handler, RequestStream<Req>, DuplexSink
    );

    /// The service for a server.
    pub fn build(mut self) -> grpcio::Service {
        self.builder.take().unwrap_or_else(ServiceBuilder::new).build()
    }
}

/// Failed to open a port.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address}: {cause}; give another address, or end the program that has this one")]
pub struct ListenError {
    /// host:port.
    pub address: String,
    /// What gRPC said.
    pub cause: String,
}

/// Starts a server with `services` on `address` (host:port; port 0 takes a free one). Returns it with the port it got.
pub fn listen(
    env: &Arc<Environment>,
    address: &str,
    services: Vec<grpcio::Service>,
) -> Result<(Server, u16), ListenError> {
    open(env, address, services, STREAMS_PER_CONNECTION_MAX, None)
}

/// The same for a port to which nobody comes without a certificate of one of `tls`'s authorities; without `tls` everybody does.
pub fn listen_mutual(
    env: &Arc<Environment>,
    address: &str,
    services: Vec<grpcio::Service>,
    tls: Option<&Arc<Tls>>,
) -> Result<(Server, u16), ListenError> {
    open(env, address, services, STREAMS_PER_CONNECTION_MAX, tls)
}

/// The same with another bound on the streams that one connection may have open; further calls wait in the client.
pub fn listen_with(
    env: &Arc<Environment>,
    address: &str,
    services: Vec<grpcio::Service>,
    streams_max: i32,
) -> Result<(Server, u16), ListenError> {
    open(env, address, services, streams_max, None)
}

fn open(
    env: &Arc<Environment>,
    address: &str,
    services: Vec<grpcio::Service>,
    streams_max: i32,
    tls: Option<&Arc<Tls>>,
) -> Result<(Server, u16), ListenError> {
    let failed = |cause: String| ListenError { address: address.to_owned(), cause };
    // gRPC would say it in a log line of its own, over several lines and without a next step.
    std::net::TcpListener::bind(address).map_err(|error| failed(error.to_string()))?;
    // Without this gRPC would share a busy port with the process that has it.
    let options = options(env)
        .max_concurrent_stream(streams_max)
        .reuse_port(false)
        // A client that is stopped, or gone without a word, gives back what its streams hold here.
        .keepalive_time(Duration::from_secs(20))
        .keepalive_timeout(Duration::from_secs(10))
        .http2_max_pings_without_data(0);
    let mut builder = ServerBuilder::new(env.clone()).channel_args(options.build_args());
    for service in services {
        builder = builder.register_service(service);
    }
    let mut server = builder.build().map_err(|error| failed(error.to_string()))?;
    let (credentials, or) = match tls {
        Some(tls) => (tls.server(), ", or gRPC does not take the kind of the certificate's key"),
        None => (ServerCredentials::insecure(), ""),
    };
    let port = server
        .add_listening_port(address, credentials)
        .map_err(|_| failed(format!("the address is in use or cannot be bound{or}")))?;
    server.start();
    Ok((server, port))
}
