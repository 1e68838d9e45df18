//! What a cluster begins with: its certificate authority, how a simulated one is made, what clients are told of it and what is
//! stored; and autopilot's first settings.

use serde_json::Value;
use sider_core::{
    registry::{Command, Operation},
    server::{Authority, AutopilotSettings, StoredAuthority},
};

use crate::model::State;

/// Stands for making one: no chance but the name's.
///
/// # Errors
/// Never.
pub fn make(trust_domain: &str) -> Result<Authority, String> {
    Ok(Authority {
        certificate: format!("certificate of {trust_domain}"),
        private_key: format!("key of {trust_domain}"),
        key_id: format!("id of {trust_domain}"),
        not_before: "2026-01-01T00:00:00Z".into(),
        not_after: "2036-01-01T00:00:00Z".into(),
    })
}

/// Autopilot's settings in a file of all servers: none is removed, as without any.
pub fn first_settings() -> AutopilotSettings {
    AutopilotSettings {
        cleanup_dead_servers: false,
        ..AutopilotSettings::default()
    }
}

/// An authority as clients are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootsSeen {
    /// The name of the cluster that it is for.
    pub trust_domain: String,
    /// Its certificate.
    pub certificate: String,
    /// When it was stored.
    pub create_index: u64,
    /// When it was last changed.
    pub modify_index: u64,
}

impl RootsSeen {
    /// What a state holds; `None` while it holds none.
    pub fn held(state: &State) -> Option<RootsSeen> {
        let held = state.key(&StoredAuthority::key())?;
        let stored: StoredAuthority = serde_json::from_slice(&held.value).ok()?;
        Some(RootsSeen {
            trust_domain: stored.trust_domain,
            certificate: stored.authority.certificate,
            create_index: held.create_index,
            modify_index: held.modify_index,
        })
    }

    /// What an answer tells: one root, which is the active one, and never its key.
    pub fn parse(value: &Value) -> Option<RootsSeen> {
        let [root] = value["Roots"].as_array()?.as_slice() else {
            return None;
        };
        let is_active = root["Active"] == true && root["ID"] == value["ActiveRootID"];
        (is_active && !value.to_string().contains("key of ")).then_some(RootsSeen {
            trust_domain: value["TrustDomain"].as_str()?.to_owned(),
            certificate: root["RootCert"].as_str()?.to_owned(),
            create_index: root["CreateIndex"].as_u64()?,
            modify_index: root["ModifyIndex"].as_u64()?,
        })
    }
}

/// Whether a command stores an authority, or autopilot's settings, unless there are any: a leader's, or that of a server that
/// was asked for the authority.
pub fn is_founding(command: &Command) -> bool {
    let Command::Transact(operations) = command else {
        return false;
    };
    matches!(operations.as_slice(), [Operation::SetKeyIf(write, 0)]
        if write.key == StoredAuthority::key() || write.key == AutopilotSettings::key())
}
