//! Which node speaks on which connection. Agents without leases name themselves in heartbeats and polls, but not in reports and not when
//! they ask for a model: there the connection stands for them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::context::Context;
use crate::limits;

#[derive(Default)]
struct Known {
    nodes: BTreeMap<String, String>,
    /// Connections, oldest first.
    order: VecDeque<String>,
}

/// Connection → node id; the oldest is forgotten first.
#[derive(Default)]
pub(crate) struct Callers {
    known: Mutex<Known>,
}

impl Callers {
    pub(crate) fn note(&self, context: &Context, node_id: &str) {
        if context.connection.is_empty() {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.nodes.insert(context.connection.clone(), node_id.to_owned()).is_none() {
            known.order.push_back(context.connection.clone());
        }
        if known.order.len() > limits::CALLERS_MAX {
            if let Some(oldest) = known.order.pop_front() {
                known.nodes.remove(&oldest);
            }
        }
    }

    /// "" if it is not known.
    pub(crate) fn node_of(&self, connection: &str) -> String {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.nodes.get(connection).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(connection: &str) -> Context {
        Context { connection: connection.to_owned(), ..Context::default() }
    }

    #[test]
    fn a_connection_is_remembered_until_too_many_came_after_it() {
        let callers = Callers::default();
        callers.note(&from("a:1"), "w1");
        callers.note(&from("b:2"), "w2");
        callers.note(&from("a:1"), "w3");
        assert_eq!((callers.node_of("a:1").as_str(), callers.node_of("b:2").as_str()), ("w3", "w2"));
        assert_eq!(callers.node_of("c:3"), "");
        for number in 0..limits::CALLERS_MAX - 1 {
            callers.note(&from(&format!("n:{number}")), "w");
        }
        assert_eq!(callers.node_of("a:1"), "", "the oldest is forgotten");
        assert_eq!(callers.node_of("b:2"), "w2");
    }
}
