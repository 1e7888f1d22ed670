//! Opens a data directory: founds it, or checks that what is in it belongs together, and removes what a crash left
//! behind.
//!
//! The order matters. The identity is compared before anything is touched. The log database is opened first of the
//! databases: its lock keeps a second process out, and it alone says which state directory is the right one. A new
//! directory gets its tables, then its mark, then the base of its log in one synced batch; until that batch is
//! durable the directory counts as never started, and the next start begins again.

use std::path::Path;

use raftgrid_driver::{mutant, ConfState, HardState, InitialState, NodeId, SnapshotMeta, SyncMark};

use crate::codec::normalised;
use crate::disk::{Disk, DiskError, DiskErrorKind, LogDb};
use crate::error::StoreError;
use crate::identity::{self, Identity};
use crate::layout::{is_staging, parse_state, state_name, Layout};
use crate::limits::{CLUSTER_ID_BYTES_MAX, MEMBERS_MAX};
use crate::log::records::Base;
use crate::log::{self, RaftLog, Window};
use crate::mark::{self, Found};
use crate::peer_stores::PeerStores;
use crate::shelf::SnapshotShelf;
use crate::tables::StateTables;

/// How a replica starts. On a directory that was started before, both forms open what is there: the list of founders
/// is then only looked at through the cluster id, which is derived from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootMode {
    /// One of the founders of a cluster: it starts with their configuration, the same base as all of them.
    Found {
        /// Derived from name and list, so that two different foundings refuse each other.
        cluster_id: String,
        /// This replica; one of the founders.
        node_id: NodeId,
        /// All founders.
        founders: Vec<NodeId>,
    },
    /// Everybody else: empty, to be started by a snapshot only.
    Join {
        /// The cluster that will let it in.
        cluster_id: String,
        /// This replica.
        node_id: NodeId,
    },
}

impl BootMode {
    fn cluster_id(&self) -> &str {
        match self {
            BootMode::Found { cluster_id, .. } | BootMode::Join { cluster_id, .. } => cluster_id,
        }
    }

    fn node_id(&self) -> NodeId {
        match self {
            BootMode::Found { node_id, .. } | BootMode::Join { node_id, .. } => *node_id,
        }
    }

    /// The configuration of the founding base; None when joining.
    fn founding(&self) -> Result<Option<ConfState>, StoreError> {
        let wrong = |cause: &str| Err(StoreError::Founders { cause: cause.to_owned() });
        if self.node_id() == 0 {
            return wrong("node id 0 is not allowed");
        }
        if self.cluster_id().is_empty() || self.cluster_id().len() > CLUSTER_ID_BYTES_MAX {
            return wrong("the cluster id is empty or too long");
        }
        match self {
            BootMode::Join { node_id, .. } if mutant::on("joiner_founds_itself") => {
                Ok(Some(normalised(&ConfState { voters: vec![*node_id], ..ConfState::default() })))
            }
            BootMode::Join { .. } => Ok(None),
            BootMode::Found { node_id, founders, .. } => {
                let conf = normalised(&ConfState { voters: founders.clone(), ..ConfState::default() });
                if conf.voters.len() != founders.len() || founders.contains(&0) || founders.len() > MEMBERS_MAX {
                    return wrong("a node id is listed twice, or is 0, or there are too many");
                }
                if !founders.contains(node_id) {
                    return wrong("this replica is not on the list");
                }
                Ok(Some(conf))
            }
        }
    }
}

/// What a boot did beside opening; for one line in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootReport {
    /// The directory was new, or its first start had not got as far as its base.
    pub created: bool,
    /// Leftovers removed: names of directories.
    pub removed: Vec<String>,
}

/// An opened data directory.
pub struct Booted<D: Disk> {
    /// Who this replica is.
    pub identity: Identity,
    /// The raft log, for the driver.
    pub log: RaftLog<D>,
    /// The state tables, for the apply thread.
    pub tables: StateTables<D>,
    /// Snapshots, for the transport.
    pub snapshots: SnapshotShelf<D>,
    /// The stores that other replicas spoke from, for the transport.
    pub peer_stores: PeerStores<D>,
    /// What the boot did.
    pub report: BootReport,
}

/// Opens data directories.
pub struct Store;

impl Store {
    /// Opens `dir`, or makes it. One process at a time: a second one gets `Busy`. After an error nothing was lost and
    /// nothing is open.
    pub fn open<D: Disk>(disk: D, dir: &Path, mode: BootMode) -> Result<Booted<D>, StoreError> {
        let founding = mode.founding()?;
        let layout = Layout::new(dir);
        let boot = Boot { disk, layout, mode };
        boot.run(founding)
    }

    /// The identity of a directory, if it has one: for tools, and for a start that leaves the node id out.
    pub fn identity<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Identity>, StoreError> {
        identity::read(disk, &Layout::new(dir))
    }
}

