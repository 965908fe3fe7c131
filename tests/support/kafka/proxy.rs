//! A proxy between clients and one broker that can lose the answer to a produce request: the append happens, and nobody hears of it. And it can
//! answer like a broker that is about to stop: that the cluster has no brokers; or keep back whatever was fetched.
//!
//! Invariant: it forwards whole requests and answers, unchanged, until it is told otherwise; a cut closes the connection between a request
//! and its answer. Deliberately absent: any understanding of a message beyond its head and the list of brokers.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const METADATA: i16 = 3;

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
    hides_brokers: AtomicBool,
    hidden: AtomicU32,
    starves: AtomicBool,
    clients: Mutex<Vec<TcpStream>>,
}

/// What one connection's two directions share.
#[derive(Default)]
struct Connection {
    doomed: AtomicBool,
    /// The keys and versions of requests whose answers may be changed, by their correlation.
    asked: Mutex<HashMap<i32, (i16, i16)>>,
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

    /// From now on, or no longer: whoever asks for the cluster hears of its topics and of no broker.
    pub fn hide_brokers(&self, hides: bool) {
        self.state.hides_brokers.store(hides, Ordering::SeqCst);
    }

    /// From now on, or no longer: nothing that is fetched arrives, and everything else does.
    pub fn starve(&self, starves: bool) {
        self.state.starves.store(starves, Ordering::SeqCst);
    }

    /// How many answers named no broker.
    pub fn hidden(&self) -> u32 {
        self.state.hidden.load(Ordering::SeqCst)
    }

    /// Closes all connections.
    pub fn hang_up(&self) {
        for client in self.state.clients.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
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
    state.clients.lock().unwrap().push(client.try_clone().unwrap());
    let connection = Arc::new(Connection::default());
    let (answers_from, answers_to) = (broker.try_clone().unwrap(), client.try_clone().unwrap());
    let (answering, asked) = (state.clone(), connection.clone());
    std::thread::spawn(move || answer(answers_from, answers_to, &answering, &asked));
    requests(client, broker, state, &connection);
}

fn requests(mut client: TcpStream, mut broker: TcpStream, state: &State, connection: &Connection) {
    while let Some(message) = message(&mut client) {
        let [key, version] = [4, 6].map(|at| i16::from_be_bytes(message[at..at + 2].try_into().unwrap()));
        if matches!(key, FETCH | METADATA) {
            connection.asked.lock().unwrap().insert(correlation(&message[8..]), (key, version));
        }
        let cuts = key == PRODUCE && state.to_cut.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        connection.doomed.fetch_or(cuts, Ordering::SeqCst);
        if broker.write_all(&message).is_err() {
            break;
        }
    }
    let _ = broker.shutdown(Shutdown::Write);
}

fn answer(mut broker: TcpStream, mut client: TcpStream, state: &State, connection: &Connection) {
    while let Some(mut message) = message(&mut broker) {
        // The broker has answered: what it answers to is appended.
        if connection.doomed.load(Ordering::SeqCst) {
            state.cut.fetch_add(1, Ordering::SeqCst);
            break;
        }
        let asked = connection.asked.lock().unwrap().remove(&correlation(&message[4..]));
        if matches!(asked, Some((FETCH, _))) && state.starves.load(Ordering::SeqCst) {
            continue;
        }
        if let Some((METADATA, version)) = asked
            && state.hides_brokers.load(Ordering::SeqCst)
        {
            assert!(version >= 9, "metadata version {version}");
            message = without_brokers(&message);
            state.hidden.fetch_add(1, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(state.delay_ms.load(Ordering::SeqCst)));
        if client.write_all(&message).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = broker.shutdown(Shutdown::Both);
}

fn correlation(bytes: &[u8]) -> i32 {
    i32::from_be_bytes(bytes[..4].try_into().unwrap())
}

/// An answer of the flexible versions (9 and later) to a metadata request, with an empty list of brokers: length, correlation, no tags, throttle
/// time; then the brokers: their number plus one, and of each its id, host, port, rack and tags.
fn without_brokers(message: &[u8]) -> Vec<u8> {
    const BROKERS_AT: usize = 4 + 4 + 1 + 4;
    assert_eq!(message[8], 0, "tags in a header");
    let brokers = message[BROKERS_AT] - 1;
    let mut at = BROKERS_AT + 1;
    for _ in 0..brokers {
        at += 4;
        at += usize::from(message[at].max(1));
        at += 4;
        at += usize::from(message[at].max(1));
        assert_eq!(message[at], 0, "tags of a broker");
        at += 1;
    }
    let mut changed = message[..BROKERS_AT].to_vec();
    changed.push(1);
    changed.extend_from_slice(&message[at..]);
    let length = u32::try_from(changed.len() - 4).unwrap();
    changed[..4].copy_from_slice(&length.to_be_bytes());
    changed
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
