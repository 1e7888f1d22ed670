//! One section of a job file, with the keys that it may have: every mistake is told with its place, and an unknown key with the nearest one.

use raftgrid_settings::usage::nearest;
use serde_json::Value as Json;
use toml::{Table, Value};

use crate::failure::{Failure, Result};

/// A table of the file.
pub(crate) struct Section<'a> {
    /// As it is written: `dag.build.task`; "" is the file itself.
    path: String,
    table: &'a Table,
}

impl<'a> Section<'a> {
    /// A table that has no other keys than `known`.
    pub(crate) fn new(path: &str, table: &'a Table, known: &[&str]) -> Result<Self> {
        let section = Self { path: path.to_owned(), table };
        let Some(stranger) = table.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(section) };
        let place = if path.is_empty() { "the file".to_owned() } else { format!("[{path}]") };
        let hint = match nearest(stranger, known) {
            Some(near) => format!("`{near}`"),
            None => format!("one of {}", known.join(", ")),
        };
        Err(Failure::usage(format!("{place} has no key `{stranger}`"), hint))
    }

    /// Where a key stands.
    pub(crate) fn place(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    pub(crate) fn wrong(&self, key: &str, why: impl std::fmt::Display, hint: &str) -> Failure {
        Failure::usage(format!("{} {why}", self.place(key)), hint)
    }

    fn not(&self, key: &str, wanted: &str, hint: &str) -> Failure {
        let kind = self.table.get(key).map_or("nothing", Value::type_str);
        self.wrong(key, format!("must be {wanted}, is {kind}"), hint)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a String> {
        self.table.keys()
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.not(key, "text", &format!("{key} = \"…\""))),
        }
    }

    /// One of a few words.
    pub(crate) fn word(&self, key: &str, words: &[&str]) -> Result<Option<&'a str>> {
        match self.text(key)? {
            Some(word) if !words.contains(&word) => {
                Err(self.wrong(key, format!("is `{word}`"), &format!("one of {}", words.join(", "))))
            }
            other => Ok(other),
        }
    }

    /// A whole number from 0 up to `most`.
    pub(crate) fn number(&self, key: &str, most: u64) -> Result<Option<u64>> {
        let hint = format!("{key} = N, 0 to {most}");
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::Integer(number)) => match u64::try_from(*number).ok().filter(|number| *number <= most) {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(key, format!("is {number}"), &hint)),
            },
            Some(_) => Err(self.not(key, "a whole number", &hint)),
        }
    }

    pub(crate) fn number_u32(&self, key: &str) -> Result<Option<u32>> {
        Ok(self.number(key, u64::from(u32::MAX))?.and_then(|number| u32::try_from(number).ok()))
    }

    /// A number from 0 up to `most`.
    pub(crate) fn real(&self, key: &str, most: f64) -> Result<Option<f64>> {
        let number = match self.table.get(key) {
            None => return Ok(None),
            Some(Value::Integer(number)) => *number as f64,
            Some(Value::Float(number)) => *number,
            Some(_) => return Err(self.not(key, "a number", &format!("{key} = 0.5"))),
        };
        if (0.0..=most).contains(&number) {
            return Ok(Some(number));
        }
        Err(self.wrong(key, format!("is {number}"), &format!("a number from 0 to {most}")))
    }

    pub(crate) fn flag(&self, key: &str) -> Result<bool> {
        match self.table.get(key) {
            None => Ok(false),
            Some(Value::Boolean(flag)) => Ok(*flag),
            Some(_) => Err(self.not(key, "true or false", &format!("{key} = true"))),
        }
    }

    /// Milliseconds of `"10m"`, `"1.5s"` or a number of seconds.
    pub(crate) fn duration_ms(&self, key: &str) -> Result<Option<u64>> {
        let hint = format!("{key} = \"90s\", \"10m\" or \"2h\"");
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::Integer(seconds)) => match u64::try_from(*seconds).ok().and_then(|s| s.checked_mul(1_000)) {
                Some(ms) => Ok(Some(ms)),
                None => Err(self.wrong(key, format!("is {seconds}"), &hint)),
            },
            Some(Value::String(text)) => match raftgrid_settings::parse_duration_ms(text) {
                Some(ms) => Ok(Some(ms)),
                None => Err(self.wrong(key, format!("is `{text}`, which is no time"), &hint)),
            },
            Some(_) => Err(self.not(key, "a time", &hint)),
        }
    }

    /// Bytes of `"512MiB"`, `"2GB"` or a number.
    pub(crate) fn bytes(&self, key: &str) -> Result<Option<u64>> {
        let hint = format!("{key} = \"512MiB\" or \"2GiB\"");
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::Integer(bytes)) => match u64::try_from(*bytes) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(_) => Err(self.wrong(key, format!("is {bytes}"), &hint)),
            },
            Some(Value::String(text)) => match bytes_of(text) {
                Some(bytes) => Ok(Some(bytes)),
                None => Err(self.wrong(key, format!("is `{text}`, which is no size"), &hint)),
            },
            Some(_) => Err(self.not(key, "a size", &hint)),
        }
    }

    /// A list; none is empty.
    pub(crate) fn list(&self, key: &str) -> Result<&'a [Value]> {
        match self.table.get(key) {
            None => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err(self.not(key, "a list", &format!("{key} = […]"))),
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>> {
        let text = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            other => Err(self.wrong(key, format!("must hold text, holds {}", other.type_str()), "[\"…\", \"…\"]")),
        };
        self.list(key)?.iter().map(text).collect()
    }

    /// A table within; None if it is not there.
    pub(crate) fn table(&self, key: &str) -> Result<Option<&'a Table>> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::Table(table)) => Ok(Some(table)),
            Some(_) => Err(self.not(key, "a section", &format!("[{}]", self.place(key)))),
        }
    }

    pub(crate) fn section(&self, key: &str, known: &[&str]) -> Result<Option<Section<'a>>> {
        match self.table(key)? {
            None => Ok(None),
            Some(table) => Section::new(&self.place(key), table, known).map(Some),
        }
    }

    /// Names and texts; numbers and flags are taken as text.
    pub(crate) fn pairs(&self, key: &str) -> Result<Vec<(String, String)>> {
        let Some(table) = self.table(key)? else { return Ok(Vec::new()) };
        let pair = |(name, value): (&String, &Value)| match value {
            Value::String(text) => Ok((name.clone(), text.clone())),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Ok((name.clone(), value.to_string())),
            other => {
                let place = format!("{key}.{name}");
                Err(self.wrong(&place, format!("must be text, is {}", other.type_str()), "NAME = \"…\""))
            }
        };
        table.iter().map(pair).collect()
    }

    /// Any value as JSON.
    pub(crate) fn json(&self, key: &str) -> Result<Option<Json>> {
        self.table
            .get(key)
            .map(|value| json(value).map_err(|why| self.wrong(key, why, "JSON's kinds of values")))
            .transpose()
    }
}

