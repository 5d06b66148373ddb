//! Who sends a request: one answer for all that listens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_engine::token::token;
use millstream_sql::rights::Hidden;
use millstream_sql::{Error, ErrorKind, Millstream, Principal, Result};

use super::oidc::{Oidc, OidcOptions};
use super::peer::Peer;
use super::tokens::{Fingerprint, Shown};
use crate::base64::basic_login;

/// Tokens of one user, and of all.
const MOST_TOKENS: (usize, usize) = (1024, 16_384);
/// Logins that were right and are sent again with each request.
const MOST_LOGINS: (usize, usize) = (64, 4096);
/// How long they are not checked again. A login whose user has another password meanwhile is refused at once all the same.
const LOGIN_LIFETIME: Duration = Duration::from_secs(60);
/// How long a token is good where nothing else is said.
pub(crate) const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);
/// The longest `authorization` header that is looked at.
const LONGEST: usize = 16 << 10;

/// See the module's text.
pub struct Doors {
    millstream: Arc<Millstream>,
    tokens: Shown,
    logins: Shown,
    token_lifetime: Duration,
    oidc: Option<Oidc>,
}

/// How doors open.
#[derive(Clone, Debug, Default)]
pub struct DoorsOptions {
    /// How long the token of a login is good: twelve hours where nothing is said.
    pub token_lifetime: Option<Duration>,
    /// Whose tokens are taken besides.
    pub oidc: Option<OidcOptions>,
}

impl Doors {
    /// The doors of `millstream`. Blocks on the disk.
    pub fn new(millstream: Arc<Millstream>, options: DoorsOptions) -> Result<Self> {
        let (tokens, logins) = (Shown::new(MOST_TOKENS)?, Shown::new(MOST_LOGINS)?);
        let oidc = options.oidc.map(Oidc::new).transpose()?;
        let token_lifetime = options.token_lifetime.unwrap_or(TOKEN_LIFETIME);
        Ok(Doors { millstream, tokens, logins, token_lifetime, oidc })
    }

    /// What is behind them.
    pub fn millstream(&self) -> &Arc<Millstream> {
        &self.millstream
    }

    /// Who sends a request with this `authorization` header over a connection from `peer`: what the header says, if there
    /// is one, else what the certificate says. In a store without users anybody is let in, without a name.
    ///
    /// Errors with [`ErrorKind::Denied`], whatever is wrong.
    pub async fn admit(&self, authorization: Option<&str>, peer: &Peer) -> Result<Principal> {
        let who = self.who(authorization, peer).await;
        // Passwords are noted where they are checked.
        let is_basic = authorization.is_some_and(|text| scheme(text).0 == "basic");
        if let Err(e) = &who
            && !is_basic
        {
            self.millstream.note_login(peer.certificate.as_deref(), &peer.address, Some(e.message()));
        }
        who
    }

    async fn who(&self, authorization: Option<&str>, peer: &Peer) -> Result<Principal> {
        let access = self.millstream.access();
        if access.is_open() {
            return Ok(Principal::anonymous(Arc::clone(&peer.address)));
        }
        if authorization.is_some_and(|text| text.len() > LONGEST) {
            return Err(refused("the authorization is too long"));
        }
        let who = match (authorization.map(scheme), &peer.certificate) {
            (Some(("bearer", token)), _) => match &self.oidc {
                Some(oidc) if Oidc::is_one(token) => access.known(&oidc.user(token).await?, Arc::clone(&peer.address)),
                _ => self.tokens.find(token, Instant::now()),
            },
            (Some(("basic", login)), _) => Some(self.basic(login, peer).await?),
            (Some(_), _) => return Err(refused("the authorization is neither Basic nor Bearer")),
            (None, Some(name)) => access.known(name, Arc::clone(&peer.address)),
            (None, None) => return Err(refused("this server needs a user name and a password, or a token")),
        };
        // It may have been another user of that name.
        let who = who.filter(|who| self.millstream.access().is_current(who));
        who.ok_or_else(|| match authorization {
            Some(_) => refused("the token is not known, or it has expired"),
            None => refused("the certificate is of no user"),
        })
    }

    /// Logs in as `authorization` and `peer` say, and gives a token that stands for that login.
    pub async fn log_in(&self, authorization: Option<&str>, peer: &Peer) -> Result<(String, Principal)> {
        let who = self.admit(authorization, peer).await?;
        // Twice as long as one that nobody guesses.
        let token = format!("{}{}", token()?, token()?);
        self.tokens.add(&token, who.clone(), Instant::now(), self.token_lifetime)?;
        Ok((token, who))
    }

    /// The token stands for nobody any more.
    pub fn log_out(&self, authorization: Option<&str>) {
        if let Some(("bearer", token)) = authorization.map(scheme) {
            self.tokens.remove(token);
        }
    }

    /// What tells the token in this `authorization` header from others.
    pub fn fingerprint(&self, authorization: Option<&str>) -> Option<Fingerprint> {
        match authorization.map(scheme) {
            Some(("bearer", token)) => Some(self.tokens.digest(token)),
            _ => None,
        }
    }

    async fn basic(&self, login: &str, peer: &Peer) -> Result<Principal> {
        let now = Instant::now();
        if let Some(who) = self.logins.find(login, now).filter(|who| self.millstream.access().is_current(who)) {
            return Ok(who);
        }
        let (user, password) = basic_login(login).ok_or_else(|| refused("the Basic authorization is malformed"))?;
        let who = self.millstream.log_in(&user, Hidden::new(password), &peer.address).await?;
        // Where there is no room it is checked each time.
        let _ = self.logins.add(login, who.clone(), now, LOGIN_LIFETIME);
        Ok(who)
    }
}

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::Denied, why).with_hint("Log in with a user name and its password.")
}

/// The scheme of an `authorization` header in lower case, and what it says.
fn scheme(authorization: &str) -> (&'static str, &str) {
    let (scheme, rest) = authorization.split_once(' ').unwrap_or((authorization, ""));
    let known = ["basic", "bearer"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known));
    (known.unwrap_or("other"), rest.trim())
}
