//! Calls of Python processes run on threads of their own: a gRPC completion thread must never wait for the control plane or a disk.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use crate::limits::CALLS_MAX;

/// Counts the calls that are under way.
#[derive(Clone, Default)]
pub(crate) struct Calls {
    under_way: Arc<AtomicUsize>,
}

struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Calls {
    /// Runs `body` on a thread of its own. False: too many are under way, or there is no thread; `body` is dropped, which ends its call.
    pub(crate) fn spawn(&self, body: impl FnOnce() + Send + 'static) -> bool {
        let guard = Guard(self.under_way.clone());
        if self.under_way.fetch_add(1, Ordering::SeqCst) >= CALLS_MAX {
            return false;
        }
        let thread = std::thread::Builder::new().name("agent-call".to_owned());
        thread
            .spawn(move || {
                let _guard = guard;
                body();
            })
            .is_ok()
    }
}
