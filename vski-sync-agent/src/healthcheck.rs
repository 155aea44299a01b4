//! `healthcheck`: one question to a listener of this machine, for the HEALTHCHECK of a container, which has no curl.
//!
//! Exit code 0 when the probe answers 200, else 1 with one line on stderr. All of it takes two seconds at most.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

/// How long the question and its answer may take together.
const LIMIT: Duration = Duration::from_secs(2);

/// The longest status line that is read, bytes.
const MAX_STATUS_LINE: u64 = 256;

/// What is asked for.
#[derive(Args, Clone, Copy)]
pub struct Probe {
    /// Ask whether it is ready for requests (/readyz), not only whether it lives (/livez)
    #[arg(long)]
    pub ready: bool,
}

/// Why a probe was not answered with 200.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// Nobody listens there, or whoever does says nothing in time.
    #[error("{url} does not answer: {source}")]
    Silent {
        /// What was asked.
        url: String,
        /// The system's reason.
        source: io::Error,
    },
    /// It answers, and not with 200.
    #[error("{url} answers {status}")]
    Refused {
        /// What was asked.
        url: String,
        /// The answer's status.
        status: u16,
    },
}

impl Probe {
    /// Asks the process that listens on `address`, a host and a port; a listener on all addresses is asked on loopback.
    pub fn ask(self, address: &str) -> Result<(), Unhealthy> {
        let path = if self.ready { "/readyz" } else { "/livez" };
        let url = format!("http://{address}{path}");
        match status(address, path) {
            Ok(200) => Ok(()),
            Ok(status) => Err(Unhealthy::Refused { url, status }),
            Err(source) => Err(Unhealthy::Silent { url, source }),
        }
    }
}

/// The exit code of the command; tells the reason of a failure.
#[must_use]
pub fn report(outcome: Result<(), Unhealthy>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn status(address: &str, path: &str) -> io::Result<u16> {
    let deadline = Instant::now() + LIMIT;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut)) } else { Ok(left) }
    };
    let found = address.to_socket_addrs()?.next();
    let address = reachable(found.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?);
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    // In one piece: whoever has read a part of it may have answered and gone before the rest.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    // A status line comes in one packet; if it does not, each part of it may take what is left.
    stream.set_read_timeout(Some(left()?))?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_STATUS_LINE)).read_line(&mut line)?;
    let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "that is no HTTP"))
}

/// A listener on all addresses is reached on the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answer(text: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 512];
            let _ = stream.read(&mut asked).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
        });
        format!("0.0.0.0:{port}")
    }

    #[test]
    fn only_200_is_healthy() {
        let probe = Probe { ready: false };
        probe.ask(&answer("HTTP/1.1 200 OK\r\n\r\n")).unwrap();
        let refused = probe.ask(&answer("HTTP/1.1 503 Service Unavailable\r\n\r\n")).unwrap_err();
        assert!(matches!(refused, Unhealthy::Refused { status: 503, .. }), "{refused}");
        for noise in ["", "SSH-2.0", "HTTP/1.1 "] {
            let silent = probe.ask(&answer(noise)).unwrap_err();
            assert!(matches!(silent, Unhealthy::Silent { .. }), "{silent}");
        }
    }

    #[test]
    fn who_accepts_and_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let silent = Probe { ready: true }.ask(&address).unwrap_err();
        assert!(matches!(silent, Unhealthy::Silent { .. }) && silent.to_string().contains("/readyz"), "{silent}");
    }
}
