//! Logs of attempts: written to the attempt's folder, and sent to the control plane piece by piece while it runs. An aid, not a promise.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use raftgrid_proto::v1::AppendLogRequest;
use slog::{debug, o, Logger};

use crate::clock::boottime_ms;
use crate::executor::LeaseId;
use crate::limits::{LOG_BATCH_BYTES_MAX, LOG_BYTES_MAX, LOG_INTERVAL_MS, LOG_KEPT_BYTES, LOG_LINGER_MS};
use crate::plane::ControlPlane;
use crate::table::lock;

/// stdout and stderr of one attempt, in the order in which they were read.
pub(crate) struct AttemptLog {
    file: File,
    /// Held while the end of the file moves.
    writing: Mutex<()>,
    written: AtomicU64,
    /// CLOCK_BOOTTIME at the end of the attempt; 0: it runs.
    ended_at: AtomicU64,
}

impl AttemptLog {
    pub(crate) fn create(path: &Path) -> std::io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Self { file, writing: Mutex::new(()), written: AtomicU64::new(0), ended_at: AtomicU64::new(0) })
    }

    /// Appends; beyond `LOG_BYTES_MAX`, or on a full disk, the rest is dropped: the task goes on.
    pub(crate) fn append(&self, data: &[u8]) {
        let _writing = lock(&self.writing);
        let written = self.written.load(Ordering::SeqCst);
        if written >= LOG_BYTES_MAX {
            return;
        }
        let room = usize::try_from(LOG_BYTES_MAX - written).unwrap_or(usize::MAX);
        let cut = data.len() > room;
        let data = &data[..data.len().min(room)];
        // At its place: after a write that a full disk broke off, the next one starts where the last whole one ended.
        if self.file.write_all_at(data, written).is_err() {
            return;
        }
        let mut end = written + data.len() as u64;
        if cut || end == LOG_BYTES_MAX {
            let mark = format!(
                "\n[raftgrid: the log ends here, the rest of it is dropped: more than {LOG_BYTES_MAX} bytes]\n"
            );
            if self.file.write_all_at(mark.as_bytes(), end).is_ok() {
                end += mark.len() as u64;
            }
        }
        self.written.store(end, Ordering::SeqCst);
    }

    pub(crate) fn end(&self) {
        self.ended_at.store(boottime_ms().max(1), Ordering::SeqCst);
    }

    /// What is kept of it: all, or its beginning and its end with a line in between that says what is missing. Empty: there is none.
    pub(crate) fn kept(&self) -> Vec<u8> {
        let written = self.written.load(Ordering::SeqCst);
        let read = |from: u64, length: u64| {
            let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
            match self.file.read_exact_at(&mut data, from) {
                Ok(()) => data,
                Err(_) => Vec::new(),
            }
        };
        let (head, tail) = LOG_KEPT_BYTES;
        if written <= head + tail {
            return read(0, written);
        }
        let mark = format!("\n[raftgrid: {} bytes of the log are left out here]\n", written - head - tail);
        [read(0, head), mark.into_bytes(), read(written - tail, tail)].concat()
    }

    fn piece(&self, offset: u64) -> Vec<u8> {
        let left = self.written.load(Ordering::SeqCst).saturating_sub(offset);
        let mut data = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(LOG_BATCH_BYTES_MAX)];
        match self.file.read_exact_at(&mut data, offset) {
            Ok(()) => data,
            Err(_) => Vec::new(),
        }
    }
}

struct Active {
    lease: LeaseId,
    log: Arc<AttemptLog>,
    sent: u64,
}

/// Sends the logs of all attempts from one thread.
pub(crate) struct LogShipper {
    active: Arc<Mutex<Vec<Active>>>,
    stop: Arc<AtomicBool>,
}

