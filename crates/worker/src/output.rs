//! What a process wrote: its tails, and what becomes of them in a report.

use std::collections::VecDeque;

use serde_json::json;

use crate::limits::{REASON_BYTES_MAX, RESULT_BYTES_MAX};

/// The last bytes of a stream.
#[derive(Debug)]
pub(crate) struct Tail {
    bytes: VecDeque<u8>,
    bytes_max: usize,
}

impl Tail {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes: VecDeque::new(), bytes_max }
    }

    pub(crate) fn push(&mut self, data: &[u8]) {
        self.bytes.extend(&data[data.len().saturating_sub(self.bytes_max)..]);
        let excess = self.bytes.len().saturating_sub(self.bytes_max);
        self.bytes.drain(..excess);
    }

    /// As text; a character that was cut or is none is replaced.
    pub(crate) fn text(&self) -> String {
        let (first, second) = self.bytes.as_slices();
        String::from_utf8_lossy(&[first, second].concat()).into_owned()
    }
}

/// The first line of a text that may have several, without control characters, of bounded length.
pub(crate) fn one_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let mut bytes = 0;
    line.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take_while(|letter| {
            bytes += letter.len_utf8();
            bytes <= REASON_BYTES_MAX
        })
        .collect()
}

/// Why a process failed: what it said on stderr, or else how it ended. Of one that was killed both are told: its last words need not be why.
pub(crate) fn failure_reason(said: Option<String>, signal: Option<i32>, code: i32) -> String {
    match (said, signal) {
        (Some(said), None) => said,
        (Some(said), Some(signal)) => one_line(&format!("killed by signal {signal}; it said last: {said}")),
        (None, Some(signal)) => format!("killed by signal {signal} without a word on stderr"),
        (None, None) => format!("exit code {code} without a word on stderr"),
    }
}

/// `{"exit_code": …, "stdout_tail": …}` of at most `RESULT_BYTES_MAX`: escapes can make text six times as long.
pub(crate) fn command_result(code: i32, stdout: &str) -> String {
    let mut tail = stdout;
    loop {
        let result = json!({"exit_code": code, "stdout_tail": tail}).to_string();
        if result.len() <= RESULT_BYTES_MAX {
            return result;
        }
        // One byte of text is at most six of JSON: so much too long, so much at least must go.
        let mut cut = (result.len() - RESULT_BYTES_MAX) / 6 + 1;
        while !tail.is_char_boundary(cut) {
            cut += 1;
        }
        tail = &tail[cut..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_last_bytes() {
        let mut tail = Tail::new(4);
        tail.push(b"ab");
        tail.push(b"cde");
        assert_eq!(tail.text(), "bcde");
        tail.push(b"0123456789");
        assert_eq!(tail.text(), "6789");
    }

    #[test]
    fn what_a_process_said_is_the_reason_and_a_signal_is_always_told() {
        assert_eq!(failure_reason(Some("ValueError: bad".to_owned()), None, 1), "ValueError: bad");
        assert_eq!(failure_reason(None, None, 3), "exit code 3 without a word on stderr");
        assert_eq!(failure_reason(None, Some(9), 137), "killed by signal 9 without a word on stderr");
        let told = failure_reason(Some("epoch 3".to_owned()), Some(9), 137);
        assert_eq!(told, "killed by signal 9; it said last: epoch 3");
    }

    #[test]
    fn a_result_stays_within_its_limit_whatever_was_written() {
        let result = command_result(0, &"\u{1}é".repeat(40_000));
        assert!(result.len() <= RESULT_BYTES_MAX && result.len() > RESULT_BYTES_MAX - 64);
        let value: serde_json::Value = serde_json::from_str(&result).expect("still JSON");
        assert!(value["stdout_tail"].as_str().expect("text").ends_with('é'));
    }
}
