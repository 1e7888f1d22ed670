//! Tasks as their rows hold them: encoded once, when the command that changed them was applied. Listings and watches hand on these bytes,
//! to however many readers, without decoding them.

use protobuf::wire_format::WireType;
use protobuf::{CodedInputStream, ProtobufEnum, ProtobufResult};
use raftgrid_proto::v1::TaskStatus;

use crate::rows::{RowsError, Table};

/// `TaskRow.task`.
const TASK: u32 = 1;
/// `Task.status`.
const STATUS: u32 = 3;
/// `Task.revision`.
const REVISION: u32 = 25;
/// `Task.queue`.
const QUEUE: u32 = 27;

/// An encoded `Task`, and what readers choose by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedTask {
    /// The message.
    pub bytes: Vec<u8>,
    /// `Task.status`.
    pub status: TaskStatus,
    /// `Task.revision`.
    pub revision: u64,
    /// `Task.queue`.
    pub queue: String,
}

impl EncodedTask {
    /// The task of an encoded `TaskRow`.
    pub(crate) fn of_row(row: &[u8]) -> Result<Self, RowsError> {
        glance(row).map_err(|cause| RowsError(format!("a row of {:?} does not decode: {cause}", Table::Task)))
    }
}

fn glance(row: &[u8]) -> ProtobufResult<EncodedTask> {
    let mut task: &[u8] = &[];
    let mut fields = CodedInputStream::from_bytes(row);
    while !fields.eof()? {
        let (number, wire_type) = fields.read_tag_unpack()?;
        if number == TASK {
            let length = fields.read_raw_varint32()? as usize;
            let start = fields.pos() as usize;
            fields.skip_raw_bytes(length as u32)?;
            task = &row[start..start + length];
        } else {
            fields.skip_field(wire_type)?;
        }
    }
    let mut found =
        EncodedTask { bytes: task.to_vec(), status: TaskStatus::default(), revision: 0, queue: String::new() };
    let mut fields = CodedInputStream::from_bytes(task);
    while !fields.eof()? {
        match fields.read_tag_unpack()? {
            (STATUS, WireType::WireTypeVarint) => {
                found.status = TaskStatus::from_i32(fields.read_int32()?).unwrap_or_default();
            }
            (REVISION, WireType::WireTypeVarint) => found.revision = fields.read_uint64()?,
            (QUEUE, WireType::WireTypeLengthDelimited) => found.queue = fields.read_string()?,
            (_, wire_type) => fields.skip_field(wire_type)?,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use protobuf::Message;
    use raftgrid_proto::v1::{Task, TaskRow};

    use super::*;

    #[test]
    fn it_is_the_rows_task_and_what_one_chooses_by() {
        let mut row = TaskRow { sequence: 7, open_epoch: 9, not_before_ms: 12, ..TaskRow::default() };
        let task = Task {
            task_id: "t".to_owned(),
            task_data: vec![0; 300],
            status: TaskStatus::RUNNING,
            revision: 1 << 40,
            queue: "gpu".to_owned(),
            array_count: 3,
            ..Task::default()
        };
        row.set_task(task.clone());
        let found = EncodedTask::of_row(&row.write_to_bytes().expect("it encodes")).expect("it is a row");
        assert_eq!(Task::parse_from_bytes(&found.bytes).expect("it decodes"), task);
        assert_eq!((found.status, found.revision, &*found.queue), (TaskStatus::RUNNING, 1 << 40, "gpu"));
        let empty = EncodedTask::of_row(&[]).expect("an empty row");
        assert_eq!((empty.bytes, empty.revision), (Vec::new(), 0));
    }

    #[test]
    fn damage_is_named() {
        let mut row = TaskRow::default();
        row.mut_task().set_task_id("t".repeat(40));
        let bytes = row.write_to_bytes().expect("it encodes");
        (1..bytes.len()).for_each(|length| {
            let error = EncodedTask::of_row(&bytes[..length]).expect_err("it is cut off");
            assert!(error.0.contains("a row of Task does not decode"), "{error}");
        });
    }
}
