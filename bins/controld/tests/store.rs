//! The store as people use it: versions of names, budgets of bytes, values beside the log.

mod harness;

use std::path::PathBuf;
use std::time::Duration;

use harness::{wait_for, Cluster};
use raftgrid_client::{Client, ClientConfig, ClientError};
use serde_json::Value;

/// A cluster whose state is at the newest version.
fn started(count: u64, flags: &[&str]) -> Cluster {
    let cluster = Cluster::start(count, flags);
    wait_for("the newest machine version", || {
        let states: Vec<_> = (0..count as usize).filter_map(|at| cluster.state(at)).collect();
        let all = states.len() == count as usize && states.iter().all(|state| state.machine_version >= 6);
        all.then_some(())
    });
    cluster
}

fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 70_001 + seed * 7) as u8).collect()
}

/// A file beside the cluster's data.
fn file(cluster: &Cluster, name: &str, content: &[u8]) -> String {
    let path: PathBuf = cluster.data_dir(0).parent().expect("below the cluster's folder").join(name);
    std::fs::write(&path, content).expect("writable");
    path.to_str().expect("UTF-8").to_owned()
}

fn ok(cluster: &Cluster, line: &[&str]) -> String {
    let (code, out, errors) = cluster.gridctl(line);
    assert_eq!(code, 0, "{line:?}: {errors}");
    out
}

fn refused(cluster: &Cluster, line: &[&str]) -> String {
    let (code, out, errors) = cluster.gridctl(line);
    assert_eq!(code, 1, "{line:?} was taken: {out}");
    errors
}

fn json(cluster: &Cluster, line: &[&str]) -> Value {
    serde_json::from_str(&ok(cluster, &[line, &["--output", "json"]].concat())).expect("JSON")
}

#[test]
fn a_name_has_versions_from_the_command_line_to_the_disks() {
    let cluster = started(3, &[]);
    let (one, two) = (file(&cluster, "one", &bytes(200_000, 1)), file(&cluster, "two", &bytes(1_000, 2)));
    assert!(ok(&cluster, &["artifact", "push", &one, "net"]).contains("net@1"));
    assert!(ok(&cluster, &["artifact", "push", &two, "net"]).contains("net@2"));
    let again = ok(&cluster, &["artifact", "push", &two, "--name", "net"]);
    assert!(again.contains("net@2 (it was there)"), "{again}");
    let target = file(&cluster, "target", b"");
    for (artifact, source) in [("net@1", &one), ("net", &two), ("net@latest", &two), ("net@2", &two)] {
        ok(&cluster, &["artifact", "get", artifact, "-o", &target]);
        assert!(std::fs::read(&target).expect("readable") == std::fs::read(source).expect("readable"), "{artifact}");
    }
    assert!(ok(&cluster, &["artifact", "push", "--from", "net@1", "best"]).contains("best@1"));
    let names = |name: &str| {
        let list = json(&cluster, &["artifact", "ls", name]);
        let names =
            list.as_array().expect("a list").iter().map(|it| it["names"][0].as_str().expect("a name").to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names("net"), ["net@1", "net@2"]);
    let errors = refused(&cluster, &["artifact", "rm", "net"]);
    assert!(errors.contains("net has 2 versions"), "{errors}");
    ok(&cluster, &["artifact", "rm", "net@1"]);
    ok(&cluster, &["artifact", "get", "best", "-o", &target]);
    assert!(std::fs::read(&target).expect("readable") == bytes(200_000, 1), "its other name holds it");
    assert!(ok(&cluster, &["artifact", "push", &one, "net", "--keep", "1"]).contains("net@3"));
    assert_eq!(names("net"), ["net@3"]);
    ok(&cluster, &["artifact", "rm", "net", "best", "--all"]);
    assert!(refused(&cluster, &["artifact", "ls", "net"]).contains("nothing is called net"));
    wait_for("the disks are empty", || {
        let blobs = |at| std::fs::read_dir(cluster.data_dir(at).join("blobs")).expect("it is there").flatten();
        let left =
            (0..3).flat_map(blobs).filter(|it| it.file_name().to_str().is_some_and(|it| it.parse::<u64>().is_ok()));
        (left.count() == 0).then_some(())
    });
}

#[test]
fn what_is_beyond_a_budget_is_refused_before_it_is_begun_and_deleting_makes_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("controld.toml");
    std::fs::write(&config, "[blob]\nbytes_max = 1000000\nprincipal_bytes_max = 4000000\n").expect("writable");
    let cluster = started(3, &["--config", config.to_str().expect("UTF-8")]);
    let usage = |of: &str| {
        let list = json(&cluster, &["artifact", "ls", "--usage"]);
        let rows = list.as_array().expect("a list").iter();
        let mut rows = rows.filter(|row| {
            row["principal"].as_str() == Some(of) || row["node_id"].as_u64().is_some_and(|node| node.to_string() == of)
        });
        rows.next().map_or((0, 0, 0), |row| {
            let number = |name: &str| row[name].as_u64().expect("a number");
            (number("bytes"), number("artifacts"), number("bytes_max"))
        })
    };
    wait_for("each replica has said its limit", || {
        ["1", "2", "3"].iter().all(|node| usage(node) == (0, 0, 1_000_000)).then_some(())
    });
    let push = |name: &str, length| file(&cluster, name, &bytes(length, 3));
    ok(&cluster, &["artifact", "push", &push("a", 1_800_000), "a"]);
    assert_eq!(usage("").0, 1_800_000);
    let each = usage("1");
    assert!((900_000..905_000).contains(&each.0) && each.1 == 1, "{each:?}: half of it and no more");
    let errors = refused(&cluster, &["artifact", "push", &push("b", 300_000), "b"]);
    assert!(errors.contains("blob.bytes_max"), "{errors}");
    let errors = refused(&cluster, &["artifact", "push", &push("c", 2_300_000), "c"]);
    assert!(errors.contains("of 4000000 bytes"), "{errors}");
    assert_eq!((usage("").0, usage("1")), (1_800_000, each), "nothing was begun");
    ok(&cluster, &["artifact", "rm", "a"]);
    ok(&cluster, &["artifact", "push", &push("b", 300_000), "b"]);
    assert_eq!(usage("").0, 300_000);
}

