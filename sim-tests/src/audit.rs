//! What servers hold: looked at all through a run, and once more when every client has gone. In the end each server is asked
//! about everything from inside, without a network: what it would answer is judged like any other stale answer.

use std::{collections::BTreeSet, time::Duration};

use sider_core::{registry::CheckStatus, runtime::Keyspace, server::Occupancy};
use sider_runtime_sim::World;

use crate::{
    catalog_steps::Thing,
    cluster::{Client, Cluster},
    invariants::servers,
    keys::{KeyOp, Step},
    operation::{Ask, Freshness, Op},
    recorder::{Recorder, now},
    schedule::{Doing, Schedule},
    wire,
};

/// Between two looks at a server.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// When all clients have gone, a server is looked at so often, so far apart: what is on its way must arrive.
const LAST_LOOKS: u32 = 4;
const LAST_LOOK_EVERY: Duration = Duration::from_millis(150);
/// Timers of a server that has nobody to wait for, at most.
const OWN_TIMERS_MAX: usize = 24;
/// The client that asks in the end.
pub const AUDITOR: u8 = 200;

/// Looks at all servers for ever.
pub async fn watch(world: World, cluster: Cluster, recorder: Recorder) {
    loop {
        look(&world, &cluster, &recorder, false);
        world.sleep(LOOK_EVERY).await;
    }
}

/// Looks at all servers when no client is there any more, and asks each about everything.
pub async fn conclude(world: &World, cluster: &Cluster, schedule: &Schedule, recorder: &Recorder) {
    let client = cluster.client("auditor");
    let asks = asks(schedule);
    for server in 0..cluster.len() {
        // One that stands still for good would never answer.
        if cluster.server(server).is_some() && !cluster.host(server).is_paused() {
            ask_all(world, cluster, &client, server, &asks, recorder).await;
        }
    }
    for _ in 0..LAST_LOOKS {
        world.sleep(LAST_LOOK_EVERY).await;
        look(world, cluster, recorder, true);
        (0..cluster.len()).for_each(|number| look_at_disk(world, cluster, recorder, number));
    }
}

fn look(world: &World, cluster: &Cluster, recorder: &Recorder, alone: bool) {
    for number in 0..cluster.len() {
        if let Some(server) = cluster.server(number) {
            let mut occupied = server.occupancy();
            occupied.push(timers(cluster.host(number).timers()));
            recorder.holds(now(world), number, &occupied, alone);
        }
    }
}

/// Looks for checkpoints on a disk beside the newest one: a snapshot takes the place of what was there before.
fn look_at_disk(world: &World, cluster: &Cluster, recorder: &Recorder, number: usize) {
    if cluster.server(number).is_none() {
        return;
    }
    let rows = cluster.host(number).disk().keys(Keyspace::State);
    let generations: BTreeSet<_> = rows.iter().map(|key| key.get(..8).map(<[u8]>::to_vec)).collect();
    let outdated = Occupancy {
        what: "checkpoints that were replaced",
        used: generations.len().saturating_sub(1),
        limit: 1,
        passing: true,
    };
    recorder.holds(now(world), number, &[outdated], true);
}

/// Those that are more than a server needs for itself.
fn timers(count: usize) -> Occupancy {
    Occupancy {
        what: "timers for others",
        used: count.saturating_sub(OWN_TIMERS_MAX),
        limit: usize::MAX,
        passing: true,
    }
}

async fn ask_all(
    world: &World,
    cluster: &Cluster,
    client: &Client,
    number: usize,
    asks: &[Ask],
    recorder: &Recorder,
) {
    let server = u8::try_from(number).expect("there are few servers");
    let reads = asks.iter().map(|ask| Op::Read {
        ask: ask.clone(),
        freshness: Freshness::Stale,
    });
    // A file of the whole state shows what no answer does: counts of renewals, delays of locks, versions of keys.
    for op in reads.chain([Op::Save]) {
        // It runs on the server's host, by its clock.
        let (inside, request) = (cluster.clone(), wire::request(&op));
        let id = recorder.invoked(world, AUDITOR, server, &op, Duration::from_secs(10));
        let answer = cluster
            .host(number)
            .spawn(async move { inside.ask_inside(number, request).await })
            .await;
        let outcome = match answer {
            Ok(Some(answer)) => wire::outcome(&op, Ok(answer)),
            _ => crate::history::Outcome::Failed("it is down".into()),
        };
        let heard = Some(client.heard_by(number));
        recorder.returned(world, id, outcome, heard);
    }
}

