//! The address at which others reach a node.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use millstream_sql::{Error, Result};

/// An address of a network that is for documents: what the system would send there goes out where all else does. Nothing is sent.
const OUTSIDE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// `written`, or where nothing is written, what follows from the address `listening` that is listened at.
///
/// Errors where nobody could reach that.
pub fn advertised(written: Option<&str>, listening: SocketAddr) -> Result<String> {
    let Some(written) = written else {
        let ip = match listening.ip() {
            ip if ip.is_unspecified() => outgoing(ip).ok_or_else(unknown)?,
            ip => ip,
        };
        return Ok(SocketAddr::new(ip, listening.port()).to_string());
    };
    let wrong = |what: &str| {
        Error::invalid(format!("\"{written}\" is no address at which others reach a node: {what}"))
            .with_hint("Write a name or an address of this machine and a port: --advertise HOST:PORT.")
    };
    let (host, port) = written.rsplit_once(':').ok_or_else(|| wrong("it names no port"))?;
    match port.parse::<u16>() {
        Err(_) => return Err(wrong("its port is no number")),
        Ok(0) => return Err(wrong("port 0 is no port")),
        Ok(_) => {}
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.is_empty() || bare.contains(['/', '@', ' ', '?', '#']) {
        return Err(wrong("it names no host"));
    }
    match bare.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err(wrong("it means all addresses of a machine")),
        Ok(IpAddr::V6(_)) if !host.starts_with('[') => Err(wrong("it needs brackets around its host")),
        _ => Ok(written.to_owned()),
    }
}

/// The address that connections of this machine come from, of the same family as `like`.
fn outgoing(like: IpAddr) -> Option<IpAddr> {
    let outside = if like.is_ipv4() { OUTSIDE[0] } else { OUTSIDE[1] };
    let socket = UdpSocket::bind(SocketAddr::new(like, 0)).ok()?;
    socket.connect(outside).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    Some(ip).filter(|ip| !ip.is_unspecified())
}

fn unknown() -> Error {
    Error::invalid(
        "it is not known at which address others reach this node: it listens at all of them, and has no way out",
    )
    .with_hint("Write it: --advertise HOST:PORT. Or listen at one of them: --listen HOST:PORT.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listened_at_is_advertised_where_it_is_one_address() {
        let listening = "127.0.0.1:7".parse().unwrap();
        assert_eq!(advertised(None, listening).unwrap(), "127.0.0.1:7");
        assert_eq!(advertised(None, "[::1]:7".parse().unwrap()).unwrap(), "[::1]:7");
        for good in ["node-a:31337", "10.0.0.1:1", "[::1]:1"] {
            assert_eq!(advertised(Some(good), listening).unwrap(), good);
        }
        // On a machine without a network it is an error, and never "all".
        let all = advertised(None, "0.0.0.0:7".parse().unwrap());
        assert!(
            all.as_ref().map_or_else(|e| e.hint().is_some(), |a| !a.starts_with("0.0.0.0") && a.ends_with(":7")),
            "{all:?}"
        );
    }

    #[test]
    fn what_nobody_reaches_is_refused() {
        let listening = "127.0.0.1:7".parse().unwrap();
        for (wrong, why) in [
            ("node-a", "names no port"),
            ("node-a:", "is no number"),
            ("node-a:0", "port 0"),
            ("node-a:99999", "is no number"),
            (":1", "names no host"),
            ("grpc://a:1", "names no host"),
            ("0.0.0.0:1", "means all addresses"),
            ("[::]:1", "means all addresses"),
            ("::1:1", "needs brackets"),
        ] {
            let e = advertised(Some(wrong), listening).unwrap_err();
            assert!(e.message().contains(why) && e.hint().is_some_and(|h| h.contains("--advertise")), "{wrong}: {e}");
        }
    }
}
