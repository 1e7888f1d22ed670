//! Rows of replicated keys, with the index of those that go with a job and the count of all. The only writer of `Kv`, `KvByJob`, `KvCount`.

use raftgrid_proto::v1::KvRow;

use crate::error::Fault;
use crate::keys;
use crate::machine::Machine;
use crate::read;
use crate::rows::Table;

/// The writer of replicated keys.
pub(crate) struct KvTable;

/// What a key counts against the bound of all.
pub(crate) fn kv_bytes(row: &KvRow) -> u64 {
    (row.key.len() + row.value.len()) as u64
}

impl KvTable {
    /// Writes `row` in the place of `old`, which is the row of the same key as it stands.
    pub(crate) fn put(machine: &mut Machine<'_>, old: Option<&KvRow>, row: &KvRow) -> Result<(), Fault> {
        assert!(old.is_none_or(|old| old.revision < row.revision), "revisions of a key rise");
        if let Some(old) = old {
            Self::leave(machine, old)?;
        }
        let mut count = read::kv_count(&machine.rows)?;
        count.rows += 1;
        count.bytes += kv_bytes(row);
        machine.put(Table::KvCount, keys::ONLY.to_vec(), &count);
        if row.job_sequence != 0 {
            machine.put_bytes(Table::KvByJob, keys::kv_by_job(row.job_sequence, &row.key), Vec::new());
        }
        machine.put(Table::Kv, row.key.clone().into_bytes(), row);
        Ok(())
    }

    /// Deletes the row as it stands.
    pub(crate) fn delete(machine: &mut Machine<'_>, old: &KvRow) -> Result<(), Fault> {
        Self::leave(machine, old)?;
        machine.delete(Table::Kv, old.key.clone().into_bytes());
        Ok(())
    }

    /// Takes a row out of the count and the index.
    fn leave(machine: &mut Machine<'_>, old: &KvRow) -> Result<(), Fault> {
        const COUNTED: &str = "a key that is there was counted";
        let mut count = read::kv_count(&machine.rows)?;
        count.rows = count.rows.checked_sub(1).expect(COUNTED);
        count.bytes = count.bytes.checked_sub(kv_bytes(old)).expect(COUNTED);
        machine.put(Table::KvCount, keys::ONLY.to_vec(), &count);
        if old.job_sequence != 0 {
            machine.delete(Table::KvByJob, keys::kv_by_job(old.job_sequence, &old.key));
        }
        Ok(())
    }
}
