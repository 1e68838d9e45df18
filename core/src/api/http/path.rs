//! Paths without empty, `.` and `..` parts, and with the slash of a folder, as Go's servers insist on: a request for another one
//! is sent to the clean one.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri, header};

/// Paths that go on behind a slash and mean nothing without it: Go's servers send those who forget it there.
const FOLDERS: [&str; 28] = [
    "/v1/agent/check/deregister",
    "/v1/agent/check/fail",
    "/v1/agent/check/pass",
    "/v1/agent/check/update",
    "/v1/agent/check/warn",
    "/v1/agent/force-leave",
    "/v1/agent/health/service/id",
    "/v1/agent/health/service/name",
    "/v1/agent/join",
    "/v1/agent/service",
    "/v1/agent/service/maintenance",
    "/v1/catalog/connect",
    "/v1/catalog/gateway-services",
    "/v1/catalog/node",
    "/v1/catalog/node-services",
    "/v1/catalog/service",
    "/v1/event/fire",
    "/v1/health/checks",
    "/v1/health/connect",
    "/v1/health/ingress",
    "/v1/health/node",
    "/v1/health/service",
    "/v1/health/state",
    "/v1/kv",
    "/v1/session/destroy",
    "/v1/session/info",
    "/v1/session/node",
    "/v1/session/renew",
];

/// The answer to a request whose path is not clean: 307 to the same request with its clean path. `None` if it is clean.
pub(crate) fn redirect(uri: &Uri) -> Option<Response> {
    let path = match FOLDERS.contains(&uri.path()) {
        true => format!("{}/", uri.path()),
        false => clean(uri.path())?,
    };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = [(header::LOCATION, format!("{path}{query}"))];
    Some((StatusCode::TEMPORARY_REDIRECT, location).into_response())
}

/// A path without empty, `.` and `..` parts; `None` if it has none.
fn clean(path: &str) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        for (path, cleaned) in [
            ("/", None),
            ("*", None),
            ("/v1/kv/a", None),
            ("/v1/kv/a/", None),
            ("/v1/kv/", None),
            ("/v1/kv/a.b/..c", None),
            ("//", Some("/")),
            ("//host/v1", Some("/host/v1")),
            ("/v1/kv//lead", Some("/v1/kv/lead")),
            ("/v1/kv/a//b/", Some("/v1/kv/a/b/")),
            ("/v1/kv/a/./b", Some("/v1/kv/a/b")),
            ("/v1/kv/a/../b", Some("/v1/kv/b")),
            ("/v1/kv/a/..", Some("/v1/kv")),
            ("/v1/kv//", Some("/v1/kv/")),
        ] {
            assert_eq!(clean(path).as_deref(), cleaned, "{path}");
        }
    }
}
