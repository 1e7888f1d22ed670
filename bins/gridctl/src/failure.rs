//! One line for what went wrong: the cause, then what to try.

use std::fmt;

/// Exit statuses, as contract.md fixes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It was tried and did not work.
    Failed = 1,
    /// The command line itself is wrong.
    Usage = 2,
    /// Ctrl-C.
    Interrupted = 130,
}

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) struct Failure {
    cause: String,
    hint: String,
    status: Status,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// `cause` says what is wrong with which thing; `hint` is a command or an act, worded to follow "try: ".
    pub(crate) fn new(cause: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { cause: cause.into(), hint: hint.into(), status: Status::Failed }
    }

    pub(crate) fn usage(cause: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status: Status::Usage, ..Self::new(cause, hint) }
    }

    /// The same with the file that it is about.
    pub(crate) fn in_file(self, path: &std::path::Path) -> Self {
        self.of(path.display())
    }

    /// The same with what it is about.
    pub(crate) fn of(mut self, what: impl fmt::Display) -> Self {
        self.cause = format!("{what}: {}", self.cause);
        self
    }

    pub(crate) fn interrupted() -> Self {
        Self { status: Status::Interrupted, ..Self::new("interrupted", "") }
    }

    pub(crate) fn status(&self) -> Status {
        self.status
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        write!(out, "{}", one_line(&self.cause))?;
        if self.hint.is_empty() {
            return Ok(());
        }
        write!(out, "; try: {}", one_line(&self.hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_cause_and_next_step() {
        let failure = Failure::new("script a.py\n does not exist", "ls");
        assert_eq!(failure.to_string(), "script a.py does not exist; try: ls");
        assert_eq!(failure.status() as i32, 1);
        assert_eq!(Failure::usage("x", "y").status() as i32, 2);
        assert_eq!(Failure::interrupted().status() as i32, 130);
    }
}
