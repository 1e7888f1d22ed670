//! What is to be mirrored, as whoever runs the mirror tells it.

/// A committed artifact, as its row has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its id: of two artifacts, the later one's is higher.
    pub artifact_id: u64,
    /// Name or "".
    pub name: String,
    /// bundle, checkpoint, file, gradient, model, state, or a user's own.
    pub kind: String,
    /// Job that it belongs to, or "".
    pub job_id: String,
    /// Which version of the job's model it is, if it is one.
    pub model_version: Option<u64>,
    /// Size in bytes.
    pub total_bytes: u64,
    /// SHA-256 of all bytes.
    pub digest: [u8; 32],
}

/// What a row says of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// There, for good until somebody deletes it.
    Committed(Artifact),
    /// An upload that has not ended.
    Begun,
    /// Deleted, or about to be.
    Gone,
}

/// Artifacts of one replica. All of it may block; called on the mirror's own thread.
pub trait Source: Send + 'static {
    /// Whether this replica leads: only the leader mirrors.
    fn leads(&self) -> bool;
    /// At most `most` rows whose id is `from` or above, in the order of their ids. `Err`: why they cannot be read.
    fn rows(&self, from: u64, most: usize) -> Result<Vec<(u64, Seen)>, String>;
    /// One row, `model_version` filled in.
    fn row(&self, artifact_id: u64) -> Result<Seen, String>;
    /// Opens a committed artifact. `Err`: why it cannot be read now.
    fn open(&self, artifact_id: u64) -> Result<Box<dyn Body>, String>;
}

/// The bytes of an artifact.
pub trait Body {
    /// Fills `buffer` from `offset` on, whole unless the end is nearer, with bytes that were verified against what the disk should have.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, String>;
}
