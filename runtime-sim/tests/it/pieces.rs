//! Answers that go on, over a network with faults.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::unfold};
use sider_core::runtime::{NetworkError, Runtime as _};
use sider_runtime_sim::{Body, Host, HttpHandler, SimRuntime, SimTask, StreamedAnswer, Survival, World};

use crate::{ms, on_seeds};

/// Two hosts. The second answers with the numbers from 0, ten milliseconds apart, or with as many as the path says.
struct Pair {
    world: World,
    client: Host,
    server: Host,
    /// Numbers that were made.
    made: Arc<AtomicU64>,
    /// Held by each answer that goes on.
    held: Arc<()>,
}

impl Pair {
    async fn new(world: World) -> Pair {
        let (client, server) = (world.host("client"), world.host("server"));
        let (made, held) = (Arc::new(AtomicU64::new(0)), Arc::new(()));
        let (counter, holds) = (made.clone(), held.clone());
        server.start(move |host| {
            let handler = handler(counter.clone(), holds.clone());
            async move {
                host.network(1).serve_http(80, handler).expect("the port is free");
                std::future::pending().await
            }
        });
        world.sleep(ms(1)).await;
        Pair {
            world,
            client,
            server,
            made,
            held,
        }
    }

    async fn open(&self, path: &str) -> StreamedAnswer {
        let network = self.client.network(0);
        let request = http::Request::get(path).body(Bytes::new()).expect("it is valid");
        let opened = self
            .client
            .spawn(async move { network.http_stream("server:80", request, ms(1_000)).await });
        let answer = opened.await.expect("the client runs").expect("an answer");
        assert_eq!(answer.head.status(), 200);
        answer
    }

    fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Answers that go on now.
    fn open_answers(&self) -> usize {
        // The program and this hold one each, and so does the handler.
        Arc::strong_count(&self.held) - 3
    }

    fn cut(&self) {
        self.world
            .network()
            .partition(&[&[self.client.id()], &[self.server.id()]]);
    }
}

fn handler(made: Arc<AtomicU64>, held: Arc<()>) -> HttpHandler {
    Arc::new(move |request| {
        let (made, held) = (made.clone(), held.clone());
        let last: u64 = request.uri().path()[1..].parse().unwrap_or(u64::MAX);
        let numbers = unfold((0, held), move |(number, held)| {
            let made = made.clone();
            async move {
                if number == last {
                    return None;
                }
                SimRuntime::sleep(ms(10)).await;
                made.fetch_add(1, Ordering::Relaxed);
                Some((Bytes::from(format!("{number}")), (number + 1, held)))
            }
        });
        Box::pin(async move { http::Response::new(Body::Pieces(numbers.boxed())) })
    })
}

/// The next number, if it comes within so long.
async fn next(answer: &mut StreamedAnswer, within: Duration) -> Option<Result<Option<u64>, NetworkError>> {
    let number = |bytes: &[u8]| {
        std::str::from_utf8(bytes)
            .expect("text")
            .parse()
            .expect("a number")
    };
    let piece = SimRuntime::timeout(within, answer.next()).await?;
    Some(piece.map(|piece| piece.map(|piece| number(&piece.bytes))))
}

#[test]
fn pieces_come_in_order_and_to_an_end() {
    on_seeds(|world| async move {
        let pair = Pair::new(world).await;
        let mut answer = pair.open("/50").await;
        for number in 0..50 {
            assert_eq!(next(&mut answer, ms(1_000)).await, Some(Ok(Some(number))));
        }
        assert_eq!(next(&mut answer, ms(1_000)).await, Some(Ok(None)));
        pair.world.sleep(ms(100)).await;
        assert_eq!(pair.open_answers(), 0);
    });
}

