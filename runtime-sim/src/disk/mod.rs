//! A simulated disk: an ordered store behind a journal, with the faults that real ones have.
//!
//! What is written is seen at once, and unsynced until a sync that began later has ended. A process crash keeps all
//! that was written (it is in the operating system's memory); a power cut keeps a prefix of the unsynced batches. A
//! batch is there as a whole or not at all: the torn end of a journal is cut off at the last whole batch. After a
//! failed sync or write, later syncs succeed without making the unsynced batches durable, as real kernels do.

mod platter;
mod trap;

use std::{
    future::{pending, poll_fn},
    io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use sider_core::runtime::{Change, Disk, DiskView, Keyspace, Runtime};

pub use self::trap::{DiskStep, Edge};
use self::{
    platter::{Image, Platter},
    trap::Trap,
};
use crate::{chance, runtime::SimRuntime, trace, world::HostId};

/// Of a million reads and writes, so many take a while; the others are answered from memory.
const SLOW_ACCESS_PPM: u32 = 40_000;
/// How long those take, in microseconds.
const SLOW_ACCESS_US: Range<u64> = 20..400;
/// How long a sync takes unless told otherwise, in microseconds.
const SYNC_US: Range<u64> = 100..2_000;

/// What a power cut leaves of the batches that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// A prefix of random length.
    Some,
    /// Nothing.
    Nothing,
    /// All of them.
    Everything,
}

/// What happens to the syncs of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncFault {
    /// They succeed.
    #[default]
    None,
    /// The next one to end fails.
    FailsOnce,
    /// All fail.
    Fails,
    /// None ends while this is set.
    Hangs,
    /// They say that they succeed and make nothing durable. No server can bear that: it proves that the judges see it.
    Lies,
}

/// A host's disk, as the process of one incarnation sees it. Its data outlives the process.
///
/// The methods of [`Disk`] fail once that process is dead; the others, which set faults, work always.
#[derive(Clone, Debug)]
pub struct SimDisk {
    platter: SharedPlatter,
    /// Operations of an earlier process are refused, however late its destructors run.
    epoch: u64,
}

/// What is behind all [`SimDisk`]s of a host.
#[derive(Clone, Debug)]
pub(crate) struct SharedPlatter(Arc<Mutex<Platter>>);

impl SharedPlatter {
    pub(crate) fn new(host: HostId) -> Self {
        SharedPlatter(Arc::new(Mutex::new(Platter::new(host, SYNC_US))))
    }

    /// The disk for the process that runs now.
    pub(crate) fn disk(&self) -> SimDisk {
        SimDisk {
            platter: self.clone(),
            epoch: self.lock().epoch,
        }
    }

    /// The process ends; the host does not.
    pub(crate) fn process_ended(&self) {
        let mut platter = self.lock();
        platter.epoch += 1;
        if platter.failed {
            // The kernel may have dropped the pages that it could not write.
            platter.keep_some();
        }
        drop_outside(platter);
    }

    /// The host loses its power.
    pub(crate) fn power_cut(&self, survival: Survival) {
        let mut platter = self.lock();
        platter.epoch += 1;
        match survival {
            Survival::Some => platter.keep_some(),
            Survival::Nothing => platter.keep(0),
            Survival::Everything => platter.keep(u64::MAX),
        }
        drop_outside(platter);
    }