/// All that can be asked about what a schedule's clients name.
fn asks(schedule: &Schedule) -> Vec<Ask> {
    let mut services = BTreeSet::from(["alive".to_owned(), "nobody-ever-registered-it".to_owned()]);
    let mut tags = BTreeSet::new();
    let mut nodes = BTreeSet::from([crate::matching::SHARED_NODE.to_owned()]);
    nodes.extend(schedule.agents().map(|(number, _)| crate::agency::node(number)));
    services.extend(schedule.agents().map(|_| "job".to_owned()));
    if schedule.cluster.servers_listed {
        nodes.extend((0..schedule.cluster.servers).map(|server| format!("s{server}")));
        services.insert(servers::SERVICE.to_owned());
    }
    for action in &schedule.actions {
        let Doing::Chain(ops) = &action.what else { continue };
        for (_, op) in ops {
            match op {
                Op::Register { services: all, .. } => {
                    services.extend(all.iter().map(|it| it.name.clone()));
                    tags.extend(all.iter().flat_map(|it| it.tags.iter().cloned()));
                }
                Op::Keys(KeyOp::Transact(steps)) => {
                    for step in steps {
                        let Step::Catalog(step) = step else { continue };
                        if let Thing::Instance { service, .. } = &step.thing {
                            services.insert(service.clone());
                        }
                        nodes.insert(step.thing.node().to_owned());
                    }
                }
                Op::CatalogRegister(entry) => {
                    nodes.insert(entry.node.clone());
                    services.extend(entry.service.iter().map(|(_, name, _)| name.clone()));
                }
                _ => {}
            }
        }
    }
    let prepares = schedule.actions.iter().any(|action| {
        matches!(&action.what, Doing::Chain(ops) if ops.iter().any(|(_, op)| matches!(op, Op::Prepared(_))))
    });
    let mut asks = asked(schedule);
    asks.extend([Ask::Services, Ask::Nodes, Ask::ChecksInState(None)]);
    asks.extend(prepares.then_some(Ask::Queries));
    asks.extend(schedule.cluster.servers_listed.then_some(Ask::Roots));
    asks.extend(CheckStatus::ALL.map(|status| Ask::ChecksInState(Some(status))));
    let node_services = |node: &String| Ask::NodeServices {
        node: node.clone(),
        list: false,
    };
    asks.extend(nodes.iter().map(node_services));
    asks.extend(nodes.into_iter().map(Ask::NodeChecks));
    // All tags must match, in whatever case.
    let tags: Vec<String> = tags.into_iter().collect();
    let mut filters: Vec<Vec<String>> = tags.windows(2).map(<[String]>::to_vec).collect();
    filters.extend(tags.first().map(|tag| vec![tag.to_uppercase()]));
    for service in services {
        for tags in &filters {
            asks.push(Ask::Health {
                service: service.clone(),
                passing: false,
                tags: tags.clone(),
            });
        }
        let health = |passing| Ask::Health {
            service: service.clone(),
            passing,
            tags: vec![],
        };
        asks.extend([
            health(false),
            health(true),
            Ask::CatalogService {
                service: service.clone(),
                tags: vec![],
            },
            Ask::ServiceChecks(service.clone()),
        ]);
    }
    asks
}

/// What clients ask about keys, sessions and the other namespace.
fn asked(schedule: &Schedule) -> Vec<Ask> {
    let mut asks: Vec<Ask> = Vec::new();
    let mut add = |ask: &Ask| {
        let more = matches!(
            ask,
            Ask::Key(_) | Ask::KeyTree(_) | Ask::KeyNames(_) | Ask::Sessions | Ask::Elsewhere(_)
        );
        if more && !asks.contains(ask) {
            asks.push(ask.clone());
        }
    };
    for action in &schedule.actions {
        match &action.what {
            Doing::Chain(ops) => ops.iter().for_each(|(_, op)| match op {
                Op::Read { ask, .. } | Op::Wait { ask, .. } => add(ask),
                _ => {}
            }),
            Doing::Follow { ask, .. } | Doing::Stream { ask, .. } => add(ask),
        }
    }
    asks
}
