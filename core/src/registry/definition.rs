//! How a check is run.
//!
//! What few checks say of it came later than the rest, as with `extras`: it is stored ahead of the probe, and only where
//! there is some, in the place of a kind of probe that there is not. What has none is encoded as it ever was, byte for
//! byte; a program that knows nothing of extras stops where there are some.

use std::{fmt, sync::Arc, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{
        DeserializeSeed, EnumAccess, IntoDeserializer as _, SeqAccess, VariantAccess, Visitor,
        value::EnumAccessDeserializer,
    },
    ser::SerializeStruct as _,
};

use super::{CheckId, Probe, extras::next};
use crate::limits::CHECK_OUTPUT_BYTES_MAX;

/// How a check is run. Zero durations mean "not given".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckDefinition {
    /// What to run.
    pub probe: Probe,
    /// Between two runs. A TTL check is not run: see [`CheckDefinition::ALONE`]. What an agent registered has a mark in it:
    /// see [`CheckDefinition::said_interval`].
    pub interval: Duration,
    /// Of one run.
    pub timeout: Duration,
    /// Passing results in a row before it turns passing; 0 is 1.
    pub success_before_passing: u32,
    /// Failing results in a row before it turns warning; 0 is the same as `failures_before_critical`.
    pub failures_before_warning: u32,
    /// Failing results in a row before it turns critical; 0 is 1.
    pub failures_before_critical: u32,
    /// Critical for this long, its instance is deregistered; zero is never.
    pub deregister_critical_service_after: Duration,
    /// What few checks say; `None` if there is nothing in it: see [`CheckExtras::kept`].
    pub extras: Option<Arc<CheckExtras>>,
}

/// What few checks say of how they are run. Since version 4 of commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckExtras {
    /// The name that TLS asks for and that the certificate must be of; empty for that of the address.
    pub tls_server_name: String,
    /// Whether any certificate will do.
    pub tls_skip_verify: bool,
    /// Whether a TCP check speaks TLS once it is connected.
    pub tcp_use_tls: bool,
    /// Whether an HTTP check takes a redirect for its answer.
    pub disable_redirects: bool,
    /// Bytes of output to keep at most; 0 if it was not said.
    pub output_max_size: u32,
}

impl CheckExtras {
    const NONE: CheckExtras = CheckExtras {
        tls_server_name: String::new(),
        tls_skip_verify: false,
        tcp_use_tls: false,
        disable_redirects: false,
        output_max_size: 0,
    };

    /// Them as a definition keeps them: nothing if there are none.
    pub fn kept(self) -> Option<Arc<CheckExtras>> {
        (self != CheckExtras::NONE).then(|| Arc::new(self))
    }
}

impl Default for CheckDefinition {
    fn default() -> Self {
        CheckDefinition {
            probe: Probe::External,
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
            success_before_passing: 0,
            failures_before_warning: 0,
            failures_before_critical: 0,
            deregister_critical_service_after: Duration::ZERO,
            extras: None,
        }
    }
}

impl CheckDefinition {
    /// The interval of a TTL check that was registered by itself and not with its instance. Consul shows the times of such
    /// a check even where they are zero, and nothing else tells the two apart.
    pub const ALONE: Duration = Duration::from_nanos(1);

    /// What is added to the interval of a check that an agent runs, or whose TTL it looks after. Consul shows the times of
    /// such a check and keeps its definition to itself, and nothing else tells it from one that a client registered.
    const OF_AGENT: Duration = Duration::from_nanos(2);

    /// How ids of checks begin that were registered in the short form without one. Its outcomes are judged otherwise than in
    /// Consul's form.
    pub const SHORT_FORM_ID: &str = "chk:";

    /// What is added to the interval of a check whose id does not tell its form.
    const OF_OTHER_FORM: Duration = Duration::from_nanos(4);

    /// The same, as it was registered with this id in the short form or in Consul's, at an agent's API of servers. Only what is run is
    /// judged by its form.
    #[must_use]
    pub fn in_form(mut self, id: &CheckId, is_short: bool) -> Self {
        let is_run = !matches!(self.probe, Probe::Ttl(_) | Probe::Alias { .. } | Probe::External);
        if is_run && self.is_of_short_form(id) != is_short {
            self.interval += CheckDefinition::OF_OTHER_FORM;
        }
        self
    }

    /// Whether it is one of the short form, with this id.
    pub fn is_of_short_form(&self, id: &CheckId) -> bool {
        id.as_str().starts_with(CheckDefinition::SHORT_FORM_ID) != self.is_of_other_form()
    }

