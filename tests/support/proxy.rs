//! A fault-injecting HTTP layer between a program and the S3 server: it counts requests, and a
//! plan decides what becomes of each.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One request, as far as a plan needs it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Counted from 0 since the proxy's start.
    pub number: usize,
    pub method: String,
    /// With its query.
    pub path: String,
    /// Lower-case names.
    pub headers: Vec<(String, String)>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Fate {
    Pass,
    /// The connection is reset before the server sees the request.
    ResetBefore,
    /// The line is closed before all of the body was read: a store that refuses at once.
    Unread,
    /// The server does it, and the answer is lost.
    ResetAfter,
    /// The server never sees it; this status with this S3 error code is the answer (empty: no
    /// body; one that begins with `<`: the body itself).
    Answer(u16, &'static str),
    /// The server never sees it, and the answer is that of a store that took it.
    Stored,
    /// The server never sees it; these bytes are all of the answer, and the line is closed.
    Raw(&'static str),
    /// The answer's body ends after so many bytes, though more were promised.
    Truncate(usize),
    /// The answer's body ends after so many bytes, and as its length was never said, nobody can
    /// tell by the connection: a proxy that speaks HTTP/1.0.
    Cut(usize),
    /// The answer with another body, without a length as above.
    Body(fn(Vec<u8>) -> Vec<u8>),
    /// The answer's body comes so slowly: one byte each time.
    Drip(Duration),
    /// The answer's body stops after so many bytes, and nothing ends.
    Stall(usize),
    /// Nothing is ever answered.
    Silence,
    /// One bit of the request's body is flipped on its way to the server.
    CorruptRequest,
    /// One bit of the answer's body is flipped on its way back.
    CorruptAnswer,
    /// By the answer, everything was stored in the year 2000.
    LongAgo,
}

pub type Plan = Box<dyn Fn(&Seen) -> Fate + Send + Sync>;

pub struct Proxy {
    address: SocketAddr,
    plan: Arc<Mutex<Arc<Plan>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address); // wakes the accepting thread
    }
}

