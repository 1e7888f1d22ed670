//! Deletes bytes that the manifest gave up. Follows the ring; one thread a replica.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{bounded, Receiver, Sender};
use protobuf::Message;
use raftgrid_blob::{generation_of, FragmentStore};
use raftgrid_manifest::{views, Table};
use raftgrid_proto::v1::{ArtifactRow, ArtifactState};
use slog::{warn, Logger};

use crate::limits::RING_EVENTS_MAX;
use crate::ring::{Ring, Since};
use crate::views::Views;

/// What the thread works with.
pub(crate) struct Janitor {
    /// Files.
    pub files: FragmentStore,
    /// Changes.
    pub ring: Ring,
    /// Rows.
    pub views: Arc<dyn Views>,
    /// Log.
    pub logger: Logger,
}

/// Publications without an artifact after which the janitor moves on nonetheless: whoever stands still falls out of the ring.
const PASSED_MAX: usize = RING_EVENTS_MAX / 16;

/// Ends the thread when it is dropped.
pub(crate) struct JanitorStop(#[allow(dead_code, reason = "the thread ends when this sender is gone")] Sender<()>);

/// A janitor that was told where the changes come from: it works when it is told that there are some.
pub(crate) struct Rounds {
    janitor: Janitor,
    position: u64,
    woken: Receiver<()>,
}

/// Ties the janitor to the ring.
pub(crate) fn rounds(janitor: Janitor) -> Rounds {
    let (wake, woken) = bounded(1);
    let since_woken = AtomicUsize::new(0);
    janitor.ring.tap(Box::new(move |changes| {
        let passed = since_woken.fetch_add(1, Ordering::Relaxed);
        let concerns = changes.is_empty() || changes.iter().any(|change| change.table == Table::Artifact);
        if concerns || passed >= PASSED_MAX {
            since_woken.store(0, Ordering::Relaxed);
            // One pending wake is enough.
            let _ = wake.try_send(());
        }
    }));
    Rounds { janitor, position: 0, woken }
}

/// Starts the thread.
pub(crate) fn start(mut rounds: Rounds) -> (JanitorStop, JoinHandle<()>) {
    let (stop, stopped) = bounded(0);
    let thread = std::thread::Builder::new()
        .name("janitor".to_owned())
        .spawn(move || rounds.run(&stopped))
        .expect("a thread can be started while the process boots");
    (JanitorStop(stop), thread)
}

impl Rounds {
    fn run(&mut self, stopped: &Receiver<()>) {
        loop {
            self.round();
            crossbeam::channel::select! {
                recv(self.woken) -> wake => if wake.is_err() { return },
                recv(stopped) -> _ => return,
            }
        }
    }

    /// Whether there is something new; told once.
    pub(crate) fn take_wake(&self) -> bool {
        self.woken.try_recv().is_ok()
    }

    /// Whether `take_wake` would be true.
    pub(crate) fn is_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// Looks at everything that changed since the last round.
    pub(crate) fn round(&mut self) {
        let janitor = &self.janitor;
        match janitor.ring.since(self.position) {
            Since::Compacted => {
                let (_, at) = janitor.views.view();
                self.position = at;
                janitor.sweep();
            }
            Since::Events(events) => {
                for event in events {
                    self.position = event.position;
                    for change in event.changes.iter().filter(|change| change.table == Table::Artifact) {
                        janitor.look(&change.key, change.value.as_deref());
                    }
                }
            }
        }
    }
}

impl Janitor {
    fn look(&self, key: &[u8], value: Option<&[u8]>) {
        let Some(artifact_id) = key.try_into().ok().map(u64::from_be_bytes) else { return };
        let row = match value.map(ArtifactRow::parse_from_bytes) {
            None => return self.delete(artifact_id),
            Some(Err(_)) => return,
            Some(Ok(row)) => row,
        };
        match row.state {
            ArtifactState::ARTIFACT_DELETING => self.delete(artifact_id),
            ArtifactState::ARTIFACT_COMMITTED => self.delete_older(&row),
            ArtifactState::ARTIFACT_BEGUN => {}
        }
    }

    /// What was coded anew is in other files. Those of a generation that is not the row's yet stay.
    fn delete_older(&self, row: &ArtifactRow) {
        if row.generation == 0 {
            return;
        }
        let Ok(numbers) = self.files.fragments(row.artifact_id) else { return };
        for number in numbers.into_iter().filter(|number| generation_of(*number) < row.generation) {
            if let Err(error) = self.files.remove_fragment(row.artifact_id, number) {
                warn!(self.logger, "fragment not deleted"; "artifact" => row.artifact_id, "cause" => %error);
            }
        }
    }

    /// Everything on the disk against the rows: at the start, and after falling out of the ring.
    fn sweep(&self) {
        let Ok(on_disk) = self.files.artifacts() else { return };
        let (rows, position) = self.views.view();
        for artifact_id in on_disk {
            // An id above the applied position is an upload whose begin this replica has not applied yet.
            let gone = match views::artifact_row(rows.as_ref(), artifact_id) {
                Ok(Some(row)) => {
                    if row.state == ArtifactState::ARTIFACT_COMMITTED {
                        self.delete_older(&row);
                    }
                    row.state == ArtifactState::ARTIFACT_DELETING
                }
                Ok(None) => artifact_id < position,
                Err(_) => false,
            };
            if gone {
                self.delete(artifact_id);
            }
        }
    }

    fn delete(&self, artifact_id: u64) {
        if let Err(error) = self.files.remove(artifact_id) {
            warn!(self.logger, "artifact not deleted"; "artifact" => artifact_id, "cause" => %error);
        }
    }
}