struct Boot<D: Disk> {
    disk: D,
    layout: Layout,
    mode: BootMode,
}

impl<D: Disk> Boot<D> {
    fn lost(&self, cause: impl Into<String>) -> StoreError {
        StoreError::LostLog { dir: self.layout.show(), cause: cause.into() }
    }

    fn damaged(&self, cause: impl Into<String>) -> StoreError {
        StoreError::Damaged { dir: self.layout.show(), cause: cause.into() }
    }

    /// A failure of the log database at boot.
    fn log_error(&self, error: DiskError) -> StoreError {
        match error.kind {
            DiskErrorKind::Locked => StoreError::Busy { dir: self.layout.show() },
            DiskErrorKind::Corrupted | DiskErrorKind::Missing => self.lost(error.to_string()),
            DiskErrorKind::NoSpace | DiskErrorKind::Other => StoreError::Disk(error),
        }
    }

    fn run(self, founding: Option<ConfState>) -> Result<Booted<D>, StoreError> {
        let (disk, layout) = (&self.disk, &self.layout);
        let (cluster_id, node_id) = (self.mode.cluster_id(), self.mode.node_id());
        if let Some(identity) = identity::read(disk, layout)? {
            identity::check(&identity, layout, cluster_id, node_id)?;
        }
        disk.create_dir(&layout.root)?;
        let db = disk.open_log(&layout.log()).map_err(|error| self.log_error(error))?;
        // From here on this process is alone.
        let base = log::read_base(&db).map_err(|error| self.log_error(error))?.map_err(|cause| self.lost(cause))?;
        let identity = match identity::read(disk, layout)? {
            Some(identity) => {
                identity::check(&identity, layout, cluster_id, node_id)?;
                identity
            }
            None if base.is_some() => return Err(self.damaged("it holds a log, but no identity")),
            None => identity::create(disk, layout, cluster_id, node_id)?,
        };
        let (created, base, mark) = match (base, mark::read(disk, layout)?) {
            (_, Found::Bad) => return Err(self.lost("the checksum of the mark is wrong")),
            (Some(_), Found::Nothing) => return Err(self.lost("the file synced is gone")),
            (Some(base), Found::Mark(mark)) => (false, base, mark),
            (None, Found::Mark(mark)) if mark != SyncMark::default() => {
                return Err(self.lost(format!("the log is empty, but it reached {}", mark.last_index)));
            }
            (None, Found::Nothing | Found::Mark(_)) => {
                (true, self.create(&db, founding.as_ref())?, SyncMark::default())
            }
        };
        let mut removed = self.clean(&base.state_dir)?;
        let shelf = SnapshotShelf::new(disk.clone(), layout.clone());
        removed.extend(shelf.load()?);
        if disk.list(&layout.entry(&base.state_dir))?.is_empty() {
            return Err(self.damaged(format!("the state directory {} is gone", base.state_dir)));
        }
        let window = log::load(&db, base).map_err(|error| self.log_error(error))?.map_err(|cause| self.lost(cause))?;
        let tables = self.open_tables(&window, shelf.clone())?;
        self.check_mark(&window, &mark)?;
        let mark = self.renew_mark(&db, &window, mark)?;
        self.check_tables(&window, &tables)?;
        if founding.is_some() && window.snapshot().index == 0 {
            return Err(StoreError::FoundingJoiner { dir: layout.show() });
        }
        let mut hard_state = window.hard_state;
        hard_state.commit = hard_state.commit.max(tables.applied().0);
        let conf = tables.conf().cloned().unwrap_or_default();
        let initial = InitialState { hard_state, conf, applied: tables.applied().0 };
        let log = RaftLog::new(disk.clone(), layout.clone(), db, window, mark, shelf.clone(), initial);
        let peer_stores = PeerStores::open(disk.clone(), layout.clone())?;
        Ok(Booted { identity, log, tables, snapshots: shelf, peer_stores, report: BootReport { created, removed } })
    }

