//! A server that is run as Consul's are: its config files, what they register, and what its API tells of its process.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{PATIENCE, Server, free_port};

/// Waits until what `path` answers is as it should be.
async fn until(server: &Server, path: &str, good: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = server.get(path).await;
        if good(&answer) {
            return;
        }
        assert!(Instant::now() < deadline, "{path} answers {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn services_of_config_files_are_registered_checked_and_reloaded() {
    let folder = tempfile::tempdir().unwrap();
    let (http, raft) = (free_port(), free_port());
    let write = |name: &str, content: &Value| {
        let path = folder.path().join(name);
        std::fs::write(&path, content.to_string()).unwrap();
        path.display().to_string()
    };
    let main = write(
        "server.json",
        &json!({
            "server": true, "bootstrap": true, "node_name": "host", "data_dir": folder.path().join("data"),
            "ports": {"http": http, "server": raft, "serf_lan": -1}, "enable_script_checks": true,
        }),
    );
    std::fs::create_dir(folder.path().join("services")).unwrap();
    // The server itself is what is checked.
    let alive = json!({"http": format!("http://127.0.0.1:{http}/livez"), "interval": "1s"});
    write(
        "services/web.json",
        &json!({"service": {"name": "web", "port": 80, "check": alive}, "check": {"name": "disk", "args": ["true"], "interval": "1s"}}),
    );
    let services = folder.path().join("services").display().to_string();
    let address = format!("127.0.0.1:{http}");
    let flags = ["-config-file", &main, "-config-dir", &services];
    let server = Server::start(&flags, "host", &address).await;
    server.ready().await;
    let passing = |answer: &Value| answer[0]["Service"]["Port"] == 80;
    until(&server, "/v1/health/service/web?passing", passing).await;
    until(&server, "/v1/agent/checks", |checks| {
        checks["disk"]["Status"] == "passing"
    })
    .await;

    write(
        "services/web.json",
        &json!({"services": [{"name": "db", "port": 90}]}),
    );
    server.put("/v1/agent/reload", &json!({})).await.unwrap();
    let services = server.get("/v1/agent/services").await;
    let ids: Vec<&String> = services.as_object().unwrap().keys().collect();
    assert_eq!(ids, ["db"], "what is not named any more is gone");
    assert_eq!(server.get("/v1/agent/checks").await, json!({}));
    // What came otherwise stays: maintenance, and checks of the API.
    let maintain = "/v1/agent/service/maintenance/db?enable=true";
    server.put(maintain, &json!({})).await.unwrap();
    let extra = json!({"Name": "extra", "ServiceID": "db", "TTL": "60s"});
    server.put("/v1/agent/check/register", &extra).await.unwrap();
    server.put("/v1/agent/reload", &json!({})).await.unwrap();
    let checks = server.get("/v1/agent/checks").await;
    let ids: Vec<&String> = checks.as_object().unwrap().keys().collect();
    assert_eq!(ids, ["_service_maintenance:db", "extra"]);
    // What can't be used changes nothing.
    write(
        "services/web.json",
        &json!({"services": [{"name": "db", "port": "x"}]}),
    );
    let refused = server.put("/v1/agent/reload", &json!({})).await.unwrap_err();
    assert!(
        refused.contains("web.json") && refused.contains("service 1"),
        "{refused}"
    );
    assert_eq!(server.get("/v1/agent/services").await["db"]["Port"], 90);

    let host = server.get("/v1/agent/host").await;
    assert!(host["CollectionTime"].is_u64() && host["Memory"]["total"].as_u64().unwrap() > 0);
    let metrics = server.get("/v1/agent/metrics").await;
    let gauges = metrics["Gauges"].as_array().unwrap();
    let named = |gauge: &&Value| gauge["Name"].as_str().unwrap().ends_with(".runtime.alloc_bytes");
    assert!(gauges.iter().find(named).unwrap()["Value"].as_f64().unwrap() > 0.0);
    assert!(
        server
            .try_send("GET", "/v1/agent/monitor?loglevel=loud", "")
            .await
            .unwrap()
            .status()
            == 400
    );

    server.put("/v1/agent/leave", &json!({})).await.unwrap();
    assert!(server.ended().await.success());

    // What the files named before a restart, and do not name any more, goes too.
    write("services/web.json", &json!({"service": {"name": "web"}}));
    let server = Server::start(&flags, "host", &address).await;
    server.ready().await;
    let only_web = |services: &Value| {
        let ids = services.as_object().unwrap().keys();
        ids.eq(["web"])
    };
    until(&server, "/v1/agent/services", only_web).await;
}

#[tokio::test]
async fn what_is_wrong_in_a_config_file_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.json");
    std::fs::write(
        &path,
        r#"{"service": {"name": "web", "check": {"args": ["true"], "interval": "1s"}}}"#,
    )
    .unwrap();
    let output = crate::support::program()
        .args(["-dev", "-config", &path.display().to_string()])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        error.contains("bad.json") && error.contains("service 1") && error.contains("Scripts"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_listens_on_a_socket_file_and_streams_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let child = crate::support::program()
        .args(["-dev", "-http", &format!("unix://{}", socket.display())])
        .args(["-raft-bind", &format!("127.0.0.1:{}", free_port())])
        .args(["-log-level", "error"])
        .spawn()
        .unwrap();
    let _server = crate::support::Guard(child);
    let ask = |path: &str| -> std::io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )?;
        Ok(stream)
    };
    let deadline = Instant::now() + PATIENCE;
    let answered = |path: &str| {
        let mut text = String::new();
        ask(path)
            .and_then(|mut stream| stream.read_to_string(&mut text))
            .map(|_| text)
    };
    while !answered("/readyz").is_ok_and(|text| text.starts_with("HTTP/1.1 200")) {
        assert!(Instant::now() < deadline, "nobody answers on the socket");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut log = ask("/v1/agent/monitor?loglevel=debug").unwrap();
    let mut seen = String::new();
    while !seen.contains("[DEBUG]") {
        // Each request is a line.
        answered("/v1/status/leader").unwrap();
        let mut buffer = [0; 4096];
        let length = log.read(&mut buffer).unwrap();
        assert!(length > 0, "the log ended after {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    assert!(seen.contains("path=/v1/status/leader"), "{seen}");
}

#[tokio::test]
async fn at_the_port_of_gossip_servers_join_and_agents_ask() {
    let folder = tempfile::tempdir().unwrap();
    let (http, raft, join) = (free_port(), free_port(), free_port());
    let path = folder.path().join("server.json");
    let config = json!({
        "server": true, "bootstrap": true, "node_name": "host", "data_dir": folder.path().join("data"),
        "ports": {"http": http, "server": raft, "serf_lan": join}, "bind_addr": "127.0.0.1",
    });
    std::fs::write(&path, config.to_string()).unwrap();
    let flags = ["-config-file", &path.display().to_string()];
    let server = Server::start(&flags, "host", &format!("127.0.0.1:{http}")).await;
    server.ready().await;
    let status = |path: &str, header: &str| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", join)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(status("/v1/status/leader", ""), "200");
    assert_eq!(status("/v1/catalog/nodes", ""), "421");
    assert_eq!(status("/v1/catalog/nodes", "X-Sider-Forwarded: agent\r\n"), "200");
}

#[tokio::test]
async fn servers_that_expect_each_other_become_one_cluster_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let ids = ["node1", "node2", "node3"];
    let ports = ids.map(|_| (free_port(), free_port()));
    let join: Vec<String> = ports
        .iter()
        .map(|(http, _)| format!("127.0.0.1:{http}"))
        .collect();
    let hosts = ["127.0.0.2", "127.0.0.3", "127.0.0.4"];
    let start = async |number: usize| {
        let (id, (http, raft)) = (ids[number], ports[number]);
        let path = folder.path().join(format!("{id}.json"));
        let config = json!({
            "server": true, "bootstrap_expect": 3, "retry_join": join, "node_name": id,
            "data_dir": folder.path().join(id), "ports": {"http": http, "server": raft, "serf_lan": -1},
            "bind_addr": hosts[number], "client_addr": "127.0.0.1",
        });
        std::fs::write(&path, config.to_string()).unwrap();
        Server::start(&["-config-file", &path.display().to_string()], id, &join[number]).await
    };
    let mut servers = vec![start(0).await, start(1).await];
    tokio::time::sleep(Duration::from_secs(2)).await;
    for server in &servers {
        assert_eq!(
            server.stats().await["last_log_index"],
            0,
            "two of three begin nothing"
        );
        assert_eq!(server.get("/v1/raft/introduction").await["Expected"], json!({}));
    }
    servers.push(start(2).await);
    for server in &servers {
        server.ready().await;
        server.has_voters(&ids).await;
    }
    servers[2].register("web", "web-1").await.unwrap();
    assert_eq!(servers[0].instances("web").await, ["web-1"]);
    // What is registered at one is run by whichever leads, and is there for all of them.
    let check = json!({"Name": "alive", "TCP": join[0], "Interval": "1s"});
    for (number, server) in servers.iter().enumerate() {
        let service = json!({"Name": format!("at-{number}"), "Check": check});
        server.put("/v1/agent/service/register", &service).await.unwrap();
    }
    for (number, host) in hosts.iter().enumerate() {
        let path = format!("/v1/health/service/at-{number}?passing");
        let passing =
            |found: &Value| found[0]["Node"]["Node"] == "sider" && found[0]["Service"]["Address"] == *host;
        until(&servers[0], &path, passing).await;
        let path = format!("/v1/agent/service/deregister/at-{number}");
        let other = (number + 1) % servers.len();
        servers[other].put(&path, &json!({})).await.unwrap();
    }
    let all = |nodes: &Value| {
        let names = nodes.as_array().unwrap().iter().map(|node| &node["Node"]);
        names.eq(["node1", "node2", "node3", "sider"])
    };
    until(&servers[1], "/v1/catalog/nodes", all).await;
    // One that was started again goes on with what it has, and one that lost its data begins nothing.
    servers.remove(0).kill();
    std::fs::remove_dir_all(folder.path().join(ids[0])).unwrap();
    let again = start(0).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(again.get("/v1/raft/introduction").await["Expected"], json!({}));
    assert_eq!(servers[0].instances("web").await, ["web-1"]);
}

#[tokio::test]
async fn a_server_is_where_it_says_and_its_service_has_the_name_that_is_set() {
    let folder = tempfile::tempdir().unwrap();
    let (http, raft) = (free_port(), free_port());
    let path = folder.path().join("server.json");
    let config = json!({
        "server": true, "bootstrap": true, "node_name": "solo", "bind_addr": "127.0.0.5", "client_addr": "127.0.0.1",
        "data_dir": folder.path().join("data"), "ports": {"http": http, "server": raft, "serf_lan": -1},
        "servers_service": "registry",
    });
    std::fs::write(&path, config.to_string()).unwrap();
    let flags = ["-config-file", &path.display().to_string()];
    let server = Server::start(&flags, "solo", &format!("127.0.0.1:{http}")).await;
    server.ready().await;
    server
        .put("/v1/agent/service/register", &json!({"Name": "web"}))
        .await
        .unwrap();
    for service in ["web", "registry"] {
        let path = format!("/v1/health/service/{service}");
        until(&server, &path, |found| {
            found[0]["Node"]["Address"] == "127.0.0.5" && found[0]["Service"]["Address"] == ""
        })
        .await;
    }
    assert_eq!(server.get("/v1/catalog/service/consul").await, json!([]));
}