#[test]
fn what_the_client_does_not_take_is_not_made() {
    on_seeds(|world| async move {
        let pair = Pair::new(world).await;
        let mut answer = pair.open("/").await;
        pair.world.sleep(ms(20_000)).await;
        let ahead = pair.made();
        assert!(ahead <= 2, "{ahead} are under way");
        assert_eq!(pair.open_answers(), 1, "a slow client is no dead one");
        for number in 0..20 {
            assert_eq!(next(&mut answer, ms(5_000)).await, Some(Ok(Some(number))));
            pair.world.sleep(ms(100)).await;
            assert!(pair.made() <= number + 1 + ahead);
        }
    });
}

#[test]
fn what_is_lost_comes_when_the_link_is_open_again() {
    on_seeds(|world| async move {
        let pair = Pair::new(world).await;
        let mut answer = pair.open("/").await;
        assert_eq!(next(&mut answer, ms(1_000)).await, Some(Ok(Some(0))));
        for round in 0..3 {
            pair.cut();
            while let Some(piece) = next(&mut answer, ms(50)).await {
                piece.expect("nobody is told");
            }
            let before = pair.made();
            pair.world.sleep(ms(1_500)).await;
            assert_eq!(pair.made(), before, "round {round}: nothing is made meanwhile");
            pair.world.network().heal();
        }
        let mut expected = None;
        for _ in 0..20 {
            let piece = next(&mut answer, ms(2_500)).await;
            let number = piece
                .expect("it goes on")
                .expect("it did not break")
                .expect("it has no end");
            assert_eq!(number, *expected.get_or_insert(number));
            expected = Some(number + 1);
        }
    });
}

#[test]
fn a_crash_breaks_it_and_a_loss_of_power_leaves_it_silent() {
    on_seeds(|world| async move {
        let pair = Pair::new(world).await;
        let mut answer = pair.open("/").await;
        pair.server.crash();
        let broken = async {
            loop {
                if let Some(Err(error)) = next(&mut answer, ms(1_000)).await {
                    return error;
                }
            }
        };
        assert!(matches!(broken.await, NetworkError::OutcomeUnknown { .. }));
        pair.server.restart();
        pair.world.sleep(ms(10)).await;
        let mut answer = pair.open("/").await;
        pair.server.power_cut(Survival::Everything);
        while let Some(piece) = next(&mut answer, ms(5_000)).await {
            piece.expect("nobody is told");
        }
    });
}

#[test]
fn a_client_that_hangs_up_is_noticed_though_its_word_is_lost() {
    on_seeds(|world| async move {
        let pair = Pair::new(world).await;
        let answer = pair.open("/").await;
        assert_eq!(pair.open_answers(), 1);
        drop(answer);
        pair.world.sleep(ms(5)).await;
        assert_eq!(pair.open_answers(), 0);

        let answer = pair.open("/").await;
        pair.cut();
        drop(answer);
        pair.world.sleep(ms(3_000)).await;
        assert_eq!(pair.open_answers(), 1, "nobody knows");
        pair.world.network().heal();
        pair.world.sleep(ms(1_100)).await;
        assert_eq!(pair.open_answers(), 0, "what is sent again is not wanted");

        let answer = pair.open("/").await;
        pair.cut();
        drop(answer);
        pair.world.sleep(ms(13_000)).await;
        assert_eq!(pair.open_answers(), 0, "it is given up in the end");
    });
}

#[test]
fn who_wants_a_whole_answer_can_not_do_with_pieces() {
    on_seeds(|world| async move {
        let pair = Pair::new(world).await;
        let network = pair.client.network(0);
        let request = http::Request::get("/").body(Bytes::new()).expect("it is valid");
        let asked: SimTask<_> = pair.client.spawn(async move {
            use sider_core::runtime::Network as _;
            network.http("server:80", request, ms(5_000)).await
        });
        let answer = asked.await.expect("the client runs");
        assert!(
            matches!(answer, Err(NetworkError::OutcomeUnknown { .. })),
            "{answer:?}"
        );
        pair.world.sleep(ms(100)).await;
        assert_eq!(pair.open_answers(), 0);
    });
}