/// A client of one replica and nobody else.
fn of(cluster: &Cluster, at: usize) -> Client {
    let config = ClientConfig::new([cluster.replicas[at].client.clone()]);
    let config = ClientConfig { timeout: harness::PATIENCE, stream_timeout: harness::PATIENCE, ..config };
    Client::new(config).expect("well-formed")
}

fn artifacts(cluster: &Cluster) -> usize {
    let list = json(cluster, &["artifact", "ls"]);
    let rows = list.as_array().expect("a list").iter();
    rows.filter(|row| row["state"] == "committed").count()
}

#[test]
fn a_large_value_is_coded_over_the_replicas_and_read_from_each_of_them() {
    let mut cluster = started(3, &[]);
    let largest = bytes(3 << 20, 4);
    for (at, length) in [(0, 131_072), (1, 131_073), (2, 1 << 20), (0, largest.len())] {
        let key = format!("k{length}");
        let revision = of(&cluster, at).kv_put(&key, &largest[..length], "").expect("a majority runs");
        for reader in 0..3 {
            cluster.caught_up(reader);
            let (value, found) = of(&cluster, reader).kv_get(&key).expect("served").expect("it is there");
            assert!(value == largest[..length] && found == revision, "{key} from {reader}");
        }
    }
    assert_eq!(artifacts(&cluster), 3, "the first one stands in the log");
    let too_large = of(&cluster, 0).kv_put("k", &bytes((3 << 20) + 1, 4), "");
    assert!(matches!(too_large, Err(ClientError::Invalid(_))), "{too_large:?}");
    let client = of(&cluster, 1);
    let mut seen = 0;
    client
        .kv_watch("k1048576", Some(Duration::from_secs(60)), &mut |change| {
            seen = change.get_data().len();
            false
        })
        .expect("served");
    assert_eq!(seen, 1 << 20);
    // A comparison that fails leaves nothing behind, and one that succeeds releases what stood there.
    let before = client.kv_get("k1048576").expect("served").expect("there").1;
    let late = client.kv_compare_and_set("k1048576", before + 1, &bytes(500_000, 5)).expect("served");
    assert!(!late.get_swapped() && late.get_data() == &largest[..1 << 20]);
    let swapped = client.kv_compare_and_set("k1048576", before, &bytes(500_000, 6)).expect("served");
    assert!(swapped.get_swapped() && swapped.get_data() == bytes(500_000, 6));
    wait_for("what nobody holds is gone", || {
        let list = json(&cluster, &["artifact", "ls"]);
        (list.as_array().expect("a list").len() == 3).then_some(())
    });
    // One replica may be lost, whichever it is.
    let lost = (cluster.leader() + 1) % 3;
    cluster.kill_replica(lost);
    for at in (0..3).filter(|at| *at != lost) {
        let (value, _) = of(&cluster, at).kv_get("k1048576").expect("a majority runs").expect("there");
        assert!(value == bytes(500_000, 6), "from {at}");
    }
    cluster.start_replica(lost);
    for key in ["k131073", "k1048576", "k3145728"] {
        assert!(cluster.client().kv_delete(key).expect("a majority runs"));
    }
    wait_for("no value is left", || {
        (json(&cluster, &["artifact", "ls"]).as_array().expect("a list").is_empty()).then_some(())
    });
}
