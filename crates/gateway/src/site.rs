//! What is behind the routes, and the routes.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::{Method, Response, StatusCode};

/// Type of the text exposition of metrics.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// What the port shows. Called on threads that may wait a little.
pub trait Site: Send + Sync + 'static {
    /// All metrics as Prometheus' text exposition, sampled now.
    fn metrics(&self) -> String;
    /// Whether the process lives; an error says what is wrong with it, and asks for its restart.
    fn healthy(&self) -> Result<(), String>;
    /// Whether clients should be sent here; an error says why not.
    fn ready(&self) -> Result<(), String>;
}

/// A path of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Metrics,
    Health,
    Ready,
    Unknown,
}

impl Route {
    pub(crate) fn of(path: &str) -> Self {
        match path {
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Health,
            "/readyz" => Self::Ready,
            _ => Self::Unknown,
        }
    }

    /// As a label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Health => "healthz",
            Self::Ready => "readyz",
            Self::Unknown => "unknown",
        }
    }
}

/// The answer. May block for as long as the site does.
pub(crate) fn answer(site: &dyn Site, method: &Method, route: Route) -> Response<Full<Bytes>> {
    if route == Route::Unknown {
        return text(StatusCode::NOT_FOUND, PLAIN, "there are /metrics, /healthz and /readyz\n".to_owned());
    }
    if method != Method::GET && method != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET only\n".to_owned());
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match route {
        Route::Metrics => text(StatusCode::OK, EXPOSITION, site.metrics()),
        Route::Health => verdict(site.healthy()),
        Route::Ready => verdict(site.ready()),
        Route::Unknown => unreachable!("answered above"),
    }
}

fn verdict(outcome: Result<(), String>) -> Response<Full<Bytes>> {
    match outcome {
        Ok(()) => text(StatusCode::OK, PLAIN, "ok\n".to_owned()),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{why}\n")),
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind)
        .header(CACHE_CONTROL, "no-store")
        .body(Full::new(Bytes::from(body)))
        .expect("constant headers are well-formed")
}
