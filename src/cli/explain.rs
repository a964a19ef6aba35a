//! `claudemesh explain`: the page of an error code, without a network and
//! without the sources at hand.

use serde_json::{Value, json};

use super::failure::Failure;
use super::output::Output;
use super::style::{ERROR, STRONG, styled};
use crate::domain::error_code::ErrorCode;

/// Columns of the text. Longer lines are hard to read also where they fit.
const WIDTH: usize = 90;
/// How alike two names must be for one to be meant by the other; clap takes the
/// same bound.
const ALIKE: f64 = 0.8;
/// Suggestions at most.
const SUGGESTIONS: usize = 3;

const EXAMPLES: &str = "\
Examples:
  claudemesh explain                     all error codes
  claudemesh explain unknown_peer        what it means, why it happens, what to do";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The code, as it stands in brackets behind an error; all codes if left out
    #[arg(value_name = "CODE")]
    code: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let Some(name) = &args.code else { return list(args.json, output) };
    // As it was copied from an error: with its brackets.
    let name = name.trim_matches(['(', ')', ' ']);
    let code = ErrorCode::from_name(name).ok_or_else(|| unknown(name))?;
    if args.json {
        let mut object = row(code);
        object["page"] = code.page().into();
        return output.json(&object);
    }
    output.line(format_args!("{}  {}", styled(ERROR, code.name()), styled(STRONG, code.title())))?;
    output.line(format_args!(
        "gRPC {}, HTTP {}, exit code {}, {}\n",
        code.grpc_name(),
        code.http(),
        code.exit(),
        if code.retryable() { "the same request can be repeated" } else { "repeating the same request does not help" }
    ))?;
    output.line(render(body(code.page())).trim_end())
}

fn list(json: bool, output: &mut Output) -> Result<(), Failure> {
    if json {
        let rows: Vec<Value> = ErrorCode::ALL.iter().map(|code| row(*code)).collect();
        return output.json(&json!({ "codes": rows }));
    }
    let rows =
        ErrorCode::ALL.iter().map(|code| [code.name().to_owned(), code.exit().to_string(), code.title().to_owned()]);
    output.table(["CODE", "EXIT", "MEANING"], rows.collect())
}

fn row(code: ErrorCode) -> Value {
    json!({
        "code": code.name(),
        "title": code.title(),
        "grpc_status": code.grpc_name(),
        "http_status": code.http(),
        "exit_code": code.exit(),
        "retryable": code.retryable(),
    })
}

fn unknown(name: &str) -> Failure {
    let mut failure = Failure::new(ErrorCode::UsageError, format!("there is no error code {name:?}"));
    let meant = suggestions(name);
    if !meant.is_empty() {
        failure = failure.next(format!("did you mean {}?", meant.join(", ")));
    }
    failure.next("see all codes: claudemesh explain")
}

/// The codes that may be meant, the nearest first.
fn suggestions(name: &str) -> Vec<&'static str> {
    let name = name.to_lowercase().replace(['-', ' '], "_");
    let distance = |code: &ErrorCode| {
        let other = code.name();
        // Part of a name, such as `timeout`, is as good as a misspelled one.
        if name.len() > 3 && other.contains(&name) { 1.0 } else { strsim::jaro_winkler(&name, other) }
    };
    let mut found: Vec<(f64, &str)> = ErrorCode::ALL.iter().map(|code| (distance(code), code.name())).collect();
    found.retain(|(alike, _)| *alike > ALIKE);
    found.sort_by(|one, other| other.0.total_cmp(&one.0));
    found.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect()
}

/// What follows the heading, the title and the table, which are printed from the
/// table of codes itself.
fn body(page: &str) -> &str {
    page.find("\n**").map_or(page, |at| &page[at + 1..])
}