/// A value of the file as JSON; dates become text.
pub(crate) fn json(value: &Value) -> std::result::Result<Json, String> {
    Ok(match value {
        Value::String(text) => Json::from(text.as_str()),
        Value::Integer(number) => Json::from(*number),
        Value::Float(number) if number.is_finite() => Json::from(*number),
        Value::Float(number) => return Err(format!("has {number}, which JSON does not know")),
        Value::Boolean(flag) => Json::from(*flag),
        Value::Datetime(date) => Json::from(date.to_string()),
        Value::Array(list) => Json::Array(list.iter().map(json).collect::<std::result::Result<_, _>>()?),
        Value::Table(table) => {
            let pairs = table.iter().map(|(key, value)| Ok((key.clone(), json(value)?)));
            Json::Object(pairs.collect::<std::result::Result<_, String>>()?)
        }
    })
}

fn bytes_of(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number: f64 = text[..split].parse().ok()?;
    let unit = match text[split..].trim() {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "TiB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = number * unit;
    (bytes < 9e15).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes_of("512MiB"), Some(512 << 20));
        assert_eq!(bytes_of("1.5 GB"), Some(1_500_000_000));
        assert_eq!(bytes_of("7"), Some(7));
        for wrong in ["", "-1", "2 parsecs", "1e3", "999999999TiB"] {
            assert_eq!(bytes_of(wrong), None, "{wrong}");
        }
    }
}
