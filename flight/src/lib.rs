//! All of Millstream that knows the network: a Flight SQL server that any such client can talk to, a client for the shell, and
//! connectors.
//!
//! A query's life on the wire: `GetFlightInfo` types the statement and answers with a ticket that holds its
//! text; `DoGet` runs it and streams Arrow batches, text as `Utf8` whatever the engine keeps it as. A statement
//! that is not a query runs at `GetFlightInfo`, once, because several clients never send the `DoGet`.
//! `EMIT CHANGES` is a `DoGet` that does not end: each epoch is sent as soon as it is published, with its number
//! and watermark in `app_metadata`. Nothing here is spawned or queued: a result exists only while the client's
//! stream is polled, so a client that goes away takes its query with it.

pub mod client;
pub mod cluster;
mod connector;
pub mod doors;
pub mod error;
pub mod exchange;
pub mod http;
pub mod server;

mod base64;
mod compression;
mod encode;
mod notes;
mod unpack;
mod wanted;
mod wire;

pub use client::{ConnectOptions, FlightClient};
pub use cluster::{Node, NodeOptions, Part, advertised, serve_node};
pub use compression::Compression;
pub use connector::connectors;
pub use doors::{Acceptor, Doors, DoorsOptions};
pub use http::{HttpOptions, serve_http};
pub use server::{serve, serve_with};
