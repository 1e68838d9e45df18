//! A platform for the tests of this module: Tokio on one thread with paused time, a disk that can be stopped and loses
//! what was not synced, a network with jitter and cuts.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    ops::Range,
    pin::Pin,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;

use crate::runtime::{
    Change, Disk, DiskView, Instant, Keyspace, Network, NetworkError, PeerHandler, Probe, ProbeOutcome,
    Prober, Runtime, TaskFailed,
};

/// Tokio, as far as these tests need it.
#[derive(Clone, Debug)]
pub(crate) struct TestRuntime;

pub(crate) struct TestTask<T>(tokio::task::JoinHandle<T>);

impl<T> Future for TestTask<T> {
    type Output = Result<T, TaskFailed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0
            .poll_unpin(context)
            .map(|result| result.map_err(|error| TaskFailed(error.to_string())))
    }
}

impl Runtime for TestRuntime {
    type Sleep = tokio::time::Sleep;
    type Task<T: Send + 'static> = TestTask<T>;
    type Disk = TestDisk;
    type Network = TestNetwork;
    type Prober = NoProber;

    fn now() -> Instant {
        static ORIGIN: LazyLock<tokio::time::Instant> = LazyLock::new(tokio::time::Instant::now);
        // Tests run side by side, each in its own paused time: some are behind the origin that another set.
        let origin = *ORIGIN - Duration::from_secs(3_600);
        let since = tokio::time::Instant::now().saturating_duration_since(origin);
        Instant(u64::try_from(since.as_nanos()).expect("tests end within centuries"))
    }

    fn wall_ms() -> u64 {
        0
    }

    fn sleep_until(deadline: Instant) -> Self::Sleep {
        tokio::time::sleep(deadline.saturating_since(Self::now()))
    }

    fn spawn<F>(future: F) -> TestTask<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        TestTask(tokio::runtime::Handle::current().spawn(future))
    }

    fn random_u64() -> u64 {
        // SplitMix64 of a counter: different each time is all that is asked of it here.
        static COUNTER: AtomicU64 = AtomicU64::new(1);
        let seed = COUNTER.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Probes nothing.
#[derive(Clone)]
pub(crate) struct NoProber;

impl Prober for NoProber {
    async fn probe(&self, _: &Probe, _: Duration) -> ProbeOutcome {
        ProbeOutcome::Failed {
            output: "these tests probe nothing".to_string(),
        }
    }
}

type Pairs = BTreeMap<Bytes, Bytes>;

/// What is in all keyspaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Image([Pairs; 4]);

impl Image {
    fn apply(&mut self, batch: &[Change]) {
        for change in batch {
            match change.clone() {
                Change::Put(keyspace, key, value) => {
                    self.0[keyspace as usize].insert(key, value);
                }
                Change::Delete(keyspace, key) => {
                    self.0[keyspace as usize].remove(&key);
                }
                Change::DeleteRange(keyspace, from, to) => {
                    self.0[keyspace as usize].retain(|key, _| *key < from || *key >= to);
                }
            }
        }
    }

    pub(crate) fn pairs(&self, keyspace: Keyspace) -> &Pairs {
        &self.0[keyspace as usize]
    }

    fn range(&self, keyspace: Keyspace, from: &[u8], to: Option<&[u8]>, limit: usize) -> Vec<(Bytes, Bytes)> {
        self.pairs(keyspace)
            .range(Bytes::copy_from_slice(from)..)
            .take_while(|(key, _)| to.is_none_or(|to| key.as_ref() < to))
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

/// A disk in memory. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct TestDisk(Arc<Mutex<Platter>>);

#[derive(Default)]
struct Platter {
    current: Image,
    durable: Image,
    unsynced: Vec<Vec<Change>>,
    /// Writes and syncs begun so far.
    operations: u64,
    /// From this operation on everything fails, and nothing of it is carried out.
    stop_at: Option<u64>,
    syncs: u64,
    sync_time: Duration,
}

impl TestDisk {
    /// The disk after a power cut that the first `survivors` of the unsynced batches survived.
    pub(crate) fn after_power_cut(&self, survivors: usize) -> TestDisk {
        let platter = self.lock();
        let mut image = platter.durable.clone();
        for batch in platter.unsynced.iter().take(survivors) {
            image.apply(batch);
        }
        TestDisk::of(image)
    }

    /// The disk after a crash of the process alone.
    pub(crate) fn after_crash(&self) -> TestDisk {
        TestDisk::of(self.image())
    }

    fn of(image: Image) -> TestDisk {
        TestDisk(Arc::new(Mutex::new(Platter {
            current: image.clone(),
            durable: image,
            ..Platter::default()
        })))
    }

    /// Lets `operations` more writes and syncs succeed and none after them.
    pub(crate) fn stop_after(&self, operations: u64) {
        let mut platter = self.lock();
        platter.stop_at = Some(platter.operations + operations);
    }

    pub(crate) fn set_sync_time(&self, time: Duration) {
        self.lock().sync_time = time;
    }

    /// Changes a value behind everyone's back.
    pub(crate) fn spoil(&self, keyspace: Keyspace, key: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
        let mut platter = self.lock();
        let value = platter.current.0[keyspace as usize]
            .get_mut(key)
            .expect("there is something to spoil");
        let mut bytes = value.to_vec();
        change(&mut bytes);
        *value = bytes.into();
    }

    pub(crate) fn image(&self) -> Image {
        self.lock().current.clone()
    }

    pub(crate) fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    pub(crate) fn operations(&self) -> u64 {
        self.lock().operations
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platter {
    fn begin(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.stop_at.is_some_and(|stop| self.operations > stop) {
            return Err(io::Error::other("the test stopped this disk"));
        }
        Ok(())
    }
}

impl Disk for TestDisk {
    type View = Image;

    async fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.lock().current.pairs(keyspace).get(key).cloned())
    }

    async fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        // Gives others a turn, as a real disk does.
        tokio::task::yield_now().await;
        Ok(self.lock().current.range(keyspace, from, to, limit))
    }

    async fn last(&self, keyspace: Keyspace) -> io::Result<Option<(Bytes, Bytes)>> {
        let platter = self.lock();
        let last = platter.current.pairs(keyspace).last_key_value();
        Ok(last.map(|(key, value)| (key.clone(), value.clone())))
    }

    async fn write(&self, batch: Vec<Change>) -> io::Result<()> {
        let mut platter = self.lock();
        platter.begin()?;
        platter.current.apply(&batch);
        platter.unsynced.push(batch);
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        let (covered, time) = {
            let mut platter = self.lock();
            platter.begin()?;
            (platter.unsynced.len(), platter.sync_time)
        };
        tokio::time::sleep(time).await;
        let mut platter = self.lock();
        platter.syncs += 1;
        let batches: Vec<_> = platter.unsynced.drain(..covered).collect();
        for batch in batches {
            platter.durable.apply(&batch);
        }
        Ok(())
    }

    async fn view(&self) -> io::Result<Image> {
        Ok(self.image())
    }
}

impl DiskView for Image {
    async fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.pairs(keyspace).get(key).cloned())
    }

    async fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        Ok(Image::range(self, keyspace, from, to, limit))
    }
}

