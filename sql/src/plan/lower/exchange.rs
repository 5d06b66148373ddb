//! Where the rows of a node lie, where its reader needs them, and the exchange between where that differs.
//!
//! ```text
//! lie by hash(a)    needed by hash(a)      stay where they are
//! lie by hash(a)    needed by hash(a, b)   exchange: the reader's state is cut by the hash of both
//! lie anyhow        needed by hash(a)      exchange
//! one task                                 stay where they are, whatever is needed
//! ```
//! The hash is that of the key groups, so it must be over the same columns in the same order: a task owns the state of
//! those keys only that fall into its groups.

use millstream_engine::graph::Exchange;

/// Where the rows of a node lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    /// In so many tasks.
    pub(super) tasks: usize,
    /// By the hash of these columns; anyhow where none are given.
    pub(super) by: Option<Vec<usize>>,
}

/// Where a reader needs rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Needed {
    /// Anywhere.
    Anywhere,
    /// By the hash of these columns.
    Hash(Vec<usize>),
    /// In one task.
    Single,
}

impl Spread {
    /// Rows that lie anyhow.
    pub(super) fn anyhow(tasks: usize) -> Self {
        Spread { tasks, by: None }
    }

    /// Of the columns that `place` has a new place for.
    pub(super) fn moved(&self, place: impl Fn(usize) -> Option<usize>) -> Self {
        let by = self.by.as_ref().and_then(|by| by.iter().map(|c| place(*c)).collect());
        Spread { tasks: self.tasks, by }
    }

    /// Whether rows that lie so are where they are needed.
    pub(super) fn fits(&self, needed: &Needed) -> bool {
        self.tasks == 1
            || match needed {
                Needed::Anywhere => true,
                Needed::Hash(columns) => self.by.as_ref() == Some(columns),
                Needed::Single => false,
            }
    }

    /// How rows that lie so get to where they are needed.
    pub(super) fn exchange(&self, needed: &Needed) -> Exchange {
        match needed {
            _ if self.fits(needed) => Exchange::Forward,
            Needed::Anywhere => Exchange::Forward,
            Needed::Hash(columns) => Exchange::Hash(columns.clone()),
            Needed::Single => Exchange::Single,
        }
    }
}

impl Needed {
    /// In how many tasks a reader runs that needs rows so which now lie in `tasks`.
    pub(super) fn tasks(&self, tasks: usize) -> usize {
        if *self == Needed::Single { 1 } else { tasks }
    }
}
