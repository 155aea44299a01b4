//! Uploaded files, piece by piece, in either direction.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, RANGE};
use reqwest::{Body, Method, Response, StatusCode};
use serde::Deserialize;
use tokio::fs::File;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;
use vski_replication::names::{self, header, route};

use super::{ANSWER_MARGIN, IDLE_TIMEOUT, MANIFEST_TIMEOUT, Source, SourceError};
use crate::error::AgentError;

const CALL: &str = "file";

/// Bytes of a file that are sent at once.
const PIECE: usize = 64 << 10;

/// Bytes a second below which a file that is sent is given up.
const SLOWEST: u64 = 64 << 10;

/// Names of files that a master has lost.
#[derive(Deserialize)]
struct LostFiles {
    names: Vec<String>,
}

/// The bytes of a file as they come. Not verified.
pub(crate) struct FileBody {
    response: Response,
}

impl FileBody {
    /// Whether it begins where it was asked to, and not at the first byte.
    pub(crate) fn continues(&self) -> bool {
        self.response.status() == StatusCode::PARTIAL_CONTENT
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        match timeout(IDLE_TIMEOUT, self.response.chunk()).await {
            Ok(piece) => piece.map_err(|error| SourceError::unreachable(CALL, error)),
            Err(_) => Err(SourceError::Silent { call: CALL, seconds: IDLE_TIMEOUT.as_secs() }),
        }
    }
}

impl Source {
    /// An uploaded file from byte `from` on.
    pub(crate) async fn file(&self, db: &str, name: &str, from: u64) -> Result<FileBody, AgentError> {
        let mut request = self.request(Method::GET, &format!("{}/{name}", route::FILES)).query(&[("db", db)]);
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let response = self.answer(CALL, request, ANSWER_MARGIN).await?;
        let awaited = response.headers().get(header::STANDING).is_some_and(|value| value == names::FILE_AWAITED);
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(FileBody { response }),
            StatusCode::SERVICE_UNAVAILABLE if awaited => Err(AgentError::FileAwaited { name: name.to_owned() }),
            StatusCode::NOT_FOUND => Err(AgentError::FileLost { name: name.to_owned() }),
            _ => Err(self.refusal(CALL, response).await.into()),
        }
    }

    /// Names of uploaded files that the master's rows name and its disk lacks: some of them. A replica has lost none, and
    /// a master of before does not say.
    pub(crate) async fn lost_files(&self, db: &str) -> Result<Vec<String>, SourceError> {
        const CALL: &str = "lost files";
        let request = self.request(Method::GET, route::FILES).query(&[("db", db)]);
        match self.send(CALL, request, MANIFEST_TIMEOUT).await {
            Ok(response) => Ok(self.json::<LostFiles>(CALL, response).await?.names),
            Err(SourceError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Gives the master an uploaded file that it has lost.
    pub(crate) async fn give_file(&self, db: &str, name: &str, size: u64, file: File) -> Result<(), SourceError> {
        let body = Body::wrap_stream(ReaderStream::with_capacity(file, PIECE));
        let request = self.request(Method::PUT, &format!("{}/{name}", route::FILES)).query(&[("db", db)]);
        let request = request.header(CONTENT_LENGTH, size).body(body);
        let patience = ANSWER_MARGIN + Duration::from_secs(size / SLOWEST);
        self.send("lost file", request, patience).await.map(drop)
    }
}
