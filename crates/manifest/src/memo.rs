//! Rows that remember what was read of them. The commands of an entry and the digest after them ask for the same rows several times; the
//! tables below do not change meanwhile. Bounded by what the commands of one entry read.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::rows::{Rows, RowsError, Table};

type Known = BTreeMap<Table, BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

/// Lives as long as one entry is applied.
pub(crate) struct Memo<'a> {
    base: &'a dyn Rows,
    known: RefCell<Known>,
}

impl<'a> Memo<'a> {
    pub(crate) fn new(base: &'a dyn Rows) -> Self {
        Self { base, known: RefCell::default() }
    }
}

impl Rows for Memo<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        if let Some(value) = self.known.borrow().get(&table).and_then(|rows| rows.get(key)) {
            return Ok(value.clone());
        }
        let value = self.base.get(table, key)?;
        self.known.borrow_mut().entry(table).or_default().insert(key.to_vec(), value.clone());
        Ok(value)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        self.base.scan(table, from, to, visit)
    }

    fn scan_back(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        self.base.scan_back(table, from, to, visit)
    }

    fn note_absent(&self, table: Table, key: &[u8]) {
        self.known.borrow_mut().entry(table).or_default().entry(key.to_vec()).or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::rows::{Change, MemRows};

    struct Counted(MemRows, Cell<u32>);

    impl Rows for Counted {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
            self.1.set(self.1.get() + 1);
            self.0.get(table, key)
        }
        fn scan(
            &self,
            table: Table,
            from: &[u8],
            to: &[u8],
            visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
        ) -> Result<(), RowsError> {
            self.0.scan(table, from, to, visit)
        }
        fn scan_back(
            &self,
            table: Table,
            from: &[u8],
            to: &[u8],
            visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
        ) -> Result<(), RowsError> {
            self.0.scan_back(table, from, to, visit)
        }
    }

    #[test]
    fn a_row_is_read_once_whether_it_is_there_or_not() {
        let mut rows = MemRows::default();
        rows.write(&[Change { table: Table::Task, key: b"a".to_vec(), value: Some(b"1".to_vec()) }]);
        let counted = Counted(rows, Cell::new(0));
        let memo = Memo::new(&counted);
        for _ in 0..3 {
            assert_eq!(memo.get(Table::Task, b"a").expect("memory"), Some(b"1".to_vec()));
            assert_eq!(memo.get(Table::Task, b"b").expect("memory"), None);
            assert_eq!(memo.get(Table::Node, b"a").expect("memory"), None, "another table is another row");
        }
        assert_eq!(counted.1.get(), 3);
        memo.note_absent(Table::Task, b"new");
        memo.note_absent(Table::Task, b"a");
        assert_eq!(memo.get(Table::Task, b"new").expect("memory"), None);
        assert_eq!(memo.get(Table::Task, b"a").expect("memory"), Some(b"1".to_vec()), "what was seen stands");
        assert_eq!(counted.1.get(), 3);
    }
}
