//! The beginning of a text file, to find its columns.

use std::io::Read as _;

use super::listing::FoundFile;
use super::options::FileOptions;
use crate::error::Result;

/// How much of a text file is looked at to find its columns.
const SAMPLE: u64 = 1 << 20;

/// The first lines of a text file; whole ones, unless the first is longer than the sample.
pub(super) fn sample(options: &FileOptions, file: &FoundFile) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    let input = options.compression_of(&file.name).reader(file.open(Some(SAMPLE))?)?;
    // A damaged end is told of when the file is read.
    let _damage = input.take(SAMPLE).read_to_end(&mut bytes);
    let is_cut = bytes.len() as u64 == SAMPLE || file.object.as_ref().is_some_and(|object| object.bytes > SAMPLE);
    if is_cut && let Some(end) = memchr::memrchr(b'\n', &bytes) {
        bytes.truncate(end + 1);
    }
    Ok(bytes)
}
