//! Names of members, which are also names of directories.

use crate::cli::failure::Failure;
use crate::domain::error_code::ErrorCode;

/// The most members of a mesh.
pub(super) const MAX_MEMBERS: usize = 32;
/// The longest name in bytes: it is part of a socket's path.
const MAX_NAME: usize = 24;

/// The names of `--members`, checked.
pub(super) fn parse(list: &str) -> Result<Vec<String>, Failure> {
    let mut names: Vec<String> = Vec::new();
    for name in list.split(',').map(str::trim) {
        check(name, names.iter().map(String::as_str))?;
        names.push(name.to_owned());
    }
    if names.len() > MAX_MEMBERS {
        return Err(Failure::new(ErrorCode::InvalidArgument, format!("at most {MAX_MEMBERS} members")));
    }
    Ok(names)
}

/// Checks the name of a further member.
pub(super) fn check<'a>(name: &str, mut others: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !first || name.len() > MAX_NAME || !name.bytes().all(is_plain) {
        let shown: String = name.chars().take(80).collect();
        let what = format!(
            "{shown:?} is no name of a member: use 1 to {MAX_NAME} letters, digits, - and _, the first one a letter or digit"
        );
        return Err(Failure::new(ErrorCode::InvalidArgument, what));
    }
    // Some file systems do not tell them apart.
    if others.any(|other| other.eq_ignore_ascii_case(name)) {
        return Err(Failure::new(ErrorCode::InvalidArgument, format!("there is a member {name:?} already")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_directory_and_are_told_apart() {
        assert_eq!(parse("alice, bob").unwrap(), ["alice", "bob"]);
        for list in ["", "alice,", "../x", "_broker", "a b", "alice,Alice", &"a".repeat(25)] {
            assert_eq!(parse(list).unwrap_err().code(), "invalid_argument", "{list}");
        }
        let many: Vec<String> = (0..=MAX_MEMBERS).map(|index| format!("m{index}")).collect();
        assert!(parse(&many[1..].join(",")).is_ok() && parse(&many.join(",")).is_err());
    }
}
