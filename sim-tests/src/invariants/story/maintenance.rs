//! Maintenance, and what the agent's API and servers tell, in a story.

use sider_core::registry::{
    CheckDefinition, CheckDefinitionUpdate, CheckId, CheckKey, CheckStatus, Command, Deregister, InstanceKey,
    Keeps, Namespace, Node, Registration,
};

use super::{Story, instance_id, shared};
use crate::{
    agent_reads::AgentAsk,
    cluster_reads::{ClusterAsk, ClusterSeen},
    content::Content,
    history::{Answer, Outcome},
    maintenance::Maintenance,
    operation::Op,
};

impl Story {
    /// A client asks the agent's API, and is told what is there now.
    pub(in crate::invariants) fn ask_agent(&mut self, ask: AgentAsk) -> u32 {
        let invoked = self.now;
        self.wait_ms(1);
        let outcome = Outcome::Done(Answer {
            index: (ask != AgentAsk::Datacenters).then_some(self.state.index.max(1)),
            told: None,
            content: Some(Content::Agent(ask.answer(&self.state))),
            refused: vec![],
        });
        self.operate(1, Op::AgentRead(ask), invoked, outcome)
    }

    /// A client asks a server about the cluster, and is told this.
    pub(in crate::invariants) fn ask_of_cluster(
        &mut self,
        server: u8,
        ask: ClusterAsk,
        seen: ClusterSeen,
    ) -> u32 {
        let invoked = self.now;
        self.wait_ms(1);
        let outcome = Outcome::Done(Answer {
            index: None,
            told: None,
            content: Some(Content::Cluster(seen)),
            refused: vec![],
        });
        self.operate(server, Op::Cluster(ask), invoked, outcome)
    }

    /// A client begins or ends maintenance, and is told what came of it.
    pub(in crate::invariants) fn maintain(&mut self, asked: Maintenance) -> u32 {
        let invoked = self.now;
        self.wait_ms(1);
        let known = asked.of.as_deref().is_none_or(|id| {
            let key = InstanceKey {
                namespace: Namespace::default(),
                node: shared(),
                id: instance_id(id),
            };
            self.state.instance(&key).is_some()
        });
        let outcome = match known {
            true => {
                self.commit(command(&asked));
                self.written()
            }
            false => Outcome::Refused {
                status: 404,
                reason: "Unknown service ID".into(),
            },
        };
        self.operate(1, Op::Maintenance(asked), invoked, outcome)
    }
}

/// What a server makes of a request.
fn command(asked: &Maintenance) -> Command {
    let id = CheckId::parse(&asked.check()).expect("a valid id");
    if !asked.begins {
        return Command::Deregister(Deregister::Check(CheckKey {
            namespace: Namespace::default(),
            node: shared(),
            id,
        }));
    }
    Command::Register(vec![Registration {
        node: Node::plain(shared(), "127.0.0.1"),
        keeps: Keeps::Node,
        instance: None,
        checks: vec![CheckDefinitionUpdate {
            id,
            namespace: Namespace::default(),
            node: shared(),
            name: "Maintenance Mode".into(),
            instance: asked.of.as_deref().map(instance_id),
            definition: CheckDefinition::default(),
            status: Some(CheckStatus::Critical),
            output: String::new(),
            notes: match &asked.reason {
                Some(reason) => reason.clone(),
                None => "Maintenance mode is enabled for this service.".into(),
            },
        }],
        replace_checks: false,
    }])
}
