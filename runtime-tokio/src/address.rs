//! Addresses: where to listen, and under which address others find this host.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that wait to be accepted; the system may cut it.
const BACKLOG: u32 = 4_096;
/// A connection on which nothing happens is probed after this long.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// Listens at `address`: `host:port`, or `:port` for all interfaces, IPv4 and IPv6 alike where the host has both.
///
/// # Errors
/// One line that names the address: it can't be understood, is in use, or is not this host's.
pub async fn listen(address: &str) -> io::Result<TcpListener> {
    let (host, port) = split(address).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    if host.is_empty() {
        // One socket for both families; a host without IPv6 gets one for IPv4.
        let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        return match bind(both) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => bind(ipv4),
            bound => bound,
        }
        .map_err(|error| explain(address, &error));
    }
    let resolved = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| explain(address, &error))?;
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in resolved {
        match bind(candidate) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(explain(address, &failure))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if address.is_ipv6() && address.ip().is_unspecified() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // A server that is started again must not wait until the connections of its last life have timed out.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn explain(address: &str, error: &io::Error) -> io::Error {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "the port is in use by another process".to_owned(),
        io::ErrorKind::AddrNotAvailable => "it is not an address of this host".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("can't listen on {address}: {why}"))
}

/// Splits `host:port`, `:port` or `[v6]:port`; the host comes without brackets.
///
/// # Errors
/// What was expected.
pub fn split(address: &str) -> Result<(&str, u16), String> {
    let expected = || format!("{address:?} is not an address: expected host:port or :port");
    let (host, port) = address.rsplit_once(':').ok_or_else(expected)?;
    let port = port.parse().map_err(|_| expected())?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(expected)?,
        None if host.contains(':') => return Err(expected()),
        None => host,
    };
    if host.contains(char::is_whitespace) || host.contains('/') {
        return Err(expected());
    }
    Ok((host, port))
}

/// The address that others should use for a listener that was asked for as `address` and got `bound`: the host as it
/// was written, this host's own address for a wildcard, and the port that was really bound.
pub fn advertised(address: &str, bound: SocketAddr) -> String {
    let host = split(address).map_or("", |(host, _)| host);
    let wildcard = host.is_empty() || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    if wildcard {
        return SocketAddr::new(own_address(), bound.port()).to_string();
    }
    if host.contains(':') {
        return format!("[{host}]:{}", bound.port());
    }
    format!("{host}:{}", bound.port())
}

/// The address by which this host would reach others; loopback when it has no network.
pub fn own_address() -> IpAddr {
    // Connecting a UDP socket sends nothing: it only makes the system choose a source address. These destinations
    // are reserved for documentation, so that they are routed like any foreign host.
    let source = |local: IpAddr, destination: IpAddr| -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((local, 0))?;
        socket.connect((destination, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    let v4 = || source(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let v6 = || {
        source(
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        )
    };
    let usable = |ip: &IpAddr| !ip.is_unspecified();
    v4().ok()
        .filter(usable)
        .or_else(|| v6().ok().filter(usable))
        .unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// Sets what every connection of a server needs: small messages must not wait for more to come, and a connection to a
/// host that has vanished must end one day.
pub(crate) fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_AFTER)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split() {
        assert_eq!(split(":8500"), Ok(("", 8500)));
        assert_eq!(split("10.0.0.1:1"), Ok(("10.0.0.1", 1)));
        assert_eq!(split("db.example:65535"), Ok(("db.example", 65535)));
        assert_eq!(split("[::1]:80"), Ok(("::1", 80)));
        for bad in [
            "",
            "8500",
            "host",
            "host:",
            "host:70000",
            "host:x",
            "::1:80",
            "[::1:80",
            "a b:1",
            "http://a:1",
        ] {
            let error = split(bad).unwrap_err();
            assert!(error.contains("expected host:port"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_wildcard_takes_both_families_and_is_advertised_by_a_real_address() {
        let listener = listen(":0").await.unwrap();
        let bound = listener.local_addr().unwrap();
        tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, bound.port()))
            .await
            .unwrap();
        if bound.is_ipv6() {
            tokio::net::TcpStream::connect((Ipv6Addr::LOCALHOST, bound.port()))
                .await
                .unwrap();
        }
        for wildcard in [":0", "0.0.0.0:0", "[::]:0"] {
            let advertised: SocketAddr = advertised(wildcard, bound).parse().unwrap();
            assert_eq!(advertised.port(), bound.port());
            assert!(!advertised.ip().is_unspecified());
        }
    }

    #[tokio::test]
    async fn a_named_address_is_advertised_as_written() {
        let bound = "127.0.0.1:4000".parse().unwrap();
        assert_eq!(advertised("127.0.0.1:0", bound), "127.0.0.1:4000");
        assert_eq!(advertised("db.example:4000", bound), "db.example:4000");
        assert_eq!(advertised("[::1]:4000", bound), "[::1]:4000");
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let first = listen("127.0.0.1:0").await.unwrap();
        let address = first.local_addr().unwrap().to_string();
        let error = listen(&address).await.unwrap_err().to_string();
        assert_eq!(
            error,
            format!("can't listen on {address}: the port is in use by another process")
        );
        let wildcard = format!(":{}", first.local_addr().unwrap().port());
        let error = listen(&wildcard).await.unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
        let error = listen("192.0.2.1:0").await.unwrap_err().to_string();
        assert!(error.contains("not an address of this host"), "{error}");
    }
}
