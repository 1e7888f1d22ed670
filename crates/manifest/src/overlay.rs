//! Changes on top of rows that are not touched: one layer for the entry, one for each command, so that a refused command leaves nothing.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

use crate::rows::{Change, Rows, RowsError, Table};

/// Changes by table and key; None: deleted.
pub(crate) type Changes = BTreeMap<Table, BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

/// A change and the old value of its row.
pub(crate) type Effect = (Change, Option<Vec<u8>>);

/// Rows with changes on top. Reads and scans see the changes.
pub(crate) struct Layer<'a> {
    base: &'a dyn Rows,
    changes: Changes,
}

impl<'a> Layer<'a> {
    pub(crate) fn new(base: &'a dyn Rows) -> Self {
        Self { base, changes: Changes::new() }
    }

    pub(crate) fn set(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.changes.entry(table).or_default().insert(key, value);
    }

    pub(crate) fn into_changes(self) -> Changes {
        self.changes
    }

    /// Takes the changes of the layer above.
    pub(crate) fn absorb(&mut self, above: Changes) {
        for (table, rows) in above {
            self.changes.entry(table).or_default().extend(rows);
        }
    }

    /// The changes that change something, each with the old value of its row, in order of (table, key).
    pub(crate) fn into_effective(self) -> Result<Vec<Effect>, RowsError> {
        let mut list = Vec::new();
        for (table, rows) in self.changes {
            for (key, value) in rows {
                let old = self.base.get(table, &key)?;
                if old != value {
                    list.push((Change { table, key, value }, old));
                }
            }
        }
        Ok(list)
    }

    fn changed(&self, table: Table, from: &[u8], to: &[u8]) -> Vec<(&[u8], Option<&[u8]>)> {
        let Some(rows) = self.changes.get(&table) else { return Vec::new() };
        if !to.is_empty() && from >= to {
            return Vec::new();
        }
        let high = if to.is_empty() { Unbounded } else { Excluded(to) };
        rows.range::<[u8], _>((Included(from), high)).map(|(key, value)| (key.as_slice(), value.as_deref())).collect()
    }
}

/// Merges the base's rows, which arrive in order, with `changed` (same order). `before(a, b)`: a comes before b in this order.
fn merge(
    changed: &[(&[u8], Option<&[u8]>)],
    before: fn(&[u8], &[u8]) -> bool,
    scan_base: impl FnOnce(&mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), RowsError>,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), RowsError> {
    let mut next = 0;
    let mut go_on = true;
    scan_base(&mut |key, value| {
        while go_on && next < changed.len() && before(changed[next].0, key) {
            if let Some(new) = changed[next].1 {
                go_on = visit(changed[next].0, new);
            }
            next += 1;
        }
        if !go_on {
            return false;
        }
        if next < changed.len() && changed[next].0 == key {
            if let Some(new) = changed[next].1 {
                go_on = visit(key, new);
            }
            next += 1;
        } else {
            go_on = visit(key, value);
        }
        go_on
    })?;
    while go_on && next < changed.len() {
        if let Some(new) = changed[next].1 {
            go_on = visit(changed[next].0, new);
        }
        next += 1;
    }
    Ok(())
}

impl Rows for Layer<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        match self.changes.get(&table).and_then(|rows| rows.get(key)) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(table, key),
        }
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        let changed = self.changed(table, from, to);
        merge(&changed, |a, b| a < b, |each| self.base.scan(table, from, to, each), visit)
    }

    fn scan_back(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        let mut changed = self.changed(table, from, to);
        changed.reverse();
        merge(&changed, |a, b| a > b, |each| self.base.scan_back(table, from, to, each), visit)
    }

    fn note_absent(&self, table: Table, key: &[u8]) {
        self.base.note_absent(table, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::MemRows;

    fn rows(pairs: &[(&str, &str)]) -> MemRows {
        let mut rows = MemRows::default();
        for (key, value) in pairs {
            rows.write(&[Change {
                table: Table::Task,
                key: key.as_bytes().to_vec(),
                value: Some(value.as_bytes().to_vec()),
            }]);
        }
        rows
    }

    fn seen(rows: &dyn Rows, from: &str, to: &str, back: bool, most: usize) -> String {
        let mut out = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            out.push(format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value)));
            out.len() < most
        };
        let result = if back {
            rows.scan_back(Table::Task, from.as_bytes(), to.as_bytes(), &mut visit)
        } else {
            rows.scan(Table::Task, from.as_bytes(), to.as_bytes(), &mut visit)
        };
        result.expect("memory does not fail");
        out.join(" ")
    }

    #[test]
    fn scans_see_changes_and_deletions_in_order_both_ways() {
        let base = rows(&[("b", "1"), ("d", "2"), ("f", "3")]);
        let mut layer = Layer::new(&base);
        for (key, value) in [("a", Some("x")), ("d", None), ("e", Some("y")), ("f", Some("z")), ("g", Some("w"))] {
            layer.set(Table::Task, key.into(), value.map(|v| v.as_bytes().to_vec()));
        }
        assert_eq!(seen(&layer, "", "", false, 99), "a=x b=1 e=y f=z g=w");
        assert_eq!(seen(&layer, "", "", true, 99), "g=w f=z e=y b=1 a=x");
        assert_eq!(seen(&layer, "b", "f", false, 99), "b=1 e=y");
        assert_eq!(seen(&layer, "b", "f", true, 99), "e=y b=1");
        assert_eq!(seen(&layer, "", "", false, 2), "a=x b=1");
        assert_eq!(seen(&layer, "", "", true, 2), "g=w f=z");
        let above = Layer::new(&layer);
        assert_eq!(seen(&above, "c", "", false, 99), "e=y f=z g=w", "a layer on a layer");
    }

    #[test]
    fn a_change_back_to_the_old_value_is_no_change() {
        let base = rows(&[("b", "1")]);
        let mut layer = Layer::new(&base);
        layer.set(Table::Task, b"b".to_vec(), Some(b"2".to_vec()));
        layer.set(Table::Task, b"b".to_vec(), Some(b"1".to_vec()));
        layer.set(Table::Task, b"c".to_vec(), None);
        assert!(layer.into_effective().expect("memory does not fail").is_empty());
    }
}
