//! The text of `/metrics`.

use sider_core::{limits, registry::CheckStatus, server::standin};

use crate::clients::*;

#[test]
fn every_metric_has_its_name() {
    let (server, standin, platform) = standin::server();
    standin.apply(&register_ttl("web", "web-1", secs(1), CheckStatus::Passing));
    standin.apply(&register("web", "web-2", &[]));
    platform.advance(secs(2) + limits::EXPIRY_BOUND);
    server.count_request("/v1/health/service/{name}", "GET", 200, millis(3));
    server.count_request("/v1/health/service/{name}", "GET", 200, millis(30));
    server.count_request("/v1/health/service/{name}", "other", 405, millis(1));
    let reader = server.clone();
    let _watch =
        platform.start(async move { reader.read(health("db", &[], false), after(1, secs(60))).await });
    let text = server.metrics_text();
    for line in [
        "sider_raft_leader 1",
        "sider_raft_term 1",
        "sider_raft_commit_index 3",
        "sider_raft_last_log_index 3",
        "sider_raft_elections_total 1",
        "sider_raft_fsync_seconds_count 0",
        "sider_raft_replication_lag{server=\"server-1\"} 0",
        "sider_registry_instances_total{namespace=\"default\",service=\"web\"} 2",
        "sider_registry_checks_total{status=\"critical\"} 1",
        "sider_registry_checks_total{status=\"passing\"} 0",
        "sider_check_expired_total 1",
        "sider_http_requests_total{path=\"/v1/health/service/{name}\",method=\"GET\",status=\"200\"} 2",
        "sider_http_requests_total{path=\"/v1/health/service/{name}\",method=\"other\",status=\"405\"} 1",
        "sider_http_request_duration_seconds_count{path=\"/v1/health/service/{name}\"} 3",
        "sider_http_request_duration_seconds_bucket{le=\"0.005\",path=\"/v1/health/service/{name}\"} 2",
        "sider_watchers_active 1",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    let index = platform
        .run(server.inspect(true, |registry| registry.index()))
        .unwrap();
    assert!(text.contains(&format!("sider_registry_index {index}\n")));
    assert_eq!(text, server.metrics_text(), "the order is always the same");
}
