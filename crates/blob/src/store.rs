//! The files: `<root>/<artifact id>/<fragment number>`, `<root>/incoming/` for what has no id yet, `<root>/cache/` and `<root>/spare/` (see `cache`
//! and `spare`).
//!
//! Invariant: a file under an artifact's folder is whole, fsynced, and its folder entries are fsynced.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use raftgrid_crashpoint::{reach, Point};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::footer::{footer_bytes, Footer, FIXED_BYTES};
use crate::limits::{BLOCK_BYTES, CATCH_UP_BYTES, FRAGMENT_BYTES_MAX};
use crate::medium::{Medium, MediumFile, SystemMedium};
use crate::mutant;
use crate::spare::{Open, SpareLimits, Spares};

/// Bits of a file's number that are the fragment's; those above are the generation.
const FRAGMENT_BITS: u32 = 8;

/// The number under which a fragment is kept and asked for. The generation rises when an artifact is coded anew, so that no file has another's
/// name; it is 0 before.
pub fn file_number(generation: u32, fragment: u32) -> u32 {
    generation << FRAGMENT_BITS | fragment
}

/// The fragment in a file's number.
pub fn fragment_of(number: u32) -> u32 {
    number & ((1 << FRAGMENT_BITS) - 1)
}

/// The generation in a file's number.
pub fn generation_of(number: u32) -> u32 {
    number >> FRAGMENT_BITS
}

/// Why a fragment cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The disk. A retry helps if room was made.
    #[error("failed to {action} {path}: {cause}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// No such fragment here. Another replica may have it.
    #[error("failed to find fragment {fragment} of artifact {artifact_id} on this replica")]
    NotFound {
        /// The artifact.
        artifact_id: u64,
        /// Its fragment.
        fragment: u32,
    },
    /// The bytes are not those that were stored. Another replica may have good ones.
    #[error("failed to verify fragment {fragment} of artifact {artifact_id}: its bytes have changed on this disk")]
    Rotten {
        /// The artifact.
        artifact_id: u64,
        /// Its fragment.
        fragment: u32,
    },
    /// Not what was announced. Sending it again helps.
    #[error("failed to store a fragment: {0}")]
    Refused(String),
}

pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BlobError {
    let path = path.to_owned();
    move |cause| BlobError::Io { action, path, cause }
}

/// Removes a directory with all in it; one that is not there is no error. True: it was there.
pub(crate) fn clear(medium: &dyn Medium, path: &Path) -> Result<bool, BlobError> {
    match medium.remove_dir_all(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io("clear", path)(error)),
    }
}

/// All fragments of one replica.
#[derive(Clone, Debug)]
pub struct FragmentStore {
    medium: Arc<dyn Medium>,
    root: PathBuf,
    incoming: PathBuf,
    next_incoming: Arc<AtomicU64>,
    cache: Cache,
    spares: Spares,
}

