//! A client of the text gateway as bare as `nc`.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use super::fields::Fields;
use super::wait::READ_TIMEOUT;

/// One connection to a text gateway. What went over it is shown when the test fails.
pub struct Gateway {
    addr: SocketAddr,
    reader: BufReader<TcpStream>,
    transcript: Vec<String>,
}

/// A LIST taken apart.
#[derive(Debug, Clone)]
pub struct Listing {
    pub entries: Vec<(u64, String)>,
    pub end: Fields,
}

impl Listing {
    /// The payloads, as they were shown.
    pub fn payloads(&self) -> Vec<&str> {
        self.entries.iter().map(|(_, payload)| payload.as_str()).collect()
    }
}

/// A STATUS taken apart.
#[derive(Debug, Clone)]
pub struct Status {
    pub node: Fields,
    pub others: Vec<Fields>,
}

impl Status {
    /// The master's line about one of its secondaries.
    #[track_caller]
    pub fn secondary(&self, id: &str) -> &Fields {
        let mut secondaries = self.others.iter().filter(|line| line.class() == "secondary");
        secondaries
            .find(|line| line.get("id") == id)
            .unwrap_or_else(|| panic!("no line about {id} in {self:?}"))
    }

    /// A secondary's line about its master.
    #[track_caller]
    pub fn master(&self) -> &Fields {
        let mut masters = self.others.iter().filter(|line| line.class() == "master");
        masters.next().unwrap_or_else(|| panic!("no line about the master in {self:?}"))
    }
}

