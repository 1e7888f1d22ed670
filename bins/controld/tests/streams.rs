//! Clients that leave a stream of the server midway, many more of them than may be open at once: nothing of them stays behind.

mod harness;

use std::io::Cursor;
use std::time::Duration;

use futures::executor::block_on;
use futures::TryStreamExt;
use harness::{wait_for, Cluster};
use protobuf::Message;
use raftgrid_client::{Client, ClientError, Upload};
use raftgrid_proto::v1::*;
use raftgrid_rpc::grpcio::{CallOption, Client as Stub};
use raftgrid_rpc::methods::{Rpc, GET_ARTIFACT, GET_MODEL, STREAM_LOGS, WATCH_JOB, WATCH_TASK};

/// Downloads that a replica serves at once are 256, watches 4,096 (api's limits).
const DOWNLOADS: usize = 300;
const WATCHES: usize = 4_200;
/// Streams that are open together before they are left.
const TOGETHER: usize = 60;
/// Bytes of the model: many chunks of 1 MiB, more than flow control lets out unread.
const MODEL_BYTES: usize = 24 << 20;

/// Opens streams, takes the first message of each (if `first`) and leaves.
fn leave<Req: Message, Resp: Message + Unpin>(
    stub: &Stub,
    rpc: &Rpc<Req, Resp>,
    request: &Req,
    count: usize,
    first: bool,
) {
    let mut left = 0;
    while left < count {
        let option = || CallOption::default().timeout(Duration::from_secs(60));
        let mut open: Vec<_> = (0..TOGETHER.min(count - left))
            .map(|_| stub.server_streaming(&rpc.method, request, option()).expect("a call can be made"))
            .collect();
        for stream in &mut open {
            if first {
                // Refused for a moment, perhaps: those that left are noticed one after another.
                let _ = block_on(stream.try_next());
            }
        }
        left += open.len();
    }
}

/// A safetensors file with one vector of zeros.
fn model() -> Vec<u8> {
    let header = format!(r#"{{"w":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{MODEL_BYTES}]}}}}"#, MODEL_BYTES / 4);
    let padded = header.len().div_ceil(8) * 8;
    let mut file = (padded as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(8 + padded + MODEL_BYTES, b' ');
    file[8 + padded..].fill(0);
    file
}

fn submit(client: &Client, model: &PutArtifactResponse) {
    let mut train = TrainSpec::new();
    train.set_shards(1);
    train.set_workers(1);
    train.set_rounds(2);
    train.set_initial_model(model.artifact_id.clone());
    train.mut_optimizer().set_algorithm("sgd".to_owned());
    train.mut_optimizer().set_learning_rate(0.5);
    let mut spec = JobSpec::new();
    spec.set_name("left".to_owned());
    spec.set_field_type("train".to_owned());
    spec.set_train(train);
    spec.set_task_data(br#"{"script":"none.py","args":[]}"#.to_vec());
    client.submit_job(spec).expect("the job is accepted");
}

#[test]
fn clients_that_leave_a_stream_midway_leave_nothing_behind() {
    let mut cluster = Cluster::start(1, &[]);
    let client = cluster.client();
    let upload = Upload { name: String::new(), kind: "model".to_owned(), ..Upload::default() };
    let stored = client.put_artifact(&upload, &mut Cursor::new(model()), &mut |_, _| ()).expect("stored");
    submit(&client, &stored);
    let env = raftgrid_rpc::environment("leaver");
    let stub = Stub::new(raftgrid_rpc::bulk_channel(&env, &cluster.replicas[0].client));

    let mut artifact = GetArtifactRequest::new();
    artifact.set_artifact(stored.artifact_id.clone());
    leave(&stub, &GET_ARTIFACT, &artifact, DOWNLOADS, true);
    let mut of_job = ModelRequest::new();
    of_job.set_job_id("left".to_owned());
    leave(&stub, &GET_MODEL, &of_job, DOWNLOADS, true);
    let mut watch = WatchJobRequest::new();
    watch.set_job_id("left".to_owned());
    leave(&stub, &WATCH_JOB, &watch, WATCHES, true);
    let mut watch = WatchTaskRequest::new();
    watch.set_task_id("left/trainer-0".to_owned());
    leave(&stub, &WATCH_TASK, &watch, WATCHES, true);
    let mut logs = StreamLogsRequest::new();
    logs.set_task_id("left/trainer-0".to_owned());
    logs.set_follow(true);
    leave(&stub, &STREAM_LOGS, &logs, WATCHES, false);

    // Each of these needs a place that somebody who left had.
    let busy = |error: &ClientError| matches!(error, ClientError::Exhausted(_));
    wait_for("a whole download", || {
        let mut bytes = Vec::new();
        match client.get_artifact(&stored.artifact_id, &mut bytes, &mut |_, _| ()) {
            Ok(head) => {
                assert_eq!((head.total_bytes as usize, bytes.len()), (bytes.len(), model().len()));
                Some(())
            }
            Err(error) => (!busy(&error)).then(|| panic!("{error}")),
        }
    });
    wait_for("a watch", || client.watch_job("left", 0).next()?.ok());
    wait_for("the end of the logs that were left", || {
        let mut whole = logs.clone();
        whole.set_follow(false);
        let option = CallOption::default().timeout(Duration::from_secs(10));
        let mut stream = stub.server_streaming(&STREAM_LOGS.method, &whole, option).ok()?;
        block_on(stream.try_next()).is_ok().then_some(())
    });
    // It is the same process, and it does its work.
    assert!(cluster.replicas[0].process.as_mut().is_some_and(|process| process.exited().is_none()));
    cluster.start_worker("worker-1");
    let task = ["task", "submit", "--type", "command", "--data", r#"{"argv":["true"]}"#, "--wait"];
    let (code, out, errors) = cluster.gridctl(&task);
    assert_eq!(code, 0, "{out}{errors}");
}
