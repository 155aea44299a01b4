//! A server on port 3001 that is no VSKI: it answers every request with 200, its name and the request's own header, and an
//! upgrade with 101 and an echo. The containers' scenarios put it where a node was.
//!
//! `backend NAME [HEADER: VALUE]...`: NAME is in every body, the header fields are on every answer. It needs nothing but
//! the standard library, so that `rustc` alone makes a static program of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

/// Where a node would listen.
const PORT: u16 = 3001;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "backend".to_owned());
    let fields: Arc<str> = arguments.map(|field| format!("{field}\r\n")).collect::<String>().into();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    println!("listening");
    for connection in listener.incoming() {
        let (connection, name, fields) = (connection?, name.clone(), Arc::clone(&fields));
        std::thread::spawn(move || {
            // The other side went away, which ends the conversation.
            let _ = converse(connection, &name, &fields);
        });
    }
    Ok(())
}

/// Answers requests until the connection ends.
fn converse(mut connection: TcpStream, name: &str, fields: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    loop {
        let head = head(&mut reader)?;
        if head.is_empty() {
            return Ok(());
        }
        let field = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
        };
        if let Some(protocol) = field("upgrade") {
            write!(
                connection,
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{fields}\r\n"
            )?;
            return std::io::copy(&mut reader, &mut connection).map(drop);
        }
        let length = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        let body = format!("{name}\n{head}");
        write!(connection, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n", body.len())?;
        if !head.starts_with("HEAD ") {
            connection.write_all(body.as_bytes())?;
        }
    }
}

/// A request's line and header fields; empty at the end of the connection.
fn head(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if reader.read_line(&mut head)? == 0 || head[before..].trim().is_empty() {
            head.truncate(before);
            return Ok(head);
        }
    }
}