impl Gateway {
    /// Connects to the gateway at `addr`.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Gateway {
        let stream = TcpStream::connect(addr).unwrap_or_else(|error| panic!("{addr}: {error}"));
        Gateway::over(stream)
    }

    /// A client on a connection that is open already.
    #[track_caller]
    pub fn over(stream: TcpStream) -> Gateway {
        let addr = stream.peer_addr().expect("a connection has two ends");
        stream.set_nodelay(true).expect("nodelay can be set");
        stream.set_read_timeout(Some(READ_TIMEOUT)).expect("a timeout can be set");
        stream.set_write_timeout(Some(READ_TIMEOUT)).expect("a timeout can be set");
        Gateway { addr, reader: BufReader::new(stream), transcript: vec![] }
    }

    /// The connection itself, for those who do not keep to lines.
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends one line and its end.
    #[track_caller]
    pub fn send(&mut self, line: &str) {
        self.send_bytes(format!("{line}\n").as_bytes());
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.note("> ", bytes);
        self.stream().write_all(bytes).expect("the gateway takes what is sent");
    }

    /// Closes the sending side, as `nc -N` does at the end of its input.
    pub fn half_close(&mut self) {
        self.note("> ", b"(end of input)");
        self.stream().shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// The next line, without its end.
    #[track_caller]
    pub fn line(&mut self) -> String {
        String::from_utf8_lossy(&self.line_bytes()).into_owned()
    }

    /// The next line, byte for byte.
    #[track_caller]
    pub fn line_bytes(&mut self) -> Vec<u8> {
        let line = self.line_or_end();
        line.unwrap_or_else(|| panic!("{}: closed where a line was due", self.addr))
    }

    /// The next line, or nothing when the gateway has closed the connection.
    #[track_caller]
    pub fn line_or_end(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(0) => {
                self.note("< ", b"(closed)");
                None
            }
            Ok(_) => {
                let end = line.pop();
                self.note("< ", &line);
                assert_eq!(end, Some(b'\n'), "{}: a line without its end", self.addr);
                Some(line)
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                self.note("< ", b"(reset)");
                None
            }
            Err(error) => panic!("{}: no line: {error}", self.addr),
        }
    }

    /// Sends a command of one reply line and reads it.
    #[track_caller]
    pub fn cmd(&mut self, line: &str) -> String {
        self.send(line);
        self.line()
    }

    /// Sends a command of one reply line and takes the reply apart.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> Fields {
        Fields::of(&self.cmd(line))
    }

    /// Sends a command that must be answered OK.
    #[track_caller]
    pub fn ok(&mut self, line: &str) -> Fields {
        let reply = self.ask(line);
        assert_eq!(reply.class(), "OK", "{line}: {}", reply.line());
        reply
    }

    /// Sends a command that must be answered with this class and code, and a sentence.
    #[track_caller]
    pub fn refused(&mut self, line: &str, class_and_code: &str) -> Fields {
        let reply = self.ask(line);
        let starts = format!("{} {}", reply.class(), reply.code());
        assert_eq!(starts, class_and_code, "{line}: {}", reply.line());
        assert!(reply.sentence().is_some(), "no sentence for people: {}", reply.line());
        reply
    }

    /// Lines up to the one that begins with `END`, and that one.
    #[track_caller]
    pub fn lines_until_end(&mut self) -> (Vec<String>, Fields) {
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            if line == "END" || line.starts_with("END ") {
                return (lines, Fields::of(&line));
            }
            lines.push(line);
        }
    }

    /// LIST with `options`.
    #[track_caller]
    pub fn list(&mut self, options: &str) -> Listing {
        self.send(format!("LIST {options}").trim_end());
        let (lines, end) = self.lines_until_end();
        let entries = lines.iter().map(|line| data_line(line)).collect();
        Listing { entries, end }
    }

    /// STATUS.
    #[track_caller]
    pub fn status(&mut self) -> Status {
        self.send("STATUS");
        let (lines, _) = self.lines_until_end();
        let mut lines = lines.iter().map(|line| Fields::of(line));
        let node = lines.next().expect("STATUS begins with the node's own line");
        assert_eq!(node.class(), "node", "{}", node.line());
        Status { node, others: lines.collect() }
    }

    /// The next entry of a TAIL, whatever idle lines stand before it.
    #[track_caller]
    pub fn tail_entry(&mut self) -> (u64, String) {
        loop {
            let line = self.line();
            if !line.starts_with("# ") {
                return data_line(&line);
            }
        }
    }

    /// Fails the test if a reply is there already.
    #[track_caller]
    pub fn assert_still_waiting(&mut self) {
        assert_eq!(self.reader.buffer(), b"", "answered too early");
        let stream = self.reader.get_ref();
        stream.set_nonblocking(true).expect("the mode can be set");
        let mut byte = [0; 1];
        let peeked = stream.peek(&mut byte);
        stream.set_nonblocking(false).expect("the mode can be set");
        match peeked {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{}: {error}", self.addr),
            Ok(_) => {
                let line = self.line_or_end();
                panic!("{}: answered too early: {line:?}", self.addr);
            }
        }
    }

    /// Waits for the gateway to close; fails the test if anything comes before.
    #[track_caller]
    pub fn assert_closed(&mut self) {
        let more = self.line_or_end();
        assert!(more.is_none(), "{}: still talking: {more:?}", self.addr);
    }

    fn note(&mut self, direction: &str, bytes: &[u8]) {
        let shown = &bytes[..bytes.len().min(300)];
        self.transcript.push(format!("{direction}{}", shown.escape_ascii()));
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if thread::panicking() {
            let shown = self.transcript.len().saturating_sub(60);
            eprintln!("--- transcript with {} (from line {shown})", self.addr);
            for line in &self.transcript[shown..] {
                eprintln!("{line}");
            }
        }
    }
}

/// `<seq> <payload>`, the payload possibly empty.
#[track_caller]
fn data_line(line: &str) -> (u64, String) {
    let taken_apart = line.split_once(' ');
    let (seq, payload) = taken_apart.unwrap_or_else(|| panic!("no data line: {line:?}"));
    let seq = seq.parse().unwrap_or_else(|_| panic!("no data line: {line:?}"));
    (seq, payload.to_owned())
}