    fn is_of_other_form(&self) -> bool {
        self.interval.subsec_nanos() % 1_000 == 4
    }

    /// Whether it is of a TTL check that was registered by itself.
    pub fn is_alone(&self) -> bool {
        self.ttl().is_some() && self.said_interval() == CheckDefinition::ALONE
    }

    /// Whether an agent registered it.
    pub fn is_of_agent(&self) -> bool {
        matches!(self.interval.subsec_nanos() % 1_000, 2 | 3)
    }

    /// The same, as an agent registers it.
    #[must_use]
    pub fn of_agent(mut self) -> Self {
        if !self.is_of_agent() {
            self.interval += CheckDefinition::OF_AGENT;
        }
        self
    }

    /// The interval as it was said.
    pub fn said_interval(&self) -> Duration {
        if self.is_of_agent() {
            self.interval.saturating_sub(CheckDefinition::OF_AGENT)
        } else if self.is_of_other_form() {
            self.interval.saturating_sub(CheckDefinition::OF_OTHER_FORM)
        } else {
            self.interval
        }
    }

    /// The TTL, for a TTL check.
    pub fn ttl(&self) -> Option<Duration> {
        match self.probe {
            Probe::Ttl(ttl) => Some(ttl),
            _ => None,
        }
    }

    /// What few checks say, as it is where they say nothing.
    pub fn extras(&self) -> &CheckExtras {
        static NONE: CheckExtras = CheckExtras::NONE;
        self.extras.as_deref().unwrap_or(&NONE)
    }

    /// Bytes of output that are kept: what it says, and [`CHECK_OUTPUT_BYTES_MAX`] at most.
    pub fn output_bytes_max(&self) -> usize {
        match usize::try_from(self.extras().output_max_size) {
            Ok(0) | Err(_) => CHECK_OUTPUT_BYTES_MAX,
            Ok(said) => said.min(CHECK_OUTPUT_BYTES_MAX),
        }
    }

    /// The oldest version of commands that can say it.
    pub(super) fn least_version(&self) -> u8 {
        match self.extras {
            Some(_) => 4,
            None => self.probe.least_version(),
        }
    }
}

/// Where extras are stored: the place of a kind of probe that there never will be.
const EXTRAS_FOLLOW: u32 = 127;

/// A probe with the extras ahead of it.
struct WithExtras<'a>(&'a CheckExtras, &'a Probe);

impl Serialize for WithExtras<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_variant("Probe", EXTRAS_FOLLOW, "WithExtras", &(self.0, self.1))
    }
}

impl Serialize for CheckDefinition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("CheckDefinition", 7)?;
        match &self.extras {
            Some(extras) => fields.serialize_field("probe", &WithExtras(extras, &self.probe))?,
            None => fields.serialize_field("probe", &self.probe)?,
        }
        fields.serialize_field("interval", &self.interval)?;
        fields.serialize_field("timeout", &self.timeout)?;
        fields.serialize_field("success_before_passing", &self.success_before_passing)?;
        fields.serialize_field("failures_before_warning", &self.failures_before_warning)?;
        fields.serialize_field("failures_before_critical", &self.failures_before_critical)?;
        fields.serialize_field(
            "deregister_critical_service_after",
            &self.deregister_critical_service_after,
        )?;
        fields.end()
    }
}

impl<'de> Deserialize<'de> for CheckDefinition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const FIELDS: &[&str] = &[
            "probe",
            "interval",
            "timeout",
            "success_before_passing",
            "failures_before_warning",
            "failures_before_critical",
            "deregister_critical_service_after",
        ];
        deserializer.deserialize_struct("CheckDefinition", FIELDS, DefinitionVisitor)
    }
}

struct DefinitionVisitor;

impl<'de> Visitor<'de> for DefinitionVisitor {
    type Value = CheckDefinition;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a check's definition, its fields in their order")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<CheckDefinition, A::Error> {
        let Stored(probe, extras) = next(&mut fields)?;
        Ok(CheckDefinition {
            probe,
            interval: next(&mut fields)?,
            timeout: next(&mut fields)?,
            success_before_passing: next(&mut fields)?,
            failures_before_warning: next(&mut fields)?,
            failures_before_critical: next(&mut fields)?,
            deregister_critical_service_after: next(&mut fields)?,
            extras,
        })
    }
}

/// A probe, with the extras that were stored ahead of it.
struct Stored(Probe, Option<Arc<CheckExtras>>);

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_enum("Probe", &[], StoredVisitor)
    }
}

struct StoredVisitor;

