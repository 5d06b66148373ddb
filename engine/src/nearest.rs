//! What somebody may have meant: the known name that is closest to one that is not known.

use strsim::osa_distance;

/// The name that is at most two slips away (one, from a short word), whatever the case.
pub fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let word = word.to_lowercase();
    let allowed = if word.chars().count() <= 3 { 1 } else { 2 };
    let near = names.into_iter().map(|name| (osa_distance(&word, &name.to_lowercase()), name)).min()?;
    (near.0 <= allowed).then_some(near.1)
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
