//! The listener over real sockets, watching nodes that a test makes up.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::figures::{Board, Collected, Collecting, Source, catalogue};

/// An answer that takes longer does not come.
const SOON: Duration = Duration::from_secs(20);

/// A node of three topics, of which one has a name that no topic can have.
struct Fixed(Option<String>);

impl Source for Fixed {
    fn collect(&self) -> Collecting<'_> {
        let mut collected = Collected::default();
        let family = collected.family(&catalogue::TOPIC_END);
        for topic in ["a", "b\"\\\n"] {
            family.number([topic.into()], 7);
        }
        Box::pin(std::future::ready(collected))
    }

    fn unready(&self) -> Option<String> {
        self.0.clone()
    }
}

struct Running {
    address: std::net::SocketAddr,
    board: Arc<Board>,
    serving: JoinHandle<()>,
}

impl Running {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let surroundings = Surroundings {
            board: Arc::new(Board::expecting(&["peer"])),
            ..Surroundings::default()
        };
        let board = surroundings.board.clone();
        let serving = tokio::spawn(serve(listener, surroundings));
        Self {
            address,
            board,
            serving,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("it listens")
    }

    /// Sends that and reads to the end.
    async fn send(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.expect("taken");
        read_all(&mut stream).await.expect("an answer")
    }

    async fn get(&self, path: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn read_all(stream: &mut TcpStream) -> io::Result<String> {
    let mut text = String::new();
    let reading = stream.read_to_string(&mut text);
    tokio::time::timeout(SOON, reading)
        .await
        .expect("in time")?;
    Ok(text)
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("no status")
}

#[tokio::test]
async fn a_node_is_watched_from_before_it_serves_until_after_it_ends() {
    let running = Running::start().await;
    let answer = running.get("/readyz").await;
    assert_eq!(status(&answer), "503", "{answer}");
    assert!(
        answer.ends_with("peer: recovering: its stored state is being read\n"),
        "{answer}"
    );
    assert_eq!(status(&running.get("/healthz").await), "200");
    let answer = running.get("/metrics").await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(
        answer.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("\nprocess_resident_memory_bytes "),
        "{answer}"
    );

    let shown = running.board.show("peer", Arc::new(Fixed(None)));
    assert_eq!(status(&running.get("/readyz").await), "200");
    let answer = running.get("/metrics").await;
    let line = "tidings_topic_end_offset{topic=\"b\\\"\\\\\\n\"} 7\n";
    assert!(answer.contains(line), "{answer}");

    drop(shown);
    let reason = "storage stopped: the disk is gone".to_owned();
    let shown = running.board.show("peer", Arc::new(Fixed(Some(reason))));
    let answer = running.get("/readyz").await;
    assert!(
        answer.ends_with("\r\n\r\npeer: storage stopped: the disk is gone\n"),
        "{answer}"
    );
    drop(shown);
    assert!(running.get("/readyz").await.ends_with("peer: ended\n"));
}

#[tokio::test]
async fn anything_else_is_refused() {
    let running = Running::start().await;
    for path in [
        "/",
        "/metrics/",
        "/Metrics",
        "/../metrics",
        "/metricsx",
        "*",
    ] {
        let answer = running.get(path).await;
        assert!(
            ["404", "400"].contains(&status(&answer)),
            "{path}: {answer}"
        );
    }
    assert_eq!(status(&running.get("/healthz?verbose=1").await), "200");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        let request = format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n");
        let answer = running.send(request.as_bytes()).await;
        assert_eq!(status(&answer), "405", "{method}: {answer}");
        assert!(answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
    }
    let head = running
        .send(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert_eq!(status(&head), "200");
    assert!(head.ends_with("\r\n\r\n"), "a head has no body: {head}");
    assert!(
        running
            .send(b"GET /healthz HTTP/1.0\r\n\r\n")
            .await
            .ends_with("alive\n")
    );
}

#[tokio::test]
async fn heads_are_bounded() {
    let running = Running::start().await;
    let long = format!(
        "GET /{} HTTP/1.1\r\n\r\n",
        "x".repeat(2 * limits::HTTP_HEAD_BYTES_MAX)
    );
    let many = format!(
        "GET /healthz HTTP/1.1\r\n{}\r\n",
        "x: y\r\n".repeat(limits::HTTP_HEADERS_MAX + 1)
    );
    for request in [long, many] {
        let mut stream = running.connect().await;
        // It may be closed before it has taken everything.
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = read_all(&mut stream).await.unwrap_or_default();
        assert!(
            ["414", "431", "no status"].contains(&status(&answer)),
            "{answer}"
        );
    }
    assert_eq!(status(&running.get("/healthz").await), "200");
}

#[tokio::test]
async fn garbage_is_closed() {
    let running = Running::start().await;
    for garbage in [
        &b"\x00\xff\xfe\r\n\r\n"[..],
        b"TIDE\x01\x00\x00\x00\r\n\r\n",
        b"\r\n\r\n\r\nGET\r\n\r\n",
    ] {
        let mut stream = running.connect().await;
        stream.write_all(garbage).await.expect("taken");
        let answer = read_all(&mut stream).await.unwrap_or_default();
        assert!(["400", "no status"].contains(&status(&answer)), "{answer}");
    }
}

#[tokio::test]
async fn who_holds_connections_for_nothing_keeps_nobody_out() {
    let running = Running::start().await;
    let mut held = Vec::new();
    let began = std::time::Instant::now();
    for _ in 0..2 * limits::HTTP_CONNECTIONS_MAX {
        let mut stream = running.connect().await;
        stream.write_all(b"GET /hea").await.expect("taken");
        held.push(stream);
        assert_eq!(status(&running.get("/healthz").await), "200");
    }
    // The oldest ones have been closed to make room, and not because their time was over.
    let left = limits::HTTP_HEAD_TIMEOUT.saturating_sub(began.elapsed());
    let first = tokio::time::timeout(left, read_all(&mut held[0])).await;
    if left.is_zero() {
        return;
    }
    let first = first.expect("closed before its time was over");
    assert!(first.is_err() || first.is_ok_and(|text| text.is_empty()));
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let running = Running::start().await;
    let mut slow = running.connect().await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\n")
        .await
        .expect("taken");
    let began = std::time::Instant::now();
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer).await;
    let took = began.elapsed();
    assert!(
        took >= limits::HTTP_HEAD_TIMEOUT && took < limits::HTTP_TIMEOUT,
        "{took:?}"
    );
}
