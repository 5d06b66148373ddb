//! What is so for joins: which rows they give, by which keys, and whether those are ever taken back.

use datafusion::common::{DFSchema, DFSchemaRef, JoinType, NullEquality};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{Expr, ExprSchemable, Join};
use millstream_engine::operator::join::{JoinColumn, JoinKind};
use millstream_engine::spread::{Needed, Spread};

use super::column_of;
use super::properties::Describing;
use super::refuse::not_yet;
use super::tree::{Growth, JoinTimes, Joining, Node, Properties, Step};
use crate::error::{Error, Result};
use crate::plan::as_of_now::AsOfNow;

impl Describing<'_> {
    pub(super) fn join<'p>(&mut self, plan: &'p Join) -> Result<Node<'p>> {
        let left = self.node(&plan.left)?;
        let mut joining = Joining::of(plan)?;
        self.looks_up = joining.lookup;
        let inputs = vec![left, self.node(&plan.right)?];
        if !joining.lookup {
            joining.times = JoinTimes::of(&joining, &inputs)?;
        }
        let has = joining.properties(&inputs);
        Ok(Node::new(Step::Join(joining), inputs, has))
    }
}

impl<'p> Joining<'p> {
    fn of(plan: &'p Join) -> Result<Self> {
        if plan.null_aware {
            let clause = "NOT IN (SELECT …) that looks at columns outside of it";
            return Err(not_yet(clause, "Write NOT EXISTS (SELECT … WHERE …)."));
        }
        let kind = kind_of(plan.join_type);
        let lookup = AsOfNow::is_right(&plan.right);
        if lookup && plan.on.is_empty() {
            return Err(Error::unsupported("a JOIN with FOR SYSTEM_TIME AS OF now() needs a column to look up by")
                .with_hint("Write one equality at least: ON b.item = s.item."));
        }
        let inputs = [plan.left.schema(), plan.right.schema()];
        let mut keys = [vec![], vec![]];
        let mut computed = [vec![], vec![]];
        for (left, right) in &plan.on {
            let types = [left.get_type(inputs[0])?, right.get_type(inputs[1])?];
            let meet = match types[0] == types[1] {
                true => None,
                false => comparison_coercion(&types[0], &types[1]),
            };
            for (side, expr) in [left, right].into_iter().enumerate() {
                let cast = meet.as_ref().filter(|t| **t != types[side]);
                match column_of(expr, inputs[side]).filter(|_| cast.is_none()) {
                    Some(column) => keys[side].push(column),
                    None => {
                        keys[side].push(inputs[side].fields().len() + computed[side].len());
                        let expr = cast.map_or(Ok(expr.clone()), |t| expr.clone().cast_to(t, inputs[side]))?;
                        computed[side].push(expr);
                    }
                }
            }
        }
        let columns = columns_of(kind, inputs, plan.schema.fields().len());
        Ok(Joining { plan, kind, keys, computed, columns, times: JoinTimes::default(), lookup })
    }

    /// Whether nulls are one value among its keys.
    pub(super) fn nulls_equal(&self) -> bool {
        self.plan.null_equality == NullEquality::NullEqualsNull
    }

    /// Where it needs the rows of its inputs.
    pub(super) fn needed(&self, side: usize) -> Needed {
        Needed::hash(self.keys[side].clone())
    }

    /// Whether rows that grow give rows that grow.
    pub(super) fn only_grows(&self) -> bool {
        self.lookup || matches!(self.kind, JoinKind::Inner | JoinKind::Semi(_))
    }

