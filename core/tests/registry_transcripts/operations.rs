//! Operations of a transaction, one for each line:
//!
//! ```text
//! do set KEY VALUE [flags=N] | cas KEY VALUE index=N | lock KEY VALUE by=SESSION | unlock KEY VALUE by=SESSION
//! do get KEY | get-or-empty KEY | get-tree PREFIX
//! do check-index KEY index=N | check-session KEY by=SESSION | check-not-exists KEY
//! do delete KEY | delete-cas KEY index=N | delete-tree PREFIX
//! do end-session ID | get-node NAME | delete-node NAME [index=N]
//! ```

use sider_core::registry::{KeyWrite, NodeName, Operation};

use crate::language::{key, session_id};

pub(crate) fn parse(line: &str) -> Operation {
    let (pairs, plain): (Vec<&str>, Vec<&str>) = line
        .split_whitespace()
        .skip(1)
        .partition(|word| word.contains('='));
    let option = |name: &str| {
        let mut found = pairs.iter().filter_map(|pair| pair.split_once('='));
        found.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let index = || option("index").expect("index=").parse().expect("a number");
    let by = || option("by").map(session_id);
    let name = plain.get(1).copied().unwrap_or_default();
    let write = || KeyWrite {
        key: key(name),
        value: plain.get(2).copied().unwrap_or_default().to_owned().into(),
        flags: option("flags").map_or(0, |flags| flags.parse().expect("a number")),
    };
    let node = || NodeName::parse(name).expect("a node name");
    match plain[0] {
        "set" => Operation::SetKey(write()),
        "cas" => Operation::SetKeyIf(write(), index()),
        "lock" => Operation::Lock(write(), by()),
        "unlock" => Operation::Unlock(write(), by()),
        "get" => Operation::GetKey(key(name)),
        "get-or-empty" => Operation::GetKeyOrEmpty(key(name)),
        "get-tree" => Operation::GetTree(key(name)),
        "check-index" => Operation::CheckIndex(key(name), index()),
        "check-session" => Operation::CheckSession(key(name), by()),
        "check-not-exists" => Operation::CheckNotExists(key(name)),
        "delete" => Operation::DeleteKey(key(name)),
        "delete-cas" => Operation::DeleteKeyIf(key(name), index()),
        "delete-tree" => Operation::DeleteTree(key(name)),
        "end-session" => Operation::DestroySession(session_id(name)),
        "get-node" => Operation::GetNode(node()),
        "delete-node" if option("index").is_some() => Operation::DeleteNodeIf(node(), index()),
        "delete-node" => Operation::DeleteNode(node()),
        other => panic!("unknown operation {other:?}"),
    }
}
