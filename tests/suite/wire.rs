//! Raw bytes to and from a server: what no client library would send.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tidings::limits;
use tidings::protocol::api::{Api, Hello, HelloAnswer, MAGIC, Ping, Request};
use tidings::protocol::error::ApiError;
use tidings::protocol::frame::{Frame, FrameHeader};

/// An answer that takes longer does not come.
const SOON: Duration = Duration::from_secs(10);

/// A connection on which anything can be written.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    /// The hello's answer; `None` before it.
    pub hello: Option<HelloAnswer>,
}

/// A frame of a request.
pub fn frame(api: u16, version: u8, body: &[u8]) -> Vec<u8> {
    let header = FrameHeader::request(api, version, 77);
    let body = Bytes::copy_from_slice(body);
    Frame { header, body }.encode()
}

/// The frame of a good hello.
pub fn hello() -> Vec<u8> {
    let hello = Hello {
        magic: MAGIC,
        protocol_min: 1,
        protocol_max: 1,
        client: "raw".to_owned(),
        features: 0,
    };
    frame(Api::Hello as u16, 1, &hello.encode().expect("small"))
}

impl Wire {
    /// Connects and says nothing.
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the server is there");
        stream.set_read_timeout(Some(SOON)).expect("a socket");
        stream.set_write_timeout(Some(SOON)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self {
            stream,
            hello: None,
        }
    }

    /// Connects and says hello; fails with what it is told instead.
    pub fn try_greet(address: &str) -> Result<Self, ApiError> {
        let mut wire = Self::connect(address);
        wire.send(&hello());
        let answer = wire.answer()?;
        wire.hello = Some(Hello::decode_answer(&answer).expect("a hello answer"));
        Ok(wire)
    }

    /// Connects and says hello.
    pub fn greet(address: &str) -> Self {
        Self::try_greet(address).expect("the server has room")
    }

    /// Writes all of it; the server may refuse to take it, which reading will tell.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Writes one byte; whether the connection still takes it.
    pub fn drip(&mut self, byte: u8) -> bool {
        self.stream.write_all(&[byte]).is_ok()
    }

    /// Says that nothing more will come.
    pub fn finish(&mut self) {
        // It may be closed from the other side already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// How long reading waits.
    pub fn patience(&mut self, patience: Duration) {
        let set = self.stream.set_read_timeout(Some(patience));
        set.expect("a socket");
    }

    /// Whether there is something to read, or the end, within the patience.
    pub fn has_answer(&mut self) -> bool {
        let had = self.stream.peek(&mut [0]).is_ok();
        if had {
            self.patience(SOON);
        }
        had
    }

    /// The next frame, or `None` where the connection ends instead.
    #[track_caller]
    pub fn frame(&mut self) -> Option<Frame> {
        let mut buffer = BytesMut::new();
        loop {
            let parsed = Frame::parse(&mut buffer, limits::FRAME_BYTES_MAX);
            if let Some(frame) = parsed.expect("servers send good frames") {
                return Some(frame);
            }
            // Nothing of the next frame is swallowed: what is missing is known.
            let missing = match buffer.first_chunk::<4>() {
                None => 4 - buffer.len(),
                Some(length) => u32::from_le_bytes(*length) as usize + 4 - buffer.len(),
            };
            let at = buffer.len();
            buffer.resize(at + missing, 0);
            match self.stream.read(&mut buffer[at..]) {
                Ok(0) => return None,
                Ok(read) => buffer.truncate(at + read),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer and no end: {error}"),
            }
        }
    }

    /// The body of the next answer, or the error in its place.
    #[track_caller]
    pub fn answer(&mut self) -> Result<Bytes, ApiError> {
        let frame = self.frame().expect("an answer");
        match frame.header.is_error() {
            true => Err(ApiError::decode(&frame.body).expect("an error")),
            false => Ok(frame.body),
        }
    }

    /// The error that is told before the connection ends.
    #[track_caller]
    pub fn refusal(&mut self) -> ApiError {
        let error = self.answer().expect_err("a refusal");
        assert_eq!(self.frame(), None, "the connection goes on after {error}");
        error
    }

    /// A request in one go.
    #[track_caller]
    pub fn ask<R: Request>(&mut self, request: &R) -> Result<R::Answer, ApiError> {
        let body = request.encode().expect("it fits");
        let answer = self.ask_raw(R::API as u16, &body)?;
        Ok(R::decode_answer(&answer).expect("an answer of its kind"))
    }

    /// The same with any body.
    #[track_caller]
    pub fn ask_raw(&mut self, api: u16, body: &[u8]) -> Result<Bytes, ApiError> {
        self.send(&frame(api, 1, body));
        self.answer()
    }

    /// Insists that this connection still works.
    #[track_caller]
    pub fn is_alive(&mut self) {
        self.ask(&Ping {}).expect("the connection goes on");
    }
}
