//! Request bodies: JSON, whatever the content type says, read field by field.
//!
//! Keys match without regard to case and underscores (`TaggedAddresses`, `tagged_addresses`, `taggedaddresses`), as
//! Consul's clients write them. Keys that are data (of meta, of headers) are taken as they are. `null` is the same as
//! absent. Fields that nobody asks for are ignored; fields of a wrong type are errors that name the field by its path.

use std::{collections::BTreeMap, ops::RangeInclusive};

use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_LENGTH, EXPECT},
};
use http_body_util::BodyExt;
use serde_json::{Map, Value};

use super::{
    duration,
    error::{ApiError, echo},
    plain::Plain,
};
use crate::{
    limits::{BODY_BYTES_MAX, BODY_DRAIN_BYTES_MAX, KEPT_JSON_LEVELS_MAX},
    server::Server,
};

/// A JSON body.
#[derive(Clone, Debug)]
pub struct JsonBody(pub Value);

/// A JSON body that may be missing.
#[derive(Clone, Debug)]
pub struct OptionalJsonBody(pub Option<Value>);

/// A key's value, as it is.
#[derive(Clone, Debug)]
pub struct ValueBody(pub Bytes);

/// A transaction's JSON, with Consul's words where it is none or too long.
#[derive(Clone, Debug)]
pub struct TransactionBody(pub Value);

impl FromRequest<Server> for ValueBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, server: &Server) -> Result<Self, ApiError> {
        let bytes = read(request).await?;
        check_length(&bytes, server.config().value_bytes_max, "kv_max_value_size")?;
        Ok(ValueBody(bytes))
    }
}

impl FromRequest<Server> for TransactionBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, server: &Server) -> Result<Self, ApiError> {
        let bytes = read(request).await?;
        check_length(&bytes, server.config().transaction_bytes_max, "txn_max_req_len")?;
        let Plain(parsed) = serde_json::from_slice(&bytes).map_err(|error| {
            let reason = match error.is_eof() {
                true => "unexpected EOF".to_owned(),
                false => error.to_string(),
            };
            ApiError::bad_request(format!("Failed to parse body: {reason}"))
        })?;
        Ok(TransactionBody(parsed))
    }
}

/// 413 in the words that Consul's clients know, the name of its setting included.
fn check_length(bytes: &Bytes, max: usize, setting: &str) -> Result<(), ApiError> {
    match bytes.len() {
        length if length > max => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "Request body({length} bytes) too large, max size: {max} bytes. See \
                 https://developer.hashicorp.com/docs/agent/config/config-files#{setting}."
            ),
        )),
        _ => Ok(()),
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        parse(&read(request).await?).map(JsonBody)
    }
}

impl<S: Send + Sync> FromRequest<S> for OptionalJsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read(request).await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(OptionalJsonBody(None));
        }
        parse(&bytes).map(|value| OptionalJsonBody(Some(value)))
    }
}

/// Reads a whole body of at most [`BODY_BYTES_MAX`] bytes.
///
/// Many clients send all of a body before they look for an answer, and take a connection that closes meanwhile for a
/// fault. So of one that is too large the rest is read too and dropped, up to [`BODY_DRAIN_BYTES_MAX`].
async fn read(request: Request) -> Result<Bytes, ApiError> {
    read_up_to(request, BODY_BYTES_MAX).await
}

/// Reads a whole body of at most so many bytes; of a larger one as much is read and dropped as [`read`] would.
///
/// # Errors
/// It is larger, or breaks off.
pub(super) async fn read_up_to(request: Request, max: usize) -> Result<Bytes, ApiError> {
    let drain_max = max.max(BODY_DRAIN_BYTES_MAX);
    if announces_too_much(request.headers(), max) {
        return Err(too_large(max));
    }
    let mut body = request.into_body();
    let mut bytes = BytesMut::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| decode_error(format!("the body could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size <= max {
            bytes.extend_from_slice(&data);
        } else if size <= drain_max {
            bytes.clear();
        } else {
            break;
        }
    }
    if size > max {
        return Err(too_large(max));
    }
    Ok(bytes.freeze())
}

