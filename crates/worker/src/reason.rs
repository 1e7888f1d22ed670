//! Why a process failed, found in what it writes to stderr as it comes: of a Python exception the line with its type and message, however
//! long the message goes on; else the last line. Keeps three lines, whatever is written.

use crate::limits::REASON_BYTES_MAX;
use crate::output::one_line;

/// The last line of a traceback's head; a group's has something in front.
const HEAD: &str = "Traceback (most recent call last):";

/// Reads one stream.
#[derive(Debug, Default)]
pub(crate) struct Reason {
    /// The line that is being read, as far as it is kept.
    line: Vec<u8>,
    /// Between a traceback's head and its exception.
    in_frames: bool,
    /// First line of the last exception that was shown.
    raised: Option<String>,
    /// The last line that is not empty; behind `raised` if there is one.
    last: Option<String>,
}

impl Reason {
    pub(crate) fn push(&mut self, data: &[u8]) {
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            let room = (2 * REASON_BYTES_MAX).saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        // An exception group draws a frame around its traceback.
        let bare = line.strip_prefix("  | ").unwrap_or(&line);
        let words = bare.trim_matches([' ', '\r', '|', '+', '-']);
        if words.is_empty() {
            return;
        }
        if bare.trim_end().ends_with(HEAD) {
            // The parts of a group have heads of their own: the whole is what was raised.
            let part = line.starts_with("    ") || line.starts_with("  +-");
            if !part {
                (self.in_frames, self.raised, self.last) = (true, None, None);
            }
        } else if self.in_frames {
            // Frames and their source are indented.
            if !bare.starts_with([' ', '\t']) {
                (self.in_frames, self.raised) = (false, Some(one_line(bare)));
            }
        } else if self.raised.is_some() && line.trim_start().starts_with(['|', '+']) {
            // A part of a group.
        } else {
            self.last = Some(one_line(bare));
        }
    }

    /// One line; None: nothing was written.
    pub(crate) fn finish(mut self) -> Option<String> {
        self.end_line();
        match (self.raised, self.last) {
            // What follows is the rest of the message, or what the program said later.
            (Some(raised), Some(last)) => Some(one_line(&format!("{raised} … {last}"))),
            (raised, last) => raised.or(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(stderr: &str) -> Option<String> {
        let mut whole = Reason::default();
        whole.push(stderr.as_bytes());
        let whole = whole.finish();
        // Bytes come in whatever pieces.
        let mut pieces = Reason::default();
        stderr.as_bytes().chunks(3).for_each(|piece| pieces.push(piece));
        assert_eq!(whole, pieces.finish());
        whole
    }

    #[test]
    fn an_exception_gives_its_first_line_with_type_and_message() {
        let head = "Traceback (most recent call last):\n  File \"x.py\", line 1, in <module>\n    raise X\n";
        assert_eq!(reason(&format!("{head}ValueError: bad\n\n")).as_deref(), Some("ValueError: bad"));
        let text = reason(&format!("{head}ValueError: the shapes differ:\nwant (3, 4)\ngot (4, 3)\n"));
        assert_eq!(text.as_deref(), Some("ValueError: the shapes differ: … got (4, 3)"));
        let chained = format!("{head}KeyError: 'a'\n\nDuring handling of the above exception, another occurred:\n\n{head}ValueError: b\n");
        assert_eq!(reason(&chained).as_deref(), Some("ValueError: b"));
        assert_eq!(reason(&format!("warming up\n{head}KeyboardInterrupt\n")).as_deref(), Some("KeyboardInterrupt"));
    }

    #[test]
    fn a_message_of_a_megabyte_does_not_hide_its_first_line() {
        let text = format!("Traceback (most recent call last):\n  File \"x\"\nValueError: first\n{}", "more\n".repeat(200_000));
        assert_eq!(reason(&text).as_deref(), Some("ValueError: first … more"));
        let long = format!("Traceback (most recent call last):\n  File \"x\"\nValueError: {}\n", "é".repeat(500_000));
        let found = reason(&long).expect("something was written");
        assert!(found.starts_with("ValueError: éé") && found.len() <= REASON_BYTES_MAX, "{}", found.len());
    }

    #[test]
    fn without_a_traceback_the_last_line_counts() {
        assert_eq!(reason("a\nfatal: b\n\n").as_deref(), Some("fatal: b"));
        assert_eq!(reason("no newline at the end").as_deref(), Some("no newline at the end"));
        let syntax = "  File \"x.py\", line 1\n    foo(\n       ^\nSyntaxError: '(' was never closed\n";
        assert_eq!(reason(syntax).as_deref(), Some("SyntaxError: '(' was never closed"));
        assert_eq!(reason("\n \n"), None);
        // It was caught and printed; what ended the program is said behind it.
        let caught = "Traceback (most recent call last):\n  File \"x\"\nKeyError: 'a'\ngiving up: no data\n";
        assert_eq!(reason(caught).as_deref(), Some("KeyError: 'a' … giving up: no data"));
    }

    #[test]
    fn an_exception_group_gives_the_group() {
        let text = "  + Exception Group Traceback (most recent call last):\n  |   File \"x.py\", line 1, in <module>\n  |     raise \
                    ExceptionGroup(\"eg\", [ValueError(1), TypeError(2)])\n  | ExceptionGroup: eg (2 sub-exceptions)\n  \
                    +-+---------------- 1 ----------------\n    | ValueError: 1\n    +---------------- 2 ----------------\n    \
                    | TypeError: 2\n    +------------------------------------\n";
        assert_eq!(reason(text).as_deref(), Some("ExceptionGroup: eg (2 sub-exceptions)"));
    }

    #[test]
    fn a_reason_is_one_line_without_control_characters() {
        let found = reason(&"é\u{7}".repeat(10_000)).expect("something was written");
        assert!(found.len() <= REASON_BYTES_MAX && !found.contains(char::is_control));
    }
}
