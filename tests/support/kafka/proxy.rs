//! A proxy between clients and one broker that can lose the answer to a produce request: the append happens, and nobody hears of it.
//!
//! Invariant: it forwards whole requests and answers, unchanged, until it is told to cut; a cut closes the connection between a request
//! and its answer. Deliberately absent: any understanding of a message beyond its length and its API key.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

const PRODUCE: i16 = 0;

/// A listening proxy. It stops with the test.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    upstream: AtomicU32,
    /// How many produce requests are still to lose their answers.
    to_cut: AtomicU32,
    cut: AtomicU32,
    delay_ms: AtomicU64,
}

impl Proxy {
    /// Listens on `port`; connections wait for an upstream.
    pub fn listen(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || serve(client, &state));
            }
        });
        Self { port, state }
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The broker's own port.
    pub fn forward_to(&self, port: u16) {
        self.state.upstream.store(u32::from(port), Ordering::SeqCst);
    }

    /// The next so many produce requests reach the broker, and their connections die before the answers come back.
    pub fn lose_answers(&self, count: u32) {
        self.state.to_cut.store(count, Ordering::SeqCst);
    }

    /// How many answers were lost.
    pub fn lost(&self) -> u32 {
        self.state.cut.load(Ordering::SeqCst)
    }

    /// Each answer takes this much longer.
    pub fn delay(&self, delay: Duration) {
        self.state.delay_ms.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

fn serve(client: TcpStream, state: &Arc<State>) {
    let upstream = u16::try_from(state.upstream.load(Ordering::SeqCst)).unwrap();
    let Ok(broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)) else { return };
    client.set_nodelay(true).unwrap();
    broker.set_nodelay(true).unwrap();
    let doomed = Arc::new(AtomicBool::new(false));
    let (answers_from, answers_to) = (broker.try_clone().unwrap(), client.try_clone().unwrap());
    let (answering, their_doom) = (state.clone(), doomed.clone());
    std::thread::spawn(move || answer(answers_from, answers_to, &answering, &their_doom));
    requests(client, broker, state, &doomed);
}

fn requests(mut client: TcpStream, mut broker: TcpStream, state: &State, doomed: &AtomicBool) {
    while let Some(message) = message(&mut client) {
        let key = message.get(4..6).map(|bytes| i16::from_be_bytes([bytes[0], bytes[1]]));
        let cuts =
            key == Some(PRODUCE) && state.to_cut.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        doomed.fetch_or(cuts, Ordering::SeqCst);
        if broker.write_all(&message).is_err() {
            break;
        }
    }
    let _ = broker.shutdown(Shutdown::Write);
}

fn answer(mut broker: TcpStream, mut client: TcpStream, state: &State, doomed: &AtomicBool) {
    while let Some(message) = message(&mut broker) {
        // The broker has answered: what it answers to is appended.
        if doomed.load(Ordering::SeqCst) {
            state.cut.fetch_add(1, Ordering::SeqCst);
            break;
        }
        std::thread::sleep(Duration::from_millis(state.delay_ms.load(Ordering::SeqCst)));
        if client.write_all(&message).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = broker.shutdown(Shutdown::Both);
}

/// One length-prefixed message, its prefix included.
fn message(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).ok()?;
    let bytes = usize::try_from(i32::from_be_bytes(length)).ok()?;
    let mut message = vec![0; 4 + bytes];
    message[..4].copy_from_slice(&length);
    from.read_exact(&mut message[4..]).ok()?;
    Some(message)
}