/// Whether a body is refused by its announced length, before any of it is read.
fn announces_too_much(headers: &HeaderMap, max: usize) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // A client that asks first waits for the answer: it need not send the body at all.
    let asks_first = text(EXPECT).is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
    let readable = if asks_first {
        max
    } else {
        max.max(BODY_DRAIN_BYTES_MAX)
    };
    let announced = text(CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    announced.is_some_and(|length| length > readable)
}

fn too_large(max: usize) -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("Request body is too large: at most {max} bytes are expected"),
    )
}

/// Parses a JSON text.
///
/// # Errors
/// 400 with the line, the column and what was expected there.
pub fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    if bytes.trim_ascii().is_empty() {
        return Err(decode_error("EOF"));
    }
    match serde_json::from_slice(bytes) {
        Ok(Plain(value)) => Ok(value),
        Err(error) => Err(decode_error(syntax_error(bytes, &error))),
    }
}

/// What is wrong with a text that is no JSON, in the words of Go's decoder where it has some for it.
fn syntax_error(bytes: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    let message = error.to_string();
    let line = bytes
        .split(|byte| *byte == b'\n')
        .nth(error.line().saturating_sub(1));
    let text = String::from_utf8_lossy(line.unwrap_or_default());
    let at = text.get(error.column().saturating_sub(1)..);
    let expected = [
        (
            "key must be a string",
            "looking for beginning of object key string",
        ),
        ("expected value", "looking for beginning of value"),
        ("expected ident", "looking for beginning of value"),
        ("expected `:`", "after object key"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("trailing characters", "after top-level value"),
    ];
    let known = expected.iter().find(|(start, _)| message.starts_with(start));
    match (known, at.and_then(|at| at.chars().next())) {
        (Some((_, place)), Some(character)) => format!("invalid character {character:?} {place}"),
        _ => message,
    }
}

/// 400 in Consul's wording.
pub(super) fn decode_error(reason: impl AsRef<str>) -> ApiError {
    ApiError::bad_request(format!("Request decode failed: {}", reason.as_ref()))
}

/// The fields of a JSON object.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    /// Where the object is, as a prefix for the names of its fields: empty, or `Check.`, or `Checks[0].`.
    prefix: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The fields of a body's outermost object.
    ///
    /// # Errors
    /// It is no object.
    pub fn of(value: &'a Value) -> Result<Self, ApiError> {
        Fields::at(value, "")
    }

    /// The fields of the object found at `path`.
    ///
    /// # Errors
    /// It is no object.
    pub fn at(value: &'a Value, path: &str) -> Result<Self, ApiError> {
        match value {
            Value::Object(fields) => Ok(Fields {
                prefix: if path.is_empty() {
                    String::new()
                } else {
                    format!("{path}.")
                },
                fields,
            }),
            other => {
                let place = if path.is_empty() { "the body" } else { path };
                Err(decode_error(format!(
                    "{place}: expected an object, got {}",
                    describe(other)
                )))
            }
        }
    }

    /// The path of a field, for messages.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// An error about a field.
    pub fn error(&self, name: &str, reason: impl AsRef<str>) -> ApiError {
        decode_error(format!("{}: {}", self.path(name), reason.as_ref()))
    }

    fn wrong_type(&self, name: &str, expected: &str, got: &Value) -> ApiError {
        self.error(name, format!("expected {expected}, got {}", describe(got)))
    }

    /// A field's value; `None` when it is absent or `null`.
    ///
    /// # Errors
    /// It is there twice, in two spellings: which one is meant can't be known.
    pub fn get(&self, name: &str) -> Result<Option<&'a Value>, ApiError> {
        let mut found = None;
        for (key, value) in self.fields {
            if !same_name(key, name) || value.is_null() {
                continue;
            }
            if found.is_some() {
                return Err(self.error(name, "given twice, in two spellings: expected once"));
            }
            found = Some(value);
        }
        Ok(found)
    }

    /// Whether there is a field, be it null.
    pub fn is_there(&self, name: &str) -> bool {
        self.fields.keys().any(|key| same_name(key, name))
    }

    /// Refuses fields by names that nobody reads, in the words of Go's decoder.
    ///
    /// # Errors
    /// There is one.
    pub fn refuse_unknown(&self, known: &[&str]) -> Result<(), ApiError> {
        let unknown = self
            .fields
            .keys()
            .find(|key| !known.iter().any(|name| same_name(key, name)));
        match unknown {
            None => Ok(()),
            Some(key) => Err(decode_error(format!("json: unknown field {:?}", echo(key)))),
        }
    }

    /// Whether a field is there.
    ///
    /// # Errors
    /// As [`Fields::get`].
    pub fn has(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.get(name)?.is_some())
    }

    /// A text; `None` when it is absent or empty.
    ///
    /// # Errors
    /// It is no text.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        match self.get(name)? {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type(name, "a string", other)),
        }
    }

    /// The first of several names of a text that is there; all of them must be texts.
    ///
    /// # Errors
    /// One is no text.
    pub fn first_text(&self, names: &[&str]) -> Result<Option<&'a str>, ApiError> {
        let mut found = None;
        for name in names {
            let text = self.text(name)?;
            found = found.or(text);
        }
        Ok(found)
    }

    /// A text of at most `bytes_max` bytes, empty when it is absent.
    ///
    /// # Errors
    /// It is no text, or longer.
    pub fn bounded_text(&self, name: &str, bytes_max: usize) -> Result<String, ApiError> {
        let text = self.text(name)?.unwrap_or_default();
        if text.len() > bytes_max {
            return Err(self.error(
                name,
                format!("expected at most {bytes_max} bytes, got {}", text.len()),
            ));
        }
        Ok(text.to_owned())
    }

    /// `true` or `false`; `false` when it is absent.
    ///
    /// # Errors
    /// It is neither.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name)? {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong_type(name, "true or false", other)),
        }
    }

    /// A whole number within a range.
    ///
    /// # Errors
    /// It is no number, not whole, or outside of the range.
    pub fn number(&self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, ApiError> {
        let Some(value) = self.get(name)? else {
            return Ok(None);
        };
        value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| range.contains(number))
            .map(Some)
            .ok_or_else(|| {
                let expected = format!("a whole number from {} to {}", range.start(), range.end());
                self.wrong_type(name, &expected, value)
            })
    }

    /// A duration in nanoseconds, possibly negative: a text in Go's form or a plain number of nanoseconds.
    ///
    /// # Errors
    /// It is neither.
    pub fn duration(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let expected = r#"a duration like "15s", "1m30s" or "500ms""#;
        match self.get(name)? {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            // In the words of Go's decoder, which do not name the field.
            Some(Value::String(text)) => duration::parse(text)
                .map(Some)
                .ok_or_else(|| decode_error(duration::complaint(&echo(text)))),
            // A number with a fraction, or in scientific notation, is cut to whole nanoseconds.
            Some(value) => value
                .as_i64()
                .or_else(|| value.as_f64().filter(|it| it.abs() < 9.2e18).map(|it| it as i64))
                .map(Some)
                .ok_or_else(|| self.wrong_type(name, expected, value)),
        }
    }

    /// A list; empty when it is absent.
    ///
    /// # Errors
    /// It is no list.
    pub fn list(&self, name: &str) -> Result<&'a [Value], ApiError> {
        match self.get(name)? {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(self.wrong_type(name, "a list", other)),
        }
    }

    /// A list of texts; empty when it is absent.
    ///
    /// # Errors
    /// It is no list, or an item is no text.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, ApiError> {
        self.list(name)?
            .iter()
            .enumerate()
            .map(|(position, item)| match item {
                Value::String(text) => Ok(text.clone()),
                other => Err(self.wrong_type(&format!("{name}[{position}]"), "a string", other)),
            })
            .collect()
    }

    /// An object's fields.
    ///
    /// # Errors
    /// It is no object.
    pub fn object(&self, name: &str) -> Result<Option<Fields<'a>>, ApiError> {
        self.get(name)?
            .map(|value| Fields::at(value, &self.path(name)))
            .transpose()
    }

    /// Refuses a field that is kept as it is given, if it has more than [`KEPT_JSON_LEVELS_MAX`] levels.
    ///
    /// # Errors
    /// It has.
    pub fn refuse_deep(&self, name: &str) -> Result<(), ApiError> {
        match self.get(name)? {
            Some(value) if is_deeper(value, KEPT_JSON_LEVELS_MAX) => Err(self.error(
                name,
                format!("expected at most {KEPT_JSON_LEVELS_MAX} lists and objects within each other"),
            )),
            _ => Ok(()),
        }
    }

    /// The entries of an object whose keys are data.
    ///
    /// # Errors
    /// It is no object.
    pub fn entries(&self, name: &str) -> Result<Vec<(&'a str, &'a Value)>, ApiError> {
        match self.get(name)? {
            None => Ok(Vec::new()),
            Some(Value::Object(map)) => Ok(map.iter().map(|(key, value)| (key.as_str(), value)).collect()),
            Some(other) => Err(self.wrong_type(name, "an object", other)),
        }
    }

    /// An object of texts whose keys are data; empty when it is absent.
    ///
    /// # Errors
    /// It is no object, or a value is no text.
    pub fn text_map(&self, name: &str) -> Result<BTreeMap<String, String>, ApiError> {
        self.entries(name)?
            .into_iter()
            .map(|(key, value)| match value {
                Value::String(text) => Ok((key.to_owned(), text.clone())),
                other => Err(self.wrong_type(&format!("{name}.{}", echo(key)), "a string", other)),
            })
            .collect()
    }
}

