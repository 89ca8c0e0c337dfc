//! Rows of a table as they are, and as a batch leaves them: later rows of a batch see what earlier ones did.

use std::collections::BTreeMap;

use super::Verdict;

/// Rows by id.
#[derive(Debug)]
pub(super) struct Table<R>(BTreeMap<i64, Held<R>>);

#[derive(Debug)]
struct Held<R> {
    row: R,
    is_new: bool,
    is_changed: bool,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<R: PartialEq> Table<R> {
    /// Those that are there.
    pub(super) fn new(stored: impl IntoIterator<Item = (i64, R)>) -> Self {
        let held = |row| Held { row, is_new: false, is_changed: false };
        Self(stored.into_iter().map(|(id, row)| (id, held(row))).collect())
    }

    pub(super) fn get(&self, id: i64) -> Option<&R> {
        self.0.get(&id).map(|held| &held.row)
    }

    /// Puts a row in its place.
    pub(super) fn put(&mut self, id: i64, row: R) -> Verdict {
        match self.0.get_mut(&id) {
            Some(held) if held.row == row => Verdict::Unchanged,
            Some(held) => {
                held.row = row;
                held.is_changed = true;
                Verdict::Updated
            }
            None => {
                self.0.insert(id, Held { row, is_new: true, is_changed: false });
                Verdict::Created
            }
        }
    }

    /// Those that were not there, by id.
    pub(super) fn added(&self) -> impl Iterator<Item = (i64, &R)> {
        self.0.iter().filter(|(_, held)| held.is_new).map(|(id, held)| (*id, &held.row))
    }

    /// Those that were otherwise, by id.
    pub(super) fn changed(&self) -> impl Iterator<Item = (i64, &R)> {
        let changed = self.0.iter().filter(|(_, held)| held.is_changed && !held.is_new);
        changed.map(|(id, held)| (*id, &held.row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_rows_see_what_earlier_ones_did() {
        let mut table = Table::new([(1, "a"), (2, "b")]);
        let verdicts = [(1, "a"), (3, "c"), (3, "c"), (3, "d"), (2, "x"), (2, "x")];
        let verdicts = verdicts.map(|(id, row)| table.put(id, row));
        assert_eq!(
            verdicts,
            [
                Verdict::Unchanged,
                Verdict::Created,
                Verdict::Unchanged,
                Verdict::Updated,
                Verdict::Updated,
                Verdict::Unchanged,
            ]
        );
        assert_eq!(table.added().collect::<Vec<_>>(), [(3, &"d")]);
        assert_eq!(table.changed().collect::<Vec<_>>(), [(2, &"x")]);
    }
}
