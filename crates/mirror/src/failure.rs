//! Why something was not mirrored, and what is to be done about it.

use std::error::Error;

use crate::limits::CAUSE_BYTES_MAX;

/// Never an end: everything is tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// Of the destination: everybody waits for a while.
    #[error("{0}")]
    Store(String),
    /// Of this artifact: the next one may fare better.
    #[error("{0}")]
    Artifact(String),
    /// This replica no longer leads, or the process ends.
    #[error("this replica no longer leads")]
    Over,
}

/// An error with all that stands behind it, on one line and not without end.
pub(crate) fn cause(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > CAUSE_BYTES_MAX {
        let end = (0..=CAUSE_BYTES_MAX).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to write: {behind}")]
    struct Outer {
        #[source]
        behind: Inner,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("<Error>\n  <Code>AccessDenied</Code>\n</Error>")]
    struct Inner;

    #[test]
    fn a_cause_is_one_line_that_says_each_thing_once() {
        assert_eq!(cause(&Outer { behind: Inner }), "failed to write: <Error> <Code>AccessDenied</Code> </Error>");
        let long = std::io::Error::other("ä".repeat(CAUSE_BYTES_MAX));
        let said = cause(&long);
        assert!(said.len() <= CAUSE_BYTES_MAX + '…'.len_utf8() && said.ends_with("ä…"), "{said}");
    }
}