/// The Markdown of the pages as a text: paragraphs and list entries filled, code
/// indented, links as their words.
fn render(markdown: &str) -> String {
    let mut out = String::new();
    let mut open = String::new();
    let mut in_code = false;
    for line in markdown.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with("```") {
            flush(&mut open, &mut out);
            in_code = !in_code;
        } else if in_code {
            out.push_str("    ");
            out.push_str(line);
            out.push('\n');
        } else if trimmed.is_empty() {
            flush(&mut open, &mut out);
            out.push('\n');
        } else {
            if marker(trimmed) > 0 || trimmed.starts_with('|') {
                flush(&mut open, &mut out);
            }
            if !open.is_empty() {
                open.push(' ');
            }
            open.push_str(trimmed);
        }
    }
    flush(&mut open, &mut out);
    out
}

/// Writes a paragraph or a list entry, filled.
fn flush(open: &mut String, out: &mut String) {
    if open.is_empty() {
        return;
    }
    let text = without_links(open);
    let indent = marker(&text);
    let (mut filled, mut column) = (String::new(), 0);
    for word in text.split(' ') {
        let length = word.replace("**", "").chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            filled.push('\n');
            filled.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > 0 {
            filled.push(' ');
            column += 1;
        }
        filled.push_str(word);
        column += length;
    }
    // Bold begins and ends in turns.
    for (at, part) in filled.split("**").enumerate() {
        out.push_str(&if at % 2 == 1 { styled(STRONG, part) } else { part.to_owned() });
    }
    out.push('\n');
    open.clear();
}

/// Length of the sign that begins a list entry: `- ` or `1. `.
fn marker(line: &str) -> usize {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    match &line[digits..] {
        rest if digits == 0 && rest.starts_with("- ") => 2,
        rest if digits > 0 && rest.starts_with(". ") => digits + 2,
        _ => 0,
    }
}

/// `[words](address)` as the words.
fn without_links(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(middle) = rest.find("](") {
        let Some(begin) = rest[..middle].rfind('[') else { break };
        let Some(length) = rest[middle..].find(')') else { break };
        out.push_str(&rest[..begin]);
        out.push_str(&rest[begin + 1..middle]);
        rest = &rest[middle + length + 1..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::Captured;

    fn explained(code: Option<&str>) -> Result<String, Failure> {
        let captured = Captured::default();
        run(&Args { code: code.map(str::to_owned), json: false }, &mut captured.output())?;
        Ok(captured.text())
    }

    #[test]
    fn every_page_becomes_a_text_without_markup() {
        for code in ErrorCode::ALL {
            let text = explained(Some(code.name())).unwrap();
            assert!(text.starts_with(&format!("{code}  {}\ngRPC ", code.title())), "{text}");
            for part in ["\nWhat happened. ", "\nUsual causes\n", "\nWhat to do\n"] {
                assert!(text.contains(part), "{code}: {part:?} is missing in\n{text}");
            }
            assert!(!text.contains("**") && !text.contains("](") && !text.contains("```"), "{text}");
            let prose = |line: &&str| !line.starts_with("    ");
            assert!(text.lines().skip(2).filter(prose).all(|line| line.chars().count() <= WIDTH), "{text}");
        }
    }

    #[test]
    fn markdown_is_filled_and_unwrapped() {
        let text = render("**One.** See [there](x.md) and\nmore.\n\n1. first\n   line\n2. second\n\n```sh\na  b\n```");
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(plain, "One. See there and more.\n\n1. first line\n2. second\n\n    a  b\n");
    }

    #[test]
    fn a_misspelled_code_is_recognised() {
        assert_eq!(suggestions("unkown_peer")[0], "unknown_peer");
        assert_eq!(suggestions("Unknown-Peer")[0], "unknown_peer");
        assert_eq!(suggestions("timeout"), ["wait_timeout"]);
        assert_eq!(suggestions("zzzzzz"), Vec::<&str>::new());
        let failure = explained(Some("unkown_peer")).unwrap_err();
        assert_eq!(failure.exit(), 2);
        assert!(failure.to_string().contains("did you mean unknown_peer"), "{failure}");
        assert!(explained(Some("(unknown_peer)")).is_ok());
    }
}
