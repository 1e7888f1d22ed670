//! The command line of gridctl: what it means, or the failure that says what is wrong with it.

use raftgrid_settings::usage::{self, Parsed};

use crate::cli::Cli;
use crate::failure::Failure;

/// Reads the command line; `words` starts with the program's name.
pub(crate) fn parse(words: &[String]) -> Result<Parsed<Cli>, Failure> {
    usage::parse("gridctl", words).map_err(|error| Failure::usage(error.cause, error.hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(line: &str) -> String {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match parse(&words) {
            Err(failure) => {
                assert_eq!(failure.status() as i32, 2, "{line}");
                failure.to_string()
            }
            Ok(_) => panic!("`{line}` must be refused"),
        }
    }

    #[test]
    fn a_wrong_flag_is_named_with_the_nearest_right_one() {
        let line = failure("gridctl dev up --pers 3");
        assert_eq!(line, "unknown flag `--pers`; try: --peers (see gridctl dev up --help)");
    }

    #[test]
    fn a_wrong_command_is_named_with_the_nearest_right_one() {
        assert_eq!(failure("gridctl jbo list"), "unknown command `jbo`; try: job (see gridctl --help)");
        assert_eq!(failure("gridctl job aduit digits"), "unknown command `aduit`; try: audit (see gridctl job --help)");
    }

    #[test]
    fn missing_and_malformed_values_say_which() {
        let line = failure("gridctl train a.py --name x --shards 6 --workers 3");
        assert!(line.contains("--rounds") && line.ends_with("try: gridctl train --help"), "{line}");
        let line = failure("gridctl train a.py --name x --shards six --workers 3 --rounds 1");
        assert!(line.contains("--shards") && line.contains("digit"), "{line}");
        let line = failure("gridctl job list --output yaml");
        assert!(line.contains("yaml"), "{line}");
        let line = failure("gridctl job list --timeout soon");
        assert!(line.contains("soon"), "{line}");
    }

    #[test]
    fn help_is_no_error() {
        for line in ["gridctl --help", "gridctl dev up --help", "gridctl --version", "gridctl"] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert!(matches!(parse(&words), Ok(Parsed::Text(_))), "{line}");
        }
    }
}
