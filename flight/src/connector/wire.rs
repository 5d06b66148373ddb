//! TCP connections of connectors, in the clear or over TLS: their options, making them, taking them. Files of certificates are
//! read again when they change.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millstream_engine::error::{Error, Result};
use millstream_engine::options::{OptionSpec, Options, Takes};
use millstream_engine::reach::Touch;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::doors::renewed::Renewed;
use crate::doors::tls::{Identity, client_config, plain_config, server_config};

pub(crate) const TLS: OptionSpec = OptionSpec::new("tls", Takes::Flag, "true", "speaks TLS").or("false");
pub(crate) const TLS_CA: OptionSpec = OptionSpec::new(
    "tls_ca",
    Takes::Text,
    "ca.pem",
    "PEM file of the authorities that the other side's certificate is of; a listener that has it lets in nobody else",
)
.otherwise("those of the system; a listener asks for none");
pub(crate) const TLS_CERT: OptionSpec =
    OptionSpec::new("tls_cert", Takes::Text, "server.pem", "PEM file of the certificate that is shown");
pub(crate) const TLS_KEY: OptionSpec =
    OptionSpec::new("tls_key", Takes::Text, "server.key", "PEM file of the key of tls_cert");
pub(crate) const TLS_SERVER_NAME: OptionSpec =
    OptionSpec::new("tls_server_name", Takes::Text, "feed.example.com", "whose certificate a client wants to see")
        .otherwise("the host it connects to");

/// How long a connection may take to be made, and TLS to be agreed on.
const PATIENCE: Duration = Duration::from_secs(10);
/// The system asks a silent peer whether it is there after so long, then so often, and so many times.
const SILENCE: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_secs(10);
const ASK_TIMES: u32 = 3;

/// Bytes both ways.
pub(crate) trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// A connection.
pub(crate) type Wire = Box<dyn Both>;

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// A name or an address, one of IPv6 without its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// Reads `text` as the option `spec` of `owner`.
    pub(crate) fn of_option(owner: &str, spec: &OptionSpec, text: &str) -> Result<Self> {
        let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let bare = |host: &str| match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').map(str::to_owned),
            None => (!host.contains(':')).then(|| host.to_owned()),
        };
        let found = parts.and_then(|(host, port)| Some(Address { host: bare(host)?, port }));
        found.filter(|a| !a.host.is_empty() && !a.host.contains(['/', ' '])).ok_or_else(|| {
            Error::invalid(format!("option \"{}\" of {owner} is '{text}', which is not host:port", spec.name))
                .with_hint(format!("Write it like {} = '{}'.", spec.name, spec.example))
        })
    }
}

impl From<Address> for Touch {
    fn from(Address { host, port }: Address) -> Self {
        Touch::Address { host, port }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Makes the paths among `options` absolute.
pub(crate) fn fix_paths(options: &mut BTreeMap<String, String>) {
    for spec in [TLS_CA, TLS_CERT, TLS_KEY] {
        if let Some(path) = options.get_mut(spec.name)
            && let Ok(absolute) = std::path::absolute(&*path)
        {
            *path = absolute.to_string_lossy().into_owned();
        }
    }
}

/// The files of certificates that `options` name.
pub(crate) fn touched_files(options: &Options) -> impl Iterator<Item = Touch> {
    let named = |name: &str| [TLS_CA, TLS_CERT, TLS_KEY].iter().any(|spec| spec.name == name);
    options.written().filter(move |(name, _)| named(name)).map(|(_, path)| Touch::File(path.into()))
}

/// The files that the options name.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) identity: Option<Identity>,
}

impl Files {
    /// What `make` makes of them, now and when they change.
    fn renewed<T: Send + Sync + 'static>(
        self,
        owner: &str,
        make: impl Fn(&Files) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Arc<Renewed<T>>> {
        let all = self.ca.iter().cloned().chain(self.identity.iter().flat_map(Identity::files)).collect();
        Renewed::new(all, move || make(&self)).map_err(|e| e.context(owner))
    }

