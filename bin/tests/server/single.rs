//! One server.

use std::time::Duration;

use serde_json::json;

use crate::support::{Place, ids};

#[tokio::test]
async fn a_second_start_finds_the_data_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new("node1", folder.path());
    let server = place.start(&[]).await;
    server.ready().await;
    let check = json!({"type": "ttl", "ttl": "1h"});
    let body = json!({"Name": "api", "ID": "api-1", "Address": "127.0.0.1", "Port": 8080, "Checks": [check]});
    let registered = server.put("/v1/agent/service/register", &body).await.unwrap();
    assert_eq!(registered["CheckIDs"], json!(["chk:api-1:0"]));
    server
        .put("/v1/agent/check/pass/chk:api-1:0", &json!({}))
        .await
        .unwrap();
    let before = server.get("/v1/health/service/api?passing=1").await;
    assert_eq!(ids(&before), ["api-1"]);

    server.signal("-TERM");
    assert!(server.ended().await.success());
    // Whatever the flags say: a data directory that is in use is never bootstrapped again.
    let server = place.start(&["-raft-bootstrap"]).await;
    server.ready().await;
    assert_eq!(server.get("/v1/health/service/api?passing=1").await, before);

    server.register("api", "api-2").await.unwrap();
    server.kill();
    let server = place.start(&[]).await;
    server.ready().await;
    assert_eq!(server.instances("api").await, ["api-1", "api-2"]);
}

#[tokio::test]
async fn a_dev_server_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new("node1", folder.path());
    let server = place.start(&["-dev"]).await;
    server.ready().await;
    server.register("api", "api-1").await.unwrap();
    assert_eq!(server.instances("api").await, ["api-1"]);
    server.kill();
    assert!(!place.data.exists());
    let server = place.start(&["-dev"]).await;
    server.ready().await;
    assert_eq!(server.instances("api").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_stopping_server_ends_parked_queries() {
    let folder = tempfile::tempdir().unwrap();
    let server = Place::new("node1", folder.path()).start(&[]).await;
    server.ready().await;
    server.register("api", "api-1").await.unwrap();
    let answer = server
        .try_send("GET", "/v1/health/service/api", "")
        .await
        .unwrap();
    let index = answer.headers()["x-index"].to_str().unwrap().to_owned();
    let path = format!("/v1/health/service/api?index={index}&wait=10m");
    let mut parked = Box::pin(async { server.try_send("GET", &path, "").await });
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut parked)
            .await
            .is_err(),
        "it is parked"
    );
    server.signal("-TERM");
    // It is told so, or its connection is closed: in either case it does not wait for ten minutes.
    if let Ok(answer) = parked.await {
        assert!(answer.status().is_server_error(), "{answer:?}");
    }
    assert!(server.ended().await.success());
}
