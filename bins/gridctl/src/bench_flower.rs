//! The other side of `gridctl bench model`: Flower's server and its clients, each a Python process. The server begins a round at each line that it
//! is sent, and prints one when the gradients of the round are averaged; the clients give the model back as they got it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};
use crate::ports;
use crate::process::{self, Process};

/// argv: address, MiB of the model, rounds, clients.
const SERVER: &str = r#"
import sys
import flwr as fl
import numpy as np
from flwr.common import ndarrays_to_parameters

address, mib, rounds, clients = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])

class Turns(fl.server.strategy.FedAvg):
    def configure_fit(self, *args, **kwargs):
        if not sys.stdin.readline():
            sys.exit(0)
        return super().configure_fit(*args, **kwargs)

    def aggregate_fit(self, server_round, results, failures):
        if failures or len(results) != clients:
            sys.exit("a client failed")
        averaged = super().aggregate_fit(server_round, results, failures)
        print("round", server_round, flush=True)
        return averaged

model = np.random.default_rng(1).standard_normal(mib << 18, dtype=np.float32)
strategy = Turns(fraction_fit=1.0, fraction_evaluate=0.0, min_fit_clients=clients, min_available_clients=clients,
                 initial_parameters=ndarrays_to_parameters([model]))
print("flwr", fl.__version__, flush=True)
fl.server.start_server(server_address=address, config=fl.server.ServerConfig(num_rounds=rounds), strategy=strategy,
                       grpc_max_message_length=2**31 - 1)
"#;

/// argv: address.
const CLIENT: &str = r"
import sys
import flwr as fl

class Echo(fl.client.NumPyClient):
    def get_parameters(self, config):
        return []

    def fit(self, parameters, config):
        return parameters, 1, {}

    def evaluate(self, parameters, config):
        return 0.0, 1, {}

fl.client.start_client(server_address=sys.argv[1], client=Echo().to_client(), grpc_max_message_length=2**31 - 1)
";

/// A round that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlowerRound {
    pub(crate) took: Duration,
    pub(crate) cpu_seconds: f64,
}

/// Running Flower; its processes end when it is dropped.
pub(crate) struct Flower {
    pub(crate) version: String,
    children: Vec<Child>,
    lines: BufReader<ChildStdout>,
    orders: ChildStdin,
}

fn failed(cause: impl std::fmt::Display) -> Failure {
    Failure::new(format!("Flower does not run: {cause}"), "--flower PYTHON that has flwr and numpy")
}

fn spawn(python: &Path, script: &str, words: &[String], log: &Path, orders: Stdio, lines: Stdio) -> Result<Child> {
    let log = std::fs::File::create(log).map_err(failed)?;
    Command::new(python)
        .args(["-c", script])
        .args(words)
        .stdin(orders)
        .stdout(lines)
        .stderr(log)
        .spawn()
        .map_err(failed)
}

impl Flower {
    /// Starts a server and `clients` clients with the interpreter that has flwr.
    pub(crate) fn start(python: &Path, folder: &Path, mib: u64, rounds: u64, clients: usize) -> Result<Self> {
        let port = ports::choose(1, u64::from(std::process::id()) * 13)?[0];
        let address = format!("127.0.0.1:{port}");
        let words = [address.clone(), mib.to_string(), rounds.to_string(), clients.to_string()];
        let log = folder.join("flower-server.log");
        let mut server = spawn(python, SERVER, &words, &log, Stdio::piped(), Stdio::piped())?;
        let (orders, output) = (server.stdin.take(), server.stdout.take());
        let mut children = vec![server];
        let (Some(orders), Some(output)) = (orders, output) else {
            children.iter_mut().for_each(end);
            return Err(failed("no pipes"));
        };
        let mut flower = Self { version: String::new(), children, lines: BufReader::new(output), orders };
        flower.version = flower.line()?;
        for client in 0..clients {
            let log = folder.join(format!("flower-client-{client}.log"));
            let child = spawn(python, CLIENT, std::slice::from_ref(&address), &log, Stdio::null(), Stdio::null())?;
            flower.children.push(child);
        }
        Ok(flower)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(bytes) if bytes > 0 => Ok(line.trim().to_owned()),
            Ok(_) => Err(failed("its server ended; see flower-server.log in --dir")),
            Err(error) => Err(failed(error)),
        }
    }

    /// One round: from the word to the server until it has averaged what came back.
    pub(crate) fn round(&mut self) -> Result<FlowerRound> {
        let (cpu, begin) = (self.cpu_seconds(), Instant::now());
        // A server that is gone is told by the line that does not come.
        let _ = writeln!(self.orders, "round").and_then(|()| self.orders.flush());
        let line = self.line()?;
        let took = begin.elapsed();
        if !line.starts_with("round ") {
            return Err(failed(format!("it said {line:?}")));
        }
        Ok(FlowerRound { took, cpu_seconds: self.cpu_seconds() - cpu })
    }

    fn processes(&self) -> Vec<Process> {
        let roots: Vec<Process> =
            self.children.iter().filter_map(|child| Process::of(child.id().cast_signed())).collect();
        // No process carries the mark of this path, so it is the children and what is below them.
        process::family(Path::new("/nowhere/flower"), &roots)
    }

    fn cpu_seconds(&self) -> f64 {
        self.processes().iter().map(Process::cpu_seconds).sum()
    }

    /// Peaks of memory count from now on.
    pub(crate) fn forget_peaks(&self) {
        self.processes().iter().for_each(Process::forget_peak);
    }

    /// Sum of the peaks of all processes, in bytes.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.processes().iter().map(Process::peak_bytes).sum()
    }
}

fn end(child: &mut Child) {
    // One that has ended already cannot be ended.
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Flower {
    fn drop(&mut self) {
        self.children.iter_mut().for_each(end);
    }
}
