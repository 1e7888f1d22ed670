//! SetMachineVersion.

use raftgrid_proto::v1::SetMachineVersion;

use crate::commands::{shard_states, MACHINE_VERSION};
use crate::error::{ApplyError, Fault, Handled};
use crate::machine::Machine;
use crate::reply::precondition;
use crate::tables::{count_all, put_usage, USAGE_SINCE};

/// The version never falls. One that this binary does not know stops it: the replicas that know it go on in a way it could not follow.
pub(crate) fn set_version(machine: &mut Machine<'_>, command: &SetMachineVersion) -> Handled {
    if command.version > MACHINE_VERSION {
        return Err(Fault::Stop(ApplyError::UnknownVersion {
            index: machine.position.index(),
            wanted: command.version,
            known: MACHINE_VERSION,
        }));
    }
    let current = machine.meta.machine_version;
    if command.version < current {
        return Err(precondition(format!("the cluster is at machine version {current}, which never falls")));
    }
    if command.version > current {
        machine.meta.machine_version = command.version;
        machine.meta.version_since = machine.position.get();
        machine.meta.version_since_ms = machine.meta.cluster_time_ms;
        shard_states::raise(machine, current, command.version)?;
        if current < USAGE_SINCE && command.version >= USAGE_SINCE {
            // Once in a cluster's life: from here on each write of an artifact moves the counters.
            for (key, row) in count_all(&machine.rows)? {
                put_usage(machine, key, &row);
            }
        }
    }
    Ok(machine.ok())
}
