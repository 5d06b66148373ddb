//! Connectors as values: what one is ([`Connector`]), and the list of those there are ([`Connectors`]), which is made in
//! one place and passed down. A new connector touches its own files and that list.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};

#[cfg(doc)]
use crate::connector::Opening;
use crate::connector::{Sink, Source};
use crate::error::{Error, Result};
use crate::format::form::Form;
use crate::format::metadata::{Layout, MetadataKey};
use crate::format::sql_name;
use crate::nearest::nearest;
use crate::options::{OptionSpec, Options};
use crate::reach::Touch;

/// A scan of a stream.
#[derive(Clone, Debug)]
pub struct SourceRequest {
    /// The stream's name.
    pub stream: String,
    /// All its columns, as declared (or as [`Readable::columns`] gave).
    pub schema: SchemaRef,
    /// The columns to read, in this order; the source yields exactly these.
    pub projection: Vec<usize>,
    /// Which of `schema` are metadata, by [`MetadataKey::name`]. Only for connectors that have some.
    pub metadata: BTreeMap<usize, String>,
    /// The columns of `schema` in which a row is equal to those that it replaces, where rows do that.
    pub key: Vec<usize>,
    /// The column of `schema` with the event time.
    pub event_time: Option<usize>,
    /// `WITH (…)`, without `connector`.
    pub options: Options,
    /// How many tasks will read.
    pub parallelism: usize,
}

impl SourceRequest {
    /// The columns that are read, parted into those of the content and those of metadata.
    pub fn layout(&self) -> Result<Layout> {
        let mut layout = Layout::new(&self.schema, &self.projection, &self.metadata)?;
        layout.key = self.key.iter().map(|column| self.schema.field(*column).name().clone()).collect();
        Ok(layout)
    }
}

/// A sink to open.
#[derive(Clone, Debug)]
pub struct SinkRequest {
    /// The stream's name.
    pub stream: String,
    /// The columns written.
    pub schema: SchemaRef,
    /// Whether rows can be taken back.
    pub retracts: bool,
    /// The columns that identify a row, where known and where the old and the new row of a key are to be paired.
    pub key: Option<Vec<usize>>,
    /// `WITH (…)`, without `connector`.
    pub options: Options,
    /// How many tasks will write.
    pub parallelism: usize,
}

/// A way into Millstream, or out of it, or both.
pub trait Connector: Send + Sync {
    /// What `WITH (connector = '…')` calls it.
    fn name(&self) -> &str;

    /// What it is, in a line.
    fn about(&self) -> &str;

    /// Reading from it, if it can be read.
    fn source(&self) -> Option<&dyn Readable> {
        None
    }

    /// Writing to it, if it can be written.
    fn sink(&self) -> Option<&dyn Writable> {
        None
    }

    /// Makes what `options` say relative to the present folder absolute, before they are kept. Gives what is found out
    /// by that: for [`Options::with_found`].
    fn fix_paths(&self, _options: &mut BTreeMap<String, String>) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// The files and addresses that reading from it or writing to it with `options` would touch. Where it does not say,
    /// which `None` means, only who has the store open may use it. What it finds out later, such as the files of a pattern or
    /// where an address leads on to, it checks itself, by [`Options::reach`].
    fn touches(&self, _options: &Options) -> Result<Option<Vec<Touch>>> {
        Ok(None)
    }
}

/// A connector that can be read.
pub trait Readable: Send + Sync {
    /// Its options.
    fn options(&self) -> Vec<OptionSpec> {
        vec![]
    }

    /// What holds for the rows when the process dies.
    fn guarantee(&self) -> Guarantee;

    /// The same in words, which may say on what it depends.
    fn promise(&self) -> String {
        self.guarantee().to_string()
    }

    /// What `options` leave to be found out, so that it is found out once: for [`Options::with_found`].
    fn find_options(&self, _options: &Options) -> Result<BTreeMap<String, String>> {
        Ok(BTreeMap::new())
    }

