//! Workers of `gridctl bench life --serve`: Python processes that stay (`raftgrid.serve`), each of which tells how many of its calls are durably
//! over.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use futures::channel::mpsc::{unbounded, UnboundedReceiver, UnboundedSender};
use futures::executor::block_on;
use futures::StreamExt;

use crate::failure::{Failure, Result};
use crate::limits::BENCH_CALL_TIMEOUT;

/// Serves a function that does nothing and prints how many of its reports were acknowledged. argv: endpoints, name, directory, slots.
const SCRIPT: &str = r#"
import sys, threading, time
from raftgrid import serve

class Counting(serve.Server):
    ended = 0
    def _acknowledged(self, attempt, answer):
        super()._acknowledged(attempt, answer)
        Counting.ended += answer.status == 0

def tell():
    while True:
        print(Counting.ended, flush=True)
        time.sleep(0.005)

threading.Thread(target=tell, daemon=True).start()
serve.Server = Counting
serve.run({"noop": lambda data: None}, endpoints=sys.argv[1], node_id=sys.argv[2], directory=sys.argv[3], slots=int(sys.argv[4]))
"#;

/// Running servers; they end with this.
pub(crate) struct PythonWorkers {
    children: Vec<Child>,
    /// How many calls have ended since the last word.
    pub(crate) ended: UnboundedReceiver<u64>,
}

impl PythonWorkers {
    /// Starts `count` of them with the interpreter that has raftgrid. Each holds up to `slots` calls.
    pub(crate) fn start(python: &Path, folder: &Path, address: &str, count: usize, slots: u64) -> Result<Self> {
        let (told, ended) = unbounded();
        let mut workers = Self { children: Vec::new(), ended };
        for at in 0..count {
            let mut child = Command::new(python)
                .args(["-c", SCRIPT, address, &format!("calls-{at}")])
                .arg(folder.join(format!("calls-{at}")))
                .arg(slots.to_string())
                .current_dir(folder)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .map_err(|error| failed(&error.to_string()))?;
            let output = child.stdout.take();
            workers.children.push(child);
            let Some(output) = output else { return Err(failed("no output")) };
            let (mut lines, told) = (BufReader::new(output), told.clone());
            // A program that cannot import raftgrid says nothing.
            let first = total(&mut lines).ok_or_else(|| failed("it ended at once"))?;
            thread::spawn(move || tell(lines, first, &told));
        }
        Ok(workers)
    }

    /// Waits until so many more calls have ended.
    pub(crate) fn settle(&mut self, open: u64) -> Result<()> {
        let (mut ended, until) = (0, Instant::now() + BENCH_CALL_TIMEOUT);
        while ended < open && Instant::now() < until {
            ended += block_on(self.ended.next()).ok_or_else(|| failed("it ended"))?;
        }
        if ended != open {
            return Err(failed(&format!("{ended} calls ended of {open} that were open")));
        }
        Ok(())
    }
}

fn failed(cause: &str) -> Failure {
    Failure::new(format!("a Python worker does not start: {cause}"), "--serve .venv/bin/python")
}

fn total(lines: &mut impl BufRead) -> Option<u64> {
    let mut line = String::new();
    lines.read_line(&mut line).ok()?;
    line.trim().parse().ok()
}

fn tell(mut lines: impl BufRead, mut before: u64, told: &UnboundedSender<u64>) {
    while let Some(now) = total(&mut lines) {
        // The benchmark is over if nobody listens.
        if told.unbounded_send(now.saturating_sub(before)).is_err() {
            return;
        }
        before = now;
    }
}

impl Drop for PythonWorkers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // One that has ended already cannot be ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