    /// An access that is not answered from memory gives other tasks a turn, so that none can rely on there being none.
    async fn access(&self) {
        let (ppm, us) = {
            let platter = self.lock();
            (platter.access_ppm, platter.access_us.clone())
        };
        if chance::hits(ppm) {
            SimRuntime::sleep(Duration::from_micros(chance::within(&us))).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Releases the lock, then lets go of the wakers of syncs that hung: their tasks are dead.
fn drop_outside(mut platter: MutexGuard<'_, Platter>) {
    let hung = std::mem::take(&mut platter.hung);
    drop(platter);
    drop(hung);
}

impl SimDisk {
    /// Makes writes fail for want of space, or not.
    pub fn set_full(&self, full: bool) {
        self.platter.lock().full = full;
    }

    /// Makes the next write fail. Whether it was carried out is left to chance.
    pub fn fail_next_write(&self) {
        self.platter.lock().write_fails = true;
    }

    /// Sets what happens to syncs; those that hang go on when it is set to something else.
    pub fn set_sync_fault(&self, fault: SyncFault) {
        let hung = {
            let mut platter = self.platter.lock();
            platter.sync_fault = fault;
            std::mem::take(&mut platter.hung)
        };
        hung.into_iter().for_each(std::task::Waker::wake);
    }

    /// Sets how long a sync takes.
    pub fn set_sync_time(&self, time: Range<Duration>) {
        self.platter.lock().sync_us = micros(&time);
    }

    /// Makes one in so many million reads and writes take so long.
    pub fn set_access_time(&self, ppm: u32, time: Range<Duration>) {
        let mut platter = self.platter.lock();
        platter.access_ppm = ppm;
        platter.access_us = micros(&time);
    }

    /// Sets a trap, in place of any other: at the `nth` of these steps from now on (counted from 1) `spring` is called,
    /// and nobody is told what came of the step. `spring` is meant to end the process, so that the step is the last
    /// thing it did.
    pub fn set_trap(&self, step: DiskStep, edge: Edge, nth: u32, spring: impl FnOnce() + Send + 'static) {
        let trap = Trap {
            step,
            edge,
            left: nth.max(1),
            spring: Box::new(spring),
        };
        let before = self.platter.lock().trap.replace(trap);
        drop(before);
    }

    /// Takes the trap away, if one is set.
    pub fn clear_trap(&self) {
        let trap = self.platter.lock().trap.take();
        drop(trap);
    }

    /// Everything on it is lost: the disk was replaced by an empty one. The process that used it must have ended.
    pub fn lose_everything(&self) {
        self.platter.lock().lose_everything();
    }

    /// Ends every fault that was set, but not what came of it: what was not durable stays so.
    pub fn restore(&self) {
        {
            let mut platter = self.platter.lock();
            platter.full = false;
            platter.write_fails = false;
            platter.sync_us = SYNC_US;
            platter.access_ppm = SLOW_ACCESS_PPM;
            platter.access_us = SLOW_ACCESS_US;
        }
        self.clear_trap();
        self.set_sync_fault(SyncFault::None);
    }

    /// Batches written and not durable.
    pub fn unsynced(&self) -> u64 {
        self.platter.lock().unsynced()
    }

    /// The value under a key, if a power cut could not take it away now; `None` while a write to it is unsynced.
    pub fn durable(&self, keyspace: Keyspace, key: &[u8]) -> Option<Bytes> {
        self.platter.lock().durable(keyspace, key).cloned()
    }

    /// Pairs in a keyspace.
    pub fn len(&self, keyspace: Keyspace) -> usize {
        self.platter.lock().image.space(keyspace).len()
    }

    /// Whether nothing was ever left on it.
    pub fn is_empty(&self) -> bool {
        Keyspace::ALL.iter().all(|keyspace| self.len(*keyspace) == 0)
    }

    /// Changes a value at rest, unnoticed by any checksum; false if there is no such key. For tests of what must be
    /// detected above the disk.
    pub fn corrupt(&self, keyspace: Keyspace, key: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut platter = self.platter.lock();
        let Some(value) = platter.image.space_mut(keyspace).get_mut(key) else {
            return false;
        };
        let mut bytes = value.to_vec();
        change(&mut bytes);
        *value = bytes.into();
        true
    }

    /// Makes reads of a key fail, as a checksum of the store would.
    pub fn rot(&self, keyspace: Keyspace, key: &[u8]) {
        self.platter.lock().image.rot(keyspace, key);
    }

    /// Keys of a keyspace, for choosing what to corrupt.
    pub fn keys(&self, keyspace: Keyspace) -> Vec<Bytes> {
        self.platter
            .lock()
            .image
            .space(keyspace)
            .keys()
            .cloned()
            .collect()
    }

    /// The platter, if the process that this disk belongs to is the one that runs.
    fn open(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let platter = self.platter.lock();
        if platter.epoch == self.epoch {
            Ok(platter)
        } else {
            Err(io::Error::other("the process of this disk has ended"))
        }
    }

    fn write_now(&self, batch: Vec<Change>) -> io::Result<()> {
        let mut platter = self.open()?;
        let host = platter.host;
        let written = platter.write(batch);
        let number = platter.written;
        drop(platter);
        if let Err(error) = &written {
            trace::record("disk", &format!("{host}: write failed: {error}"));
        } else {
            trace::record_numbers("disk", &[host.index() as u64, number], || {
                format!("{host}: batch {number} written")
            });
        }
        written
    }

    /// Goes on, unless a trap is sprung here: then nothing more of this operation happens.
    async fn pass(&self, edge: Edge, is_step: impl Fn(DiskStep) -> bool) -> io::Result<()> {
        let sprung = self.open()?.sprung(edge, is_step);
        if let Some(Trap { step, spring, .. }) = sprung {
            trace::record("trap", &format!("{edge:?} {step:?}"));
            spring();
            pending::<()>().await;
        }
        Ok(())
    }

    /// Waits until syncs do not hang.
    async fn unhung(&self) -> io::Result<()> {
        poll_fn(|context| match self.open() {
            Err(error) => Poll::Ready(Err(error)),
            Ok(platter) if platter.sync_fault != SyncFault::Hangs => Poll::Ready(Ok(())),
            Ok(mut platter) => {
                platter.hung.push(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

fn micros(time: &Range<Duration>) -> Range<u64> {
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    us(time.start)..us(time.end)
}

impl Disk for SimDisk {
    type View = SimView;

    async fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Bytes>> {
        self.platter.access().await;
        self.open()?.image.get(keyspace, key)
    }

    async fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        self.platter.access().await;
        self.open()?.image.range(keyspace, from, to, limit)
    }

    async fn last(&self, keyspace: Keyspace) -> io::Result<Option<(Bytes, Bytes)>> {
        self.platter.access().await;
        self.open()?.image.last(keyspace)
    }

    async fn write(&self, batch: Vec<Change>) -> io::Result<()> {
        self.platter.access().await;
        self.pass(Edge::Before, |step| step.is_write_of(&batch)).await?;
        let is_trapped = self.open()?.trap_at(Edge::After, |step| step.is_write_of(&batch));
        self.write_now(batch)?;
        self.pass(Edge::After, |_| is_trapped).await
    }

    async fn sync(&self) -> io::Result<()> {
        self.pass(Edge::Before, |step| step == DiskStep::Sync).await?;
        let (upto, time, host) = {
            let platter = self.open()?;
            (platter.written, platter.sync_us.clone(), platter.host)
        };
        let us = chance::within(&time);
        SimRuntime::sleep(Duration::from_micros(us)).await;
        self.unhung().await?;
        let synced = self.open()?.sync(upto);
        match &synced {
            Ok(()) => trace::record_numbers("disk", &[host.index() as u64, upto, us], || {
                format!("{host}: synced up to batch {upto}")
            }),
            Err(error) => trace::record("disk", &format!("{host}: sync failed: {error}")),
        }
        if synced.is_ok() {
            self.pass(Edge::After, |step| step == DiskStep::Sync).await?;
        }
        synced
    }

    async fn view(&self) -> io::Result<SimView> {
        self.platter.access().await;
        Ok(SimView {
            platter: self.platter.clone(),
            image: self.open()?.image.clone(),
        })
    }
}

/// What a [`SimDisk`] held at one moment.
#[derive(Debug)]
pub struct SimView {
    platter: SharedPlatter,
    image: Image,
}

impl DiskView for SimView {
    async fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Bytes>> {
        self.platter.access().await;
        self.image.get(keyspace, key)
    }

    async fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        self.platter.access().await;
        self.image.range(keyspace, from, to, limit)
    }
}
