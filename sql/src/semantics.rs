//! What the words of a statement mean, by version.
//!
//! A stream goes on with the meaning that it was made with: what its state holds and its files say was computed
//! by those rules, and a row that is taken back must come out as it went in. So a rule that gives an expression
//! another type or another value asks for the version where it is applied; new statements have the last one.
//!
//! | version | since then |
//! |---|---|
//! | 1 | the builds whose catalogs kept nothing but the text of statements |
//! | 2 | a literal with a point is an exact decimal; types of numbers meet as docs/numbers.md says; averages keep digits before it; NULL, NaN, zeros, far times and clock changes are what `exact` and `simplify` say |
//! | 3 | a column without a name is called by its expression as it was written; before, as the planner prints it; `^` is a power; before, XOR |
//! | 4 | groups lie where the rows lie that they are made of, if those lie by some of the keys; before, by all keys in their order; a changelog that a connector writes has `-U` and `+U` for the old and the new row of a key; before, `-D` and `+I` |
//! | 5 | what stands in a query twice runs once |

use std::sync::Arc;

use datafusion::execution::context::SessionState;
use datafusion::prelude::SessionConfig;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A version of the rules by which expressions are planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Semantics(u32);

impl Semantics {
    /// Of stores that do not say.
    pub const FIRST: Semantics = Semantics(1);
    /// Of new statements.
    pub const NOW: Semantics = Semantics(5);

    /// That of the statement that `state` plans.
    pub fn of(state: &SessionState) -> Self {
        state.config().get_extension::<Semantics>().map_or(Semantics::NOW, |s| *s)
    }

    /// Keeps it in `config`, for [`Semantics::of`].
    pub(crate) fn put(self, config: SessionConfig) -> SessionConfig {
        config.with_extension(Arc::new(self))
    }

    /// Whether `0.1` is a decimal; a DOUBLE if not.
    pub fn exact_literals(self) -> bool {
        self >= Semantics(2)
    }

    /// Whether an average of decimals gives up digits behind the point for those before it.
    pub fn roomy_averages(self) -> bool {
        self >= Semantics(2)
    }

    /// Whether expressions are made exact and simplified by rules of our own; DataFusion's way if not.
    pub fn exact_expressions(self) -> bool {
        self >= Semantics(2)
    }

    /// Whether columns are named as `headers` says; by the planner if not.
    pub fn written_names(self) -> bool {
        self >= Semantics(3)
    }

    /// Whether groups stay where the rows lie that they are made of: their state is cut by other keys than before.
    pub fn groups_stay(self) -> bool {
        self >= Semantics(4)
    }

    /// Whether connectors write the old and the new row of a key as a pair.
    pub fn pairs_changes(self) -> bool {
        self >= Semantics(4)
    }

    /// Whether a part of a query that stands in it twice runs once: operators are numbered otherwise than before.
    pub fn shares_parts(self) -> bool {
        self >= Semantics(5)
    }

    /// Errors where this build does not know the version.
    pub fn check(self) -> Result<()> {
        if self <= Semantics::NOW {
            return Ok(());
        }
        Err(Error::unsupported(format!("it was made by a later build, with rules of version {}", self.0))
            .with_hint("Open the store with that build or a later one."))
    }
}
