//! `/v1/kv/…`: keys and values.
//!
//! Here a client's mistakes are answered as Consul answers them, with 500 for some: its clients' locks and
//! semaphores look at these answers closely.

use axum::{
    Router,
    extract::{FromRequestParts, State},
    http::request::Parts,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{Method, StatusCode};

use super::{
    body::ValueBody,
    encode,
    error::{ApiError, echo},
    later,
    options::{Options, Parameters, WriteOptions},
    reply::Reply,
    requests::client_key,
    wrong_method,
};
use crate::{
    registry::{
        Command, Key, KeyWrite, Namespace, Operation, OperationRefusal, Query, Refusal, SessionId, View,
    },
    server::{Answer, Server},
};

/// What stands before a key: where it is read and written, and where what is below it is watched.
const PREFIXES: [&str; 2] = ["/v1/kv/", super::watch::KEYS];

pub(super) fn routes() -> Router<Server> {
    let methods = || {
        get(read)
            .put(put)
            .delete(delete)
            .fallback(|method: Method| async move { wrong_method(&method, "OPTIONS,GET,PUT,DELETE") })
    };
    Router::new()
        .route("/v1/kv/", methods())
        .route("/v1/kv/{*key}", methods())
}

/// The key that a path names: everything behind `/v1/kv/` or `/v1/watch/kv/`, percent-decoded; it may be empty.
pub(super) struct KeyPath(pub(super) Key);

impl FromRequestParts<Server> for KeyPath {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &Server) -> Result<Self, Response> {
        let path = parts.uri.path();
        let mut behind = PREFIXES.iter().filter_map(|prefix| path.strip_prefix(prefix));
        let encoded = behind.next().unwrap_or_default();
        let Some(bytes) = percent_decode(encoded) else {
            let error = ApiError::bad_request("Invalid path: expected two hexadecimal digits behind each %");
            return Err(error.into_response());
        };
        readable(bytes)
            .and_then(client_key)
            .map(KeyPath)
            .map_err(IntoResponse::into_response)
    }
}

/// A key's bytes as text: bytes that are none would be shown as others, and so look like another key.
fn readable(bytes: Vec<u8>) -> Result<String, ApiError> {
    let Ok(text) = String::from_utf8(bytes) else {
        return Err(ApiError::bad_request(
            "Invalid key: expected UTF-8 behind its percent signs",
        ));
    };
    match text.chars().find(|letter| letter.is_control()) {
        Some(letter) => Err(ApiError::bad_request(format!(
            "Invalid key: expected no control characters, got {letter:?}"
        ))),
        None => Ok(text),
    }
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high << 4 | low).expect("two hexadecimal digits are a byte"));
    }
    Some(bytes)
}

/// `GET /v1/kv/{key}`: what a key holds, or with `?recurse` all with that prefix, or with `?keys` their names.
async fn read(
    KeyPath(key): KeyPath,
    State(server): State<Server>,
    options: Options,
) -> Result<Response, ApiError> {
    refuse_foreign(&options.namespace)?;
    let parameters = &options.parameters;
    let query = if parameters.has("keys") {
        let separator = parameters.text("separator").unwrap_or_default();
        Query::KeyNames {
            prefix: key,
            separator: separator.as_bytes().to_vec(),
        }
    } else if parameters.has("recurse") {
        Query::KeyTree(key)
    } else if key.is_empty() {
        return Err(missing_key());
    } else {
        Query::Key(key)
    };
    let raw = parameters.has("raw") && matches!(query, Query::Key(_));
    // The root is there, be it empty.
    let is_root = matches!(&query, Query::KeyNames { prefix, .. } if prefix.is_empty());
    let reply = move |_: &Server, answer: &Answer, shown| match &answer.view.view {
        View::Keys(found) if found.is_empty() => Reply::read_nothing(answer, shown),
        View::KeyNames(found) if found.is_empty() && !is_root => Reply::read_nothing(answer, shown),
        View::Keys(found) if found.len() == 1 && raw => {
            Reply::shown(answer, shown, found[0].value.clone()).raw()
        }
        _ => Reply::shown(answer, shown, answer.view.bytes(encode::keys)),
    };
    later::read(server, query, &options, reply).await
}

