//! Boots the real store in a directory and compares it with what had been acknowledged.
//!
//! The replica founded its cluster alone: everything that it acknowledged must be in its own log, or in its tables.

use std::path::Path;

use anyhow::{Context, Result};
use raftgrid_driver::pack::unpack;
use raftgrid_driver::{LogReader, LogStore};
use raftgrid_manifest::views;
use raftgrid_proto::v1::{CommandBatch, Command_oneof_kind};
use raftgrid_store::{BootMode, Store};
use raftgrid_store_rocks::RocksDisk;

use crate::calls::tag_in;
use crate::power::files::Image;

/// Bytes of entries that are read at once.
const READ_BYTES: u64 = 1 << 20;

/// An acknowledged submission.
#[derive(Clone, Debug)]
pub struct Ack {
    /// When the client had the answer: microseconds since 1970.
    pub at: u64,
    /// Index of the entry.
    pub index: u64,
    /// The task's id.
    pub task: String,
    /// In its data.
    pub tag: u64,
}

/// How a boot ended, where it did not end wrongly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Booted {
    /// Everything that was asked for is there.
    Whole,
    /// It did not start, and said why.
    Refused(String),
}

/// Opens the store in `dir` and looks for each of these. Err: it opened, and something is missing or different.
pub fn boot(dir: &Path, cluster_id: &str, acks: &[Ack]) -> Result<Booted, String> {
    let mode = BootMode::Found { cluster_id: cluster_id.to_owned(), node_id: 1, founders: vec![1] };
    let booted = match Store::open(RocksDisk::new(), dir, mode) {
        Ok(booted) => booted,
        Err(error) => return Ok(Booted::Refused(error.to_string())),
    };
    let reader = booted.log.reader();
    let (first, last) = (reader.first_index(), reader.last_index());
    let applied = booted.tables.applied().0;
    // Read once: tags by index.
    let logged = match logged(&reader, first, last) {
        Ok(logged) => logged,
        // The end of such a replica comes when it reads the entry: as loud as a refusal at boot, only later.
        Err(error) => return Ok(Booted::Refused(format!("{error:#}"))),
    };
    for ack in acks {
        let found = if ack.index > applied {
            logged.get((ack.index.saturating_sub(first)) as usize).is_some_and(|tags| tags.contains(&ack.tag))
        } else {
            match views::get_task(&booted.tables, &ack.task) {
                Ok(task) => task.is_some_and(|task| tag_in(&task.task_data) == Some(ack.tag)),
                Err(error) => return Ok(Booted::Refused(error.to_string())),
            }
        };
        if !found {
            return Err(format!(
                "{} (tag {}, index {}) was acknowledged and is lost: the log is {first}..={last}, applied {applied}",
                ack.task, ack.tag, ack.index
            ));
        }
    }
    Ok(Booted::Whole)
}

/// For each entry from `first` on, the tags that it submits.
fn logged(reader: &impl LogReader, first: u64, last: u64) -> Result<Vec<Vec<u64>>> {
    let mut out = Vec::new();
    while first + (out.len() as u64) <= last {
        let next = first + out.len() as u64;
        let entries =
            reader.entries(next, last + 1, READ_BYTES).with_context(|| format!("failed to read entry {next}"))?;
        for entry in entries {
            let mut tags = Vec::new();
            for payload in unpack(&entry.data).with_context(|| format!("failed to unpack entry {}", entry.index))? {
                let batch: CommandBatch = protobuf::Message::parse_from_bytes(&payload)
                    .with_context(|| format!("failed to decode entry {}", entry.index))?;
                for command in batch.get_commands() {
                    if let Some(Command_oneof_kind::submit_task(submit)) = &command.kind {
                        tags.extend(tag_in(&submit.task_data));
                    }
                }
            }
            out.push(tags);
        }
    }
    Ok(out)
}

/// Makes the directory; `dir` does not exist yet.
pub fn lay_out(image: &Image, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("failed to make {}", dir.display()))?;
    for (path, content) in image {
        let path = dir.join(path);
        match content {
            None => std::fs::create_dir_all(&path).with_context(|| format!("failed to make {}", path.display()))?,
            Some(content) => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).with_context(|| format!("failed to make {}", parent.display()))?;
                }
                std::fs::write(&path, content).with_context(|| format!("failed to write {}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// The directory as it is.
pub fn read_back(dir: &Path) -> Result<Image> {
    let mut image = Image::new();
    let mut left = vec![String::new()];
    while let Some(below) = left.pop() {
        let folder = dir.join(&below);
        for entry in std::fs::read_dir(&folder).with_context(|| format!("failed to list {}", folder.display()))? {
            let entry = entry.context("failed to read a directory")?;
            let leaf = entry.file_name().into_string().ok().context("a name is not UTF-8")?;
            let path = if below.is_empty() { leaf } else { format!("{below}/{leaf}") };
            if entry.file_type().context("failed to look at a file")?.is_dir() {
                image.insert(path.clone(), None);
                left.push(path);
            } else {
                let content = std::fs::read(entry.path()).with_context(|| format!("failed to read {path}"))?;
                image.insert(path, Some(content));
            }
        }
    }
    Ok(image)
}

/// A folder in memory where there is one: what is rebuilt there is thrown away again.
pub fn scratch() -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.context("failed to make a temporary folder")
}
