//! `gridctl job submit`: a job file, or flags, as a job; the scripts' folder travels with it.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use raftgrid_client::{Client, Upload};
use raftgrid_proto::v1::JobSpec;
use serde_json::json;

use crate::bundle::pack;
use crate::cli::JobSubmit;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::job;
use crate::job_file::{self, JobFile};
use crate::output::{Output, Progress};

pub(crate) fn run(context: &Context, args: &JobSubmit) -> Result<()> {
    // Before anything is connected: what is wrong with a file can be told without a cluster.
    let file = read(args)?;
    if file.schedule.is_some() {
        return Err(Failure::usage("the file has a section [schedule]", "gridctl schedule put FILE"));
    }
    let client = context.client()?;
    let mut spec = file.spec;
    add_bundle(&client, &file.scripts, &mut spec, context.output)?;
    let answer = client.submit_job(spec)?;
    let name = answer.get_job_id().to_owned();
    let known = if answer.get_existing() { " (it was there already)" } else { "" };
    let json = json!({"job": name, "existing": answer.get_existing(), "position": answer.get_position()});
    if args.wait {
        context.output.note(format_args!("job {name} submitted{known}"));
        return job::wait(context, &client, &name);
    }
    context.output.done(format!("job {name} submitted{known}"), &json);
    Ok(())
}

fn read(args: &JobSubmit) -> Result<JobFile> {
    let mut file = match (&args.file, &args.job_type) {
        (Some(_), Some(_)) => {
            return Err(Failure::usage("either a file or --type is given, not both", "gridctl job submit FILE.toml"))
        }
        (Some(_), None) if !args.words.is_empty() => {
            return Err(Failure::usage("words after -- are for --type", "--set command.argv='[\"program\"]'"))
        }
        (Some(path), None) => job_file::read(path, &args.settings)?,
        (None, Some(job_type)) => by_flags(job_type, &args.words, &args.settings)?,
        (None, None) => {
            let hint = "gridctl job submit FILE.toml, or --name N --type command -- PROGRAM";
            return Err(Failure::usage("there is nothing to submit", hint));
        }
    };
    if let Some(count) = args.array {
        file.spec.mut_array().count = count;
    }
    file.spec.name = args.name.clone().unwrap_or(file.spec.name);
    if file.spec.name.is_empty() {
        return Err(Failure::usage("the job has no name", "--name NAME, or name = \"NAME\" in the file"));
    }
    Ok(file)
}

/// The simple case, by the same reader as a file.
fn by_flags(job_type: &str, words: &[String], settings: &[String]) -> Result<JobFile> {
    let Some((first, rest)) = words.split_first() else {
        return Err(Failure::usage(format!("a job of type {job_type} needs words after --"), "-- PROGRAM ARGUMENTS"));
    };
    let mut table = toml::Table::new();
    table.insert("type".to_owned(), job_type.into());
    let mut section = toml::Table::new();
    if job_type == "command" {
        section.insert("argv".to_owned(), words.to_vec().into());
    } else {
        section.insert("script".to_owned(), first.clone().into());
        section.insert("args".to_owned(), rest.to_vec().into());
    }
    table.insert(job_type.to_owned(), section.into());
    job_file::parse(&table.to_string(), Path::new("."), settings)
}

/// Packs and uploads the folder of the scripts, if there are any.
pub(crate) fn add_bundle(client: &Client, scripts: &[PathBuf], spec: &mut JobSpec, output: Output) -> Result<()> {
    let Some(first) = scripts.first() else { return Ok(()) };
    let missing = scripts.iter().find(|script| !script.is_file());
    if let Some(script) = missing {
        let cause = format!("script {} does not exist", script.display());
        return Err(Failure::new(cause, "the path of a script, from the job file's folder"));
    }
    let bundle = pack(first)?;
    let upload = Upload { name: String::new(), kind: "bundle".to_owned(), ..Upload::default() };
    let progress = Progress::bytes("uploading", output);
    let stored = client.put_artifact(&upload, &mut Cursor::new(&bundle.tar), &mut |done, all| progress.set(done, all));
    progress.finish();
    spec.mut_task().set_bundle_artifact(stored?.get_artifact_id().to_owned());
    spec.set_bundle_digest(bundle.digest.to_vec());
    Ok(())
}