    /// Makes the tables, the mark and the base of a new replica.
    fn create(&self, db: &D::Log, founding: Option<&ConfState>) -> Result<Base, StoreError> {
        let (disk, layout) = (&self.disk, &self.layout);
        self.clean("")?;
        let meta = match founding {
            Some(conf) => SnapshotMeta { index: 1, term: 1, conf: conf.clone() },
            None => SnapshotMeta::default(),
        };
        let state_dir = state_name(meta.index, disk.nonce());
        {
            let shelf = SnapshotShelf::new(disk.clone(), layout.clone());
            let mut tables = StateTables::open(disk.clone(), layout.clone(), &state_dir, shelf)?;
            if founding.is_some() {
                tables.commit(&[], (meta.index, meta.term), Some(&meta.conf))?;
            }
            tables.flush()?;
        }
        disk.sync_dir(&layout.entry(&state_dir))?;
        // Also makes the names of the identity, the tables and the log durable.
        mark::create(disk, layout)?;
        let hard_state = HardState { term: meta.term, vote: 0, commit: meta.index };
        let base = Base { state_dir, snapshot: meta };
        log::found(db, &base, &hard_state)?;
        if let Some(parent) = layout.root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            disk.sync_dir(parent)?;
        }
        Ok(base)
    }

    /// Removes state directories that the log does not name, and half-received snapshots.
    fn clean(&self, current: &str) -> Result<Vec<String>, StoreError> {
        let mut removed = Vec::new();
        for entry in self.disk.list(&self.layout.root)? {
            let leftover = is_staging(&entry.name) || parse_state(&entry.name).is_some();
            if entry.is_dir && leftover && entry.name != current {
                self.disk.remove_dir(&self.layout.entry(&entry.name))?;
                removed.push(entry.name);
            }
        }
        Ok(removed)
    }

    fn open_tables(&self, window: &Window, shelf: SnapshotShelf<D>) -> Result<StateTables<D>, StoreError> {
        let name = &window.base.state_dir;
        StateTables::open(self.disk.clone(), self.layout.clone(), name, shelf).map_err(|error| match error {
            StoreError::Disk(error) if matches!(error.kind, DiskErrorKind::Corrupted | DiskErrorKind::Missing) => {
                self.damaged(error.to_string())
            }
            // A view or a checkpointer of an earlier opening in this process.
            StoreError::Disk(error) if error.kind == DiskErrorKind::Locked => {
                StoreError::Busy { dir: self.layout.show() }
            }
            other => other,
        })
    }

    /// Rule 7: the log must reach as far as the mark says.
    fn check_mark(&self, window: &Window, mark: &SyncMark) -> Result<(), StoreError> {
        let state = &window.hard_state;
        if mutant::on("mark_not_compared") {
            return Ok(());
        }
        if mark.last_index > window.last {
            return Err(self.lost(format!("it ends at {}, but it reached {}", window.last, mark.last_index)));
        }
        if mark.last_index >= window.first() && window.term(mark.last_index).ok() != Some(mark.last_term) {
            return Err(self.lost(format!("entry {} is not of term {}", mark.last_index, mark.last_term)));
        }
        if state.term < mark.term {
            return Err(self.lost(format!("its term is {}, but it was {}", state.term, mark.term)));
        }
        if state.term == mark.term && mark.vote != 0 && state.vote != mark.vote {
            return Err(self.lost(format!("its vote of term {} was for {}, not {}", mark.term, mark.vote, state.vote)));
        }
        if state.commit > window.last {
            return Err(self.lost(format!("it ends at {}, but {} was committed", window.last, state.commit)));
        }
        Ok(())
    }

    /// The mark is overwritten without an fsync, so a power cut may have put an older one in its place. The log, as it was found and checked,
    /// must be there at the next boot, too.
    fn renew_mark(&self, db: &D::Log, window: &Window, mark: SyncMark) -> Result<SyncMark, StoreError> {
        let state = &window.hard_state;
        let last_term = window.term(window.last).map_err(|error| self.lost(error.to_string()))?;
        let (last_index, term, vote) = (window.last, state.term, state.vote);
        let found = SyncMark { ready_number: mark.ready_number, last_index, last_term, term, vote };
        if found != mark {
            // A process that was killed may have left entries that no fsync has covered yet.
            db.sync()?;
            mark::renew(&self.disk, &self.layout, &found)?;
        }
        Ok(found)
    }

    /// Rule 4, and the founding rule: the tables stand in the log, and their configuration is the base's or a later
    /// one.
    fn check_tables(&self, window: &Window, tables: &StateTables<D>) -> Result<(), StoreError> {
        let (index, term) = tables.applied();
        let snapshot = window.snapshot();
        if index > window.last {
            return Err(self.lost(format!("it ends at {}, but {index} was applied", window.last)));
        }
        if index < window.truncated.0 {
            let start = window.first();
            return Err(self.damaged(format!("the state tables stand at {index}, but the log starts at {start}")));
        }
        if window.term(index).ok() != Some(term) {
            return Err(self.lost(format!("entry {index} is not of term {term}, as it was when it was applied")));
        }
        let right = match (tables.conf(), snapshot.index) {
            // A joiner has no configuration until a snapshot brings one.
            (conf, 0) => conf.is_none() && index == 0,
            (None, _) => false,
            (Some(conf), _) => index > snapshot.index || *conf == normalised(&snapshot.conf),
        };
        if !right {
            return Err(
                self.damaged(format!("the configuration of the state tables at {index} is not that of the log"))
            );
        }
        Ok(())
    }
}
