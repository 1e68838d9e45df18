//! What an agent sends on to servers, and what it keeps of their answers.

use crate::{
    agency,
    agent_reads::AgentAsk,
    history::ServerNumber,
    keys::KeyOp,
    operation::{Ask, Freshness, Op, RegisterForm, ReportForm},
    schedule::{Doing, Schedule},
    wire::read_path,
};

/// Whether an agent sends it on to a server. What else there is it answers itself, for its own host, or not at all.
pub fn is_sent_on(op: &Op) -> bool {
    match op {
        Op::Register { form, .. } => *form == RegisterForm::Batch,
        Op::Report { form, .. } => *form == ReportForm::Batch,
        Op::AgentRead(ask) => *ask == AgentAsk::Datacenters,
        Op::CatalogRegister(_)
        | Op::CatalogDeregister { .. }
        | Op::Keys(_)
        | Op::Prepared(_)
        | Op::Autopilot(_)
        | Op::Read { .. }
        | Op::Wait { .. }
        | Op::Save
        | Op::Restore { .. } => true,
        // Which server is asked matters of these.
        Op::Cluster(_) => false,
        Op::Deregister { .. } | Op::DeregisterCheck { .. } | Op::RegisterCheck(_) | Op::Maintenance(_) => {
            false
        }
    }
}

/// Whether an agent keeps answers to it.
pub fn is_kept(ask: &Ask) -> bool {
    let path = read_path(ask, Freshness::Default, None);
    path.starts_with("/v1/catalog/") || path.starts_with("/v1/health/")
}

/// What servers get to see of an operation: an agent names its own node for a session that names none, and as what is near.
pub fn understood(server: u8, op: &Op) -> Op {
    let mut op = op.clone();
    let Some(agent) = ServerNumber(server).agent() else {
        return op;
    };
    match &mut op {
        Op::Keys(KeyOp::CreateSession(new)) if new.node.is_empty() => new.node = agency::node(agent),
        Op::Read { ask, .. } | Op::Wait { ask, .. } => {
            if let Some(near) = ask.near_mut() {
                *near = agency::node(agent);
            }
        }
        _ => {}
    }
    op
}

impl Schedule {
    /// Leaves out what is asked of agents that there are not.
    pub fn ask_nobody_who_is_missing(&mut self) {
        let agents: Vec<usize> = self.agents().map(|(number, _)| number).collect();
        let is_there = |server: &u8| {
            ServerNumber(*server)
                .agent()
                .is_none_or(|it| agents.contains(&it))
        };
        self.actions.retain_mut(|action| match &mut action.what {
            Doing::Chain(ops) => {
                ops.retain(|(server, _)| is_there(server));
                !ops.is_empty()
            }
            Doing::Follow { servers, .. } | Doing::Stream { servers, .. } => {
                servers.retain(is_there);
                !servers.is_empty()
            }
        });
    }
}
