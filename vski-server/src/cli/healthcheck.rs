//! `healthcheck`: asks the node of this container whether it is ready. Images without a shell have no other way.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use clap::Args;

use super::Failure;

/// How long connecting, and each part of the answer, may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The beginning of an answer that holds its status.
const STATUS_LINE: usize = "HTTP/1.1 200".len();

#[derive(Args)]
pub struct HealthcheckArgs {
    /// Address that the server listens on
    #[arg(long, env = "HOST", default_value = "0.0.0.0")]
    host: IpAddr,
    /// Port that the server listens on
    #[arg(long, env = "PORT", default_value_t = 3001)]
    port: u16,
    /// Ask the agent that listens here instead: set where a container runs an agent
    #[arg(long, env = "AGENT_ADDR")]
    agent_addr: Option<String>,
}

/// Succeeds if `/readyz` answers 200.
pub fn execute(args: &HealthcheckArgs) -> Result<(), Failure> {
    let address =
        match &args.agent_addr {
            Some(listens) => listens.to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or_else(|| {
                Failure::setup(format!("AGENT_ADDR {listens} is not an address such as 0.0.0.0:9301"))
            })?,
            None => SocketAddr::new(args.host, args.port),
        };
    let address = reachable(address);
    match ask(address) {
        Ok(status) if status == "200" => Ok(()),
        Ok(status) => Err(Failure::work(format!("http://{address}/readyz answered {status}"))),
        Err(error) => Err(Failure::work(format!("http://{address}/readyz: {error}"))),
    }
}

/// The status of the answer.
fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&address, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    write!(connection, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut line = [0; STATUS_LINE];
    connection.read_exact(&mut line)?;
    Ok(String::from_utf8_lossy(&line[STATUS_LINE - 3..]).into_owned())
}

/// A listener on all addresses is reached on the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()) } else { address }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Asks a listener that gives this answer once.
    fn outcome(answer: &'static str) -> Result<(), u8> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = [0; 19];
            connection.read_exact(&mut request).unwrap();
            assert_eq!(&request, b"GET /readyz HTTP/1.");
            connection.write_all(answer.as_bytes()).unwrap();
            // The rest of the request: unread bytes would reset the connection under the answer.
            let _ = connection.read_to_end(&mut Vec::new());
        });
        let args = HealthcheckArgs {
            host: Ipv4Addr::UNSPECIFIED.into(),
            port: 1,
            agent_addr: Some(format!("0.0.0.0:{}", address.port())),
        };
        let outcome = execute(&args).map_err(|failure| failure.code);
        answering.join().unwrap();
        outcome
    }

    #[test]
    fn only_a_ready_node_is_healthy() {
        assert_eq!(outcome("HTTP/1.1 200 OK\r\n\r\n"), Ok(()));
        assert_eq!(outcome("HTTP/1.1 503 Service Unavailable\r\n\r\n"), Err(1));
        assert_eq!(outcome("HTTP/1."), Err(1));
    }
}