/// One server's place in a [`TestWorld`].
#[derive(Clone)]
pub(crate) struct TestNetwork {
    world: TestWorld,
    address: String,
}

/// All servers of a test.
#[derive(Clone, Default)]
pub(crate) struct TestWorld(Arc<Mutex<Wires>>);

#[derive(Default)]
struct Wires {
    handlers: BTreeMap<String, PeerHandler>,
    /// Addresses that nothing reaches and that reach nothing.
    cut_off: BTreeSet<String>,
    calls: u64,
    /// What a message takes each way, in microseconds.
    delay_us: Range<u64>,
}

impl TestWorld {
    /// A network whose messages take 100 to 2,000 µs each way, and so overtake each other.
    pub(crate) fn with_jitter() -> Self {
        let world = TestWorld::default();
        world.lock().delay_us = 100..2_000;
        world
    }

    pub(crate) fn network(&self, address: &str) -> TestNetwork {
        TestNetwork {
            world: self.clone(),
            address: address.to_string(),
        }
    }

    pub(crate) fn cut_off(&self, address: &str) {
        self.lock().cut_off.insert(address.to_string());
    }

    pub(crate) fn heal(&self) {
        self.lock().cut_off.clear();
    }

    /// Lets nobody listen at `address` any more.
    pub(crate) fn unplug(&self, address: &str) {
        self.lock().handlers.remove(address);
    }

    pub(crate) fn calls(&self) -> u64 {
        self.lock().calls
    }

    fn lock(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn delay(&self) {
        let range = self.lock().delay_us.clone();
        if !range.is_empty() {
            let us = range.start + TestRuntime::random_u64() % (range.end - range.start);
            tokio::time::sleep(Duration::from_micros(us)).await;
        }
    }

    fn connected(&self, a: &str, b: &str) -> bool {
        let wires = self.lock();
        !wires.cut_off.contains(a) && !wires.cut_off.contains(b)
    }
}

impl Network for TestNetwork {
    async fn call(&self, address: &str, message: Bytes, timeout: Duration) -> Result<Bytes, NetworkError> {
        self.world.lock().calls += 1;
        let exchange = async {
            self.world.delay().await;
            if !self.world.connected(&self.address, address) {
                std::future::pending::<()>().await;
            }
            let handler = self.world.lock().handlers.get(address).cloned();
            let Some(handler) = handler else {
                return Err(NetworkError::Unreachable {
                    address: address.to_string(),
                    reason: "nobody listens there".to_string(),
                });
            };
            // The other side goes on even if the caller does not wait for it.
            let answer = TestRuntime::spawn(handler(message)).await;
            self.world.delay().await;
            if !self.world.connected(&self.address, address) {
                std::future::pending::<()>().await;
            }
            answer.map_err(|error| NetworkError::OutcomeUnknown {
                address: address.to_string(),
                reason: error.to_string(),
            })
        };
        TestRuntime::timeout(timeout, exchange).await.unwrap_or_else(|| {
            Err(NetworkError::OutcomeUnknown {
                address: address.to_string(),
                reason: "timed out".to_string(),
            })
        })
    }

    async fn listen(&self, handler: PeerHandler) -> io::Result<()> {
        let mut wires = self.world.lock();
        if wires.handlers.contains_key(&self.address) {
            return Err(io::Error::from(io::ErrorKind::AddrInUse));
        }
        wires.handlers.insert(self.address.clone(), handler);
        Ok(())
    }

    async fn http(
        &self,
        address: &str,
        _: http::Request<Bytes>,
        _: Duration,
    ) -> Result<http::Response<Bytes>, NetworkError> {
        Err(NetworkError::Unreachable {
            address: address.to_string(),
            reason: "these tests have no HTTP".to_string(),
        })
    }
}
