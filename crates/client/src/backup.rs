//! A snapshot of the replicated state, for a backup.

use futures::executor::block_on;
use futures::TryStreamExt;
use raftgrid_proto::v1::{BackupChunk, BackupHead, BackupRequest, BarrierRequest};
use raftgrid_rpc::chunk::ChunkError;
use raftgrid_rpc::grpcio::CallOption;
use raftgrid_rpc::methods::{CLUSTER_BACKUP, CLUSTER_BARRIER};

use crate::call::Client;
use crate::error::ClientError;

/// Where the files of a snapshot go.
pub trait BackupTarget {
    /// A stream begins; whatever came before it goes.
    fn begin(&mut self, head: &BackupHead) -> std::io::Result<()>;
    /// The next bytes of `file`, verified; `last` ends it. Files come one after another.
    fn write(&mut self, file: &str, data: &[u8], last: bool) -> std::io::Result<()>;
}

impl Client {
    /// Fetches a snapshot with everything that was acknowledged before the call. A stream that breaks is begun anew, at another endpoint.
    pub fn backup(
        &self,
        target: &mut dyn BackupTarget,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<BackupHead, ClientError> {
        let index = self.call(&CLUSTER_BARRIER, &BarrierRequest::new(), self.config().timeout)?.get_index();
        let mut request = BackupRequest::new();
        request.set_min_index(index);
        self.attempts(self.config().stream_timeout, |endpoint, left| {
            let option = CallOption::default().timeout(left);
            let mut stream = self
                .bulk_stub(endpoint)
                .server_streaming(&CLUSTER_BACKUP.method, &request, option)
                .map_err(|error| ClientError::of(endpoint, error))?;
            let mut taken = Taken { head: None, file: None, bytes: 0, whole: false };
            while let Some(chunk) = block_on(stream.try_next()).map_err(|error| ClientError::of(endpoint, error))? {
                taken.chunk(chunk, target)?;
                progress(taken.bytes, taken.head.as_ref().map_or(0, |head| head.total_bytes));
            }
            match taken.head {
                Some(head) if taken.whole => Ok(head),
                _ => Err(ClientError::unavailable(endpoint, "the snapshot ends before its last chunk".to_owned())),
            }
        })
    }
}

/// One stream as it comes.
struct Taken {
    head: Option<BackupHead>,
    /// Under way, with its bytes so far.
    file: Option<(String, u64)>,
    bytes: u64,
    whole: bool,
}

impl Taken {
    fn chunk(&mut self, mut chunk: BackupChunk, target: &mut dyn BackupTarget) -> Result<(), ClientError> {
        if self.head.is_none() {
            let head = chunk.take_head();
            target.begin(&head)?;
            self.head = Some(head);
        }
        let (name, received) = match self.file.take() {
            Some((file, received)) if file == chunk.get_file() => (file, received),
            Some((file, _)) => {
                return Err(ClientError::Internal(format!("{} begins before {file} has ended", chunk.get_file())));
            }
            None => (chunk.take_file(), 0),
        };
        if chunk.get_offset() != received {
            return Err(ChunkError::Offset { got: chunk.get_offset(), expected: received }.into());
        }
        if crc32c::crc32c(chunk.get_data()) != chunk.get_crc32c() {
            return Err(ChunkError::Checksum(received).into());
        }
        target.write(&name, chunk.get_data(), chunk.get_last_of_file())?;
        let length = chunk.get_data().len() as u64;
        self.bytes += length;
        if !chunk.get_last_of_file() {
            self.file = Some((name, received + length));
        }
        self.whole = chunk.get_last() && self.file.is_none();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Files(Vec<(String, Vec<u8>)>);

    impl BackupTarget for Files {
        fn begin(&mut self, _: &BackupHead) -> std::io::Result<()> {
            self.0.clear();
            Ok(())
        }
        fn write(&mut self, file: &str, data: &[u8], _: bool) -> std::io::Result<()> {
            match self.0.last_mut().filter(|(name, _)| name == file) {
                Some((_, have)) => have.extend_from_slice(data),
                None => self.0.push((file.to_owned(), data.to_vec())),
            }
            Ok(())
        }
    }

    fn chunk(file: &str, offset: u64, data: &[u8], last_of_file: bool, last: bool) -> BackupChunk {
        let mut chunk = BackupChunk::new();
        chunk.set_file(file.to_owned());
        chunk.set_offset(offset);
        chunk.set_data(data.to_vec());
        chunk.set_crc32c(crc32c::crc32c(data));
        chunk.set_last_of_file(last_of_file);
        chunk.set_last(last);
        chunk
    }

    #[test]
    fn files_are_put_together_and_damage_gaps_and_mixed_files_are_refused() {
        let new = || Taken { head: None, file: None, bytes: 0, whole: false };
        let (mut taken, mut files) = (new(), Files::default());
        for each in
            [chunk("a", 0, b"xy", false, false), chunk("a", 2, b"z", true, false), chunk("b", 0, b"", true, true)]
        {
            assert!(!taken.whole);
            taken.chunk(each, &mut files).expect("good");
        }
        assert!(taken.whole && taken.bytes == 3);
        assert_eq!(files.0, [("a".to_owned(), b"xyz".to_vec()), ("b".to_owned(), Vec::new())]);
        let mut damaged = chunk("a", 2, b"z", true, true);
        damaged.set_data(b"q".to_vec());
        for bad in [damaged, chunk("a", 3, b"z", true, true), chunk("b", 0, b"z", true, true)] {
            let mut taken = new();
            taken.chunk(chunk("a", 0, b"xy", false, false), &mut files).expect("good");
            assert!(taken.chunk(bad, &mut files).is_err());
            assert!(!taken.whole);
        }
    }
}
