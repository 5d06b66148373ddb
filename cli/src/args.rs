//! The command line: commands, options and their help.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use millstream_flight::Compression;

use crate::output::Format;
use crate::quantity::{parse_interval, parse_lifetime, parse_node_timeout, parse_size};

const EXAMPLES: &str = "\
Examples:
  millstream                                   the shell, on the store ./millstream-data
  millstream demo                              four weeks of flights, live, in a few seconds
  millstream -c 'SELECT * FROM hot LIMIT 5'    one statement
  millstream run flights.sql --format csv      a script; results go to stdout, all else to stderr
  millstream serve                             a Flight SQL server for Python, ADBC, JDBC, DuckDB
  millstream shell --connect grpc://host:31337
  millstream export hot hot.parquet

Documentation of SQL is in the shell: type \\? or press Tab.";

/// A SQL streaming engine in one binary.
///
/// CREATE STREAM … AS SELECT … runs continuously; its result is plain Parquet in the store's folder.
#[derive(Parser, Debug)]
#[command(name = "millstream", version, after_help = EXAMPLES, subcommand_negates_reqs = true)]
pub(crate) struct Cli {
    /// The store: a folder, made when it does not exist, or s3://bucket/prefix, gs://…, az://… [env: MILLSTREAM_STORE] [default: ./millstream-data]
    #[arg(long, global = true, value_name = "DIR|URL")]
    pub(crate) store: Option<String>,
    #[command(flatten)]
    pub(crate) shell: ShellArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

impl Cli {
    /// Reads the arguments of the process, and ends it where they are wrong.
    pub(crate) fn read() -> Self {
        Self::read_from(std::env::args_os()).unwrap_or_else(|e| e.exit())
    }

    /// What stands before a command is the shell's, and would be lost.
    fn read_from(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let mut definition = Cli::command();
        let matches = definition.try_get_matches_from_mut(words)?;
        if let Some(command) = matches.subcommand_name() {
            let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
            let mut own = definition.get_arguments().filter(|arg| !arg.is_global_set());
            let lost = own.find(|arg| given(arg.get_id().as_str())).map(ToString::to_string);
            drop(own);
            if let Some(arg) = lost {
                let message = format!("'{arg}' stands before '{command}': options of '{command}' come after it");
                return Err(definition.error(ErrorKind::ArgumentConflict, message));
            }
        }
        Cli::from_arg_matches(&matches)
    }
}

/// The commands; none means the shell.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Type SQL and see results (the default command)
    #[command(after_help = "Examples:\n  millstream shell --store ./orders\n  \
        millstream shell --connect grpc://localhost:31337 -c 'SHOW STREAMS'")]
    Shell(ShellArgs),
    /// Run a script of SQL statements
    ///
    /// Before each SELECT and COPY, and at the end, it waits until every stream over input that ends is complete.
    /// Results of SELECT go to stdout, all else to stderr. Exit code: 0 done, 1 an error in SQL or in a job,
    /// 2 wrong usage.
    #[command(after_help = "Examples:\n  millstream run flights.sql\n  \
        millstream run --store /tmp/f --format csv flights.sql > result.csv\n  \
        echo 'SELECT 1;' | millstream run -")]
    Run(RunArgs),
    /// Serve the store over Arrow Flight SQL until interrupted
    #[command(after_help = "Examples:\n  millstream serve --store ./orders\n  \
        millstream user add ann --store ./orders\n  \
        millstream serve --store ./orders --listen 0.0.0.0:31337 --tls-cert cert.pem --tls-key key.pem")]
    Serve(ServeArgs),
    /// Make users of the store: the first administrator
    ///
    /// From then on nobody is let in over the network without a login. Others are made in SQL: CREATE USER, GRANT.
    #[command(after_help = "Examples:\n  millstream user add ann --store ./orders\n  \
        echo \"$PASSWORD\" | millstream user add ann")]
    User(UserArgs),
    /// Write a stream to a file: the extension says whether Parquet, CSV or JSON
    #[command(after_help = "Examples:\n  millstream export hot hot.parquet\n  millstream export hot hot.csv")]
    Export(ExportArgs),
    /// See it work: four weeks of real flights through two continuous queries
    #[command(after_help = "Examples:\n  millstream demo\n  millstream demo --speed 50000")]
    Demo(DemoArgs),
    /// Measure it
    Bench(BenchArgs),
}

/// How the engine of an embedded store runs.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct EngineArgs {
    /// Tasks per operator [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) parallelism: Option<u16>,
    /// Memory for the state of all queries, such as 4GB; near it sources wait, and a query that needs more stops
    /// [default: 60 % of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory_limit: Option<usize>,
    /// How often results and state become durable, such as 500ms or 10s [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    pub(crate) checkpoint_interval: Option<Duration>,
    /// File with the key that secrets are kept under, 32 characters or more [env: MILLSTREAM_KEY, the key itself]
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Take passwords in options as they are written; and serve to anybody who reaches the port
    #[arg(long)]
    pub(crate) insecure: bool,
}

