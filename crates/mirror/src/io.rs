//! The event loop that `object_store` needs: a thread of its own drives it, so that connections are looked after while the mirror's thread reads
//! an artifact. The mirror's thread blocks here, and nowhere else of the program knows that there is a loop.

use std::future::Future;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};

use crate::failure::{cause, Failure};
use crate::limits::{BLOCKING_THREADS, STOP_MS};

/// Owns the loop. Dropping it ends it.
pub(crate) struct Loop {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Waits for what the loop does, until the process ends.
#[derive(Clone)]
pub(crate) struct Io {
    handle: Handle,
    stopped: watch::Receiver<bool>,
}

impl Loop {
    /// Starts the thread. `stopped` turns true when nobody shall wait any more.
    pub(crate) fn start(stopped: watch::Receiver<bool>) -> std::io::Result<(Self, Io)> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("mirror-disk")
            .build()?;
        let io = Io { handle: runtime.handle().clone(), stopped };
        let (end, ended) = oneshot::channel::<()>();
        let body = move || {
            // Ends when the sender is gone, too.
            let _ = runtime.block_on(ended);
            runtime.shutdown_timeout(Duration::from_millis(STOP_MS));
        };
        let thread = std::thread::Builder::new().name("mirror-io".to_owned()).spawn(body)?;
        Ok((Self { end: Some(end), thread: Some(thread) }, io))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

impl Io {
    /// Whether the process ends.
    pub(crate) fn is_over(&self) -> bool {
        *self.stopped.borrow()
    }

    /// Blocks until `work` is done; it is dropped if the process ends before.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = object_store::Result<T>>) -> Result<T, Failure> {
        let mut stopped = self.stopped.clone();
        self.handle.block_on(async move {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|over| *over) => Err(Failure::Over),
                done = work => done.map_err(|error| Failure::Store(cause(&error))),
            }
        })
    }

    /// Waits so long; false: the process ends.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let pause = async {
            tokio::time::sleep(time).await;
            Ok(())
        };
        self.wait(pause).is_ok()
    }
}
