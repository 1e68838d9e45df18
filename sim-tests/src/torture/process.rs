//! Real servers: started, hurt, healed and stopped. None outlives the run, however that ends.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Options, disks::Disks, evidence::Raw, http, proxy::Links};

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(100);
/// A server that is told to stop has this long.
const STOP: Duration = Duration::from_secs(20);
/// So many lines of what a server wrote are told with its end.
const LAST_LINES: usize = 3;

/// Ports of servers, unless the kernel takes some of these for outgoing connections.
const PORTS_BEGIN: u16 = 11_000;
const PORTS_END: u16 = 32_000;

/// Kills what is left of a run when the run is gone, and takes its disks away: it hears of each process, and of the end by
/// the end of its input.
const GUARD: &str = "trap '' INT TERM HUP; pids=' '; while read -r op pid; do \
    case $op in +) pids=\"$pids$pid \";; -) pids=$(echo \"$pids\" | sed \"s/ $pid / /\");; esac; done; \
    for pid in $pids; do kill -9 $pid 2>/dev/null; done; \
    for disk in \"$1\"/s*; do if grep -qF \" $disk \" /proc/mounts 2>/dev/null; then sleep 1; umount \"$disk\"; fi; done";

/// All servers of a run.
pub(super) struct Servers {
    programs: PathBuf,
    folder: PathBuf,
    seats: Vec<Seat>,
    links: Links,
    guard: Mutex<Option<(Child, ChildStdin)>>,
    disks: Disks,
    /// Whose disk was full: it may have ended for that.
    filled: Mutex<Option<usize>>,
    /// When processes were started.
    starts: Mutex<Vec<(u8, Instant)>>,
    ended: Mutex<Vec<(u8, String)>>,
}

/// A server's place: its addresses and its process.
struct Seat {
    id: String,
    http: SocketAddr,
    /// Where clients reach it.
    clients: SocketAddr,
    data: PathBuf,
    flags: Vec<String>,
    child: Mutex<Option<Child>>,
}

