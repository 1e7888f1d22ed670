//! The thread that starts all processes. The parent-death signal follows the *thread* that started a child, so this one never ends.

use std::process::{Child, Command};
use std::sync::OnceLock;

use crossbeam::channel::{bounded, Sender};

type Order = (Command, Sender<std::io::Result<Child>>);

fn orders() -> &'static Sender<Order> {
    static ORDERS: OnceLock<Sender<Order>> = OnceLock::new();
    ORDERS.get_or_init(|| {
        let (sender, receiver) = bounded::<Order>(1);
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                // Never ends: the sender lives in a static.
                for (mut command, answer) in receiver {
                    // Nobody waits for the answer any more: then the child is killed by whoever drops it.
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        sender
    })
}

/// Starts `command` from the spawner thread.
pub(crate) fn spawn(command: Command) -> std::io::Result<Child> {
    let (answer, result) = bounded(1);
    let gone = |_| std::io::Error::other("the spawner thread is gone");
    orders().send((command, answer)).map_err(|_| gone(()))?;
    result.recv().map_err(|_| gone(()))?
}
