//! Wrong command lines, told in the form of all other errors.
//!
//! The words are clap's; it knows best which argument was meant.

use std::ffi::OsString;

use clap::ColorChoice;
use clap::error::{ContextKind, ErrorKind};

use super::failure::Failure;
use crate::domain::error_code::ErrorCode;

/// What has to be known of a command line before it is read, since a wrong one
/// is answered in the form that it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    /// `--json` is there.
    pub(super) json: bool,
    /// The value of `--color`.
    pub(super) color: ColorChoice,
}

// === impl Wishes ===

impl Wishes {
    /// Looks for both among the arguments, the program's name included.
    pub(super) fn of(args: &[OsString]) -> Self {
        let mut wishes = Self { json: false, color: ColorChoice::Auto };
        let mut args = args.iter().skip(1).filter_map(|arg| arg.to_str()).take_while(|arg| *arg != "--");
        while let Some(arg) = args.next() {
            let color = match arg {
                "--json" => {
                    wishes.json = true;
                    continue;
                }
                "--color" => args.next(),
                _ => arg.strip_prefix("--color="),
            };
            if let Some(color) = color.and_then(|color| color.parse().ok()) {
                wishes.color = color;
            }
        }
        wishes
    }
}

/// The failure behind clap's words; `None` when they are a text that was asked
/// for.
pub(super) fn failure(error: &clap::Error) -> Option<Failure> {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return None;
    }
    let text = error.render().to_string();
    let mut parts = text.split("\n\n");
    let what = parts.next().unwrap_or_default().trim().trim_start_matches("error: ");
    let mut failure = Failure::new(ErrorCode::UsageError, one_line(what));
    for tip in parts.flat_map(str::lines).filter_map(|line| line.trim().strip_prefix("tip: ")) {
        failure = failure.next(tip);
    }
    if let Some(usage) = error.get(ContextKind::Usage) {
        let usage = usage.to_string().replace("Usage:", "");
        let is_word = |word: &&str| !word.starts_with(['<', '[', '-']);
        let verb = usage.split_whitespace().take_while(is_word).collect::<Vec<_>>().join(" ");
        // A verb that does something by itself and has verbs below it has two.
        for usage in usage.lines().map(one_line).filter(|usage| !usage.is_empty()) {
            failure = failure.next(format!("usage: {usage}"));
        }
        failure = failure.next(format!("help: {verb} --help"));
    }
    Some(failure)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn told(line: &str) -> String {
        let error = Cli::command().try_get_matches_from(line.split(' ')).unwrap_err();
        let failure = failure(&error).unwrap();
        assert_eq!((failure.code(), failure.exit()), ("usage_error", 2));
        failure.to_string()
    }

    #[test]
    fn a_wrong_line_is_answered_in_the_form_of_all_errors() {
        let text = told("claudemesh snd bob hi");
        let expected = "error: unrecognized subcommand 'snd' (usage_error)\n  a similar subcommand exists: 'send'\n  \
                        usage: claudemesh [OPTIONS] <COMMAND>\n  help: claudemesh --help";
        assert_eq!(text, expected);
        let text = told("claudemesh outbox lsit");
        let usages = "\n  usage: claudemesh outbox [OPTIONS]\n  usage: claudemesh outbox <COMMAND>\n  help: claudemesh outbox --help";
        assert!(text.ends_with(usages), "{text}");
        let text = told("claudemesh daemon status --jso");
        assert!(text.starts_with("error: unexpected argument '--jso' found (usage_error)\n"), "{text}");
        assert!(text.contains("'--json'") && text.ends_with("help: claudemesh daemon status --help"), "{text}");
        let text = told("claudemesh send bob hi --priority high");
        assert!(text.contains("[possible values: now, next, low]"), "{text}");
        let text = told("claudemesh send");
        assert!(text.contains("<TO> <MESSAGE>") && text.ends_with("help: claudemesh send --help"), "{text}");
    }

    #[test]
    fn a_text_that_was_asked_for_is_no_failure() {
        for line in ["claudemesh --help", "claudemesh help send", "claudemesh --version", "claudemesh daemon"] {
            let error = Cli::command().try_get_matches_from(line.split(' ')).unwrap_err();
            assert_eq!(failure(&error), None, "{line}");
        }
    }

    #[test]
    fn wishes_are_found_anywhere_before_the_texts() {
        let of = |line: &str| Wishes::of(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(of("c send x y"), Wishes { json: false, color: ColorChoice::Auto });
        assert_eq!(of("c send x --json --color never"), Wishes { json: true, color: ColorChoice::Never });
        assert_eq!(of("c --color=always send"), Wishes { json: false, color: ColorChoice::Always });
        assert_eq!(of("c send x -- --json"), Wishes { json: false, color: ColorChoice::Auto });
        assert_eq!(of("--json"), Wishes { json: false, color: ColorChoice::Auto });
    }
}
