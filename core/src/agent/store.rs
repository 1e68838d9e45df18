//! What an agent keeps on its disk: the registrations made through its API, as they came; the namespaces in which it ever
//! had something, so that it finds there what it has to remove; and, from when it is stopped until it is started again, what
//! services last reported.

use std::{
    collections::BTreeSet,
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    registry::{CheckKey, CheckStatus, InstanceKey, Namespace},
    runtime::{Change, Disk, Keyspace},
};

/// The version of the records. A record of a newer version is an error: an older agent must not drop it.
const VERSION: u32 = 1;
/// Records read at a time.
const PAGE: usize = 256;
const KEYSPACE: Keyspace = Keyspace::State;

/// A registration as it came through the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// Tells which of two registrations came later.
    #[serde(default)]
    sequence: u64,
    /// The namespace that the request named outside of its body.
    pub(super) namespace: Option<Namespace>,
    /// Its body.
    pub(super) body: String,
}

/// What a service last reported on a TTL check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    version: u32,
    /// Of which check.
    pub(super) check: CheckKey,
    /// What it said.
    pub(super) status: CheckStatus,
    /// Its output.
    pub(super) output: String,
    /// When its TTL ends, in milliseconds of the wall clock since 1970.
    pub(super) expires_ms: u64,
}

/// Everything kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// Registrations of services, with their keys on the disk, in the order in which they came.
    pub(super) services: Vec<(Bytes, Record)>,
    /// Registrations of single checks.
    pub(super) checks: Vec<(Bytes, Record)>,
    /// Reports on TTL checks from before the agent was stopped.
    pub(super) reports: Vec<(Bytes, Report)>,
    /// Namespaces.
    pub(super) namespaces: BTreeSet<Namespace>,
}

/// The records.
#[derive(Debug)]
pub(super) struct Store<D> {
    disk: D,
    /// The sequence of the next record.
    next: AtomicU64,
    /// After a failure nothing is known about what was written: nothing more is accepted.
    failed: AtomicBool,
}

impl<D: Disk> Store<D> {
    /// Opens the records and reads them all.
    ///
    /// # Errors
    /// The disk fails, or a record can't be read.
    pub(super) async fn open(disk: D) -> io::Result<(Self, Stored)> {
        let mut stored = Stored::default();
        let mut from = Bytes::new();
        loop {
            let page = disk.range(KEYSPACE, &from, None, PAGE).await?;
            let Some((last, _)) = page.last() else {
                break;
            };
            // The next key there can be.
            from = [last, &b"\0"[..]].concat().into();
            for (key, value) in page {
                stored.take(key, &value)?;
            }
        }
        let Stored { services, checks, .. } = &mut stored;
        services.sort_by_key(|(_, record)| record.sequence);
        checks.sort_by_key(|(_, record)| record.sequence);
        let last = services.iter().chain(checks.iter());
        let last = last.map(|(_, record)| record.sequence).max();
        let store = Store {
            disk,
            next: AtomicU64::new(last.unwrap_or(0) + 1),
            failed: AtomicBool::new(false),
        };
        Ok((store, stored))
    }

    /// Makes changes, all or none, and durable.
    ///
    /// # Errors
    /// The disk fails, or did so before.
    pub(super) async fn write(&self, batch: Vec<Change>) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if self.failed.load(Ordering::Relaxed) {
            return Err(io::Error::other(
                "the data directory failed before: nothing is accepted until the agent is started again",
            ));
        }
        let result = match self.disk.write(batch).await {
            Ok(()) => self.disk.sync().await,
            Err(error) => Err(error),
        };
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Keeps a service's registration, and that its namespace is in use.
    pub(super) fn put_service(
        &self,
        key: &InstanceKey,
        namespace: Option<&Namespace>,
        body: &Value,
    ) -> [Change; 2] {
        [
            self.put(service_key(key), namespace, body),
            put_namespace(&key.namespace),
        ]
    }

