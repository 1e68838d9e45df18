use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use sider_core::runtime::{Network, NetworkError, Runtime};
use sider_runtime_sim::{Host, Link, LinkState, SimRuntime, Survival, World};

use crate::{ms, on_seeds};

/// Two hosts; the second echoes peer messages at port 1 (after the milliseconds that the message names) and HTTP
/// bodies at port 80, counting what its handlers began and ended.
struct Pair {
    client: Host,
    server: Host,
    begun: Arc<AtomicU64>,
    ended: Arc<AtomicU64>,
}

impl Pair {
    fn new(world: &World) -> Pair {
        let (client, server) = (world.host("client"), world.host("server"));
        let (begun, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counters = (begun.clone(), ended.clone());
        server.start(move |host| serve(host, counters.clone()));
        Pair {
            client,
            server,
            begun,
            ended,
        }
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Calls the server; the handler takes `takes_ms`.
    async fn call(&self, takes_ms: u64, timeout: Duration) -> Result<Bytes, NetworkError> {
        let network = self.client.network(0);
        let call = async move {
            network
                .call("10.0.0.2:1", takes_ms.to_string().into(), timeout)
                .await
        };
        self.client.spawn(call).await.expect("the client runs")
    }

    async fn http(&self, takes_ms: u64, timeout: Duration) -> Result<http::Response<Bytes>, NetworkError> {
        let network = self.client.network(0);
        let request = http::Request::put("/echo?x=1")
            .body(Bytes::from(takes_ms.to_string()))
            .expect("it is valid");
        let call = async move { network.http("server:80", request, timeout).await };
        self.client.spawn(call).await.expect("the client runs")
    }
}

async fn serve(host: Host, (begun, ended): (Arc<AtomicU64>, Arc<AtomicU64>)) {
    let network = host.network(1);
    let work = move |body: Bytes| {
        let (begun, ended) = (begun.clone(), ended.clone());
        async move {
            begun.fetch_add(1, Ordering::Relaxed);
            let takes_ms = std::str::from_utf8(&body)
                .expect("text")
                .parse()
                .expect("a number");
            SimRuntime::sleep(ms(takes_ms)).await;
            ended.fetch_add(1, Ordering::Relaxed);
            body
        }
    };
    let peer = work.clone();
    network
        .listen(Arc::new(move |message| Box::pin(peer(message))))
        .await
        .expect("the port is free");
    let handler = move |request: http::Request<Bytes>| -> futures_util::future::BoxFuture<'static, _> {
        let answer = work(request.body().clone());
        Box::pin(async move {
            let reply = http::Response::builder()
                .status(201)
                .header("x-uri", request.uri().to_string());
            reply.body(answer.await.into()).expect("it is valid")
        })
    };
    network
        .serve_http(80, Arc::new(handler))
        .expect("the port is free");
    std::future::pending().await
}

fn is_unreachable<T: std::fmt::Debug>(result: Result<T, NetworkError>) -> bool {
    matches!(result, Err(NetworkError::Unreachable { .. }))
}

fn is_unknown<T: std::fmt::Debug>(result: Result<T, NetworkError>) -> bool {
    matches!(result, Err(NetworkError::OutcomeUnknown { .. }))
}

#[test]
fn calls_and_http_requests_are_answered() {
    on_seeds(|world| async move {
        let pair = Pair::new(&world);
        world.sleep(ms(1)).await;
        assert_eq!(pair.call(5, ms(1_000)).await.expect("an answer"), "5");
        let answer = pair.http(5, ms(1_000)).await.expect("an answer");
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (201, &b"5"[..]));
        assert_eq!(answer.headers()["x-uri"], "/echo?x=1");
        assert_eq!((pair.begun(), pair.ended()), (2, 2));
    });
}

#[test]
fn a_port_is_bound_once_for_each_process() {
    on_seeds(|world| async move {
        let pair = Pair::new(&world);
        world.sleep(ms(1)).await;
        let network = pair.server.network(1);
        let handler = || -> sider_runtime_sim::HttpHandler { Arc::new(|_| Box::pin(std::future::pending())) };
        assert_eq!(
            network.serve_http(80, handler()).expect_err("in use").kind(),
            std::io::ErrorKind::AddrInUse
        );
        network.serve_http(81, handler()).expect("free");
        pair.server.restart();
        assert!(
            network.serve_http(82, handler()).is_err(),
            "that process has ended"
        );
        world.sleep(ms(1)).await;
        assert_eq!(pair.call(0, ms(1_000)).await.expect("it listens again"), "0");
    });
}

