//! `millstream serve`: the store over Arrow Flight SQL, and over HTTP where that is asked for, behind the same doors.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use millstream_engine::reach::Reach;
use millstream_engine::store::Place as StorePlace;
use millstream_flight::doors::tls::Identity;
use millstream_flight::doors::{OidcOptions, ServerTls};
use millstream_flight::{Acceptor, Doors, DoorsOptions, HttpOptions, serve_http, serve_with};
use millstream_sql::{Config, ErrorKind, Millstream, Result};
use tokio::net::TcpListener;
use tokio::sync::watch;

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
    let store = config.store.clone();
    let millstream = Millstream::open(config).await?;
    let is_open = millstream.access().is_open();
    let refused = |place: &Place| refuse_open_doors(place, is_open, args.engine.insecure);
    if let Err(e) = refused(&flight).and_then(|()| http.as_ref().map_or(Ok(()), refused)) {
        millstream.close().await?;
        return Err(e);
    }
    let doors = Arc::new(Doors::new(Arc::clone(&millstream), doors_options(args.doors))?);
    let mut stop = Box::pin(signal::shutdown());
    // Its handlers are there before anybody is told that it serves.
    let stopped = futures::poll!(&mut stop).is_ready();
    announce(&flight, http.as_ref(), &store, &millstream);
    let served = serve(doors, flight, http, async move {
        if !stopped {
            stop.await;
        }
        report::say(format_args!("closing: committing what the jobs have"));
    });
    let served = served.await;
    let closed = millstream.close().await;
    served.and(closed)?;
    report::say(format_args!("closed"));
    Ok(ExitCode::SUCCESS)
}

/// Serves at both places until `shutdown` completes, and then until what is under way has ended.
async fn serve(
    doors: Arc<Doors>,
    flight: Place,
    http: Option<Place>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let (stop, stopped) = watch::channel(false);
    let both = async {
        let acceptor = Acceptor::new(flight.listener, flight.tls);
        let flight = serve_with(Arc::clone(&doors), acceptor, until(stopped.clone()));
        match http {
            None => flight.await,
            Some(http) => {
                let acceptor = Acceptor::new(http.listener, http.tls);
                let http = serve_http(Arc::clone(&doors), acceptor, HttpOptions::default(), until(stopped));
                tokio::try_join!(flight, http).map(drop)
            }
        }
    };
    tokio::pin!(both, shutdown);
    tokio::select! {
        served = &mut both => served,
        () = &mut shutdown => {
            // No receiver means that both have ended.
            let _ = stop.send(true);
            both.await
        }
    }
}

/// Completes when `stopped` turns true.
async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that nobody can ask any more.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn listen(place: &str, args: &DoorArgs, protocols: &[&str]) -> Result<Place> {
    let tls = match args.tls_cert.clone().zip(args.tls_key.clone()) {
        Some((cert, key)) => Some(ServerTls::new(Identity { cert, key }, args.tls_client_ca.clone(), protocols)?),
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
fn refuse_open_doors(place: &Place, is_open: bool, insecure: bool) -> Result<()> {
    why_refused(place.address.ip(), place.tls.is_some(), is_open, insecure).map_or(Ok(()), |(what, hint)| {
        let address = place.address;
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

fn announce(flight: &Place, http: Option<&Place>, store: &str, millstream: &Millstream) {
    let streams = millstream.objects().iter().filter(|o| o.namespace == "public").count();
    let (scheme, address) = (if flight.tls.is_some() { "grpc+tls" } else { "grpc" }, flight.address);
    report::say(format_args!(
        "millstream {} serves {store} on {scheme}://{address} ({}, {})",
        env!("CARGO_PKG_VERSION"),
        report::counted(streams as u64, "stream"),
        report::counted(millstream.jobs().len() as u64, "job")
    ));
    let login = if millstream.access().is_open() { "" } else { " --user NAME" };
    let (host_name, port) = (host(address), address.port());
    report::say(format_args!("connect: millstream shell --connect {scheme}://{host_name}:{port}{login}"));
    if let Some(Place { address, tls, .. }) = http {
        let scheme = if tls.is_some() { "https" } else { "http" };
        report::say(format_args!("http: {scheme}://{}:{}", host(*address), address.port()));
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
