//! Users, rights: statements that change who may do what.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millstream_engine::options::SECRET;

use super::gate::last_user;
use super::outcome::Outcome;
use super::show::{strings, table, text};
use super::{Millstream, Session};
use crate::catalog::Catalog;
use crate::error::{Error, ErrorKind, Result};
use crate::rights::{Access, Hidden, Need, Right, Target, check_password, hash_password};
use crate::statement::{AccessStatement, Grant, quote_name};

impl Session {
    pub(super) async fn access(&self, statement: &AccessStatement) -> Result<Outcome> {
        let (ms, is_remote) = (&self.millstream, self.who.is_remote());
        match statement.clone() {
            AccessStatement::CreateUser { name, password } => {
                if is_remote && ms.access().is_open() {
                    return Err(Error::new(ErrorKind::Denied, "the first user of a store is not made from outside")
                        .with_hint("Write millstream user add NAME --store DIR where the store is."));
                }
                let hash = ms.hashed(password).await?;
                ms.change_access(move |catalog| catalog.access.add_user(&name, hash)).await?;
                Ok(Outcome::tag("CREATE USER"))
            }
            AccessStatement::SetPassword { name, password } => {
                let hash = ms.hashed(Some(password)).await?;
                let hash = hash.ok_or_else(|| Error::internal("a password without a hash"))?;
                ms.change_access(move |catalog| catalog.access.set_password(&name, hash)).await?;
                Ok(Outcome::tag("ALTER USER"))
            }
            AccessStatement::DropUser { name, if_exists } => {
                let word = format!("user \"{name}\" does not exist");
                match ms.change_access(move |catalog| drop_user(catalog, &name, is_remote)).await? {
                    true => Ok(Outcome::tag("DROP USER")),
                    false if if_exists => Ok(Outcome::notice("DROP USER", word)),
                    false => Err(Error::not_found(word).with_hint("SHOW USERS lists them.")),
                }
            }
            AccessStatement::Grant(Grant { rights, target, user }) => {
                let granted = move |catalog: &mut Catalog| {
                    there(catalog, &target)?;
                    catalog.access.grant(&user, &rights, &target)
                };
                ms.change_access(granted).await?;
                Ok(Outcome::tag("GRANT"))
            }
            AccessStatement::Revoke(Grant { rights, target, user }) => {
                let taken = ms.change_access(move |catalog| catalog.access.revoke(&user, &rights, &target)).await?;
                Ok(match taken {
                    true => Outcome::tag("REVOKE"),
                    false => Outcome::notice("REVOKE", "it was not granted"),
                })
            }
            AccessStatement::ShowUsers => self.show_users(),
            AccessStatement::ShowGrants => self.show_grants(),
            AccessStatement::CreateSecret { name, or_replace, value } => {
                let key = ms.config().key.clone();
                let kept = move |c: &mut Catalog| c.access.add_secret(&name, or_replace, &value, key.as_ref());
                ms.change_access(kept).await?;
                Ok(Outcome::tag("CREATE SECRET"))
            }
            AccessStatement::DropSecret { name, if_exists } => {
                let word = format!("secret \"{name}\" does not exist");
                match ms.change_access(move |catalog| drop_secret(catalog, &name)).await? {
                    true => Ok(Outcome::tag("DROP SECRET")),
                    false if if_exists => Ok(Outcome::notice("DROP SECRET", word)),
                    false => Err(Error::not_found(word).with_hint("SHOW SECRETS lists them.")),
                }
            }
            AccessStatement::ShowSecrets => self.show_secrets(),
        }
    }

    /// The columns of a listing.
    pub(super) fn access_schema(&self, statement: &AccessStatement) -> Option<SchemaRef> {
        let listed = match statement {
            AccessStatement::ShowUsers => self.show_users(),
            AccessStatement::ShowGrants => self.show_grants(),
            AccessStatement::ShowSecrets => self.show_secrets(),
            _ => return None,
        };
        match listed {
            Ok(Outcome::Rows(rows)) => Some(rows.schema),
            _ => None,
        }
    }

    /// Whether `user` is shown: one's own, or all.
    fn shows(&self, access: &Access, user: &str) -> bool {
        self.who.user_name() == Some(user) || access.allows(&self.who, Need::OnAll(Right::Admin))
    }

