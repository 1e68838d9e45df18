//! Transcripts: commands and questions, each with the registry's complete answer, as text that is read like a story.
//!
//! Each file under `transcripts/` begins with an empty registry. `UPDATE=1` rewrites the answers; read the diff.

mod language;
mod operations;
mod print;

use std::{fs, path::Path};

use sider_core::registry::Registry;

use language::Step;

/// What separates commands from their answer.
const RULE: &str = "----";

#[test]
fn transcripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/registry_transcripts/transcripts");
    let update = std::env::var("UPDATE").is_ok_and(|value| value == "1");
    let mut names: Vec<_> = fs::read_dir(&folder)
        .expect("the folder is beside this file")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    names.sort();
    assert!(names.len() >= 10, "transcripts are missing: {names:?}");
    let mut failures = String::new();
    for name in names {
        let expected = fs::read_to_string(&name).expect("transcripts are text");
        let actual = run(&expected);
        if actual == expected {
            continue;
        }
        if update {
            fs::write(&name, actual).expect("a transcript can be rewritten");
        } else {
            failures += &format!("{}:\n{}\n", name.display(), first_difference(&expected, &actual));
        }
    }
    assert!(
        failures.is_empty(),
        "{failures}`UPDATE=1` rewrites the answers; read the diff."
    );
}

/// The transcript with the answers that the registry gives now.
fn run(transcript: &str) -> String {
    let mut registry = Registry::default();
    let mut blocks = Vec::new();
    for block in transcript
        .split("\n\n")
        .map(str::trim)
        .filter(|block| !block.is_empty())
    {
        let (comments, rest): (Vec<&str>, Vec<&str>) = block.lines().partition(|line| line.starts_with('#'));
        let lines: Vec<&str> = rest.into_iter().take_while(|line| *line != RULE).collect();
        let mut text = comments.join("\n");
        if !lines.is_empty() {
            let answer = answer(&mut registry, &lines);
            if !text.is_empty() {
                text.push('\n');
            }
            text += &format!("{}\n{RULE}\n{answer}", lines.join("\n"));
        }
        blocks.push(text.trim_end().to_owned());
    }
    blocks.join("\n\n") + "\n"
}

fn answer(registry: &mut Registry, lines: &[&str]) -> String {
    match language::parse(lines) {
        Step::Apply(command) => print::applied(&registry.apply(&command)),
        Step::Show(query) => print::view(registry.version(&query.topic()), &registry.query(&query)),
    }
}

fn first_difference(expected: &str, actual: &str) -> String {
    let mut expected = expected.lines();
    for (number, line) in actual.lines().enumerate() {
        let wanted = expected.next().unwrap_or("(the end)");
        if line != wanted {
            return format!("  line {}\n  expected: {wanted}\n  but got:  {line}", number + 1);
        }
    }
    format!(
        "  expected more: {}",
        expected.next().unwrap_or("an empty line at the end")
    )
}
