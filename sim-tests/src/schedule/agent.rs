//! What happens to an agent, to its host, and to what it probes; and what its services ask of it.

use std::fmt;

use serde::{Deserialize, Serialize};
use sider_core::registry::CheckStatus;

use super::{Kept, Who};

/// What happens to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentPlan {
    /// When it is started.
    pub start_ms: u64,
    /// When it crashes, and how long it stays down.
    pub crashes: Vec<(u64, u64)>,
    /// When what it probes turns bad, or good again.
    pub flips_ms: Vec<u64>,
    /// When what it probes is otherwise for so short that no more than one probe can meet it.
    #[serde(default)]
    pub blips_ms: Vec<u64>,
    /// What is asked of it through its own API, one after the other.
    #[serde(default)]
    pub orders: Vec<Order>,
    /// What its services report to it, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reports: Vec<Report>,
    /// What else it is asked about itself, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<Asked>,
    /// Whether it compares seldom, as in production: then it has to know by itself when something may have gone wrong.
    #[serde(default, skip_serializing_if = "is_default")]
    pub seldom: bool,
    /// When it is told to read its configuration again, in which there is a service more the first time, and one less the
    /// next time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reloads_ms: Vec<u64>,
    /// What else befalls it and its host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<Befall>,
}

/// What somebody on an agent's machine asks of the agent, and does not ask again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// When.
    pub at_ms: u64,
    /// What.
    pub what: Question,
}

/// What an agent is asked about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Question {
    /// Which instances it has: `/v1/agent/services`.
    Services,
    /// How its checks are: `/v1/agent/checks`.
    Checks,
    /// How healthy an instance of its own is.
    Health(String),
}

/// What a service on an agent's machine asks of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// When.
    pub at_ms: u64,
    /// The instance that is registered or deregistered, or of which a check is.
    pub id: String,
    /// Its port; none to deregister it, or its check.
    pub port: Option<u16>,
    /// What the check is that is registered.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sort: Sort,
    /// What is registered or deregistered.
    #[serde(default, skip_serializing_if = "is_default")]
    pub subject: Subject,
}

/// What an [`Order`] is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// The instance, with its check.
    #[default]
    Instance,
    /// The instance, with its check in place of all that it has.
    Replacement,
    /// Another check of the instance.
    Check,
    /// A check of the node.
    NodeCheck,
}

/// Sorts of checks that an agent runs, or is told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sort {
    /// A request.
    #[default]
    Http,
    /// A connection.
    Tcp,
    /// A program, by Consul's rules: it warns with 1.
    Command,
    /// Its service reports on it.
    Ttl,
    /// It always fails, and takes its instance away when it has failed for long enough.
    Fatal,
    /// A request that takes its instance away when it has failed for long enough, which it never does.
    Fleeting,
    /// It is as the configured and probed service is.
    Alias,
}

/// What a service tells the agent of its TTL check, once, whether that is answered or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// When.
    pub at_ms: u64,
    /// The instance.
    pub id: String,
    /// How it is.
    pub status: CheckStatus,
}

/// Something that befalls an agent or its host. All of it ends when everything is healed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Befall {
    /// When it begins.
    pub at_ms: u64,
    /// How long it lasts.
    pub for_ms: u64,
    /// What it is.
    pub what: AgentTrouble,
}

/// What befalls an agent or its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum AgentTrouble {
    /// It is told to stop, and started again in the end.
    Stop,
    /// Its host loses its power and gets it back in the end.
    PowerCut(Kept),
    /// Its process stands still.
    Pause,
    /// It and servers don't reach each other.
    CutOff {
        /// From whom it is cut off.
        from: Who,
        /// In which way.
        way: Way,
    },
    /// Syncs take so many milliseconds.
    SlowSync(u64),
    /// Syncs do not end.
    HungSync,
    /// The next sync fails.
    FailedSync,
    /// Every sync fails.
    DeadSync,
    /// The next write fails.
    FailedWrite,
    /// The disk is full.
    FullDisk,
    /// The clock runs wrong by so many millionths.
    Drift(i32),
    /// The wall clock jumps by so many milliseconds. This excuses nothing.
    WallJump(i64),
}

