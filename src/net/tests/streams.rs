//! Requests with many answers, from both sides.

use super::*;
use crate::net::Inlet;
use crate::protocol::frame::{FLAG_ANSWER, FLAG_MORE};

/// More than anybody sends.
const MUCH: Credit = Credit {
    bytes: u64::MAX,
    records: u64::MAX,
};

/// A stream of answers of so many KiB and ten records each.
fn stream_of(kib: u64, credit: Credit) -> Stream {
    Stream {
        topic: TopicId::zero(),
        epoch: LeaderEpoch::new(1),
        offset: Offset::new(kib),
        max_bytes: 1,
        credit,
        keep_alive_ms: 100,
        pass_damage: false,
    }
}

fn request(correlation: u32, api: Api, body: Vec<u8>) -> Vec<u8> {
    let header = FrameHeader::request(api as u16, 1, correlation);
    let body = body.into();
    Frame { header, body }.encode()
}

fn credit(stream: u32, (bytes, records): (u64, u64), end: bool) -> Vec<u8> {
    let credit = StreamCredit {
        stream,
        bytes,
        records,
        end,
    };
    request(900, Api::StreamCredit, credit.encode().expect("small"))
}

/// What comes next of a stream, keep-alives and answers to credits apart.
async fn part(stream: &mut TcpStream) -> Frame {
    loop {
        let frame = read_frame(stream).await.expect("an answer");
        let is_alive = frame.header.has_more() && frame.body.is_empty();
        if frame.header.api == Api::Stream as u16 && !is_alive {
            return frame;
        }
    }
}

async fn is_quiet(stream: &mut TcpStream) {
    for _ in 0..2 {
        let frame = read_frame(stream).await.expect("an answer");
        assert!(frame.body.is_empty(), "{frame:?}");
    }
}

#[tokio::test]
async fn a_stream_is_sent_as_long_as_there_is_credit_of_both_kinds() {
    let server = Setup::default().start().await;
    let mut stream = server.greeted().await;
    let given = Credit {
        bytes: 3_500,
        records: 1_000,
    };
    let open = request(5, Api::Stream, stream_of(1, given).encode());
    stream.write_all(&open).await.expect("open");
    let first = read_frame(&mut stream).await.expect("it stands");
    assert_eq!(first.header.flags, FLAG_ANSWER | FLAG_MORE);
    assert!(first.body.is_empty());
    for _ in 0..4 {
        let frame = part(&mut stream).await;
        assert_eq!((frame.header.correlation, frame.body.len()), (5, 1_024));
    }
    // 596 bytes are owed.
    is_quiet(&mut stream).await;
    let pay = async |stream: &mut TcpStream, given| {
        let frame = credit(5, given, false);
        stream.write_all(&frame).await.expect("open");
        let done = loop {
            let frame = read_frame(stream).await.expect("an answer");
            if frame.header.api == Api::StreamCredit as u16 {
                break frame;
            }
        };
        assert!(!done.header.is_error());
    };
    pay(&mut stream, (596, 0)).await;
    is_quiet(&mut stream).await;
    pay(&mut stream, (1, 0)).await;
    assert_eq!(part(&mut stream).await.body.len(), 1_024);
    // Bytes for ever; of 1,000 records 950 are left.
    pay(&mut stream, (u64::MAX, 0)).await;
    for _ in 0..95 {
        part(&mut stream).await;
    }
    is_quiet(&mut stream).await;
    let end = credit(5, (0, 0), true);
    stream.write_all(&end).await.expect("open");
    let last = part(&mut stream).await;
    assert_eq!((last.header.flags, last.body.len()), (FLAG_ANSWER, 0));
    server.settles().await;
    let ended = |running: &Running| running.traffic.streams() == 0;
    server.wait_for("its streams to end", ended).await;
}

#[tokio::test]
async fn credit_that_makes_no_sense_is_refused_and_too_much_is_much() {
    let server = Setup::default().start().await;
    let mut stream = server.greeted().await;
    let refused = async |stream: &mut TcpStream, bytes: Vec<u8>| {
        stream.write_all(&bytes).await.expect("open");
        loop {
            let frame = read_frame(stream).await.expect("an answer");
            if frame.header.is_error() {
                return ApiError::decode(&frame.body).expect("an error");
            }
        }
    };
    let error = refused(&mut stream, credit(5, (1, 1), false)).await;
    assert_eq!(error, ApiError::UnknownStream { stream: 5 });
    let none = Credit::default();
    let open = request(5, Api::Stream, stream_of(1, none).encode());
    stream.write_all(&open).await.expect("open");
    let error = refused(&mut stream, open.clone()).await;
    assert_eq!(error.name(), "InvalidArgument", "{error}");
    for _ in 0..3 {
        let most = credit(5, (u64::MAX, u64::MAX), false);
        stream.write_all(&most).await.expect("open");
    }
    for _ in 0..100 {
        part(&mut stream).await;
    }
    drop(stream);
    server.settles().await;
}

