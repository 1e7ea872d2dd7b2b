//! Crops served by this process, behind an address that others reach. In: crops. Out: addresses, and bytes for whoever asks for one by its
//! name. A crop is forgotten at the end of its lifetime, and earlier where newer ones need its place.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Crop, PublisherConfig, TYPE};
use crate::metrics::{PUBLISHED_HELD, PUBLISHED_SERVED};

/// Bytes of all crops that are held.
const MOST_HELD: usize = 256 << 20;
/// How often what is over is looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// Crops of this process.
pub(super) struct Here {
    base: String,
    held: Arc<Held>,
    lifetime: Duration,
    /// Until the first crop: whoever opens settings need not be on a runtime.
    listener: Mutex<Option<TcpListener>>,
    serving: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

#[derive(Default)]
struct Held(Mutex<Crops>);

#[derive(Default)]
struct Crops {
    by_name: HashMap<String, (Bytes, Instant)>,
    bytes: usize,
}

impl Drop for Here {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.lock().take() {
            serving.abort();
        }
    }
}

impl Here {
    /// Takes the port that settings name.
    ///
    /// # Errors
    /// A sentence that begins with a key of `search`.
    pub(super) fn open(config: &PublisherConfig) -> Result<Self, String> {
        let address = config.listen.ok_or("publisher.listen is not given")?;
        let listened = TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        let listener = listened.map_err(|error| format!("publisher.listen is {address}, which cannot be listened on: {error}"))?;
        let (listener, serving) = (Mutex::new(Some(listener)), Mutex::default());
        let lifetime = Duration::from_secs(config.lifetime_s);
        Ok(Self { base: config.base()?, held: Arc::default(), lifetime, listener, serving })
    }

    /// Holds a crop from now on; it is there already for whoever is told its address.
    pub(super) fn address(&self, crop: &Crop) -> Result<String, String> {
        self.begin().map_err(|error| format!("it cannot be served: {error}"))?;
        self.held.put(crop, Instant::now() + self.lifetime);
        Ok(format!("{}/{}", self.base, crop.name))
    }

    fn begin(&self) -> std::io::Result<()> {
        let Some(listener) = self.listener.lock().take() else { return Ok(()) };
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let held = self.held.clone();
        // What is sent is what is held: answers take no memory of their own.
        let answering = held.clone();
        let answer = move |request: Request<Body>| std::future::ready(answering.answer(request.method(), request.uri().path()));
        let router = Router::new().fallback(answer);
        let serving = tokio::spawn(async move {
            let sweeping = async {
                loop {
                    tokio::time::sleep(SWEEP).await;
                    held.sweep(Instant::now());
                }
            };
            tokio::select! {
                done = axum::serve(listener, router) => if let Err(error) = done {
                    tracing::warn!(%error, "crops are served no longer");
                },
                () = sweeping => {}
            }
        });
        *self.serving.lock() = Some(serving);
        Ok(())
    }
}

impl Held {
    fn put(&self, crop: &Crop, until: Instant) {
        let mut crops = self.0.lock();
        if let Some((bytes, _)) = crops.by_name.insert(crop.name.clone(), (crop.bytes.clone(), until)) {
            crops.bytes -= bytes.len();
        }
        crops.bytes += crop.bytes.len();
        crops.forget(Instant::now());
        while crops.bytes > MOST_HELD && crops.by_name.len() > 1 {
            let others = crops.by_name.iter().filter(|(name, _)| **name != crop.name);
            let Some(oldest) = others.min_by_key(|(_, (_, until))| *until).map(|(name, _)| name.clone()) else { break };
            crops.remove(&oldest);
        }
        metrics::gauge!(PUBLISHED_HELD).set(crops.bytes as f64);
    }

    fn sweep(&self, now: Instant) {
        let mut crops = self.0.lock();
        crops.forget(now);
        metrics::gauge!(PUBLISHED_HELD).set(crops.bytes as f64);
    }

    /// Whatever stands before the name: a proxy may put a folder there.
    fn answer(&self, method: &Method, path: &str) -> Response<Body> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return StatusCode::METHOD_NOT_ALLOWED.into_response();
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        let found = self.0.lock().by_name.get(name).filter(|(_, until)| *until > Instant::now()).map(|(bytes, _)| bytes.clone());
        metrics::counter!(PUBLISHED_SERVED, "outcome" => if found.is_some() { "ok" } else { "unknown" }).increment(1);
        match found {
            Some(bytes) => {
                let headers = [
                    (header::CONTENT_TYPE, TYPE),
                    (header::CACHE_CONTROL, "private, no-store"),
                    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                ];
                (headers, bytes).into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }
}

impl Crops {
    fn forget(&mut self, now: Instant) {
        let over: Vec<String> = self.by_name.iter().filter(|(_, (_, until))| *until <= now).map(|(name, _)| name.clone()).collect();
        over.iter().for_each(|name| self.remove(name));
    }

    fn remove(&mut self, name: &str) {
        if let Some((bytes, _)) = self.by_name.remove(name) {
            self.bytes -= bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crop(name: &str, bytes: usize) -> Crop {
        Crop { name: name.into(), bytes: vec![7; bytes].into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_crop_is_there_for_its_lifetime_and_forgotten_after_it() {
        let held = Held::default();
        held.put(&crop("a.png", 10), Instant::now() + Duration::from_secs(10));
        held.put(&crop("a.png", 10), Instant::now() + Duration::from_secs(20));
        let status = |path: &str| held.answer(&Method::GET, path).status().as_u16();
        assert_eq!((status("/a.png"), status("/folder/a.png"), status("/"), status("/b.png")), (200, 200, 404, 404));
        assert_eq!(held.answer(&Method::POST, "/a.png").status().as_u16(), 405);
        tokio::time::advance(Duration::from_secs(21)).await;
        assert_eq!((status("/a.png"), held.0.lock().bytes), (404, 10));
        held.sweep(Instant::now());
        let crops = held.0.lock();
        assert_eq!((crops.bytes, crops.by_name.len()), (0, 0));
    }

    #[tokio::test]
    async fn what_is_held_is_bounded_and_the_oldest_goes_first() {
        let held = Held::default();
        for number in 0..5 {
            held.put(&crop(&format!("{number}.png"), MOST_HELD / 3), Instant::now() + Duration::from_secs(10 + number));
        }
        let crops = held.0.lock();
        let mut names: Vec<&str> = crops.by_name.keys().map(String::as_str).collect();
        names.sort();
        assert_eq!((names, crops.bytes), (vec!["2.png", "3.png", "4.png"], MOST_HELD / 3 * 3));
    }
}
