//! `millstream serve`: the store over Arrow Flight SQL, and over HTTP where that is asked for, behind the same doors. Processes
//! that serve one store are nodes of one cluster.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use millstream_engine::reach::Reach;
use millstream_engine::store::Place as StorePlace;
use millstream_flight::doors::tls::Identity;
use millstream_flight::doors::{OidcOptions, ServerTls};
use millstream_flight::{Acceptor, DoorsOptions, HttpOptions, Node, NodeOptions, Part, advertised, serve_node};
use millstream_sql::{Config, ErrorKind, Result};
use tokio::net::TcpListener;

use crate::args::{DoorArgs, EngineArgs, ServeArgs};
use crate::{config, report, signal};

/// A place that is listened at, with the TLS of what listens there.
struct Place {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<ServerTls>,
}

/// Serves until the process is told to end.
pub(crate) async fn run(store: Option<String>, args: ServeArgs) -> Result<ExitCode> {
    let mut config = config::engine(config::store(store), &args.engine)?;
    config.reach = Some(Arc::new(reach(&config, &args.doors, &args.engine)?));
    let flight = listen(&args.listen, &args.doors, &["h2"]).await?;
    let http = match &args.http {
        Some(place) => Some(listen(place, &args.doors, &["h2", "http/1.1"]).await?),
        None => None,
    };
    let address = advertised(args.advertise.as_deref(), flight.address)?;
    let (store, identity) = (config.store.clone(), identity(&args.doors));
    let places: Vec<_> = std::iter::once(&flight).chain(&http).map(|p| (p.address, p.tls.is_some())).collect();
    let insecure = args.engine.insecure;
    let options = NodeOptions {
        config,
        doors: doors_options(args.doors),
        http: HttpOptions::default(),
        address,
        admits: Box::new(move |is_open| {
            places.iter().try_for_each(|place| refuse_open_doors(*place, is_open, insecure))
        }),
        identity,
        timeout: args.node_timeout,
        compression: args.node_compression,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let node = Node::open(options).await?;
    let mut stop = Box::pin(signal::shutdown());
    // Its handlers are there before anybody is told that it serves.
    let stopped = futures::poll!(&mut stop).is_ready();
    let words = announcement(&flight, http.as_ref(), &store, node.is_open());
    let (shown, leaving) = (Arc::clone(&node), Arc::clone(&node));
    let shutdown = async move {
        let asked = async {
            if !stopped {
                stop.await;
            }
        };
        tokio::select! {
            () = asked => {}
            () = leaving.told_to_leave() => report::say(format_args!("this node was told to leave")),
        }
        match leaving.part() {
            Part::Leads(_) => report::say(format_args!("closing: committing what the jobs have")),
            Part::Follows(_) | Part::Seeks(_) => report::say(format_args!("closing")),
        }
    };
    let acceptor = |place: Place| Acceptor::new(place.listener, place.tls);
    let (flight, http) = (acceptor(flight), http.map(acceptor));
    serve_node(node, flight, http, || words.say(&shown), shutdown).await?;
    report::say(format_args!("closed"));
    Ok(ExitCode::SUCCESS)
}

/// The certificate that it shows.
fn identity(args: &DoorArgs) -> Option<Identity> {
    let (cert, key) = args.tls_cert.clone().zip(args.tls_key.clone())?;
    Some(Identity { cert, key })
}

async fn listen(place: &str, args: &DoorArgs, protocols: &[&str]) -> Result<Place> {
    let tls = match identity(args) {
        Some(identity) => Some(ServerTls::new(identity, args.tls_client_ca.clone(), protocols)?),
        None => None,
    };
    let listener = TcpListener::bind(place)
        .await
        .map_err(|e| report::io_error(format_args!("cannot listen on \"{place}\""), e))?;
    let address = listener.local_addr().map_err(|e| report::io_error("the listening socket has no address", e))?;
    Ok(Place { listener, address, tls })
}

/// What statements from outside may touch: never the store itself, nor what the server has for its doors.
fn reach(config: &Config, args: &DoorArgs, engine: &EngineArgs) -> Result<Reach> {
    let own = [&args.tls_cert, &args.tls_key, &args.tls_client_ca, &args.oidc_jwks, &engine.key_file];
    let mut except: Vec<PathBuf> = own.into_iter().flatten().cloned().collect();
    let mut own_bucket = vec![];
    match StorePlace::parse(&config.store)? {
        StorePlace::Folder(store) => except.push(store),
        StorePlace::Bucket(bucket) => own_bucket.push(bucket.url()),
    }
    Ok(Reach::new(args.files.as_deref(), &except, &args.connect_to)?.with_buckets(&args.bucket, &own_bucket)?)
}

fn doors_options(args: DoorArgs) -> DoorsOptions {
    let oidc = args.oidc_issuer.zip(args.oidc_jwks).zip(args.oidc_audience);
    let oidc = oidc.map(|((issuer, jwks), audience)| OidcOptions { issuer, audience, jwks, claim: args.oidc_claim });
    DoorsOptions { token_lifetime: args.token_lifetime, oidc }
}

/// Refuses to listen where others reach it while anybody may do all, or while passwords can be overheard.
fn refuse_open_doors((address, is_tls): (SocketAddr, bool), is_open: bool, insecure: bool) -> Result<()> {
    why_refused(address.ip(), is_tls, is_open, insecure).map_or(Ok(()), |(what, hint)| {
        let message = format!("refused to listen on {address}, which others reach, {what}");
        Err(report::fail(ErrorKind::Invalid, message).with_hint(format!(
            "{hint} Or listen on 127.0.0.1; or write --insecure, where the network is yours alone."
        )))
    })
}

fn why_refused(address: IpAddr, is_tls: bool, is_open: bool, insecure: bool) -> Option<(&'static str, &'static str)> {
    if insecure || address.is_loopback() || (is_tls && !is_open) {
        return None;
    }
    Some(match (is_tls, is_open) {
        (true, _) => ("without users", "Make one: millstream user add NAME."),
        (false, false) => ("without TLS", "Write --tls-cert FILE --tls-key FILE."),
        (false, true) => (
            "without TLS and users",
            "Make a user: millstream user add NAME; and write --tls-cert FILE --tls-key FILE.",
        ),
    })
}

/// A name by which `address` can be connected to.
fn host(address: SocketAddr) -> String {
    match address.ip() {
        // An address that means "all" cannot be.
        ip if ip.is_unspecified() => "localhost".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    }
}

/// What is said of a server once it serves.
struct Announcement {
    /// Up to where it is said what there is.
    serves: String,
    connect: String,
    http: Option<String>,
}

fn announcement(flight: &Place, http: Option<&Place>, store: &str, is_open: bool) -> Announcement {
    let (scheme, address) = (if flight.tls.is_some() { "grpc+tls" } else { "grpc" }, flight.address);
    let login = if is_open { "" } else { " --user NAME" };
    let (host_name, port) = (host(address), address.port());
    Announcement {
        serves: format!("millstream {} serves {store} on {scheme}://{address}", env!("CARGO_PKG_VERSION")),
        connect: format!("connect: millstream shell --connect {scheme}://{host_name}:{port}{login}"),
        http: http.map(|Place { address, tls, .. }| {
            let scheme = if tls.is_some() { "https" } else { "http" };
            format!("http: {scheme}://{}:{}", host(*address), address.port())
        }),
    }
}

impl Announcement {
    fn say(self, node: &Node) {
        let part = match node.part() {
            Part::Leads(millstream) => {
                let streams = millstream.objects().iter().filter(|o| o.namespace == "public").count();
                let jobs = millstream.jobs().len();
                format!("{}, {}", report::counted(streams as u64, "stream"), report::counted(jobs as u64, "job"))
            }
            Part::Follows(leader) => format!("a node; the one that leads is {leader}"),
            Part::Seeks(why) => format!("a node; {why}"),
        };
        report::say(format_args!("{} ({part})", self.serves));
        report::say(format_args!("{}", self.connect));
        if let Some(http) = self.http {
            report::say(format_args!("{http}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_doors_are_for_loopback() {
        let all: IpAddr = "0.0.0.0".parse().unwrap();
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(why_refused(local, false, true, false).is_none());
        assert!(why_refused("::1".parse().unwrap(), false, true, false).is_none());
        assert!(why_refused(all, true, false, false).is_none());
        assert!(why_refused(all, false, true, true).is_none());
        for (is_tls, is_open) in [(false, true), (true, true), (false, false)] {
            assert!(why_refused(all, is_tls, is_open, false).is_some());
            assert!(why_refused("192.168.1.5".parse().unwrap(), is_tls, is_open, false).is_some());
        }
    }
}
