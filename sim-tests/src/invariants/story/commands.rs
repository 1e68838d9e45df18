//! What is asked for in a story: operations, and the commands that they become.

use std::time::Duration;

use sider_core::registry::{
    CheckDefinition, CheckDefinitionUpdate, CheckId, CheckKey, CheckStatus, CheckTarget, CheckUpdate,
    Command, Instance, Keeps, Namespace, Node, NodeName, Probe, Registration, ServiceName, Weights,
};

use super::{Story, TTL_MS, instance_id, shared};
use crate::operation::{Op, RegisterForm, Report, ReportForm, Service, Target, TtlCheck};

impl Story {
    /// The operation of [`Story::register`].
    pub(crate) fn register_op(id: &str, version: u32) -> Op {
        let check = TtlCheck {
            ttl_ms: TTL_MS,
            status: None,
            deregister_after_ms: 0,
        };
        Op::Register {
            form: RegisterForm::Short,
            services: vec![Service::web(id, version, vec![check])],
        }
    }

    /// The operation of [`Story::report`].
    pub(crate) fn report_op(check: &str, status: CheckStatus) -> Op {
        let report = Report {
            target: Target::Check(check.into()),
            status,
            output: None,
        };
        Op::Report {
            form: ReportForm::Path,
            reports: vec![report],
        }
    }

    /// The command for [`Story::register`].
    pub(crate) fn registration(id: &str, version: u32) -> Command {
        let service = Service::web(id, version, vec![]);
        let namespace = Namespace::default();
        let check = CheckDefinitionUpdate {
            id: CheckId::parse(&format!("chk:{id}:0")).expect("a valid id"),
            namespace: namespace.clone(),
            node: shared(),
            name: "ttl".into(),
            instance: Some(instance_id(id)),
            definition: CheckDefinition {
                probe: Probe::Ttl(Duration::from_millis(TTL_MS)),
                ..CheckDefinition::default()
            },
            status: None,
            output: String::new(),
            notes: String::new(),
        };
        let instance = Instance {
            namespace,
            node: shared(),
            id: instance_id(id),
            service: ServiceName::parse("web").expect("a valid name"),
            address: service.address(),
            port: 80,
            tags: vec![],
            meta: [("version".to_owned(), version.to_string())].into(),
            weights: Weights {
                passing: service.weights().0,
                warning: service.weights().1,
            },
            tagged_addresses: Default::default(),
            enable_tag_override: false,
            create_index: 0,
            modify_index: 0,
            extras: None,
        };
        let node = Node {
            name: shared(),
            id: String::new(),
            address: "127.0.0.1".into(),
            tagged_addresses: Default::default(),
            meta: Default::default(),
            create_index: 0,
            modify_index: 0,
            locality: None,
        };
        Command::Register(vec![Registration {
            node,
            keeps: Keeps::Node,
            instance: Some(instance),
            checks: vec![check],
            replace_checks: false,
        }])
    }

    /// A registration, on another node.
    pub(crate) fn on_node(node: &str, mut command: Command) -> Command {
        let name = NodeName::parse(node).expect("a valid name");
        if let Command::Register(registrations) = &mut command {
            for it in registrations {
                it.node.name = name.clone();
                it.checks.iter_mut().for_each(|check| check.node = name.clone());
                it.instance.iter_mut().for_each(|own| own.node = name.clone());
            }
        }
        command
    }

    /// The command for [`Story::report`].
    pub(crate) fn status(check: &str, status: CheckStatus) -> Command {
        let id = CheckId::parse(check).expect("a valid id");
        let key = CheckKey {
            namespace: Namespace::default(),
            node: shared(),
            id,
        };
        Command::UpdateChecks(vec![CheckUpdate {
            target: CheckTarget::Check(key),
            status: Some(status),
            output: None,
        }])
    }
}
