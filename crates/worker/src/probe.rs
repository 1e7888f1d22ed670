//! Short programs that are asked something: started, waited for with a limit, read.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::clock::boottime_ms;
use crate::output::one_line;

/// Why there is no answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ProbeError {
    /// No such program.
    #[error("it does not exist")]
    Absent,
    /// One line.
    #[error("{0}")]
    Failed(String),
}

/// What the program prints, which must fit into a pipe. It has `limit_ms`.
pub(crate) fn output_of(mut command: Command, limit_ms: u64) -> Result<String, ProbeError> {
    let failed = |error: std::io::Error| ProbeError::Failed(one_line(&error.to_string()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ProbeError::Absent,
        _ => failed(error),
    })?;
    let status = wait(&mut child, limit_ms)?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut stdout).map_err(failed)?;
    }
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_end(&mut stderr).map_err(failed)?;
    }
    let text = String::from_utf8_lossy(&stdout).into_owned();
    if !status.success() {
        let errors = String::from_utf8_lossy(&stderr).into_owned();
        let words = [errors, text].concat();
        let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("without a word");
        return Err(ProbeError::Failed(one_line(&format!("it ends with {status}: {last}"))));
    }
    Ok(text)
}

fn wait(child: &mut Child, limit_ms: u64) -> Result<ExitStatus, ProbeError> {
    let deadline = boottime_ms() + limit_ms;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if boottime_ms() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                // It is ours, and not reaped yet.
                let _ = child.kill();
                let _ = child.wait();
                return Err(ProbeError::Failed(format!("it does not answer within {limit_ms} ms")));
            }
            Err(error) => return Err(ProbeError::Failed(one_line(&error.to_string()))),
        }
    }
}
