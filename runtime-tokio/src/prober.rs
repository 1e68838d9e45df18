//! Probes of health checks: HTTP, TCP, UDP, gRPC, pings, and programs.

mod http2;
mod redirect;
mod secure;
mod web;

use std::{
    future::Future,
    io,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use rustix::process::{Pid, Signal, kill_process_group};
use sider_core::{
    limits,
    runtime::{Probe, ProbeOutcome, ProbeTls, Prober},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    task::JoinSet,
};

use self::{
    secure::{Authorities, Secure, connect},
    web::Asked,
};
use crate::network::http_client;

/// How long the output of a program is read after it has ended: what it left running may hold the pipe open.
const OUTPUT_AFTER_EXIT: Duration = Duration::from_millis(200);

/// Runs probes from this process.
#[derive(Clone, Debug)]
pub struct ProcessProber {
    http: Client<HttpConnector, Full<Bytes>>,
    authorities: Arc<Authorities>,
}

impl Default for ProcessProber {
    fn default() -> Self {
        ProcessProber {
            // A kept connection would say little about whether the service still accepts new ones.
            http: http_client(0),
            authorities: Arc::new(Authorities::new(None)),
        }
    }
}

impl Prober for ProcessProber {
    async fn probe(&self, probe: &Probe, timeout: Duration) -> ProbeOutcome {
        match probe {
            Probe::Http {
                url,
                method,
                headers,
                body,
                tls,
                follows_redirects,
            } => {
                let answered = async {
                    let asked = Asked::new(url, method, headers, body)?;
                    self.http(asked, tls, *follows_redirects).await
                };
                in_time(timeout, answered).await
            }
            Probe::Tcp { address, tls } => in_time(timeout, tcp(address, self.secure(tls))).await,
            Probe::Udp { address } => in_time(timeout, udp(address, timeout / 2)).await,
            Probe::Grpc {
                address,
                service,
                tls,
            } => in_time(timeout, http2::grpc(address, service, self.secure(tls))).await,
            Probe::H2ping { address, tls } => in_time(timeout, http2::ping(address, self.secure(tls))).await,
            Probe::Command { args } => command(args, timeout).await,
        }
    }
}

impl ProcessProber {
    fn secure<'a>(&'a self, tls: &'a Option<ProbeTls>) -> Option<Secure<'a>> {
        let tls = tls.as_ref()?;
        Some(Secure::new(&self.authorities, tls))
    }
}

async fn tcp(address: &str, tls: Option<Secure<'_>>) -> Result<ProbeOutcome, String> {
    let stream = connect(address).await?;
    if let Some(tls) = tls {
        tls.over(stream, address, None).await?;
    }
    Ok(ProbeOutcome::Connected)
}

/// Sends a datagram of one line feed. Most services do not answer it: what counts is that nobody says that they are not
/// there.
async fn udp(address: &str, wait: Duration) -> Result<ProbeOutcome, String> {
    let failed = |error: io::Error| format!("dial udp {address}: {error}");
    let target = tokio::net::lookup_host(address).await.map_err(failed)?.next();
    let target = target.ok_or_else(|| failed(io::Error::other("the name has no address")))?;
    let own: std::net::SocketAddr = match target.is_ipv4() {
        true => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        false => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = tokio::net::UdpSocket::bind(own).await.map_err(failed)?;
    socket.connect(target).await.map_err(failed)?;
    socket.send(b"\n").await.map_err(failed)?;
    let mut buffer = [0; 512];
    match tokio::time::timeout(wait, socket.recv(&mut buffer)).await {
        Ok(Err(error)) => Err(failed(error)),
        Ok(Ok(_)) | Err(_) => Ok(ProbeOutcome::Connected),
    }
}

async fn in_time(
    timeout: Duration,
    probe: impl Future<Output = Result<ProbeOutcome, String>>,
) -> ProbeOutcome {
    match tokio::time::timeout(timeout, probe).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(output)) => ProbeOutcome::Failed {
            output: cut(output.as_bytes()),
        },
        Err(_) => timed_out(timeout),
    }
}

fn timed_out(timeout: Duration) -> ProbeOutcome {
    ProbeOutcome::Failed {
        output: format!("timed out after {timeout:?}"),
    }
}

async fn command(args: &[String], timeout: Duration) -> ProbeOutcome {
    let failed = |output: String| ProbeOutcome::Failed { output };
    let mut running = match Running::start(args) {
        Ok(running) => running,
        Err(error) => return failed(error),
    };
    let output = Arc::new(Mutex::new(Vec::new()));
    let mut reading = JoinSet::new();
    if let Some(stdout) = running.child.stdout.take() {
        reading.spawn(collect(stdout, output.clone()));
    }
    if let Some(stderr) = running.child.stderr.take() {
        reading.spawn(collect(stderr, output.clone()));
    }
    match tokio::time::timeout(timeout, running.wait()).await {
        Ok(Ok(code)) => {
            let all_read = async { while reading.join_next().await.is_some() {} };
            // When it runs out of time, what was read so far is the output.
            let _ = tokio::time::timeout(OUTPUT_AFTER_EXIT, all_read).await;
            let output = cut(&output.lock().unwrap_or_else(PoisonError::into_inner));
            ProbeOutcome::Exited { code, output }
        }
        Ok(Err(error)) => failed(format!("{}: {error}", args[0])),
        Err(_) => timed_out(timeout),
    }
}

