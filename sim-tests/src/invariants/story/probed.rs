//! Checks that servers run, and what they find.

use serde_json::{Value, json};
use sider_core::{
    api::http::requests::{Place, parse_service, plain_node},
    registry::{CheckStatus, Command},
};

use super::{Story, shared};

impl Story {
    /// Registers an instance of `db` with this check, which servers run.
    pub(in crate::invariants) fn register_probed(&mut self, check: Value) {
        let place = Place {
            node: plain_node(shared(), "127.0.0.1"),
            namespace: None,
            scripts: false,
        };
        let body = json!({ "Name": "db", "ID": "txn-0", "Check": check });
        let registration = parse_service(&body, &place).expect("a valid registration");
        self.commit(Command::Register(vec![registration]));
    }

    /// A server finds that a check has this status.
    pub(in crate::invariants) fn find(&mut self, check: &str, status: CheckStatus, output: &str) {
        let mut command = Story::status(check, status);
        if let Command::UpdateChecks(updates) = &mut command {
            updates[0].output = Some(output.into());
        }
        self.commit(command);
    }
}
