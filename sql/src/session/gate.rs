//! What each statement needs: asked here, before anything of it is looked at. What its queries read is asked for where
//! names are found (`lookup.rs`); [`crate::rights::Access`] decides both.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;

use super::reading::Reading;
use super::{Session, audit_table};
use crate::error::{Error, Result};
use crate::rights::{Access, Need, Principal, Right, Target};
use crate::statement::{AccessStatement, ExplainTarget, Name, Statement};

impl Session {
    /// Who it works for.
    pub fn who(&self) -> &Principal {
        &self.who
    }

    /// Errors unless who asks has what is needed.
    pub fn ask(&self, need: Need<'_>) -> Result<()> {
        self.millstream.access().decide(&self.who, need)
    }

    /// Whether who asks may read the stream or view `name`.
    pub fn may_read(&self, name: &str) -> bool {
        self.millstream.access().allows(&self.who, Need::On(Right::Read, name))
    }

    /// Whether who asks may know what `name` is made of: of it, and of all that it reads.
    pub(super) fn may_read_through(&self, name: &str) -> bool {
        let objects = self.millstream.objects.read();
        let stream = objects.streams.get(name).map(|def| def.reads.clone());
        let reads = stream.or_else(|| objects.views.get(name).map(|view| view.reads.clone())).unwrap_or_default();
        self.may_read(name) && reads.iter().all(|read| self.may_read(read))
    }

    /// Why `stream` has failed, for who asks: the reason may quote rows of what the stream reads.
    pub fn told_of(&self, stream: &str, reason: String) -> String {
        if self.may_read_through(stream) { reason } else { "its job has failed".to_owned() }
    }

    /// What it reads, in its name.
    pub(super) fn reading(&self) -> Reading {
        Reading::by(&self.who)
    }

    /// Errors unless who asks may say `statement`.
    pub(super) fn admit(&self, statement: &Statement) -> Result<()> {
        let access = self.millstream.access();
        if !access.is_current(&self.who) {
            access.decide(&self.who, Need::OnAll(Right::Admin))?;
        }
        let ask = |need| access.decide(&self.who, need);
        match statement {
            Statement::CreateStream(create) => ask(made(&create.name, create.or_replace)),
            Statement::CreateView(create) => ask(made(&create.name, create.or_replace)),
            Statement::Drop(drop) => ask(Need::On(Right::Admin, &drop.name.name)),
            Statement::Pause(name) | Statement::Resume(name) => ask(Need::On(Right::Admin, &name.name)),
            Statement::Insert(insert) => {
                ask(Need::On(Right::Write, &insert.target.name))?;
                // How many rows are new tells which keys were there.
                if insert.has_conflict() { ask(Need::On(Right::Read, &insert.target.name)) } else { Ok(()) }
            }
            Statement::Change(change) => {
                ask(Need::On(Right::Write, &change.target.name))?;
                if change.tells() { ask(Need::On(Right::Read, &change.target.name)) } else { Ok(()) }
            }
            // What it makes lies where files of the server do.
            Statement::CopyTo(_) if self.who.is_remote() => ask(Need::OnAll(Right::Write)),
            Statement::CopyTo(_) => Ok(()),
            Statement::ShowCreate(name) => self.ask_definition(name),
            Statement::Describe(name) => match name.schema.as_deref() {
                Some("millstream") if name.name == audit_table::NAME => ask(Need::OnAll(Right::Admin)),
                Some("millstream") => Ok(()),
                _ => ask(Need::Any(&name.name)),
            },
            Statement::Explain(explain) => match &explain.target {
                ExplainTarget::Stream(name) => self.ask_definition(name),
                // Their names are asked for when they are found.
                ExplainTarget::Query(_) | ExplainTarget::CreateStream(_) => Ok(()),
            },
            Statement::Set { name, .. } if name == "memory_limit" => ask(Need::OnAll(Right::Admin)),
            Statement::Reset(Some(name)) if name == "memory_limit" => ask(Need::OnAll(Right::Admin)),
            Statement::DrainNode(_) => ask(Need::OnAll(Right::Admin)),
            Statement::Access(access) => self.admit_access(access),
            // Of queries the names are asked for, and lists have what may be read. The others are about the session.
            Statement::Query(_)
            | Statement::ShowStreams
            | Statement::ShowJobs
            | Statement::ShowViews
            | Statement::ShowNodes
            | Statement::ShowFunctions { .. }
            | Statement::ShowConnectors { .. }
            | Statement::ShowSetting(_)
            | Statement::Set { .. }
            | Statement::Reset(_)
            | Statement::Flush
            | Statement::Begin
            | Statement::Commit
            | Statement::Rollback => Ok(()),
        }
    }

