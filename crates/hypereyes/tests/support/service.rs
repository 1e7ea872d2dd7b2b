//! A search service of the tests: it answers every request by a function of its first line, and remembers them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What a request said: its first line, headers and body as they came.
type Answers = dyn Fn(&str) -> (u16, Value) + Send + Sync;

/// A service; it ends with its handle.
pub struct Service {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

impl Service {
    /// Answers with a status and a body.
    pub fn start(answers: impl Fn(&str) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, ended, answers): (Arc<Mutex<Vec<String>>>, Arc<AtomicBool>, Arc<Answers>) =
            (Arc::default(), Arc::default(), Arc::new(answers));
        let (known, over) = (asked.clone(), ended.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Acquire) {
                    return;
                }
                let (known, answers) = (known.clone(), answers.clone());
                std::thread::spawn(move || {
                    // A client that goes away is nobody's loss.
                    let _ = answer(stream.unwrap(), &known, &*answers);
                });
            }
        });
        Self { url, asked, ended }
    }

    /// First lines of the requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

fn answer(mut stream: TcpStream, known: &Mutex<Vec<String>>, answers: &Answers) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(said) = line.strip_prefix("content-length:") {
            length = said.trim().parse().unwrap_or(0);
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    let first = first.trim().to_owned();
    known.lock().unwrap().push(first.clone());
    let (status, body) = answers(&first);
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// What SerpAPI's `google` engine answers in its shape: one hit that depends on the query alone.
pub fn serpapi(first: &str) -> (u16, Value) {
    let query = first.split("q=").nth(1).unwrap_or_default().split(['&', ' ']).next().unwrap_or_default().replace('+', " ");
    let hit = json!({"title": query, "link": "https://x.example/1", "snippet": format!("all that is known of {query}"), "source": "X"});
    (200, json!({"search_metadata": {"status": "Success"}, "organic_results": [hit]}))
}
