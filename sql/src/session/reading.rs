//! Which streams and views a query reads.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::view::ViewDef;

/// What the planning of a query meets.
#[derive(Clone, Default)]
pub(super) struct Reading {
    pub(super) met: Arc<Mutex<BTreeSet<String>>>,
    /// A view as it is to be, in place of the one of its name.
    pub(super) instead: Option<Arc<ViewDef>>,
}

impl Reading {
    /// As if `view` were there already.
    pub(super) fn with(view: Arc<ViewDef>) -> Self {
        Reading { met: Arc::default(), instead: Some(view) }
    }

    /// The same view, with nothing met as yet.
    pub(super) fn anew(&self) -> Self {
        Reading { met: Arc::default(), instead: self.instead.clone() }
    }

    /// The names of the streams and views that were met, also of those behind views.
    pub(super) fn names(&self) -> Vec<String> {
        self.met.lock().iter().cloned().collect()
    }
}
