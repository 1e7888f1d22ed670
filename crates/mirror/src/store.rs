//! The destination: a directory or a bucket, by `object_store`. One object becomes visible at once and whole, or not at all: in a directory a
//! file gets its name when it is synced, in a bucket a request or the end of an upload of several parts makes it.
//!
//! An upload of several parts that nobody ends takes room in a bucket that no list of objects shows. So each leaves a note of its id before its
//! first part, and a new leader throws away what the notes name. In a directory such leftovers are files with `#` in their name.

use std::path::PathBuf;
use std::sync::{Arc, Once};

use futures::StreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, Error, MultipartId, MultipartUpload, ObjectStore, RetryConfig};
use object_store::{ObjectStoreExt, PutPayload};

use crate::address::Address;
use crate::failure::{cause, Failure};
use crate::io::Io;
use crate::keys::Keys;
use crate::limits::{CONNECTION_IDLE_MS, CONNECT_MS, NOTE_BYTES_MAX, REQUEST_MS, REQUEST_RETRIES, REQUEST_RETRY_MS};

/// How an S3-compatible store is reached; what is None is told by `AWS_…` variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// URL of the store.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// The endpoint may be http://: it was checked (`check_endpoint`).
    pub plain: bool,
}

/// An open destination.
pub(crate) struct Store {
    io: Io,
    objects: Arc<dyn ObjectStore>,
    kind: Kind,
}

enum Kind {
    Directory(PathBuf),
    Bucket(Arc<AmazonS3>),
}

/// An upload of several parts.
pub(crate) enum Parts {
    /// A file that has no name yet.
    Directory(Box<dyn MultipartUpload>),
    /// Of a bucket.
    Bucket {
        /// What it will be.
        object: Path,
        /// Of the upload.
        id: MultipartId,
        /// What was sent.
        sent: Vec<PartId>,
        /// Where its id is noted.
        note: Path,
    },
}

impl Store {
    /// Opens it. A directory must exist: one that is not there may be a disk that is not mounted. Nothing is asked of a bucket yet.
    pub(crate) fn open(address: &Address, reach: &Reach, io: Io) -> Result<Self, Failure> {
        let failed = |error: Error| Failure::Store(cause(&error));
        match address {
            Address::Directory(path) => {
                let objects = LocalFileSystem::new_with_prefix(path).map_err(failed)?.with_fsync(true);
                Ok(Self { io, objects: Arc::new(objects), kind: Kind::Directory(path.clone()) })
            }
            Address::S3 { bucket, .. } => {
                let objects = Arc::new(bucket_builder(bucket, reach).build().map_err(failed)?);
                Ok(Self { io, objects: objects.clone(), kind: Kind::Bucket(objects) })
            }
        }
    }

    /// A directory that is gone must not be made again: its disk may come back.
    fn is_there(&self) -> Result<(), Failure> {
        match &self.kind {
            Kind::Directory(path) if !path.is_dir() => {
                Err(Failure::Store(format!("{} is no directory any more", path.display())))
            }
            Kind::Directory(_) | Kind::Bucket(_) => Ok(()),
        }
    }

