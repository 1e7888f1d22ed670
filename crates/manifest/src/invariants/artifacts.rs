//! Of artifacts: what is claimed of a coded one is true by its receipts; names and versions; what they add up to.

use std::collections::{BTreeMap, BTreeSet};

use raftgrid_proto::v1::{ArtifactRow, ArtifactState, KvRow, NameRow};

use crate::coding::Code;
use crate::keys;
use crate::read;
use crate::rows::{Rows, RowsError, Table};
use crate::tables::{count_all, USAGE_SINCE};

/// 13, as far as rows tell it: each fragment of a committed coded artifact has a holder, and no replica is counted for two of them.
pub(super) fn check_fragments(rows: &dyn Rows, broken: &mut Vec<String>) -> Result<(), RowsError> {
    read::each(rows, Table::Artifact, &[], &[], |row: ArtifactRow| {
        if let (ArtifactState::ARTIFACT_COMMITTED, Some(code)) = (row.state, Code::of(row.code_id)) {
            let nodes: BTreeSet<u64> = row.receipts.iter().map(|receipt| receipt.node_id).collect();
            let fragments: BTreeSet<u32> = row.receipts.iter().map(|receipt| receipt.fragment).collect();
            if fragments.len() != code.fragments() || nodes.len() != row.receipts.len() {
                broken.push(format!("13: artifact {} has receipts {:?}", row.artifact_id, row.receipts));
            }
        }
        true
    })
}

/// 18: a name's row and the rows of its artifacts say the same, numbers rise, and the index names the newest version.
pub(super) fn check_names(rows: &dyn Rows, broken: &mut Vec<String>) -> Result<(), RowsError> {
    let mut said: BTreeSet<(String, u64, u64)> = BTreeSet::new();
    let mut newest: BTreeSet<(Vec<u8>, Vec<u8>)> = BTreeSet::new();
    let mut known = BTreeSet::new();
    read::each(rows, Table::Name, &[], &[], |row: NameRow| {
        known.insert(row.name.clone().into_bytes());
        let mut before = 0;
        for it in row.versions.iter() {
            if it.version <= before || it.version > row.newest {
                broken.push(format!("18: {} has version {} after {before}, of {}", row.name, it.version, row.newest));
            }
            before = it.version;
            said.insert((row.name.clone(), it.version, it.artifact_id));
        }
        if let Some(last) = row.versions.last() {
            newest.insert((row.name.clone().into_bytes(), keys::number(last.artifact_id)));
        }
        true
    })?;
    read::each(rows, Table::Artifact, &[], &[], |row: ArtifactRow| {
        let id = row.artifact_id;
        if row.state != ArtifactState::ARTIFACT_COMMITTED && !row.names.is_empty() {
            broken.push(format!("18: artifact {id} is {:?} and has names", row.state));
        }
        for it in row.names.iter() {
            // A name of before version 6 has a row only once it changes.
            let legacy = it.version == 1 && it.name == row.name && !known.contains(it.name.as_bytes());
            if !said.remove(&(it.name.clone(), it.version, id)) && !legacy {
                broken.push(format!(
                    "18: artifact {id} is called {}@{}, and its name does not know",
                    it.name, it.version
                ));
            }
        }
        true
    })?;
    for (name, version, id) in said {
        broken.push(format!("18: {name}@{version} is artifact {id}, which does not know"));
    }
    let mut indexed = BTreeSet::new();
    rows.scan(Table::ArtifactByName, &[], &[], &mut |name, id| {
        if known.contains(name) {
            indexed.insert((name.to_vec(), id.to_vec()));
        }
        true
    })?;
    if indexed != newest {
        broken.push("18: ArtifactByName does not name the newest versions".to_owned());
    }
    Ok(())
}

/// 20: a value beside the log is a committed artifact that knows its key, and each such artifact is the value of its key.
pub(super) fn check_values(rows: &dyn Rows, broken: &mut Vec<String>) -> Result<(), RowsError> {
    let mut held = BTreeSet::new();
    read::each(rows, Table::Kv, &[], &[], |row: KvRow| {
        if row.artifact_id != 0 {
            held.insert((row.key.clone(), row.artifact_id, row.value_bytes));
        }
        if row.artifact_id != 0 && !row.value.is_empty() {
            broken.push(format!("20: key {} has its value twice", row.key));
        }
        true
    })?;
    read::each(rows, Table::Artifact, &[], &[], |row: ArtifactRow| {
        let known = held.remove(&(row.key.clone(), row.artifact_id, row.total_bytes));
        if !row.key.is_empty() && (!known || row.state != ArtifactState::ARTIFACT_COMMITTED) {
            broken.push(format!(
                "20: artifact {} is {:?}, the value of {:?}, {known}",
                row.artifact_id, row.state, row.key
            ));
        }
        true
    })?;
    for (key, id, _) in held {
        broken.push(format!("20: key {key:?} names artifact {id}, which does not know"));
    }
    Ok(())
}

/// 19: what principals and replicas hold is what their artifacts add up to; before version 6 nothing is counted.
pub(super) fn check_usage(rows: &dyn Rows, broken: &mut Vec<String>) -> Result<(), RowsError> {
    let mut counted = BTreeMap::new();
    if read::meta(rows)?.machine_version >= USAGE_SINCE {
        counted = count_all(rows)?;
    }
    let mut keys = BTreeSet::new();
    rows.scan(Table::Usage, &[], &[], &mut |key, _| {
        keys.insert(key.to_vec());
        true
    })?;
    keys.extend(counted.keys().cloned());
    for key in keys {
        let stands = read::usage(rows, &key)?;
        let wanted = counted.get(&key).cloned().unwrap_or_default();
        if (stands.bytes, stands.artifacts) != (wanted.bytes, wanted.artifacts) {
            let whose = String::from_utf8_lossy(&key).into_owned();
            broken.push(format!("19: {whose:?} counts {stands:?}, its artifacts add up to {wanted:?}"));
        }
    }
    Ok(())
}