#[test]
fn nobody_there_is_unreachable_at_once() {
    on_seeds(|world| async move {
        let pair = Pair::new(&world);
        world.sleep(ms(1)).await;
        let network = pair.client.network(0);
        let before = world.now();
        for address in ["10.0.0.2:9", "10.0.9.9:1", "nobody:1", "server", "server:x"] {
            assert!(
                is_unreachable(network.call(address, Bytes::new(), ms(1_000)).await),
                "{address}"
            );
        }
        pair.server.crash();
        assert!(is_unreachable(pair.call(0, ms(1_000)).await));
        assert!(world.now() - before < ms(10));
        pair.server.power_cut(Survival::Some);
        let before = world.now();
        assert!(
            is_unreachable(pair.call(0, ms(1_000)).await),
            "it was never connected"
        );
        assert!(
            world.now() - before >= ms(1_000),
            "a host without power says nothing"
        );
    });
}

#[test]
fn a_process_that_dies_breaks_the_calls_under_way() {
    on_seeds(|world| async move {
        let pair = Arc::new(Pair::new(&world));
        world.sleep(ms(1)).await;
        let calling = {
            let pair = pair.clone();
            world.spawn(async move { pair.call(500, ms(5_000)).await })
        };
        world.sleep(ms(100)).await;
        let before = world.now();
        pair.server.crash();
        assert!(is_unknown(calling.await.expect("the test runs")));
        assert!(world.now() - before < ms(2), "its kernel says so");
        assert!(
            is_unreachable(pair.call(0, ms(1_000)).await),
            "the connection is known to be gone"
        );
        assert_eq!((pair.begun(), pair.ended()), (1, 0));
    });
}

#[test]
fn a_host_that_loses_power_leaves_half_open_connections() {
    on_seeds(|world| async move {
        let pair = Arc::new(Pair::new(&world));
        world.sleep(ms(1)).await;
        let calling = {
            let pair = pair.clone();
            world.spawn(async move { pair.call(500, ms(2_000)).await })
        };
        world.sleep(ms(100)).await;
        pair.server.power_cut(Survival::Some);
        world.sleep(ms(100)).await;
        assert!(!calling.is_finished());
        assert!(is_unknown(calling.await.expect("the test runs")));
        pair.server.restart();
        world.sleep(ms(10)).await;
        assert!(
            is_unknown(pair.call(0, ms(1_000)).await),
            "the old connection is reset at its next use"
        );
        assert_eq!(pair.call(0, ms(1_000)).await.expect("a new one is made"), "0");
    });
}

#[test]
fn a_caller_that_dies_does_not_take_its_request_back() {
    on_seeds(|world| async move {
        let pair = Arc::new(Pair::new(&world));
        world.sleep(ms(1)).await;
        assert!(pair.call(0, ms(1_000)).await.is_ok());
        let network = pair.client.network(0);
        pair.client
            .spawn(async move { network.call("server:1", Bytes::from("50"), ms(1_000)).await });
        world.sleep(Duration::from_micros(1)).await;
        pair.client.crash();
        world.sleep(ms(100)).await;
        assert_eq!((pair.begun(), pair.ended()), (2, 2));
    });
}

#[test]
fn a_call_that_is_given_up_goes_on_and_an_http_request_does_not() {
    on_seeds(|world| async move {
        let pair = Pair::new(&world);
        world.sleep(ms(1)).await;
        assert!(is_unknown(pair.call(50, ms(20)).await));
        world.sleep(ms(100)).await;
        assert_eq!((pair.begun(), pair.ended()), (1, 1));
        assert!(is_unknown(pair.http(50, ms(20)).await));
        world.sleep(ms(100)).await;
        assert_eq!((pair.begun(), pair.ended()), (2, 1), "the handler was dropped");
        assert!(is_unknown(pair.http(50, Duration::from_nanos(1)).await));
        world.sleep(ms(100)).await;
        assert_eq!(
            (pair.begun(), pair.ended()),
            (3, 1),
            "given up on its way, it was begun"
        );
    });
}