impl FragmentStore {
    /// Opens the folder, makes it if it is missing, and deletes uploads that a crash cut off.
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        Self::open_on(Arc::new(SystemMedium), root, SpareLimits::default())
    }

    /// The same on a medium of the caller's.
    pub fn open_on(medium: Arc<dyn Medium>, root: &Path, spare: SpareLimits) -> Result<Self, BlobError> {
        let incoming = root.join("incoming");
        clear(medium.as_ref(), &incoming)?;
        medium.create_dir_all(&incoming).map_err(io("create", &incoming))?;
        let spares = Spares::open(medium.clone(), &root.join("spare"), spare)?;
        let cache = Cache::open(medium.as_ref(), &root.join("cache"), spares.clone())?;
        let next_incoming = Arc::new(AtomicU64::new(0));
        let store = Self { medium, root: root.to_owned(), incoming, next_incoming, cache, spares };
        store.sync_directory(root)?;
        if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            store.sync_directory(parent)?;
        }
        Ok(store)
    }

    fn sync_directory(&self, path: &Path) -> Result<(), BlobError> {
        self.medium.sync_dir(path).map_err(io("sync the directory", path))
    }

    /// A fragment to be written; it has no name until `FragmentWriter::finish` and `FragmentStore::keep`.
    pub fn create(&self) -> Result<FragmentWriter, BlobError> {
        let path = self.next_path();
        let file = self.medium.create_new(&path).map_err(io("create", &path))?;
        Ok(self.writer(path, file, 0))
    }

    /// The same for so many bytes of data: a file that is not needed any more is written over, if there is one.
    pub fn create_for(&self, total_bytes: u64) -> Result<FragmentWriter, BlobError> {
        let path = self.next_path();
        let length = total_bytes.saturating_add(footer_bytes(total_bytes));
        let Some(recycled_bytes) = self.spares.take(length, &path) else { return self.create() };
        match self.medium.reopen(&path) {
            Ok(file) => Ok(self.writer(path, file, recycled_bytes)),
            Err(error) => {
                // What stays is cleared at the next start.
                let _ = self.medium.remove_file(&path);
                Err(io("open", &path)(error))
            }
        }
    }

    fn next_path(&self) -> PathBuf {
        self.incoming.join(self.next_incoming.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn writer(&self, path: PathBuf, file: Arc<dyn MediumFile>, recycled_bytes: u64) -> FragmentWriter {
        FragmentWriter {
            spares: self.spares.clone(),
            open: Open::default(),
            path,
            file,
            recycled_bytes,
            hash: Sha256::new(),
            total_bytes: 0,
            ahead_bytes: 0,
            ahead_end: 0,
            blocks: Vec::new(),
            block_crc: 0,
            block_bytes: 0,
            footer: None,
            kept: false,
        }
    }

    /// Gives a finished fragment its place; durable when it returns. Storing the same fragment again replaces it.
    pub fn keep(&self, mut written: FragmentWriter, artifact_id: u64, fragment: u32) -> Result<(), BlobError> {
        let folder = self.folder(artifact_id);
        // Before the bytes are synced: one commit of the file system's journal has both then.
        self.medium.create_dir_all(&folder).map_err(io("create", &folder))?;
        reach(Point::FragmentBeforeSync);
        // Here and not before: bytes that are only coded, or only read from, need not be durable under this form.
        if !mutant::on("bytes_not_synced") {
            written.file.sync().map_err(io("sync", &written.path))?;
        }
        reach(Point::FragmentSynced);
        // Always: a folder that is there may be another thread's, or a killed process's, that was not synced yet.
        self.sync_directory(&self.root)?;
        let path = folder.join(fragment.to_string());
        self.spares.rename(&written.path, &path, &written.open).map_err(io("rename to", &path))?;
        written.kept = true;
        if mutant::on("bytes_folder_not_synced") {
            return Ok(());
        }
        self.sync_directory(&folder)?;
        reach(Point::FragmentNamed);
        Ok(())
    }

    /// Opens a fragment; its footer is verified now, each block when it is read.
    pub fn open_fragment(&self, artifact_id: u64, fragment: u32) -> Result<FragmentReader, BlobError> {
        let path = self.folder(artifact_id).join(fragment.to_string());
        open_file(&self.spares, path, artifact_id, fragment)
    }

    /// Whether the fragment is here, whole by its footer.
    pub fn has(&self, artifact_id: u64, fragment: u32) -> bool {
        self.open_fragment(artifact_id, fragment).is_ok()
    }

    /// Deletes every fragment of an artifact. Nothing there is no error.
    pub fn remove(&self, artifact_id: u64) -> Result<(), BlobError> {
        self.cache.forget(artifact_id);
        let folder = self.folder(artifact_id);
        let mut aside = Vec::new();
        for fragment in self.fragments(artifact_id)? {
            let path = folder.join(fragment.to_string());
            aside.extend(self.spares.set_aside(&path).map_err(io("remove", &path))?);
        }
        match self.medium.remove_dir_all(&folder) {
            Ok(()) => {
                self.sync_directory(&self.root)?;
                self.spares.offer(aside);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io("remove", &folder)(error)),
        }
    }

    /// Deletes the files kept to be written over that have waited for it since the last call.
    pub fn age_spares(&self) {
        self.spares.age();
    }

    /// Decoded artifacts that are kept for a while.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Numbers of the fragments of an artifact that are here, whole or not, rising.
    pub fn fragments(&self, artifact_id: u64) -> Result<Vec<u32>, BlobError> {
        let folder = self.folder(artifact_id);
        let names = match self.medium.list(&folder) {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io("list", &folder)(error)),
        };
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Deletes one fragment. Nothing there is no error.
    pub fn remove_fragment(&self, artifact_id: u64, fragment: u32) -> Result<(), BlobError> {
        let folder = self.folder(artifact_id);
        let path = folder.join(fragment.to_string());
        match self.medium.remove_file(&path) {
            Ok(()) => self.sync_directory(&folder),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io("remove", &path)(error)),
        }
    }

    /// Ids of the artifacts that have fragments here, rising.
    pub fn artifacts(&self) -> Result<Vec<u64>, BlobError> {
        let names = self.medium.list(&self.root).map_err(io("list", &self.root))?;
        let mut ids: Vec<u64> = names.iter().filter_map(|name| name.parse().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn folder(&self, artifact_id: u64) -> PathBuf {
        self.root.join(artifact_id.to_string())
    }
}

/// Opens a file as a fragment; see `FragmentStore::open_fragment`.
pub(crate) fn open_file(
    spares: &Spares,
    path: PathBuf,
    artifact_id: u64,
    fragment: u32,
) -> Result<FragmentReader, BlobError> {
    let (file, open) = match spares.open_file(&path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(BlobError::NotFound { artifact_id, fragment });
        }
        Err(error) => return Err(io("open", &path)(error)),
    };
    let length = file.length().map_err(io("read", &path))?;
    let rotten = || BlobError::Rotten { artifact_id, fragment };
    if length < FIXED_BYTES as u64 {
        return Err(rotten());
    }
    let mut tail = [0u8; FIXED_BYTES];
    file.read_exact_at(&mut tail, length - FIXED_BYTES as u64).map_err(io("read", &path))?;
    let total_bytes = Footer::total_bytes_of(&tail).map_err(|_| rotten())?;
    if total_bytes > FRAGMENT_BYTES_MAX || total_bytes + footer_bytes(total_bytes) != length {
        return Err(rotten());
    }
    let footer_length = usize::try_from(footer_bytes(total_bytes)).map_err(|_| rotten())?;
    let mut footer = vec![0; footer_length];
    file.read_exact_at(&mut footer, total_bytes).map_err(io("read", &path))?;
    let footer = Footer::decode(&footer).map_err(|_| rotten())?;
    Ok(FragmentReader { path, file, artifact_id, fragment, footer, _open: open })
}

/// A fragment on its way in. Dropped before `keep`, its file is deleted.
#[derive(Debug)]
pub struct FragmentWriter {
    spares: Spares,
    open: Open,
    path: PathBuf,
    file: Arc<dyn MediumFile>,
    /// What the file holds of before.
    recycled_bytes: u64,
    hash: Sha256,
    /// Bytes from the beginning that are written and hashed.
    total_bytes: u64,
    /// Bytes written further on, which are hashed when it is finished; and where they end.
    ahead_bytes: u64,
    ahead_end: u64,
    blocks: Vec<u32>,
    block_crc: u32,
    block_bytes: usize,
    /// Once it is finished.
    footer: Option<Footer>,
    kept: bool,
}

impl FragmentWriter {
    /// Bytes written so far, from the beginning on.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The next bytes.
    pub fn write(&mut self, data: &[u8]) -> Result<(), BlobError> {
        self.write_file(self.total_bytes, data)?;
        self.hash_next(data);
        Ok(())
    }

    /// Bytes at a place of their own: those that go on from what is there are hashed now, those further on are read once more when it is
    /// finished. Each byte is written once, and none is left out: `finish` refuses a file with a gap.
    pub fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), BlobError> {
        if offset == self.total_bytes {
            return self.write(data);
        }
        self.write_file(offset, data)?;
        self.ahead_bytes += data.len() as u64;
        self.ahead_end = self.ahead_end.max(offset + data.len() as u64);
        Ok(())
    }

    fn write_file(&self, offset: u64, data: &[u8]) -> Result<(), BlobError> {
        if offset.saturating_add(data.len() as u64) > FRAGMENT_BYTES_MAX {
            return Err(BlobError::Refused(format!("more than {FRAGMENT_BYTES_MAX} bytes")));
        }
        self.file.write_all_at(data, offset).map_err(io("write", &self.path))
    }

    fn hash_next(&mut self, data: &[u8]) {
        self.hash.update(data);
        self.total_bytes += data.len() as u64;
        let mut rest = data;
        while !rest.is_empty() {
            let take = rest.len().min(BLOCK_BYTES - self.block_bytes);
            self.block_crc = crc32c::crc32c_append(self.block_crc, &rest[..take]);
            self.block_bytes += take;
            rest = &rest[take..];
            if self.block_bytes == BLOCK_BYTES {
                self.end_block();
            }
        }
    }

    /// Hashes what was written ahead.
    fn catch_up(&mut self) -> Result<(), BlobError> {
        let missing = self.ahead_end.saturating_sub(self.total_bytes);
        if missing != self.ahead_bytes {
            let (from, to, given) = (self.total_bytes, self.ahead_end, self.ahead_bytes);
            return Err(BlobError::Refused(format!("of its bytes {from}..{to}, {given} were written")));
        }
        let mut piece = vec![0; missing.min(CATCH_UP_BYTES as u64) as usize];
        while self.total_bytes < self.ahead_end {
            let take = (self.ahead_end - self.total_bytes).min(piece.len() as u64) as usize;
            self.file.read_exact_at(&mut piece[..take], self.total_bytes).map_err(io("read", &self.path))?;
            self.hash_next(&piece[..take]);
        }
        self.ahead_bytes = 0;
        Ok(())
    }

    /// Verifies against what was announced, writes the footer. Gives the SHA-256 of the data. `FragmentStore::keep` makes it durable.
    pub fn finish(&mut self, total_bytes: Option<u64>, digest: Option<&[u8]>) -> Result<[u8; 32], BlobError> {
        self.catch_up()?;
        if let Some(expected) = total_bytes.filter(|expected| *expected != self.total_bytes) {
            return Err(BlobError::Refused(format!("{} bytes instead of {expected}", self.total_bytes)));
        }
        let found: [u8; 32] = std::mem::take(&mut self.hash).finalize().into();
        if digest.is_some_and(|announced| announced != found) {
            return Err(BlobError::Refused("its SHA-256 differs from the one announced".to_owned()));
        }
        if self.block_bytes > 0 {
            self.end_block();
        }
        if self.recycled_bytes > self.total_bytes + footer_bytes(self.total_bytes) {
            return Err(BlobError::Refused(format!("{} bytes, fewer than it was made for", self.total_bytes)));
        }
        let footer = Footer { total_bytes: self.total_bytes, digest: found, blocks: std::mem::take(&mut self.blocks) };
        self.file.write_all_at(&footer.encode(), self.total_bytes).map_err(io("write", &self.path))?;
        self.footer = Some(footer);
        Ok(found)
    }

    /// Reads what was finished; also after the writer is gone, and its file with it.
    pub fn reader(&self) -> Result<FragmentReader, BlobError> {
        let footer = self.footer.clone();
        let footer = footer.ok_or_else(|| BlobError::Refused("it is not finished".to_owned()))?;
        let (path, file, open) = (self.path.clone(), self.file.clone(), self.open.clone());
        Ok(FragmentReader { path, file, artifact_id: 0, fragment: 0, footer, _open: open })
    }

    /// Moves the file to a place of its own, where it stays.
    pub(crate) fn move_to(mut self, path: &Path) -> Result<(), BlobError> {
        self.spares.rename(&self.path, path, &self.open).map_err(io("rename to", path))?;
        self.kept = true;
        Ok(())
    }

    fn end_block(&mut self) {
        self.blocks.push(self.block_crc);
        self.block_crc = 0;
        self.block_bytes = 0;
    }
}

