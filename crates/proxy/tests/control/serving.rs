//! Scripted gRPC servers: each on a thread of its own, until it is dropped.

use std::thread::JoinHandle;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

/// A thread that serves; dropped, it is gone with all its connections.
pub struct Serving(Option<(oneshot::Sender<()>, JoinHandle<()>)>);

impl Serving {
    /// A thread, because a test that is itself asynchronous may block, and its control plane may not.
    pub fn start<F: Future<Output = ()> + Send + 'static>(
        serve: impl FnOnce() -> F + Send + 'static,
    ) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::spawn(serve());
                let _ = stopped.await;
            });
        });
        Self(Some((stop, thread)))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }
}

/// One HTTP/2 connection, each of whose requests is answered by a tonic service.
pub async fn converse<S>(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, service: S)
where
    S: tower_service::Service<Request<Incoming>, Response = Response<tonic::body::Body>>
        + Clone
        + Send
        + 'static,
    S::Error: std::error::Error + Send + Sync,
    S::Future: Send,
{
    let service = hyper::service::service_fn(move |request| service.clone().call(request));
    let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ended = http2.serve_connection(TokioIo::new(stream), service).await;
}
