//! The other side of `gridctl bench life`: Ray, in a Python process that runs a round of no-op tasks for each line that it is sent.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::failure::{Failure, Result};

/// Keeps a window of tasks under way, as the submitter of ours does, for as many seconds as the line says; prints lives a second.
const SCRIPT: &str = r"
import sys, time, ray
ray.init(include_dashboard=False, log_to_driver=False)
@ray.remote
def noop():
    return 0
ray.get([noop.remote() for _ in range(200)])
print('ray', ray.__version__, flush=True)
for line in sys.stdin:
    seconds, ended, begin = float(line), 0, time.time()
    while time.time() - begin < seconds:
        ray.get([noop.remote() for _ in range(1000)])
        ended += 1000
    print(ended / (time.time() - begin), flush=True)
";

/// A running Ray; it ends with its standard input.
pub(crate) struct Ray {
    pub(crate) version: String,
    child: Child,
    lines: BufReader<ChildStdout>,
    orders: Option<ChildStdin>,
}

impl Ray {
    /// Starts Ray on this machine's cores with the interpreter that has it.
    pub(crate) fn start(python: &Path, folder: &Path) -> Result<Self> {
        let failed = |cause: String| Failure::new(format!("Ray does not start: {cause}"), "--ray PYTHON that has ray");
        let mut child = Command::new(python)
            .args(["-c", SCRIPT])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let (orders, output) = (child.stdin.take(), child.stdout.take());
        let output = output.ok_or_else(|| failed("no output".to_owned()))?;
        let mut ray = Self { version: String::new(), child, lines: BufReader::new(output), orders };
        ray.version = ray.line()?;
        Ok(ray)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(bytes) if bytes > 0 => Ok(line.trim().to_owned()),
            Ok(_) => Err(Failure::new("Ray ended", "python -c 'import ray; ray.init()'")),
            Err(error) => Err(Failure::new(format!("Ray does not answer: {error}"), "--ray PYTHON that has ray")),
        }
    }

    /// Tasks a second in a round of this length.
    pub(crate) fn round(&mut self, time: Duration) -> Result<f64> {
        if let Some(orders) = &mut self.orders {
            // A Ray that is gone is told by the line that does not come.
            let _ = writeln!(orders, "{}", time.as_secs_f64()).and_then(|()| orders.flush());
        }
        let line = self.line()?;
        line.parse().map_err(|_| Failure::new(format!("Ray said `{line}`"), "--ray PYTHON that has ray"))
    }
}

impl Drop for Ray {
    fn drop(&mut self) {
        self.orders.take();
        // It ends with its input; one that does not is not waited for longer than it takes to say so.
        let _ = self.child.wait();
    }
}