impl LogShipper {
    pub(crate) fn start(plane: Arc<dyn ControlPlane>, logger: &Logger) -> std::io::Result<Self> {
        let shipper = Self { active: Arc::new(Mutex::new(Vec::new())), stop: Arc::new(AtomicBool::new(false)) };
        let (active, stop) = (shipper.active.clone(), shipper.stop.clone());
        let logger = logger.new(o!("part" => "logs"));
        std::thread::Builder::new().name("logs".to_owned()).spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                // The calls are made without the lock: a new attempt must not wait for them.
                let batch = std::mem::take(&mut *lock(&active));
                let kept: Vec<Active> =
                    batch.into_iter().filter_map(|one| ship(one, plane.as_ref(), &logger)).collect();
                lock(&active).extend(kept);
                std::thread::sleep(Duration::from_millis(LOG_INTERVAL_MS));
            }
        })?;
        Ok(shipper)
    }

    pub(crate) fn add(&self, lease: LeaseId, log: Arc<AttemptLog>) {
        lock(&self.active).push(Active { lease, log, sent: 0 });
    }
}

impl Drop for LogShipper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Sends what is new. None: nothing more is to be sent of it.
fn ship(mut one: Active, plane: &dyn ControlPlane, logger: &Logger) -> Option<Active> {
    // Read first: what is written before the end is then seen below.
    let ended_at = one.log.ended_at.load(Ordering::SeqCst);
    loop {
        let data = one.log.piece(one.sent);
        if data.is_empty() {
            return (ended_at == 0).then_some(one);
        }
        let length = data.len() as u64;
        let mut request = AppendLogRequest::new();
        request.set_task_id(one.lease.task_id.clone());
        request.set_lease_epoch(one.lease.epoch);
        request.set_offset(one.sent);
        request.set_data(data);
        match plane.append_log(&request) {
            // A replica that has other pieces says where it wants us to go on; never backwards for ever.
            Ok(response) => one.sent = response.get_next_offset().max(one.sent + length),
            Err(error) if error.retryable() => {
                let given_up = ended_at != 0 && boottime_ms() > ended_at + LOG_LINGER_MS;
                return (!given_up).then_some(one);
            }
            Err(error) => {
                debug!(logger, "log is not sent any more"; "task_id" => &one.lease.task_id, "error" => %error);
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_too_long_ends_with_a_line_that_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = AttemptLog::create(&folder.path().join("log")).expect("writable");
        let block = vec![b'x'; 3 * 1024 * 1024];
        for _ in 0..LOG_BYTES_MAX as usize / block.len() + 2 {
            log.append(&block);
        }
        let length = log.written.load(Ordering::SeqCst);
        assert!(length > LOG_BYTES_MAX && length < LOG_BYTES_MAX + 200, "{length}");
        let tail = String::from_utf8(log.piece(LOG_BYTES_MAX)).expect("text");
        assert!(tail.contains("the rest of it is dropped"), "{tail}");
        log.append(b"more");
        assert_eq!(log.written.load(Ordering::SeqCst), length, "said once");
    }

    #[test]
    fn what_is_kept_of_a_long_log_is_its_beginning_and_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = AttemptLog::create(&folder.path().join("log")).expect("writable");
        assert!(log.kept().is_empty());
        log.append(b"the beginning");
        assert_eq!(log.kept(), b"the beginning");
        let (head, tail) = LOG_KEPT_BYTES;
        log.append(&vec![b'x'; (head + tail) as usize]);
        log.append(b"the end");
        let kept = String::from_utf8(log.kept()).expect("text");
        assert!(kept.starts_with("the beginningx") && kept.ends_with("xthe end"));
        assert!(kept.contains("\n[raftgrid: 20 bytes of the log are left out here]\n"), "13 + 7 more than is kept");
        assert!((kept.len() as u64) < head + tail + 100);
    }

    #[test]
    fn a_full_disk_drops_log_and_keeps_its_place() {
        let log = AttemptLog::create(Path::new("/dev/full")).expect("every Linux has it");
        log.append(b"lost");
        assert_eq!(log.written.load(Ordering::SeqCst), 0);
        assert!(log.piece(0).is_empty());
    }
}