#[test]
fn an_http_client_that_crashes_hangs_up() {
    on_seeds(|world| async move {
        let pair = Pair::new(&world);
        world.sleep(ms(1)).await;
        let network = pair.client.network(0);
        let request = http::Request::get("/")
            .body(Bytes::from("50"))
            .expect("it is valid");
        pair.client
            .spawn(async move { network.http("server:80", request, ms(1_000)).await });
        world.sleep(ms(20)).await;
        pair.client.crash();
        world.sleep(ms(100)).await;
        assert_eq!((pair.begun(), pair.ended()), (1, 0));
    });
}

#[test]
fn a_full_partition_is_silent_both_ways() {
    on_seeds(|world| async move {
        let pair = Pair::new(&world);
        let (client, server) = (pair.client.id(), pair.server.id());
        world.sleep(ms(1)).await;
        world.network().set_default_link(Link {
            late_ppm: 0,
            ..Link::default()
        });
        world.network().partition(&[&[client], &[server]]);
        assert!(
            is_unreachable(pair.call(0, ms(100)).await),
            "no connection can be made"
        );
        world.network().heal();
        assert!(pair.call(0, ms(100)).await.is_ok());
        world.network().isolate(server);
        assert!(
            is_unknown(pair.call(0, ms(100)).await),
            "a connection is there, the request may have passed"
        );
        world.network().heal();
        world.sleep(ms(100)).await;
        assert_eq!(pair.begun(), 1);
    });
}

#[test]
fn a_one_way_partition_loses_requests_or_answers() {
    on_seeds(|world| async move {
        let pair = Pair::new(&world);
        let (client, server) = (pair.client.id(), pair.server.id());
        world.sleep(ms(1)).await;
        world.network().set_default_link(Link {
            late_ppm: 0,
            ..Link::default()
        });
        assert!(pair.call(0, ms(100)).await.is_ok());
        world.network().block(server, client);
        assert!(is_unknown(pair.call(0, ms(100)).await));
        assert_eq!(pair.ended(), 2, "the request was carried out, its answer is lost");
        world.network().open(server, client);
        world.network().block(client, server);
        assert!(is_unknown(pair.call(0, ms(100)).await));
        assert_eq!(pair.begun(), 2, "the request was lost");
    });
}

#[test]
fn a_bridge_reaches_both_sides() {
    on_seeds(|world| async move {
        let pair = Pair::new(&world);
        let bridge = world.host("bridge");
        world.sleep(ms(1)).await;
        world
            .network()
            .partition(&[&[pair.client.id()], &[pair.server.id()]]);
        assert!(is_unreachable(pair.call(0, ms(100)).await));
        assert!(
            bridge
                .network(0)
                .call("server:1", Bytes::from("0"), ms(100))
                .await
                .is_ok()
        );
        assert_eq!(
            world.network().state(pair.client.id(), bridge.id()),
            LinkState::Open
        );
    });
}

#[test]
fn a_black_hole_takes_connections_and_swallows_everything() {
    on_seeds(|world| async move {
        let pair = Pair::new(&world);
        world.sleep(ms(1)).await;
        world
            .network()
            .set_state(pair.client.id(), pair.server.id(), LinkState::BlackHole);
        assert!(is_unknown(pair.call(0, ms(100)).await), "connected, then silence");
        world.network().heal();
        assert!(pair.call(0, ms(100)).await.is_ok());
        assert_eq!(pair.begun(), 1);
    });
}

#[test]
fn what_meets_a_partition_may_come_late() {
    on_seeds(|world| async move {
        let pair = Pair::new(&world);
        world.sleep(ms(1)).await;
        assert!(pair.call(0, ms(100)).await.is_ok());
        world.network().set_default_link(Link {
            late_ppm: 1_000_000,
            ..Link::default()
        });
        world.network().isolate(pair.server.id());
        assert!(is_unknown(pair.call(0, ms(100)).await));
        world.sleep(ms(10_000)).await;
        assert_eq!(pair.begun(), 1);
        world.network().heal();
        world.sleep(ms(10)).await;
        assert_eq!(pair.begun(), 2, "it arrives long after its caller gave up");
    });
}

