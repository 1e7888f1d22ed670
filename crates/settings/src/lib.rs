//! Settings of a program: a file (TOML, or JSON by its ending), then the environment, then flags; the later wins. Every value knows where it
//! came from, and a key that nobody knows is an error that names the nearest one.
//!
//! Called by the binaries only. It reads one file and the environment that it is given; it decides nothing about what the values mean.

pub mod founding;
pub mod program;
pub mod usage;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::str::FromStr;

/// How unlike two keys may be for one to be suggested for the other: 1 is equal, 0 has nothing in common.
const SUGGESTION_MIN: f64 = 0.6;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The program's own.
    Default,
    /// A file.
    File(String),
    /// An environment variable.
    Environment(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => out.write_str("default"),
            Source::File(path) => write!(out, "file {path}"),
            Source::Environment(name) => write!(out, "environment {name}"),
            Source::Flag => out.write_str("flag"),
        }
    }
}

/// A setting that the program has.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name, dotted where the file nests: `raft.election_timeout_ms`.
    pub name: &'static str,
    /// Its value when nobody gives one; "" for none.
    pub default: &'static str,
    /// Other names of the same key in files that existing clusters have.
    pub aliases: &'static [&'static str],
}

/// What is wrong with settings. Each is one line: the cause and the next step.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("failed to read {path}: {cause}; check the path given to --config")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// The file is not what its ending says.
    #[error("failed to parse {path}: {cause}")]
    Unparsable {
        /// The file.
        path: String,
        /// Where and why, on one line.
        cause: String,
    },
    /// Nobody knows this key.
    #[error("failed to use {path}: unknown key `{key}`{hint}")]
    UnknownKey {
        /// The file.
        path: String,
        /// The key.
        key: String,
        /// "; did you mean …" or "; known keys are …".
        hint: String,
    },
    /// The value is not of the key's kind.
    #[error("failed to use `{key}` = `{value}` ({origin}): {cause}")]
    BadValue {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// Where it came from.
        origin: String,
        /// Why.
        cause: String,
    },
    /// Needed, and nobody gave it.
    #[error("failed to start: `{key}` is not set; give --{flag} or put `{key}` into the file of --config")]
    Missing {
        /// The key.
        key: String,
        /// The flag for it.
        flag: String,
    },
}

#[derive(Clone, Debug)]
struct Value {
    text: String,
    source: Source,
    /// The name by which the file has it: the key's, or one of its aliases.
    name: String,
}

impl Value {
    fn new(name: &str, text: impl Into<String>, source: Source) -> Self {
        Self { text: text.into(), source, name: name.to_owned() }
    }
}

/// The settings in force.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<&'static str, Value>,
}

impl Settings {
    /// Loads the layers. `environment` gives (name, value) pairs; a key's variable is `prefix` + its name in capitals with `_` for `.`.
    /// `flags` are (key, value) as given on the command line.
    pub fn load(
        keys: &'static [Key],
        file: Option<&Path>,
        prefix: &str,
        environment: impl Iterator<Item = (String, String)>,
        flags: &[(&'static str, Option<String>)],
    ) -> Result<Self, SettingsError> {
        let mut values = BTreeMap::new();
        for key in keys.iter().filter(|key| !key.default.is_empty()) {
            values.insert(key.name, Value::new(key.name, key.default, Source::Default));
        }
        if let Some(path) = file {
            for (name, value) in read_file(path)? {
                let key = find(keys, &name).ok_or_else(|| unknown(path, &name, keys))?;
                values.insert(key.name, Value::new(&name, value, Source::File(path.display().to_string())));
            }
        }
        for (name, value) in environment {
            // An empty variable counts as none: that is how a shell unsets one for a single command.
            let Some(rest) = name.strip_prefix(prefix).filter(|_| !value.is_empty()) else { continue };
            let wanted = rest.to_lowercase();
            if let Some(key) = keys.iter().find(|key| key.name.replace(['.', '-'], "_") == wanted) {
                values.insert(key.name, Value::new(key.name, value, Source::Environment(name)));
            }
        }
        for (name, value) in flags {
            let key = find(keys, name).expect("flags are named by keys of this program");
            if let Some(value) = value {
                values.insert(key.name, Value::new(key.name, value, Source::Flag));
            }
        }
        Ok(Self { values })
    }

    /// The value as text, if there is one.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|value| value.text.as_str())
    }

    /// Whether somebody gave it: a file, the environment or a flag.
    pub fn given(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|value| value.source != Source::Default)
    }

