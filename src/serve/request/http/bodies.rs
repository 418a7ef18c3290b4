//! Reads the bodies of calls, within limits of size, memory and time.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Incoming};
use hyper::{HeaderMap, StatusCode};
use tokio::time::timeout;

use crate::serve::request::http::answer::{
    HttpAnswer, bad_request, close_connection_after, error, unavailable,
};
use crate::serve::request::http::connection::{ClientConnection, Phase};
use crate::serve::request::http::encoding::{Encoding, encoding_of, gunzip};

/// The limits of the bodies.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// The longest body, in bytes.
    pub body_bytes_max: usize,
    /// The total memory of the bodies that are being read, in bytes.
    pub all_bytes_max: usize,
    /// The longest time for reading one body.
    pub timeout: Duration,
}

/// The bodies of one listener.
#[derive(Debug)]
pub struct Bodies {
    limits: BodyLimits,
    /// The memory that is reserved now.
    reserved_bytes: Cell<usize>,
}

/// Memory that is reserved for one body. Dropping this value releases the memory.
#[derive(Debug)]
pub struct BodyReservation {
    bodies: Rc<Bodies>,
    bytes: usize,
}

impl Bodies {
    /// Starts without a reservation.
    pub fn new(limits: BodyLimits) -> Rc<Bodies> {
        Rc::new(Bodies {
            limits,
            reserved_bytes: Cell::new(0),
        })
    }

    /// Reads a whole body, and decodes it as its `headers` say. Returns it with its
    /// reservation. If a body breaks a limit, the call gets an error answer (400, 408,
    /// 413, 415 or 503). After the answer, the
    /// connection is closed, because the unread rest of the body precedes any other
    /// call.
    pub async fn read(
        self: &Rc<Self>,
        connection: &ClientConnection,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<(Bytes, BodyReservation), Box<HttpAnswer>> {
        let body = self.read_encoded(connection, headers, body).await;
        body.map_err(|mut answer| {
            close_connection_after(&mut answer);
            answer
        })
    }

    async fn read_encoded(
        self: &Rc<Self>,
        connection: &ClientConnection,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<(Bytes, BodyReservation), Box<HttpAnswer>> {
        let encoding = encoding_of(headers)?;
        let (body, mut reservation) = self.read_within_limits(connection, body).await?;
        match encoding {
            Encoding::Identity => Ok((body, reservation)),
            Encoding::Gzip => {
                let encoded = body.len();
                let grow = |decoded| match decoded > self.limits.body_bytes_max {
                    true => Err(self.too_large()),
                    false => reservation.grow_to(encoded + decoded),
                };
                let decoded = gunzip(&body, grow).await?;
                Ok((decoded.into(), reservation))
            }
        }
    }

    async fn read_within_limits(
        self: &Rc<Self>,
        connection: &ClientConnection,
        body: Incoming,
    ) -> Result<(Bytes, BodyReservation), Box<HttpAnswer>> {
        let announced = body.size_hint().lower();
        let announced = usize::try_from(announced).unwrap_or(usize::MAX);
        if announced > self.limits.body_bytes_max {
            return Err(self.too_large());
        }
        let mut reservation = BodyReservation {
            bodies: Rc::clone(self),
            bytes: 0,
        };
        reservation.grow_to(announced)?;
        connection.enter(Phase::Body, Instant::now());
        let whole = self.collect(body, announced, &mut reservation);
        let Ok(whole) = timeout(self.limits.timeout, whole).await else {
            let late = error(StatusCode::REQUEST_TIMEOUT, "the body took too long");
            return Err(Box::new(late));
        };
        let whole = whole?;
        connection.enter(Phase::Answering, Instant::now());
        Ok((whole, reservation))
    }

    /// Reads a body for which `announced` bytes are reserved already.
    async fn collect(
        &self,
        mut body: Incoming,
        announced: usize,
        reservation: &mut BodyReservation,
    ) -> Result<Bytes, Box<HttpAnswer>> {
        let mut first = Bytes::new();
        let mut whole = Vec::new();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| bad_request("the body is incomplete"))?;
            // Trailers are ignored.
            let Ok(piece) = frame.into_data() else {
                continue;
            };
            length += piece.len();
            if length > self.limits.body_bytes_max {
                return Err(self.too_large());
            }
            reservation.grow_to(length)?;
            // Most bodies arrive in one piece, which is not copied.
            if length == piece.len() {
                first = piece;
                continue;
            }
            if whole.is_empty() {
                whole.reserve_exact(announced);
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(if whole.is_empty() {
            first
        } else {
            whole.into()
        })
    }

    fn too_large(&self) -> Box<HttpAnswer> {
        let max = self.limits.body_bytes_max;
        Box::new(error(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("the body is longer than {max} bytes"),
        ))
    }
}

impl BodyReservation {
    /// Increases the reservation to at least `bytes` for this body. Returns a 503 if
    /// all bodies together would exceed their limit.
    fn grow_to(&mut self, bytes: usize) -> Result<(), Box<HttpAnswer>> {
        let more = bytes.saturating_sub(self.bytes);
        let all = self.bodies.reserved_bytes.get().saturating_add(more);
        if all > self.bodies.limits.all_bytes_max {
            return Err(Box::new(unavailable("too many bodies are being read")));
        }
        self.bodies.reserved_bytes.set(all);
        self.bytes += more;
        Ok(())
    }
}

impl Drop for BodyReservation {
    fn drop(&mut self) {
        let reserved = &self.bodies.reserved_bytes;
        reserved.set(reserved.get() - self.bytes);
    }
}