/// `millstream` and `millstream shell`.
#[derive(Args, Debug, Default)]
pub(crate) struct ShellArgs {
    /// Execute these statements and exit (may be repeated)
    #[arg(short, long = "command", value_name = "SQL")]
    pub(crate) commands: Vec<String>,
    #[command(flatten)]
    pub(crate) server: ConnectArgs,
    /// How results look with -c or when statements come from a pipe
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// The server to work on.
#[derive(Args, Debug, Default, Clone)]
pub(crate) struct ConnectArgs {
    /// Work on a server instead of opening a store: grpc://host:port, grpc+tls://host:port
    #[arg(long, value_name = "URL")]
    pub(crate) connect: Option<String>,
    /// Who to log in as; the password is asked for, or comes from MILLSTREAM_PASSWORD
    #[arg(long, value_name = "NAME", requires = "connect")]
    pub(crate) user: Option<String>,
    /// File with the authorities to trust, where the URL is grpc+tls://… [default: the system's]
    #[arg(long, value_name = "FILE", requires = "connect")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// File with the certificate to show
    #[arg(long, value_name = "FILE", requires_all = ["connect", "tls_key"])]
    pub(crate) tls_cert: Option<PathBuf>,
    /// File with its key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
}

/// `millstream user`.
#[derive(Args, Debug)]
pub(crate) struct UserArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: UserCommand,
}

/// What `millstream user` does.
#[derive(Subcommand, Debug)]
pub(crate) enum UserCommand {
    /// Add an administrator; the password is asked for, or is a line of stdin
    Add {
        /// The name
        name: String,
    },
}

/// `millstream run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The script; - or nothing means stdin
    #[arg(value_name = "FILE.sql")]
    pub(crate) file: Option<PathBuf>,
    /// How results look
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// `millstream serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:31337")]
    pub(crate) listen: String,
    /// Where to serve HTTP as well: rows in and out, statements, metrics; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) http: Option<String>,
    /// Where other nodes of the store reach this one [default: where it listens; at all addresses, the one of the way out]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// How long a node of the store may be silent before another takes its place, such as 500ms; all nodes agree
    /// [default: that of the others, or 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_node_timeout)]
    pub(crate) node_timeout: Option<Duration>,
    /// How the rows are compressed that this node sends to others: none, lz4 where the network is slower than 1 GB/s, zstd
    /// where it is much slower
    #[arg(long, value_name = "HOW", default_value = "none", value_parser = compressions())]
    pub(crate) node_compression: Compression,
    #[command(flatten)]
    pub(crate) doors: DoorArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// Who is let in, and what statements from outside may touch.
#[derive(Args, Debug, Default)]
pub(crate) struct DoorArgs {
    /// File with the certificate to show, in PEM; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// File with its key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// File with the authority of clients: only who shows a certificate of it gets in, and its common name may be a user
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// Folder whose files statements from outside may read and write [default: none]
    #[arg(long, value_name = "DIR")]
    pub(crate) files: Option<PathBuf>,
    /// Bucket, or part of one, whose objects statements from outside may read and write, such as s3://lake/in (may be repeated)
    #[arg(long, value_name = "URL")]
    pub(crate) bucket: Vec<String>,
    /// Where statements from outside may connect to, such as api.example.org:443 or 10.0.0.0/8 (may be repeated)
    #[arg(long, value_name = "HOST[:PORT]|NETWORK")]
    pub(crate) connect_to: Vec<String>,
    /// How long the token of a login is good, such as 1h [default: 12h]
    #[arg(long, value_name = "TIME", value_parser = parse_lifetime)]
    pub(crate) token_lifetime: Option<Duration>,
    /// Take tokens of this OpenID Connect issuer
    #[arg(long, value_name = "URL", requires_all = ["oidc_jwks", "oidc_audience"])]
    pub(crate) oidc_issuer: Option<String>,
    /// File with the issuer's public keys; read again when it changes
    #[arg(long, value_name = "FILE", requires = "oidc_issuer")]
    pub(crate) oidc_jwks: Option<PathBuf>,
    /// For whom its tokens must be
    #[arg(long, value_name = "NAME", requires = "oidc_issuer")]
    pub(crate) oidc_audience: Option<String>,
    /// The claim of its tokens that is the name of a user
    #[arg(long, value_name = "CLAIM", default_value = "sub", requires = "oidc_issuer")]
    pub(crate) oidc_claim: String,
}