async fn open(connection: &Connection, kib: u64, credit: Credit) -> Inlet {
    let stream = stream_of(kib, credit);
    let mut inlet = connection.open_stream(&stream).await.expect("open");
    tokio::time::timeout(SOON, inlet.answered())
        .await
        .expect("in time");
    inlet
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_renews_its_credit_is_sent_much_and_others_are_served() {
    let server = Setup::default().start().await;
    let connection = server.connect().await;
    let window = Credit {
        bytes: 4 << 20,
        records: 1_000,
    };
    let mut inlet = open(&connection, 300, window).await;
    let mut owed = Credit::default();
    for _ in 0..500 {
        let body = tokio::time::timeout(SOON, inlet.next()).await;
        let body = body.expect("in time").expect("good").expect("more");
        assert_eq!(body.len(), 300 << 10);
        owed.bytes += body.len() as u64;
        owed.records += 10;
        if owed.bytes >= window.bytes / 2 {
            inlet.give(std::mem::take(&mut owed));
        }
    }
    assert_eq!(connection.call(&Ping {}, SOON).await, Ok(Done {}));
    drop(inlet);
    server
        .wait_for("the stream to end", |s| s.traffic.streams() == 0)
        .await;
    assert_eq!(connection.call(&Ping {}, SOON).await, Ok(Done {}));
    server.settles().await;
}

#[tokio::test]
async fn streams_take_no_places_of_requests_and_have_a_limit_of_their_own() {
    let server = Setup::default().start().await;
    let connection = server.connect().await;
    let mut inlets = Vec::new();
    for _ in 0..limits::STREAMS_PER_CONNECTION_MAX {
        inlets.push(open(&connection, 1, Credit::default()).await);
    }
    assert_eq!(connection.call(&Ping {}, SOON).await, Ok(Done {}));
    let mut pending = Vec::new();
    for _ in 0..limits::REQUESTS_UNANSWERED_MAX {
        let poll = connection.submit(Api::Commit, Bytes::new()).await;
        pending.push(poll.expect("there is room"));
    }
    server
        .wait_for("all of them", |s| {
            s.echo.kept.lock().expect("not poisoned").len() == limits::REQUESTS_UNANSWERED_MAX
        })
        .await;
    let kept = std::mem::take(&mut *server.echo.kept.lock().expect("not poisoned"));
    kept.into_iter().for_each(|reply| reply.answer(vec![1]));
    for answer in pending {
        assert_eq!(answer.await, Ok(Bytes::from_static(&[1])));
    }
    let mut more = open(&connection, 1, MUCH).await;
    let max = limits::STREAMS_PER_CONNECTION_MAX as u64;
    let refused = Err(CallError::Api(ApiError::TooManyStreams { max }));
    assert_eq!(more.next().await, refused);
    // One that waits for credit goes on with it, whatever its neighbours do.
    let last = inlets.last_mut().expect("there are many");
    last.give(Credit {
        bytes: 1,
        records: 1,
    });
    let body = tokio::time::timeout(SOON, last.next()).await;
    assert_eq!(
        body.expect("in time").map(|body| body.map(|b| b.len())),
        Ok(Some(1_024))
    );
    drop(inlets);
    server
        .wait_for("the streams to end", |s| s.traffic.streams() == 0)
        .await;
    server.settles().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_taken_holds_bounded_memory_and_is_cut_off() {
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
    for correlation in 1..=5 {
        let open = request(correlation, Api::Stream, stream_of(900, MUCH).encode());
        stream.write_all(&open).await.expect("small");
    }
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
    server
        .wait_for("the streams to end", |s| s.traffic.streams() == 0)
        .await;
}

#[tokio::test]
async fn a_client_of_which_nothing_is_heard_loses_its_streams_and_one_that_speaks_does_not() {
    let server = Setup {
        timeouts: Timeouts {
            client_silence: Duration::from_millis(300),
            ..Timeouts::default()
        },
        ..Setup::default()
    }
    .start()
    .await;
    let mut speaking = server.greeted().await;
    let mut silent = server.greeted().await;
    for stream in [&mut speaking, &mut silent] {
        let open = request(5, Api::Stream, stream_of(1, Credit::default()).encode());
        stream.write_all(&open).await.expect("open");
    }
    let told = tokio::spawn(async move {
        let frame = part(&mut silent).await;
        (ApiError::decode(&frame.body).expect("an error"), silent)
    });
    let mut alive = 0;
    while !told.is_finished() {
        let nothing = credit(5, (0, 0), false);
        speaking.write_all(&nothing).await.expect("open");
        let answer = read_frame(&mut speaking).await.expect("an answer");
        assert!(!answer.header.is_error());
        alive += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (error, mut silent) = told.await.expect("no panic");
    assert!(
        matches!(error, ApiError::ClientSilent { silent_ms: 300.. }),
        "{error}"
    );
    assert!(alive > 5);
    assert_eq!(server.traffic.streams(), 1, "the other one goes on");
    let ping = frame(Api::Ping as u16, 1, b"");
    silent
        .write_all(&ping)
        .await
        .expect("the connection goes on");
    assert!(read_frame(&mut silent).await.is_some());
}

/// The first stream's long time had to be over before the second one's short one counted.
#[tokio::test]
async fn the_shortest_time_that_was_asked_for_counts_from_the_moment_it_is() {
    let server = Setup::default().start().await;
    let mut stream = server.greeted().await;
    for (correlation, keep_alive_ms) in [(5, 10_000), (6, 100)] {
        let open = Stream {
            keep_alive_ms,
            ..stream_of(1, Credit::default())
        };
        let open = request(correlation, Api::Stream, open.encode());
        stream.write_all(&open).await.expect("open");
        let stands = read_frame(&mut stream).await.expect("it stands");
        assert!(stands.body.is_empty());
        // The one that looks after them sleeps by now.
        tokio::task::yield_now().await;
    }
    let alive = tokio::time::timeout(Duration::from_secs(5), read_frame(&mut stream));
    let alive = alive.await.expect("within the short one").expect("open");
    assert!(
        alive.header.has_more() && alive.body.is_empty(),
        "{alive:?}"
    );
}

#[tokio::test]
async fn streams_end_with_the_server_and_with_the_client_s_sending_side() {
    let server = Setup::default().start().await;
    let mut half = server.greeted().await;
    let open_one = request(5, Api::Stream, stream_of(1, Credit::default()).encode());
    half.write_all(&open_one).await.expect("open");
    half.shutdown().await.expect("open");
    let last = part(&mut half).await;
    assert_eq!(ApiError::decode(&last.body), Ok(ApiError::Unanswered));
    assert_eq!(read_frame(&mut half).await, None);

    let connection = server.connect().await;
    let mut inlet = open(&connection, 1, Credit::default()).await;
    server.stop.cancel();
    let ended = tokio::time::timeout(SOON, inlet.next()).await;
    let shutting_down = Err(CallError::Api(ApiError::ShuttingDown));
    assert_eq!(ended.expect("at once"), shutting_down);
    tokio::time::timeout(SOON, server.task)
        .await
        .expect("ends")
        .expect("no panic");
}

/// A node that says hello, and then what it is told to say; it stays connected.
async fn says(frames: Vec<Vec<u8>>) -> (Address, JoinHandle<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").into();
    let node = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        read_frame(&mut stream).await.expect("a hello");
        let answer = Hello::encode_answer(&HelloAnswer {
            protocol: 1,
            ..Echo::new().hello()
        });
        let hello = Frame {
            header: FrameHeader::request(Api::Hello as u16, 1, 0).answer(),
            body: answer.expect("small").into(),
        };
        stream.write_all(&hello.encode()).await.expect("open");
        read_frame(&mut stream).await.expect("a stream");
        for frame in frames {
            stream.write_all(&frame).await.expect("open");
        }
        stream
    });
    (address, node)
}

fn part_of(correlation: u32, body: Vec<u8>) -> Vec<u8> {
    let header = FrameHeader::request(Api::Stream as u16, 1, correlation);
    Frame {
        header: header.answer_with_more(),
        body: body.into(),
    }
    .encode()
}

async fn connect_to(address: &Address) -> Connection {
    let options = DialOptions {
        client: "test".to_owned(),
        timeout: SOON,
    };
    Connection::connect(address, &options).await.expect("up")
}

#[tokio::test]
async fn a_node_that_falls_silent_is_noticed_within_two_seconds() {
    let (address, node) = says(vec![part_of(1, vec![]), part_of(1, vec![7; 10])]).await;
    let connection = connect_to(&address).await;
    let mut inlet = open(&connection, 1, MUCH).await;
    let began = Instant::now();
    // What came before it is told first.
    let body = inlet.next().await.expect("good").expect("more");
    assert_eq!(body.len(), 10);
    let error = inlet.next().await.expect_err("it is silent");
    assert!(matches!(&error, CallError::Lost { .. }), "{error}");
    assert!(error.to_string().contains("nothing was heard"), "{error}");
    let waited = began.elapsed();
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    assert!(connection.is_closed());
    drop(node.await.expect("no panic"));
}

#[tokio::test]
async fn a_node_that_sends_without_credit_or_more_than_one_answer_breaks_the_protocol() {
    let two = || vec![part_of(1, vec![7; 2_000]), part_of(1, vec![7; 10])];
    let (address, node) = says(two()).await;
    let given = Credit {
        bytes: 1_000,
        records: 1,
    };
    let connection = connect_to(&address).await;
    let mut inlet = open(&connection, 1, given).await;
    assert_eq!(
        inlet.next().await.map(|body| body.map(|b| b.len())),
        Ok(Some(2_000))
    );
    let error = inlet.next().await.expect_err("too much");
    assert!(error.to_string().contains("without credit"), "{error}");
    drop(node.await.expect("no panic"));

    let (address, node) = says(two()).await;
    let connection = connect_to(&address).await;
    let error = connection.call_raw(Api::Ping, Bytes::new(), SOON).await;
    let error = error.expect_err("an answer that more follow");
    assert!(error.to_string().contains("was not made"), "{error}");
    drop(node.await.expect("no panic"));
}
