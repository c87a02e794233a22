//! The known word closest to a misspelt one, for error messages.

/// The word of `known` that `word` abbreviates, else the one with the smallest edit distance; the
/// first of equals. `None` only if `known` is empty. The cost is bounded: only the first 64
/// characters are compared.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    known.into_iter().min_by_key(|candidate| {
        let abbreviated = word.len() >= 3 && candidate.starts_with(word);
        (!abbreviated, distance(word, candidate))
    })
}

/// Levenshtein distance of the first 64 characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let cost = diagonal + usize::from(x != *y);
            diagonal = *above;
            left = cost.min(diagonal + 1).min(left + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshtein() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("namespace", "namespace", 0),
            ("namspace", "namespace", 1),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn the_closest_word_is_chosen() {
        assert_eq!(nearest("tl", ["layout", "ttl", "mode"]), Some("ttl"));
        assert_eq!(nearest("key-algo", ["key-file", "key-algorithm"]), Some("key-algorithm"));
        assert_eq!(nearest("x", []), None);
    }
}
