//! A cluster of whole members, on a network and disks of these tests.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Backwards, Notes, address, id,
    platform::{TestDisk, TestNetwork, TestRuntime, TestWorld},
    register,
};
use crate::raft::{Consensus, RaftConfig, RaftNode, StartError};

/// A member with what it told.
pub(crate) struct Member {
    pub(crate) node: RaftNode<TestRuntime>,
    pub(crate) disk: TestDisk,
    pub(crate) observed: Arc<Notes>,
    pub(crate) listened: Arc<Notes>,
}

impl Member {
    pub(crate) fn digest(&self) -> u128 {
        self.node.registry().read().unwrap().digest()
    }
}

pub(crate) fn config(name: &str) -> RaftConfig {
    RaftConfig::new(id(name), address(name))
}

pub(crate) async fn start(
    config: RaftConfig,
    disk: TestDisk,
    network: TestNetwork,
) -> Result<Member, StartError> {
    let (observed, listened) = (Arc::new(Notes::default()), Arc::new(Notes::default()));
    let node = RaftNode::start(
        config,
        disk.clone(),
        network,
        listened.clone(),
        Arc::new(Backwards),
        observed.clone(),
    )
    .await?;
    Ok(Member {
        node,
        disk,
        observed,
        listened,
    })
}

/// Waits until something is so, for ten seconds of the paused clock.
pub(crate) async fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    for _ in 0..10_000 {
        if let Some(found) = check() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never: {what}");
}

/// Members by name, on one network.
pub(crate) struct Cluster {
    pub(crate) world: TestWorld,
    pub(crate) members: BTreeMap<String, Member>,
    pub(crate) settings: fn(RaftConfig) -> RaftConfig,
}

impl Cluster {
    /// Three members that know each other.
    pub(crate) async fn of_three() -> Cluster {
        let cluster = Cluster::new(&["a", "b", "c"], |config| config).await;
        cluster.initialize(&["a", "b", "c"]).await;
        cluster
    }

    pub(crate) async fn new(names: &[&str], settings: fn(RaftConfig) -> RaftConfig) -> Cluster {
        let mut cluster = Cluster {
            world: TestWorld::with_jitter(),
            members: BTreeMap::new(),
            settings,
        };
        for name in names {
            cluster.start(name, TestDisk::default()).await;
        }
        cluster
    }

    pub(crate) async fn initialize(&self, names: &[&str]) {
        let members = names.iter().map(|name| (id(name), address(name))).collect();
        self.members[names[0]].node.initialize(members).await.unwrap();
        self.leader().await;
    }

    pub(crate) async fn start(&mut self, name: &str, disk: TestDisk) {
        let config = (self.settings)(config(name));
        let network = self.world.network(&address(name).raft);
        let member = start(config, disk, network).await.unwrap();
        self.members.insert(name.to_string(), member);
    }

    /// Ends a member as a crash of its process would, and gives its disk.
    pub(crate) fn crash(&mut self, name: &str) -> TestDisk {
        let member = self.members.remove(name).unwrap();
        self.world.unplug(&address(name).raft);
        member.disk.after_crash()
    }

    pub(crate) fn member(&self, name: &str) -> &Member {
        &self.members[name]
    }

    /// The name of the one that leads and can confirm it.
    pub(crate) async fn leader(&self) -> String {
        self.leader_among(&self.members.keys().cloned().collect::<Vec<_>>())
            .await
    }

    pub(crate) async fn leader_among(&self, names: &[String]) -> String {
        for _ in 0..1_000 {
            for name in names {
                if self.member(name).node.read_index().await.is_ok() {
                    return name.clone();
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody leads");
    }

    pub(crate) fn others(&self, name: &str) -> Vec<String> {
        let mut names: Vec<String> = self.members.keys().cloned().collect();
        names.retain(|other| other != name);
        names
    }

    /// Proposes at the leader and waits for it to be applied there.
    pub(crate) async fn write(&self, numbers: std::ops::Range<u64>) -> u64 {
        let leader = self.leader().await;
        let node = &self.member(&leader).node;
        let proposals = numbers.map(|number| node.propose(register(number)));
        let results = futures_util::future::join_all(proposals).await;
        results
            .into_iter()
            .map(|result| result.unwrap().log_index)
            .max()
            .unwrap_or(0)
    }

    /// Waits until all have applied an entry, and sees that they agree.
    pub(crate) async fn agree_at(&self, log_index: u64) {
        for member in self.members.values() {
            member.node.wait_applied(log_index).await.unwrap();
        }
        let digests: Vec<u128> = self.members.values().map(Member::digest).collect();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:x?}");
    }
}