    /// The value, parsed.
    pub fn parse<T: FromStr>(&self, key: &str) -> Result<Option<T>, SettingsError>
    where
        T::Err: fmt::Display,
    {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.parse().map(Some).map_err(|cause: T::Err| self.bad(key, cause))
    }

    /// The value, parsed; `flag` is named if there is none.
    pub fn need<T: FromStr>(&self, key: &str, flag: &str) -> Result<T, SettingsError>
    where
        T::Err: fmt::Display,
    {
        self.parse(key)?.ok_or_else(|| SettingsError::Missing { key: key.to_owned(), flag: flag.to_owned() })
    }

    /// A duration in milliseconds: a plain number of them, or `1.5s`, `250ms`, `2m`.
    pub fn duration_ms(&self, key: &str) -> Result<Option<u64>, SettingsError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        parse_duration_ms(value).map(Some).ok_or_else(|| self.bad(key, "a duration is like 250ms, 1.5s or 2m"))
    }

    /// The error that says why this key's value cannot be used; the key is named as its file names it.
    pub fn bad(&self, key: &str, cause: impl fmt::Display) -> SettingsError {
        let (key, value, origin) = match self.values.get(key) {
            Some(value) => (value.name.clone(), value.text.clone(), value.source.to_string()),
            None => (key.to_owned(), String::new(), "not set".to_owned()),
        };
        SettingsError::BadValue { key, value, origin, cause: cause.to_string() }
    }

    /// Every value with its source, for `--print-config`.
    pub fn print(&self) -> String {
        let mut out = String::new();
        for (key, Value { text, source, .. }) in &self.values {
            writeln!(out, "{key} = {text:?}  # {source}").expect("a string takes every line");
        }
        out
    }
}

/// Milliseconds of `250`, `250ms`, `1.5s` or `2m`.
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number: f64 = text[..split].parse().ok()?;
    let unit = match text[split..].trim() {
        "" | "ms" => 1.0,
        "s" => 1_000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        _ => return None,
    };
    let milliseconds = number * unit;
    // Every duration that a program waits for is far below 2^53 ms.
    (milliseconds.is_finite() && milliseconds < 9e15).then_some(milliseconds as u64)
}

fn find(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    keys.iter().find(|key| key.name == name || key.aliases.contains(&name))
}