impl Proxy {
    pub fn start(server: SocketAddr, plan: Plan) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let plan = Arc::new(Mutex::new(Arc::new(plan)));
        let (all, stopped, current) = (Arc::clone(&seen), Arc::clone(&stop), Arc::clone(&plan));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (all, stopped) = (Arc::clone(&all), Arc::clone(&stopped));
                let plan = Arc::clone(&current.lock().unwrap());
                // A client that goes away in the middle is none of the proxy's failures.
                std::thread::spawn(move || {
                    drop(client.and_then(|client| serve(client, server, &all, &plan, &stopped)))
                });
            }
        });
        Proxy { address, plan, seen, stop }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Another plan from now on; the count begins anew.
    pub fn plan(&self, plan: Plan) {
        *self.plan.lock().unwrap() = Arc::new(plan);
        self.taken();
    }

    /// The requests since the last call: method and path.
    pub fn taken(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// One request a connection.
fn serve(
    mut client: TcpStream,
    server: SocketAddr,
    all: &Mutex<Vec<Seen>>,
    plan: &Plan,
    stopped: &AtomicBool,
) -> io::Result<()> {
    let (head, mut body) = read_head(&mut client)?;
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let header = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned()));
    let mut seen = Seen {
        number: 0,
        method: first.next().unwrap_or_default().to_owned(),
        path: first.next().unwrap_or_default().to_owned(),
        headers: lines.filter_map(header).collect(),
    };
    {
        let mut all = all.lock().unwrap();
        seen.number = all.len();
        all.push(seen.clone());
    }
    let fate = plan(&seen);
    if matches!(fate, Fate::Unread) {
        return Ok(());
    }
    let length = seen.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0usize);
    if seen.header("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let missing = length.saturating_sub(body.len());
    let mut rest = vec![0; missing];
    client.read_exact(&mut rest)?;
    body.extend(rest);
    match &fate {
        Fate::ResetBefore => return reset(&client),
        Fate::Silence => {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
            return Ok(());
        }
        Fate::Answer(status, code) => {
            let xml = format!(
                "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>injected</Message></Error>"
            );
            let xml = match *code {
                "" => String::new(),
                body if body.starts_with('<') => body.to_owned(),
                _ if seen.method == "HEAD" => String::new(),
                _ => xml,
            };
            return write!(
                client,
                "HTTP/1.1 {status} Injected\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{xml}",
                xml.len()
            );
        }
        Fate::Stored => {
            let answer = "HTTP/1.1 200 OK\r\nETag: \"a1\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return client.write_all(answer.as_bytes());
        }
        Fate::Raw(answer) => return client.write_all(answer.as_bytes()),
        Fate::CorruptRequest => flip_middle(&mut body),
        _ => {}
    }
    let mut upstream = TcpStream::connect(server)?;
    let end = text.find("\r\n\r\n").unwrap_or(text.len());
    let kept = text[..end].split("\r\n").filter(|line| {
        let line = line.to_lowercase();
        !line.starts_with("connection:") && !line.starts_with("expect:")
    });
    let kept: Vec<_> = kept.collect();
    upstream.write_all(format!("{}\r\nConnection: close\r\n\r\n", kept.join("\r\n")).as_bytes())?;
    // A server may refuse before it has read the body, and close.
    let _ = upstream.write_all(&body);
    let mut answer = Vec::new();
    let _ = upstream.read_to_end(&mut answer);
    let start = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    match fate {
        Fate::ResetAfter => return reset(&client),
        Fate::Truncate(bytes) => client.write_all(&answer[..answer.len().min(start + bytes)])?,
        Fate::Cut(bytes) => {
            client.write_all(&without_length(&answer[..start]))?;
            client.write_all(&answer[start..answer.len().min(start + bytes)])?;
        }
        Fate::Body(change) => {
            client.write_all(&without_length(&answer[..start]))?;
            client.write_all(&change(answer[start..].to_vec()))?;
        }
        Fate::Drip(pause) => {
            client.write_all(&answer[..start])?;
            for byte in &answer[start..] {
                client.write_all(&[*byte])?;
                std::thread::sleep(pause);
                if stopped.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
        }
        Fate::Stall(bytes) => {
            client.write_all(&answer[..answer.len().min(start + bytes)])?;
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Fate::CorruptAnswer => {
            flip_middle(&mut answer[start..]);
            client.write_all(&answer)?;
        }
        Fate::LongAgo => {
            long_ago(&mut answer);
            client.write_all(&answer)?;
        }
        _ => client.write_all(&answer)?,
    }
    client.shutdown(Shutdown::Both)
}

/// Sets every time at which an object was stored to the year 2000, in headers and in listings.
fn long_ago(answer: &mut [u8]) {
    for (before, then) in
        [(&b"\r\nlast-modified: "[..], &b"Sat, 01 Jan 2000 00:00:00 GMT"[..]), (b"<lastmodified>", b"2000")]
    {
        for start in 0..answer.len() {
            let end = start + before.len() + then.len();
            let Some(found) = answer.get_mut(start..end) else { break };
            if found[..before.len()].eq_ignore_ascii_case(before) {
                found[before.len()..].copy_from_slice(then);
            }
        }
    }
}

/// The head of an answer as HTTP/1.0 has it: the body ends where the connection does.
fn without_length(head: &[u8]) -> Vec<u8> {
    let head = String::from_utf8_lossy(head).into_owned();
    assert!(!head.to_lowercase().contains("transfer-encoding"), "a body in chunks is not understood here");
    let kept = head.split("\r\n").filter(|line| !line.to_lowercase().starts_with("content-length:"));
    let kept: Vec<_> = kept.collect();
    kept.join("\r\n").replacen("HTTP/1.1", "HTTP/1.0", 1).into_bytes()
}

fn flip_middle(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x10;
    }
}

/// Closes with unread data or at once: the peer sees a reset or an early end.
fn reset(client: &TcpStream) -> io::Result<()> {
    client.shutdown(Shutdown::Both)
}

fn read_head(client: &mut TcpStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16384];
    loop {
        let read = client.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..read]);
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = bytes.split_off(at + 4);
            return Ok((bytes, body));
        }
    }
}