/// Which messages between an agent and servers don't arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// None; connections can't be made.
    Both,
    /// Those of the agent.
    Mute,
    /// Those of the servers.
    Deaf,
    /// None, but connections stay up.
    BlackHole,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl AgentTrouble {
    /// Whether a correct agent may show it.
    pub fn disturbs(&self) -> bool {
        !matches!(self, AgentTrouble::WallJump(_))
    }

    /// Whether an agent may take nothing more on until it is started again.
    pub fn may_fail(&self) -> bool {
        matches!(
            self,
            AgentTrouble::FailedSync
                | AgentTrouble::DeadSync
                | AgentTrouble::FailedWrite
                | AgentTrouble::FullDisk
        )
    }
}

impl AgentPlan {
    /// By how much the host's clock ever runs fast, in parts per million.
    pub fn fast_ppm_max(&self) -> u32 {
        let drifts = self.troubles.iter().map(|it| match it.what {
            AgentTrouble::Drift(ppm) => u32::try_from(ppm).unwrap_or(0),
            _ => 0,
        });
        drifts.max().unwrap_or(0)
    }
}

impl fmt::Display for AgentPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seldom = if self.seldom { ", compares seldom" } else { "" };
        writeln!(f, "starts at {} ms{seldom}", self.start_ms)?;
        for (at, for_ms) in &self.crashes {
            writeln!(f, "  {at:>6} ms for {for_ms:>5} ms: it crashes")?;
        }
        for it in &self.troubles {
            writeln!(f, "  {:>6} ms for {:>5} ms: {}", it.at_ms, it.for_ms, it.what)?;
        }
        for at in &self.flips_ms {
            writeln!(f, "  {at:>6} ms: what it probes is otherwise from now on")?;
        }
        for at in &self.blips_ms {
            writeln!(f, "  {at:>6} ms: what it probes is otherwise for a moment")?;
        }
        for order in &self.orders {
            writeln!(f, "  {:>6} ms: it is to {order}", order.at_ms)?;
        }
        for at in &self.reloads_ms {
            writeln!(f, "  {at:>6} ms: it is told to read its configuration again")?;
        }
        for ask in &self.asks {
            writeln!(f, "  {:>6} ms: it is asked {}", ask.at_ms, ask.what)?;
        }
        for report in &self.reports {
            writeln!(
                f,
                "  {:>6} ms: {} reports {}",
                report.at_ms,
                report.id,
                report.status.as_str()
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Question::Services => f.write_str("for its instances"),
            Question::Checks => f.write_str("for its checks"),
            Question::Health(id) => write!(f, "how healthy {id} is"),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Order { id, sort, .. } = self;
        let what = match self.subject {
            Subject::Instance => id.clone(),
            Subject::Replacement => format!("{id} in place of what it had"),
            Subject::Check => format!("another check of {id}"),
            Subject::NodeCheck => "a check of the node".to_owned(),
        };
        match self.port {
            None => write!(f, "deregister {what}"),
            Some(port) => write!(f, "register {what} at port {port}, check: {sort:?}"),
        }
    }
}

impl fmt::Display for AgentTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AgentTrouble::Stop => f.write_str("it is told to stop"),
            AgentTrouble::PowerCut(kept) => {
                write!(f, "its host loses power; of what was unsynced stays {kept}")
            }
            AgentTrouble::Pause => f.write_str("it stands still"),
            AgentTrouble::CutOff { from, way } => match way {
                Way::Both => write!(f, "it is cut off from {from}"),
                Way::Mute => write!(f, "it is not heard by {from}"),
                Way::Deaf => write!(f, "it does not hear {from}"),
                Way::BlackHole => write!(f, "it keeps its connections to {from}, but nothing passes"),
            },
            AgentTrouble::SlowSync(ms) => write!(f, "its syncs take {ms} ms"),
            AgentTrouble::HungSync => f.write_str("its syncs hang"),
            AgentTrouble::FailedSync => f.write_str("its next sync fails"),
            AgentTrouble::DeadSync => f.write_str("its syncs fail"),
            AgentTrouble::FailedWrite => f.write_str("its next write fails"),
            AgentTrouble::FullDisk => f.write_str("its disk is full"),
            AgentTrouble::Drift(ppm) => write!(f, "its clock is wrong by {ppm} ppm"),
            AgentTrouble::WallJump(ms) => write!(f, "its wall clock jumps by {ms} ms"),
        }
    }
}
