//! A client that keeps its connection and does not look, before it asks, whether it was closed meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};

use super::balancer::FAULT_LIMIT;

/// Asks again and again over the same connection, until an answer says that it ends.
pub struct Kept {
    address: String,
    open: Option<TcpStream>,
}

impl Kept {
    pub fn new(url: &str) -> Result<Self> {
        let address = url.strip_prefix("http://").context("an http URL")?.to_owned();
        Ok(Self { address, open: None })
    }

    /// Asks for a path. An error if the connection ends instead, though no answer before has said so.
    pub fn ask(&mut self, path: &str) -> Result<()> {
        let mut connection = match self.open.take() {
            Some(open) => open,
            None => TcpStream::connect(&self.address)?,
        };
        connection.set_read_timeout(Some(FAULT_LIMIT))?;
        write!(connection, "HEAD {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address).context("ask")?;
        let head = head(&mut connection)?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let ends = head.to_ascii_lowercase().contains("\r\nconnection: close\r\n");
        self.open = (!ends).then_some(connection);
        Ok(())
    }
}

/// An answer up to the empty line, which ends it where HEAD was asked or a protocol changes.
pub fn head(connection: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        let read = connection.read(&mut byte).context("read the answer")?;
        ensure!(read > 0, "the connection ended: {:?}", String::from_utf8_lossy(&head));
        head.extend_from_slice(&byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
