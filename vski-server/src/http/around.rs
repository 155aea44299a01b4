//! Layers that are one function around what is within. Each costs a request one box; axum's `from_fn` takes three, and a copy
//! of all within.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::Response;
use tower::{Layer, Service};

/// What a layer does with a request and its response.
pub trait Around: Clone + Send + Sync + 'static {
    /// Handles a request, with what is within or without. What is within is called at once, not in the future that is returned:
    /// it need not be copied then.
    fn around<S: Within>(
        &self,
        request: Request,
        within: &mut S,
    ) -> impl Future<Output = Response> + Send + 'static + use<Self, S>;
}

/// What is within a layer: other layers and the handler.
pub trait Within:
    Service<Request, Response = Response, Error = Infallible, Future: Send + 'static> + Clone + Send + Sync + 'static
{
    /// Begins to handle a request.
    fn handle(&mut self, request: Request) -> impl Future<Output = Response> + Send + 'static + use<Self> {
        let handled = self.call(request);
        async {
            match handled.await {
                Ok(response) => response,
            }
        }
    }

    /// The same later, by a future of its own.
    #[must_use]
    fn take(&mut self) -> Self {
        let next = self.clone();
        std::mem::replace(self, next)
    }
}

impl<S> Within for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A layer of an [`Around`].
#[derive(Clone)]
pub struct AroundLayer<A>(pub A);

impl<A: Clone, S> Layer<S> for AroundLayer<A> {
    type Service = Surrounded<A, S>;

    fn layer(&self, within: S) -> Self::Service {
        Surrounded { around: self.0.clone(), within }
    }
}

/// An [`Around`] with what is within.
#[derive(Clone)]
pub struct Surrounded<A, S> {
    around: A,
    within: S,
}

impl<A: Around, S: Within> Service<Request> for Surrounded<A, S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.within.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let handled = self.around.around(request, &mut self.within);
        Box::pin(async { Ok(handled.await) })
    }
}
