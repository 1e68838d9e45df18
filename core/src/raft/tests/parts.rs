//! Small parts by themselves: watch channel, applied index, order of append requests, openraft's runtime.

use std::{
    sync::{Arc, Mutex},
    task::{Poll, Wake, Waker},
    time::Duration,
};

use futures_util::FutureExt;
use openraft::async_runtime::{AsyncRuntime, Instant, WatchReceiver, WatchSender};

use super::{member, platform::TestRuntime};
use crate::{
    limits,
    raft::{
        applied::AppliedIndex,
        message::AppendOrder,
        peer::AppendOrders,
        rt::{RaftInstant, RaftRuntime},
        watch,
    },
};

/// Notes its number when it is woken.
struct Numbered(usize, Arc<Mutex<Vec<usize>>>);

impl Wake for Numbered {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0);
    }
}

#[test]
fn watchers_wake_in_the_order_of_their_subscription() {
    let (sender, first) = watch::channel(0);
    let mut receivers: Vec<_> = (0..50).map(|_| sender.subscribe()).collect();
    receivers.insert(0, first);
    let woken = Arc::new(Mutex::new(Vec::new()));
    let mut waits: Vec<_> = receivers
        .iter_mut()
        .map(|receiver| Box::pin(receiver.changed()))
        .collect();
    // Polled in another order than they subscribed.
    for number in (0..waits.len()).rev() {
        let waker = Waker::from(Arc::new(Numbered(number, woken.clone())));
        let polled = waits[number].poll_unpin(&mut std::task::Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    sender.send(1).unwrap();
    assert_eq!(*woken.lock().unwrap(), (0..51).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_watcher_sees_the_newest_value_once() {
    let (sender, mut receiver) = watch::channel("a");
    assert!(receiver.changed().now_or_never().is_none());
    sender.send("b").unwrap();
    sender.send("c").unwrap();
    receiver.changed().await.unwrap();
    assert_eq!(*receiver.borrow_watched(), "c");
    assert!(receiver.changed().now_or_never().is_none());

    // What a clone has seen is what its original had.
    sender.send("d").unwrap();
    let mut clone = receiver.clone();
    assert_eq!(*receiver.borrow_and_update(), "d");
    assert!(receiver.changed().now_or_never().is_none());
    clone.changed().await.unwrap();
    assert!(sender.subscribe().changed().now_or_never().is_none());

    assert!(!sender.send_if_modified(|_| false));
    assert!(receiver.changed().now_or_never().is_none());
    assert!(sender.send_if_modified(|value| {
        *value = "e";
        true
    }));
    let other = sender.clone();
    drop(sender);
    receiver.changed().await.unwrap();
    assert!(receiver.changed().now_or_never().is_none());
    drop(other);
    assert!(receiver.changed().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_channel_wakes_its_watchers() {
    let (sender, mut receiver) = watch::channel(());
    let waiting = tokio::runtime::Handle::current().spawn(async move { receiver.changed().await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(sender);
    assert!(waiting.await.unwrap().is_err());
    let (sender, receiver) = watch::channel(());
    drop(receiver);
    assert!(sender.send(()).is_err());
}

#[tokio::test(start_paused = true)]
async fn waits_for_entries_end_with_them_or_with_the_server() {
    let applied = AppliedIndex::new(None);
    // Nothing applied is not the same as entry 0 applied.
    let mut zero = Box::pin(applied.wait(0));
    assert!(futures_util::poll!(&mut zero).is_pending());
    applied.advance(0);
    zero.await.unwrap();
    let mut five = Box::pin(applied.wait(5));
    let mut six = Box::pin(applied.wait(6));
    let given_up = Box::pin(applied.wait(4));
    assert!(futures_util::poll!(&mut five).is_pending());
    assert!(futures_util::poll!(&mut six).is_pending());
    drop(given_up);
    applied.advance(5);
    assert!(futures_util::poll!(&mut five).is_ready());
    assert!(futures_util::poll!(&mut six).is_pending());
    assert_eq!(applied.get(), 5);
    applied.stop();
    assert!(six.await.is_err());
    assert!(applied.wait(3).await.is_ok());
    assert!(applied.wait(9).await.is_err());
}

fn order(stream: u64, sequence: u64) -> AppendOrder {
    AppendOrder {
        process: 1,
        stream,
        sequence,
    }
}

#[tokio::test(start_paused = true)]
async fn append_requests_take_their_turns() {
    let orders = AppendOrders::default();
    let a = member("a");
    let mut second = Box::pin(orders.wait_turn::<TestRuntime>(&a, order(1, 2)));
    let mut first = Box::pin(orders.wait_turn::<TestRuntime>(&a, order(1, 1)));
    assert!(futures_util::poll!(&mut second).is_pending());
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(orders.wait_turn::<TestRuntime>(&a, order(1, 0)).await);
    // Another sender's are not held up.
    assert!(orders.wait_turn::<TestRuntime>(&member("b"), order(1, 0)).await);
    assert!(futures_util::poll!(&mut first).is_pending());
    orders.end_turn(&a, order(1, 0));
    assert_eq!(futures_util::poll!(&mut first), Poll::Ready(true));
    assert!(futures_util::poll!(&mut second).is_pending());
    orders.end_turn(&a, order(1, 1));
    assert!(second.await);
    orders.end_turn(&a, order(1, 2));
    // A duplicate, and a straggler of an earlier stream.
    assert!(!orders.wait_turn::<TestRuntime>(&a, order(1, 1)).await);
    let mut waiting = Box::pin(orders.wait_turn::<TestRuntime>(&a, order(1, 4)));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert!(orders.wait_turn::<TestRuntime>(&a, order(2, 0)).await);
    assert!(!waiting.await, "its stream was given up");
    assert!(!orders.wait_turn::<TestRuntime>(&a, order(1, 3)).await);
    // One whose predecessor never comes is refused after a while, and so are more than may be under way.
    let began = tokio::time::Instant::now();
    assert!(!orders.wait_turn::<TestRuntime>(&a, order(2, 7)).await);
    assert_eq!(began.elapsed(), limits::APPEND_ORDER_WAIT);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_append_requests_and_senders_are_kept() {
    let orders = AppendOrders::default();
    let a = member("a");
    let mut waits: Vec<_> = (1..=limits::APPENDS_IN_FLIGHT_MAX as u64 + 1)
        .map(|sequence| Box::pin(orders.wait_turn::<TestRuntime>(&a, order(1, sequence))))
        .collect();
    let mut states = Vec::new();
    for wait in &mut waits {
        states.push(futures_util::poll!(wait).is_pending());
    }
    assert_eq!(
        states.iter().filter(|pending| **pending).count(),
        limits::APPENDS_IN_FLIGHT_MAX
    );
    for number in 0..limits::APPENDING_SERVERS_MAX as u64 + 10 {
        assert!(orders.wait_turn::<TestRuntime>(&number.into(), order(1, 0)).await);
    }
    assert_eq!(orders.senders(), limits::APPENDING_SERVERS_MAX);
}

#[tokio::test(start_paused = true)]
async fn openrafts_runtime_is_ours() {
    type Runtime = RaftRuntime<TestRuntime>;
    let began = RaftInstant::<TestRuntime>::now();
    Runtime::sleep(Duration::from_millis(5)).await;
    assert_eq!(began.elapsed(), Duration::from_millis(5));
    assert!(
        Runtime::timeout(Duration::from_millis(1), std::future::pending::<()>())
            .await
            .is_err()
    );
    // What is ready counts, even at its deadline.
    let ready = Runtime::timeout_at(began, std::future::ready(7)).await;
    assert_eq!(ready.unwrap(), 7);
    assert_eq!(Runtime::spawn(async { 8 }).await.unwrap(), 8);
    assert_eq!(Runtime::spawn_blocking(|| 9).await.unwrap(), 9);
    let mut bytes = [0; 13];
    rand::TryRng::try_fill_bytes(&mut Runtime::thread_rng(), &mut bytes).unwrap();
    assert_ne!(bytes, [0; 13]);
    assert!(began < RaftInstant::now());
    assert_eq!(began - RaftInstant::now(), Duration::ZERO);
}
