//! What the connectors say of themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_engine::connector::registry::{SinkRequest, SourceRequest};
use millstream_engine::error::Error;
use millstream_engine::options::{OptionSpec, Options};
use millstream_engine::reach::Touch;

use super::*;

/// The options that `open` knows, from what it says of one that it does not.
fn known(open: impl Fn(Options) -> Option<Error>, values: &[(&str, &str)]) -> BTreeSet<String> {
    let mut values: BTreeMap<_, _> = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    values.insert("~".to_owned(), "1".to_owned());
    let e = open(Options::new("stream \"s\"", values)).expect("an option that nobody knows");
    let hint = e.hint().unwrap_or_default().to_owned();
    let list = hint.split_once("Its options are: ").map(|(_, list)| list.trim_end_matches('.').to_owned());
    list.unwrap_or_else(|| panic!("{e:?}")).split(", ").map(str::to_owned).collect()
}

fn names(specs: &[OptionSpec]) -> BTreeSet<String> {
    specs.iter().map(|s| s.name.to_owned()).collect()
}

#[test]
fn the_lists_of_options_are_what_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (cert, key) = (path("cert.pem"), path("cert.key"));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&cert, made.cert.pem()).expect("writes");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("writes");
    let tls = [("tls", "true"), ("tls_ca", &cert), ("tls_cert", &cert), ("tls_key", &key)];
    let at = ("address", "localhost:1");
    let ways: Vec<Vec<(&str, &str)>> = vec![
        [&tls[..], &[at, ("format", "csv")]].concat(),
        [&tls[..], &[at, ("mode", "listener")]].concat(),
        vec![at, ("protocol", "udp")],
    ];
    let all = connectors(Connectors::default());
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let read = |name: &str, ways: &[Vec<(&str, &str)>]| {
        let connector = all.find(name).expect("is there");
        let source = connector.readable().expect("is read");
        let open = |options| {
            let (stream, schema, metadata) = ("s".to_owned(), schema.clone(), BTreeMap::new());
            let projection = vec![0];
            let request = SourceRequest {
                stream,
                schema,
                projection,
                metadata,
                key: vec![],
                event_time: None,
                options,
                parallelism: 1,
            };
            source.scan(request).err()
        };
        let found: BTreeSet<String> = ways.iter().flat_map(|values| known(open, values)).collect();
        assert_eq!(found, names(&source.options()), "{name} as a source");
    };
    read("socket", &ways);
    let wss = [&tls[1..], &[("url", "wss://localhost:1/")]].concat();
    read("websocket", &[wss.clone(), [&wss[..], &[("format", "csv")]].concat()]);
    let url = vec![vec![("url", "http://localhost:1/")]];
    read("http", &url);
    // How JSON is written has no options, but for reading it again.
    let link = vec![vec![("url", "grpc://localhost:1"), ("stream", "s")]];
    for (name, ways) in [("socket", &ways), ("http", &url), ("flight", &link)] {
        let connector = all.find(name).expect("is there");
        let sink = connector.writable().expect("is written");
        let open = |options| {
            let (stream, schema) = ("s".to_owned(), schema.clone());
            sink.open(SinkRequest { stream, schema, retracts: false, key: None, options, parallelism: 1 }).err()
        };
        let found: BTreeSet<String> = ways.iter().flat_map(|values| known(open, values)).collect();
        assert_eq!(found, names(&sink.options()), "{name} as a sink");
    }
}

#[test]
fn paths_of_certificates_keep_their_meaning() {
    let expected = std::path::absolute("ca.pem").expect("a folder").to_string_lossy().into_owned();
    for connector in connectors(Connectors::default()).iter() {
        let has = |specs: Vec<OptionSpec>| specs.iter().any(|spec| spec.name == "tls_ca");
        assert!(has(connector.readable().expect("is read").options()), "{} knows no tls_ca", connector.name());
        let mut options = BTreeMap::from([("tls_ca".to_owned(), "ca.pem".to_owned())]);
        connector.fix_paths(&mut options);
        assert_eq!(options["tls_ca"], expected, "{}", connector.name());
    }
}

#[test]
fn what_is_touched_is_said() {
    let touched = |name: &str, values: &[(&str, &str)]| {
        let values = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let connector = connectors(Connectors::default()).find(name).expect("is there");
        connector.touches(&Options::new("stream \"s\"", values)).expect("is said").expect("is known")
    };
    let at = |host: &str, port| Touch::Address { host: host.to_owned(), port };
    let tls = [
        ("address", "[::1]:7000"),
        ("mode", "listener"),
        ("tls", "true"),
        ("tls_key", "/a/b.key"),
        ("tls_cert", "/a/b.pem"),
    ];
    let files = [Touch::File("/a/b.pem".into()), Touch::File("/a/b.key".into())];
    let all = [&[at("::1", 7000)][..], &files].concat();
    assert_eq!(touched("socket", &tls), all);
    assert_eq!(touched("websocket", &[("url", "wss://feed.example.com/ws?a=b")]), [at("feed.example.com", 443)]);
    assert_eq!(touched("websocket", &[("url", "ws://10.0.0.1:81/")]), [at("10.0.0.1", 81)]);
}
