//! How far SQL from outside reaches: which files of this machine, which objects in buckets, and which addresses.
//!
//! A connector says what it would touch ([`Touch`]); what is not allowed is refused when a stream is made, and again each
//! time it is opened. A name is allowed only by its name, an address only by a network: no name is looked up, since it may
//! mean another address when it is looked up again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Component, Path, PathBuf, absolute};

use crate::error::{Error, ErrorKind, Result};
use crate::store::ObjectsUrl;

/// Something outside of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touch {
    /// A file, a folder, or a pattern of such.
    File(PathBuf),
    /// Objects in a bucket.
    Objects(ObjectsUrl),
    /// A place that is connected to, or listened at.
    Address {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
}

/// What may be touched. By default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The folder whose files may be.
    files: Option<PathBuf>,
    /// Files and folders that may not, wherever they lie.
    except: Vec<PathBuf>,
    /// The parts of buckets that may be, and those of them that may not.
    buckets: Vec<ObjectsUrl>,
    except_buckets: Vec<ObjectsUrl>,
    addresses: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    host: Host,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(String),
    Network(IpAddr, u8),
}

impl Reach {
    /// The files in the folder `files`, but for those in `except`; and `addresses`, as `host`, `host:port`, `10.0.0.0/8`,
    /// `10.0.0.0/8:443`, `[::1]:443`.
    pub fn new(files: Option<&Path>, except: &[PathBuf], addresses: &[String]) -> Result<Self> {
        let real = |path: &Path| {
            path.canonicalize().map_err(|e| Error::invalid(format!("\"{}\" cannot be found: {e}", path.display())))
        };
        let files = files.map(real).transpose()?;
        if let Some(file) = files.as_ref().filter(|files| !files.is_dir()) {
            return Err(Error::invalid(format!("\"{}\" is not a folder", file.display())));
        }
        // What is not there yet is kept by the name that it will have.
        let except = except.iter().map(|path| path.canonicalize().or_else(|_| absolute(path)));
        let except = except.collect::<Result<_, _>>().map_err(|e| Error::invalid(e.to_string()))?;
        let addresses = addresses.iter().map(|text| Rule::parse(text)).collect::<Result<_>>()?;
        Ok(Reach { files, except, addresses, ..Reach::default() })
    }

    /// The same and all objects in `buckets`, URLs of buckets or of parts of them, but for those in `except`.
    pub fn with_buckets(self, buckets: &[String], except: &[String]) -> Result<Self> {
        let parse = |urls: &[String]| urls.iter().map(|url| ObjectsUrl::parse(url)).collect::<Result<Vec<_>>>();
        Ok(Reach { buckets: parse(buckets)?, except_buckets: parse(except)?, ..self })
    }

    /// Errors unless all of `touched` may be.
    pub fn check(&self, touched: &[Touch]) -> Result<()> {
        touched.iter().try_for_each(|touch| match touch {
            Touch::File(path) => self.check_file(path),
            Touch::Objects(url) => self.check_objects(url),
            Touch::Address { host, port } => self.check_address(host, *port),
        })
    }

    /// Errors unless the file at `path`, or those that it is a pattern of, may be touched.
    pub fn check_file(&self, path: &Path) -> Result<()> {
        let denied = |hint: &str| {
            Err(Error::new(
                ErrorKind::Denied,
                format!("\"{}\" is no file that statements from outside may touch", path.display()),
            )
            .with_hint(hint.to_owned()))
        };
        let Some(files) = &self.files else {
            return denied("The server names their folder with --files DIR.");
        };
        match resolve(path) {
            Some(real) if !real.starts_with(files) => denied("It lies outside of the folder of --files."),
            Some(real) if self.except.iter().any(|except| real.starts_with(except)) => {
                denied("It is the server's own.")
            }
            Some(_) => Ok(()),
            None => denied("It cannot be said where it lies."),
        }
    }

    /// Errors unless all objects that `url` may mean may be touched.
    pub fn check_objects(&self, url: &ObjectsUrl) -> Result<()> {
        let denied = |hint: &str| {
            let message = format!("\"{url}\" is no place that statements from outside may touch");
            Err(Error::new(ErrorKind::Denied, message).with_hint(hint.to_owned()))
        };
        if !self.buckets.iter().any(|allowed| allowed.covers(url)) {
            return denied("The server names such places with --bucket URL.");
        }
        match self.except_buckets.iter().any(|except| except.meets(url)) {
            true => denied("The server's own store lies there."),
            false => Ok(()),
        }
    }