/// A program under way. Dropping it ends it with all that it has started.
struct Running {
    child: Child,
    /// Its process group, while it lives.
    group: Option<Pid>,
}

impl Running {
    fn start(args: &[String]) -> Result<Running, String> {
        let (program, rest) = args.split_first().ok_or("no program to run was given")?;
        let child = Command::new(program)
            .args(rest)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Ok(Running {
            child,
            group: id.and_then(Pid::from_raw),
        })
    }

    /// Waits for its end; gives its exit code, or -1 when a signal ended it.
    async fn wait(&mut self) -> io::Result<i32> {
        let status = self.child.wait().await?;
        // Its id may belong to another process from now on.
        self.group = None;
        Ok(status.code().unwrap_or(-1))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // It fails when the group has ended by itself, which is what is wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Reads to the end, so that the program is never held up, and keeps the first of it.
async fn collect(mut from: impl AsyncRead + Unpin, into: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = vec![0; limits::CHECK_OUTPUT_BYTES_MAX];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
        // One byte more than is kept, so that a character cut in two is recognised as such.
        let room = (limits::CHECK_OUTPUT_BYTES_MAX + 1).saturating_sub(into.len());
        into.extend_from_slice(&buffer[..length.min(room)]);
    }
}

/// The text of `output`, cut to what a check keeps.
fn cut(output: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(output).into_owned();
    text.truncate(text.floor_char_boundary(limits::CHECK_OUTPUT_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn probe_command(script: &str, timeout: Duration) -> ProbeOutcome {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        ProcessProber::default()
            .probe(&Probe::Command { args }, timeout)
            .await
    }

    #[tokio::test]
    async fn a_programs_exit_code_and_output_are_reported() {
        assert_eq!(
            probe_command("echo fine; exit 0", PATIENCE).await,
            ProbeOutcome::Exited {
                code: 0,
                output: "fine\n".into()
            }
        );
        assert_eq!(
            probe_command("echo so so >&2; exit 3", PATIENCE).await,
            ProbeOutcome::Exited {
                code: 3,
                output: "so so\n".into()
            }
        );
        assert_eq!(
            probe_command("kill -9 $$", PATIENCE).await,
            ProbeOutcome::Exited {
                code: -1,
                output: String::new()
            }
        );
        let missing = Probe::Command {
            args: vec!["/no/such/program".into()],
        };
        let outcome = ProcessProber::default().probe(&missing, PATIENCE).await;
        assert!(matches!(&outcome, ProbeOutcome::Failed { output } if output.contains("/no/such/program")));
        let nothing = ProcessProber::default()
            .probe(&Probe::Command { args: vec![] }, PATIENCE)
            .await;
        assert!(matches!(nothing, ProbeOutcome::Failed { .. }));
    }

    #[tokio::test]
    async fn long_output_is_cut_and_does_not_hold_the_program_up() {
        let outcome = probe_command("head -c 1000000 /dev/zero | tr '\\0' 'x'; exit 1", PATIENCE).await;
        let ProbeOutcome::Exited { code: 1, output } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(output, "x".repeat(limits::CHECK_OUTPUT_BYTES_MAX));
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_ended_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let alive = folder.path().join("alive");
        // The child would create the file after its parent has been given up.
        let script = format!("(sleep 2; touch {}) & sleep 60", alive.display());
        let outcome = probe_command(&script, Duration::from_millis(100)).await;
        assert_eq!(
            outcome,
            ProbeOutcome::Failed {
                output: "timed out after 100ms".into()
            }
        );
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!alive.exists(), "the child went on");
    }

    #[tokio::test]
    async fn what_a_program_leaves_behind_does_not_hold_up_its_result() {
        let outcome = probe_command("echo done; sleep 20 & exit 0", Duration::from_secs(10)).await;
        assert_eq!(
            outcome,
            ProbeOutcome::Exited {
                code: 0,
                output: "done\n".into()
            }
        );
    }

    #[tokio::test]
    async fn a_port_is_open_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let probe = Probe::Tcp { address, tls: None };
        let prober = ProcessProber::default();
        assert_eq!(prober.probe(&probe, PATIENCE).await, ProbeOutcome::Connected);
        drop(listener);
        assert!(matches!(
            prober.probe(&probe, PATIENCE).await,
            ProbeOutcome::Failed { .. }
        ));
    }

    #[tokio::test]
    async fn a_datagram_is_refused_or_not() {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let probe = Probe::Udp { address };
        let prober = ProcessProber::default();
        let wait = Duration::from_secs(1);
        assert_eq!(prober.probe(&probe, wait).await, ProbeOutcome::Connected);
        drop(socket);
        let outcome = prober.probe(&probe, wait).await;
        assert!(
            matches!(&outcome, ProbeOutcome::Failed { output } if output.starts_with("dial udp")),
            "{outcome:?}"
        );
    }

    #[test]
    fn output_is_cut_between_characters() {
        let text = "ä".repeat(limits::CHECK_OUTPUT_BYTES_MAX);
        let cut = cut(text.as_bytes());
        assert_eq!(cut.len(), limits::CHECK_OUTPUT_BYTES_MAX);
        assert!(cut.chars().all(|character| character == 'ä'));
    }
}
