//! `OVER`, and `ORDER BY … LIMIT`: what a row gets from the rows of its partition.
//!
//! The rows of each partition are kept with the values that they have. At the end of an epoch those are computed anew of the
//! partitions in which rows have come or gone, and what differs is said. That is right for every function and every frame, and
//! takes as long as there are rows in these partitions.
//!
//! ```text
//! row_number() OVER (PARTITION BY k ORDER BY v)
//! +(a, 5)              ->  +(a, 5, 1)
//! +(a, 3) -(a, 5)      ->  -(a, 5, 1) +(a, 3, 1)
//! ```
//! Rows that are alike in their order come in the order of all their columns, so that values do not depend on how rows came.
//! Where only rows up to some number or rank are wanted others are not given; nor are they kept, if rows only come.
//!
//! Unbounded, unless partitions are windows, which go when they close, or rows that only come are cut off.

mod evaluate;
mod running;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::window::WindowExpr;

use super::expiry::Expiry;
use super::{BuildContext, Operator, OperatorSpec, StateBound};
use crate::error::Result;
use crate::format::sql_name;
use crate::spread::Needed;

/// A function of the rows of a partition.
#[derive(Clone, Debug)]
pub struct Call {
    /// As users wrote it, or about so.
    pub name: String,
    /// What it computes.
    pub function: Function,
}

/// What a call computes.
#[derive(Clone, Debug)]
pub enum Function {
    /// `row_number()`
    RowNumber,
    /// `rank()`
    Rank,
    /// `dense_rank()`
    DenseRank,
    /// Any other.
    Other(Arc<dyn WindowExpr>),
}

impl Function {
    /// The function of that name, if it is a number of a row, which rows that come behind do not change.
    pub fn numbering(name: &str) -> Option<Function> {
        match name {
            "row_number" => Some(Function::RowNumber),
            "rank" => Some(Function::Rank),
            "dense_rank" => Some(Function::DenseRank),
            _ => None,
        }
    }
}

/// Only rows that a call gives at most this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// The call, one that is [numbering](Function::numbering), as all are then.
    pub call: usize,
    /// The largest number.
    pub most: u64,
}

/// The description.
#[derive(Clone, Debug)]
pub struct Over {
    /// The schema of the input.
    pub input: SchemaRef,
    /// The columns of `PARTITION BY`.
    pub key: Vec<usize>,
    /// Those of `ORDER BY`.
    pub order: Vec<(usize, SortOptions)>,
    /// What is computed.
    pub calls: Vec<Call>,
    /// Which rows are wanted, if not all.
    pub first: Option<First>,
    /// Whether rows of the input are never taken back.
    pub append_only: bool,
    /// Whether all rows of a partition come in one epoch, so that none is kept.
    pub settles: bool,
    /// Whether each task looks at its own rows alone: what is cut off there would be cut off from all.
    pub of_each_task: bool,
    /// When partitions get no more rows, where that is known.
    pub expiry: Option<Expiry>,
    /// The columns, by name, for each value of which the input has one row, where later rows take the places of earlier ones.
    pub one_of: Option<Vec<String>>,
    /// The columns of the input, then one for each call.
    pub schema: SchemaRef,
}

impl Over {
    fn names(&self, columns: impl Iterator<Item = usize>) -> String {
        columns.map(|c| self.input.field(c).name().as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Whether rows that are not wanted are not kept either.
    fn forgets(&self) -> bool {
        self.first.is_some() && self.append_only
    }
}

impl OperatorSpec for Over {
    fn name(&self) -> &'static str {
        // State goes by names, and this one has none.
        if self.of_each_task { "first" } else { "over" }
    }

    fn describe(&self) -> String {
        let mut text = self.calls.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        if !self.key.is_empty() {
            text.push_str(&format!(" by {}", self.names(self.key.iter().copied())));
        }
        let order = self.order.iter().map(|(column, options)| {
            let way = if options.descending { " desc" } else { "" };
            // As PostgreSQL has it where nothing is said: nulls are the largest.
            let nulls = match (options.nulls_first, options.descending) {
                (true, false) => " nulls first",
                (false, true) => " nulls last",
                _ => "",
            };
            format!("{}{way}{nulls}", self.input.field(*column).name())
        });
        let order: Vec<String> = order.collect();
        if !order.is_empty() {
            text.push_str(&format!(" in order of {}", order.join(", ")));
        }
        if let Some(first) = self.first {
            text.push_str(&format!(", up to {}", first.most));
        }
        if self.of_each_task {
            text.push_str(", of the rows of each task");
        } else if self.key.is_empty() && !self.forgets() {
            text.push_str(", all rows each time");
        }
        text
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn state_bound(&self) -> StateBound {
        match (&self.one_of, self.first) {
            _ if self.settles => StateBound::Epoch,
            _ if self.expiry.is_some() => StateBound::Watermark,
            (_, Some(first)) if self.forgets() => StateBound::Rows(first.most, self.names(self.key.iter().copied())),
            (Some(one_of), _) => StateBound::Keys(one_of.join(", ")),
            (None, _) => StateBound::Unbounded,
        }
    }

    fn fingerprint(&self) -> Option<String> {
        // Columns of one type are told apart by their names alone.
        let columns: Vec<_> =
            self.schema.fields().iter().map(|f| format!("{} {}", f.name(), sql_name(f.data_type()))).collect();
        let key: Vec<_> = self.key.iter().map(|k| (k + 1).to_string()).collect();
        Some(format!("rows of ({}) by column {}", columns.join(", "), key.join(", ")))
    }

    fn needs(&self, _port: usize) -> Needed {
        if self.of_each_task {
            return Needed::Anywhere;
        }
        Needed::hash(self.key.clone())
    }

    fn place_of(&self, _port: usize, column: usize) -> Option<usize> {
        Some(column)
    }

    fn build(&self, context: &mut BuildContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new(running::Running::new(Arc::new(self.clone()), context)?))
    }
}
