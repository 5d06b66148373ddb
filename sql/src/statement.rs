//! Statements (being written: see the branch).

/// A statement with its text.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The statement's own text.
    pub text: String,
}

/// Splits a script into statements.
pub fn parse(_sql: &str) -> crate::error::Result<Vec<Parsed>> {
    unimplemented!()
}
