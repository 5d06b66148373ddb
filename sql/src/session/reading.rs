//! Which streams and views a query reads, and in whose name.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::view::ViewDef;
use crate::error::Result;
use crate::rights::{Access, Need, Principal, Right};

/// What the planning of a query meets.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) met: Arc<Mutex<BTreeSet<String>>>,
    /// A view as it is to be, in place of the one of its name.
    pub(super) instead: Option<Arc<ViewDef>>,
    /// Who reads: within a view, who made it.
    pub(super) who: Principal,
    /// Whether who reads must be allowed to read also what views stand for: it is told of that.
    pub(super) through_views: bool,
    /// The stream that rows go into, until the planner has asked for it: for that, who reads need not be allowed to read it.
    target: Arc<Mutex<Option<String>>>,
    /// Who was allowed to read what on the way.
    allowed: Arc<Mutex<BTreeSet<(Principal, String)>>>,
}

impl Reading {
    /// What `who` reads.
    pub(super) fn by(who: &Principal) -> Self {
        let (met, allowed, target, who) = (Arc::default(), Arc::default(), Arc::default(), who.clone());
        Reading { met, instead: None, who, through_views: false, target, allowed }
    }

    /// What a job of the store reads, whose statement was allowed when it was made.
    pub(super) fn of_job() -> Self {
        Self::by(&Principal::owner())
    }

    /// Where who reads is told what views stand for.
    pub(super) fn told(self) -> Self {
        Reading { through_views: true, ..self }
    }

    /// Of a statement whose rows go into `stream`. It is asked for once for that; a second time it is read.
    pub(super) fn into_stream(self, stream: &str) -> Self {
        Reading { target: Arc::new(Mutex::new(Some(stream.to_owned()))), ..self }
    }

    /// As if `view` were there already.
    pub(super) fn with(view: Arc<ViewDef>) -> Self {
        Reading { instead: Some(view), ..Self::of_job() }
    }

    /// The same view, with nothing met as yet.
    pub(super) fn anew(&self) -> Self {
        Reading { met: Arc::default(), ..self.clone() }
    }

    /// The same, within a view that `maker` has made.
    pub(super) fn within(&self, maker: Principal) -> Self {
        Reading {
            who: if self.through_views { self.who.clone() } else { maker },
            target: Arc::default(),
            ..self.clone()
        }
    }

    /// Errors unless who reads may read `name`.
    pub(super) fn ask(&self, access: &Access, name: &str) -> Result<()> {
        if self.target.lock().take_if(|target| target == name).is_some() {
            return Ok(());
        }
        access.decide(&self.who, Need::On(Right::Read, name))?;
        self.allowed.lock().insert((self.who.clone(), name.to_owned()));
        Ok(())
    }

    /// Errors unless all that was allowed still is.
    pub(super) fn ask_again(&self, access: &Access) -> Result<()> {
        let allowed = self.allowed.lock();
        allowed.iter().try_for_each(|(who, name)| access.decide(who, Need::On(Right::Read, name)))
    }

    /// The names of the streams and views that were met, also of those behind views.
    pub(super) fn names(&self) -> Vec<String> {
        self.met.lock().iter().cloned().collect()
    }
}
