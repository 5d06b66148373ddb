//! Whether keys are equal whose hashes are, and whether rows are whose keys are.

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, downcast_primitive};
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
    only_equal(probe, key.iter().copied().zip(layout.key.iter().copied()), pairs, false)
}

/// Leaves only those of `pairs` of one arrangement that are the same row, to the last bit.
pub(super) fn same_rows(layout: &Layout, probe: &Chunk, pairs: &mut Pairs) -> Result<()> {
    only_equal(probe, (0..layout.columns()).map(|column| (column, column)), pairs, true)
}

fn only_equal(
    probe: &Chunk,
    columns: impl Iterator<Item = (usize, usize)>,
    pairs: &mut Pairs,
    bits: bool,
) -> Result<()> {
    if pairs.probe.is_empty() {
        return Ok(());
    }
    let mut equal = vec![true; pairs.probe.len()];
    for (mine, theirs) in columns {
        let stored: Vec<&ArrayRef> = pairs.sources.iter().map(|s| &s.columns[theirs]).collect();
        compare(&probe.columns[mine], &stored, pairs, bits, &mut equal)?;
    }
    pairs.retain(&equal);
    Ok(())
}

/// Notes in `equal` which pairs have another value in one column. Floats are equal as SQL says, or where their `bits` are.
fn compare(probe: &ArrayRef, stored: &[&ArrayRef], pairs: &Pairs, bits: bool, equal: &mut [bool]) -> Result<()> {
    let one = |v: f64| if bits { v.to_bits() } else { canonical_value(v).to_bits() };
    macro_rules! values {
        ($as:ident $t:ty, $same:expr) => {{
            let mine = probe.$as::<$t>();
            let theirs: Vec<_> = stored.iter().map(|a| a.$as::<$t>()).collect();
            each(probe, stored, pairs, equal, |p, s, r| $same(mine.value(p), theirs[s].value(r)));
        }};
    }
    macro_rules! primitive {
        ($t:ty) => {
            values!(as_primitive $t, |a: <$t as ArrowPrimitiveType>::Native, b| a.is_eq(b))
        };
    }
    match probe.data_type() {
        DataType::Float64 => values!(as_primitive Float64Type, |a, b| one(a) == one(b)),
        DataType::Float32 => values!(as_primitive Float32Type, |a: f32, b: f32| one(a.into()) == one(b.into())),
        DataType::Utf8 => values!(as_string i32, |a, b| a == b),
        DataType::Binary => values!(as_binary i32, |a, b| a == b),
        DataType::Boolean => {
            let mine = probe.as_boolean();
            let theirs: Vec<&BooleanArray> = stored.iter().map(|a| a.as_boolean()).collect();
            each(probe, stored, pairs, equal, |p, s, r| mine.value(p) == theirs[s].value(r));
        }
        t => downcast_primitive! {
            t => (primitive),
            _ => encoded(probe, stored, pairs, bits, equal)?,
        },
    }
    Ok(())
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
fn encoded(probe: &ArrayRef, stored: &[&ArrayRef], pairs: &Pairs, bits: bool, equal: &mut [bool]) -> Result<()> {
    let as_key = |column: ArrayRef| if bits { Ok(column) } else { canonical(&column) };
    let converter = RowConverter::new(vec![SortField::new(probe.data_type().clone())])?;
    let mine: Vec<(usize, usize)> = pairs.probe.iter().map(|p| (0, *p as usize)).collect();
    let mine = converter.convert_columns(&[as_key(interleave(&[probe], &mine)?)?])?;
    let arrays: Vec<&dyn Array> = stored.iter().map(|a| a.as_ref()).collect();
    let theirs = converter.convert_columns(&[as_key(interleave(&arrays, &pairs.places)?)?])?;
    for ((a, b), equal) in mine.iter().zip(theirs.iter()).zip(equal) {
        *equal &= a == b;
    }
    Ok(())
}
