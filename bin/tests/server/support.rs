//! Servers as child processes, and how the tests talk to them.

use std::{
    io::Read,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};
use sider_core::runtime::{Network, NetworkError};
use sider_runtime_tokio::network::TcpNetwork;

/// For what must happen, however slow the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// A port that is free now. Below the ports of outgoing connections, so that none of those takes it meanwhile.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 20_000).unwrap();
    loop {
        let port = 11_000 + (start + NEXT.fetch_add(1, Ordering::SeqCst)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Where a server runs: it can be started there more than once.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) id: String,
    pub(crate) http: String,
    pub(crate) raft: String,
    pub(crate) data: PathBuf,
}

impl Place {
    /// A new place with free ports, its data below `folder`.
    pub(crate) fn new(id: &str, folder: &Path) -> Place {
        Place {
            id: id.to_owned(),
            http: format!("127.0.0.1:{}", free_port()),
            raft: format!("127.0.0.1:{}", free_port()),
            data: folder.join(id),
        }
    }

    /// Starts a server there, with more flags, and waits until it answers.
    pub(crate) async fn start(&self, more: &[&str]) -> Server {
        let data = self.data.display().to_string();
        let mut flags = vec![
            "-http",
            &self.http,
            "-raft-id",
            &self.id,
            "-raft-bind",
            &self.raft,
            "-raft-dir",
            &data,
        ];
        flags.extend(more);
        Server::start(&flags, &self.id, &self.http).await
    }
}

/// A process that is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Guard(pub(crate) Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) id: String,
    pub(crate) http: String,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a server with these flags, which answers at `http`, and waits until it does.
    pub(crate) async fn start(flags: &[&str], id: &str, http: &str) -> Server {
        let child = program()
            .args(flags)
            .args(["-log-level", "warn"])
            .spawn()
            .unwrap();
        let mut server = Server {
            id: id.to_owned(),
            http: http.to_owned(),
            child,
        };
        let deadline = Instant::now() + PATIENCE;
        while server.try_get("/livez").await.is_err() {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "{id} ended with {ended:?}");
            assert!(Instant::now() < deadline, "{id} does not answer");
            tokio::time::sleep(POLL).await;
        }
        server
    }

    /// Sends a request; gives status, headers and body.
    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<http::Response<Bytes>, NetworkError> {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .unwrap();
        TcpNetwork::calling_only()
            .http(&self.http, request, PATIENCE)
            .await
    }

    async fn try_get(&self, path: &str) -> Result<Value, String> {
        let answer = self
            .try_send("GET", path, "")
            .await
            .map_err(|error| error.to_string())?;
        let body = String::from_utf8_lossy(answer.body()).into_owned();
        if !answer.status().is_success() {
            return Err(format!("{}: {body}", answer.status()));
        }
        Ok(serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// The JSON at `path`.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.try_get(path)
            .await
            .unwrap_or_else(|error| panic!("{} GET {path}: {error}", self.id))
    }

    /// Sends JSON; the answer's body.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Value, String> {
        let answer = self
            .try_send("PUT", path, &body.to_string())
            .await
            .map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        if !answer.status().is_success() {
            return Err(format!("{}: {text}", answer.status()));
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Registers an instance; an error when that was not acknowledged.
    pub(crate) async fn register(&self, service: &str, id: &str) -> Result<Value, String> {
        let body = json!({"Name": service, "ID": id, "Address": "127.0.0.1", "Port": 8080});
        self.put("/v1/agent/service/register", &body).await
    }

    /// The ids of a service's instances, in order.
    pub(crate) async fn instances(&self, service: &str) -> Vec<String> {
        ids(&self.get(&format!("/v1/health/service/{service}")).await)
    }

    /// `/v1/raft/stats`.
    pub(crate) async fn stats(&self) -> Value {
        self.get("/v1/raft/stats").await
    }

    /// Waits until it serves linearizable reads.
    pub(crate) async fn ready(&self) {
        until(&format!("{} is ready", self.id), async || {
            self.try_get("/readyz").await.is_ok()
        })
        .await;
    }

    /// Waits until it knows exactly these voters.
    pub(crate) async fn has_voters(&self, ids: &[&str]) {
        let expected = json!(ids);
        until(&format!("{} knows the voters {expected}", self.id), async || {
            self.stats().await["voters"] == expected
        })
        .await;
    }

    /// Sends a signal to this very process.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} does not end", self.id);
            tokio::time::sleep(POLL).await;
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The ids of the instances in a health answer, in order.
pub(crate) fn ids(health: &Value) -> Vec<String> {
    let entries = health
        .as_array()
        .unwrap_or_else(|| panic!("{health} is not a list"));
    let mut ids: Vec<String> = entries
        .iter()
        .map(|entry| entry["Service"]["ID"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Runs the program until it ends by itself; gives its exit status, standard output and standard error.
pub(crate) fn run(flags: &[&str]) -> (ExitStatus, String, String) {
    let mut child = program()
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{flags:?} goes on");
        }
        std::thread::sleep(POLL);
    };
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (status, stdout, stderr)
}

/// The program, without the settings of whoever runs the tests.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sds-server"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SIDER_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}
