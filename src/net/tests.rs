//! Servers and clients over real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::net::Timeouts;
use crate::net::budget::Budget;
use crate::net::{Call, CallError, Connection, DialOptions, Handling, Reply, Server, Service};
use crate::protocol::api::{
    Api, Commit, DescribeTopic, Done, Heartbeat, Hello, HelloAnswer, ListPeers, MAGIC, Nonce,
    PeerStatus, Ping, Request, Role, StreamCredit,
};
use crate::protocol::data::{Credit, Stream};
use crate::protocol::error::ApiError;
use crate::protocol::frame::{Frame, FrameHeader};
use crate::types::{Address, Generation, LeaderEpoch, Offset, PeerId, TopicId};

mod streams;

const SOON: Duration = Duration::from_secs(10);

/// Answers `Ping` at once, `Publish` with its own body from another thread, `Fetch` with as many
/// bytes as asked for once `wake` is notified, keeps `Commit` and drops `DescribeTopic`. A `Stream`
/// gets answers of as many KiB as its offset says, as long as it has credit.
struct Echo {
    publishes: Mutex<mpsc::Sender<(Bytes, Reply)>>,
    kept: Mutex<Vec<Reply>>,
    calls: AtomicUsize,
    /// What was to be finished and was.
    finished: AtomicUsize,
    wake: Arc<Notify>,
}

impl Echo {
    fn new() -> Arc<Self> {
        let (publishes, received) = mpsc::channel::<(Bytes, Reply)>();
        std::thread::spawn(move || {
            // In pairs and backwards: answers overtake each other.
            while let Ok((body, reply)) = received.recv() {
                if let Ok((second, second_reply)) = received.recv_timeout(Duration::from_millis(5))
                {
                    second_reply.answer(second);
                }
                reply.answer(body);
            }
        });
        Arc::new(Self {
            publishes: Mutex::new(publishes),
            kept: Mutex::default(),
            calls: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            wake: Arc::default(),
        })
    }
}

impl Service for Echo {
    fn hello(&self) -> HelloAnswer {
        HelloAnswer {
            protocol: 0,
            role: Role::Peer,
            node: PeerId::zero(),
            name: "echo".to_owned(),
            server: "test".to_owned(),
            features: 0,
            frame_bytes_max: limits::FRAME_BYTES_MAX as u32,
            message_bytes_max: limits::MESSAGE_BYTES_DEFAULT as u32,
            requests_unanswered_max: limits::REQUESTS_UNANSWERED_MAX as u32,
            publishes_unanswered_max: limits::PUBLISHES_UNANSWERED_MAX as u32,
            indexes: Vec::new(),
        }
    }

    fn call(self: &Arc<Self>, call: Call, mut reply: Reply) -> Handling {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match call.api {
            Api::Ping => Handling::answer::<Ping>(reply, Ok(Done {})),
            Api::Publish => {
                let publishes = self.publishes.lock().expect("not poisoned");
                publishes.send((call.body, reply)).expect("it lives");
                Handling::Answered
            }
            Api::Fetch => {
                let wake = self.wake.clone();
                let bytes = call.body.first().map_or(0, |mib| usize::from(*mib)) * limits::MIB;
                Handling::Wait(Box::pin(async move {
                    if bytes == 0 {
                        wake.notified().await;
                    }
                    reply.reserve(bytes).await;
                    reply.answer(vec![7; bytes]);
                }))
            }
            // The number of bytes that were granted, and so many zeros.
            Api::FindOffset => {
                let bytes = call.body.first().map_or(0, |mib| usize::from(*mib)) * limits::MIB;
                Handling::Wait(Box::pin(async move {
                    let granted = reply.reserve_up_to(bytes).await;
                    let mut body = granted.to_le_bytes().to_vec();
                    body.resize(granted, 0);
                    reply.answer(body);
                }))
            }
            Api::Commit => {
                self.kept.lock().expect("not poisoned").push(reply);
                Handling::Answered
            }
            Api::DescribeTopic => Handling::Answered,
            Api::Stream => {
                let stream = Stream::decode(call.body).expect("well-formed");
                Handling::Wait(Box::pin(pour(stream, reply)))
            }
            Api::PeerStatus => {
                let this = self.clone();
                Handling::finish::<PeerStatus>(reply, async move {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    this.finished.fetch_add(1, Ordering::SeqCst);
                    Err(ApiError::UnknownProducer)
                })
            }
            other => panic!("{} is not for this test", other.name()),
        }
    }
}