impl<'de> Visitor<'de> for StoredVisitor {
    type Value = Stored;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a probe, or extras and a probe")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Stored, A::Error> {
        let (place, content) = access.variant::<u32>()?;
        if place == EXTRAS_FOLLOW {
            let (extras, probe): (CheckExtras, Probe) = content.newtype_variant()?;
            return Ok(Stored(probe, extras.kept()));
        }
        let probe = Probe::deserialize(EnumAccessDeserializer::new(Placed { place, content }))?;
        Ok(Stored(probe, None))
    }
}

/// An enum of which the place was read already.
struct Placed<V> {
    place: u32,
    content: V,
}

impl<'de, V: VariantAccess<'de>> EnumAccess<'de> for Placed<V> {
    type Error = V::Error;
    type Variant = V;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, V), V::Error> {
        Ok((seed.deserialize(self.place.into_deserializer())?, self.content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As definitions were before they had extras.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        probe: Probe,
        interval: Duration,
        timeout: Duration,
        success_before_passing: u32,
        failures_before_warning: u32,
        failures_before_critical: u32,
        deregister_critical_service_after: Duration,
    }

    fn old(probe: Probe) -> Old {
        Old {
            probe,
            interval: Duration::from_millis(1500),
            timeout: Duration::from_secs(2),
            success_before_passing: 3,
            failures_before_warning: u32::MAX,
            failures_before_critical: 5,
            deregister_critical_service_after: Duration::from_secs(90),
        }
    }

    fn probes() -> Vec<Probe> {
        vec![
            Probe::Ttl(Duration::from_secs(15)),
            Probe::Http {
                url: "https://h/".into(),
                method: "POST".into(),
                headers: vec![("A".into(), "b".into())],
                body: "{}".into(),
            },
            Probe::Tcp("h:1".into()),
            Probe::External,
            Probe::H2ping {
                address: "h:1".into(),
                tls: true,
            },
            Probe::OsService("ssh".into()),
        ]
    }

    fn followed(bytes: &[u8]) -> Vec<u8> {
        [bytes, b"behind it"].concat()
    }

    fn read(bytes: &[u8]) -> CheckDefinition {
        let followed = followed(bytes);
        let (definition, rest) = postcard::take_from_bytes(&followed).expect("it is read");
        assert_eq!(rest, b"behind it", "it takes what is its own");
        definition
    }

    #[test]
    fn a_definition_without_extras_is_stored_as_it_ever_was() {
        for probe in probes() {
            let bytes = postcard::to_allocvec(&old(probe.clone())).expect("it is written");
            let definition = read(&bytes);
            assert_eq!((&definition.probe, &definition.extras), (&probe, &None));
            assert_eq!(definition.failures_before_warning, u32::MAX);
            assert_eq!(postcard::to_allocvec(&definition).expect("it is written"), bytes);
        }
    }

    #[test]
    fn extras_come_back_and_an_older_program_stops_at_them() {
        for probe in probes() {
            let bytes = postcard::to_allocvec(&old(probe)).expect("it is written");
            let mut definition = read(&bytes);
            definition.extras = CheckExtras {
                tls_server_name: "web.internal".into(),
                tls_skip_verify: true,
                tcp_use_tls: true,
                disable_redirects: true,
                output_max_size: 100_000,
            }
            .kept();
            let bytes = postcard::to_allocvec(&definition).expect("it is written");
            assert_eq!(read(&bytes), definition);
            assert_eq!(bytes[..15], *b"\x7f\x0cweb.internal\x01");
            postcard::take_from_bytes::<Old>(&followed(&bytes)).expect_err("an older program can't read it");
            assert_eq!(definition.least_version(), 4);
        }
    }

    #[test]
    fn what_says_nothing_is_kept_as_none() {
        assert_eq!(CheckExtras::default().kept(), None);
        let odd = CheckDefinition {
            extras: Some(Arc::new(CheckExtras::default())),
            ..CheckDefinition::default()
        };
        let bytes = postcard::to_allocvec(&odd).expect("it is written");
        assert_eq!(read(&bytes), CheckDefinition::default());
        let mut unknown = bytes;
        unknown[0] = 126;
        postcard::from_bytes::<CheckDefinition>(&unknown).expect_err("there is no such probe");
    }

    #[test]
    fn outputs_are_cut_to_what_is_said_and_to_the_limit() {
        let max = |output_max_size| {
            let extras = CheckExtras {
                output_max_size,
                ..CheckExtras::default()
            };
            CheckDefinition {
                extras: extras.kept(),
                ..CheckDefinition::default()
            }
            .output_bytes_max()
        };
        assert_eq!([max(0), max(7), max(u32::MAX)], [4096, 7, 4096]);
    }
}
