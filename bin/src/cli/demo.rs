//! `sds demo`: three servers and an agent in the foreground, as child processes, until Ctrl-C.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::json;
use tokio::process::{Child, Command};

use super::{CliError, Client, DemoArgs};

/// Servers of the demo cluster.
const SERVERS: usize = 3;
/// How long a server or the cluster may take to come up.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a child may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// Between two looks at something that is awaited.
const POLL: Duration = Duration::from_millis(50);

/// One child process.
struct Process {
    name: String,
    child: Child,
}

pub(super) async fn run(args: &DemoArgs) -> Result<(), CliError> {
    let (folder, temporary) = match &args.data_dir {
        Some(folder) => (folder.clone(), false),
        None => (
            std::env::temp_dir().join(format!("sider-demo-{}", std::process::id())),
            true,
        ),
    };
    std::fs::create_dir_all(&folder)
        .map_err(|error| CliError::Other(format!("cannot create {}: {error}", folder.display())))?;
    let mut processes = Vec::new();
    let outcome = tokio::select! {
        outcome = start_and_wait(args, &folder, &mut processes) => outcome,
        _ = interrupted() => {
            println!("\nstopping");
            Ok(())
        }
    };
    // The agent was started last and stops first, so that it can deregister.
    for process in processes.iter_mut().rev() {
        stop(process).await;
    }
    if temporary {
        let _ = std::fs::remove_dir_all(&folder);
    }
    outcome
}

/// Ends at SIGINT or SIGTERM.
async fn interrupted() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => _ = signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

async fn start_and_wait(
    args: &DemoArgs,
    folder: &Path,
    processes: &mut Vec<Process>,
) -> Result<(), CliError> {
    let mut http = Vec::new();
    let mut raft = Vec::new();
    for port in free_ports(2 * SERVERS + 1)?.chunks(2) {
        match port {
            [http_port, raft_port] => {
                http.push(format!("127.0.0.1:{http_port}"));
                raft.push(format!("127.0.0.1:{raft_port}"));
            }
            [agent_port] => http.push(format!("127.0.0.1:{agent_port}")),
            _ => {}
        }
    }
    for n in 0..SERVERS {
        let id = format!("node{}", n + 1);
        let data = folder.join(&id);
        processes.push(spawn(
            "sds-server",
            &id,
            folder,
            &[
                "-http",
                &http[n],
                "-raft-id",
                &id,
                "-raft-bind",
                &raft[n],
                "-raft-dir",
                &data.to_string_lossy(),
                if n == 0 {
                    "-raft-bootstrap=true"
                } else {
                    "-raft-bootstrap=false"
                },
            ],
        )?);
        wait_for(processes, &http[n], "/livez").await?;
        println!(
            "{id}: http {}  raft {}  data {}",
            http[n],
            raft[n],
            data.display()
        );
    }
    let first = Client::new(&http[..1]);
    wait_for(processes, &http[0], "/readyz").await?;
    for n in 1..SERVERS {
        let id = format!("node{}", n + 1);
        first
            .put("/v1/raft/join", &json!({"ID": id, "Addr": raft[n]}))
            .await?;
        wait_for(processes, &http[n], "/readyz").await?;
        println!("{id} has joined");
    }
    start_agent(args, folder, &http, processes).await?;
    println!("\ntry:  sds --server {} members", http[0]);
    println!("      curl 'http://{}/v1/health/service/demo?passing=1'", http[1]);
    println!("Ctrl-C stops everything.");
    loop {
        tokio::time::sleep(POLL * 10).await;
        ended(processes)?;
    }
}

async fn start_agent(
    args: &DemoArgs,
    folder: &Path,
    http: &[String],
    processes: &mut Vec<Process>,
) -> Result<(), CliError> {
    let config = match &args.agent_config {
        Some(config) => config.clone(),
        None => demo_config(folder)?,
    };
    let data = folder.join("agent");
    let agent = &http[SERVERS];
    processes.push(spawn(
        "sds-agent",
        "agent",
        folder,
        &[
            "-config",
            &config.to_string_lossy(),
            "-server",
            &http[..SERVERS].join(","),
            "-http",
            agent,
            "-node",
            "demo-host",
            "-data-dir",
            &data.to_string_lossy(),
        ],
    )?);
    wait_for(processes, agent, "/v1/agent/services").await?;
    println!("agent: http {agent}  data {}", data.display());
    Ok(())
}

fn demo_config(folder: &Path) -> Result<PathBuf, CliError> {
    let path = folder.join("agent.json");
    let config = json!({"services": [{
        "Name": "demo", "ID": "demo-1", "Address": "127.0.0.1", "Port": 8080,
        "Checks": [{"type": "ttl", "ttl": "15s"}],
    }]});
    std::fs::write(&path, format!("{config:#}\n"))
        .map_err(|error| CliError::Other(format!("cannot write {}: {error}", path.display())))?;
    Ok(path)
}

/// Starts a program that stands beside this one; what it logs goes to a file in `folder`.
fn spawn(program: &str, name: &str, folder: &Path, args: &[&str]) -> Result<Process, CliError> {
    let path = std::env::current_exe()
        .map_err(|error| CliError::Other(format!("cannot find this program's folder: {error}")))?
        .with_file_name(program);
    let log = std::fs::File::create(folder.join(format!("{name}.log")))
        .map_err(|error| CliError::Other(format!("cannot write a log into {}: {error}", folder.display())))?;
    let child = Command::new(&path)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Ctrl-C goes to the whole group of the terminal: the children must not see it before they are told to stop.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| CliError::Other(format!("cannot start {}: {error}", path.display())))?;
    Ok(Process {
        name: name.to_owned(),
        child,
    })
}

/// Ports that were free a moment ago. All are held until the last is found, so that none is given twice.
fn free_ports(count: usize) -> Result<Vec<u16>, CliError> {
    let failed = |error: std::io::Error| CliError::Other(format!("no free port on 127.0.0.1: {error}"));
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").map_err(failed)?);
    }
    listeners
        .iter()
        .map(|listener| Ok(listener.local_addr().map_err(failed)?.port()))
        .collect()
}

async fn wait_for(processes: &mut [Process], address: &str, path: &str) -> Result<(), CliError> {
    let client = Client::new(&[address.to_owned()]);
    let wait = async {
        loop {
            ended(processes)?;
            if client.get(path).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(START_TIMEOUT, wait)
        .await
        .unwrap_or_else(|_| Err(CliError::Other(format!("{address}{path} did not answer in time"))))
}

/// An error if a child has ended by itself.
fn ended(processes: &mut [Process]) -> Result<(), CliError> {
    for process in processes {
        if let Ok(Some(status)) = process.child.try_wait() {
            return Err(CliError::Other(format!(
                "{} ended by itself: {status}",
                process.name
            )));
        }
    }
    Ok(())
}

async fn stop(process: &mut Process) {
    if let Some(pid) = process.child.id() {
        // The standard library can only kill; the polite signal goes through the program made for it.
        let _ = Command::new("kill")
            .args(["-TERM", &pid.to_string()])
            .status()
            .await;
    }
    if tokio::time::timeout(STOP_TIMEOUT, process.child.wait())
        .await
        .is_err()
    {
        eprintln!("{} does not stop: killing it", process.name);
        let _ = process.child.kill().await;
    }
}
