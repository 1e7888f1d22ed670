//! The listener: one thread with an event loop of its own, a few threads for the answers. A connection carries one request; slow clients, long
//! heads and too many connections cost a bounded amount of memory and no thread.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use raftgrid_telemetry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, Semaphore};

use crate::limits;
use crate::metrics::Metrics;
use crate::site::{answer, Route, Site};

/// Why the port is not open.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Of the address.
    #[error(
        "failed to listen for HTTP on {address}: {cause}; give another address, or end the program that has this one"
    )]
    Listen {
        /// host:port.
        address: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Of the thread or its event loop.
    #[error("failed to start the HTTP thread: {0}")]
    Thread(std::io::Error),
}

/// A running HTTP port. Dropping it closes the port and ends the thread.
pub struct Gateway {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    /// Opens `address` (host:port; port 0 takes a free one) and serves `site`. The port counts itself in `registry`.
    pub fn start(address: &str, site: Arc<dyn Site>, registry: &Registry) -> Result<Self, GatewayError> {
        let failed = |cause| GatewayError::Listen { address: address.to_owned(), cause };
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(limits::HANDLER_THREADS)
            .thread_name("http-answer")
            .build()
            .map_err(GatewayError::Thread)?;
        let (stop, stopped) = oneshot::channel();
        let metrics = Metrics::new(registry);
        let body = move || run(&runtime, listener, site, metrics, stopped);
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(body).map_err(GatewayError::Thread)?;
        Ok(Self { address: bound, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // The loop ends when the sender is gone, too.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

fn run(
    runtime: &Runtime,
    listener: std::net::TcpListener,
    site: Arc<dyn Site>,
    metrics: Metrics,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async move {
        // Registering a listener fails only without an event loop, and this is one.
        let Ok(listener) = TcpListener::from_std(listener) else { return };
        tokio::select! {
            () = accept(listener, site, metrics) => {}
            _ = stopped => {}
        }
    });
}

async fn accept(listener: TcpListener, site: Arc<dyn Site>, metrics: Metrics) {
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            metrics.refused.inc();
            continue;
        };
        let (site, metrics) = (site.clone(), metrics.clone());
        tokio::spawn(async move {
            // Whatever the client does, it is gone by then.
            let _ = tokio::time::timeout(limits::CONNECTION_TIMEOUT, connection(stream, site, metrics)).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, site: Arc<dyn Site>, metrics: Metrics) {
    let service = service_fn(move |request: Request<Incoming>| respond(request, site.clone(), metrics.clone()));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEAD_TIMEOUT)
        .max_buf_size(limits::HEAD_BYTES_MAX)
        .max_headers(limits::HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // A client that broke off, or sent what is no request, needs no answer beyond hyper's own.
    drop(served);
}

async fn respond(
    request: Request<Incoming>,
    site: Arc<dyn Site>,
    metrics: Metrics,
) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let (route, method) = (Route::of(request.uri().path()), request.method().clone());
    let made = tokio::task::spawn_blocking(move || answer(&*site, &method, route)).await;
    let response = made.unwrap_or_else(|_| {
        let mut failed = Response::new(Full::new(bytes::Bytes::from_static(b"the answer could not be made\n")));
        *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        failed
    });
    metrics.answered(route.name(), response.status().as_u16());
    Ok(response)
}
