//! `/v1/connect/ca/roots` and `/v1/agent/connect/ca/roots`: the cluster's own certificate authority.
//!
//! It is made when it is first asked for, by whichever server is asked, and kept under a reserved key: of two that are
//! made at once, one stays. Core can't make one, since it has no chance of its own: what runs the server does.

use axum::{Router, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{encode::to_bytes, error::ApiError, options::Options, read, reply::Reply};
use crate::{
    registry::{Command, Key, KeyWrite, Operation, Query, View},
    server::{Answer, Authority, Server},
};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/connect/ca/roots", read(roots))
        .route("/v1/agent/connect/ca/roots", read(roots))
}

/// What is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    trust_domain: String,
    authority: Authority,
}

async fn roots(State(server): State<Server>, options: Options) -> Result<Reply, ApiError> {
    let key = Key::reserved("connect/ca").expect("a constant that is short enough");
    let mut answer = server.read(Query::Key(key.clone()), options.read).await?;
    if first(&answer).is_none() {
        make(&server, key.clone()).await?;
        answer = server.read(Query::Key(key), options.read).await?;
    }
    let Some(found) = first(&answer) else {
        return Err(ApiError::server_error("CA not initialized"));
    };
    let Stored {
        trust_domain,
        authority,
    } = serde_json::from_slice(&found.value)
        .map_err(|error| ApiError::server_error(format!("the stored authority can't be read: {error}")))?;
    let body = json!({
        "ActiveRootID": authority.key_id,
        "TrustDomain": trust_domain,
        "Roots": [{
            "ID": authority.key_id,
            "Name": "Sider CA Primary Cert",
            "SerialNumber": 1,
            "SigningKeyID": authority.key_id,
            "ExternalTrustDomain": trust_domain.trim_end_matches(".consul"),
            "NotBefore": authority.not_before,
            "NotAfter": authority.not_after,
            "RootCert": authority.certificate,
            "IntermediateCerts": null,
            "Active": true,
            "PrivateKeyType": "ec",
            "PrivateKeyBits": 256,
            "CreateIndex": found.create_index,
            "ModifyIndex": found.modify_index,
        }],
    });
    let mut reply = Reply::read(&answer, &options, to_bytes(&body));
    reply.fresh();
    Ok(reply)
}

fn first(answer: &Answer) -> Option<&crate::registry::KeyValue> {
    match &answer.view.view {
        View::Keys(found) => found.first().map(AsRef::as_ref),
        _ => None,
    }
}

/// Makes an authority unless there is one.
async fn make(server: &Server, key: Key) -> Result<(), ApiError> {
    let Some(make) = server.config().make_authority else {
        return Err(ApiError::server_error(
            "Connect must be enabled in order to use this endpoint",
        ));
    };
    let trust_domain = format!("{}.consul", server.new_uuid());
    let authority = make(&trust_domain)
        .map_err(|error| ApiError::server_error(format!("an authority can't be made: {error}")))?;
    let stored = Stored {
        trust_domain,
        authority,
    };
    let write = KeyWrite {
        key,
        value: to_bytes(&stored),
        flags: 0,
    };
    // If another one came before, that one stays.
    server
        .write(Command::Transact(vec![Operation::SetKeyIf(write, 0)]))
        .await?;
    Ok(())
}