impl Servers {
    pub(super) fn start(options: &Options, count: usize) -> Result<Servers, String> {
        let text = |error: std::io::Error| error.to_string();
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&options.folder)
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| format!("sh: {error}"))?;
        let input = guard.stdin.take().expect("it was asked for");
        let links = Links::default();
        let folder = options.folder.clone();
        let disks = Disks::mount(&folder, count);
        let mut addresses = Addresses::new();
        let mut seats = Vec::new();
        for server in 0..count {
            let (http, raft) = (addresses.take().map_err(text)?, addresses.take().map_err(text)?);
            seats.push(Seat {
                id: format!("s{server}"),
                http,
                clients: links.open_way(server, http, false).map_err(text)?,
                data: disks.of(server).join("data"),
                flags: vec![
                    format!("-http={http}"),
                    format!("-raft-bind={raft}"),
                    format!(
                        "-raft-advertise={}",
                        links.open_way(server, raft, true).map_err(text)?
                    ),
                ],
                child: Mutex::new(None),
            });
        }
        let config = folder.join("cluster.json");
        // Entries stay in the log, so that it can be read afterwards; checkpoints are made all the same. What is in the
        // catalog comes from clients.
        let settings = json!({
            "snapshot_threshold": 200, "snapshot_log_keep": 10_000_000, "register_servers": false,
        });
        fs::write(&config, settings.to_string()).map_err(text)?;
        for seat in &mut seats {
            seat.flags.push(format!("-config={}", config.display()));
            seat.flags.push(format!("-raft-id={}", seat.id));
            seat.flags.push(format!("-raft-dir={}", seat.data.display()));
            seat.flags.extend(["-grpc=off", "-dns=off"].map(str::to_owned));
            let first = seat.id == "s0";
            seat.flags.push(format!("-raft-bootstrap={first}"));
        }
        let servers = Servers {
            programs: options.programs.clone(),
            folder,
            seats,
            links,
            guard: Mutex::new(Some((guard, input))),
            disks,
            filled: Mutex::default(),
            starts: Mutex::default(),
            ended: Mutex::default(),
        };
        (0..count).for_each(|server| servers.restart(server));
        for server in 1..count {
            servers.add(server)?;
        }
        Ok(servers)
    }

    pub(super) fn links(&self) -> &Links {
        &self.links
    }

    /// Where clients reach a server.
    pub(super) fn client_address(&self, server: usize) -> SocketAddr {
        self.seats[server].clients
    }

    /// Servers that ended though nobody killed them and their disk was not filled, with what they wrote last.
    pub(super) fn ended(&self) -> Vec<(u8, String)> {
        lock(&self.ended).clone()
    }

    /// When processes of servers were started after a moment, in nanoseconds since then.
    pub(super) fn starts(&self, began: Instant) -> Vec<(u8, u64)> {
        let since = |at: Instant| Some(super::nanos(at.checked_duration_since(began)?));
        let starts = lock(&self.starts).clone();
        starts
            .into_iter()
            .filter_map(|(server, at)| Some((server, since(at)?)))
            .collect()
    }

    /// What servers wrote of panics.
    pub(super) fn panics(&self) -> Vec<String> {
        let of_server = |seat: &Seat| {
            let log = fs::read(self.folder.join(format!("{}.log", seat.id))).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).into_owned();
            let lines: Vec<&str> = log.lines().collect();
            let panics = lines.windows(2).filter(|two| two[0].contains("panicked at "));
            panics
                .map(|two| format!("{}: {}: {}", seat.id, two[0], two[1]))
                .collect::<Vec<_>>()
        };
        self.seats.iter().flat_map(of_server).collect()
    }

    /// Takes note of it if a server has ended by itself.
    fn look_at(&self, server: usize, child: &mut Option<Child>) {
        let Some(running) = child.as_mut() else { return };
        let Ok(Some(status)) = running.try_wait() else {
            return;
        };
        self.tell_guard('-', running.id());
        *child = None;
        if *lock(&self.filled) == Some(server) {
            return;
        }
        let number = u8::try_from(server).unwrap_or(u8::MAX);
        lock(&self.ended).push((number, format!("{status}: {}", self.last_lines(server))));
    }

    /// What a server wrote last, the newest line first.
    fn last_lines(&self, server: usize) -> String {
        let log = fs::read_to_string(self.folder.join(format!("{}.log", self.seats[server].id)));
        let log = log.unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(LAST_LINES).collect();
        last.join(" | ")
    }

    /// Starts a server's process unless it runs.
    pub(super) fn restart(&self, server: usize) {
        let seat = &self.seats[server];
        let mut child = lock(&seat.child);
        self.look_at(server, &mut child);
        if child.is_some() {
            return;
        }
        let log = self.folder.join(format!("{}.log", seat.id));
        let log = fs::File::options().create(true).append(true).open(log);
        let (Ok(out), Some(err)) = (&log, log.as_ref().ok().and_then(|log| log.try_clone().ok())) else {
            return;
        };
        let Ok(out) = out.try_clone() else { return };
        let number = u8::try_from(server).unwrap_or(u8::MAX);
        lock(&self.starts).push((number, Instant::now()));
        let started = Command::new(self.programs.join("sds-server"))
            .args(&seat.flags)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn();
        if let Ok(started) = started {
            self.tell_guard('+', started.id());
            self.links.started(server, started.id());
            *child = Some(started);
        }
    }

    /// Ends a server's process at once.
    pub(super) fn kill(&self, server: usize) {
        let mut child = lock(&self.seats[server].child);
        self.look_at(server, &mut child);
        if let Some(mut child) = child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
            self.tell_guard('-', child.id());
        }
    }

    /// Sends a signal to a server's process.
    pub(super) fn signal(&self, server: usize, signal: &str) {
        if let Some(child) = lock(&self.seats[server].child).as_mut()
            && matches!(child.try_wait(), Ok(None))
        {
            let pid = child.id().to_string();
            // `kill` can fail only because the process has just ended.
            let _ = Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        }
    }

    /// Cuts servers off from power, all at once: their processes end, and what they had not synced is gone.
    ///
    /// # Errors
    /// A disk can't be put back in its place.
    pub(super) fn cut_power(&self, servers: &[usize]) -> Result<(), String> {
        servers.iter().for_each(|server| self.kill(*server));
        servers
            .iter()
            .try_for_each(|server| self.disks.cut_power(*server))
    }

    /// Whether servers can be cut off from power here.
    pub(super) fn lose_power(&self) -> bool {
        self.disks.lose_power()
    }

    /// Fills the small disk; gives whose it is, or `None` if there is none.
    pub(super) fn fill_disk(&self) -> Option<usize> {
        *lock(&self.filled) = self.disks.fill();
        *lock(&self.filled)
    }

    pub(super) fn empty_disk(&self) {
        self.disks.empty();
    }

    /// Ends every harm.
    pub(super) fn heal(&self) {
        self.links.heal();
        self.empty_disk();
        for server in 0..self.seats.len() {
            self.signal(server, "CONT");
            self.restart(server);
        }
    }

    /// What each server says of itself; `null` where it does not answer.
    pub(super) fn stats(&self) -> Vec<Value> {
        let request = ::http::Request::get("/v1/raft/stats")
            .body(Bytes::new())
            .expect("a valid request");
        let ask = |seat: &Seat| match http::send(seat.http, &request, Duration::from_secs(2)) {
            Raw::Answer {
                status: 200, body, ..
            } => serde_json::from_slice(&body).unwrap_or_default(),
            _ => Value::Null,
        };
        self.seats.iter().map(ask).collect()
    }

    /// Waits until what the servers say of themselves fulfils a condition. Servers that have ended are started again.
    pub(super) fn wait_until(
        &self,
        what: &str,
        within: Duration,
        condition: impl Fn(&[Value]) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + within;
        loop {
            let stats = self.stats();
            if stats.iter().all(|it| !it.is_null()) && condition(&stats) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let of_server = |(server, stats): (usize, &Value)| match stats {
                    Value::Null => {
                        format!("s{server} does not answer, and wrote {}", self.last_lines(server))
                    }
                    stats => format!("s{server} says {stats}"),
                };
                let each: Vec<String> = stats.iter().enumerate().map(of_server).collect();
                return Err(format!(
                    "it was never so that {what}; everything is in {}\n{}",
                    self.folder.display(),
                    each.join("\n")
                ));
            }
            // A server whose disk was full may end only after the disk has room again.
            (0..self.seats.len()).for_each(|server| self.restart(server));
            thread::sleep(LOOK);
        }
    }

    /// Adds a server to the cluster of the first.
    fn add(&self, server: usize) -> Result<(), String> {
        let seat = &self.seats[server];
        let raft = seat
            .flags
            .iter()
            .find_map(|flag| flag.strip_prefix("-raft-advertise="));
        let body = json!({ "ID": seat.id, "Addr": raft, "HTTP": seat.http.to_string() });
        let request = ::http::Request::post("/v1/raft/join")
            .body(Bytes::from(body.to_string()))
            .expect("a valid request");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = http::send(self.seats[0].http, &request, Duration::from_secs(15));
            match &answer {
                Raw::Answer { status: 200, .. } => return Ok(()),
                // To join twice is to join.
                _ if Instant::now() < deadline => thread::sleep(LOOK),
                _ => return Err(format!("{} could not be added: {answer:?}", seat.id)),
            }
        }
    }

    /// Stops every server as an operator would.
    pub(super) fn stop(&self) -> Result<(), String> {
        (0..self.seats.len()).for_each(|server| self.signal(server, "TERM"));
        let deadline = Instant::now() + STOP;
        for seat in &self.seats {
            let mut child = lock(&seat.child);
            let Some(running) = child.as_mut() else { continue };
            while matches!(running.try_wait(), Ok(None)) {
                if Instant::now() >= deadline {
                    return Err(format!("{} does not stop within {STOP:?}", seat.id));
                }
                thread::sleep(LOOK);
            }
            self.tell_guard('-', running.id());
            *child = None;
        }
        Ok(())
    }

    /// What `sds debug log` prints of each stopped server.
    pub(super) fn logs(&self) -> Result<Vec<String>, String> {
        let read = |seat: &Seat| {
            let output = Command::new(self.programs.join("sds"))
                .args(["debug", "log"])
                .arg(&seat.data)
                .output()
                .map_err(|error| format!("sds: {error}"))?;
            match output.status.success() {
                true => String::from_utf8(output.stdout).map_err(|error| error.to_string()),
                false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            }
        };
        self.seats.iter().map(read).collect()
    }

    fn tell_guard(&self, what: char, process: u32) {
        if let Some((_, input)) = lock(&self.guard).as_mut() {
            // Without a guard the servers are killed by `drop` alone.
            let _ = writeln!(input, "{what} {process}");
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        (0..self.seats.len()).for_each(|server| self.kill(server));
        if let Some((mut guard, input)) = lock(&self.guard).take() {
            drop(input);
            let _ = guard.wait();
        }
    }
}

/// Gives addresses for servers, each of them once. They keep theirs while they are down, so it must be one that the kernel
/// gives nobody in the meantime: outside of the range from which it takes those of outgoing connections.
struct Addresses {
    /// The next candidate.
    next: u16,
    end: u16,
}

impl Addresses {
    fn new() -> Addresses {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let end = range
            .split_whitespace()
            .next()
            .and_then(|first| first.parse().ok());
        let end = end.unwrap_or(PORTS_END).min(PORTS_END);
        // Runs side by side begin at different places.
        let offset = std::process::id() * 61 % u32::from(PORTS_END - PORTS_BEGIN);
        let next = u16::try_from(offset).map_or(PORTS_BEGIN, |offset| PORTS_BEGIN + offset);
        Addresses { next, end }
    }

    fn take(&mut self) -> std::io::Result<SocketAddr> {
        for _ in PORTS_BEGIN..PORTS_END {
            let candidate = self.next;
            self.next = match candidate + 1 < self.end {
                true => candidate + 1,
                false => PORTS_BEGIN,
            };
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", candidate)) {
                return listener.local_addr();
            }
        }
        Err(std::io::ErrorKind::AddrInUse.into())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