#[test]
fn lost_messages_are_sent_again_or_gone() {
    let (mut late, mut gone) = (0, 0);
    for seed in 0..40 {
        let outcome = sider_runtime_sim::run(seed, |world| async move {
            let pair = Pair::new(&world);
            world.sleep(ms(1)).await;
            assert!(pair.call(0, ms(100)).await.is_ok());
            let lossy = Link {
                loss_ppm: 1_000_000,
                ..Link::default()
            };
            world
                .network()
                .set_link(pair.client.id(), pair.server.id(), lossy);
            let before = world.now();
            let answer = pair.call(0, ms(5_000)).await;
            assert!(world.now() - before >= ms(200));
            answer
        });
        match outcome.value.expect("no panic") {
            Ok(_) => late += 1,
            Err(error) => {
                assert!(is_unknown(Err::<(), _>(error)));
                gone += 1;
            }
        }
    }
    assert!(late >= 10 && gone >= 10, "{late} late, {gone} gone");
}

#[test]
fn requests_are_duplicated_only_on_demand() {
    on_seeds(|world| async move {
        let pair = Pair::new(&world);
        world.sleep(ms(1)).await;
        for _ in 0..20 {
            assert!(pair.call(0, ms(100)).await.is_ok());
        }
        assert_eq!(pair.begun(), 20);
        let doubling = Link {
            duplicate_ppm: 1_000_000,
            ..Link::default()
        };
        world
            .network()
            .set_link(pair.client.id(), pair.server.id(), doubling);
        assert!(pair.call(0, ms(100)).await.is_ok());
        world.sleep(ms(10)).await;
        assert_eq!(pair.begun(), 22);
        world.network().reset_links();
        assert!(pair.call(0, ms(100)).await.is_ok());
        world.sleep(ms(10)).await;
        assert_eq!(pair.begun(), 23);
    });
}

#[test]
fn latency_is_within_the_links_bounds_and_messages_overtake() {
    let overtaken = AtomicU64::new(0);
    on_seeds(|world| {
        let overtaken = &overtaken;
        async move {
            let pair = Arc::new(Pair::new(&world));
            world.sleep(ms(1)).await;
            assert!(pair.call(0, ms(100)).await.is_ok());
            world.network().set_default_link(Link {
                latency_us: 30_000..60_000,
                ..Link::default()
            });
            let before = world.now();
            let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
            for n in 0..10 {
                let (pair, sender, world) = (pair.clone(), sender.clone(), world.clone());
                world.clone().spawn(async move {
                    pair.call(0, ms(1_000)).await.expect("an answer");
                    let took = world.now() - before;
                    assert!(took >= ms(60) && took < ms(121), "{took:?}");
                    sender.send(n).expect("the receiver lives");
                });
            }
            let mut order = Vec::new();
            for _ in 0..10 {
                order.push(receiver.recv().await.expect("ten are sent"));
            }
            overtaken.fetch_add(u64::from(!order.is_sorted()), Ordering::Relaxed);
        }
    });
    assert!(overtaken.into_inner() > 10);
}

#[test]
fn a_paused_server_takes_requests_and_answers_later() {
    on_seeds(|world| async move {
        let pair = Arc::new(Pair::new(&world));
        world.sleep(ms(1)).await;
        pair.server.pause();
        let calling = {
            let pair = pair.clone();
            world.spawn(async move { pair.call(0, ms(10_000)).await })
        };
        world.sleep(ms(3_000)).await;
        assert!(!calling.is_finished());
        assert_eq!(pair.begun(), 0);
        pair.server.resume();
        assert!(calling.await.expect("the test runs").is_ok());
    });
}

#[test]
fn a_host_reaches_itself_whatever_the_network_does() {
    on_seeds(|world| async move {
        let pair = Pair::new(&world);
        world.sleep(ms(1)).await;
        world.network().isolate(pair.server.id());
        assert!(
            pair.server
                .network(0)
                .call("server:1", Bytes::from("0"), ms(100))
                .await
                .is_ok()
        );
    });
}

