//! Messages that are encoded already, inside of messages that are not: what a row holds goes to the wire as it is, and is encoded once for
//! all who read it.

use protobuf::Message;

/// `ListTasksResponse.tasks`.
pub(crate) const LIST_TASKS_RESPONSE_TASKS: u32 = 1;
/// `WatchTaskResponse.task`.
pub(crate) const WATCH_TASK_RESPONSE_TASK: u32 = 1;

/// Sets the message field of that number, or adds to it if it is repeated. `outer` must not have set it itself. The accessors of `outer` do
/// not see it: it is there for whoever decodes what is sent.
pub(crate) fn push(outer: &mut impl Message, number: u32, inner: Vec<u8>) {
    outer.mut_unknown_fields().add_length_delimited(number, inner);
}

#[cfg(test)]
mod tests {
    use raftgrid_proto::v1::{ListTasksResponse, Task, WatchTaskResponse};

    use super::*;

    #[test]
    fn who_decodes_it_sees_no_difference() {
        let task = |id: &str| Task { task_id: id.to_owned(), revision: 5, ..Task::default() };
        let bytes = |id: &str| task(id).write_to_bytes().expect("it encodes");
        let mut page = ListTasksResponse { read_position: 9, ..ListTasksResponse::default() };
        push(&mut page, LIST_TASKS_RESPONSE_TASKS, bytes("a"));
        push(&mut page, LIST_TASKS_RESPONSE_TASKS, bytes("b"));
        let read = ListTasksResponse::parse_from_bytes(&page.write_to_bytes().expect("it encodes"));
        let wanted =
            ListTasksResponse { read_position: 9, tasks: vec![task("a"), task("b")].into(), ..Default::default() };
        assert_eq!(read.expect("it decodes"), wanted);
        let mut seen = WatchTaskResponse { position: 5, ..WatchTaskResponse::default() };
        push(&mut seen, WATCH_TASK_RESPONSE_TASK, bytes("a"));
        let read = WatchTaskResponse::parse_from_bytes(&seen.write_to_bytes().expect("it encodes"));
        let mut wanted = WatchTaskResponse { position: 5, ..WatchTaskResponse::default() };
        wanted.set_task(task("a"));
        assert_eq!(read.expect("it decodes"), wanted);
    }
}
