//! One thread for each core, with a runtime of its own. A connection stays with one of them for as long as it lives: no other
//! thread looks for its work or is woken for it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::available_parallelism;

use axum::Router;
use axum::serve::{Listener, ListenerExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

/// An accepted connection on its way to a worker, which no runtime knows at that time.
type Accepted = (std::net::TcpStream, SocketAddr);

/// The threads.
pub struct Workers {
    workers: Vec<Worker>,
    /// They go on with what requests have begun, until this is dropped.
    keep: DropGuard,
}

struct Worker {
    connections: mpsc::UnboundedSender<Accepted>,
    open: Arc<AtomicUsize>,
    served: oneshot::Receiver<io::Result<()>>,
}

impl Workers {
    /// Starts them. They answer with `router` until `shutdown`.
    pub fn start(router: &Router, shutdown: &CancellationToken) -> io::Result<Self> {
        let keep = CancellationToken::new();
        let count = available_parallelism().map_or(1, usize::from);
        let start = |number| Worker::start(number, router.clone(), shutdown.clone(), keep.clone());
        let workers = (0..count).map(start).collect::<io::Result<_>>()?;
        Ok(Self { workers, keep: keep.drop_guard() })
    }

    /// Deals out connections until `shutdown`, then waits until open requests are answered. Tasks that requests have left
    /// behind go on until what is returned is dropped.
    pub async fn serve(self, mut listener: TcpListener, shutdown: &CancellationToken) -> io::Result<DropGuard> {
        let Self { workers, keep } = self;
        loop {
            let (stream, address) = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = Listener::accept(&mut listener) => accepted,
            };
            let least = workers.iter().min_by_key(|worker| worker.open.load(Ordering::Relaxed));
            let worker = least.expect("there is at least one core");
            match stream.into_std() {
                Ok(stream) => worker.deal((stream, address)),
                Err(error) => tracing::warn!(%error, "a connection could not be handed to a worker"),
            }
        }
        drop(listener);
        for worker in workers {
            drop(worker.connections);
            worker.served.await.map_err(io::Error::other)??;
        }
        Ok(keep)
    }
}

impl Worker {
    fn start(number: usize, router: Router, shutdown: CancellationToken, keep: CancellationToken) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (connections, dealt) = mpsc::unbounded_channel();
        let open = Arc::new(AtomicUsize::new(0));
        let (tell, served) = oneshot::channel();
        let dealt = Dealt { connections: dealt, open: Arc::clone(&open) };
        // Small answers must not wait for more; without it they are only slower.
        let dealt = dealt.tap_io(|connection| _ = connection.stream.set_nodelay(true));
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let work = async move {
            let serving = axum::serve(dealt, service).with_graceful_shutdown(shutdown.cancelled_owned());
            // Nobody waits for it any more where open requests took too long.
            let _ = tell.send(serving.await);
            keep.cancelled().await;
        };
        let thread = std::thread::Builder::new().name(format!("http-{number}"));
        thread.spawn(move || {
            runtime.block_on(work);
            runtime.shutdown_background();
        })?;
        Ok(Self { connections, open, served })
    }

    fn deal(&self, accepted: Accepted) {
        self.open.fetch_add(1, Ordering::Relaxed);
        if self.connections.send(accepted).is_err() {
            tracing::error!("a worker's thread is gone, with its connections");
        }
    }
}

/// The connections that one worker gets.
struct Dealt {
    connections: mpsc::UnboundedReceiver<Accepted>,
    open: Arc<AtomicUsize>,
}

impl Listener for Dealt {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        while let Some((stream, address)) = self.connections.recv().await {
            let open = Open(Arc::clone(&self.open));
            match TcpStream::from_std(stream) {
                Ok(stream) => return (Connection { stream, _open: open }, address),
                Err(error) => tracing::warn!(%error, "a connection could not be served"),
            }
        }
        // The end is told by the token.
        std::future::pending().await
    }

    /// Nobody asks: a connection does not know which of them it came by.
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Counts a connection out of its worker's.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that its worker counts.
struct Connection {
    stream: TcpStream,
    _open: Open,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    use super::*;

    /// Serves on threads that say their names: `/` at once, `/later` tells that it has begun, and waits to be released.
    async fn serve(
        shutdown: &CancellationToken,
        [begun, release]: [Arc<Notify>; 2],
    ) -> (SocketAddr, JoinHandle<io::Result<DropGuard>>) {
        let name = || std::thread::current().name().unwrap_or_default().to_owned();
        let later = move || async move {
            begun.notify_one();
            release.notified().await;
            name()
        };
        let router = Router::new().route("/", get(move || async move { name() })).route("/later", get(later));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), shutdown.clone());
        let workers = Workers::start(&router, &shutdown).unwrap();
        (address, tokio::spawn(async move { workers.serve(listener, &shutdown).await }))
    }

    async fn ask(connection: &mut TcpStream, path: &str) {
        connection.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
    }

    /// The name of the thread that has answered: `http-` and digits.
    async fn answer(connection: &mut TcpStream) -> String {
        let mut text = String::new();
        loop {
            let mut bytes = [0; 1024];
            let read = connection.read(&mut bytes).await.unwrap();
            assert!(read > 0, "closed after {text:?}");
            text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
            if let Some((_, body)) = text.split_once("\r\n\r\n").filter(|(_, body)| body.starts_with("http-")) {
                return body.to_owned();
            }
        }
    }

    #[tokio::test]
    async fn a_connection_stays_with_one_thread_and_a_new_one_comes_to_that_with_the_fewest() {
        let shutdown = CancellationToken::new();
        let (address, _serving) = serve(&shutdown, Default::default()).await;
        let cores = available_parallelism().unwrap().get();
        let mut connections: BTreeMap<String, Vec<TcpStream>> = BTreeMap::new();
        for _ in 0..2 * cores {
            let mut connection = TcpStream::connect(address).await.unwrap();
            ask(&mut connection, "/").await;
            let thread = answer(&mut connection).await;
            for _ in 0..3 {
                ask(&mut connection, "/").await;
                assert_eq!(answer(&mut connection).await, thread);
            }
            connections.entry(thread).or_default().push(connection);
        }
        assert!(connections.len() == cores && connections.values().all(|own| own.len() == 2), "{connections:?}");
        let (left, _) = connections.pop_first().unwrap();
        let until_it_is_seen = async {
            loop {
                let mut connection = TcpStream::connect(address).await.unwrap();
                ask(&mut connection, "/").await;
                if answer(&mut connection).await == left {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), until_it_is_seen).await.unwrap();
        shutdown.cancel();
    }

    #[tokio::test]
    async fn what_was_asked_before_the_end_is_answered_and_nothing_after_it() {
        let (shutdown, notices) = (CancellationToken::new(), <[Arc<Notify>; 2]>::default());
        let (address, serving) = serve(&shutdown, notices.clone()).await;
        let [begun, release] = notices;
        let mut connection = TcpStream::connect(address).await.unwrap();
        ask(&mut connection, "/later").await;
        begun.notified().await;
        shutdown.cancel();
        release.notify_one();
        answer(&mut connection).await;
        tokio::time::timeout(Duration::from_secs(20), serving).await.unwrap().unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
