//! Panics of replicas: a replica ends its process so when it must, and the world looks whether it had to.

use std::cell::{Cell, RefCell};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

/// While it lives, panics on this thread are kept instead of printed.
pub struct Quiet(());

/// From now on, until the guard is dropped, panics on this thread are kept.
pub fn quiet() -> Quiet {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if QUIET.with(Cell::get) {
                LAST.with(|last| *last.borrow_mut() = info.to_string());
            } else {
                before(info);
            }
        }));
    });
    QUIET.with(|quiet| quiet.set(true));
    Quiet(())
}

impl Drop for Quiet {
    fn drop(&mut self) {
        QUIET.with(|quiet| quiet.set(false));
    }
}

/// What the last panic on this thread said.
pub fn last() -> String {
    LAST.with(|last| last.borrow().replace('\n', " "))
}
