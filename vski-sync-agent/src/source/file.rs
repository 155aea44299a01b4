//! Uploaded files, piece by piece.

use bytes::Bytes;
use reqwest::header::RANGE;
use reqwest::{Method, Response, StatusCode};
use tokio::time::timeout;
use vski_replication::names::{self, header, route};

use super::{ANSWER_MARGIN, IDLE_TIMEOUT, Source, SourceError};
use crate::error::AgentError;

const CALL: &str = "file";

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
}
