//! The log of a server that has stopped, as `sds debug log` prints it, carried out once more.

use serde_json::Value;
use sider_core::registry::{Command, Registry};

use super::evidence::hex;
use crate::history::{AppliedEntry, Effect};

/// An entry as a server's log has it, with what it makes of the state.
#[derive(Clone, Debug)]
pub(super) struct Replayed {
    pub(super) entry: AppliedEntry,
    /// When it was proposed, by its leader's wall clock.
    pub(super) proposed_ms: Option<u64>,
}

/// Carries a server's log out once more, up to what it had applied.
///
/// # Errors
/// The log can't be read, or lacks entries.
pub(super) fn replay(log: &str, applied: u64) -> Result<Vec<Replayed>, String> {
    let mut registry = Registry::default();
    let mut replayed: Vec<Replayed> = Vec::new();
    for line in log.lines().skip(1) {
        let line: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let number = |name: &str| line[name].as_u64().unwrap_or_default();
        let log_index = number("index");
        if log_index > applied {
            break;
        }
        match replayed.last().map(|before| before.entry.log_index) {
            None if log_index > 1 => {
                return Err(format!("a log begins with entry {log_index}: it can't be judged"));
            }
            Some(before) if log_index != before + 1 => {
                return Err(format!("in a log, entry {log_index} follows entry {before}"));
            }
            _ => {}
        }
        let logged = match line["bytes"].as_str() {
            None => None,
            Some(bytes) => {
                let bytes = hex::bytes(bytes)?;
                let logged = Command::decode(&bytes, Command::NEWEST_VERSION);
                Some(logged.map_err(|error| format!("entry {log_index}: {error}"))?)
            }
        };
        let hash = line["hash"]
            .as_str()
            .and_then(|hash| u64::from_str_radix(hash, 16).ok());
        let proposed_ms = logged.as_ref().and_then(|logged| logged.proposed_ms);
        let command = logged.map(|logged| {
            let applied = registry.apply(&logged.command);
            let effect = Effect {
                reply: applied.reply,
                changed: applied.changed,
                topics: applied.topics,
            };
            (logged.command, effect)
        });
        let entry = AppliedEntry {
            log_index,
            term: number("term"),
            hash: hash.unwrap_or_default(),
            command,
            index: registry.index(),
            digest: registry.digest(),
        };
        replayed.push(Replayed { entry, proposed_ms });
    }
    Ok(replayed)
}

/// The states that a server names itself, each by its log index, with the registry's index and the digest: its
/// checkpoint's, and its last.
///
/// # Errors
/// The log has no summary.
pub(super) fn claimed_states(
    log: &str,
    stats: &Value,
    replayed: &[Replayed],
) -> Result<Vec<(u64, u64, u128)>, String> {
    let summary: Value = serde_json::from_str(log.lines().next().unwrap_or_default())
        .map_err(|error| format!("a log without a summary: {error}"))?;
    let checkpoint = &summary["checkpoint"];
    let digest = |text: &Value| text.as_str().and_then(|text| u128::from_str_radix(text, 16).ok());
    let mut states = Vec::new();
    if let (Some(log_index), Some(index), Some(digest)) = (
        checkpoint["log_index"].as_u64(),
        checkpoint["index"].as_u64(),
        digest(&checkpoint["digest"]),
    ) {
        states.push((log_index, index, digest));
    }
    // What it says of itself while it runs names no index of the registry: there the digest alone is compared.
    if let (Some(log_index), Some(digest)) = (stats["digest_index"].as_u64(), digest(&stats["digest"]))
        && let Some(at) = replayed.iter().find(|it| it.entry.log_index == log_index)
    {
        states.push((log_index, at.entry.index, digest));
    }
    Ok(states)
}
