//! Turns what clap says about a wrong command line into one line that names the cause and the next step. All binaries use it, so that all
//! of them are wrong in the same way.

use std::fmt;

use structopt::clap::ErrorKind;
use structopt::StructOpt;

/// Exit status of wrong usage: flags, settings.
pub const WRONG_USAGE: u8 = 2;

/// What the arguments mean.
pub enum Parsed<T> {
    /// To be done.
    Run(Box<T>),
    /// --help or --version: to be printed as it is. Empty: printed already.
    Text(String),
}

/// The command line is wrong: one line with the cause and the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    /// What is wrong with which word.
    pub cause: String,
    /// Worded to follow "try: ".
    pub hint: String,
}

impl fmt::Display for UsageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}; try: {}", self.cause, self.hint)
    }
}

impl std::error::Error for UsageError {}

/// Reads the command line of `program`; `words` starts with the name it was called by. Without a word where there must be one, the help.
pub fn parse<T: StructOpt>(program: &str, words: &[String]) -> Result<Parsed<T>, UsageError> {
    let error = match T::from_iter_safe(words) {
        Ok(cli) => return Ok(Parsed::Run(Box::new(cli))),
        Err(error) => error,
    };
    if matches!(error.kind, ErrorKind::HelpDisplayed | ErrorKind::VersionDisplayed) {
        return Ok(Parsed::Text(error.message));
    }
    let (path, help) = nearest_help::<T>(program, words);
    if words.len() == 1 {
        return Ok(Parsed::Text(help));
    }
    let culprit = error.info.as_ref().and_then(|info| info.first()).map(String::as_str).unwrap_or_default();
    let (kind, known) = match (culprit.starts_with('-'), commands(&help)) {
        (true, _) => ("flag", flags(&help)),
        (false, commands) if commands.is_empty() => ("argument", flags(&help)),
        (false, commands) => ("command", commands),
    };
    let unknown = matches!(
        error.kind,
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand | ErrorKind::UnrecognizedSubcommand
    );
    let cause = if unknown { format!("unknown {kind} `{culprit}`") } else { first_paragraph(&error.message) };
    let hint = match unknown.then(|| nearest(culprit, &known)).flatten() {
        Some(near) => format!("{near} (see {path} --help)"),
        None => format!("{path} --help"),
    };
    Err(UsageError { cause, hint })
}

/// The longest beginning of the words that is a command, and its help.
fn nearest_help<T: StructOpt>(program: &str, words: &[String]) -> (String, String) {
    let plain = words.iter().skip(1).take_while(|word| !word.starts_with('-')).count();
    for length in (0..=plain).rev() {
        let mut asked: Vec<&str> = words[..=length].iter().map(String::as_str).collect();
        asked[0] = program;
        let path = asked.join(" ");
        asked.push("--help");
        if let Err(error) = T::from_iter_safe(&asked) {
            // A positional argument also leads to a help text: that of the command before it.
            let deeper = length > 0 && !error.message.contains(words[length].as_str());
            if error.kind == ErrorKind::HelpDisplayed && !deeper {
                return (path, error.message);
            }
        }
    }
    (program.to_owned(), String::new())
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
pub fn nearest<'a, N: AsRef<str>>(word: &str, known: &'a [N]) -> Option<&'a str> {
    let slips = word.len().div_ceil(4);
    let distances = known.iter().map(|name| (strsim::damerau_levenshtein(word, name.as_ref()), name));
    distances
        .filter(|(distance, _)| *distance <= slips)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.as_ref())
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

    /// A daemon without subcommands.
    #[derive(StructOpt)]
    #[structopt(name = "exampled", rename_all = "kebab-case")]
    struct Flags {
        /// Where
        #[structopt(long)]
        data_dir: Option<String>,
        /// How many
        #[structopt(long)]
        slots: Option<u32>,
    }

    fn failure(line: &str) -> String {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match parse::<Flags>("exampled", &words) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("`{line}` must be refused"),
        }
    }

    #[test]
    fn each_mistake_is_one_line_with_the_nearest_flag() {
        assert_eq!(
            failure("exampled --data-dri x"),
            "unknown flag `--data-dri`; try: --data-dir (see exampled --help)"
        );
        assert_eq!(failure("/usr/bin/exampled --xyz"), "unknown flag `--xyz`; try: exampled --help");
        assert_eq!(failure("exampled start"), "unknown argument `start`; try: exampled --help");
        let line = failure("exampled --slots many");
        assert!(line.contains("--slots") && line.contains("digit") && !line.contains('\n'), "{line}");
        let line = failure("exampled --data-dir");
        assert!(line.contains("--data-dir") && line.ends_with("try: exampled --help"), "{line}");
    }

    #[test]
    fn no_words_are_enough_where_nothing_is_needed_and_help_is_no_error() {
        let run =
            |words: &[&str]| parse::<Flags>("exampled", &words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert!(
            matches!(run(&["exampled"]), Ok(Parsed::Run(flags)) if flags.data_dir.is_none() && flags.slots.is_none())
        );
        assert!(matches!(run(&["exampled", "--help"]), Ok(Parsed::Text(text)) if text.contains("--data-dir")));
    }
}
