//! `?pretty`: JSON with indentation. Works on the encoded bytes, so that the order of fields stays.

use axum::response::Response;
use http::header;

use super::reply::rewritten;

/// Whether a query string has the parameter `pretty`.
pub(crate) fn is_asked_for(query: Option<&str>) -> bool {
    query
        .unwrap_or_default()
        .split('&')
        .any(|pair| pair == "pretty" || pair.starts_with("pretty="))
}

/// Indents a response if it is JSON.
pub(crate) async fn indent(response: Response) -> Response {
    let json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if !json {
        return response;
    }
    rewritten(response, |json| Some(indented(json))).await
}

/// Indents by four spaces, as Consul does. `json` must be compact and valid.
fn indented(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let (mut in_string, mut escaped) = (false, false);
    for (position, &byte) in json.iter().enumerate() {
        if in_string {
            out.push(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                // Empty ones stay closed.
                if !matches!(json.get(position + 1), Some(b'}' | b']')) {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                if !matches!(json[..position].last(), Some(b'{' | b'[')) {
                    depth = depth.saturating_sub(1);
                    new_line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                new_line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                in_string = byte == b'"';
                out.push(byte);
            }
        }
    }
    out.push(b'\n');
    out
}

fn new_line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    out.resize(out.len() + 4 * depth, b' ');
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn indents_like_consul() {
        let json = br#"{"b":[],"a":{"x":[1,{"y":"s: {\"[,]\"}\\"}],"e":{}},"n":null}"#;
        let text = String::from_utf8(indented(json)).expect("text");
        expect![[r#"
            {
                "b": [],
                "a": {
                    "x": [
                        1,
                        {
                            "y": "s: {\"[,]\"}\\"
                        }
                    ],
                    "e": {}
                },
                "n": null
            }
        "#]]
        .assert_eq(&text);
        let again: Value = serde_json::from_str(&text).expect("still JSON");
        assert_eq!(again["a"]["x"], json!([1, {"y": "s: {\"[,]\"}\\"}]));
    }

    #[test]
    fn only_the_parameter_counts() {
        for (query, asked) in [
            (None, false),
            (Some(""), false),
            (Some("pretty"), true),
            (Some("a=1&pretty&b"), true),
            (Some("pretty=1"), true),
            (Some("prettyish"), false),
            (Some("a=pretty"), false),
        ] {
            assert_eq!(is_asked_for(query), asked, "{query:?}");
        }
    }
}
