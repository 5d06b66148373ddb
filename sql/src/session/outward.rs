//! What a statement may do with a connector: to make a stream with one is to reach beyond the store.

use millstream_engine::connector::registry::Connector;
use millstream_engine::options::{OptionSpec, SECRET, tells_login, tells_secret};

use super::Millstream;
use super::own_options::OwnOptions;
use crate::error::{Error, Result};
use crate::rights::{Need, Principal, Right};
use crate::statement::CreateStream;

impl Millstream {
    /// Refuses what `who` may not do with `connector`: to make a stream with one is to reach beyond the store.
    pub(super) fn check_connector(
        &self,
        create: &CreateStream,
        connector: &dyn Connector,
        who: &Principal,
    ) -> Result<()> {
        self.access().decide(who, Need::OnAll(Right::Admin))?;
        self.check_secrets(create, connector, who)?;
        let (_, options) = OwnOptions::of(create, &self.config().connectors)?;
        let Some((_, options)) = options else { return Ok(()) };
        self.first_opening(who).options(connector, &options).map(drop)
    }

    /// Refuses passwords and tokens that are written into the options of `create`: they would be kept as they are. What is
    /// written as the name of a secret must be one, and only who may do all puts it there.
    fn check_secrets(&self, create: &CreateStream, connector: &dyn Connector, who: &Principal) -> Result<()> {
        let owner = format!("stream \"{}\"", create.name.name);
        let read = connector.source().map(|source| source.options()).unwrap_or_default();
        let written = connector.sink().map(|sink| sink.options()).unwrap_or_default();
        let specs: Vec<OptionSpec> = read.into_iter().chain(written).collect();
        let access = self.access();
        for (name, value) in &create.options {
            if tells_login(value) && !self.config().insecure {
                return Err(Error::invalid(format!("option \"{name}\" of {owner} has a login in its address"))
                    .with_hint("Leave it out of the address, and name a secret in the option that is for it."));
            }
            let is_secret = tells_secret(name) || specs.iter().any(|spec| spec.secret && spec.name == name);
            match (is_secret, value.strip_prefix(SECRET)) {
                (false, None) => {}
                (true, None) if self.config().insecure => {}
                (true, None) => {
                    let kept = name.rsplit('.').next().unwrap_or(name);
                    return Err(Error::invalid(format!(
                        "option \"{name}\" of {owner} is a secret, which is not written here"
                    ))
                    .with_hint(format!(
                        "Write CREATE SECRET {kept} AS '…', then {name} = '{SECRET}{kept}'; or start with --insecure."
                    )));
                }
                (true, Some(secret)) => {
                    access.decide(who, Need::OnAll(Right::Admin))?;
                    access.open_secret(secret, self.config().key.as_ref()).map_err(|e| e.context(owner.clone()))?;
                }
                (false, Some(_)) => {
                    return Err(Error::invalid(format!(
                        "option \"{name}\" of {owner} cannot be a secret: it may be shown"
                    ))
                    .with_hint("Write its value."));
                }
            }
        }
        Ok(())
    }
}