impl Drop for FragmentWriter {
    fn drop(&mut self) {
        if !self.kept {
            // Best effort: what stays is cleared at the next start, and so it need not be synced.
            self.spares.offer(self.spares.set_own_aside(&self.path, &self.open).ok().flatten());
        }
    }
}

/// A fragment being read.
#[derive(Debug)]
pub struct FragmentReader {
    path: PathBuf,
    file: Arc<dyn MediumFile>,
    artifact_id: u64,
    fragment: u32,
    footer: Footer,
    /// As long as it is here, nobody writes over the file.
    _open: Open,
}

impl FragmentReader {
    /// Bytes of data.
    pub fn total_bytes(&self) -> u64 {
        self.footer.total_bytes
    }

    /// SHA-256 of the data.
    pub fn digest(&self) -> [u8; 32] {
        self.footer.digest
    }

    /// The artifact that it belongs to.
    pub fn artifact_id(&self) -> u64 {
        self.artifact_id
    }

    /// Fills `buffer` from `offset`, as far as there is data; every block touched is verified.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, BlobError> {
        let wanted = (self.footer.total_bytes.saturating_sub(offset)).min(buffer.len() as u64);
        let wanted = usize::try_from(wanted).unwrap_or(buffer.len());
        let mut done = 0;
        let mut block = Vec::new();
        while done < wanted {
            let at = offset + done as u64;
            let number = at / BLOCK_BYTES as u64;
            let start = number * BLOCK_BYTES as u64;
            // A block that is wanted as a whole is read to where it belongs.
            if at == start && (wanted - done) as u64 >= (self.footer.total_bytes - start).min(BLOCK_BYTES as u64) {
                done += self.block(number, &mut buffer[done..])?.len();
                continue;
            }
            block.resize(BLOCK_BYTES, 0);
            let data = self.block(number, &mut block)?;
            let skip = usize::try_from(at - number * BLOCK_BYTES as u64).unwrap_or(0);
            let take = (wanted - done).min(data.len() - skip);
            buffer[done..done + take].copy_from_slice(&data[skip..skip + take]);
            done += take;
        }
        Ok(wanted)
    }

    /// Reads every block and verifies it.
    pub fn verify(&self) -> Result<(), BlobError> {
        let mut block = vec![0; BLOCK_BYTES];
        (0..self.footer.total_bytes.div_ceil(BLOCK_BYTES as u64))
            .try_for_each(|number| self.block(number, &mut block).map(drop))
    }

    /// The whole data, verified.
    pub fn read_all(&self) -> Result<Vec<u8>, BlobError> {
        let mut data = vec![0; usize::try_from(self.footer.total_bytes).unwrap_or(usize::MAX)];
        self.read_at(0, &mut data)?;
        Ok(data)
    }

    fn block<'buffer>(&self, number: u64, buffer: &'buffer mut [u8]) -> Result<&'buffer [u8], BlobError> {
        let start = number * BLOCK_BYTES as u64;
        let length = (self.footer.total_bytes - start).min(BLOCK_BYTES as u64);
        let data = &mut buffer[..usize::try_from(length).unwrap_or(BLOCK_BYTES)];
        self.file.read_exact_at(data, start).map_err(io("read", &self.path))?;
        let expected = usize::try_from(number).ok().and_then(|number| self.footer.blocks.get(number));
        if expected != Some(&crc32c::crc32c(data)) {
            return Err(BlobError::Rotten { artifact_id: self.artifact_id, fragment: self.fragment });
        }
        Ok(data)
    }
}