    /// Errors unless `port` of `host` may be connected to.
    pub fn check_address(&self, host: &str, port: u16) -> Result<()> {
        let known = Host::of(host);
        let fits = |rule: &Rule| rule.port.is_none_or(|allowed| allowed == port) && rule.host.holds(&known);
        match self.addresses.iter().any(fits) {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Denied,
                format!("{host}:{port} is no address that statements from outside may connect to"),
            )
            .with_hint("The server names those with --connect-to HOST[:PORT] or a network.")),
        }
    }
}

/// Where `path` leads, without links and `..`, also where its end is not there yet or is a pattern.
fn resolve(path: &Path) -> Option<PathBuf> {
    let path = absolute(path).ok()?;
    if let Ok(real) = path.canonicalize() {
        return Some(real);
    }
    let mut real = PathBuf::new();
    let mut parts = path.components();
    for part in parts.by_ref() {
        let next = real.join(part);
        match next.canonicalize() {
            Ok(next) => real = next,
            // A link to what is not there leads to where it will be.
            Err(_) if next.symlink_metadata().is_ok() => return None,
            Err(_) => {
                real = next;
                break;
            }
        }
    }
    for part in parts {
        match part {
            Component::Normal(name) => real.push(name),
            _ => return None,
        }
    }
    real.components().all(|part| part != Component::ParentDir).then_some(real)
}

impl Rule {
    fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(format!("'{text}' is neither an address nor a network"))
                .with_hint("Write host, host:443, 10.0.0.0/8, 10.0.0.0/8:443 or [fd00::]/8.")
        };
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') || host.contains("]/") => {
                (host, Some(port.parse().map_err(|_| wrong())?))
            }
            _ => (text, None),
        };
        let (host, prefix) = match host.split_once('/') {
            Some((host, prefix)) => (host, Some(prefix.parse::<u8>().map_err(|_| wrong())?)),
            None => (host, None),
        };
        let host = match (Host::of(host), prefix) {
            (Host::Network(ip, whole), prefix) => {
                let prefix = prefix.unwrap_or(whole);
                if prefix > whole {
                    return Err(wrong());
                }
                Host::Network(ip, prefix)
            }
            (Host::Name(name), None) if !name.is_empty() && !name.contains(['*', ' ', '@']) => Host::Name(name),
            _ => return Err(wrong()),
        };
        Ok(Rule { host, port })
    }
}

impl Host {
    /// What `text` names. What systems also take for addresses (`127.1`, `0x7f000001`) is a name here, and fits no network.
    fn of(text: &str) -> Self {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        match bare.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
            Ok(ip @ IpAddr::V4(_)) => Host::Network(ip, 32),
            Ok(ip @ IpAddr::V6(_)) => Host::Network(ip, 128),
            Err(_) => Host::Name(text.trim_end_matches('.').to_ascii_lowercase()),
        }
    }

    fn holds(&self, host: &Host) -> bool {
        match (self, host) {
            (Host::Name(a), Host::Name(b)) => a == b,
            (Host::Network(IpAddr::V4(net), prefix), Host::Network(IpAddr::V4(ip), _)) => {
                masked_v4(*net, *prefix) == masked_v4(*ip, *prefix)
            }
            (Host::Network(IpAddr::V6(net), prefix), Host::Network(IpAddr::V6(ip), _)) => {
                masked_v6(*net, *prefix) == masked_v6(*ip, *prefix)
            }
            _ => false,
        }
    }
}

fn masked_v4(ip: Ipv4Addr, prefix: u8) -> u32 {
    u32::from(ip).checked_shr(32 - u32::from(prefix)).unwrap_or(0)
}

