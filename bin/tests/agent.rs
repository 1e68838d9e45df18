//! `sds-agent` beside a real `sds-server`, as an operator would run them.

#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How late a check may turn critical, and how long a busy machine may take to notice.
const EXPIRY_SLACK: Duration = Duration::from_secs(4);

/// A child process; killed when dropped.
struct Program(Child);

impl Program {
    /// Starts a program; what it logs goes to `log`.
    fn start(path: &str, folder: &Path, log: &str, args: &[&str]) -> Program {
        let log = File::create(folder.join(log)).unwrap();
        let mut command = Command::new(path);
        command.args(args).current_dir(folder);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .env_clear();
        Program(command.spawn().unwrap())
    }

    fn signal(&self, signal: &str) {
        let kill = Command::new("kill")
            .args([signal, &self.0.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
    }

    /// Its exit, which must come by itself.
    fn exit(&mut self) -> ExitStatus {
        let mut status = None;
        until("the program ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `condition` holds.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A request over a connection of its own; `None` when nobody listens.
fn request(port: u16, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}

fn answers(port: u16, path: &str) -> bool {
    request(port, "GET", path, "").is_some_and(|(status, _)| status == 200)
}

fn get(port: u16, path: &str) -> Value {
    request(port, "GET", path, "")
        .filter(|(status, _)| *status == 200)
        .and_then(|(_, body)| serde_json::from_str(&body).ok())
        .unwrap_or(Value::Null)
}

/// A server, its port and its folder.
struct Server {
    program: Program,
    port: u16,
    raft_port: u16,
}

impl Server {
    fn start(folder: &Path) -> Server {
        Server::start_on(folder, free_port(), free_port())
    }

    fn start_on(folder: &Path, port: u16, raft_port: u16) -> Server {
        let args = [
            "-http".to_owned(),
            format!("127.0.0.1:{port}"),
            "-raft-bind".to_owned(),
            format!("127.0.0.1:{raft_port}"),
            "-raft-id=node1".to_owned(),
            "-raft-dir=server".to_owned(),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let program = Program::start(env!("CARGO_BIN_EXE_sds-server"), folder, "server.log", &args);
        until("the server is ready", || answers(port, "/readyz"));
        Server {
            program,
            port,
            raft_port,
        }
    }

    /// The status of a check by its id; empty when it is not there.
    fn status(&self, id: &str) -> String {
        let checks = get(self.port, "/v1/health/state/any");
        let checks = checks.as_array().cloned().unwrap_or_default();
        let check = checks.iter().find(|check| check["CheckID"] == id);
        check.map_or_else(String::new, |check| {
            check["Status"].as_str().unwrap_or_default().into()
        })
    }

    /// Ids of the instances of a service, each on the agent's node.
    fn instances(&self, service: &str) -> Vec<String> {
        let entries = get(self.port, &format!("/v1/health/service/{service}"));
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .map(|entry| {
                assert_eq!(entry["Node"]["Node"], "host-1");
                entry["Service"]["ID"].as_str().unwrap_or_default().to_owned()
            })
            .collect()
    }
}

/// An agent of node `host-1` with this configuration.
fn agent(folder: &Path, servers: &str, http: &str, config: &Value) -> Program {
    std::fs::write(folder.join("agent.json"), config.to_string()).unwrap();
    let args = [
        "-config",
        "agent.json",
        "-node",
        "host-1",
        "-server",
        servers,
        "-http",
        http,
        "--data-dir=agent",
    ];
    Program::start(env!("CARGO_BIN_EXE_sds-agent"), folder, "agent.log", &args)
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("agent.log")).unwrap()
}

#[test]
fn services_come_live_and_go_with_their_agent() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server = Server::start(folder);
    let address = format!("127.0.0.1:{}", server.port);
    let config = json!({"services": [{
        "name": "api", "id": "api-1", "port": 80, "checks": [
            {"type": "ttl", "ttl": "3s"},
            {"type": "http", "http": format!("http://{address}/livez"), "interval": "200ms"},
            {"type": "tcp", "tcp": address, "interval": "200ms"},
            {"type": "cmd", "args": ["/bin/sh", "-c", "test ! -e broken"], "interval": "200ms"},
        ],
    }]});
    let mut program = agent(folder, &address, "off", &config);
    until("every check passes", || {
        (0..4).all(|n| server.status(&format!("chk:api-1:{n}")) == "passing")
    });
    assert_eq!(server.instances("api"), ["api-1"]);
    std::fs::write(folder.join("broken"), "").unwrap();
    until("the program's failure is seen", || {
        server.status("chk:api-1:3") == "critical"
    });
    std::fs::remove_file(folder.join("broken")).unwrap();

    // Renewed all the time, it never expires.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        assert_eq!(server.status("chk:api-1:0"), "passing");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Nobody renews it: it expires, and the instance stays.
    program.signal("-KILL");
    program.exit();
    let killed = Instant::now();
    until("the check expires", || server.status("chk:api-1:0") == "critical");
    assert!(killed.elapsed() < Duration::from_secs(3) + EXPIRY_SLACK);
    assert_eq!(server.instances("api"), ["api-1"]);

    // The data directory of the one that was killed is of use.
    let mut program = agent(folder, &address, "off", &config);
    until("every check passes again", || {
        (0..4).all(|n| server.status(&format!("chk:api-1:{n}")) == "passing")
    });
    program.signal("-TERM");
    assert!(program.exit().success(), "{}", log(folder));
    assert!(server.instances("api").is_empty());
    // The agent's node is gone; that of the server stays.
    let nodes = get(server.port, "/v1/catalog/nodes");
    let names: Vec<_> = nodes.as_array().unwrap().iter().map(|it| &it["Node"]).collect();
    assert_eq!(names, [&json!("sider")]);
}

#[test]
fn what_runs_on_a_dead_host_is_not_passing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server = Server::start(folder);
    let address = format!("127.0.0.1:{}", server.port);
    let http = json!({"type": "http", "http": format!("http://{address}/livez"), "interval": "200ms"});
    let config =
        json!({"node_ttl": "2s", "services": [{"name": "plain"}, {"name": "checked", "checks": [http]}]});
    let mut program = agent(folder, &address, "off", &config);
    let passing = |service: &str| {
        let found = get(server.port, &format!("/v1/health/service/{service}?passing"));
        found.as_array().map_or(0, Vec::len)
    };
    until("both pass", || {
        server.status("serfHealth") == "passing" && passing("plain") == 1 && passing("checked") == 1
    });
    let leave = |status: u16| {
        let answer = request(server.port, "PUT", "/v1/agent/force-leave/host-1", "").unwrap();
        assert_eq!(answer.0, status, "{}", answer.1);
    };
    leave(200);
    assert_eq!(server.instances("plain"), ["plain"], "who is alive stays");
    program.signal("-KILL");
    program.exit();
    until("neither passes", || {
        passing("plain") == 0 && passing("checked") == 0
    });
    assert_eq!(server.instances("plain"), ["plain"]);
    leave(200);
    assert!(server.instances("plain").is_empty());
    leave(500);
}

#[test]
fn a_server_that_lost_everything_gets_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut server = Server::start(folder);
    let address = format!("127.0.0.1:{}", server.port);
    // The first address is nobody's: the agent goes on to the next.
    let servers = format!("127.0.0.1:{},{address}", free_port());
    let config = json!([{"name": "api", "checks": [{"type": "ttl", "ttl": "2s"}]}, {"name": "plain"}]);
    let http = format!("127.0.0.1:{}", free_port());
    let port: u16 = http.rsplit(':').next().unwrap().parse().unwrap();
    let mut program = agent(folder, &servers, &http, &config);
    until("the agent answers", || answers(port, "/livez"));
    until("it is registered", || server.status("chk:api:0") == "passing");
    let body = r#"{"Name": "web", "Check": {"TTL": "60s", "Status": "passing"}}"#;
    let (status, answer) = request(port, "PUT", "/v1/agent/service/register", body).unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(server.instances("web"), ["web"]);

    server.program.signal("-KILL");
    server.program.exit();
    std::fs::remove_dir_all(folder.join("server")).unwrap();
    let (status, answer) = request(port, "PUT", "/v1/agent/check/pass/service:web", "").unwrap();
    assert_eq!(status, 500, "{answer}");
    let server = Server::start_on(folder, server.port, server.raft_port);
    until("everything is back", || {
        server.status("chk:api:0") == "passing"
            && server.status("service:web") == "passing"
            && server.instances("plain") == ["plain"]
    });
    program.signal("-TERM");
    assert!(program.exit().success(), "{}", log(folder));
}

#[test]
fn registrations_through_its_api_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server = Server::start(folder);
    let address = format!("127.0.0.1:{}", server.port);
    let port = free_port();
    let http = format!("127.0.0.1:{port}");
    for end in ["-KILL", "-TERM"] {
        let mut program = agent(folder, &address, &http, &json!([]));
        until("the agent answers", || answers(port, "/livez"));
        if end == "-KILL" {
            let body = r#"{"Name": "web", "Tags": ["kept"]}"#;
            let (status, answer) = request(port, "PUT", "/v1/agent/service/register", body).unwrap();
            assert_eq!(status, 200, "{answer}");
        }
        until("it is registered", || server.instances("web") == ["web"]);
        program.signal(end);
        program.exit();
    }
    assert!(server.instances("web").is_empty());
    let _program = agent(folder, &address, &http, &json!([]));
    until("it is registered again", || server.instances("web") == ["web"]);
    assert_eq!(get(port, "/v1/agent/service/web")["Tags"], json!(["kept"]));
}

#[test]
fn it_is_reloaded_asked_about_its_process_and_told_to_leave() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server = Server::start(folder);
    let address = format!("127.0.0.1:{}", server.port);
    let port = free_port();
    let http = format!("127.0.0.1:{port}");
    let mut program = agent(folder, &address, &http, &json!([{"name": "one"}]));
    until("it is registered", || server.instances("one") == ["one"]);
    let configure = |config: &str| std::fs::write(folder.join("agent.json"), config).unwrap();