    /// What it knows of a record besides its content: columns may be declared as that.
    fn metadata(&self) -> Vec<MetadataKey> {
        vec![]
    }

    /// The columns it would yield where the statement declares none; `None` where they must be declared.
    fn columns(&self, _options: Options) -> Result<Option<SchemaRef>> {
        Ok(None)
    }

    /// What else is known of what it yields, beside the columns.
    fn shape(&self, _options: &Options) -> Result<Shape> {
        Ok(Shape::default())
    }

    /// What its records say under `options`.
    fn form(&self, _options: &Options) -> Form {
        Form::Rows
    }

    /// Checks, once and before anything is made, that it has what `request` asks for: what it reads may be opened.
    /// What a source that was checked finds later is input, and no reason to refuse the stream.
    fn check(&self, request: SourceRequest) -> Result<()> {
        self.scan(request).map(drop)
    }

    /// The source that `request` describes; opens nothing. Errors name what is wrong with the options.
    fn scan(&self, request: SourceRequest) -> Result<Arc<dyn Source>>;

    /// Whether its sources read less where a condition leaves rows out ([`Opening::conditions`]).
    fn prunes(&self) -> bool {
        false
    }

    /// Whether the process has one of it, which two jobs cannot both read.
    fn is_single(&self) -> bool {
        false
    }
}

/// A connector that can be written.
pub trait Writable: Send + Sync {
    /// Its options.
    fn options(&self) -> Vec<OptionSpec> {
        vec![]
    }

    /// What holds for the rows when the process dies.
    fn guarantee(&self) -> Guarantee;

    /// The same in words, which may say on what it depends.
    fn promise(&self) -> String {
        self.guarantee().to_string()
    }

    /// Checks, once and before anything is made, that who is written to will take what `request` asks for.
    fn check(&self, _request: SinkRequest) -> Result<()> {
        Ok(())
    }

    /// Opens a sink. Errors name what is wrong with the options.
    fn open(&self, request: SinkRequest) -> Result<Arc<dyn Sink>>;

    /// Whether one task writes, because the rows go into one pipe.
    fn is_single(&self) -> bool {
        false
    }
}

/// What a source yields, beside the columns, which are named here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Whether it takes rows back.
    pub changelog: bool,
    /// The columns that identify a row, where known.
    pub key: Option<Vec<String>>,
    /// The column with the event time whose watermark the source itself tells.
    pub event_time: Option<String>,
}

/// How often a row counts, whatever crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// Once.
    ExactlyOnce,
    /// Once or, after a crash, again.
    AtLeastOnce,
    /// Once or, after a crash, not.
    AtMostOnce,
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Guarantee::ExactlyOnce => "exactly once",
            Guarantee::AtLeastOnce => "at least once",
            Guarantee::AtMostOnce => "at most once",
        })
    }
}

impl dyn Connector {
    /// Reading from it.
    ///
    /// Errors with what to write when it is only written.
    pub fn readable(&self) -> Result<&dyn Readable> {
        self.source().ok_or_else(|| {
            Error::invalid(format!("connector '{}' is written to, not read", self.name()))
                .with_hint("Give it a query: CREATE STREAM … WITH (connector = …) AS SELECT ….")
        })
    }

    /// Writing to it.
    ///
    /// Errors with what to write when it is only read.
    pub fn writable(&self) -> Result<&dyn Writable> {
        self.sink().ok_or_else(|| {
            Error::invalid(format!("connector '{}' is read, not written to", self.name()))
                .with_hint("Leave the query out: CREATE STREAM name (columns) WITH (connector = …).")
        })
    }

    /// The columns that it has itself under `options`.
    ///
    /// Errors when it leaves them to the statement.
    pub fn own_columns(&self, options: Options) -> Result<SchemaRef> {
        let owner = options.owner().to_owned();
        self.readable()?.columns(options)?.ok_or_else(|| {
            Error::invalid(format!("{owner} declares no columns"))
                .with_hint(format!("Connector '{}' needs them: CREATE STREAM s (a BIGINT, …) WITH (…).", self.name()))
        })
    }
}

