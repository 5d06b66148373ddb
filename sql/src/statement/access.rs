//! Statements about users, rights and secrets.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::display::fold;
use super::parser::StatementParser;
use crate::error::{Error, Result};
use crate::rights::{Hidden, Right, Target};

/// What is said about users, rights and secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessStatement {
    /// `CREATE USER name [PASSWORD '…']`.
    CreateUser {
        /// Who.
        name: String,
        /// None for who comes with a certificate or a token only.
        password: Option<Hidden>,
    },
    /// `ALTER USER name PASSWORD '…'`.
    SetPassword {
        /// Who.
        name: String,
        /// The new one.
        password: Hidden,
    },
    /// `DROP USER [IF EXISTS] name`.
    DropUser {
        /// Who.
        name: String,
        /// `IF EXISTS`.
        if_exists: bool,
    },
    /// `GRANT read | write | admin ON STREAM name | ALL TO user`.
    Grant(Grant),
    /// `REVOKE read | write | admin ON STREAM name | ALL FROM user`.
    Revoke(Grant),
    /// `SHOW GRANTS`.
    ShowGrants,
    /// `SHOW USERS`.
    ShowUsers,
    /// `CREATE SECRET name AS '…'`.
    CreateSecret {
        /// What options call it.
        name: String,
        /// `OR REPLACE`.
        or_replace: bool,
        /// What it is.
        value: Hidden,
    },
    /// `DROP SECRET [IF EXISTS] name`.
    DropSecret {
        /// Which.
        name: String,
        /// `IF EXISTS`.
        if_exists: bool,
    },
    /// `SHOW SECRETS`.
    ShowSecrets,
}

/// What is granted or taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which rights.
    pub rights: Vec<Right>,
    /// On what.
    pub target: Target,
    /// Whose.
    pub user: String,
}