/// `PUT /v1/kv/{key}`: puts a value; with `?cas` if the key was not changed since, with `?acquire` together with its
/// lock, with `?release` giving its lock back.
async fn put(
    KeyPath(key): KeyPath,
    State(server): State<Server>,
    options: WriteOptions,
    ValueBody(value): ValueBody,
) -> Result<Response, ApiError> {
    let parameters = &options.parameters;
    refuse_namespace(&options)?;
    if key.is_empty() {
        return Err(missing_key());
    }
    if let Some(conflict) = conflicting(parameters, &["cas", "acquire", "release"]) {
        return Ok(conflict);
    }
    let write = KeyWrite {
        key,
        value,
        flags: number(parameters, "flags")?.unwrap_or_default(),
    };
    let operation = if let Some(index) = number(parameters, "cas")? {
        Operation::SetKeyIf(write, index)
    } else if parameters.has("acquire") {
        Operation::Lock(write, session(parameters, "acquire")?)
    } else if parameters.has("release") {
        Operation::Unlock(write, session(parameters, "release")?)
    } else {
        Operation::SetKey(write)
    };
    carry_out(&server, operation).await
}

/// `DELETE /v1/kv/{key}`: deletes a key; with `?recurse` all with that prefix, with `?cas` if it was not changed since.
async fn delete(
    KeyPath(key): KeyPath,
    State(server): State<Server>,
    options: WriteOptions,
) -> Result<Response, ApiError> {
    let parameters = &options.parameters;
    refuse_namespace(&options)?;
    if let Some(conflict) = conflicting(parameters, &["recurse", "cas"]) {
        return Ok(conflict);
    }
    let operation = if parameters.has("recurse") {
        Operation::DeleteTree(key)
    } else if key.is_empty() {
        return Err(missing_key());
    } else if let Some(index) = number(parameters, "cas")? {
        Operation::DeleteKeyIf(key, index)
    } else {
        Operation::DeleteKey(key)
    };
    carry_out(&server, operation).await
}

/// A transaction of one operation: `true`, or `false` when something else came first.
async fn carry_out(server: &Server, operation: Operation) -> Result<Response, ApiError> {
    let written = server.write(Command::Transact(vec![operation])).await?;
    let done = match written.reply {
        Ok(_) => true,
        Err(Refusal::Aborted(errors)) => match errors.first().map(|error| &error.refusal) {
            Some(refusal @ (OperationRefusal::MissingSession | OperationRefusal::InvalidSession(_))) => {
                return Err(server_error(format!("raft apply failed: {refusal}")));
            }
            _ => false,
        },
        Err(refusal) => return Err(refusal.into()),
    };
    Ok(Reply::json(&done).with_index(written.index).into_response())
}

fn missing_key() -> ApiError {
    ApiError::bad_request("Missing key name")
}

/// 500, where Consul has it for what a client did wrong.
pub(super) fn server_error(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
}

/// Refuses a write that names another namespace than the default one.
pub(super) fn refuse_namespace(options: &WriteOptions) -> Result<(), ApiError> {
    options.namespace.as_ref().map_or(Ok(()), refuse_foreign)
}

/// Keys and sessions have no namespaces: what names another one than the default is not what it takes itself for.
pub(super) fn refuse_foreign(namespace: &Namespace) -> Result<(), ApiError> {
    if *namespace == Namespace::default() {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "keys and sessions have no namespaces: expected none, got {:?}",
        namespace.as_str()
    )))
}

/// 400 when more than one of these parameters is there, with all of them, in Go's encoding.
fn conflicting(parameters: &Parameters, names: &[&str]) -> Option<Response> {
    if names.iter().filter(|name| parameters.has(name)).count() < 2 {
        return None;
    }
    // Consul ends this text with a line feed.
    let text = format!("Conflicting flags: {}\n", parameters.encode());
    Some((StatusCode::BAD_REQUEST, text).into_response())
}

/// A parameter that is a number, as Go parses and refuses them.
pub(super) fn number(parameters: &Parameters, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(text) = parameters.all(name).next() else {
        return Ok(None);
    };
    let reason = match text.parse() {
        Ok(number) if !text.starts_with('+') => return Ok(Some(number)),
        Err(error) if *error.kind() == std::num::IntErrorKind::PosOverflow => "value out of range",
        _ => "invalid syntax",
    };
    let text = echo(text);
    Err(server_error(format!(
        "strconv.ParseUint: parsing {text:?}: {reason}"
    )))
}

fn session(parameters: &Parameters, name: &str) -> Result<Option<SessionId>, ApiError> {
    Ok(parameters.text(name).map(SessionId::parse).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_percent_signs_is_any_byte() {
        assert_eq!(
            percent_decode("with%20space%2Fenc").as_deref(),
            Some(&b"with space/enc"[..])
        );
        assert_eq!(percent_decode("%00%fF+").as_deref(), Some(&b"\0\xff+"[..]));
        for bad in ["%", "%1", "a%zz", "%+1"] {
            assert_eq!(percent_decode(bad), None, "{bad}");
        }
    }
}
