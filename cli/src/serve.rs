//! `millstream serve`: the store over Arrow Flight SQL, and over HTTP where that is asked for.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use millstream_flight::HttpOptions;
use millstream_sql::{Millstream, Result};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::args::ServeArgs;
use crate::{config, report, signal};

/// Serves until the process is told to end.
pub(crate) async fn run(store: Option<String>, args: ServeArgs) -> Result<ExitCode> {
    let config = config::engine(config::store(store), &args.engine);
    let (listener, address) = listen(&args.listen).await?;
    let http = match &args.http {
        Some(place) => Some(listen(place).await?),
        None => None,
    };
    let place = config.store.clone();
    let millstream = Millstream::open(config).await?;
    announce(address, &place, &millstream);
    if let Some((_, address)) = &http {
        report::say(format_args!("http: http://{}:{}", host(*address), address.port()));
    }
    let (stop, stopped) = watch::channel(false);
    let shutdown = async move {
        signal::shutdown().await;
        report::say(format_args!("closing: committing what the jobs have"));
        // No receiver means that both have ended.
        let _ = stop.send(true);
    };
    let both = async {
        let flight = flight(Arc::clone(&millstream), listener, until(stopped.clone()));
        match http {
            None => flight.await,
            Some((listener, _)) => {
                let millstream = Arc::clone(&millstream);
                let http = millstream_flight::serve_http(millstream, listener, HttpOptions::default(), until(stopped));
                tokio::try_join!(flight, http).map(drop)
            }
        }
    };
    tokio::pin!(both, shutdown);
    let served = tokio::select! {
        served = &mut both => served,
        () = &mut shutdown => both.await,
    };
    let closed = millstream.close().await;
    served.and(closed)?;
    report::say(format_args!("closed"));
    Ok(ExitCode::SUCCESS)
}

/// Completes when `stopped` turns true.
async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that nobody can ask any more.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn listen(place: &str) -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(place)
        .await
        .map_err(|e| report::io_error(format_args!("cannot listen on \"{place}\""), e))?;
    let address = listener.local_addr().map_err(|e| report::io_error("the listening socket has no address", e))?;
    Ok((listener, address))
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

fn announce(address: SocketAddr, store: &str, millstream: &Millstream) {
    let streams = millstream.objects().iter().filter(|o| o.namespace == "public").count();
    report::say(format_args!(
        "millstream {} serves {store} on grpc://{address} ({}, {})",
        env!("CARGO_PKG_VERSION"),
        report::counted(streams as u64, "stream"),
        report::counted(millstream.jobs().len() as u64, "job")
    ));
    report::say(format_args!("connect: millstream shell --connect grpc://{}:{}", host(address), address.port()));
}

/// The server itself.
async fn flight(
    millstream: Arc<Millstream>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    millstream_flight::serve(millstream, listener, shutdown).await
}
