//! The thread `state-flush`: asks RocksDB for flushes, so that who writes the tables never waits for one.
//!
//! RocksDB lets even a flush that is not to be waited for wait before it begins, for as long as one more young file or full memtable would
//! slow writers down: behind a bulk load that was ten seconds of the apply thread.

use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rocksdb::{FlushOptions, DB};

/// One thread; ends when this is dropped, which waits for the flush under way to begin.
pub(crate) struct Flusher {
    /// Holds one order: whatever is written until it is taken up is part of it.
    orders: Option<SyncSender<()>>,
    failed: Arc<Mutex<Option<rocksdb::Error>>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    /// Starts the thread; the error is the system's, which has no thread to give.
    pub(crate) fn start(db: Arc<DB>) -> std::io::Result<Self> {
        let (orders, queue) = sync_channel(1);
        let failed = Arc::new(Mutex::new(None));
        let failure = failed.clone();
        let body = move || run(&db, &queue, &failure);
        let thread = std::thread::Builder::new().name("state-flush".to_owned()).spawn(body)?;
        Ok(Self { orders: Some(orders), failed, thread: Some(thread) })
    }

    /// Orders a flush of everything written so far. Never blocks. An error is that of an earlier one, told once.
    pub(crate) fn order(&self) -> Result<(), rocksdb::Error> {
        if let Some(error) = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        if let Some(orders) = &self.orders {
            // One that waits already covers this one.
            let _ = orders.try_send(());
        }
        Ok(())
    }
}

fn run(db: &DB, orders: &Receiver<()>, failed: &Mutex<Option<rocksdb::Error>>) {
    let mut options = FlushOptions::default();
    options.set_wait(false);
    for () in orders {
        if let Err(error) = db.flush_opt(&options) {
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so itself.
            let _ = thread.join();
        }
    }
}
