//! Disk budgets: how much artifacts may take, of each replica and of each principal. What they take is in the rows, counted by apply; what a
//! replica gives is its setting, which it has recorded (SetRoom), so that whoever places bytes knows it. Apply checks both once more.

use std::collections::BTreeMap;
use std::sync::Arc;

use raftgrid_manifest::{views, Rows, NAMES_SINCE};
use raftgrid_proto::v1::{Command, Command_oneof_kind, SetRoom};

use crate::limits::ROOM_SAID_AGAIN_LOOKS;
use crate::polls::rows_failed;
use crate::ports::{CallError, Commands};
use crate::proposals::Proposals;
use crate::views::Views;

/// What the settings say about artifacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobSettings {
    /// Bytes of fragments on this replica; 0: no limit.
    pub bytes_max: u64,
    /// Bytes of the artifacts of one principal, as this replica proposes them; 0: no limit.
    pub principal_bytes_max: u64,
    /// Whether what this replica takes in is coded from 128 KiB on; else it is in plain copies.
    pub coded: bool,
}

impl Default for BlobSettings {
    fn default() -> Self {
        Self { bytes_max: 0, principal_bytes_max: 0, coded: true }
    }
}

impl BlobSettings {
    /// An error if `total_bytes` more are beyond what the principal may hold.
    pub(crate) fn check_principal(self, rows: &dyn Rows, principal: &str, total_bytes: u64) -> Result<(), CallError> {
        let most = self.principal_bytes_max;
        if most == 0 {
            return Ok(());
        }
        let used = views::bytes_of(rows, principal).map_err(rows_failed)?;
        if used.saturating_add(total_bytes) > most {
            let why =
                format!("your artifacts hold {used} of {most} bytes, and this one has {total_bytes}; delete some");
            return Err(CallError::Exhausted(why));
        }
        Ok(())
    }
}

/// Bytes that each of `nodes` may still get.
pub(crate) fn left(rows: &dyn Rows, nodes: &[u64]) -> Result<BTreeMap<u64, u64>, CallError> {
    let one = |node: &u64| {
        let room = views::room_of(rows, *node).map_err(rows_failed)?;
        Ok((*node, if room.bytes_max == 0 { u64::MAX } else { room.bytes_max.saturating_sub(room.bytes) }))
    };
    nodes.iter().map(one).collect()
}

/// Has this replica's own limit recorded, whenever the rows say another.
pub(crate) struct RoomSpeaker {
    /// This replica.
    pub node: u64,
    /// The setting.
    pub bytes_max: u64,
    /// Rows.
    pub views: Arc<dyn Views>,
    /// Writes.
    pub proposals: Arc<Proposals>,
    /// Looks until it is said again: a proposal may have been lost.
    pub again_in: u32,
}

impl RoomSpeaker {
    /// One look; blocks for no answer.
    pub(crate) fn look(&mut self) {
        self.again_in = self.again_in.saturating_sub(1);
        if self.again_in > 0 || self.proposals.versions.current() < NAMES_SINCE {
            return;
        }
        let (rows, _) = self.views.view();
        let member = views::members(rows.as_ref()).is_ok_and(|all| all.iter().any(|row| row.node_id == self.node));
        if !member || !views::room_of(rows.as_ref(), self.node).is_ok_and(|room| room.bytes_max != self.bytes_max) {
            return;
        }
        self.again_in = ROOM_SAID_AGAIN_LOOKS;
        let set = SetRoom { node_id: self.node, bytes_max: self.bytes_max, ..SetRoom::default() };
        let command = Command { kind: Some(Command_oneof_kind::set_room(set)), ..Command::default() };
        self.proposals.propose(vec![command], Box::new(|_| ()));
    }
}
