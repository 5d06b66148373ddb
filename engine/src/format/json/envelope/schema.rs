//! What is known of the columns of envelopes: the schema that a record may bring with it says how its values are written, and
//! which types they have; else the values themselves tell.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Schema, TimeUnit};
use serde_json::Value;

use super::encoding::Encoding;
use crate::format::infer::{Guess, SAMPLE, add_field};
use crate::format::json::infer::guess_object;
use crate::format::json::pointer::find;
use crate::format::options::JsonOptions;

/// The fields of the images in an envelope's schema.
fn image(schema: &Value) -> &[Value] {
    let parts = schema["fields"].as_array().map_or(&[][..], |fields| fields);
    let named = |name: &str| parts.iter().find(|part| part["field"] == name);
    let image = named("after").or_else(|| named("before"));
    image.and_then(|image| image["fields"].as_array()).map_or(&[], |fields| fields)
}

fn encoding(field: &Value) -> Option<Encoding> {
    let scale = field["parameters"]["scale"].as_str().and_then(|scale| scale.parse().ok());
    Encoding::named(field["name"].as_str().unwrap_or_default(), field["type"].as_str().unwrap_or_default(), scale)
}

/// How the values of the columns `names` are written that go with `schema`, those that it does not have as is `usual`.
pub(super) fn encodings(schema: &[u8], names: &[String], usual: &[Encoding]) -> Vec<Encoding> {
    let schema: Value = serde_json::from_slice(schema).unwrap_or_default();
    let fields = image(&schema);
    let of = |name: &String| {
        let named =
            |same: fn(&str, &str) -> bool| fields.iter().find(|f| f["field"].as_str().is_some_and(|f| same(f, name)));
        encoding(named(|a, b| a == b).or_else(|| named(str::eq_ignore_ascii_case))?)
    };
    names.iter().zip(usual).map(|(name, usual)| of(name).unwrap_or(*usual)).collect()
}

/// The columns of the rows in the envelopes of `sample`, a line each, in the order in which they first appear. None if there is
/// no row.
pub(in crate::format::json) fn columns(sample: &[u8], options: &JsonOptions) -> Option<Schema> {
    let mut guessed: Vec<(String, Guess)> = vec![];
    let mut told: Vec<(String, Option<DataType>)> = vec![];
    let mut last: &[u8] = &[];
    for line in sample.split(|b| *b == b'\n').take(SAMPLE) {
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        let at = |pointer: &str| find(line, pointer).ok().flatten().filter(|found| found.first() == Some(&b'{'));
        if let Some(schema) = at("/schema").filter(|schema| *schema != last) {
            last = schema;
            let schema: Value = serde_json::from_slice(schema).unwrap_or_default();
            for field in image(&schema) {
                let name = field["field"].as_str().unwrap_or_default();
                if !told.iter().any(|(known, _)| known == name) {
                    told.push((name.to_owned(), data_type(field)));
                }
            }
        }
        let images = ["/payload/after", "/payload/before", "/after", "/before"];
        for fields in images.iter().filter_map(|pointer| guess_object(at(pointer)?, options)) {
            fields.into_iter().for_each(|(name, guess)| add_field(&mut guessed, name, guess));
        }
    }
    let unseen = told.iter().filter(|(name, _)| !guessed.iter().any(|(seen, _)| seen == name));
    let unseen: Vec<_> = unseen.map(|(name, _)| (name.clone(), Guess::Nothing)).collect();
    guessed.extend(unseen);
    let field = |(name, guess): (String, Guess)| {
        let told = told.iter().find(|(known, _)| *known == name).and_then(|(_, told)| told.clone());
        Field::new(name, told.unwrap_or_else(|| guess.data_type()), true)
    };
    (!guessed.is_empty()).then(|| Schema::new(guessed.into_iter().map(field).collect::<Vec<_>>()))
}

/// The type of the values that `field` of a schema describes, where it does.
fn data_type(field: &Value) -> Option<DataType> {
    let name = field["name"].as_str().unwrap_or_default();
    if name == "io.debezium.time.ZonedTimestamp" {
        return Some(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    }
    let plain = match field["type"].as_str()? {
        "boolean" => DataType::Boolean,
        "int8" | "int16" | "int32" | "int64" => DataType::Int64,
        "float" | "double" | "float32" | "float64" => DataType::Float64,
        "string" => DataType::Utf8View,
        "bytes" => DataType::BinaryView,
        _ => DataType::Null,
    };
    Some(match encoding(field)? {
        Encoding::Days => DataType::Date32,
        Encoding::Epoch(TimeUnit::Nanosecond) => DataType::Timestamp(TimeUnit::Nanosecond, None),
        Encoding::Epoch(TimeUnit::Millisecond) => DataType::Timestamp(TimeUnit::Millisecond, None),
        Encoding::Epoch(_) => DataType::Timestamp(TimeUnit::Microsecond, None),
        Encoding::Clock(_) => DataType::Time64(TimeUnit::Nanosecond),
        Encoding::Decimal(scale) => {
            let told = field["parameters"]["connect.decimal.precision"].as_str().and_then(|p| p.parse::<u8>().ok());
            let precision = told.unwrap_or(DECIMAL128_MAX_PRECISION);
            let fits =
                (1..=DECIMAL128_MAX_PRECISION).contains(&precision) && (0..=i32::from(precision)).contains(&scale);
            if fits { DataType::Decimal128(precision, scale as i8) } else { DataType::Utf8View }
        }
        Encoding::Scaled => DataType::Utf8View,
        Encoding::AsIs | Encoding::Base64 if plain != DataType::Null => plain,
        Encoding::AsIs | Encoding::Base64 => return None,
    })
}
