//! Builds the root logger of a process: lines are formatted and written by a thread of their own.
//!
//! Called once by each binary and by tests. Levels below debug are compiled out of release builds.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use slog::{Drain, Level, Logger};
use slog_async::{Async, OverflowStrategy};
use slog_term::{CompactFormat, Decorator, FullFormat, PlainSyncDecorator};

use crate::limits::LOG_QUEUE_LINES_MAX;

/// Why a logger could not be made.
#[derive(Debug)]
pub enum LogError {
    /// The file cannot be opened; a retry helps once the directory exists and may be written.
    Open(PathBuf, io::Error),
    /// Not a level that slog knows.
    Level(String),
    /// Not a format of ours.
    Format(String),
}

impl std::fmt::Display for LogError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(path, error) => write!(out, "failed to open log file {}: {error}", path.display()),
            Self::Level(text) => {
                write!(out, "unknown log level `{text}`; one of critical, error, warning, info, debug, trace")
            }
            Self::Format(text) => write!(out, "unknown log format `{text}`; one of full, compact"),
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(_, error) => Some(error),
            Self::Level(_) | Self::Format(_) => None,
        }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Every line carries all its keys: for files and for programs.
    #[default]
    Full,
    /// Keys of the logger stand once above the lines that share them: for people.
    Compact,
}

impl FromStr for Format {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "full" => Ok(Self::Full),
            "compact" => Ok(Self::Compact),
            other => Err(LogError::Format(other.to_owned())),
        }
    }
}

/// The level that `text` names (critical, error, warning, info, debug, trace), in any case; `warn` is taken too.
pub fn parse_level(text: &str) -> Result<Level, LogError> {
    let lower = text.to_ascii_lowercase();
    let name = if lower == "warn" { "warning" } else { lower.as_str() };
    Level::from_str(name).map_err(|()| LogError::Level(text.to_owned()))
}

/// A logger that writes to standard error.
pub fn logger(level: Level, format: Format) -> Logger {
    build(level, format, PlainSyncDecorator::new(io::stderr()))
}

/// A logger that appends to the file at `path`.
pub fn file_logger(level: Level, format: Format, path: &Path) -> Result<Logger, LogError> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| LogError::Open(path.to_owned(), error))?;
    Ok(build(level, format, PlainSyncDecorator::new(file)))
}

/// A logger that drops everything; for tests and for commands that print results only.
pub fn silent() -> Logger {
    Logger::root(slog::Discard, slog::o!())
}

fn build<D>(level: Level, format: Format, decorator: D) -> Logger
where
    D: Decorator + Send + 'static,
{
    match format {
        Format::Full => queued(level, FullFormat::new(decorator).use_utc_timestamp().build()),
        Format::Compact => queued(level, CompactFormat::new(decorator).use_utc_timestamp().build()),
    }
}

fn queued<D>(level: Level, drain: D) -> Logger
where
    D: Drain + Send + 'static,
    D::Err: std::fmt::Debug,
{
    // A broken pipe or a full disk must not end the process: lines that cannot be written are lost.
    let queue = Async::new(drain.ignore_res())
        .chan_size(LOG_QUEUE_LINES_MAX)
        .overflow_strategy(OverflowStrategy::DropAndReport)
        .thread_name("log".to_owned())
        .build();
    Logger::root(slog::LevelFilter::new(queue.ignore_res(), level).ignore_res(), slog::o!())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_logger_keeps_lines_at_its_level_and_drops_finer_ones() {
        let path = std::env::temp_dir().join(format!("raftgrid-telemetry-{}.log", std::process::id()));
        let logger = file_logger(Level::Info, Format::Full, &path).expect("the directory exists");
        slog::info!(logger, "replica started"; "node_id" => 7);
        slog::debug!(logger, "must not be written");
        drop(logger); // the last clone waits for the writing thread
        let text = std::fs::read_to_string(&path).expect("it was written");
        std::fs::remove_file(&path).expect("it is there");
        assert!(text.contains("replica started") && text.contains("node_id: 7"), "{text}");
        assert!(!text.contains("must not be written"), "{text}");
    }

    #[test]
    fn levels_and_formats_are_named_in_the_error() {
        assert_eq!(parse_level("WARN").ok(), Some(Level::Warning));
        assert_eq!(parse_level("debug").ok(), Some(Level::Debug));
        assert!(parse_level("loud").unwrap_err().to_string().contains("loud"));
        assert_eq!("compact".parse::<Format>().ok(), Some(Format::Compact));
        assert!("json".parse::<Format>().unwrap_err().to_string().contains("full, compact"));
    }

    #[test]
    fn a_file_in_a_missing_directory_is_an_error_that_names_it() {
        let error = file_logger(Level::Info, Format::Full, Path::new("/nonexistent/raftgrid/a.log")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/raftgrid/a.log"));
    }
}
