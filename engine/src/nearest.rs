//! What somebody may have meant: the known name that is closest to one that is not known.

/// The name that is at most two slips away (one, from a short word), whatever the case.
pub fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let word = word.to_lowercase();
    let allowed = if word.chars().count() <= 3 { 1 } else { 2 };
    let near = names.into_iter().map(|name| (slips(&word, &name.to_lowercase()), name)).min()?;
    (near.0 <= allowed).then_some(near.1)
}

/// Levenshtein's distance, with a swap of neighbours as one.
fn slips(a: &str, b: &str) -> usize {
    let (a, b): (Vec<_>, Vec<_>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_near_within_two_slips() {
        let names = ["bids", "auctions", "hot"];
        for (word, near) in [("bidz", "bids"), ("Actoins", "auctions"), ("HOT", "hot"), ("hto", "hot")] {
            assert_eq!(nearest(word, names), Some(near), "{word}");
        }
        for far in ["persons", "cat", ""] {
            assert_eq!(nearest(far, names), None, "{far}");
        }
        assert_eq!(nearest("bids", []), None);
    }
}
