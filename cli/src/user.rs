//! `millstream user add`: the administrators of a store, made where the store is.

use std::process::ExitCode;

use millstream_sql::{Millstream, Result};

use crate::args::{EngineArgs, UserArgs, UserCommand};
use crate::{config, password, report};

/// Adds a user who may do all.
pub(crate) async fn run(store: Option<String>, args: UserArgs) -> Result<ExitCode> {
    let UserCommand::Add { name } = args.command;
    let store = config::store(store);
    let password = password::new(&name)?;
    let mut config = config::engine(store.clone(), &EngineArgs::default())?;
    // Nothing is to run meanwhile.
    config.start_jobs = false;
    let millstream = Millstream::open(config).await?;
    let added = millstream.add_admin(&name, password).await;
    let closed = millstream.close().await;
    added.and(closed)?;
    report::say(format_args!("user \"{name}\" may do all on store {store}; GRANT and CREATE USER make others"));
    Ok(ExitCode::SUCCESS)
}
