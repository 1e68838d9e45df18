//! Tables for people, JSON for scripts.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// Prints rows under their headings, aligned, without lines.
pub(crate) fn table(headings: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for line in table.lines() {
        println!("{}", line.trim_end());
    }
}

/// Prints JSON, indented.
pub(crate) fn json(value: &Value) {
    println!("{value:#}");
}

/// A field as text: empty where it is missing or null.
pub(crate) fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A list of strings, separated by commas.
pub(crate) fn list(value: &Value) -> String {
    let strings = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    strings.collect::<Vec<_>>().join(",")
}