impl dyn Connector {
    /// Checks that column `field` of `owner` can be its metadata `key`.
    ///
    /// Errors with the metadata that there is.
    pub fn check_metadata(&self, owner: &str, field: &Field, key: &str) -> Result<()> {
        let (all, name, column) = (self.readable()?.metadata(), self.name(), field.name());
        let Some(found) = all.iter().find(|known| known.name == key) else {
            let e =
                Error::invalid(format!("column \"{column}\" of {owner}: connector '{name}' has no metadata '{key}'"));
            let near = nearest(key, all.iter().map(|known| known.name));
            let near = near.map(|near| format!("Did you mean '{near}'? ")).unwrap_or_default();
            let names: Vec<_> = all.iter().map(|k| format!("'{}' {}", k.name, sql_name(&k.data_type))).collect();
            return Err(e.with_hint(match names.is_empty() {
                true => "It has none: declare columns of its content only.".to_owned(),
                false => format!("{near}It has: {}.", names.join(", ")),
            }));
        };
        let sql_type = sql_name(&found.data_type);
        if !found.fits(field.data_type()) {
            let declared = sql_name(field.data_type());
            return Err(Error::invalid(format!(
                "column \"{column}\" of {owner}: metadata '{key}' of connector '{name}' is {sql_type}, not {declared}"
            ))
            .with_hint(format!("Declare it as {sql_type}, and cast it where it is read.")));
        }
        if found.nullable && !field.is_nullable() {
            return Err(Error::invalid(format!(
                "column \"{column}\" of {owner}: metadata '{key}' of connector '{name}' may be null"
            ))
            .with_hint("Leave NOT NULL out."));
        }
        Ok(())
    }
}

/// The connectors that there are.
#[derive(Clone, Default)]
pub struct Connectors(Vec<Arc<dyn Connector>>);

impl Connectors {
    /// These and `connector`, which takes the place of one of its name.
    pub fn with(mut self, connector: impl Connector + 'static) -> Self {
        self.0.retain(|c| c.name() != connector.name());
        self.0.push(Arc::new(connector));
        self
    }

    /// All, in the order of the list.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Connector>> {
        self.0.iter()
    }

    /// The names of those that can be read.
    pub fn readable(&self) -> Vec<&str> {
        self.iter().filter(|c| c.source().is_some()).map(|c| c.name()).collect()
    }

    /// The names of those that can be written.
    pub fn writable(&self) -> Vec<&str> {
        self.iter().filter(|c| c.sink().is_some()).map(|c| c.name()).collect()
    }

    /// The one called `name`, to be read.
    ///
    /// Errors with those that can be when there is none, or it cannot be.
    pub fn to_read(&self, name: &str) -> Result<Arc<dyn Connector>> {
        let found = self.find(name).ok_or_else(|| unknown(name, &self.readable()))?;
        found.readable()?;
        Ok(found)
    }

    /// The one called `name`, to be written.
    ///
    /// Errors with those that can be when there is none, or it cannot be.
    pub fn to_write(&self, name: &str) -> Result<Arc<dyn Connector>> {
        let found = self.find(name).ok_or_else(|| unknown(name, &self.writable()))?;
        found.writable()?;
        Ok(found)
    }

    /// The one called `name`.
    pub fn find(&self, name: &str) -> Option<Arc<dyn Connector>> {
        self.iter().find(|c| c.name() == name).cloned()
    }
}

impl fmt::Debug for Connectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|c| c.name())).finish()
    }
}

