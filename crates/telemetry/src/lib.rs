//! Logging facade and metrics registry.
//!
//! Owned here: where log lines go and how they look, and the text form of metrics. Every other crate takes a `slog::Logger` or a handle of a
//! metric and knows neither slog-term nor the exposition format. Never here: what is logged or counted, but for the process itself (`process`).

mod limits;
mod log;
mod metrics;
mod process;

pub use log::{file_logger, logger, parse_level, silent, Format, LogError};
pub use metrics::{Counter, Gauge, Histogram, Registry};
pub use process::sample_process;
pub use slog;
