//! A chat server that does what a test says: real HTTP on a loopback port. In: a function from requests to replies. Out: an address, and
//! the requests that came. Included by path wherever a chat server is needed.

#![allow(dead_code, reason = "each test uses some of it")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its number, from 0.
    pub number: usize,
    /// Such as `POST /v1/chat/completions HTTP/1.1`.
    pub line: String,
    /// Request line and headers.
    pub head: String,
    /// JSON, or nothing.
    pub body: Value,
}

/// What is sent back.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A completion with this message, finish reason and usage of 100 and 10 tokens.
    Message(Value, &'static str),
    /// JSON, as it is.
    Json(Value),
    /// A status with headers (lines that end with `\r\n`) and a body.
    Status(u16, String, String),
    /// Bytes in place of a reply.
    Raw(Vec<u8>),
    /// The same, later.
    Slow(Duration, Box<Reply>),
}

impl Reply {
    /// Words.
    pub fn say(words: &str) -> Self {
        Self::Message(json!({"role": "assistant", "content": words}), "stop")
    }

    /// A refusal with the words of most servers.
    pub fn refuse(status: u16, message: &str) -> Self {
        Self::Status(status, String::new(), json!({"error": {"message": message}}).to_string())
    }

    /// Calls of tools: name and arguments.
    pub fn call(calls: &[(&str, Value)]) -> Self {
        let call = |(at, (name, arguments)): (usize, &(&str, Value))| json!({"id": format!("id_{at}"), "type": "function", "function": {"name": name, "arguments": arguments.to_string()}});
        let calls: Vec<Value> = calls.iter().enumerate().map(call).collect();
        Self::Message(json!({"role": "assistant", "content": null, "tool_calls": calls}), "tool_calls")
    }

    fn bytes(&self) -> (Duration, Vec<u8>) {
        let http = |status: u16, headers: &str, body: &str| {
            let length = body.len();
            format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}").into_bytes()
        };
        let bytes = match self {
            Self::Message(message, finish) => {
                let usage = json!({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110});
                let choice = json!({"index": 0, "message": message, "finish_reason": finish});
                http(200, "", &json!({"object": "chat.completion", "choices": [choice], "usage": usage}).to_string())
            }
            Self::Json(body) => http(200, "", &body.to_string()),
            Self::Status(status, headers, body) => http(*status, headers, body),
            Self::Raw(bytes) => bytes.clone(),
            Self::Slow(wait, reply) => return (*wait, reply.bytes().1),
        };
        (Duration::ZERO, bytes)
    }
}

/// The server; it ends with the runtime.
pub struct Server {
    /// Base of its API.
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    at_once: Arc<AtomicUsize>,
}

impl Server {
    /// Listens on a free port.
    pub async fn start(behaviour: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/v1", listener.local_addr().expect("bound"));
        let (asked, at_once, open) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (behaviour, kept, most) = (Arc::new(behaviour), asked.clone(), at_once.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (behaviour, kept, most, open) = (behaviour.clone(), kept.clone(), most.clone(), open.clone());
                tokio::spawn(async move {
                    let mut text = Vec::new();
                    let (head, body) = loop {
                        let mut part = vec![0; 1 << 16];
                        let read = stream.read(&mut part).await.unwrap_or(0);
                        if read == 0 {
                            return;
                        }
                        text.extend_from_slice(&part[..read]);
                        let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                        let head = String::from_utf8_lossy(&text[..end]).into_owned();
                        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                        if text.len() - end - 4 >= length.unwrap_or(0) {
                            break (head, text.split_off(end + 4));
                        }
                    };
                    most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let line = head.lines().next().unwrap_or_default().to_owned();
                    let one = {
                        let mut kept = kept.lock().expect("no test panics with it");
                        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                        let one = Asked { number: kept.len(), line, head, body };
                        kept.push(one.clone());
                        one
                    };
                    let (wait, bytes) = behaviour(&one).bytes();
                    tokio::time::sleep(wait).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                    let _ = stream.write_all(&bytes).await;
                });
            }
        });
        Self { url, asked, at_once }
    }

    /// Replies in order; the last one for ever.
    pub async fn script(replies: Vec<Reply>) -> Self {
        Self::start(move |asked| replies[asked.number.min(replies.len() - 1)].clone()).await
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no test panics with it").clone()
    }

    /// How many came.
    pub fn count(&self) -> usize {
        self.asked().len()
    }

    /// The most that were open at the same moment.
    pub fn at_once(&self) -> usize {
        self.at_once.load(Ordering::SeqCst)
    }
}
