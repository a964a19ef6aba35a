//! Which known names a misspelt one may have meant.

/// At most so many are offered.
const MAX_OFFERED: usize = 3;

/// The known names that are near to `wanted` in spelling, the nearest first. A
/// name counts as near when about every third letter is right to change, or when
/// what was written is its beginning.
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let folded = wanted.to_lowercase();
    let most = (folded.chars().count() / 3).clamp(1, 4);
    let mut found: Vec<(usize, &str)> = known
        .into_iter()
        .filter_map(|name| {
            let other = name.to_lowercase();
            let distance = strsim::damerau_levenshtein(&folded, &other);
            let begins = folded.chars().count() >= 3 && other.starts_with(&folded);
            (distance <= most || begins).then_some((distance, name))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, name)| name).take(MAX_OFFERED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_come_first_and_far_ones_not_at_all() {
        let known = ["log_level", "http_port", "http_bind", "bob", "bert"];
        assert_eq!(nearest("log_levle", known), ["log_level"]);
        assert_eq!(nearest("http_prt", known), ["http_port"]);
        assert_eq!(nearest("BOBB", known), ["bob"]);
        assert_eq!(nearest("http", known), ["http_bind", "http_port"]);
        assert_eq!(nearest("zebra", known), Vec::<&str>::new());
        assert_eq!(nearest("", known), Vec::<&str>::new());
    }
}