    fn client(&self) -> Result<ClientConfig> {
        client_config(self.ca.as_deref(), self.identity.as_ref())
    }
}

/// Takes the files that the options name.
pub(crate) fn take_files(options: &mut Options) -> Result<Files> {
    let mut path = |spec| options.text(spec).map(PathBuf::from);
    let (ca, cert, key) = (path(&TLS_CA), path(&TLS_CERT), path(&TLS_KEY));
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some(Identity { cert, key }),
        (None, None) => None,
        (cert, _) => {
            let (there, lacks) = if cert.is_some() { (TLS_CERT, TLS_KEY) } else { (TLS_KEY, TLS_CERT) };
            let message = format!("{} has {} without {}", options.owner(), there.name, lacks.name);
            return Err(Error::invalid(message).with_hint("A certificate and its key belong together."));
        }
    };
    Ok(Files { ca, identity })
}

/// Takes option `tls`. Where it is off, the other options of TLS are refused with what to write.
pub(crate) fn take_flag(options: &mut Options) -> Result<bool> {
    let on = options.flag(&TLS)?;
    let lone = [TLS_CA, TLS_CERT, TLS_KEY, TLS_SERVER_NAME].into_iter().find(|spec| options.is_set(spec));
    match lone {
        Some(spec) if !on => Err(Error::invalid(format!("{} has {} without tls", options.owner(), spec.name))
            .with_hint("Add tls = 'true', or leave it out.")),
        _ => Ok(on),
    }
}

/// What `make` makes of the configuration that a client goes by. Reads the files of certificates.
pub(crate) fn take_client<T: Send + Sync + 'static>(
    options: &mut Options,
    tls: bool,
    make: impl Fn(ClientConfig) -> Result<T> + Send + Sync + 'static,
) -> Result<Arc<Renewed<T>>> {
    let lone = [TLS_CA, TLS_CERT, TLS_KEY].into_iter().find(|spec| options.is_set(spec));
    let files = take_files(options)?;
    match lone {
        Some(spec) if !tls => {
            let message = format!("{} has {} and speaks no TLS", options.owner(), spec.name);
            Err(Error::invalid(message).with_hint("Write https://, or leave it out."))
        }
        _ if tls => files.renewed(options.owner(), move |files| make(files.client()?)),
        _ => Renewed::new(vec![], move || make(plain_config()?)),
    }
}

/// Connects to an address.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) address: Address,
    tls: Option<(Arc<Renewed<ClientConfig>>, ServerName<'static>)>,
}

impl Dialer {
    /// To `address`; over TLS, as `options` say, if that is `tls`. Reads the files of certificates.
    pub(crate) fn take(options: &mut Options, address: Address, tls: bool) -> Result<Self> {
        if !tls {
            return Ok(Dialer { address, tls: None });
        }
        let files = take_files(options)?;
        let name = options.text(&TLS_SERVER_NAME).unwrap_or_else(|| address.host.clone());
        let name = ServerName::try_from(name.clone()).map_err(|_| {
            Error::invalid(format!("'{name}' in {} is no name that a certificate can have", options.owner()))
                .with_hint("Write tls_server_name = 'host.example.com'.")
        })?;
        let config = files.renewed(options.owner(), Files::client)?;
        Ok(Dialer { address, tls: Some((config, name)) })
    }

    /// A new connection.
    pub(crate) async fn dial(&self) -> io::Result<Wire> {
        let Address { host, port } = &self.address;
        let stream = within(TcpStream::connect((host.as_str(), *port))).await?;
        prepare(&stream)?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some((config, name)) => {
                let connector = TlsConnector::from(config.get().await);
                Ok(Box::new(within(connector.connect(name.clone(), stream)).await?))
            }
        }
    }

    /// Whether it speaks TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }
}

