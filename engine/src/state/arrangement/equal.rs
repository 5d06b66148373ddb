//! Whether keys are equal whose hashes are.

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, AsArray, BooleanArray, downcast_primitive};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::row::{RowConverter, SortField};

use super::chunk::Chunk;
use super::layout::Layout;
use super::pairs::Pairs;
use crate::error::Result;
use crate::float::{canonical, canonical_value};

/// Leaves only those of `pairs` whose keys are equal, not only their hashes. `key` are the columns of the probe.
pub(super) fn verify(layout: &Layout, probe: &Chunk, key: &[usize], pairs: &mut Pairs) -> Result<()> {
    if layout.exact || pairs.probe.is_empty() {
        return Ok(());
    }
    let mut equal = vec![true; pairs.probe.len()];
    for (mine, theirs) in key.iter().zip(&layout.key) {
        let stored: Vec<&ArrayRef> = pairs.sources.iter().map(|s| &s.columns[*theirs]).collect();
        compare(&probe.columns[*mine], &stored, pairs, &mut equal)?;
    }
    pairs.retain(&equal);
    Ok(())
}

/// Notes in `equal` which pairs have another value in one column of the key.
fn compare(probe: &ArrayRef, stored: &[&ArrayRef], pairs: &Pairs, equal: &mut [bool]) -> Result<()> {
    macro_rules! primitive {
        ($t:ty) => {{
            let mine = probe.as_primitive::<$t>();
            let theirs: Vec<_> = stored.iter().map(|a| a.as_primitive::<$t>()).collect();
            each(probe, stored, pairs, equal, |p, s, r| mine.value(p).is_eq(theirs[s].value(r)));
        }};
    }
    match probe.data_type() {
        DataType::Float64 => {
            let mine = probe.as_primitive::<Float64Type>();
            let theirs: Vec<_> = stored.iter().map(|a| a.as_primitive::<Float64Type>()).collect();
            each(probe, stored, pairs, equal, |p, s, r| one_float(mine.value(p), theirs[s].value(r)));
        }
        DataType::Float32 => {
            let mine = probe.as_primitive::<Float32Type>();
            let theirs: Vec<_> = stored.iter().map(|a| a.as_primitive::<Float32Type>()).collect();
            each(probe, stored, pairs, equal, |p, s, r| one_float(mine.value(p).into(), theirs[s].value(r).into()));
        }
        DataType::Utf8 => {
            let mine = probe.as_string::<i32>();
            let theirs: Vec<_> = stored.iter().map(|a| a.as_string::<i32>()).collect();
            each(probe, stored, pairs, equal, |p, s, r| mine.value(p) == theirs[s].value(r));
        }
        DataType::Binary => {
            let mine = probe.as_binary::<i32>();
            let theirs: Vec<_> = stored.iter().map(|a| a.as_binary::<i32>()).collect();
            each(probe, stored, pairs, equal, |p, s, r| mine.value(p) == theirs[s].value(r));
        }
        DataType::Boolean => {
            let mine = probe.as_boolean();
            let theirs: Vec<&BooleanArray> = stored.iter().map(|a| a.as_boolean()).collect();
            each(probe, stored, pairs, equal, |p, s, r| mine.value(p) == theirs[s].value(r));
        }
        t => downcast_primitive! {
            t => (primitive),
            _ => encoded(probe, stored, pairs, equal)?,
        },
    }
    Ok(())
}

fn one_float(a: f64, b: f64) -> bool {
    canonical_value(a).to_bits() == canonical_value(b).to_bits()
}

/// Asks `same` of each pair of values; null is equal to null.
fn each(
    probe: &ArrayRef,
    stored: &[&ArrayRef],
    pairs: &Pairs,
    equal: &mut [bool],
    same: impl Fn(usize, usize, usize) -> bool,
) {
    let places = pairs.probe.iter().zip(&pairs.places).zip(equal);
    if probe.null_count() == 0 && stored.iter().all(|a| a.null_count() == 0) {
        for ((p, (s, r)), equal) in places {
            *equal &= same(*p as usize, *s, *r);
        }
        return;
    }
    for ((p, (s, r)), equal) in places {
        *equal &= match (probe.is_null(*p as usize), stored[*s].is_null(*r)) {
            (false, false) => same(*p as usize, *s, *r),
            (mine, theirs) => mine == theirs,
        };
    }
}

/// [`compare`] for types that are rare in keys, over their row form.
fn encoded(probe: &ArrayRef, stored: &[&ArrayRef], pairs: &Pairs, equal: &mut [bool]) -> Result<()> {
    let converter = RowConverter::new(vec![SortField::new(probe.data_type().clone())])?;
    let mine: Vec<(usize, usize)> = pairs.probe.iter().map(|p| (0, *p as usize)).collect();
    let mine = converter.convert_columns(&[canonical(&interleave(&[probe], &mine)?)?])?;
    let arrays: Vec<&dyn Array> = stored.iter().map(|a| a.as_ref()).collect();
    let theirs = converter.convert_columns(&[canonical(&interleave(&arrays, &pairs.places)?)?])?;
    for ((a, b), equal) in mine.iter().zip(theirs.iter()).zip(equal) {
        *equal &= a == b;
    }
    Ok(())
}