    /// Size of an object in bytes; None: there is none.
    pub(crate) fn size(&self, object: &Path) -> Result<Option<u64>, Failure> {
        self.is_there()?;
        self.io.wait(async {
            match self.objects.head(object).await {
                Ok(found) => Ok(Some(found.size)),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    /// A whole object in one request.
    pub(crate) fn put(&self, object: &Path, bytes: Vec<u8>) -> Result<(), Failure> {
        self.is_there()?;
        self.io.wait(self.objects.put(object, PutPayload::from(bytes))).map(|_| ())
    }

    /// Begins an upload of several parts. Its `note` is there before anything that it would have to clear away.
    pub(crate) fn begin(&self, object: &Path, note: &Path) -> Result<Parts, Failure> {
        self.is_there()?;
        match &self.kind {
            Kind::Directory(_) => self.io.wait(self.objects.put_multipart(object)).map(Parts::Directory),
            Kind::Bucket(bucket) => {
                let id = self.io.wait(bucket.create_multipart(object))?;
                self.put(note, id.clone().into_bytes())?;
                Ok(Parts::Bucket { object: object.clone(), id, sent: Vec::new(), note: note.clone() })
            }
        }
    }

    /// The next part.
    pub(crate) fn part(&self, parts: &mut Parts, bytes: Vec<u8>) -> Result<(), Failure> {
        let payload = PutPayload::from(bytes);
        match (parts, &self.kind) {
            (Parts::Bucket { object, id, sent, .. }, Kind::Bucket(bucket)) => {
                let part = self.io.wait(bucket.put_part(object, id, sent.len(), payload))?;
                sent.push(part);
                Ok(())
            }
            (Parts::Directory(upload), _) => {
                self.is_there()?;
                let part = upload.put_part(payload);
                self.io.wait(part)
            }
            (Parts::Bucket { .. }, Kind::Directory(_)) => unreachable!("this store began it"),
        }
    }

    /// The parts become the object.
    pub(crate) fn complete(&self, parts: &mut Parts) -> Result<(), Failure> {
        match (parts, &self.kind) {
            (Parts::Bucket { object, id, sent, note }, Kind::Bucket(bucket)) => {
                self.io.wait(bucket.complete_multipart(object, id, sent.clone()))?;
                // Left behind, it is cleared away by the next leader.
                let _ = self.io.wait(self.objects.delete(note));
                Ok(())
            }
            (Parts::Directory(upload), _) => {
                self.is_there()?;
                self.io.wait(upload.complete()).map(|_| ())
            }
            (Parts::Bucket { .. }, Kind::Directory(_)) => unreachable!("this store began it"),
        }
    }

    /// Throws the parts away, if the store can be reached; else a later leader does.
    pub(crate) fn abort(&self, mut parts: Parts) {
        let _ = match (&mut parts, &self.kind) {
            (Parts::Bucket { object, id, note, .. }, Kind::Bucket(bucket)) => self.throw_away(bucket, object, id, note),
            (Parts::Directory(upload), _) => self.io.wait(upload.abort()),
            (Parts::Bucket { .. }, Kind::Directory(_)) => unreachable!("this store began it"),
        };
    }

    fn throw_away(&self, bucket: &AmazonS3, object: &Path, id: &MultipartId, note: &Path) -> Result<(), Failure> {
        self.io.wait(gone_is_fine(bucket.abort_multipart(object, id)))?;
        self.io.wait(gone_is_fine(self.objects.delete(note)))
    }

    /// Throws away what earlier leaders left half done; how many uploads these were. One that still sends has its upload taken away: it fails,
    /// and sees that it leads no longer.
    pub(crate) fn clear_leftovers(&self, keys: &Keys) -> Result<u64, Failure> {
        self.is_there()?;
        match &self.kind {
            Kind::Directory(path) => Ok(clear_directory(path, &keys.blobs())),
            Kind::Bucket(bucket) => {
                let folder = keys.uploads();
                let mut notes = self.objects.list(Some(&folder));
                let mut cleared = 0;
                while let Some(note) = self.io.wait(async { notes.next().await.transpose() })? {
                    let Some(object) = keys.noted(&note.location).filter(|_| note.size <= NOTE_BYTES_MAX) else {
                        continue;
                    };
                    let read = async { self.objects.get(&note.location).await?.bytes().await };
                    let id = String::from_utf8_lossy(&self.io.wait(read)?).into_owned();
                    self.throw_away(bucket, &object, &id, &note.location)?;
                    cleared += 1;
                }
                Ok(cleared)
            }
        }
    }
}

async fn gone_is_fine(work: impl std::future::Future<Output = object_store::Result<()>>) -> object_store::Result<()> {
    match work.await {
        Err(Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}

/// Files that never got their name: `object_store` writes `NAME#N` first. What cannot be removed is in nobody's way.
fn clear_directory(root: &std::path::Path, blobs: &Path) -> u64 {
    let folder = blobs.parts().fold(root.to_owned(), |folder, part| folder.join(part.as_ref()));
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let half = |name: &str| {
        let number = name.split_once('#').map(|(_, number)| number);
        number.is_some_and(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let leftovers = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(half));
    leftovers.filter(|entry| std::fs::remove_file(entry.path()).is_ok()).count() as u64
}

fn bucket_builder(bucket: &str, reach: &Reach) -> AmazonS3Builder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // An error says that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let ms = |ms: u64| format!("{ms}ms");
    let client = |key| AmazonS3ConfigKey::Client(key);
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_config(client(ClientConfigKey::Timeout), ms(REQUEST_MS))
        .with_config(client(ClientConfigKey::ConnectTimeout), ms(CONNECT_MS))
        .with_config(client(ClientConfigKey::PoolIdleTimeout), ms(CONNECTION_IDLE_MS))
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: REQUEST_RETRIES,
            retry_timeout: std::time::Duration::from_millis(REQUEST_RETRY_MS),
        });
    if let Some(endpoint) = &reach.endpoint {
        // Of the two that there are, the one that counts.
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    if let Some(region) = &reach.region {
        builder = builder.with_region(region);
    }
    builder = builder.with_config(client(ClientConfigKey::AllowHttp), reach.plain.to_string());
    if reach.plain {
        // Without TLS nobody's certificate is looked at, and a machine without any authority will do.
        builder = builder.with_config(client(ClientConfigKey::NoSystemCertificates), "true");
    }
    builder
}
