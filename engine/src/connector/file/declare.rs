//! What to say where files do not tell their columns: that somebody who knows has to declare them, and how.

use super::listing::FoundFile;
use super::options::FileOptions;
use super::sample::sample;
use crate::error::Error;
use crate::format::Format;
use crate::options::Options;

/// Where none of `files` has anything in it: that their columns cannot be found out.
pub(super) fn nothing_in(written: &Options, options: &FileOptions, files: &[FoundFile]) -> Option<Error> {
    let is_blank = |file: &FoundFile| match options.format {
        Format::Json => sample(options, file).is_ok_and(|bytes| bytes.trim_ascii().is_empty()),
        // The header of CSV may be a blank line.
        Format::Csv => sample(options, file).is_ok_and(|bytes| bytes.is_empty()),
        // A file of no bytes is what somebody is about to write.
        _ => file.bytes() == Some(0),
    };
    if !files.iter().all(is_blank) {
        return None;
    }
    let is = match files {
        [] => "it has no files yet".to_owned(),
        [_] => "it is still empty".to_owned(),
        several => format!("its {} files are still empty", several.len()),
    };
    let path = match files {
        [one] => one.name.as_ref(),
        _ => options.shown_path(),
    };
    Some(undeclared(written, options, format!("the columns of \"{path}\" cannot be found out: {is}")))
}

/// The error `message`, with a statement to write instead.
pub(super) fn undeclared(written: &Options, options: &FileOptions, message: String) -> Error {
    let stream = written.owner().split('"').nth(1).unwrap_or("s");
    let is_plain = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
    let name = if stream.chars().all(is_plain) { stream.to_owned() } else { format!("\"{stream}\"") };
    let path = ("path", options.shown_path());
    let others = written.written().filter(|(name, _)| *name != "path");
    let with: Vec<String> = [("connector", "file"), path].into_iter().chain(others).map(as_option).collect();
    Error::invalid(message).with_hint(format!(
        "Declare its columns, such as: CREATE STREAM {name} (id BIGINT, name TEXT) WITH ({}).",
        with.join(", ")
    ))
}

fn as_option((name, value): (&str, &str)) -> String {
    match value {
        "true" | "false" => format!("{name} = {value}"),
        text => format!("{name} = '{}'", text.replace('\'', "''")),
    }
}
