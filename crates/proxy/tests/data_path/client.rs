//! A client and a server of HTTP/1 that know as little as possible: bytes out, and the least parsing that a test needs.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One end of an HTTP/1 connection.
pub struct Http1 {
    pub stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Start line and fields, as they came, without the last empty line.
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: String,
}

impl Message {
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            line.split_once(": ")
                .filter(|(field, _)| field.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        })
    }
}

impl Http1 {
    pub fn new(stream: TcpStream) -> Self {
        Http1 {
            stream,
            read: Vec::new(),
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    pub async fn get(&mut self, host: &str, path: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        self.answer().await
    }

    /// The next message; `None` when the connection ends before it begins. A message that is cut fails the test.
    pub async fn message(&mut self) -> Option<Message> {
        let head = self.head().await?;
        let mut message = Message {
            head,
            body: Vec::new(),
            trailers: String::new(),
        };
        let length = message
            .field("content-length")
            .map(|length| length.parse::<usize>().unwrap());
        let request = !message.head.starts_with("HTTP/");
        if message.field("transfer-encoding").is_some() {
            loop {
                let size = self.line().await;
                let size = usize::from_str_radix(size.split(';').next().unwrap(), 16).unwrap();
                if size == 0 {
                    break;
                }
                let chunk = self.exactly(size + 2).await;
                message.body.extend_from_slice(&chunk[..size]);
            }
            loop {
                let line = self.line().await;
                if line.is_empty() {
                    break;
                }
                message.trailers.push_str(&line);
                message.trailers.push('\n');
            }
        } else if let Some(length) = length {
            message.body = self.exactly(length).await;
        } else if !request
            && message.status() != 204
            && message.status() != 304
            && message.status() >= 200
        {
            message.body = self.rest().await;
        }
        Some(message)
    }

    pub async fn answer(&mut self) -> Message {
        self.message()
            .await
            .expect("the connection ended before an answer came")
    }

    /// Only a head, without its body.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
                return Some(head.trim_end().replace("\r\n", "\n"));
            }
            if !self.more().await {
                assert!(
                    self.read.is_empty(),
                    "cut inside of a head: {:?}",
                    String::from_utf8_lossy(&self.read)
                );
                return None;
            }
        }
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return String::from_utf8(line[..end].to_vec()).unwrap();
            }
            assert!(self.more().await, "cut inside of a line");
        }
    }

    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(
                self.more().await,
                "cut after {} of {count} bytes",
                self.read.len()
            );
        }
        self.read.drain(..count).collect()
    }

    /// Everything until the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    /// Has the connection ended, with nothing left to read?
    pub async fn ended(&mut self) -> bool {
        self.read.is_empty() && !self.more().await
    }

    async fn more(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece).await {
            Ok(count) => {
                self.read.extend_from_slice(&piece[..count]);
                count > 0
            }
            Err(_) => false,
        }
    }
}

/// Answers every request with its own head and body as the body; chunked if it came so, with its trailers.
pub async fn echo(stream: TcpStream) {
    let mut server = Http1::new(stream);
    while let Some(request) = server.message().await {
        let mut body = request.head.clone().into_bytes();
        body.extend_from_slice(b"\n\n");
        body.extend_from_slice(&request.body);
        let answer = if request.field("transfer-encoding").is_some() {
            let mut answer = format!(
                "HTTP/1.1 200 OK\r\nX-App: echo\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
                body.len()
            )
            .into_bytes();
            answer.extend_from_slice(&body);
            answer.extend_from_slice(
                format!("\r\n0\r\n{}\r\n", request.trailers.replace('\n', "\r\n")).as_bytes(),
            );
            answer
        } else {
            let mut answer = format!(
                "HTTP/1.1 200 OK\r\nX-App: echo\r\nContent-Length: {}\r\n\r\n",
                body.len()
            )
            .into_bytes();
            if !request.head.starts_with("HEAD ") {
                answer.extend_from_slice(&body);
            }
            answer
        };
        server.send(answer).await;
    }
}
