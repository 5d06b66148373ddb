//! What is so for ASOF joins: which rows go behind the watermark, and whether what is said is ever taken back.
//!
//! ```text
//! l.ts >= r.ts       rows of r that come have ts >= watermark W: a row of l with ts < W has its match for good;
//!                    so have rows of l: of the rows of r with ts < W only the last of each key can be a match again
//! ```

use datafusion::logical_expr::Expr;
use millstream_engine::operator::as_of::Expires;
use millstream_engine::spread::{Needed, Spread};

use super::column_of;
use super::properties::Describing;
use super::time::TimeProperty;
use super::tree::{AsOfing, Growth, Node, Properties, Step};
use crate::error::Result;
use crate::plan::as_of::AsOfJoin;

impl Describing<'_> {
    pub(super) fn as_of<'p>(&mut self, plan: &'p AsOfJoin) -> Result<Node<'p>> {
        let inputs = vec![self.node(&plan.left)?, self.node(&plan.right)?];
        let of = AsOfing::of(plan, &inputs);
        let has = of.properties(&inputs);
        Ok(Node::new(Step::AsOf(of), inputs, has))
    }
}

impl<'p> AsOfing<'p> {
    fn of(plan: &'p AsOfJoin, inputs: &[Node<'_>]) -> Self {
        let schemas = [plan.left.schema(), plan.right.schema()];
        let mut computed = [vec![], vec![]];
        let mut place = |side: usize, expr: &Expr| {
            column_of(expr, schemas[side]).unwrap_or_else(|| {
                computed[side].push(expr.clone());
                schemas[side].fields().len() + computed[side].len() - 1
            })
        };
        let mut key_of = |side: usize| plan.on[side].iter().map(|expr| place(side, expr)).collect::<Vec<_>>();
        let keys = [key_of(0), key_of(1)];
        let times = [place(0, &plan.times[0]), place(1, &plan.times[1])];
        let mut of = AsOfing { plan, keys, times, computed, expires: Expires::None, closing: vec![] };
        of.expire(inputs);
        of
    }

    /// Notes which rows go.
    fn expire(&mut self, inputs: &[Node<'_>]) {
        // What is before the watermark is not taken back either, where rows only grow or what they become closes. Rows of windows
        // come when the watermark has reached their end, so that on the left side they would come too late.
        let event = |side: usize| {
            let time = inputs[side].has.time.get(self.times[side])?.as_ref()?;
            let bounds = match time {
                TimeProperty::Event { .. } => true,
                TimeProperty::Window { end, .. } => *end && side == 1,
                TimeProperty::Function { .. } => false,
            };
            (bounds && inputs[side].has.growth != Growth::TakesBack).then(|| time.clone())
        };
        let (left, right) = (event(0), event(1));
        self.expires = match (&left, &right) {
            (Some(_), Some(_)) => Expires::Both,
            (None, Some(_)) => Expires::Left,
            (_, None) => Expires::None,
        };
        self.closing = match self.expires {
            Expires::Both => left.into_iter().chain(right).collect(),
            Expires::Left => right.into_iter().collect(),
            Expires::None => vec![],
        };
    }

    /// Where it needs the rows of its inputs.
    pub(super) fn needed(&self, side: usize) -> Needed {
        Needed::hash(self.keys[side].clone())
    }

    fn properties(&self, inputs: &[Node<'_>]) -> Properties {
        let left = self.plan.left.schema().fields().len();
        let mut columns: Vec<Option<usize>> = (0..inputs[0].has.time.len()).map(Some).collect();
        columns.resize(left + self.plan.right.schema().fields().len(), None);
        let has = inputs[0].has.of_columns(&columns);
        // Rows that wait for what comes later are said behind their time.
        let in_time = self.plan.way.is_back() && self.expires != Expires::None;
        let closes = in_time && self.expires == Expires::Both;
        let tasks = match self.keys[0].is_empty() {
            true => 1,
            false => inputs.iter().map(|input| input.has.spread.tasks).max().unwrap_or(1),
        };
        let by = (!self.keys[0].is_empty() && self.keys[0].iter().all(|key| *key < left)).then(|| self.keys[0].clone());
        Properties {
            growth: if closes { Growth::GrowsOnClose } else { Growth::TakesBack },
            time: has.time.into_iter().map(|time| time.filter(|_| in_time)).collect(),
            spread: Spread { tasks, by },
            ..has
        }
    }

    /// The expressions that have to give the same value each time.
    pub(super) fn expressions(&self) -> impl Iterator<Item = &Expr> {
        self.plan.on.iter().flatten().chain(&self.plan.times)
    }
}