    fn show_users(&self) -> Result<Outcome> {
        let access = self.millstream.access();
        let users: Vec<_> = access.users().filter(|(name, _)| self.shows(&access, name)).collect();
        let login = |has_password: bool| if has_password { "password" } else { "certificate or token only" };
        table(
            vec![text("name"), text("login")],
            vec![
                strings(users.iter().map(|(name, _)| Some((*name).to_owned()))),
                strings(users.iter().map(|(_, has_password)| Some(login(*has_password).to_owned()))),
            ],
        )
    }

    /// Their names only.
    fn show_secrets(&self) -> Result<Outcome> {
        let access = self.millstream.access();
        table(vec![text("name")], vec![strings(access.secrets().map(|name| Some(name.to_owned())))])
    }

    fn show_grants(&self) -> Result<Outcome> {
        let access = self.millstream.access();
        let grants: Vec<_> = access.grants().filter(|(user, ..)| self.shows(&access, user)).collect();
        let stream = |target: &Target| match target {
            Target::All => None,
            Target::Stream(name) => Some(name.clone()),
        };
        let scope = |target: &Target| if *target == Target::All { "all" } else { "stream" };
        table(
            vec![text("user"), text("right"), text("on"), text("stream")],
            vec![
                strings(grants.iter().map(|(user, ..)| Some((*user).to_owned()))),
                strings(grants.iter().map(|(_, right, _)| Some(right.to_string()))),
                strings(grants.iter().map(|(.., target)| Some(scope(target).to_owned()))),
                strings(grants.iter().map(|(.., target)| stream(target))),
            ],
        )
    }
}

impl Millstream {
    /// Adds a user who may do all.
    pub async fn add_admin(self: &Arc<Self>, name: &str, password: Hidden) -> Result<()> {
        let (name, hash) = (name.to_owned(), self.hashed(Some(password)).await?);
        let added = move |catalog: &mut Catalog| {
            catalog.access.add_user(&name, hash)?;
            catalog.access.grant(&name, &[Right::Admin], &Target::All)
        };
        self.change_access(added).await
    }

    /// Its hash takes a while on purpose.
    async fn hashed(&self, password: Option<Hidden>) -> Result<Option<Hidden>> {
        let Some(password) = password else { return Ok(None) };
        check_password(&password)?;
        let turn = self.throttle.turn(self.budget()).await?;
        turn.spend(move || hash_password(&password)).await?.map(Some)
    }

    /// Changes who may do what, and saves it. An error changes nothing.
    pub(super) async fn change_access<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Catalog) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let ms = self.clone();
        let changed = async move {
            let mut catalog = ms.catalog.lock().await;
            let before = catalog.clone();
            let result = change(&mut catalog).inspect_err(|_| *catalog = before.clone())?;
            if *catalog != before {
                ms.save(&mut catalog, before).await?;
            }
            Ok(result)
        };
        self.to_the_end(changed).await
    }
}

/// Errors unless there is what a right is to be on.
fn there(catalog: &Catalog, target: &Target) -> Result<()> {
    match target {
        Target::Stream(name) if catalog.get(name).is_none() => {
            Err(Error::not_found(format!("\"{name}\" does not exist"))
                .with_hint("SHOW STREAMS and SHOW VIEWS list what there is."))
        }
        _ => Ok(()),
    }
}

/// Removes a secret that no stream names. Says whether there was one.
fn drop_secret(catalog: &mut Catalog, name: &str) -> Result<bool> {
    let named = format!("'{SECRET}{}'", name.replace('\'', "''"));
    if let Some(entry) = catalog.entries.iter().find(|entry| entry.sql.contains(&named)) {
        return Err(Error::invalid(format!("secret \"{name}\" is named by stream \"{}\"", entry.name))
            .with_hint("Drop that first, or CREATE OR REPLACE SECRET."));
    }
    Ok(catalog.access.remove_secret(name))
}

/// Removes a user of whom nothing is left. Says whether there was one.
fn drop_user(catalog: &mut Catalog, name: &str, is_remote: bool) -> Result<bool> {
    let made = |e: &&crate::catalog::Entry| e.maker.user.as_deref() == Some(name);
    if let Some(entry) = catalog.entries.iter().find(made) {
        let what = if entry.has_job() { "STREAM" } else { "VIEW" };
        return Err(Error::invalid(format!("user \"{name}\" has made \"{}\", which reads in its name", entry.name))
            .with_hint(format!(
                "DROP {what} {0}, or CREATE OR REPLACE {what} {0} as another user; or take back what was granted.",
                quote_name(&entry.name)
            )));
    }
    if is_remote && catalog.access.users().all(|(user, _)| user == name) && !catalog.access.is_open() {
        return Err(last_user());
    }
    Ok(catalog.access.remove_user(name))
}
