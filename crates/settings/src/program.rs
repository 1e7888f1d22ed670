//! How a daemon begins: its words and its settings, or one line on standard error and the exit status of wrong usage.

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use structopt::StructOpt;

use crate::usage::{parse, Parsed, WRONG_USAGE};
use crate::{Key, Settings};

/// What a key's environment variable starts with.
pub const PREFIX: &str = "RAFTGRID_";

/// The command line of a daemon.
pub trait Program: StructOpt {
    /// As it is installed.
    const NAME: &'static str;
    /// Every setting it has.
    const KEYS: &'static [Key];
    /// --config.
    fn config(&self) -> Option<&Path>;
    /// --print-config.
    fn print_config(&self) -> bool;
    /// (key, value) of every flag that was given.
    fn flags(&self) -> Vec<(&'static str, Option<String>)>;
}

/// Reads command line, file and environment. Err: it is said why, or what was asked for was printed; end with this status.
pub fn open<P: Program>() -> Result<(P, Settings), ExitCode> {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let options = match parse::<P>(P::NAME, &words) {
        Ok(Parsed::Run(options)) => *options,
        Ok(Parsed::Text(text)) => {
            if !text.is_empty() {
                println!("{text}");
            }
            return Err(ExitCode::SUCCESS);
        }
        Err(error) => return Err(wrong_usage(P::NAME, error)),
    };
    // Variables that are no text are none of ours.
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let settings = Settings::load(P::KEYS, options.config(), PREFIX, environment, &options.flags());
    let settings = settings.map_err(|error| wrong_usage(P::NAME, error))?;
    if options.print_config() {
        print!("{}", settings.print());
        return Err(ExitCode::SUCCESS);
    }
    Ok((options, settings))
}

/// Says what is wrong with flags or settings; the status to end with.
pub fn wrong_usage(program: &str, error: impl Display) -> ExitCode {
    eprintln!("{program}: {error}");
    ExitCode::from(WRONG_USAGE)
}

/// Says why the program ends; the status to end with.
pub fn failed(program: &str, error: impl Display) -> ExitCode {
    eprintln!("{program}: {error}");
    ExitCode::FAILURE
}
