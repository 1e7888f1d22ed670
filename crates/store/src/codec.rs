//! Bytes of the store's own records: little-endian numbers, byte strings with a length before them. Nothing here
//! knows keys.

use raftgrid_driver::{ConfState, NodeId, SnapshotMeta};

use crate::limits::MEMBERS_MAX;

/// Appends to a record.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        let length = u32::try_from(value.len()).expect("records are far below 4 GiB");
        self.u32(length);
        self.0.extend_from_slice(value);
    }

    fn nodes(&mut self, nodes: &[NodeId]) {
        self.u32(u32::try_from(nodes.len()).expect("a configuration is small"));
        for node in nodes {
            self.u64(*node);
        }
    }

    pub(crate) fn conf(&mut self, conf: &ConfState) {
        let conf = normalised(conf);
        self.nodes(&conf.voters);
        self.nodes(&conf.learners);
        self.nodes(&conf.voters_outgoing);
        self.nodes(&conf.learners_next);
        self.u8(u8::from(conf.auto_leave));
    }

    pub(crate) fn meta(&mut self, meta: &SnapshotMeta) {
        self.u64(meta.index);
        self.u64(meta.term);
        self.conf(&meta.conf);
    }
}

/// Takes a record apart; None means that it is not one.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.take(length)
    }

    fn nodes(&mut self) -> Option<Vec<NodeId>> {
        let count = usize::try_from(self.u32()?).ok()?;
        if count > MEMBERS_MAX {
            return None;
        }
        (0..count).map(|_| self.u64()).collect()
    }

    pub(crate) fn conf(&mut self) -> Option<ConfState> {
        Some(ConfState {
            voters: self.nodes()?,
            learners: self.nodes()?,
            voters_outgoing: self.nodes()?,
            learners_next: self.nodes()?,
            auto_leave: match self.u8()? {
                0 => false,
                1 => true,
                _ => return None,
            },
        })
    }

    pub(crate) fn meta(&mut self) -> Option<SnapshotMeta> {
        Some(SnapshotMeta { index: self.u64()?, term: self.u64()?, conf: self.conf()? })
    }

    /// Nothing may be left over.
    pub(crate) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// The same configuration with its lists in order: raft-rs gives them in the order of a hash table, and equal ones
/// must compare equal.
pub(crate) fn normalised(conf: &ConfState) -> ConfState {
    let sorted = |nodes: &[NodeId]| {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    };
    ConfState {
        voters: sorted(&conf.voters),
        learners: sorted(&conf.learners),
        voters_outgoing: sorted(&conf.voters_outgoing),
        learners_next: sorted(&conf.learners_next),
        auto_leave: conf.auto_leave,
    }
}
