//! A callback that is called exactly once, whatever happens to the queue it waits in.

/// Called with an outcome, or, when it is dropped, with its fallback.
pub(super) struct Reply<T> {
    callback: Option<Box<dyn FnOnce(T) + Send>>,
    fallback: Option<T>,
}

impl<T> Reply<T> {
    pub(super) fn new(callback: Box<dyn FnOnce(T) + Send>, fallback: T) -> Self {
        Self { callback: Some(callback), fallback: Some(fallback) }
    }

    /// From now on, being dropped means something else.
    pub(super) fn set_fallback(&mut self, fallback: T) {
        self.fallback = Some(fallback);
    }

    pub(super) fn call(mut self, outcome: T) {
        if let Some(callback) = self.callback.take() {
            callback(outcome);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let (Some(callback), Some(fallback)) = (self.callback.take(), self.fallback.take()) {
            callback(fallback);
        }
    }
}