async fn pour(stream: Stream, reply: Reply) {
    let keep_alive = Duration::from_millis(stream.keep_alive_ms.into());
    let Some(outlet) = reply.into_outlet(stream.credit, keep_alive) else {
        return;
    };
    let bytes = stream.offset.get() as usize * limits::KIB;
    loop {
        let next = async {
            outlet.credit().await;
            let mut place = outlet.place();
            place.reserve(bytes).await;
            place
        };
        match outlet.unless_ended(next).await {
            Ok(place) => outlet.push(place, vec![7; bytes], 10),
            Err(ending) => return outlet.end(ending),
        }
        tokio::task::coop::consume_budget().await;
    }
}

struct Running {
    echo: Arc<Echo>,
    address: Address,
    stop: CancellationToken,
    budget: Arc<Budget>,
    traffic: Arc<crate::net::Traffic>,
    task: JoinHandle<()>,
}

struct Setup {
    timeouts: Timeouts,
    connections_max: usize,
    budget: Budget,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            connections_max: 100,
            budget: Budget::default(),
        }
    }
}

impl Setup {
    async fn start(self) -> Running {
        let echo = Echo::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").into();
        let (stop, budget) = (CancellationToken::new(), Arc::new(self.budget));
        let server = Server::new(echo.clone(), stop.clone())
            .with_budget(budget.clone())
            .with_timeouts(self.timeouts)
            .with_connections_max(self.connections_max);
        let traffic = server.traffic();
        let task = tokio::spawn(server.run(listener));
        Running {
            echo,
            address,
            stop,
            budget,
            traffic,
            task,
        }
    }
}

impl Running {
    async fn connect(&self) -> Connection {
        self.try_connect().await.expect("the server is there")
    }

    async fn try_connect(&self) -> Result<Connection, CallError> {
        let options = DialOptions {
            client: "test".to_owned(),
            timeout: SOON,
        };
        Connection::connect(&self.address, &options).await
    }

