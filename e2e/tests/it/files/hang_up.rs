use std::io::Write;
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use e2e::client::records;
use e2e::cluster::READY;
use e2e::{Cluster, Node, eventually, storage};

use super::{DOCS, make_collection};

/// Bytes that the client says it is going to send.
const LENGTH: usize = 8 << 20;

/// Sends the beginning of a form, waits until `begun` of its files are on the disk, whole or not, and hangs up.
fn hang_up(master: &Node, token: &str, sent: &[u8], begun: usize) -> Result<()> {
    let address = master.server.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).context("connect")?;
    write!(
        stream,
        "POST {} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {LENGTH}\r\n\r\n",
        records(DOCS)
    )?;
    stream.write_all(sent)?;
    eventually("the upload has begun", READY, || {
        let found = storage::found(master.dir(), "default")?;
        ensure!(found.len() == begun, "{found:?}");
        Ok(true)
    })
}

#[test]
fn a_client_that_hangs_up_in_an_upload_leaves_nothing_behind() -> Result<()> {
    let cluster = Cluster::new()?;
    // Nothing is swept in the time of this test.
    let mut master = cluster.master("master")?.env("FILE_GRACE", "24h");
    master.start()?;
    let admin = master.admin()?;
    make_collection(&admin)?;
    let token = admin.token().context("a login")?;
    let part = |name: &str, bytes: &[u8]| {
        let head = format!("--b\r\nContent-Disposition: form-data; name=\"many\"; filename=\"{name}\"\r\n\r\n");
        [head.as_bytes(), bytes, b"\r\n"].concat()
    };
    let (small, large) = (part("a.txt", b"a"), part("b.bin", &vec![7; 3 << 20]));
    for (sent, begun) in [
        (&small[..10], 0),
        (&large[..100], 1),
        (&large[..2 << 20], 1),
        (&[&small[..], &large[..2 << 20]].concat(), 2),
        (&[&small[..], &large[..]].concat(), 2),
    ] {
        hang_up(&master, &token, sent, begun)?;
        eventually("what was begun is gone", READY, || {
            let left = storage::found(master.dir(), "default")?;
            ensure!(left.is_empty(), "after {} bytes: {left:?}", sent.len());
            Ok(true)
        })?;
    }
    ensure!(admin.count(DOCS)? == 0, "a record of half a form");
    Ok(())
}
