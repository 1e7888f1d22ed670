//! What every command needs: its options, where the cluster is, a client; and how errors of the client become one line.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;

use raftgrid_client::{Client, ClientConfig, ClientError};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::Global;
use crate::dev_state::DevState;
use crate::failure::{Failure, Result, Status};
use crate::output::Output;

/// Options of this run.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) output: Output,
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        let output = Output::of(global.output.as_deref());
        Self { global, output }
    }

    /// --endpoints or its environment variable, else the dev cluster of --dir.
    pub(crate) fn endpoints(&self) -> Result<Vec<String>> {
        if let Some(list) = self.global.endpoints() {
            let list: Vec<String> =
                list.split(',').map(|part| part.trim().to_owned()).filter(|p| !p.is_empty()).collect();
            if list.is_empty() {
                return Err(Failure::usage("the list of endpoints is empty", "--endpoints HOST:PORT[,HOST:PORT…]"));
            }
            return Ok(list);
        }
        let directory = self.global.dir();
        match DevState::load(&directory)? {
            Some(state) => Ok(state.endpoints()),
            None => Err(Failure::new(
                format!(
                    "no cluster is known: {} does not exist and no endpoints are given",
                    directory.join("dev.json").display()
                ),
                "gridctl dev up --detach, or --endpoints HOST:PORT[,HOST:PORT…]",
            )),
        }
    }

    /// A client of the cluster. Connects when it is first used.
    pub(crate) fn client(&self) -> Result<Client> {
        connect(self.endpoints()?, &self.global)
    }
}

/// A client of these endpoints with the time limits of the command line.
pub(crate) fn connect(endpoints: Vec<String>, global: &Global) -> Result<Client> {
    let mut config = ClientConfig::new(endpoints);
    config.timeout = global.timeout();
    config.attempt_timeout = config.attempt_timeout.min(config.timeout);
    // Bytes may take as long as they move, unless a time was asked for.
    config.transfer_timeout = global.timeout.unwrap_or(config.transfer_timeout);
    config.name = "gridctl".to_owned();
    Client::new(config).map_err(Failure::from)
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        use ClientError as E;
        let again = "the same command again; it is safe to repeat";
        match error {
            E::Endpoints(cause) => Failure::usage(format!("endpoints: {cause}"), "--endpoints HOST:PORT[,HOST:PORT…]"),
            E::Unavailable { endpoints, waited_ms, cause } => Failure::new(
                format!("no replica at {endpoints} served the call within {waited_ms} ms ({cause})"),
                "gridctl cluster status (or gridctl dev status), or a longer --timeout",
            ),
            E::Deadline(cause) => Failure::new(format!("no answer in time: {cause}"), again),
            E::Invalid(cause) => Failure::new(format!("the request is not valid: {cause}"), "correct that field"),
            E::NotFound(what) => {
                Failure::new(format!("not found: {what}"), "gridctl job list, gridctl task list or gridctl node list")
            }
            E::AlreadyExists(what) => Failure::new(format!("it exists already: {what}"), "another name or id"),
            E::StaleLease(cause) => {
                Failure::new(format!("STALE_LEASE: {cause}"), "gridctl task get, to see who owns it now")
            }
            E::Precondition(cause) => {
                Failure::new(format!("the state does not allow it now: {cause}"), "gridctl job get or gridctl task get")
            }
            E::Exhausted(cause) => Failure::new(format!("the cluster is at a limit: {cause}"), "again in a moment"),
            E::Unimplemented(cause) => Failure::new(
                format!("the cluster does not have this call ({cause})"),
                "a newer controld; gridctl cluster status shows versions",
            ),
            E::Denied(cause) => Failure::new(format!("not allowed: {cause}"), "another identity"),
            E::Internal(cause) => Failure::new(format!("the server failed: {cause}"), "its log (gridctl dev status)"),
            E::Refused(cause) => Failure::new(format!("refused: {cause}"), "correct what it names"),
            E::Bytes(cause) => Failure::new(format!("bytes did not check out on the way: {cause}"), again),
            E::Io(cause) => Failure::new(format!("failed to read or write a file: {cause}"), "check its path"),
            E::Compacted => Failure::new("the history that was watched is no longer kept", again),
        }
    }
}

/// An absolute path without touching the disk: what dev.json and /proc compare.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| Failure::new(format!("failed to find {}: {error}", path.display()), "an absolute path"))
}

/// Ctrl-C and SIGTERM as a flag, for commands that must clean up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the signals set the flag and do nothing else.
    pub(crate) fn install() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, flag.clone())
                .map_err(|error| Failure::new(format!("failed to handle signals: {error}"), "another terminal"))?;
        }
        Ok(Self(flag))
    }

    pub(crate) fn raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// The failure of an interrupted command, if it was.
    pub(crate) fn check(&self) -> Result<()> {
        if self.raised() {
            Err(Failure::interrupted())
        } else {
            Ok(())
        }
    }
}

/// For commands that have nothing to clean up: Ctrl-C ends the process with the status that contract.md names.
pub(crate) fn exit_on_interrupt() {
    if let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) {
        let watch = move || {
            if signals.forever().next().is_some() {
                std::process::exit(Status::Interrupted as i32);
            }
        };
        // Without the thread the default action of the signal stays in force, which is as good.
        let _thread = thread::Builder::new().name("signals".to_owned()).spawn(watch);
    }
}
