//! Where the rows of a node lie, and where a reader needs them.
//!
//! ```text
//! lie by hash(a)    needed by hash(a)      are where they are needed
//! lie by hash(a)    needed by hash(a, b)   are not: the reader's state is cut by the hash of both
//! lie anyhow        needed by hash(a)      are not
//! lie in one task                          are, whatever is needed
//! ```
//! The hash is that of the key groups ([`crate::key`]), so it must be over the same columns in the same order: a task owns
//! the state of those keys only that fall into its groups.

/// Where the rows of a node lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// In so many tasks.
    pub tasks: usize,
    /// By the hash of these columns; anyhow where none are given.
    pub by: Option<Vec<usize>>,
}

/// Where a reader needs rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needed {
    /// Anywhere.
    Anywhere,
    /// By the hash of these columns.
    Hash(Vec<usize>),
    /// In one task.
    Single,
}

impl Spread {
    /// Rows that lie anyhow.
    pub fn anyhow(tasks: usize) -> Self {
        Spread { tasks, by: None }
    }

    /// The same rows with other columns; `place` says where those are that stay.
    pub fn moved(&self, place: impl Fn(usize) -> Option<usize>) -> Self {
        let by = self.by.as_ref().and_then(|by| by.iter().map(|column| place(*column)).collect());
        Spread { tasks: self.tasks, by }
    }

    /// Rows of several inputs, of which each lies as `inputs` says, in `tasks`.
    pub fn of_all<'a>(mut inputs: impl Iterator<Item = &'a Spread>, tasks: usize) -> Self {
        let first = inputs.next().and_then(|input| input.by.clone());
        Spread { tasks, by: first.filter(|by| inputs.all(|input| input.by.as_ref() == Some(by))) }
    }

    /// Whether rows that lie so are where they are needed.
    pub fn fits(&self, needed: &Needed) -> bool {
        self.tasks == 1
            || match needed {
                Needed::Anywhere => true,
                Needed::Hash(columns) => self.by.as_ref() == Some(columns),
                Needed::Single => false,
            }
    }
}

impl Needed {
    /// By the hash of `columns`: in one task where there are none.
    pub fn hash(columns: Vec<usize>) -> Self {
        if columns.is_empty() { Needed::Single } else { Needed::Hash(columns) }
    }

    /// In how many tasks a reader runs that needs rows so which now lie in `tasks`.
    pub fn tasks(&self, tasks: usize) -> usize {
        if *self == Needed::Single { 1 } else { tasks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fit_by_the_same_columns_in_the_same_order() {
        let by = |columns: &[usize]| Spread { tasks: 2, by: Some(columns.to_vec()) };
        let needed = |columns: &[usize]| Needed::hash(columns.to_vec());
        assert!(by(&[0, 1]).fits(&needed(&[0, 1])));
        for other in [needed(&[1, 0]), needed(&[0]), needed(&[0, 1, 2]), needed(&[]), Needed::Single] {
            assert!(!by(&[0, 1]).fits(&other), "{other:?}");
            assert!(!Spread::anyhow(2).fits(&other), "{other:?}");
            assert!(Spread::anyhow(1).fits(&other), "{other:?}");
        }
        assert!(Spread::anyhow(2).fits(&Needed::Anywhere));
    }

    #[test]
    fn columns_that_go_take_what_is_known_with_them() {
        let by = Spread { tasks: 2, by: Some(vec![2, 0]) };
        assert_eq!(by.moved(|c| Some(c + 1)).by, Some(vec![3, 1]));
        assert_eq!(by.moved(|c| (c > 0).then_some(c)).by, None);
        assert_eq!(Spread::of_all([&by, &by].into_iter(), 2), by);
        assert_eq!(Spread::of_all([&by, &Spread::anyhow(2)].into_iter(), 2).by, None);
        assert_eq!(Spread::of_all(std::iter::empty(), 2), Spread::anyhow(2));
    }
}
