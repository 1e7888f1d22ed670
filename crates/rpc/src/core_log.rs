//! What gRPC's core says in its own log, which nothing else tells: that it failed, and that a connection came in and did not get past the
//! handshake. No call was made then, so no service hears of it.
//!
//! gRPC has one log for the process, so there is one watcher. Its lines are known by their file and their beginning, as gRPC 1.56 writes
//! them; `controld`'s tests hold that refused handshakes are counted.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};
use slog::{warn, Logger};

/// Different lines that are told, each once: whoever knocks at the port cannot fill the disk with them.
const TOLD_MAX: usize = 256;
/// Where a server gives up a connection that did not get past the handshake.
const SERVER_FILE: &str = "chttp2_server.cc";
const HANDSHAKE_FAILED: &str = "Handshaking failed: ";
/// How TLS begins what both ends of a failed handshake say in any case.
const TLS_FAILED: &str = "Handshake failed with fatal error ";

struct Watcher {
    logger: Logger,
    handshake_failed: Box<dyn Fn() + Send + Sync>,
    told: Mutex<BTreeSet<String>>,
}

/// From now on gRPC's errors go to `logger`, each once, and `handshake_failed` is called for every connection to a port of this process that
/// did not get past the handshake. The first call in a process counts, later ones do nothing.
pub fn watch(logger: Logger, handshake_failed: impl Fn() + Send + Sync + 'static) {
    let watcher = Watcher { logger, handshake_failed: Box::new(handshake_failed), told: Mutex::default() };
    if log::set_boxed_logger(Box::new(watcher)).is_ok() {
        // Failed handshakes are told at this level.
        log::set_max_level(LevelFilter::Debug);
        grpcio::redirect_log();
    }
}

impl Watcher {
    /// Whether this line was not told before.
    fn is_new(&self, line: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < TOLD_MAX && told.insert(line.to_owned())
    }
}

impl Log for Watcher {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("grpcio")
    }

    fn log(&self, record: &Record<'_>) {
        if !record.module_path().is_some_and(|path| path.starts_with("grpcio")) {
            return;
        }
        let line = record.args().to_string();
        if let Some(why) = line.strip_prefix(HANDSHAKE_FAILED).filter(|_| of(record, SERVER_FILE)) {
            (self.handshake_failed)();
            let why = explained(why);
            if self.is_new(&why) {
                warn!(self.logger, "connection refused at the handshake"; "reason" => why);
            }
        } else if line.starts_with(TLS_FAILED) {
            // The same once more; who called, or was called, tells it with its meaning.
        } else if record.level() <= Level::Warn && self.is_new(plain(&line)) {
            warn!(self.logger, "grpc failed"; "reason" => plain(&line));
        }
    }

    fn flush(&self) {}
}

fn of(record: &Record<'_>, file: &str) -> bool {
    record.file().is_some_and(|path| path.ends_with(file))
}

/// Without the details behind it, of which the time is one.
fn plain(line: &str) -> &str {
    line.split(" {").next().unwrap_or(line).trim_end()
}

/// What TLS's words for the usual mistakes mean, and the words.
pub fn explained(why: &str) -> String {
    let why = plain(why);
    let meaning = [
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "the other end has no certificate"),
        ("WRONG_VERSION_NUMBER", "one end speaks TLS, the other does not"),
        ("HTTP_REQUEST", "one end speaks TLS, the other does not"),
        (
            "CERTIFICATE_VERIFY_FAILED",
            "the other end's certificate has expired, or is of an authority that is not believed here",
        ),
        ("UNKNOWN_CA", "the other end does not believe the authority of this replica's certificate"),
        ("ALERT_CERTIFICATE_EXPIRED", "this replica's certificate has expired, as the other end sees it"),
        ("CERTIFICATE_REQUIRED", "the other end asks for a certificate"),
        ("Socket closed", "the other end closes new connections; has one of the two tls.peer_cert, and the other not?"),
        ("Peer name", "the other end's certificate is that of another node"),
        ("Hostname Verification", "the other end's certificate is that of another node"),
    ];
    match meaning.iter().find(|(word, _)| why.contains(word)) {
        Some((_, meaning)) => format!("{meaning} ({why})"),
        None => why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_mistakes_are_explained_and_the_time_is_left_out() {
        let why =
            "UNKNOWN:error:1000012e:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER {created_time:\"2026-01-01\"}";
        let explained = explained(why);
        assert!(explained.starts_with("one end speaks TLS") && !explained.contains("2026"), "{explained}");
        assert_eq!(super::explained("anything else {x:1}"), "anything else");
    }
}