impl StatementParser<'_> {
    /// What follows `verb`, if it is about users, rights or secrets.
    pub(super) fn access(&mut self, verb: &str) -> Result<Option<AccessStatement>> {
        Ok(Some(match verb {
            "CREATE" if self.words(&["OR", "REPLACE", "SECRET"]) => self.create_secret(true)?,
            "CREATE" if self.word("SECRET") => self.create_secret(false)?,
            "CREATE" if self.word("USER") => {
                let name = self.user()?;
                let password = if self.word("PASSWORD") { Some(self.hidden("the password")?) } else { None };
                AccessStatement::CreateUser { name, password }
            }
            "ALTER" if self.word("USER") => {
                let name = self.user()?;
                if !self.word("PASSWORD") {
                    return self.expected("PASSWORD");
                }
                AccessStatement::SetPassword { name, password: self.hidden("the password")? }
            }
            "DROP" if self.word("USER") => {
                AccessStatement::DropUser { if_exists: self.words(&["IF", "EXISTS"]), name: self.user()? }
            }
            "DROP" if self.word("SECRET") => {
                AccessStatement::DropSecret { if_exists: self.words(&["IF", "EXISTS"]), name: self.user()? }
            }
            "SHOW" if self.word("GRANTS") => AccessStatement::ShowGrants,
            "SHOW" if self.word("USERS") => AccessStatement::ShowUsers,
            "SHOW" if self.word("SECRETS") => AccessStatement::ShowSecrets,
            "GRANT" => AccessStatement::Grant(self.grant("TO")?),
            "REVOKE" => AccessStatement::Revoke(self.grant("FROM")?),
            _ => return Ok(None),
        }))
    }

    fn create_secret(&mut self, or_replace: bool) -> Result<AccessStatement> {
        let name = self.user()?;
        if !self.word("AS") {
            return Err(Error::invalid("AS is expected behind the name of the secret").or_at(self.position()));
        }
        Ok(AccessStatement::CreateSecret { name, or_replace, value: self.hidden("the secret")? })
    }

    fn grant(&mut self, preposition: &str) -> Result<Grant> {
        let mut rights = vec![self.right()?];
        while self.parser.consume_token(&Token::Comma) {
            rights.push(self.right()?);
        }
        if !self.word("ON") {
            return self.expected("ON");
        }
        let named = self.word("STREAM") || self.word("VIEW") || self.word("TABLE");
        let target = match named {
            true => {
                let at = self.position();
                let name = self.name()?;
                if name.schema.is_some() {
                    return Err(Error::invalid(format!("rights on \"{name}\" cannot be granted"))
                        .with_hint("Name a stream or view of schema public. What millstream.dead_letters shows goes by the streams that \
                                    they are of; millstream.audit is for who has admin on ALL.")
                        .or_at(at));
                }
                Target::Stream(name.name)
            }
            false if self.word("ALL") => Target::All,
            false => return self.expected("STREAM name, or ALL"),
        };
        if !self.word(preposition) {
            return self.expected(preposition);
        }
        Ok(Grant { rights, target, user: self.user()? })
    }

    fn right(&mut self) -> Result<Right> {
        match Right::ALL.into_iter().find(|right| self.word(right.word())) {
            Some(right) => Ok(right),
            None => self.expected("read, write or admin"),
        }
    }

    /// The name of a user or a secret: a word, or anything in quotes.
    fn user(&mut self) -> Result<String> {
        if let Token::SingleQuotedString(name) = &self.parser.peek_token_ref().token {
            let name = name.clone();
            self.parser.next_token();
            return Ok(name);
        }
        Ok(fold(&self.parser.parse_identifier()?))
    }

    /// Text that is not repeated, whatever is wrong with it.
    fn hidden(&mut self, what: &str) -> Result<Hidden> {
        let Token::SingleQuotedString(text) = &self.parser.peek_token_ref().token else {
            return Err(Error::invalid(format!("{what} is expected in single quotes")).or_at(self.position()));
        };
        let text = Hidden::new(text.clone());
        self.parser.next_token();
        if self.parser.peek_token_ref().token != Token::EOF {
            // What follows may be the rest of it, where it has a quote.
            return Err(Error::invalid(format!("end of statement is expected behind {what}"))
                .with_hint("Write a quote within it twice.")
                .or_at(self.position()));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use crate::statement::{Statement, parse};

    use super::*;

    fn one(sql: &str) -> AccessStatement {
        match parse(sql).unwrap().pop().unwrap().statement {
            Statement::Access(access) => access,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn users_and_secrets() {
        let hidden = |text: &str| Hidden::new(text);
        let bob = || "bob".to_owned();
        let create = |password| AccessStatement::CreateUser { name: bob(), password };
        assert_eq!(one("CREATE USER Bob PASSWORD 'it''s one'"), create(Some(hidden("it's one"))));
        assert_eq!(one("create user bob"), create(None));
        let set = AccessStatement::SetPassword { name: "a@b.c".into(), password: hidden("x") };
        assert_eq!(one("ALTER USER \"a@b.c\" PASSWORD 'x'"), set);
        assert_eq!(one("DROP USER IF EXISTS bob"), AccessStatement::DropUser { name: bob(), if_exists: true });
        let secret = |or_replace| AccessStatement::CreateSecret { name: "k".into(), or_replace, value: hidden("v") };
        assert_eq!(one("CREATE SECRET k AS 'v'"), secret(false));
        assert_eq!(one("CREATE OR REPLACE SECRET k AS 'v'"), secret(true));
        assert_eq!(one("DROP SECRET k"), AccessStatement::DropSecret { name: "k".into(), if_exists: false });
        assert_eq!(one("SHOW SECRETS"), AccessStatement::ShowSecrets);
    }

    #[test]
    fn grants() {
        let grant = |rights: &[Right], target| Grant { rights: rights.to_vec(), target, user: "bob".into() };
        let hot = || Target::Stream("hot".to_owned());
        assert_eq!(one("GRANT read ON STREAM hot TO bob"), AccessStatement::Grant(grant(&[Right::Read], hot())));
        let both = grant(&[Right::Read, Right::Write], Target::All);
        assert_eq!(one("GRANT READ, write ON ALL TO bob"), AccessStatement::Grant(both));
        let taken = AccessStatement::Revoke(grant(&[Right::Admin], hot()));
        assert_eq!(one("REVOKE admin ON VIEW public.hot FROM 'bob'"), taken);
        for wrong in [
            "GRANT select ON STREAM hot TO bob",
            "GRANT read ON hot TO bob",
            "GRANT read ON STREAM hot FROM bob",
            "GRANT read ON STREAM millstream.audit TO bob",
            "GRANT read ON STREAM a, b TO bob",
            "REVOKE read ON ALL TO bob",
            "SHOW GRANTS FOR bob",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_secret_is_told_without_it() {
        for wrong in [
            "CREATE USER bob PASSWORD hunter2hunter2",
            "CREATE USER bob PASSWORD \"hunter2hunter2\"",
            "CREATE USER bob PASSWORD 'it's hunter2hunter2'",
            "CREATE USER bob PASSWORD 'x' 'hunter2hunter2'",
            "CREATE USER bob 'hunter2hunter2'",
            "CREATE USER bob PASSWORD = 'hunter2hunter2'",
            "ALTER USER bob WITH PASSWORD 'hunter2hunter2'",
            "ALTER USER bob SET PASSWORD 'hunter2hunter2'",
            "CREATE SECRET k 'hunter2hunter2'",
            "CREATE SECRET k = 'hunter2hunter2'",
            "CREATE SECRET k AS hunter2hunter2",
            "CREATE SECRET k AS 'hunter2hunter2",
            "CREATE STREAM s WITH (connector = 'x', password = 'hunter2hunter2', ) AS",
            "CREATE STREAM s (a INT) WITH (connector = 'x', password 'hunter2hunter2')",
        ] {
            let e = parse(wrong).expect_err(wrong);
            assert!(!format!("{e} {e:?}").contains("hunter2"), "{wrong}: {e:?}");
            assert_eq!(crate::statement::caret(&e, wrong), None, "{wrong}");
        }
    }
}
