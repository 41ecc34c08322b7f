//! What arrives on a connection: frames, the hello, and the bodies of everything else.

use std::fmt::Debug;
use std::sync::Once;

use bytes::{Bytes, BytesMut};
use tidings::limits;
use tidings::protocol::api::{self, Api, Hello, MAGIC, Request};
use tidings::protocol::codec::Malformed;
use tidings::protocol::data::{Fetch, Fetched, Publish, PublishExpecting, Published, Stream};
use tidings::protocol::error::ApiError;
use tidings::protocol::frame::{Frame, FrameError, HEADER_BYTES, Prefix};
use tidings::protocol::taken::Taken;

use super::names_an_error;

/// A stream of frames, as it comes: the first byte chooses the limit in force, the second how the stream is cut.
///
/// The frames of a stream and what is left of it are the bytes of the stream, however they arrive. Only an impossible
/// length is refused, and what is not all there is left alone.
pub fn frame(data: &[u8]) {
    let Some((&[limit, cut], stream)) = data.split_first_chunk() else {
        return;
    };
    let max = match limit % 3 {
        0 => limits::HELLO_FRAME_BYTES_MAX,
        1 => limits::FRAME_BYTES_MAX,
        _ => HEADER_BYTES + usize::from(limit),
    };
    let whole = parse_all(std::iter::once(stream), max);
    let in_pieces = parse_all(stream.chunks(usize::from(cut).max(1)), max);
    assert_eq!(whole, in_pieces, "it matters how a stream arrives");
    let (frames, error, rest) = whole;
    let mut again: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
    again.extend_from_slice(&rest);
    assert_eq!(again, stream, "frames are other bytes than they came in");
    let Some(error) = error else {
        let is_cut = Prefix::parse(&rest, max).expect("no error was met");
        assert!(is_cut.is_none_or(|prefix| prefix.frame_bytes() > rest.len()));
        return;
    };
    names_an_error(&error);
    let length = match error {
        FrameError::TooShort { length } | FrameError::TooLarge { length, .. } => length as usize,
    };
    assert!(!(HEADER_BYTES..=max).contains(&length), "{error}");
}

type Parsed = (Vec<Frame>, Option<FrameError>, Vec<u8>);

/// The frames, the error that ends them, and what was not taken.
fn parse_all<'a>(pieces: impl Iterator<Item = &'a [u8]>, max: usize) -> Parsed {
    let (mut buffer, mut frames, mut error) = (BytesMut::new(), Vec::new(), None);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while error.is_none() {
            let before = buffer.clone();
            match Frame::parse(&mut buffer, max) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => {
                    assert_eq!(buffer, before, "a part of a frame was taken");
                    break;
                }
                Err(found) => error = Some(found),
            }
        }
    }
    (frames, error, buffer.to_vec())
}

/// The first body of a connection, the answer to it, and an error, each read from the same bytes.
pub fn hello(data: &[u8]) {
    round_trip(data, Hello::decode, Request::encode);
    round_trip(data, Hello::decode_answer, Hello::encode_answer);
    if let Ok(hello) = Hello::decode(data) {
        // In every version of the protocol the magic comes first.
        assert_eq!(data[..4], hello.magic);
        assert_eq!(hello.magic == MAGIC, data.starts_with(b"TIDE"));
    }
    error_body(data);
}

/// An error frame's body: whatever a newer node may send has a number and a text here.
fn error_body(data: &[u8]) {
    let first = match ApiError::decode(data) {
        Ok(error) => error,
        Err(error) => return refused(error),
    };
    let again = |error: &ApiError| ApiError::decode(&error.encode()).expect("it was just encoded");
    let second = again(&first);
    assert_eq!(
        (first.code(), first.is_retryable()),
        (second.code(), second.is_retryable()),
        "passing {first:?} on made another error of it"
    );
    // A text that is too long is cut once, and not again.
    assert_eq!(second, again(&second));
}

type Check = fn(&[u8]);

macro_rules! control {
    ($($name:ident)*) => {
        /// A request and its answer, by the request.
        const CONTROL: &[(Api, Check, Check)] = &[
            $((Api::$name, request::<api::$name>, answer::<api::$name>),)*
        ];
    };
}

control! {
    Hello Ping Figures Metrics Lookup ListTopics ListPeers PlaceTopic RetirePeer RegisterPeer RegisterTopics Heartbeat Depart
    ClaimTopic ConfirmTopic DropTopic Watch CreateTopic DeleteTopic DescribeTopic DescribeTopics SetTopic RenameTopic
    PurgeTopic PurgeKey AcceptLoss FindOffset PeerStatus WatchEnds CreateSubscription DeleteSubscription DescribeSubscription
    ListSubscriptions SeekSubscription Commit StreamCredit SubscriptionHistory UndoSubscription SetSubscription
    WatchSubscription WatchSubscriptions CreateConsumerGroup SetConsumerGroup DescribeConsumerGroup ListConsumerGroups DeleteConsumerGroup
    SeekConsumerGroup JoinConsumerGroup SettleRecords LeaveConsumerGroup ReplayDeadLetters DescribeProducer
    OpenProducer OpenLater ListLater CancelLater
}

