//! `/v1/txn`: several reads and writes at once, all or none.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::put,
};
use http::{Method, StatusCode};

use super::{
    body::TransactionBody,
    encode::{Encoder, TransactionBodyKind},
    error::ApiError,
    options::Options,
    reply::Reply,
    requests::{ParsedTransaction, parse_transaction},
    wrong_method,
};
use crate::{
    registry::{Command, OperationError, OperationResult, Refusal, Reply as Outcome},
    server::Server,
};

pub(super) fn routes() -> Router<Server> {
    let methods = put(transact)
        .post(transact)
        .fallback(|method: Method| async move { wrong_method(&method, "OPTIONS,PUT") });
    Router::new().route("/v1/txn", methods)
}

/// `PUT /v1/txn`: 200 with what the operations gave, or 409 with those that can't be done. One that only reads is
/// answered from this server's state, as freshly as any other read.
async fn transact(
    State(server): State<Server>,
    options: Options,
    TransactionBody(body): TransactionBody,
) -> Result<Response, ApiError> {
    let ParsedTransaction {
        operations,
        only_reads,
        errors,
    } = parse_transaction(&body, &options.namespace, server.config())?;
    if !errors.is_empty() {
        let kind = match only_reads {
            true => TransactionBodyKind::Refused,
            false => TransactionBodyKind::Written,
        };
        return Ok(refused(&server, kind, &errors));
    }
    if only_reads {
        let outcome = server
            .inspect(options.stale(), |registry| registry.evaluate(&operations))
            .await?;
        return Ok(match outcome {
            Ok(results) => {
                let body = encode(&server, TransactionBodyKind::Read, Ok(&results));
                Reply::encoded(body).with_freshness(true, 0).into_response()
            }
            Err(errors) => refused(&server, TransactionBodyKind::Read, &told(errors)),
        });
    }
    let written = server.write(Command::Transact(operations)).await?;
    match written.reply {
        Ok(Outcome::Transacted(results)) => {
            let body = encode(&server, TransactionBodyKind::Written, Ok(&results));
            Ok(Reply::encoded(body).with_index(written.index).into_response())
        }
        Ok(other) => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("an unexpected reply to a transaction: {other:?}"),
        )),
        Err(Refusal::Aborted(errors)) => Ok(refused(&server, TransactionBodyKind::Written, &told(errors))),
        Err(refusal) => Err(refusal.into()),
    }
}

fn told(errors: Vec<OperationError>) -> Vec<(u64, String)> {
    let tell = |error: OperationError| (error.place, error.refusal.to_string());
    errors.into_iter().map(tell).collect()
}

/// 409 with each operation that can't be done.
fn refused(server: &Server, kind: TransactionBodyKind, errors: &[(u64, String)]) -> Response {
    let mut reply = Reply::encoded(encode(server, kind, Err(errors))).conflict();
    match kind {
        TransactionBodyKind::Written => {}
        TransactionBodyKind::Read => reply = reply.with_freshness(true, 0),
        TransactionBodyKind::Refused => reply = reply.with_freshness(false, 0),
    }
    reply.into_response()
}

fn encode(
    server: &Server,
    kind: TransactionBodyKind,
    outcome: Result<&[OperationResult], &[(u64, String)]>,
) -> bytes::Bytes {
    Encoder::new(server.config()).transaction(kind, outcome)
}
