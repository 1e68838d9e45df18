//! Errors as clients see them: a status and one line of plain text.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::{
    registry::{InvalidName, Refusal},
    server::ServerError,
};

/// Characters of a client's own words that an error repeats.
const ECHO_CHARS_MAX: usize = 256;

/// Why a request failed: a status and one line that says what is wrong and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// One line.
    pub message: String,
    /// A header that belongs to the status (`Allow`, `X-Consul-Reason`).
    pub header: Option<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// An error with a status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError {
            status,
            message: message.into(),
            header: None,
        }
    }

    /// 400: the request can't be understood, or asks for what can't be.
    pub fn bad_request(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    /// 500, where Consul has it for what a client did wrong: its clients look at the words.
    pub fn server_error(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// 404 for a check, in Consul's words.
    pub fn unknown_check(id: &str) -> Self {
        ApiError::new(
            StatusCode::NOT_FOUND,
            format!(
                "Unknown check ID \"{}\". Ensure that the check ID is passed, not the check name.",
                echo(id)
            ),
        )
    }

    /// 404 for a service of which a check is to be, in the words of Consul's agents.
    pub fn no_such_service(id: &str) -> Self {
        let message = format!("ServiceID \"{}\" does not exist", echo(id));
        ApiError::new(StatusCode::NOT_FOUND, message)
    }

    /// 404 for a session, in Consul's words.
    pub fn unknown_session(id: &str) -> Self {
        ApiError::new(
            StatusCode::NOT_FOUND,
            format!("Session id '{}' not found", echo(id)),
        )
    }

    /// 404 for an instance, in Consul's words.
    pub fn unknown_instance(id: &str) -> Self {
        ApiError::new(
            StatusCode::NOT_FOUND,
            format!(
                "Unknown service ID \"{}\". Ensure that the service ID is passed, not the service name.",
                echo(id)
            ),
        )
    }
}

/// What a client wrote, short enough to be repeated to it.
pub(super) fn echo(text: &str) -> String {
    match text.char_indices().nth(ECHO_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl From<InvalidName> for ApiError {
    fn from(error: InvalidName) -> Self {
        ApiError::bad_request(error.to_string())
    }
}

impl From<ServerError> for ApiError {
    fn from(error: ServerError) -> Self {
        let status = match error {
            ServerError::NoLeader | ServerError::OutcomeUnknown(_) => StatusCode::INTERNAL_SERVER_ERROR,
            ServerError::OverLimit { .. } => StatusCode::TOO_MANY_REQUESTS,
            ServerError::Refused(_) => StatusCode::BAD_REQUEST,
            ServerError::OlderMember(_) | ServerError::Stopped(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        ApiError::new(status, error.to_string())
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownCheck(id) => ApiError::unknown_check(&id),
            Refusal::UnknownInstance(id) => ApiError::unknown_instance(&id),
            Refusal::UnknownNode(name) => {
                ApiError::new(StatusCode::NOT_FOUND, format!("Unknown node \"{}\"", echo(&name)))
            }
            Refusal::UnknownSession(id) => ApiError::unknown_session(&id),
            Refusal::NotTtl(id) => {
                ApiError::server_error(format!("CheckID \"{}\" does not have associated TTL", echo(&id)))
            }
            Refusal::Invalid(reason) => ApiError::bad_request(reason),
            Refusal::OtherService { .. }
            | Refusal::Aborted(_)
            | Refusal::RenewedSince
            | Refusal::AlreadyCritical => ApiError::new(StatusCode::CONFLICT, refusal.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // One line, whatever a name or a library's message brought along.
        let message = self.message.replace(char::is_control, " ");
        let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
        let mut response = (self.status, [(header::CONTENT_TYPE, content_type)], message).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