/// The bodies that do not go through the codec.
const RAW: &[(Api, Check, Check)] = &[
    (Api::Publish, publish, published),
    (Api::PublishExpecting, publish_expecting, published),
    (Api::Fetch, fetch, fetched),
    (Api::Stream, stream, fetched),
    (Api::TakeRecords, take, taken),
];

fn bodies() -> impl Iterator<Item = &'static (Api, Check, Check)> {
    CONTROL.iter().chain(RAW)
}

/// A body: the first byte is the number of the request, the second 0 for the request and 1 for its answer.
///
/// What decodes encodes to the same bytes; what does not is refused with a text that names the request.
pub fn body(data: &[u8]) {
    static ALL: Once = Once::new();
    ALL.call_once(|| {
        let missing = |api: &&Api| !bodies().any(|(known, ..)| known == *api);
        let missing: Vec<_> = Api::ALL.iter().filter(missing).collect();
        assert!(missing.is_empty(), "no bodies of {missing:?} are asked for");
    });
    let Some((&[number, side], body)) = data.split_first_chunk() else {
        return;
    };
    let found = bodies().find(|(api, ..)| *api as u16 == u16::from(number));
    match found {
        Some((_, request, _)) if side % 2 == 0 => request(body),
        Some((.., answer)) => answer(body),
        None => error_body(body),
    }
}

/// The input that asks for a body of the request of that name.
pub fn input_of(name: &str, answer: bool, bytes: &[u8]) -> Option<Vec<u8>> {
    let (api, ..) = bodies().find(|(api, ..)| api.name() == name)?;
    let number = u8::try_from(*api as u16).ok()?;
    Some([&[number, u8::from(answer)], bytes].concat())
}

fn request<R: Request + PartialEq + Debug>(body: &[u8]) {
    if let Err(error) = R::decode(body) {
        assert_eq!(error.what, R::API.name());
    }
    round_trip(body, R::decode, R::encode);
}

fn answer<R: Request>(body: &[u8])
where
    R::Answer: PartialEq + Debug,
{
    round_trip(body, R::decode_answer, R::encode_answer);
}

fn publish(body: &[u8]) {
    match Publish::decode(Bytes::copy_from_slice(body)) {
        Ok(found) => {
            let header = Publish::header(found.topic, found.epoch);
            assert_eq!([&header, &found.batch[..]].concat(), body);
        }
        Err(error) => refused(error),
    }
}

fn publish_expecting(body: &[u8]) {
    match PublishExpecting::decode(Bytes::copy_from_slice(body)) {
        Ok(found) => {
            let PublishExpecting {
                publish,
                expected_end,
            } = found;
            let header = PublishExpecting::header(publish.topic, publish.epoch, expected_end);
            assert_eq!([&header, &publish.batch[..]].concat(), body);
        }
        Err(error) => refused(error),
    }
}

fn published(body: &[u8]) {
    let encode = |answer: &Published| Ok(answer.encode().to_vec());
    round_trip(body, of_slice(Published::decode), encode);
}

fn fetch(body: &[u8]) {
    round_trip(body, of_slice(Fetch::decode), |fetch| Ok(fetch.encode()));
}

fn stream(body: &[u8]) {
    round_trip(body, of_slice(Stream::decode), |stream| Ok(stream.encode()));
}

fn fetched(body: &[u8]) {
    let encode = |answer: &Fetched| Ok(answer.encode().concat());
    round_trip(body, of_slice(Fetched::decode), encode);
}

fn take(body: &[u8]) {
    if let Err(error) = api::TakeRecords::decode(body) {
        assert_eq!(error.what, Api::TakeRecords.name());
    }
    round_trip(body, api::TakeRecords::decode, api::TakeRecords::encode);
}

fn taken(body: &[u8]) {
    let encode = |answer: &Taken| Ok(answer.encode().concat());
    round_trip(body, of_slice(Taken::decode), encode);
}

fn of_slice<T>(
    decode: fn(Bytes) -> Result<T, Malformed>,
) -> impl Fn(&[u8]) -> Result<T, Malformed> {
    move |body| decode(Bytes::copy_from_slice(body))
}

fn round_trip<T: PartialEq + Debug>(
    body: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, Malformed>,
    encode: impl Fn(&T) -> Result<Vec<u8>, Malformed>,
) {
    let value = match decode(body) {
        Ok(value) => value,
        Err(error) => return refused(error),
    };
    let again = encode(&value).expect("what came in goes out");
    assert_eq!(again, body, "{value:?} is other bytes than it came in");
}

/// A refusal travels back to whoever sent the bytes.
fn refused(error: Malformed) {
    names_an_error(&error);
    let answer = ApiError::from(error);
    assert_eq!(ApiError::decode(&answer.encode()), Ok(answer));
}