    fn ask_definition(&self, name: &Name) -> Result<()> {
        self.ask(Need::On(Right::Read, &name.name))?;
        match self.may_read_through(&name.name) {
            true => Ok(()),
            // It may read what it stands for, and not how.
            false => self.ask(Need::On(Right::Admin, &name.name)),
        }
    }

    fn admit_access(&self, statement: &AccessStatement) -> Result<()> {
        match statement {
            AccessStatement::Grant(grant) | AccessStatement::Revoke(grant) => match &grant.target {
                Target::All => self.ask(Need::OnAll(Right::Admin)),
                Target::Stream(name) => self.ask(Need::On(Right::Admin, name)),
            },
            AccessStatement::SetPassword { name, .. } if self.who.user_name() == Some(name) => Ok(()),
            // What is not one's own is left out of them.
            AccessStatement::ShowGrants | AccessStatement::ShowUsers => Ok(()),
            AccessStatement::CreateUser { .. }
            | AccessStatement::SetPassword { .. }
            | AccessStatement::DropUser { .. }
            | AccessStatement::CreateSecret { .. }
            | AccessStatement::DropSecret { .. }
            | AccessStatement::ShowSecrets => self.ask(Need::OnAll(Right::Admin)),
        }
    }

    /// `items` for as long as all that `reading` was allowed still is: then an error, also while there are none.
    pub(super) fn while_allowed<T: Send + 'static>(
        &self,
        items: BoxStream<'static, Result<T>>,
        reading: Reading,
    ) -> BoxStream<'static, Result<T>> {
        let access = self.millstream.access.subscribe();
        stream::unfold(Some(Allowed { items, reading, access }), Allowed::next).boxed()
    }

    /// `items` for as long as who asks may write to `stream`.
    pub(super) fn while_writing<T: Send + 'static>(
        &self,
        items: BoxStream<'static, Result<T>>,
        stream: &str,
    ) -> BoxStream<'static, Result<T>> {
        let (access, who, stream) = (self.millstream.access.subscribe(), self.who.clone(), stream.to_owned());
        let allowed = move |item: Result<T>| {
            access.borrow().decide(&who, Need::On(Right::Write, &stream))?;
            item
        };
        items.map(allowed).boxed()
    }
}

/// Items that end when a right is taken back.
struct Allowed<T> {
    items: BoxStream<'static, Result<T>>,
    reading: Reading,
    access: watch::Receiver<Arc<Access>>,
}

impl<T> Allowed<T> {
    async fn next(allowed: Option<Self>) -> Option<(Result<T>, Option<Self>)> {
        let mut allowed = allowed?;
        loop {
            let access = allowed.access.borrow_and_update().clone();
            if let Err(e) = allowed.reading.ask_again(&access) {
                return Some((Err(e), None));
            }
            tokio::select! {
                biased;
                Ok(()) = allowed.access.changed() => {}
                item = allowed.items.next() => return item.map(|item| (item, Some(allowed))),
            }
        }
    }
}

/// To make it: a right on what it takes the place of, or on all there will be.
fn made(name: &Name, or_replace: bool) -> Need<'_> {
    if or_replace { Need::On(Right::Admin, &name.name) } else { Need::OnAll(Right::Admin) }
}

/// That a store cannot be without what it needs to be opened again.
pub(super) fn last_user() -> Error {
    Error::invalid("the last user of the store cannot be dropped from outside: anybody could come in then")
        .with_hint("Make another user first, or drop it on the store itself.")
}