fn masked_v6(ip: Ipv6Addr, prefix: u8) -> u128 {
    u128::from(ip).checked_shr(128 - u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_reached_by_default() {
        let none = Reach::default();
        assert!(none.check_file(Path::new("/tmp/x")).is_err());
        assert!(none.check_address("127.0.0.1", 80).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn files_lie_in_the_folder_however_they_are_written() {
        let (inside, outside) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let (dir, out) = (inside.path(), outside.path());
        std::fs::create_dir_all(dir.join("a/b")).expect("makes");
        std::fs::create_dir(dir.join("store")).expect("makes");
        std::fs::write(dir.join("a/x.csv"), "1").expect("writes");
        std::fs::write(out.join("secret"), "1").expect("writes");
        std::os::unix::fs::symlink(out, dir.join("link")).expect("links");
        std::os::unix::fs::symlink(out.join("secret"), dir.join("a/s.csv")).expect("links");
        std::os::unix::fs::symlink(out.join("not-yet"), dir.join("dangling")).expect("links");
        std::os::unix::fs::symlink(dir.join("a"), dir.join("own")).expect("links");
        let reach = Reach::new(Some(dir), &[dir.join("store"), dir.join("key")], &[]).expect("a folder");
        for good in
            ["a/x.csv", "a/*.csv", "a", "", "new.csv", "new/deep/x.csv", "a/b/../x.csv", "own/x.csv", "a/[xy].csv"]
        {
            reach.check_file(&dir.join(good)).unwrap_or_else(|e| panic!("{good}: {e}"));
        }
        for bad in [
            "..",
            "../x.csv",
            "a/../../x.csv",
            "link/secret",
            "link/*",
            "link",
            "a/s.csv",
            "dangling",
            "dangling/x",
            "own/../../x",
            "new/../../x.csv",
            "*/../../x",
            "store",
            "store/catalog/1.json",
            "a/../store/catalog/*",
            "key",
            "/etc/passwd",
        ] {
            let e = reach.check_file(&dir.join(bad)).expect_err(bad);
            assert_eq!(e.kind(), ErrorKind::Denied, "{bad}");
        }
        assert!(reach.check_file(&out.join("secret")).is_err());
        assert!(Reach::new(Some(&dir.join("nowhere")), &[], &[]).is_err());
        assert!(Reach::new(Some(&dir.join("a/x.csv")), &[], &[]).is_err());
    }

    #[test]
    fn objects_are_allowed_below_a_url() {
        let url = |text: &str| ObjectsUrl::parse(text).expect("a URL");
        assert!(Reach::default().check_objects(&url("s3://b/a")).is_err());
        let reach =
            Reach::default().with_buckets(&["s3://b".to_owned(), "gs://c/in".to_owned()], &["s3://b/own".to_owned()]);
        let reach = reach.expect("URLs");
        for good in ["s3://b/a/*.csv", "s3://b/x", "gs://c/in/**/*.csv"] {
            reach.check_objects(&url(good)).unwrap_or_else(|e| panic!("{good}: {e}"));
        }
        for bad in [
            "s3://b/own/catalog/1",
            "s3://b/*",
            "s3://b/o*/x",
            "s3://c/in/x",
            "gs://c/inner/x",
            "gs://c/*",
            "gs://c/in*",
        ] {
            assert_eq!(reach.check_objects(&url(bad)).expect_err(bad).kind(), ErrorKind::Denied, "{bad}");
        }
        assert!(Reach::default().with_buckets(&["nowhere".to_owned()], &[]).is_err());
    }

    #[test]
    fn addresses_are_allowed_by_name_or_by_network() {
        let rules =
            ["api.example.org:443", "other.example.org", "10.0.0.0/8", "192.168.1.7:80", "[fd00::]/8:5000", "[::1]"];
        let reach = Reach::new(None, &[], &rules.map(str::to_owned)).expect("rules");
        for (host, port) in [
            ("api.example.org", 443),
            ("API.Example.org.", 443),
            ("other.example.org", 1),
            ("10.255.0.1", 9),
            ("::ffff:10.0.0.1", 9),
            ("[::ffff:10.0.0.1]", 9),
            ("192.168.1.7", 80),
            ("fd00::1", 5000),
            ("[::1]", 7),
        ] {
            reach.check_address(host, port).unwrap_or_else(|e| panic!("{host}:{port}: {e}"));
        }
        for (host, port) in [
            ("api.example.org", 80),
            ("evil.api.example.org", 443),
            ("api.example.org.evil.org", 443),
            ("11.0.0.1", 9),
            ("127.0.0.1", 443),
            ("127.1", 443),
            ("0x0a000001", 9),
            ("167772161", 9),
            ("10.0.0.1.", 9),
            ("localhost", 7),
            ("192.168.1.7", 443),
            ("192.168.1.8", 80),
            ("fd00::1", 443),
            ("::", 7),
            ("0.0.0.0", 80),
        ] {
            assert!(reach.check_address(host, port).is_err(), "{host}:{port}");
        }
        for wrong in ["", "a:b", "10.0.0.0/33", "10.0.0.0/x", "name/8", "*.example.org", "a@b", "host:99999"] {
            assert!(Reach::new(None, &[], &[wrong.to_owned()]).is_err(), "{wrong}");
        }
        assert!(Reach::new(None, &[], &["0.0.0.0/0".to_owned()]).expect("all").check_address("1.2.3.4", 1).is_ok());
    }
}
