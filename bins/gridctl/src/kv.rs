//! `gridctl kv`: replicated keys.

use std::io::Read;

use raftgrid_proto::v1::KeyValue;
use serde_json::{json, Value};

use crate::cli::Kv;
use crate::context::{exit_on_interrupt, Context};
use crate::failure::{Failure, Result};
use crate::output::line;

pub(crate) fn run(context: &Context, command: Kv) -> Result<()> {
    exit_on_interrupt();
    let client = context.client()?;
    match command {
        Kv::Put { key, value, job } => {
            let revision = client.kv_put(&key, &given(&value)?, &job.unwrap_or_default())?;
            context
                .output
                .done(format!("key {key} has revision {revision}"), &json!({"key": key, "revision": revision}));
        }
        Kv::Get { key } => {
            let (value, revision) = client.kv_get(&key)?.ok_or_else(|| absent(&key))?;
            show(context, &key, &value, revision);
        }
        Kv::Del { key } => {
            if !client.kv_delete(&key)? {
                return Err(absent(&key));
            }
            context.output.done(format!("key {key} is deleted"), &json!({"key": key, "deleted": true}));
        }
        Kv::Cas { key, expected, value } => {
            let answer = client.kv_compare_and_set(&key, expected, &given(&value)?)?;
            if !answer.get_swapped() {
                let has = match answer.get_found() {
                    true => format!("it has revision {}", answer.get_revision()),
                    false => "it does not exist".to_owned(),
                };
                let next = format!("gridctl kv get {key}, then its revision in the place of {expected}");
                return Err(Failure::new(format!("key {key} is not at revision {expected}: {has}"), next));
            }
            let revision = answer.get_revision();
            context
                .output
                .done(format!("key {key} has revision {revision}"), &json!({"key": key, "revision": revision}));
        }
        Kv::Watch { key } => {
            client.kv_watch(&key, context.global.timeout, &mut |change| {
                match change.get_deleted() {
                    true if context.output.is_json() => {
                        line(json!({"key": key, "deleted": true, "revision": change.get_revision()}));
                    }
                    true => line(format_args!("key {key} is deleted")),
                    false => show(context, &key, change.get_data(), change.get_revision()),
                }
                true
            })?;
        }
        Kv::Ls { prefix } => {
            let keys = client.kv_list(&prefix)?;
            let json = Value::Array(keys.iter().map(key_json).collect());
            context.output.show(&["key", "bytes", "revision", "job"], keys.iter().map(row).collect(), &json);
        }
    }
    Ok(())
}

fn absent(key: &str) -> Failure {
    Failure::new(format!("key {key} does not exist"), "gridctl kv ls")
}

/// A value of the command line, the file that it names, or standard input.
fn given(value: &str) -> Result<Vec<u8>> {
    match value.strip_prefix('@') {
        None => Ok(value.as_bytes().to_vec()),
        Some("-") => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            read.map_err(|error| Failure::usage(format!("failed to read standard input: {error}"), "@FILE"))?;
            Ok(bytes)
        }
        Some(path) => std::fs::read(path)
            .map_err(|error| Failure::usage(format!("failed to read {path}: {error}"), "a file that can be read")),
    }
}

fn show(context: &Context, key: &str, value: &[u8], revision: u64) {
    let text = String::from_utf8_lossy(value);
    if context.output.is_json() {
        line(json!({"key": key, "value": text, "bytes": value.len(), "revision": revision}));
    } else {
        line(text);
    }
}

fn row(key: &KeyValue) -> Vec<String> {
    let numbers = [key.get_bytes().to_string(), key.get_revision().to_string()];
    let [bytes, revision] = numbers;
    vec![key.get_key().to_owned(), bytes, revision, key.get_job_id().to_owned()]
}

fn key_json(key: &KeyValue) -> Value {
    json!({"key": key.get_key(), "bytes": key.get_bytes(), "revision": key.get_revision(), "job": key.get_job_id()})
}
