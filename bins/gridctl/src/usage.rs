//! Turns what clap says about a wrong command line into one line that names the cause and the next step.

use structopt::clap::ErrorKind;
use structopt::StructOpt;

use crate::cli::Cli;
use crate::failure::Failure;

/// What the arguments mean.
pub(crate) enum Parsed {
    Run(Box<Cli>),
    /// --help or --version: to be printed as it is.
    Text(String),
}

/// Reads the command line; `words` starts with the program's name.
pub(crate) fn parse(words: &[String]) -> Result<Parsed, Failure> {
    let error = match Cli::from_iter_safe(words) {
        Ok(cli) => return Ok(Parsed::Run(Box::new(cli))),
        Err(error) => error,
    };
    if matches!(error.kind, ErrorKind::HelpDisplayed | ErrorKind::VersionDisplayed) {
        return Ok(Parsed::Text(error.message));
    }
    let (path, help) = nearest_help(words);
    if words.len() == 1 {
        return Ok(Parsed::Text(help));
    }
    let culprit = error.info.as_ref().and_then(|info| info.first()).map(String::as_str).unwrap_or_default();
    let (kind, known) = if culprit.starts_with('-') { ("flag", flags(&help)) } else { ("command", commands(&help)) };
    let unknown = matches!(
        error.kind,
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand | ErrorKind::UnrecognizedSubcommand
    );
    let cause = if unknown { format!("unknown {kind} `{culprit}`") } else { first_paragraph(&error.message) };
    let hint = match unknown.then(|| nearest(culprit, &known)).flatten() {
        Some(near) => format!("{near} (see {path} --help)"),
        None => format!("{path} --help"),
    };
    Err(Failure::usage(cause, hint))
}

/// The longest beginning of the words that is a command, and its help.
fn nearest_help(words: &[String]) -> (String, String) {
    let plain = words.iter().skip(1).take_while(|word| !word.starts_with('-')).count();
    for length in (0..=plain).rev() {
        let mut asked: Vec<&str> = words[..=length].iter().map(String::as_str).collect();
        asked[0] = "gridctl";
        let path = asked.join(" ");
        asked.push("--help");
        if let Err(error) = Cli::from_iter_safe(&asked) {
            // A positional argument also leads to a help text: that of the command before it.
            let deeper = length > 0 && !error.message.contains(words[length].as_str());
            if error.kind == ErrorKind::HelpDisplayed && !deeper {
                return (path, error.message);
            }
        }
    }
    ("gridctl".to_owned(), String::new())
}

/// `--flag` words of a help text.
fn flags(help: &str) -> Vec<String> {
    let words = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_owned).collect()
}

/// Names below SUBCOMMANDS of a help text.
fn commands(help: &str) -> Vec<String> {
    let below = help.split_once("SUBCOMMANDS:").map_or("", |(_, below)| below);
    below.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// The name that a slip of the fingers may have meant: a letter too many, too few, changed, or two exchanged, one such slip per four letters.
fn nearest<'a>(word: &str, known: &'a [String]) -> Option<&'a str> {
    let slips = word.len().div_ceil(4);
    let distances = known.iter().map(|name| (strsim::damerau_levenshtein(word, name), name));
    distances
        .filter(|(distance, _)| *distance <= slips)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.as_str())
}

/// clap's message up to its usage block, without its colour and its label.
fn first_paragraph(message: &str) -> String {
    let text = message.split("\n\n").next().unwrap_or_default();
    let text = text.strip_prefix("error: ").unwrap_or(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
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
