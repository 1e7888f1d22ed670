//! What is printed: tables for people, JSON for programs, progress on a terminal, plain lines in a pipe.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// The form of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Table,
    Json,
}

impl Output {
    /// Of `--output`, whose values clap has checked.
    pub(crate) fn of(word: Option<&str>) -> Self {
        if word == Some("json") {
            Self::Json
        } else {
            Self::Table
        }
    }

    pub(crate) fn is_json(self) -> bool {
        self == Self::Json
    }

    /// Rows for people, or `json` for programs.
    pub(crate) fn show(self, headers: &[&str], rows: Vec<Vec<String>>, json: &Value) {
        match self {
            Self::Json => print_json(json),
            Self::Table => {
                let text = table(headers, rows).to_string();
                text.lines().for_each(|row| line(row.trim_end()));
            }
        }
    }

    /// One thing: names and values below each other, or `json`.
    pub(crate) fn show_one(self, pairs: Vec<(&str, String)>, json: &Value) {
        match self {
            Self::Json => print_json(json),
            Self::Table => {
                let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
                for (name, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
                    line(format_args!("{name:width$}  {value}"));
                }
            }
        }
    }

    /// One sentence for people, or `json`.
    pub(crate) fn done(self, sentence: impl Display, json: &Value) {
        match self {
            Self::Json => print_json(json),
            Self::Table => line(sentence),
        }
    }

    /// A remark on standard error, so that standard output stays the result.
    pub(crate) fn note(self, text: impl Display) {
        // Whoever closed standard error does not want remarks.
        let _closed = writeln!(io::stderr(), "{text}");
    }
}

/// Prints a line. A reader that went away (`| head`) ends the command quietly.
pub(crate) fn line(text: impl Display) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Bytes as they are (logs).
pub(crate) fn raw(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

fn print_json(value: &Value) {
    line(format_args!("{value:#}"));
}

fn table(headers: &[&str], rows: Vec<Vec<String>>) -> Table {
    let numeric = |column: usize| {
        let number =
            |cell: &String| cell.is_empty() || cell.replace([',', '.', '-'], "").bytes().all(|b| b.is_ascii_digit());
        !rows.is_empty() && rows.iter().all(|row| row.get(column).is_none_or(number))
    };
    let right: Vec<usize> = (0..headers.len()).filter(|column| numeric(*column)).collect();
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers.iter().map(|header| header.to_uppercase()));
    table.add_rows(rows);
    for column in right {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Progress of a transfer: a bar on a terminal, nothing in a pipe.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn bytes(what: &str, output: Output) -> Self {
        let bar =
            if io::stderr().is_terminal() && !output.is_json() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}");
        bar.set_style(style.expect("the template is right"));
        bar.set_message(what.to_owned());
        Self { bar }
    }

    /// `done` of `all` bytes.
    pub(crate) fn set(&self, done: u64, all: u64) {
        self.bar.set_length(all);
        self.bar.set_position(done);
    }

    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 1234567 as 1,234,567.
pub(crate) fn thousands(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How long ago `unix_seconds` was: `12 s ago`; empty for 0.
pub(crate) fn ago(unix_seconds: i64) -> String {
    if unix_seconds <= 0 {
        return String::new();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    match now.saturating_sub(unix_seconds.unsigned_abs()) {
        seconds @ 0..=119 => format!("{seconds} s ago"),
        seconds @ 120..=7_199 => format!("{} min ago", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// `JOB_RUNNING` as `running`, for an enum of ours and its prefix.
pub(crate) fn word(value: impl std::fmt::Debug, prefix: &str) -> String {
    let text = format!("{value:?}");
    text.strip_prefix(prefix).unwrap_or(&text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftgrid_proto::v1::{JobPhase, Phase};

    #[test]
    fn tables_have_upper_case_heads_and_right_aligned_numbers() {
        let rows = vec![vec!["a".to_owned(), "5".to_owned()], vec!["bc".to_owned(), "1,250".to_owned()]];
        let text = table(&["name", "ms"], rows).to_string();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].contains("NAME") && lines[0].contains("MS"));
        assert!(lines[1].ends_with("    5") && lines[2].ends_with("1,250"), "{text}");
    }

    #[test]
    fn numbers_and_digests_are_readable() {
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(999), "999");
        assert_eq!(hex(&[0, 0xab, 0x1f]), "00ab1f");
        assert_eq!(word(JobPhase::JOB_RUNNING, "JOB_"), "running");
        assert_eq!(word(Phase::PHASE_RETRIES_EXHAUSTED, "PHASE_"), "retries_exhausted");
    }
}
