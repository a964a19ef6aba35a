//! The help texts, as a contract: a change is seen in review.

use crate::support::cli::every_help_text;

#[tokio::test]
async fn every_help_text_is_as_it_was_reviewed() {
    let mut texts = every_help_text().await;
    texts.sort();
    for (command, text) in texts {
        insta::assert_snapshot!(command.replace(' ', "_"), text);
    }
}

#[tokio::test]
async fn every_verb_and_argument_says_what_it_is() {
    for (command, text) in every_help_text().await {
        let mut lines = text.lines().peekable();
        let about = lines.next().unwrap_or_default();
        assert!(about.chars().next().is_some_and(char::is_uppercase), "{command}: {text}");
        assert!(text.contains(&format!("Usage: {command}")), "{command}: {text}");
        let has_verbs = text.contains("\nCommands:\n");
        assert!(has_verbs || text.contains("Examples:\n") || text.contains("Install:\n"), "{command} has no example");
        // Each argument and option has words, on its line or on the next one.
        let mut in_list = false;
        while let Some(line) = lines.next() {
            in_list = match line {
                "Commands:" | "Arguments:" | "Options:" => true,
                other => in_list && (other.is_empty() || other.starts_with(' ')),
            };
            let entry = line.trim_start();
            if in_list && line.starts_with("  ") && !line.starts_with("          ") && !entry.is_empty() {
                let has_words = entry.contains("  ") || lines.peek().is_some_and(|next| next.starts_with("          "));
                assert!(has_words, "{command}: {line}");
            }
        }
    }
}
