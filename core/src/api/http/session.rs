//! `/v1/session/…`: what locks are held by.

use axum::{Router, extract::State};

use super::{
    body::OptionalJsonBody,
    encode,
    error::ApiError,
    kv::{refuse_foreign, refuse_namespace, server_error},
    options::{Name, Options, WriteOptions},
    read,
    reply::Reply,
    requests::parse_session,
    write,
};
use crate::{
    registry::{Command, NewSession, NodeName, Query, SessionId},
    server::Server,
};

pub(super) fn routes() -> Router<Server> {
    let missing = async || ApiError::bad_request("Missing session");
    Router::new()
        .route("/v1/session/create", write(create))
        .route("/v1/session/destroy/", write(missing))
        .route("/v1/session/destroy/{*id}", write(destroy))
        .route("/v1/session/renew/", write(missing))
        .route("/v1/session/renew/{*id}", write(renew))
        .route("/v1/session/info/", read(missing))
        .route("/v1/session/info/{*id}", read(info))
        .route(
            "/v1/session/node/",
            read(async || ApiError::bad_request("Missing node name")),
        )
        .route("/v1/session/node/{*name}", read(of_node))
        .route("/v1/session/list", read(list))
}

/// `PUT /v1/session/create`.
async fn create(
    State(server): State<Server>,
    options: WriteOptions,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Reply, ApiError> {
    refuse_namespace(&options)?;
    let config = server.config();
    let session = parse_session(body.as_ref(), config, server.new_session_id())?;
    let id = session.id.clone();
    // The servers' own node is there as soon as anybody needs it.
    let node = (session.node == config.agent_node).then(|| server.agent_node());
    let written = server
        .write(Command::CreateSession(Box::new(NewSession { session, node })))
        .await?;
    match written.reply {
        Ok(_) => Ok(Reply::json(&serde_json::json!({ "ID": id.as_str() })).with_index(written.index)),
        Err(refusal) => Err(server_error(format!("apply failed: {refusal}"))),
    }
}

/// `PUT /v1/session/destroy/{id}`: `true`, whether there was one or not.
async fn destroy(
    State(server): State<Server>,
    Name(id): Name<SessionId>,
    options: WriteOptions,
) -> Result<Reply, ApiError> {
    refuse_namespace(&options)?;
    let (index, _) = super::commit(&server, Command::DestroySession(id)).await?;
    Ok(Reply::json(&true).with_index(index))
}

/// `PUT /v1/session/renew/{id}`: the session, its TTL begun anew.
async fn renew(
    State(server): State<Server>,
    Name(id): Name<SessionId>,
    options: WriteOptions,
) -> Result<Reply, ApiError> {
    refuse_namespace(&options)?;
    let renewed = server.renew_session(id.clone()).await?;
    match renewed.session {
        Some(session) => {
            let body = encode::sessions(std::slice::from_ref(&session));
            Ok(Reply::encoded(body).with_index(renewed.index))
        }
        None => Err(ApiError::unknown_session(id.as_str())),
    }
}

/// `GET /v1/session/info/{id}`: a list of one, or of none.
async fn info(
    State(server): State<Server>,
    Name(id): Name<SessionId>,
    options: Options,
) -> Result<Reply, ApiError> {
    ask(&server, Query::Session(id), &options).await
}

/// `GET /v1/session/node/{name}`: the sessions of a node.
async fn of_node(
    State(server): State<Server>,
    Name(node): Name<NodeName>,
    options: Options,
) -> Result<Reply, ApiError> {
    ask(&server, Query::Sessions(Some(node)), &options).await
}

/// `GET /v1/session/list`: all sessions.
async fn list(State(server): State<Server>, options: Options) -> Result<Reply, ApiError> {
    ask(&server, Query::Sessions(None), &options).await
}

async fn ask(server: &Server, query: Query, options: &Options) -> Result<Reply, ApiError> {
    refuse_foreign(&options.namespace)?;
    let answer = server.read(query, options.read).await?;
    let body = answer.view.bytes(encode::session_view);
    Ok(Reply::read(&answer, options, body))
}
