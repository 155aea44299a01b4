//! The ceiling: an axum server that answers every request with the same record, whose bytes are in memory.
//!
//! `bare-axum PORT`. A line `listening` on stdout says that it takes connections.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use axum::Router;
use axum::http::header::CONTENT_TYPE;

/// As many bytes as a record of the benchmark has in VSKI's answer.
const RECORD: &str = concat!(
    r#"{"collectionId":"abcdefghij12345","collectionName":"posts","id":"abcdefghij12345","#,
    r#""title":"abcdefghijklmnopqrstuvwx","content":"0123456789012345678901234567890123456789"#,
    r#"0123456789012345678901234567890123456789012345678901234567890123456789012345678901","#,
    r#""views":123,"published":true,"#,
    r#""created":"2026-01-01 00:00:00.000Z","updated":"2026-01-01 00:00:00.000Z"}"#
);

#[tokio::main]
async fn main() -> Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse::<u16>().ok()).context("usage: bare-axum PORT")?;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("listening");
    let answer = || async { ([(CONTENT_TYPE, "application/json")], RECORD) };
    axum::serve(listener, Router::new().fallback(answer)).await?;
    Ok(())
}