fn unknown(path: &Path, name: &str, keys: &[Key]) -> SettingsError {
    let nearest = keys
        .iter()
        .map(|key| (strsim::jaro_winkler(key.name, name), key.name))
        .filter(|(likeness, _)| *likeness >= SUGGESTION_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match nearest {
        Some((_, nearest)) => format!("; did you mean `{nearest}`?"),
        None => format!("; known keys are {}", keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")),
    };
    SettingsError::UnknownKey { path: path.display().to_string(), key: name.to_owned(), hint }
}

fn read_file(path: &Path) -> Result<Vec<(String, String)>, SettingsError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| SettingsError::Unreadable { path: shown.clone(), cause: error.to_string() })?;
    let unparsable = |cause: String| SettingsError::Unparsable {
        path: shown.clone(),
        cause: cause.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    let value: serde_json::Value = if path.extension().is_some_and(|ending| ending == "json") {
        serde_json::from_str(&text).map_err(|error| unparsable(error.to_string()))?
    } else {
        let table: toml::Table = toml::from_str(&text).map_err(|error| unparsable(error.to_string()))?;
        serde_json::to_value(table).map_err(|error| unparsable(error.to_string()))?
    };
    let mut flat = Vec::new();
    flatten("", &value, &mut flat);
    Ok(flat)
}

fn flatten(prefix: &str, value: &serde_json::Value, flat: &mut Vec<(String, String)>) {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&key, value, flat);
            }
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            flat.push((prefix.to_owned(), items.join(",")));
        }
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) => flat.push((prefix.to_owned(), plain(value))),
    }
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &[Key] = &[
        Key { name: "node_id", default: "", aliases: &[] },
        Key { name: "preset", default: "lan", aliases: &[] },
        Key { name: "raft.election_timeout", default: "1s", aliases: &[] },
        Key { name: "peers", default: "", aliases: &[] },
    ];

    fn file(name: &str, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn the_later_layer_wins_and_every_value_names_its_source() {
        let (_folder, path) = file("a.toml", "node_id = 3\npeers = ['a', 'b']\n[raft]\nelection_timeout = '2s'\n");
        let environment =
            [("RAFTGRID_PRESET".to_owned(), "wan".to_owned()), ("RAFTGRID_NODE_ID".to_owned(), "4".to_owned())];
        let flags = [("node_id", Some("5".to_owned())), ("preset", None)];
        let settings = Settings::load(KEYS, Some(&path), "RAFTGRID_", environment.into_iter(), &flags).unwrap();
        assert_eq!(settings.need::<u64>("node_id", "node-id"), Ok(5));
        assert_eq!(settings.get("preset"), Some("wan"));
        assert_eq!(settings.get("peers"), Some("a,b"));
        assert_eq!(settings.duration_ms("raft.election_timeout"), Ok(Some(2_000)));
        let printed = settings.print();
        assert!(printed.contains("node_id = \"5\"  # flag"), "{printed}");
        assert!(printed.contains("preset = \"wan\"  # environment RAFTGRID_PRESET"), "{printed}");
        assert!(printed.contains("a.toml"), "{printed}");
    }

    #[test]
    fn an_empty_variable_counts_as_unset_and_a_default_as_not_given() {
        let environment = [("X_PRESET".to_owned(), String::new()), ("X_NODE_ID".to_owned(), "4".to_owned())];
        let settings = Settings::load(KEYS, None, "X_", environment.into_iter(), &[]).unwrap();
        assert_eq!(settings.get("preset"), Some("lan"));
        assert!(settings.given("node_id") && !settings.given("preset") && !settings.given("peers"));
    }

    #[test]
    fn a_value_that_cannot_be_used_is_named_as_its_file_names_it() {
        const OLD: &[Key] = &[Key { name: "raft_addr", default: "", aliases: &["bind_address"] }];
        let (_folder, path) = file("a.json", r#"{"bind_address": "here"}"#);
        let settings = Settings::load(OLD, Some(&path), "X_", std::iter::empty(), &[]).unwrap();
        let error = settings.bad("raft_addr", "no").to_string();
        assert!(error.contains("`bind_address` = `here`") && error.contains("a.json"), "{error}");
    }

    #[test]
    fn an_unknown_key_names_the_nearest_one() {
        let (_folder, path) = file("a.json", r#"{"node_idd": 1}"#);
        let error = Settings::load(KEYS, Some(&path), "X_", std::iter::empty(), &[]).unwrap_err();
        assert!(error.to_string().contains("unknown key `node_idd`; did you mean `node_id`?"), "{error}");
    }

    #[test]
    fn a_broken_file_or_value_is_one_line() {
        let (_folder, path) = file("a.toml", "node_id = \n");
        let error = Settings::load(KEYS, Some(&path), "X_", std::iter::empty(), &[]).unwrap_err().to_string();
        assert!(error.starts_with("failed to parse") && !error.contains('\n'), "{error}");
        let flags = [("node_id", Some("x".to_owned()))];
        let settings = Settings::load(KEYS, None, "X_", std::iter::empty(), &flags).unwrap();
        let error = settings.need::<u64>("node_id", "node-id").unwrap_err().to_string();
        assert!(error.contains("`node_id` = `x` (flag)"), "{error}");
        let empty = Settings::load(KEYS, None, "X_", std::iter::empty(), &[]).unwrap();
        assert!(empty.need::<u64>("node_id", "node-id").unwrap_err().to_string().contains("--node-id"));
    }

    #[test]
    fn durations_have_units() {
        for (text, expected) in [
            ("250", Some(250)),
            ("250ms", Some(250)),
            ("1.5s", Some(1_500)),
            ("2m", Some(120_000)),
            ("2x", None),
            ("", None),
        ] {
            assert_eq!(parse_duration_ms(text), expected, "{text}");
        }
    }
}