/// `millstream export`.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// The stream or view
    pub(crate) stream: String,
    /// The file to write: .parquet, .csv or .json
    pub(crate) file: String,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// `millstream demo`.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Flights per second [default: as fast as it goes]
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) speed: Option<u64>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// `millstream bench`.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// Which benchmark.
    #[command(subcommand)]
    pub(crate) suite: BenchSuite,
}

/// The benchmarks.
#[derive(Subcommand, Debug)]
pub(crate) enum BenchSuite {
    /// The Nexmark queries over auctions, bids and persons
    #[command(after_help = "Examples:\n  millstream bench nexmark --query q5,q7\n  \
        millstream bench nexmark --query all --events 10000000 --output json")]
    Nexmark(NexmarkArgs),
}

/// `millstream bench nexmark`.
#[derive(Args, Debug)]
pub(crate) struct NexmarkArgs {
    /// The queries, or all
    #[arg(long, value_name = "QUERY", value_delimiter = ',', default_value = "all")]
    pub(crate) query: Vec<String>,
    /// How many events
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) events: u64,
    /// Where the events come from
    #[arg(long, value_enum, default_value_t)]
    pub(crate) source: BenchSource,
    /// The format of the files
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: BenchFormat,
    /// Tasks per operator [default: the number of cores]
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) parallelism: Option<u16>,
    /// How often state becomes durable [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    pub(crate) checkpoint_interval: Option<Duration>,
    /// How the figures look
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: BenchOutput,
    /// Where files and stores of the run lie [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) path: Option<PathBuf>,
}

/// Where the events of a benchmark come from.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BenchSource {
    /// Made in memory while the query runs
    #[default]
    Generator,
    /// Read from files that are written first
    Files,
}

/// The format of a benchmark's files.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BenchFormat {
    /// One object per line
    Json,
    /// Comma-separated values
    Csv,
    /// Parquet
    #[default]
    Parquet,
}

/// How a benchmark's figures look.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BenchOutput {
    /// For people
    #[default]
    Table,
    /// For programs: one object per query
    Json,
}

/// The ways to compress rows, by name.
fn compressions() -> impl TypedValueParser<Value = Compression> {
    PossibleValuesParser::new(Compression::NAMES).map(|name| Compression::named(&name).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &[&str]) -> Cli {
        Cli::try_parse_from(std::iter::once("millstream").chain(words.iter().copied())).unwrap()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_store_may_stand_before_and_after_the_command() {
        assert_eq!(parse(&["--store", "a", "run", "f.sql"]).store.as_deref(), Some("a"));
        assert_eq!(parse(&["run", "f.sql", "--store", "a"]).store.as_deref(), Some("a"));
        assert_eq!(parse(&["run", "f.sql"]).store, None);
    }

    #[test]
    fn no_command_is_the_shell() {
        let cli = parse(&["-c", "SELECT 1", "-c", "SELECT 2; SELECT 3", "--format", "csv"]);
        assert!(cli.command.is_none());
        assert_eq!(cli.shell.commands.len(), 2);
        assert_eq!(cli.shell.format, Format::Csv);
    }

    #[test]
    fn run_takes_limits() {
        let cli = parse(&["run", "-", "--parallelism", "4", "--memory-limit", "4GB"]);
        let Some(Command::Run(run)) = cli.command else { panic!("{cli:?}") };
        assert_eq!(run.file, Some(PathBuf::from("-")));
        assert_eq!(run.engine.parallelism, Some(4));
        assert_eq!(run.engine.memory_limit, Some(4_000_000_000));
    }

    #[test]
    fn bench_takes_a_list_of_queries() {
        let cli = parse(&["bench", "nexmark", "--query", "q5,q7", "--events", "10", "--output", "json"]);
        let Some(Command::Bench(BenchArgs { suite: BenchSuite::Nexmark(nexmark) })) = cli.command else {
            panic!("{cli:?}")
        };
        assert_eq!(nexmark.query, ["q5", "q7"]);
        assert_eq!((nexmark.events, nexmark.output), (10, BenchOutput::Json));
    }

    #[test]
    fn options_of_the_shell_do_not_stand_before_a_command() {
        for words in [&["m", "-c", "SELECT 1", "run", "x.sql"][..], &["m", "--parallelism", "2", "serve"]] {
            let e = Cli::read_from(words).unwrap_err();
            assert_eq!(e.exit_code(), 2);
            assert!(e.to_string().contains("stands before"), "{e}");
        }
        assert!(Cli::read_from(["m", "--store", "s", "run", "x.sql"]).is_ok());
        assert!(Cli::read_from(["m", "-c", "SELECT 1"]).is_ok());
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for words in [
            &["millstream", "run", "--format", "xml"][..],
            &["millstream", "run", "--parallelism", "0"],
            &["millstream", "run", "--checkpoint-interval", "1ms"],
        ] {
            assert_eq!(Cli::try_parse_from(words).unwrap_err().exit_code(), 2);
        }
    }
}