    /// Keeps a check's registration.
    pub(super) fn put_check(&self, key: &CheckKey, namespace: Option<&Namespace>, body: &Value) -> Change {
        self.put(check_key(key), namespace, body)
    }

    fn put(&self, key: Bytes, namespace: Option<&Namespace>, body: &Value) -> Change {
        let record = Record {
            version: VERSION,
            sequence: self.next.fetch_add(1, Ordering::Relaxed),
            namespace: namespace.cloned(),
            body: body.to_string(),
        };
        let value = serde_json::to_vec(&record).expect("texts and numbers are always JSON");
        Change::Put(KEYSPACE, key, value.into())
    }
}

/// Keeps that a namespace is in use.
pub(super) fn put_namespace(namespace: &Namespace) -> Change {
    Change::Put(
        KEYSPACE,
        record_key(b'n', namespace, ""),
        Bytes::from_static(b"1"),
    )
}

/// Keeps a report on a TTL check, until that moment of the wall clock.
pub(super) fn put_report(check: CheckKey, status: CheckStatus, output: String, expires_ms: u64) -> Change {
    let key = record_key(b't', &check.namespace, check.id.as_str());
    let report = Report {
        version: VERSION,
        check,
        status,
        output,
        expires_ms,
    };
    let value = serde_json::to_vec(&report).expect("texts and numbers are always JSON");
    Change::Put(KEYSPACE, key, value.into())
}

/// Drops that a namespace is in use.
pub(super) fn remove_namespace(namespace: &Namespace) -> Change {
    remove(record_key(b'n', namespace, ""))
}

/// Drops a service's registration.
pub(super) fn remove_service(key: &InstanceKey) -> Change {
    remove(service_key(key))
}

/// Drops a check's registration.
pub(super) fn remove_check(key: &CheckKey) -> Change {
    remove(check_key(key))
}

/// Drops a record by its key on the disk.
pub(super) fn remove(key: Bytes) -> Change {
    Change::Delete(KEYSPACE, key)
}

impl Stored {
    fn take(&mut self, key: Bytes, value: &Bytes) -> io::Result<()> {
        let corrupt = |reason: String| {
            let key = String::from_utf8_lossy(&key);
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("record {key:?} of the agent's data directory can't be read: {reason}"),
            )
        };
        let readable = |version: u32| match version > VERSION {
            true => Err(corrupt(format!(
                "it has version {version}; this agent reads up to {VERSION}"
            ))),
            false => Ok(()),
        };
        let record = || -> io::Result<Record> {
            let record: Record = serde_json::from_slice(value).map_err(|error| corrupt(error.to_string()))?;
            readable(record.version)?;
            Ok(record)
        };
        match key.first() {
            Some(b's') => self.services.push((key.clone(), record()?)),
            Some(b'c') => self.checks.push((key.clone(), record()?)),
            Some(b't') => {
                let report: Report =
                    serde_json::from_slice(value).map_err(|error| corrupt(error.to_string()))?;
                readable(report.version)?;
                self.reports.push((key.clone(), report));
            }
            Some(b'n') => {
                let name = key[1..].strip_suffix(b"\0").unwrap_or(&key[1..]);
                let name = std::str::from_utf8(name).map_err(|error| corrupt(error.to_string()))?;
                let namespace = Namespace::parse(name).map_err(|error| corrupt(error.to_string()))?;
                self.namespaces.insert(namespace);
            }
            _ => return Err(corrupt("it is of no known kind".into())),
        }
        Ok(())
    }
}

/// Names have no control characters, so the zero byte separates them.
fn record_key(kind: u8, namespace: &Namespace, id: &str) -> Bytes {
    [&[kind], namespace.as_str().as_bytes(), b"\0", id.as_bytes()]
        .concat()
        .into()
}

fn service_key(key: &InstanceKey) -> Bytes {
    record_key(b's', &key.namespace, key.id.as_str())
}

fn check_key(key: &CheckKey) -> Bytes {
    record_key(b'c', &key.namespace, key.id.as_str())
}