/// Whether there are more levels of lists and objects in a value.
fn is_deeper(value: &Value, levels: usize) -> bool {
    let beneath = |value: &Value| is_deeper(value, levels.saturating_sub(1));
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(beneath),
        Value::Object(fields) => levels == 0 || fields.values().any(beneath),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Whether a key is a field's name, spelled in any case, with or without underscores.
fn same_name(key: &str, name: &str) -> bool {
    letters(key).eq(letters(name))
}

fn letters(text: &str) -> impl Iterator<Item = u8> {
    text.bytes()
        .filter(|byte| *byte != b'_')
        .map(|byte| byte.to_ascii_lowercase())
}

/// What a value is, in words short enough for a message.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("the string {:?}", echo(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn check_error<T: std::fmt::Debug>(result: Result<T, ApiError>, expected: Expect) {
        let error = result.expect_err("it must be refused");
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        expected.assert_eq(&error.message);
    }

    #[test]
    fn keys_match_in_every_spelling() {
        for key in [
            "TaggedAddresses",
            "tagged_addresses",
            "taggedaddresses",
            "TAGGED_ADDRESSES",
        ] {
            let body = json!({ key: 1 });
            assert!(
                Fields::of(&body)
                    .expect("an object")
                    .has("TaggedAddresses")
                    .expect("once"),
                "{key}"
            );
        }
        let body = json!({ "tagged-addresses": 1, "Tagged": 1 });
        assert!(
            !Fields::of(&body)
                .expect("an object")
                .has("TaggedAddresses")
                .expect("once")
        );
    }

    #[test]
    fn errors_name_the_field_and_what_was_expected() {
        let body = json!({
            "Name": 5, "Port": 70000, "Half": 80.5, "TTL": "abc", "Age": true, "Tags": ["a", 1], "Meta": {"k": 1},
            "Check": {"TTL": {}}, "one_two": 1, "OneTwo": 2, "Flag": "yes", "Long": "abcdef",
        });
        let fields = Fields::of(&body).expect("an object");
        check_error(
            fields.text("name"),
            expect!["Request decode failed: name: expected a string, got 5"],
        );
        check_error(
            fields.number("Port", 0..=65535),
            expect!["Request decode failed: Port: expected a whole number from 0 to 65535, got 70000"],
        );
        check_error(
            fields.number("Half", 0..=65535),
            expect!["Request decode failed: Half: expected a whole number from 0 to 65535, got 80.5"],
        );
        check_error(
            fields.duration("TTL"),
            expect![[r#"Request decode failed: time: invalid duration "abc""#]],
        );
        check_error(
            fields.duration("Age"),
            expect![[
                r#"Request decode failed: Age: expected a duration like "15s", "1m30s" or "500ms", got true"#
            ]],
        );
        check_error(
            fields.texts("Tags"),
            expect!["Request decode failed: Tags[1]: expected a string, got 1"],
        );
        check_error(
            fields.text_map("Meta"),
            expect!["Request decode failed: Meta.k: expected a string, got 1"],
        );
        let check = fields.object("Check").expect("an object").expect("there");
        check_error(
            check.duration("TTL"),
            expect![[
                r#"Request decode failed: Check.TTL: expected a duration like "15s", "1m30s" or "500ms", got an object"#
            ]],
        );
        check_error(
            fields.text("OneTwo"),
            expect!["Request decode failed: OneTwo: given twice, in two spellings: expected once"],
        );
        check_error(
            fields.flag("Flag"),
            expect![[r#"Request decode failed: Flag: expected true or false, got the string "yes""#]],
        );
        check_error(
            fields.bounded_text("Long", 3),
            expect!["Request decode failed: Long: expected at most 3 bytes, got 6"],
        );
        check_error(
            Fields::of(&json!([])),
            expect!["Request decode failed: the body: expected an object, got a list"],
        );
    }

    #[test]
    fn what_is_kept_as_it_is_given_has_few_levels() {
        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        let body = json!({ "Flat": nested(KEPT_JSON_LEVELS_MAX), "Deep": nested(KEPT_JSON_LEVELS_MAX + 1) });
        let fields = Fields::of(&body).expect("an object");
        assert_eq!(fields.refuse_deep("Flat"), Ok(()));
        assert_eq!(fields.refuse_deep("Absent"), Ok(()));
        check_error(
            fields.refuse_deep("Deep"),
            expect!["Request decode failed: Deep: expected at most 64 lists and objects within each other"],
        );
    }

    #[test]
    fn bad_json_is_told_with_its_position() {
        check_error(parse(b""), expect!["Request decode failed: EOF"]);
        check_error(
            parse(b"{bad json"),
            expect![
                "Request decode failed: invalid character 'b' looking for beginning of object key string"
            ],
        );
        check_error(
            parse(b"{\n  \"Name\": \"x\",\n}"),
            expect!["Request decode failed: trailing comma at line 3 column 1"],
        );
        check_error(
            parse(b"{\"a\":\"\xff\"}"),
            expect!["Request decode failed: invalid unicode code point at line 1 column 7"],
        );
        check_error(
            parse("[".repeat(1000).as_bytes()),
            expect!["Request decode failed: recursion limit exceeded at line 1 column 128"],
        );
    }

    #[test]
    fn numbers_are_nanoseconds() {
        let body = json!({ "TTL": 15_000_000_000_i64, "Interval": "", "Timeout": null });
        let fields = Fields::of(&body).expect("an object");
        assert_eq!(fields.duration("TTL"), Ok(Some(15_000_000_000)));
        assert_eq!(fields.duration("Interval"), Ok(None));
        assert_eq!(fields.duration("Timeout"), Ok(None));
        assert_eq!(fields.duration("Absent"), Ok(None));
    }
}
