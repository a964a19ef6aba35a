//! Names that become parts of file names and of signed texts.

/// Why a text is not a usable slug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{slug:?} is no mesh name: use 1 to {max} of {allowed}, the first one a letter or digit")]
pub struct SlugError {
    slug: String,
    max: usize,
    allowed: &'static str,
}

/// Checks the slug of a mesh that is to be created: 1 to 32 of `a-z`, `0-9` and
/// `-`. It becomes a directory name on every member's host.
pub fn check_new_slug(slug: &str) -> Result<(), SlugError> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    check(slug, 32, "a-z, 0-9 and -", fits)
}

/// Checks the slug of a mesh that another program created; 1 to 64 of letters,
/// digits, `-` and `_`. An invite is hostile input, and its slug names a
/// directory here.
pub fn check_slug(slug: &str) -> Result<(), SlugError> {
    check(slug, 64, "letters, digits, - and _", is_plain)
}

/// Whether an id of a mesh can be part of a file name.
pub(super) fn fits_file_name(id: &str) -> bool {
    check(id, 64, "", is_plain).is_ok()
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn check(slug: &str, max: usize, allowed: &'static str, fits: impl Fn(u8) -> bool) -> Result<(), SlugError> {
    let first = slug.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && slug.len() <= max && slug.bytes().all(fits) {
        return Ok(());
    }
    Err(SlugError { slug: slug.chars().take(80).collect(), max, allowed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_cannot_leave_their_directory() {
        for slug in ["demo", "a", "team-2", "0x"] {
            assert!(check_new_slug(slug).is_ok() && check_slug(slug).is_ok(), "{slug}");
        }
        for slug in ["", ".", "..", "../x", "a/b", "-rf", "_a", "config.toml", "a b", "ä", "a\n", &"a".repeat(65)] {
            assert!(check_new_slug(slug).is_err() && check_slug(slug).is_err(), "{slug}");
        }
        // Taken as they are from others, not given to new meshes.
        for slug in ["Team_A", &"a".repeat(33)] {
            assert!(check_new_slug(slug).is_err() && check_slug(slug).is_ok(), "{slug}");
        }
    }
}
