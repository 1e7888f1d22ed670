//! The HTTP port over real sockets: routes, and what a hostile client can cost.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use raftgrid_gateway::{limits, Gateway, GatewayError, Site};
use raftgrid_telemetry::Registry;

/// Bounds a hang; part of no verdict.
const PATIENCE: Duration = Duration::from_secs(60);

struct Shown {
    registry: Registry,
    ready: AtomicBool,
}

impl Site for Shown {
    fn metrics(&self) -> String {
        self.registry.exposition()
    }
    fn healthy(&self) -> Result<(), String> {
        Ok(())
    }
    fn ready(&self) -> Result<(), String> {
        if self.ready.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err("no leader is known".to_owned())
    }
}

fn start() -> (Gateway, Arc<Shown>) {
    let registry = Registry::new();
    registry.counter("raftgrid_things_total", "things", &[]).add(7);
    let site = Arc::new(Shown { registry: registry.clone(), ready: AtomicBool::new(false) });
    let gateway = Gateway::start("127.0.0.1:0", site.clone(), &registry).expect("a free port");
    (gateway, site)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the port is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    stream
}

/// Everything that comes back until the port closes the connection. A reset counts as the end.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(got @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..got]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = connect(address);
    // A port that closed at once resets what is still written: then there is no answer to read either.
    let _ = write!(stream, "{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n");
    rest(&mut stream)
}

#[test]
fn each_route_says_what_it_is_for() {
    let (gateway, site) = start();
    let metrics = ask(gateway.address(), "GET", "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 ") && metrics.contains("version=0.0.4"), "{metrics}");
    assert!(metrics.contains("\nraftgrid_things_total 7\n"), "{metrics}");
    assert!(ask(gateway.address(), "GET", "/healthz").starts_with("HTTP/1.1 200 "));
    let waiting = ask(gateway.address(), "GET", "/readyz");
    assert!(waiting.starts_with("HTTP/1.1 503 ") && waiting.contains("no leader is known"), "{waiting}");
    site.ready.store(true, Ordering::SeqCst);
    assert!(ask(gateway.address(), "GET", "/readyz").starts_with("HTTP/1.1 200 "));
    assert!(ask(gateway.address(), "GET", "/").starts_with("HTTP/1.1 404 "));
    assert!(ask(gateway.address(), "POST", "/metrics").starts_with("HTTP/1.1 405 "));
    let head = ask(gateway.address(), "HEAD", "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("raftgrid_things_total"), "{head}");
    let text = site.registry.exposition();
    for counted in [
        "raftgrid_http_requests_total{route=\"readyz\",status=\"503\"} 1\n",
        "raftgrid_http_requests_total{route=\"unknown\",status=\"404\"} 1\n",
        "raftgrid_http_requests_total{route=\"metrics\",status=\"405\"} 1\n",
    ] {
        assert!(text.contains(counted), "{counted} is not in {text}");
    }
}

#[test]
fn a_head_without_end_is_refused_at_its_bound_and_others_are_served() {
    let (gateway, _site) = start();
    let mut stream = connect(gateway.address());
    stream.write_all(b"GET /metrics HTTP/1.1\r\n").expect("it is sent");
    let line = format!("x: {}\r\n", "a".repeat(1_000));
    let mut sent = 0;
    // The port stops reading at its bound and closes; what is written after that fails.
    while sent < 64 * limits::HEAD_BYTES_MAX && stream.write_all(line.as_bytes()).is_ok() {
        sent += line.len();
    }
    let _ = stream.shutdown(Shutdown::Write);
    let answer = rest(&mut stream);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 400 "),
        "{answer}"
    );
    assert!(ask(gateway.address(), "GET", "/healthz").starts_with("HTTP/1.1 200 "));
}

#[test]
fn silent_connections_take_no_more_than_the_places_there_are_and_give_them_back() {
    let (gateway, site) = start();
    let refused = || site.registry.counter("raftgrid_http_connections_refused_total", "", &[]).get();
    let mut silent: Vec<TcpStream> = (0..limits::CONNECTIONS_MAX).map(|_| connect(gateway.address())).collect();
    // All places are taken: one more is closed at once, without an answer.
    let over = ask(gateway.address(), "GET", "/healthz");
    assert_eq!((over.as_str(), refused()), ("", 1));
    // A client that says nothing is put out by the time-out of the head, not by anybody's good will.
    assert_eq!(rest(&mut silent[0]), "");
    drop(silent);
    let served = (0..600).any(|_| {
        std::thread::park_timeout(Duration::from_millis(100));
        ask(gateway.address(), "GET", "/healthz").starts_with("HTTP/1.1 200 ")
    });
    assert!(served, "the places were not given back");
}

#[test]
fn a_busy_port_is_named_with_the_next_step_and_a_dropped_gateway_frees_its_port() {
    let (gateway, site) = start();
    let address = gateway.address().to_string();
    let busy = match Gateway::start(&address, site.clone(), &Registry::new()) {
        Err(error @ GatewayError::Listen { .. }) => error.to_string(),
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("one port, two owners"),
    };
    assert!(busy.contains(&address) && busy.contains("give another address"), "{busy}");
    drop(gateway);
    Gateway::start(&address, site, &Registry::new()).expect("the port is free again");
}