    configure(r#"[{"name": "two"}]"#);
    assert_eq!(request(port, "PUT", "/v1/agent/reload", "").unwrap().0, 200);
    until("only the second is there", || {
        server.instances("one").is_empty() && server.instances("two") == ["two"]
    });
    configure(r#"[{"name": "two"}, {"name": "three"}]"#);
    program.signal("-HUP");
    until("the third is there", || server.instances("three") == ["three"]);
    configure(r#"[{"name": "two", "port": "x"}]"#);
    let (status, refused) = request(port, "PUT", "/v1/agent/reload", "").unwrap();
    assert!(status == 500 && refused.contains("agent.json"), "{refused}");
    assert_eq!(server.instances("three"), ["three"]);

    assert!(get(port, "/v1/agent/host")["Memory"]["total"].as_u64().unwrap() > 0);
    let metrics = get(port, "/v1/agent/metrics").to_string();
    assert!(metrics.contains(".runtime.alloc_bytes"), "{metrics}");
    assert_eq!(request(port, "PUT", "/v1/agent/leave", "").unwrap().0, 200);
    assert!(program.exit().success(), "{}", log(folder));
    assert!(server.instances("three").is_empty());
}

#[test]
fn without_a_server_it_goes_on_trying_and_ends_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server_port = free_port();
    let address = format!("127.0.0.1:{server_port}");
    let mut program = agent(folder, &address, "off", &json!([{"name": "api"}]));
    until("it complains", || {
        log(folder).contains("no server can be reached")
    });
    let told = Instant::now();
    program.signal("-TERM");
    let exit = program.exit();
    assert_eq!(exit.code(), Some(1), "its services could not be deregistered");
    assert!(told.elapsed() < Duration::from_secs(15));
    let text = log(folder);
    assert!(
        text.contains("sds-agent: the services of node host-1 could not be deregistered"),
        "{text}"
    );
}

#[test]
fn what_keeps_it_from_starting_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    std::fs::write(folder.join("file"), "").unwrap();
    let nobody = format!("127.0.0.1:{}", free_port());
    std::fs::write(
        folder.join("bad.json"),
        r#"{"services": [{"name": "x", "port": 70000}]}"#,
    )
    .unwrap();
    for (args, code, part) in [
        (vec!["-http", &taken], 1, "the port is in use"),
        (vec!["-http=off", "-data-dir", "file"], 1, "file"),
        (vec!["-config", "bad.json"], 1, "services[0]: Port"),
        (vec!["-config", "none.json"], 1, "none.json"),
        (vec!["-server", "nowhere"], 1, "nowhere"),
        (vec!["-log-level", "loud"], 1, "loud"),
        (vec!["-colour"], 2, "--colour"),
    ] {
        let mut all = vec!["-node", "n", "-server", nobody.as_str()];
        if args[0] == "-server" {
            all.truncate(2);
        }
        all.extend(&args);
        let mut program = Program::start(env!("CARGO_BIN_EXE_sds-agent"), folder, "agent.log", &all);
        assert_eq!(program.exit().code(), Some(code), "{args:?}");
        let text = log(folder);
        assert!(
            text.starts_with("sds-agent: ") && text.contains(part),
            "{args:?}: {text}"
        );
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    }
}

#[test]
fn two_agents_do_not_share_a_data_directory() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let nobody = format!("127.0.0.1:{}", free_port());
    let _first = agent(folder, &nobody, "off", &json!([]));
    until("the first runs", || log(folder).contains("the agent runs"));
    let args = ["-node=other", "-http=off", "-data-dir=agent", "-server", &nobody];
    let mut second = Program::start(env!("CARGO_BIN_EXE_sds-agent"), folder, "second.log", &args);
    assert_eq!(second.exit().code(), Some(1));
    let text = std::fs::read_to_string(folder.join("second.log")).unwrap();
    assert!(text.contains("in use by another process"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}