/// Makes what comes to a listener a connection.
#[derive(Clone)]
pub(crate) struct Doorman {
    tls: Option<Arc<Renewed<ServerConfig>>>,
}

impl Doorman {
    /// Over TLS, as `options` say, if that is `tls`. Reads the files of certificates.
    pub(crate) fn take(options: &mut Options, tls: bool) -> Result<Self> {
        if !tls {
            return Ok(Doorman { tls: None });
        }
        let files = take_files(options)?;
        let identity = files.identity.clone().ok_or_else(|| {
            Error::invalid(format!("{} listens over TLS and has no certificate", options.owner()))
                .with_hint("Add tls_cert = 'server.pem', tls_key = 'server.key'.")
        })?;
        let make = move |files: &Files| server_config(&identity, files.ca.as_deref());
        Ok(Doorman { tls: Some(files.renewed(options.owner(), make)?) })
    }

    /// What has come, once TLS is agreed on.
    pub(crate) async fn admit(&self, stream: TcpStream) -> io::Result<Wire> {
        prepare(&stream)?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some(config) => {
                let acceptor = TlsAcceptor::from(config.get().await);
                Ok(Box::new(within(acceptor.accept(stream)).await?))
            }
        }
    }

    /// Whether it speaks TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }
}

/// Rows go at once, and a peer that is gone without a word is noticed.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(SILENCE).with_interval(ASK_EVERY).with_retries(ASK_TIMES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

async fn within<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, future).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: OptionSpec = OptionSpec::new("address", Takes::Text, "127.0.0.1:7000", "");

    #[test]
    fn addresses_are_a_host_and_a_port() {
        for text in ["localhost:1", "10.0.0.1:65535", "[::1]:80"] {
            let address = Address::of_option("stream \"s\"", &ADDRESS, text).expect(text);
            assert_eq!(address.to_string(), text);
        }
        for text in ["localhost", ":80", "host:", "host:99999", "::1:80", "http://a:80", "[::1:80"] {
            let e = Address::of_option("stream \"s\"", &ADDRESS, text).expect_err(text);
            assert_eq!(e.message(), format!("option \"address\" of stream \"s\" is '{text}', which is not host:port"));
        }
    }

    #[test]
    fn options_of_tls_belong_together() {
        let options = |pairs: &[(&str, &str)]| {
            Options::new("stream \"s\"", pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        let e = take_flag(&mut options(&[("tls_ca", "ca.pem")])).expect_err("no tls");
        assert_eq!(
            (e.message(), e.hint()),
            ("stream \"s\" has tls_ca without tls", Some("Add tls = 'true', or leave it out."))
        );
        let address = Address { host: "localhost".to_owned(), port: 1 };
        let lone = &mut options(&[("tls_cert", "a.pem")]);
        let e = Dialer::take(lone, address.clone(), true).err().expect("no key");
        assert_eq!(e.message(), "stream \"s\" has tls_cert without tls_key");
        let e = Doorman::take(&mut options(&[]), true).err().expect("no certificate");
        assert_eq!(e.message(), "stream \"s\" listens over TLS and has no certificate");
        let wrong = &mut options(&[("tls_server_name", "a b")]);
        assert!(Dialer::take(wrong, address.clone(), true).is_err());
        let gone = &mut options(&[("tls_ca", "/nowhere/ca.pem")]);
        let e = Dialer::take(gone, address, true).err().expect("no file");
        assert!(e.message().starts_with("stream \"s\": file \"/nowhere/ca.pem\" cannot be read"), "{e}");
    }

    #[test]
    fn paths_keep_their_meaning() {
        let mut options = BTreeMap::from([("tls_ca".to_owned(), "ca.pem".to_owned())]);
        fix_paths(&mut options);
        let expected = std::env::current_dir().expect("a folder").join("ca.pem");
        assert_eq!(options["tls_ca"], expected.to_string_lossy());
    }
}
