//! `DRAIN NODE 'host:port'`.

use super::Statement;
use super::parser::StatementParser;
use crate::error::{Error, Result};

impl StatementParser<'_> {
    /// What follows `DRAIN`.
    pub(super) fn drain(&mut self) -> Result<Statement> {
        if !self.word("NODE") {
            return self.expected("NODE");
        }
        let at = self.position();
        let address = self.parser.parse_literal_string().map_err(|_| {
            Error::invalid("the address of the node is expected in single quotes")
                .with_hint("SHOW NODES lists them: DRAIN NODE 'host:port'.")
                .or_at(at)
        })?;
        Ok(Statement::DrainNode(address))
    }
}
