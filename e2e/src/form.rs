//! A form with files, as browsers and PocketBase's clients send it: `multipart/form-data`.

use anyhow::Result;
use reqwest::Method;

use crate::client::{Client, Reply};

/// Between its parts; nothing that a test sends contains it.
const BOUNDARY: &str = "e2e-7f3c9a51-boundary";

/// Parts in their order.
#[derive(Clone, Debug, Default)]
pub struct Form {
    body: Vec<u8>,
}

impl Form {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        self.part(&format!("name=\"{name}\""), value.as_bytes())
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, name: &str, file_name: &str, bytes: &[u8]) -> Self {
        let head = format!("name=\"{name}\"; filename=\"{file_name}\"\r\nContent-Type: application/octet-stream");
        self.part(&head, bytes)
    }

    fn part(mut self, head: &str, bytes: &[u8]) -> Self {
        self.body.extend(format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n").bytes());
        self.body.extend(bytes);
        self.body.extend(b"\r\n");
        self
    }

    /// Sends it without its end, which is in the middle of its last part.
    pub fn send_broken(&self, client: &Client, method: Method, path: &str) -> Result<Reply> {
        client.send_bytes(method, path, &format!("multipart/form-data; boundary={BOUNDARY}"), self.body.clone())
    }

    /// Sends it.
    pub fn send(&self, client: &Client, method: Method, path: &str) -> Result<Reply> {
        let mut body = self.body.clone();
        body.extend(format!("--{BOUNDARY}--\r\n").bytes());
        client.send_bytes(method, path, &format!("multipart/form-data; boundary={BOUNDARY}"), body)
    }
}
