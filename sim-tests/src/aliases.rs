//! Checks that take on the status of something else, worked out from a state as plainly as can be.

use sider_core::registry::{Check, CheckDefinition, CheckStatus, Instance, Namespace, Probe};

use crate::{model::State, own_checks::Alias};

/// What a check is an alias of.
pub fn alias_of(definition: &CheckDefinition) -> Option<Alias> {
    match &definition.probe {
        Probe::Alias { node, instance } => Some(Alias {
            node: node.clone(),
            instance: instance.clone(),
        }),
        _ => None,
    }
}

/// Whether a definition asks for this.
pub fn is_alias_of(definition: &CheckDefinition, alias: &Alias) -> bool {
    alias_of(definition).as_ref() == Some(alias)
}

/// The status that an alias must take on in a state, and what it may say of it: several are equally bad.
pub fn followed(state: &State, own: &Check, alias: &Alias) -> (CheckStatus, Vec<String>) {
    let node = match alias.node.as_str() {
        "" => own.node.as_str(),
        node => node,
    };
    let is_it = |it: &Instance| {
        it.node.as_str() == node && it.id.as_str() == alias.instance && it.namespace == own.namespace
    };
    let gone = |what: String| (CheckStatus::Critical, vec![what]);
    if !alias.instance.is_empty() && !state.instances.iter().any(|it| is_it(it)) {
        return gone(format!(
            "Service {} could not be found on node {node}",
            alias.instance
        ));
    }
    if alias.instance.is_empty() && !state.nodes.iter().any(|it| it.name.as_str() == node) {
        return gone(format!("Node {node} could not be found"));
    }
    let counts = |check: &Check| match &check.instance {
        None => check.namespace == Namespace::default(),
        Some(of) => of.as_str() == alias.instance && check.namespace == own.namespace,
    };
    let checks: Vec<_> = state
        .checks
        .iter()
        .filter(|check| check.node.as_str() == node && counts(check) && check.key() != own.key())
        .collect();
    match checks.iter().map(|check| check.status).max() {
        None => (CheckStatus::Passing, vec!["No checks found.".to_owned()]),
        Some(CheckStatus::Passing) => (CheckStatus::Passing, vec!["All checks passing.".to_owned()]),
        Some(worst) => {
            let bad = checks.iter().filter(|check| check.status == worst);
            let said = bad.map(|it| format!("Aliased check {:?} failing: {}", it.name, it.output));
            (worst, said.collect())
        }
    }
}
