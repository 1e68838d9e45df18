//! What stands in every link: between each pair of servers, and between clients and servers. It passes bytes on, until the
//! link is cut.
//!
//! All servers reach a server at the same address, so who has called is found out from the kernel: which process owns
//! the other end of a connection.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How often a connection looks whether its link is cut.
const LOOK: Duration = Duration::from_millis(20);

/// The state of all links. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Links(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The servers' processes.
    processes: BTreeMap<u32, usize>,
    /// The server that is cut off, and whether its connections stay open.
    isolated: Option<(usize, bool)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Passage {
    Open,
    /// Nothing passes; the connections stay.
    Silent,
    Cut,
}

impl Links {
    /// A server has a new process.
    pub(super) fn started(&self, server: usize, process: u32) {
        let mut state = self.lock();
        state.processes.retain(|_, of| *of != server);
        state.processes.insert(process, server);
    }

    /// Cuts a server off from the others.
    pub(super) fn isolate(&self, server: usize, silent: bool) {
        self.lock().isolated = Some((server, silent));
    }

    /// Opens everything.
    pub(super) fn heal(&self) {
        self.lock().isolated = None;
    }

    /// Opens a way to `target`, a port of `server`; gives its address. `from_servers`: it is used by other servers alone.
    pub(super) fn open_way(
        &self,
        server: usize,
        target: SocketAddr,
        from_servers: bool,
    ) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let links = self.clone();
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let links = links.clone();
                thread::spawn(move || {
                    // A connection that breaks is what a proxy is for.
                    drop(links.connect(&caller, target, server, from_servers));
                });
            }
        });
        Ok(address)
    }

    fn connect(
        &self,
        caller: &TcpStream,
        target: SocketAddr,
        to: usize,
        from_servers: bool,
    ) -> io::Result<()> {
        let from = if from_servers { self.caller(caller)? } else { None };
        while self.passage(from, to) == Passage::Silent {
            thread::sleep(LOOK);
        }
        if self.passage(from, to) == Passage::Cut {
            return caller.shutdown(Shutdown::Both);
        }
        let callee = TcpStream::connect_timeout(&target, Duration::from_secs(1))?;
        for stream in [caller, &callee] {
            stream.set_nodelay(true)?;
        }
        let (links, there, back) = (self.clone(), caller.try_clone()?, callee.try_clone()?);
        let forth = thread::spawn(move || links.pass(there, back, from, to));
        let result = self.pass(callee, caller.try_clone()?, from, to);
        // Its end is seen by both.
        drop(forth.join());
        result
    }

    /// Passes bytes on in one direction until either end is closed or the link is cut.
    fn pass(
        &self,
        mut source: TcpStream,
        mut sink: TcpStream,
        from: Option<usize>,
        to: usize,
    ) -> io::Result<()> {
        source.set_read_timeout(Some(LOOK))?;
        let mut piece = [0; 32 * 1024];
        let result = loop {
            let read = match source.read(&mut piece) {
                Ok(0) => break Ok(()),
                Ok(read) => read,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    0
                }
                Err(error) => break Err(error),
            };
            while self.passage(from, to) == Passage::Silent {
                thread::sleep(LOOK);
            }
            if self.passage(from, to) == Passage::Cut {
                break Ok(());
            }
            if let Err(error) = sink.write_all(&piece[..read]) {
                break Err(error);
            }
        };
        for stream in [&source, &sink] {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        result
    }

    fn passage(&self, from: Option<usize>, to: usize) -> Passage {
        match (from, self.lock().isolated) {
            (Some(from), Some((isolated, silent))) if (from == isolated) != (to == isolated) => {
                match silent {
                    true => Passage::Silent,
                    false => Passage::Cut,
                }
            }
            _ => Passage::Open,
        }
    }

    /// The server whose process has the other end of a connection.
    fn caller(&self, caller: &TcpStream) -> io::Result<Option<usize>> {
        let port = caller.peer_addr()?.port();
        let local = format!("0100007F:{port:04X}");
        let table = fs::read_to_string("/proc/net/tcp")?;
        let inode = table.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (fields.get(1) == Some(&local.as_str()))
                .then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
        });
        let Some(inode) = inode else { return Ok(None) };
        let socket = format!("socket:[{inode}]");
        let processes: Vec<(u32, usize)> = self.lock().processes.clone().into_iter().collect();
        let owns = |process: u32| {
            let files = fs::read_dir(format!("/proc/{process}/fd"))
                .into_iter()
                .flatten()
                .flatten();
            files
                .filter_map(|file| fs::read_link(file.path()).ok())
                .any(|link| link.as_os_str() == socket.as_str())
        };
        Ok(processes
            .into_iter()
            .find(|(process, _)| owns(*process))
            .map(|(_, server)| server))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