    fn properties(&self, inputs: &[Node<'_>]) -> Properties {
        let counting = if self.lookup { &inputs[..1] } else { inputs };
        let most = counting.iter().map(|input| input.has.growth).max().unwrap_or(Growth::Grows);
        let closes =
            self.times.windowed.is_some() && inputs.iter().all(|input| input.has.growth == Growth::GrowsOnClose);
        let growth = if self.only_grows() || closes { most } else { Growth::TakesBack };
        let tasks = match self.keys[0].is_empty() {
            true => 1,
            false => inputs.iter().map(|input| input.has.spread.tasks).max().unwrap_or(1),
        };
        let by = self.kind.keyed_by().and_then(|side| {
            let place = |key: &usize| self.columns.iter().position(|c| *c == JoinColumn::Of(side, *key));
            self.keys[side].iter().map(place).collect::<Option<Vec<_>>>()
        });
        let spread = Spread { tasks, by: by.filter(|by| !by.is_empty()) };
        let one_of = match self.kind {
            JoinKind::Semi(side) | JoinKind::Anti(side) | JoinKind::Mark(side) => inputs[side].has.one_of.clone(),
            _ => inputs[0].has.one_of.clone().zip(inputs[1].has.one_of.clone()).map(|(a, b)| [a, b].concat()),
        };
        // Rows that are looked up pass as they come.
        let time_of = |c: &JoinColumn| match c {
            JoinColumn::Of(0, column) => inputs[0].has.time.get(*column).cloned().flatten(),
            _ => None,
        };
        let time = match self.lookup {
            true => self.columns.iter().map(time_of).collect(),
            false => self.times.given(self, inputs),
        };
        Properties { growth, time, key: self.key(inputs), one_of, spread }
    }

    /// Columns that tell its rows apart.
    fn key(&self, inputs: &[Node<'_>]) -> Option<Vec<usize>> {
        let of = |side: usize| -> Option<Vec<usize>> {
            let key = inputs[side].has.key.as_ref()?;
            key.iter().map(|k| self.columns.iter().position(|c| *c == JoinColumn::Of(side, *k))).collect()
        };
        // One row of the side at most has the key of a row of the other.
        let one =
            |side: usize| inputs[side].has.key.as_ref().is_some_and(|k| k.iter().all(|k| self.keys[side].contains(k)));
        match self.kind {
            JoinKind::Semi(side) | JoinKind::Anti(side) | JoinKind::Mark(side) => of(side),
            JoinKind::Inner | JoinKind::Left if one(1) => of(0),
            JoinKind::Inner | JoinKind::Right if one(0) => of(1),
            _ => Some([of(0)?, of(1)?].concat()),
        }
    }

    /// The columns of both sides, which its condition is over.
    pub(super) fn both(&self) -> Result<DFSchema> {
        Ok(self.plan.left.schema().join(self.plan.right.schema())?)
    }

    /// The expressions that have to give the same value each time.
    pub(super) fn expressions(&self) -> impl Iterator<Item = &Expr> {
        self.plan.filter.iter().chain(self.plan.on.iter().flat_map(|(a, b)| [a, b]))
    }
}

fn kind_of(join: JoinType) -> JoinKind {
    match join {
        JoinType::Inner => JoinKind::Inner,
        JoinType::Left => JoinKind::Left,
        JoinType::Right => JoinKind::Right,
        JoinType::Full => JoinKind::Full,
        JoinType::LeftSemi => JoinKind::Semi(0),
        JoinType::RightSemi => JoinKind::Semi(1),
        JoinType::LeftAnti => JoinKind::Anti(0),
        JoinType::RightAnti => JoinKind::Anti(1),
        JoinType::LeftMark => JoinKind::Mark(0),
        JoinType::RightMark => JoinKind::Mark(1),
    }
}

/// The columns that a join of this kind gives, of which there are `all`.
fn columns_of(kind: JoinKind, inputs: [&DFSchemaRef; 2], all: usize) -> Vec<JoinColumn> {
    let of = |side: usize| (0..inputs[side].fields().len()).map(move |column| JoinColumn::Of(side, column));
    match kind {
        JoinKind::Semi(side) | JoinKind::Anti(side) => of(side).collect(),
        JoinKind::Mark(side) => of(side).chain([JoinColumn::Mark]).collect(),
        JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => of(0).chain(of(1)).take(all).collect(),
    }
}
