//! Connectors that speak over a network. Each is a value in the list that a store is opened with; the engine knows none of
//! them.

mod backoff;
mod count;
mod dispatch;
mod endless;
mod flight;
mod headers;
mod http;
mod inbox;
mod link;
mod polled;
mod socket;
mod websocket;
mod wire;

use millstream_engine::connector::registry::Connectors;

/// `base` and the connectors of this crate.
pub fn connectors(base: Connectors) -> Connectors {
    let base = base.with(socket::SocketConnector).with(websocket::WebSocketConnector);
    base.with(http::HttpConnector).with(flight::FlightConnector)
}

#[cfg(test)]
mod tests;
