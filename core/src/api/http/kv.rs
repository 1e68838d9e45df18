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
use http::{Method, StatusCode, Uri, header};

use super::{
    body::ValueBody,
    encode,
    error::{ApiError, echo},
    options::{Options, Parameters, WriteOptions},
    reply::Reply,
    requests::client_key,
    wrong_method,
};
use crate::{
    registry::{Command, Key, KeyWrite, Operation, OperationRefusal, Query, Refusal, SessionId, View},
    server::Server,
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
        if let Some(clean) = clean_path(path) {
            return Err(moved(&clean, &parts.uri));
        }
        let mut behind = PREFIXES.iter().filter_map(|prefix| path.strip_prefix(prefix));
        let encoded = behind.next().unwrap_or_default();
        let Some(bytes) = percent_decode(encoded) else {
            let error = ApiError::bad_request("Invalid path: expected two hexadecimal digits behind each %");
            return Err(error.into_response());
        };
        client_key(bytes)
            .map(KeyPath)
            .map_err(IntoResponse::into_response)
    }
}

/// A path without empty, `.` and `..` parts, as Go's servers insist on; `None` if it has none.
fn clean_path(path: &str) -> Option<String> {
    let parts = path.split('/').skip(1);
    let last = path.rsplit('/').next().unwrap_or_default();
    let odd = |part: &str| part.is_empty() || part == "." || part == "..";
    // What follows the last slash may be empty.
    let inner = parts.clone().count().saturating_sub(1);
    if !parts.clone().take(inner).any(odd) && last != "." && last != ".." {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    for part in parts {
        match part {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            part => kept.push(part),
        }
    }
    let slash = if last.is_empty() && !kept.is_empty() {
        "/"
    } else {
        ""
    };
    Some(format!("/{}{slash}", kept.join("/")))
}

/// 301 to the same request with another path.
fn moved(path: &str, uri: &Uri) -> Response {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = [(header::LOCATION, format!("{path}{query}"))];
    (StatusCode::MOVED_PERMANENTLY, location).into_response()
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
    let answer = server.read(query, options.read).await?;
    let reply = match &answer.view.view {
        View::Keys(found) if found.is_empty() => Reply::read_nothing(&answer, &options),
        View::KeyNames(found) if found.is_empty() => Reply::read_nothing(&answer, &options),
        View::Keys(found) if found.len() == 1 && parameters.has("raw") => {
            Reply::read(&answer, &options, found[0].value.clone()).raw()
        }
        _ => Reply::read(&answer, &options, answer.view.bytes(encode::keys)),
    };
    Ok(reply.into_response())
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

/// Keys have no namespaces: a write that names one is not what it takes itself for.
pub(super) fn refuse_namespace(options: &WriteOptions) -> Result<(), ApiError> {
    match &options.namespace {
        Some(namespace) if *namespace != crate::registry::Namespace::default() => {
            Err(ApiError::bad_request(format!(
                "keys and sessions have no namespaces: expected none, got {:?}",
                namespace.as_str()
            )))
        }
        _ => Ok(()),
    }
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
    fn paths_are_cleaned_as_go_cleans_them() {
        for (path, clean) in [
            ("/v1/kv/a", None),
            ("/v1/kv/a/", None),
            ("/v1/kv/", None),
            ("/v1/kv/a.b/..c", None),
            ("/v1/kv//lead", Some("/v1/kv/lead")),
            ("/v1/kv/a//b/", Some("/v1/kv/a/b/")),
            ("/v1/kv/a/./b", Some("/v1/kv/a/b")),
            ("/v1/kv/a/../b", Some("/v1/kv/b")),
            ("/v1/kv/a/..", Some("/v1/kv")),
            ("/v1/kv//", Some("/v1/kv/")),
        ] {
            assert_eq!(clean_path(path).as_deref(), clean, "{path}");
        }
    }

    #[test]
    fn keys_are_any_bytes() {
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