#[test]
fn a_message_larger_than_a_frame_is_refused() {
    on_seeds(|world| async move {
        let pair = Pair::new(&world);
        world.sleep(ms(1)).await;
        let huge = Bytes::from(vec![0; sider_core::limits::PEER_FRAME_BYTES_MAX + 1]);
        assert!(is_unreachable(
            pair.client.network(0).call("server:1", huge, ms(100)).await
        ));
        assert_eq!(pair.begun(), 0);
    });
}

/// A call with a body that takes `bytes` on its way; the handler takes no time.
async fn call_of(pair: &Pair, bytes: usize, timeout: Duration) -> Result<Bytes, NetworkError> {
    let network = pair.client.network(0);
    let message = Bytes::from("0".repeat(bytes));
    let call = async move { network.call("10.0.0.2:1", message, timeout).await };
    pair.client.spawn(call).await.expect("the client runs")
}

#[test]
fn a_slow_link_takes_its_time_and_lets_senders_wait_when_its_buffer_is_full() {
    on_seeds(|world| async move {
        let pair = Arc::new(Pair::new(&world));
        world.sleep(ms(1)).await;
        call_of(&pair, 1, ms(1_000)).await.expect("an answer");
        let (client, server) = (pair.client.id(), pair.server.id());
        let link = Link {
            bytes_per_s: Some(10_000),
            buffer_bytes: 2_000,
            ..Link::default()
        };
        world.network().set_link(client, server, link);
        let before = world.now();
        call_of(&pair, 1_000, ms(5_000)).await.expect("an answer");
        let took = world.now() - before;
        assert!(took >= ms(100) && took < ms(150), "{took:?}");

        // Two fit into the buffer; of those that wait with their senders one gives up, and is never sent.
        let begun = pair.begun();
        let mut calls = Vec::new();
        for timeout in [ms(5_000), ms(5_000), ms(40), ms(5_000)] {
            let pair = pair.clone();
            calls.push(world.spawn(async move { call_of(&pair, 900, timeout).await.is_ok() }));
            world.sleep(ms(1)).await;
        }
        world.sleep(ms(20)).await;
        assert_eq!(world.network().waiting(client, server), 2);
        let mut answered = Vec::new();
        for call in calls {
            answered.push(call.await.expect("it does not panic"));
        }
        assert_eq!(answered, [true, true, false, true]);
        world.sleep(ms(2_000)).await;
        assert_eq!(pair.begun() - begun, 3);
        assert_eq!(world.network().waiting(client, server), 0);
    });
}

#[test]
fn what_waits_for_a_slow_link_passes_when_the_link_is_fast_again() {
    on_seeds(|world| async move {
        let pair = Arc::new(Pair::new(&world));
        world.sleep(ms(1)).await;
        let (client, server) = (pair.client.id(), pair.server.id());
        call_of(&pair, 1, ms(1_000)).await.expect("an answer");
        let link = Link {
            bytes_per_s: Some(10),
            buffer_bytes: 1_000,
            ..Link::default()
        };
        world.network().set_link(client, server, link);
        let slow = pair.clone();
        let calls: Vec<_> = (0..3)
            .map(|_| {
                let pair = slow.clone();
                world.spawn(async move { call_of(&pair, 800, ms(300_000)).await.is_ok() })
            })
            .collect();
        world.sleep(ms(500)).await;
        assert_eq!(world.network().waiting(client, server), 2);
        world.network().reset_links();
        world.sleep(ms(500)).await;
        assert_eq!(world.network().waiting(client, server), 0);
        assert_eq!(
            pair.begun(),
            3,
            "all but the one that is in the slow link's buffer"
        );
        for call in calls {
            assert!(call.await.expect("it does not panic"));
        }
    });
}

#[test]
fn a_long_tail_delays_a_few() {
    on_seeds(|world| async move {
        let pair = Pair::new(&world);
        world.sleep(ms(1)).await;
        let link = Link {
            slow_ppm: 300_000,
            slow_us: 500_000..600_000,
            ..Link::default()
        };
        world.network().set_link(pair.client.id(), pair.server.id(), link);
        let mut slow = 0;
        for _ in 0..40 {
            let before = world.now();
            pair.call(0, ms(5_000)).await.expect("an answer");
            let took = world.now() - before;
            assert!(took < ms(5) || took >= ms(500), "{took:?}");
            slow += u32::from(took >= ms(500));
        }
        assert!((2..30).contains(&slow), "{slow} of 40");
    });
}
