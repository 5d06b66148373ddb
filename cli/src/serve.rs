//! `millstream serve`: the store over Arrow Flight SQL.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use millstream_sql::{Millstream, Result};
use tokio::net::TcpListener;

use crate::args::ServeArgs;
use crate::{config, report, signal};

/// Serves until the process is told to end.
pub(crate) async fn run(store: Option<String>, args: ServeArgs) -> Result<ExitCode> {
    let config = config::engine(config::store(store), &args.engine);
    let listener = TcpListener::bind(&args.listen)
        .await
        .map_err(|e| report::io_error(format_args!("cannot listen on \"{}\"", args.listen), e))?;
    let address = listener.local_addr().map_err(|e| report::io_error("the listening socket has no address", e))?;
    let place = config.store.clone();
    let millstream = Millstream::open(config).await?;
    announce(address, &place, &millstream);
    let served = flight(Arc::clone(&millstream), listener, async {
        signal::shutdown().await;
        report::say(format_args!("closing: committing what the jobs have"));
    })
    .await;
    let closed = millstream.close().await;
    served.and(closed)?;
    report::say(format_args!("closed"));
    Ok(ExitCode::SUCCESS)
}

fn announce(address: SocketAddr, store: &str, millstream: &Millstream) {
    // an address that means "all" cannot be connected to
    let host = match address.ip() {
        ip if ip.is_unspecified() => "localhost".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    };
    let streams = millstream.objects().iter().filter(|o| o.namespace == "public").count();
    report::say(format_args!(
        "millstream {} serves {store} on grpc://{address} ({}, {})",
        env!("CARGO_PKG_VERSION"),
        report::counted(streams as u64, "stream"),
        report::counted(millstream.jobs().len() as u64, "job")
    ));
    report::say(format_args!("connect: millstream shell --connect grpc://{host}:{}", address.port()));
}

/// The server itself.
async fn flight(
    millstream: Arc<Millstream>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    millstream_flight::serve(millstream, listener, shutdown).await
}
