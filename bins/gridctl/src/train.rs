//! `gridctl train`: a script and its folder become a bundle, the bundle a job.

use std::io::Cursor;
use std::time::Instant;

use raftgrid_client::{Client, Upload};
use raftgrid_proto::v1::{JobSpec, TrainSpec};
use serde_json::json;

use crate::bundle::{pack, Bundle};
use crate::cli::Train;
use crate::context::{exit_on_interrupt, Context};
use crate::failure::{Failure, Result};
use crate::limits::TASK_DATA_BYTES_MAX;
use crate::output::{hex, Output, Progress};
use crate::round_rules::put_rules;
use crate::rounds;

/// A job that was handed in.
pub(crate) struct Submitted {
    pub(crate) job_id: String,
    pub(crate) at: Instant,
    pub(crate) bundle: Bundle,
    pub(crate) existing: bool,
}

pub(crate) fn run(context: &Context, args: &Train) -> Result<()> {
    exit_on_interrupt();
    check(args)?;
    let client = context.client()?;
    let submitted = submit(&client, args, context.output)?;
    let name = submitted.job_id.as_str();
    let known = if submitted.existing { " (it was there already)" } else { "" };
    let sentence = format!(
        "job {name} submitted{known}: {} files, {} bytes, bundle {}",
        submitted.bundle.files,
        submitted.bundle.tar.len(),
        &hex(&submitted.bundle.digest)[..16],
    );
    let json = json!({
        "job": name, "existing": submitted.existing, "bundle_sha256": hex(&submitted.bundle.digest),
        "bundle_bytes": submitted.bundle.tar.len(), "bundle_files": submitted.bundle.files,
    });
    context.output.done(sentence, &json);
    if !args.watch {
        context.output.note(format_args!("follow it with: gridctl job watch {name}"));
        return Ok(());
    }
    rounds::verdict(&rounds::follow(context, &client, name, true)?)
}

/// What can be known to be wrong without the cluster.
pub(crate) fn check(args: &Train) -> Result<()> {
    let wrong = |what: &str, hint: &str| Err(Failure::usage(what.to_owned(), hint.to_owned()));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if args.name.is_empty() || args.name.len() > 100 || !args.name.chars().all(plain) {
        return wrong(
            "the name of a job is 1 to 100 of the characters a-z, A-Z, 0-9, `-`, `_` and `.`",
            "--name digits-1",
        );
    }
    if args.shards == 0 || args.workers == 0 || args.rounds == 0 {
        return wrong("--shards, --workers and --rounds must be at least 1", "--shards 6 --workers 3 --rounds 60");
    }
    if args.quorum.is_some_and(|quorum| quorum == 0 || quorum > args.shards) {
        return wrong("--quorum must be between 1 and the number of shards", "leaving --quorum out: all shards");
    }
    put_rules(&args.rules, args.quorum.unwrap_or(args.shards), &mut TrainSpec::new())?;
    if !(0.0..=1.0).contains(&args.verify) {
        return wrong("--verify is a share between 0 and 1", "--verify 0.01");
    }
    Ok(())
}

/// Packs, uploads, submits.
pub(crate) fn submit(client: &Client, args: &Train, output: Output) -> Result<Submitted> {
    let bundle = pack(&args.script)?;
    let task_data = json!({"script": bundle.script, "args": args.args}).to_string().into_bytes();
    if task_data.len() > TASK_DATA_BYTES_MAX {
        let cause = format!("the script's arguments are longer than {} KiB", TASK_DATA_BYTES_MAX >> 10);
        return Err(Failure::usage(cause, "a file beside the script"));
    }
    let upload = Upload { name: String::new(), kind: "bundle".to_owned(), ..Upload::default() };
    let progress = Progress::bytes("uploading", output);
    let stored = client.put_artifact(&upload, &mut Cursor::new(&bundle.tar), &mut |done, all| progress.set(done, all));
    progress.finish();
    let stored = stored?;
    let mut train = TrainSpec::new();
    train.set_shards(args.shards);
    train.set_workers(args.workers);
    train.set_rounds(args.rounds);
    train.set_quorum(args.quorum.unwrap_or(0));
    train.set_seed(args.seed);
    train.set_verify(args.verify);
    put_rules(&args.rules, args.quorum.unwrap_or(args.shards), &mut train)?;
    let mut spec = JobSpec::new();
    spec.set_name(args.name.clone());
    spec.set_field_type("train".to_owned());
    spec.set_task_data(task_data);
    spec.mut_task().set_bundle_artifact(stored.get_artifact_id().to_owned());
    spec.set_train(train);
    spec.set_bundle_digest(bundle.digest.to_vec());
    let at = Instant::now();
    let answer = client.submit_job(spec)?;
    Ok(Submitted { job_id: answer.get_job_id().to_owned(), at, bundle, existing: answer.get_existing() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use structopt::StructOpt;

    fn args(more: &str) -> Train {
        let line = format!("gridctl train a.py {more}");
        match Cli::from_iter_safe(line.split_whitespace()).expect("it is well formed").command {
            Command::Train(train) => train,
            _ => panic!("it is train"),
        }
    }

    #[test]
    fn numbers_that_make_no_job_are_wrong_usage() {
        let good = "--name digits --shards 6 --workers 3 --rounds 60";
        assert!(check(&args(good)).is_ok());
        for (wrong, named) in [
            ("--name digits --shards 0 --workers 3 --rounds 60", "--shards"),
            ("--name digits --shards 6 --workers 3 --rounds 60 --quorum 7", "--quorum"),
            ("--name digits --shards 6 --workers 3 --rounds 60 --verify 1.5", "--verify"),
            (
                "--name digits --shards 6 --workers 3 --rounds 60 --min-contributions 7 --round-deadline 10s",
                "--min-contributions",
            ),
            ("--name digits --shards 6 --workers 3 --rounds 60 --min-contributions 4", "--round-deadline"),
            ("--name digits --shards 6 --workers 3 --rounds 60 --round-deadline soon", "--round-deadline"),
            ("--name digits --shards 6 --workers 3 --rounds 60 --mode bounded", "--staleness"),
            ("--name digits --shards 6 --workers 3 --rounds 60 --staleness 2", "--mode"),
            ("--name a/b --shards 6 --workers 3 --rounds 60", "name"),
        ] {
            let failure = check(&args(wrong)).unwrap_err();
            assert_eq!(failure.status() as i32, 2, "{wrong}");
            assert!(failure.to_string().contains(named), "{failure}");
        }
    }
}