    async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.address.as_str())
            .await
            .expect("the server is there")
    }

    /// A raw connection that has said hello.
    async fn greeted(&self) -> TcpStream {
        let mut stream = self.raw().await;
        stream.write_all(&hello()).await.expect("written");
        let answer = read_frame(&mut stream).await.expect("a hello answer");
        assert!(answer.header.is_answer() && !answer.header.is_error());
        stream
    }

    async fn wait_for(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + SOON;
        while !condition(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Nothing is held any more.
    async fn settles(&self) {
        self.wait_for("all memory to be given back", |running| {
            running.budget.requests.free_bytes() == running.budget.requests.capacity()
                && running.budget.answers.free_bytes() == running.budget.answers.capacity()
        })
        .await;
    }
}

fn frame(api: u16, version: u8, body: &[u8]) -> Vec<u8> {
    Frame {
        header: FrameHeader::request(api, version, 77),
        body: Bytes::copy_from_slice(body),
    }
    .encode()
}

fn hello_with(change: impl FnOnce(&mut Hello)) -> Vec<u8> {
    let mut hello = Hello {
        magic: MAGIC,
        protocol_min: 1,
        protocol_max: 1,
        client: "raw".to_owned(),
        features: 0,
    };
    change(&mut hello);
    frame(Api::Hello as u16, 1, &hello.encode().expect("small"))
}

fn hello() -> Vec<u8> {
    hello_with(|_| {})
}

/// The next frame, or `None` if the connection ended.
async fn read_frame(stream: &mut TcpStream) -> Option<Frame> {
    let mut buffer = BytesMut::new();
    let read = async {
        loop {
            // One byte at a time, so that nothing of the next frame is swallowed.
            if let Some(frame) = Frame::parse(&mut buffer, limits::FRAME_BYTES_MAX).expect("good") {
                return Some(frame);
            }
            match stream.read_u8().await {
                Ok(byte) => buffer.extend_from_slice(&[byte]),
                Err(_) => return None,
            }
        }
    };
    tokio::time::timeout(SOON, read).await.expect("in time")
}

/// The error frame, after which the connection must end.
async fn read_refusal(stream: &mut TcpStream) -> (ApiError, u32) {
    let frame = read_frame(stream).await.expect("an error frame");
    assert!(frame.header.is_error());
    assert_eq!(read_frame(stream).await, None, "the connection went on");
    let error = ApiError::decode(&frame.body).expect("an error body");
    (error, frame.header.correlation)
}

#[tokio::test]
async fn a_hello_and_a_ping() {
    let server = Setup::default().start().await;
    let connection = server.connect().await;
    assert_eq!(connection.hello().protocol, 1);
    assert_eq!(connection.hello().name, "echo");
    assert_eq!(connection.call(&Ping {}, SOON).await, Ok(Done {}));
    assert_eq!(
        connection.call(&PeerStatus {}, SOON).await,
        Err(CallError::Api(ApiError::UnknownProducer))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_at_once_get_their_own_answers() {
    let server = Setup::default().start().await;
    let connection = server.connect().await;
    let mut pending = Vec::new();
    for n in 0_usize..300 {
        let length = if n % 50 == 0 { limits::MIB + n } else { n * 37 };
        let mut body = vec![n as u8; length];
        body.extend_from_slice(&n.to_le_bytes());
        let body = Bytes::from(body);
        let pieces = vec![body.slice(..length / 2), body.slice(length / 2..)];
        let answer = connection.submit(Api::Publish, pieces).await;
        pending.push((body, answer.expect("open")));
    }
    for (n, (body, answer)) in pending.into_iter().enumerate() {
        let echoed = tokio::time::timeout(SOON, answer).await.expect("in time");
        assert!(echoed.expect("answered") == body, "answer {n} is another's");
    }
    server.settles().await;
}

#[tokio::test]
async fn a_request_that_is_dropped_is_answered_all_the_same() {
    let server = Setup::default().start().await;
    let connection = server.connect().await;
    let request = DescribeTopic {
        name: "a".parse().expect("good"),
    };
    let error = connection.call(&request, SOON).await.expect_err("dropped");
    assert_eq!(error, CallError::Api(ApiError::Unanswered));
    assert!(error.may_have_taken_effect());
    assert_eq!(connection.call(&Ping {}, SOON).await, Ok(Done {}));
}

#[tokio::test]
async fn requests_that_are_not_served_are_refused_one_by_one() {
    let server = Setup::default().start().await;
    let mut stream = server.greeted().await;
    let ask = async |stream: &mut TcpStream, api: u16, version: u8| {
        stream
            .write_all(&frame(api, version, b""))
            .await
            .expect("open");
        let answer = read_frame(stream).await.expect("an answer");
        assert_eq!((answer.header.api, answer.header.correlation), (api, 77));
        answer
            .header
            .is_error()
            .then(|| ApiError::decode(&answer.body).expect("an error"))
    };
    let error = ask(&mut stream, 999, 1).await;
    assert_eq!(error, Some(ApiError::UnknownApi { api: 999 }));
    let error = ask(&mut stream, Api::Ping as u16, 9)
        .await
        .expect("refused");
    assert_eq!(error.name(), "UnsupportedVersion");
    assert_eq!(ask(&mut stream, Api::Ping as u16, 1).await, None);
    drop(stream);

    let connection = server.connect().await;
    let heartbeat = Heartbeat {
        peer: PeerId::zero(),
        nonce: Nonce([0; 16]),
        load: crate::protocol::api::PeerLoad::default(),
    };
    let error = connection
        .call(&heartbeat, SOON)
        .await
        .expect_err("refused");
    assert_eq!(error.as_api().map(ApiError::name), Some("WrongRole"));
    server.settles().await;
}

#[tokio::test]
async fn bad_first_frames_get_an_error_and_a_close() {
    let server = Setup::default().start().await;
    let long = "x".repeat(256);
    let too_long = vec![0; limits::HELLO_FRAME_BYTES_MAX];
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (frame(Api::Ping as u16, 1, b""), "HelloRequired"),
        (hello_with(|h| h.magic = *b"EDIT"), "BadFrame"),
        (hello_with(|h| h.protocol_min = 2), "UnsupportedVersion"),
        (hello_with(|h| h.client = long), "InvalidArgument"),
        (frame(Api::Hello as u16, 1, &MAGIC), "Malformed"),
        (frame(Api::Hello as u16, 2, &MAGIC), "UnsupportedVersion"),
        (frame(Api::Hello as u16, 1, &too_long), "FrameTooLarge"),
        (
            b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_vec(),
            "FrameTooLarge",
        ),
        (vec![0; 64], "BadFrame"),
    ];
    for (bytes, name) in cases {
        let mut stream = server.raw().await;
        stream.write_all(&bytes).await.expect("written");
        let (error, _) = read_refusal(&mut stream).await;
        assert_eq!(error.name(), name, "{error}");
    }
    assert!(server.connect().await.call(&Ping {}, SOON).await.is_ok());
    server.settles().await;
}

#[tokio::test]
async fn a_hello_range_is_met_at_its_newest_common_version() {
    let server = Setup::default().start().await;
    for (min, max, good) in [(0, 9, true), (1, 1, true), (2, 9, false), (0, 0, false)] {
        let mut stream = server.raw().await;
        let bytes = hello_with(|h| (h.protocol_min, h.protocol_max) = (min, max));
        stream.write_all(&bytes).await.expect("written");
        let frame = read_frame(&mut stream).await.expect("an answer");
        if good {
            let answer = Hello::decode_answer(&frame.body).expect("a hello answer");
            assert_eq!(answer.protocol, 1);
        } else {
            let error = ApiError::decode(&frame.body).expect("an error");
            assert_eq!(error.name(), "UnsupportedVersion");
        }
    }
}

#[tokio::test]
async fn impossible_lengths_get_an_error_with_their_correlation_and_a_close() {
    let server = Setup::default().start().await;
    for (length, name) in [
        (0_u32, "BadFrame"),
        (7, "BadFrame"),
        (1 << 30, "FrameTooLarge"),
        (u32::MAX, "FrameTooLarge"),
    ] {
        let mut stream = server.greeted().await;
        let mut bytes = frame(Api::Publish as u16, 1, b"x");
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        stream.write_all(&bytes).await.expect("written");
        let (error, correlation) = read_refusal(&mut stream).await;
        assert_eq!((error.name(), correlation), (name, 77));
    }
    for bytes in [frame(Api::Hello as u16, 1, b""), {
        let mut answer = frame(Api::Ping as u16, 1, b"");
        answer[7] = 1;
        answer
    }] {
        let mut stream = server.greeted().await;
        stream.write_all(&bytes).await.expect("written");
        assert_eq!(read_refusal(&mut stream).await.0.name(), "BadFrame");
    }
    let mut stream = server.greeted().await;
    let control = vec![0; limits::CONTROL_BYTES_MAX + 1];
    let bytes = frame(Api::PeerStatus as u16, 1, &control);
    // The server says no at the header and closes; not all of it can be written.
    let _ = stream.write_all(&bytes).await;
    assert_eq!(read_refusal(&mut stream).await.0.name(), "FrameTooLarge");
    server.settles().await;
}

#[tokio::test]
async fn a_connection_may_end_at_every_byte() {
    let server = Setup::default().start().await;
    let mut bytes = hello();
    bytes.extend_from_slice(&frame(Api::Publish as u16, 1, b"some body"));
    for cut in 0..bytes.len() {
        let mut stream = server.raw().await;
        stream.write_all(&bytes[..cut]).await.expect("written");
        stream.shutdown().await.expect("open");
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "cut at {cut} was kept open");
    }
    server.settles().await;
    server
        .wait_for("connections to end", |s| s.traffic.connections() == 0)
        .await;
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_still_gets_its_answers() {
    let server = Setup::default().start().await;
    let mut stream = server.greeted().await;
    for n in 0..3 {
        let bytes = frame(Api::Publish as u16, 1, &[n]);
        stream.write_all(&bytes).await.expect("written");
    }
    stream.shutdown().await.expect("open");
    let mut answered = Vec::new();
    while let Some(frame) = read_frame(&mut stream).await {
        answered.push(frame.body[0]);
    }
    answered.sort_unstable();
    assert_eq!(answered, [0, 1, 2]);
}

/// It was dropped where it stood: a topic was stored and its index not told, or gone and its name still taken.
#[tokio::test]
async fn what_was_begun_is_finished_although_its_client_has_gone() {
    let server = Setup::default().start().await;
    let mut stream = server.greeted().await;
    let body = PeerStatus {}.encode().expect("it encodes");
    let request = frame(Api::PeerStatus as u16, 1, &body);
    stream.write_all(&request).await.expect("sent");
    server
        .wait_for("it is begun", |server| {
            server.echo.calls.load(Ordering::SeqCst) == 1
        })
        .await;
    // Without a good-bye.
    let at_once = Some(Duration::ZERO);
    rustix::net::sockopt::set_socket_linger(&stream, at_once).expect("it is a socket");
    drop(stream);
    server
        .wait_for("it is finished", |server| {
            server.echo.finished.load(Ordering::SeqCst) == 1
        })
        .await;
}

#[tokio::test]
async fn silence_and_slowness_have_deadlines() {
    let server = Setup {
        timeouts: Timeouts {
            hello: Duration::from_millis(100),
            frame: Duration::from_millis(100),
            ..Timeouts::default()
        },
        ..Setup::default()
    }
    .start()
    .await;
    let mut silent = server.raw().await;
    assert_eq!(read_refusal(&mut silent).await.0, ApiError::HelloRequired);

    for announced in [100, 10 * limits::MIB] {
        let mut slow = server.greeted().await;
        let header = FrameHeader::request(Api::Publish as u16, 1, 5).encode(announced);
        slow.write_all(&header).await.expect("written");
        let (error, correlation) = read_refusal(&mut slow).await;
        assert_eq!((error.name(), correlation), ("BadFrame", 5));
    }
    let mut idle = server.greeted().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ping = frame(Api::Ping as u16, 1, b"");
    idle.write_all(&ping).await.expect("idling is allowed");
    assert!(read_frame(&mut idle).await.is_some());
    drop(idle);
    server.settles().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let server = Setup {
        connections_max: 2,
        ..Setup::default()
    }
    .start()
    .await;
    let (first, second) = (server.connect().await, server.connect().await);
    assert_eq!(
        server.try_connect().await.expect_err("full"),
        CallError::Api(ApiError::TooManyConnections { max: 2 })
    );
    drop(first);
    server
        .wait_for("room", |s| s.traffic.connections() == 1)
        .await;
    assert!(server.connect().await.call(&Ping {}, SOON).await.is_ok());
    assert!(second.call(&Ping {}, SOON).await.is_ok());
}

#[tokio::test]
async fn the_server_reads_no_further_than_its_unanswered_requests() {
    let server = Setup::default().start().await;
    let mut stream = server.greeted().await;
    let commit = Commit {
        topic: TopicId::zero(),
        name: "s".parse().expect("good"),
        generation: Generation::ZERO,
        offset: Offset::ZERO,
    };
    let bytes = frame(Api::Commit as u16, 1, &commit.encode().expect("small"));
    let count = limits::REQUESTS_UNANSWERED_MAX + 100;
    stream.write_all(&bytes.repeat(count)).await.expect("fits");
    let calls = |server: &Running| server.echo.calls.load(Ordering::SeqCst);
    server
        .wait_for("the first requests", |s| {
            calls(s) == limits::REQUESTS_UNANSWERED_MAX
        })
        .await;
    // Another connection is served meanwhile, and nothing more was taken from the first.
    assert!(server.connect().await.call(&Ping {}, SOON).await.is_ok());
    assert_eq!(calls(&server), limits::REQUESTS_UNANSWERED_MAX + 1);
    let kept = std::mem::take(&mut *server.echo.kept.lock().expect("not poisoned"));
    drop(kept);
    server.wait_for("the rest", |s| calls(s) == count + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_holds_bounded_memory_and_is_cut_off() {
    let server = Setup {
        timeouts: Timeouts {
            write_stall: Duration::from_millis(500),
            ..Timeouts::default()
        },
        ..Setup::default()
    }
    .start()
    .await;
    let mut stream = server.greeted().await;
    // 200 answers of 8 MiB each.
    let bytes = frame(Api::Fetch as u16, 1, &[8]).repeat(200);
    stream.write_all(&bytes).await.expect("small");
    let held =
        |server: &Running| server.budget.answers.capacity() - server.budget.answers.free_bytes();
    server.wait_for("answers", |s| held(s) > 0).await;
    let other = server.connect().await;
    while server.traffic.connections() > 1 {
        assert!(held(&server) <= limits::CONNECTION_ANSWER_BYTES_MAX);
        assert_eq!(other.call(&Ping {}, SOON).await, Ok(Done {}));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.settles().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_no_answers_does_not_keep_others_waiting_for_theirs() {
    let server = Setup {
        budget: Budget::new(64 * limits::MIB, 16 * limits::MIB),
        ..Setup::default()
    }
    .start()
    .await;
    // More than the system buffers for a connection.
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut stream = server.greeted().await;
        let bytes = frame(Api::Fetch as u16, 1, &[16]).repeat(3);
        stream.write_all(&bytes).await.expect("small");
        deaf.push(stream);
    }
    server
        .wait_for("the memory to be used up", |s| {
            s.budget.answers.is_pressed()
        })
        .await;
    let good = server.connect().await;
    let ask = async || {
        let answer = good.call_raw(Api::FindOffset, vec![8], SOON).await;
        let answer = answer.expect("answered");
        let granted = *answer.first_chunk().expect("a number");
        assert_eq!(usize::from_le_bytes(granted), answer.len());
        answer.len()
    };
    let began = std::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(ask().await, limits::SPARE_ANSWER_BYTES);
    }
    assert!(server.traffic.connections() == 5, "none had to be cut off");
    assert!(began.elapsed() < limits::PACE_EVERY);
    drop(deaf);
    server
        .wait_for("the memory to be given back", |s| {
            s.budget.answers.free_bytes() == s.budget.answers.capacity()
        })
        .await;
    assert_eq!(ask().await, 8 * limits::MIB);
    server.settles().await;
    let spare = &server.budget.spare;
    assert_eq!(spare.free_bytes(), spare.capacity());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_frame_does_not_keep_memory_from_others() {
    let server = Setup {
        budget: Budget::new(2 * limits::MIB, 2 * limits::MIB),
        ..Setup::default()
    }
    .start()
    .await;
    let mut stalled = server.greeted().await;
    let header = FrameHeader::request(Api::Publish as u16, 1, 5).encode(2 * limits::MIB);
    stalled.write_all(&header).await.expect("written");
    server
        .wait_for("the frame to be admitted", |s| {
            s.budget.requests.free_bytes() == 0
        })
        .await;
    // Long before the stalled frame's own deadline of 30 s.
    let body = vec![1; limits::MIB];
    let echoed = server
        .connect()
        .await
        .call_raw(Api::Publish, body.clone(), SOON)
        .await;
    assert!(echoed.expect("served") == body);
    assert_eq!(read_refusal(&mut stalled).await.0.name(), "BadFrame");
    server.settles().await;
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight_and_ends_long_polls() {
    let server = Setup::default().start().await;
    let connection = server.connect().await;
    let commit = connection
        .submit(Api::Commit, Bytes::new())
        .await
        .expect("submitted");
    let poll = connection
        .submit(Api::Fetch, vec![0])
        .await
        .expect("submitted");
    server
        .wait_for("both calls", |s| s.echo.calls.load(Ordering::SeqCst) == 2)
        .await;
    server.stop.cancel();
    let ended = tokio::time::timeout(SOON, poll).await.expect("at once");
    assert_eq!(ended, Err(CallError::Api(ApiError::ShuttingDown)));
    assert_eq!(
        connection.call(&Ping {}, SOON).await,
        Err(CallError::Api(ApiError::ShuttingDown))
    );
    assert!(!server.task.is_finished(), "the commit is in flight");
    let kept = server.echo.kept.lock().expect("not poisoned").pop();
    kept.expect("a commit").answer(vec![42]);
    assert_eq!(commit.await.expect("answered"), vec![42]);
    tokio::time::timeout(SOON, server.task)
        .await
        .expect("ends")
        .expect("no panic");
}

#[tokio::test]
async fn what_does_not_finish_in_the_grace_is_cut() {
    let server = Setup {
        timeouts: Timeouts {
            shutdown_grace: Duration::from_millis(50),
            ..Timeouts::default()
        },
        ..Setup::default()
    }
    .start()
    .await;
    let connection = server.connect().await;
    let commit = connection
        .submit(Api::Commit, Bytes::new())
        .await
        .expect("submitted");
    server
        .wait_for("the call", |s| s.echo.calls.load(Ordering::SeqCst) == 1)
        .await;
    server.stop.cancel();
    tokio::time::timeout(SOON, server.task)
        .await
        .expect("ends")
        .expect("no panic");
    let error = commit.await.expect_err("cut");
    assert!(error.may_have_taken_effect(), "{error}");
}

#[tokio::test]
async fn callers_that_go_away_do_not_wedge_a_connection() {
    let server = Setup::default().start().await;
    let connection = server.connect().await;
    for _ in 0..2 * limits::REQUESTS_UNANSWERED_MAX {
        let call = connection.submit(Api::Publish, vec![1]).await;
        drop(call.expect("open"));
    }
    assert_eq!(connection.call(&Ping {}, SOON).await, Ok(Done {}));
    let error = connection
        .call_raw(Api::Fetch, vec![0], Duration::from_millis(20))
        .await
        .expect_err("nobody wakes it");
    assert!(matches!(
        error,
        CallError::TimedOut {
            may_be_sent: true,
            ..
        }
    ));
    assert_eq!(connection.call(&Ping {}, SOON).await, Ok(Done {}));
}

#[tokio::test]
async fn a_lost_connection_tells_what_may_have_been_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address: Address = listener.local_addr().expect("bound").into();
    let options = DialOptions {
        client: "test".to_owned(),
        timeout: SOON,
    };
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        read_frame(&mut stream).await.expect("a hello");
        let answer = Hello::encode_answer(&HelloAnswer {
            requests_unanswered_max: 1,
            protocol: 1,
            ..Echo::new().hello()
        });
        let answer = Frame {
            header: FrameHeader::request(Api::Hello as u16, 1, 0).answer(),
            body: answer.expect("small").into(),
        };
        stream.write_all(&answer.encode()).await.expect("open");
        read_frame(&mut stream).await.expect("a request");
        (listener, stream)
    });
    let connection = Connection::connect(&address, &options).await.expect("up");
    let sent = connection
        .submit(Api::Ping, Bytes::new())
        .await
        .expect("open");
    let (listener, stream) = server.await.expect("no panic");
    let waiting = connection.clone();
    let waiting = tokio::spawn(async move { waiting.call(&ListPeers {}, SOON).await });
    drop((listener, stream));
    let lost = sent.await.expect_err("lost");
    assert!(matches!(lost, CallError::Lost { .. }), "{lost}");
    // The second had no place yet: nothing of it was sent.
    let refused = waiting.await.expect("no panic").expect_err("refused");
    assert!(
        matches!(refused, CallError::Unreachable { .. }),
        "{refused}"
    );
    let refused = connection.call(&Ping {}, SOON).await.expect_err("closed");
    assert!(
        matches!(refused, CallError::Unreachable { .. }),
        "{refused}"
    );
    let refused = Connection::connect(&address, &options)
        .await
        .expect_err("nobody listens");
    assert!(
        matches!(refused, CallError::Unreachable { .. }),
        "{refused}"
    );
}