fn unknown(name: &str, known: &[&str]) -> Error {
    let near = nearest(name, known.iter().copied()).map(|near| format!("Did you mean {near}? "));
    let hint = format!("{}Write one of: {}.", near.unwrap_or_default(), known.join(", "));
    Error::invalid(format!("there is no connector '{name}'")).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::connector::built_in;
    use crate::options::Fallback;

    fn hint(error: &Error) -> &str {
        error.hint().unwrap_or_default()
    }

    #[test]
    fn a_wrong_connector_is_told_by_the_list() {
        let all = built_in();
        let e = all.to_read("fiel").err().expect("there is none");
        assert_eq!(e.message(), "there is no connector 'fiel'");
        assert_eq!(hint(&e), "Did you mean file? Write one of: file, stdin, nexmark, datagen.");
        let e = all.to_write("kafka").err().expect("there is none");
        assert_eq!(hint(&e), "Write one of: file, stdout, blackhole.");
        let e = all.to_read("stdout").err().expect("is not read");
        assert_eq!(e.message(), "connector 'stdout' is written to, not read");
        let e = all.to_write("nexmark").err().expect("is not written");
        assert_eq!(e.message(), "connector 'nexmark' is read, not written to");
        let datagen = all.to_read("datagen").expect("is there");
        let e = datagen.own_columns(Options::new("stream \"s\"", BTreeMap::new())).expect_err("has none");
        assert_eq!(e.message(), "stream \"s\" declares no columns");
        assert!(hint(&e).starts_with("Connector 'datagen' needs them"), "{e:?}");
    }

    struct Other;

    impl Connector for Other {
        fn name(&self) -> &str {
            "file"
        }

        fn about(&self) -> &str {
            "nothing"
        }
    }

    #[test]
    fn a_connector_takes_the_place_of_one_of_its_name() {
        let all = built_in().with(Other);
        assert_eq!(all.iter().filter(|c| c.name() == "file").count(), 1);
        assert!(all.to_read("file").is_err() && !all.readable().contains(&"file"));
    }

    /// The options that `open` knows, from what it says of one that it does not.
    fn known(open: impl Fn(Options) -> Option<Error>, values: &[(&str, &str)]) -> BTreeSet<String> {
        let mut values: BTreeMap<_, _> = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        values.insert("~".to_owned(), "1".to_owned());
        let e = open(Options::new("stream \"s\"", values)).expect("an option that nobody knows");
        let list = hint(&e).split_once("Its options are: ").map(|(_, list)| list.trim_end_matches('.').to_owned());
        // Those of columns stand in brackets.
        let list = list.unwrap_or_else(|| panic!("{e:?}"));
        let list = list.replace("fields.<column>.<kind, min, max, start, end, length or null_rate>, ", "");
        list.split(", ").filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn names(specs: &[OptionSpec]) -> BTreeSet<String> {
        specs.iter().map(|s| s.name.to_owned()).collect()
    }

    #[test]
    fn the_lists_of_options_are_what_is_read() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        for connector in built_in().iter() {
            let formats: &[&str] = match connector.name() {
                "file" => &["json", "csv", "parquet"],
                "stdin" | "stdout" => &["json", "csv"],
                _ => &[],
            };
            let path = ("path", "made-by-no-test/");
            let mut with: Vec<Vec<(&str, &str)>> = formats.iter().map(|f| vec![("format", *f), path]).collect();
            if connector.name() != "file" {
                with.iter_mut().for_each(|values| values.truncate(1));
                with.push(vec![]);
            }
            if let Some(source) = connector.source() {
                let open = |options| {
                    let request = SourceRequest {
                        stream: "s".to_owned(),
                        schema: schema.clone(),
                        projection: vec![0],
                        metadata: BTreeMap::new(),
                        key: vec![],
                        event_time: None,
                        options,
                        parallelism: 1,
                    };
                    source.scan(request).err()
                };
                let read: BTreeSet<String> = with.iter().flat_map(|values| known(open, values)).collect();
                let listed = names(&source.options()).into_iter().filter(|name| !name.starts_with("fields."));
                assert_eq!(read, listed.collect(), "{} as a source", connector.name());
            }
            if let Some(sink) = connector.sink() {
                let open = |options| {
                    let (stream, schema) = ("s".to_owned(), schema.clone());
                    sink.open(SinkRequest { stream, schema, retracts: false, key: None, options, parallelism: 1 }).err()
                };
                let read: BTreeSet<String> = with.iter().flat_map(|values| known(open, values)).collect();
                assert_eq!(read, names(&sink.options()), "{} as a sink", connector.name());
            }
        }
    }

    #[test]
    fn metadata_is_there_and_of_its_type() {
        let file = built_in().to_read("file").expect("is there");
        let check = |data_type, nullable, key| {
            file.check_metadata("stream \"s\"", &Field::new("c", data_type, nullable), key).err()
        };
        assert!(check(DataType::Utf8View, false, "file").is_none());
        let e = check(DataType::Utf8View, true, "files").expect("there is none");
        assert_eq!(e.message(), "column \"c\" of stream \"s\": connector 'file' has no metadata 'files'");
        let all = "'file' TEXT, 'position' BIGINT, 'modified' TIMESTAMP WITH TIME ZONE";
        assert_eq!(hint(&e), format!("Did you mean 'file'? It has: {all}."));
        let e = check(DataType::Int32, true, "position").expect("another type");
        let message = "column \"c\" of stream \"s\": metadata 'position' of connector 'file' is BIGINT, not INTEGER";
        assert_eq!(e.message(), message);
        let datagen = built_in().to_read("datagen").expect("is there");
        let e = datagen.check_metadata("stream \"s\"", &Field::new("c", DataType::Int64, true), "x").expect_err("none");
        assert_eq!(hint(&e), "It has none: declare columns of its content only.");
    }

    #[test]
    fn what_is_touched_is_said_or_nothing_is_allowed() {
        let touched = |name: &str, values: &[(&str, &str)]| {
            let values = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let connector = built_in().find(name).expect("is there");
            connector.touches(&Options::new("stream \"s\"", values)).expect("is said")
        };
        for nothing in ["nexmark", "datagen", "blackhole"] {
            assert_eq!(touched(nothing, &[]), Some(vec![]), "{nothing}");
        }
        assert_eq!((touched("stdin", &[]), touched("stdout", &[])), (None, None));
        let file = |path: &str| Touch::File(path.into());
        assert_eq!(touched("file", &[("path", "/no/a.csv, /no/b/*")]), Some(vec![file("/no/a.csv"), file("/no/b/*")]));
        assert_eq!(touched("file", &[]), Some(vec![]));
    }

    #[test]
    fn defaults_and_examples_are_what_options_take() {
        use crate::options::Takes;
        for connector in built_in().iter() {
            let read = connector.source().map(Readable::options).unwrap_or_default();
            let written = connector.sink().map(Writable::options).unwrap_or_default();
            for spec in read.iter().chain(&written) {
                let default = match spec.fallback {
                    Fallback::Value(text) => Some(text),
                    _ => None,
                };
                for text in default.into_iter().chain([spec.example]) {
                    let values = BTreeMap::from([(spec.name.to_owned(), text.to_owned())]);
                    let mut options = Options::new("stream \"s\"", values);
                    let good = match spec.takes {
                        Takes::Text => !text.is_empty(),
                        Takes::Character => text.len() == 1,
                        Takes::Whole => options.value::<i64>(spec, "").is_ok(),
                        Takes::Number => options.value::<f64>(spec, "").is_ok(),
                        Takes::Flag => options.flag(spec).is_ok(),
                        Takes::Duration => options.duration(spec).is_ok(),
                        Takes::OneOf(_) => options.choice(spec).is_ok(),
                    };
                    assert!(good, "{}: option {} takes no '{text}'", connector.name(), spec.name);
                }
                assert!(!spec.secret || crate::options::tells_secret(spec.name), "{} does not tell it", spec.name);
                assert!(!spec.help.is_empty() && !spec.help.ends_with('.'), "{}", spec.name);
            }
        }
    }
}
