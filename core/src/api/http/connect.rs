//! `/v1/connect/ca/roots` and `/v1/agent/connect/ca/roots`: the cluster's own certificate authority.
//!
//! A leader makes it ([`crate::server::StoredAuthority`]). Where it is asked for before that, whichever server is asked does.

use axum::{Router, extract::State};
use serde_json::json;

use super::{encode::to_bytes, error::ApiError, options::Options, read, reply::Reply};
use crate::{
    registry::{KeyValue, Query, View},
    server::{Answer, Consistency, ReadOptions, Server, StoredAuthority},
};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/connect/ca/roots", read(roots))
        .route("/v1/agent/connect/ca/roots", read(roots))
}

async fn roots(State(server): State<Server>, options: Options) -> Result<Reply, ApiError> {
    let query = Query::Key(StoredAuthority::key());
    let mut answer = server.read(&query, options.read).await?;
    if first(&answer).is_none() {
        make(&server).await?;
        // Also who reads stale sees what was made.
        let read = ReadOptions {
            consistency: Consistency::Linearizable,
            ..options.read
        };
        answer = server.read(query, read).await?;
    }
    let Some(found) = first(&answer) else {
        return Err(ApiError::server_error("CA not initialized"));
    };
    let StoredAuthority {
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

fn first(answer: &Answer) -> Option<&KeyValue> {
    match &answer.view.view {
        View::Keys(found) => found.first().map(AsRef::as_ref),
        _ => None,
    }
}

/// Makes an authority unless there is one.
async fn make(server: &Server) -> Result<(), ApiError> {
    let made = server
        .new_authority()
        .ok_or_else(|| ApiError::server_error("Connect must be enabled in order to use this endpoint"))?;
    let command =
        made.map_err(|error| ApiError::server_error(format!("an authority can't be made: {error}")))?;
    // If another one came before, that one stays.
    server.write(command).await?;
    Ok(())
}
