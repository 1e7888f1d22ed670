//! Where the other replicas are. Shared by everything that connects; looked at whenever a connection is made, so that a replica that moved
//! or came back is found at once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use raftgrid_driver::NodeId;

/// Node id → host:port of its Raft port.
#[derive(Debug, Default)]
pub struct AddressBook {
    entries: Mutex<BTreeMap<NodeId, String>>,
}

impl AddressBook {
    /// A book with these entries.
    pub fn new(entries: impl IntoIterator<Item = (NodeId, String)>) -> Self {
        Self { entries: Mutex::new(entries.into_iter().collect()) }
    }

    /// The address, if it is known.
    pub fn get(&self, node: NodeId) -> Option<String> {
        self.lock().get(&node).cloned()
    }

    /// From now on `node` is reached at `address`; connections that work are kept.
    pub fn set(&self, node: NodeId, address: String) {
        self.lock().insert(node, address);
    }

    /// Takes the word of `node` itself for where it is, if nothing else is known: a replica that joins knows some of the others only, and must
    /// answer whoever leads. "" says nothing.
    pub fn learn(&self, node: NodeId, address: &str) {
        if !address.is_empty() {
            self.lock().entry(node).or_insert_with(|| address.to_owned());
        }
    }

    /// Forgets a replica that was taken out.
    pub fn remove(&self, node: NodeId) {
        self.lock().remove(&node);
    }

    /// All entries, in order of the node id.
    pub fn all(&self) -> Vec<(NodeId, String)> {
        self.lock().iter().map(|(node, address)| (*node, address.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, String>> {
        // Each change is one statement, so a poisoned book is whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_believed_where_it_is_as_long_as_nobody_else_has_said() {
        let book = AddressBook::new([(1, "recorded:1".to_owned())]);
        book.learn(1, "elsewhere:1");
        book.learn(2, "");
        assert_eq!((book.get(1).as_deref(), book.get(2)), (Some("recorded:1"), None));
        book.learn(2, "itself:2");
        assert_eq!(book.get(2).as_deref(), Some("itself:2"));
        book.set(2, "recorded:2".to_owned());
        book.learn(2, "itself:2");
        assert_eq!(book.get(2).as_deref(), Some("recorded:2"), "what is replicated wins");
    }
}
