//! Renewals and other reports about checks, many at a time.

use serde_json::Value;

use super::{Place, check};
use crate::{
    api::http::{
        body::Fields,
        error::{ApiError, echo},
    },
    registry::{CheckId, CheckKey, CheckStatus, CheckTarget, InstanceId, InstanceKey, NodeName},
    server::Renewal,
};

/// Parses one item of `/v1/batch/renew`: a check's id, or an object with `CheckID` (or `ServiceID`, for all TTL checks
/// of an instance), and if they differ from the default `Node`, `Namespace`, `Status` (passing) and `Output`.
///
/// # Errors
/// 400 that names the item and what is wrong with it.
pub fn parse_renewal(item: &Value, position: usize, place: &Place) -> Result<Renewal, ApiError> {
    if let Value::String(id) = item {
        return Ok(Renewal {
            target: CheckTarget::Check(CheckKey {
                namespace: place.namespace.clone().unwrap_or_default(),
                node: place.node.name.clone(),
                id: CheckId::parse(id)?,
            }),
            status: CheckStatus::Passing,
            output: Some(String::new()),
        });
    }
    let fields = Fields::at(item, &format!("[{position}]"))?;
    let namespace = place.namespace(&fields)?;
    let node = match fields.text("Node")? {
        Some(name) => NodeName::parse(name)?,
        None => place.node.name.clone(),
    };
    let check = fields.first_text(&["CheckID", "ID"])?;
    let target = match (check, fields.text("ServiceID")?) {
        (Some(id), _) => CheckTarget::Check(CheckKey {
            namespace,
            node,
            id: CheckId::parse(id)?,
        }),
        (None, Some(id)) => CheckTarget::TtlChecksOf(InstanceKey {
            namespace,
            node,
            id: InstanceId::parse(id)?,
        }),
        (None, None) => return Err(fields.error("CheckID", "missing: expected CheckID or ServiceID")),
    };
    let status = match fields.text("Status")? {
        None => CheckStatus::Passing,
        Some(word) => check::parse_status(word).ok_or_else(|| {
            let expected = "expected passing, warning, critical or unknown";
            fields.error("Status", format!("{expected}, got {:?}", echo(word)))
        })?,
    };
    let output = fields.first_text(&["Output", "Note"])?.unwrap_or_default();
    Ok(Renewal {
        target,
        status,
        output: Some(check::cut_output(output)),
    })
}
