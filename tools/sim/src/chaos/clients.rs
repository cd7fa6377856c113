//! Producers and readers: they use the cluster as anybody would, and write down what they see.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use replog::client::{AppendOptions, AppendOutcome, Client, ConnectOptions};
use replog::types::{AckLevel, Level as WireLevel, Seq, Timeout, WriteConcern};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::cluster::Addresses;
use super::recorder::{Asked, Recorder};
use crate::history::{Ack, Answer, Item, Level, PayloadId, Placed, Read};
use crate::rng::Rng;

/// Appends under way, for each producer.
const IN_FLIGHT_MAX: usize = 64;

/// Before a client tries again to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// A reader that waits longer for a paused node asks anew.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What all clients share.
#[derive(Debug)]
pub struct Shared {
    /// The history.
    pub recorder: Recorder,
    /// The roster, master first.
    pub nodes: Vec<String>,
    /// Set when clients shall come to an end.
    pub stop: watch::Receiver<bool>,
    /// What no node may answer, in words.
    pub strange: Mutex<Vec<String>>,
}

impl Shared {
    fn strange(&self, what: String) {
        self.strange.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }
}

/// What to append, and how.
struct Draw {
    payload: Vec<u8>,
    concern: Option<WriteConcern>,
    ack: Option<AckLevel>,
    patience: Option<Timeout>,
    asked: Asked,
}

fn draw(rng: &mut Rng, name: &str, number: u64, nodes: usize) -> Draw {
    let mut payload = format!("{name}-{number}").into_bytes();
    let padding = if rng.percent(80) { 0 } else { rng.magnitude(1, 40_000) };
    payload.resize(payload.len() + padding as usize, b'.');
    let concern = match rng.below(5) {
        0 => None,
        1 => Some(WriteConcern::Majority),
        2 => Some(WriteConcern::All),
        _ => NonZeroU16::new(rng.within(1, nodes as u64) as u16).map(WriteConcern::Nodes),
    };
    let ack = match rng.below(8) {
        0 | 1 => Some(AckLevel::Received),
        2 => Some(AckLevel::Stored),
        _ => None,
    };
    let millis = rng.pick(&[0, 20, 200, 1000, 3000, u64::MAX]);
    let patience = match millis {
        u64::MAX if rng.percent(50) => None,
        u64::MAX => Some(Timeout::Forever),
        millis => Some(Timeout::For(Duration::from_millis(millis))),
    };
    let asked = Asked {
        need: concern.unwrap_or(WriteConcern::All).resolve(nodes).unwrap_or(nodes) as u16,
        ack: if ack == Some(AckLevel::Received) { Ack::Received } else { Ack::Stored },
        timeout: (millis != u64::MAX).then(|| 1000 * millis),
    };
    Draw { payload, concern, ack, patience, asked }
}

async fn pause(rng: &mut Rng) {
    // Bursts, and silences between them.
    if rng.percent(30) {
        sleep(Duration::from_micros(rng.magnitude(100, 40_000))).await;
    }
}

/// Appends by the wire protocol until it is told to stop; then waits for all answers.
pub async fn wire_producer(shared: Arc<Shared>, addr: SocketAddr, name: String, seed: u64) {
    let mut rng = Rng::keyed(&[seed]);
    let room = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut answers = JoinSet::new();
    let mut number = 0;
    while !shared.stopped() {
        let options = ConnectOptions {
            name: name.clone(),
            timeout: Duration::from_secs(3),
            ..ConnectOptions::default()
        };
        let Ok(client) = Client::connect([addr.to_string()], options).await else {
            sleep(RECONNECT_PAUSE).await;
            continue;
        };
        let connection = shared.recorder.new_client();
        while !shared.stopped() {
            while answers.try_join_next().is_some() {}
            let mut stop = shared.stop.clone();
            let permit = tokio::select! {
                permit = room.clone().acquire_owned() => permit,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            number += 1;
            let Draw { payload, concern, ack, patience, asked } =
                draw(&mut rng, &name, number, shared.nodes.len());
            let options =
                AppendOptions { concern, ack, timeout: patience, ..AppendOptions::default() };
            let op = shared.recorder.sends(connection, &payload, asked);
            let shared = shared.clone();
            match client.append(payload.into(), options).await {
                Ok(handle) => {
                    answers.spawn(async move {
                        let answer = match handle.await {
                            Ok(outcome) => answer_of(&outcome),
                            Err(lost) if lost.maybe_applied() => Answer::Lost,
                            Err(_) => Answer::Unsent,
                        };
                        shared.recorder.answered(op, answer);
                        drop(permit);
                    });
                }
                Err(lost) => {
                    let lost = if lost.maybe_applied() { Answer::Lost } else { Answer::Unsent };
                    shared.recorder.answered(op, lost);
                    break;
                }
            }
            pause(&mut rng).await;
        }
    }
    while answers.join_next().await.is_some() {}
}

fn answer_of(outcome: &AppendOutcome) -> Answer {
    match outcome {
        AppendOutcome::Ok(it) => {
            let (seq, epoch) = (it.seq.number(), it.epoch.number());
            Answer::Ok(Placed { seq, epoch, by: it.holders.bits() })
        }
        AppendOutcome::Pending(it) => {
            let (seq, epoch) = (it.seq.number(), it.epoch.number());
            Answer::Pending(Placed { seq, epoch, by: it.holders.bits() })
        }
        AppendOutcome::Unknown(_) => Answer::Unknown,
        AppendOutcome::Refused(refusal) => {
            Answer::Rejected(refusal.code().map_or("?", |code| code.word()).to_owned())
        }
    }
}

/// Appends through the text gateway until it is told to stop; then waits for all answers.
pub async fn text_producer(shared: Arc<Shared>, addr: SocketAddr, name: String, seed: u64) {
    let mut rng = Rng::keyed(&[seed]);
    let mut number = 0;
    while !shared.stopped() {
        let Ok(Ok(stream)) = timeout(Duration::from_secs(3), TcpStream::connect(addr)).await else {
            sleep(RECONNECT_PAUSE).await;
            continue;
        };
        let connection = shared.recorder.new_client();
        let (lines, mut output) = stream.into_split();
        let (sent, waiting) = mpsc::channel(IN_FLIGHT_MAX);
        let reading = tokio::spawn(read_replies(shared.clone(), lines, waiting));
        while !shared.stopped() && !reading.is_finished() {
            let mut stop = shared.stop.clone();
            let permit = tokio::select! {
                permit = sent.reserve() => permit,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Ok(permit) = permit else { break };
            number += 1;
            let draw = draw(&mut rng, &name, number, shared.nodes.len());
            let op = shared.recorder.sends(connection, &draw.payload, draw.asked);
            permit.send(op);
            if output.write_all(&line_of(&draw)).await.is_err() {
                break;
            }
            pause(&mut rng).await;
        }
        // What was sent is answered before the node closes.
        drop(sent);
        let _ = output.shutdown().await;
        let _ = reading.await;
    }
}

fn line_of(draw: &Draw) -> Vec<u8> {
    let mut line = b"APPEND".to_vec();
    if let Some(concern) = draw.concern {
        line.extend(format!(" w={concern}").bytes());
    }
    if let Some(ack) = draw.ack {
        line.extend(format!(" ack={ack}").bytes());
    }
    match draw.patience {
        None => {}
        Some(Timeout::Forever) => line.extend(b" timeout=none"),
        Some(Timeout::For(duration)) => {
            line.extend(format!(" timeout={}ms", duration.as_millis()).bytes());
        }
    }
    line.extend(b" -- ");
    line.extend(&draw.payload);
    line.push(b'\n');
    line
}

async fn read_replies(
    shared: Arc<Shared>,
    input: tokio::net::tcp::OwnedReadHalf,
    mut waiting: mpsc::Receiver<usize>,
) {
    let mut lines = BufReader::new(input).lines();
    while let Some(op) = waiting.recv().await {
        let line: io::Result<Option<String>> = lines.next_line().await;
        let Ok(Some(line)) = line else {
            shared.recorder.answered(op, Answer::Lost);
            break;
        };
        let answer = parse_reply(&line, &shared.nodes).unwrap_or_else(|| {
            shared.strange(format!("APPEND was answered {line:?}"));
            Answer::Lost
        });
        shared.recorder.answered(op, answer);
    }
    waiting.close();
    while let Some(op) = waiting.recv().await {
        shared.recorder.answered(op, Answer::Lost);
    }
}

fn parse_reply(line: &str, nodes: &[String]) -> Option<Answer> {
    let (class, rest) = line.split_once(' ')?;
    let placed = || {
        let value =
            |key: &str| rest.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let mut by = 0;
        for name in value("by")?.split(',') {
            by |= 1 << nodes.iter().position(|node| node == name)?;
        }
        Some(Placed { seq: value("seq")?.parse().ok()?, epoch: value("epoch")?.parse().ok()?, by })
    };
    match class {
        "OK" => placed().map(Answer::Ok),
        "PENDING" => placed().map(Answer::Pending),
        "UNKNOWN" => Some(Answer::Unknown),
        "REJECTED" => Some(Answer::Rejected(rest.split(' ').next()?.to_owned())),
        _ => None,
    }
}

/// Reads from one node, whichever process it is, until it is told to stop.
pub async fn reader(
    shared: Arc<Shared>,
    node: usize,
    mut addresses: watch::Receiver<Option<Addresses>>,
    seed: u64,
) {
    let mut rng = Rng::keyed(&[seed]);
    let mut stop = shared.stop.clone();
    let work = async {
        loop {
            let Ok(found) = addresses.wait_for(Option::is_some).await.map(|found| *found) else {
                return;
            };
            let Some(Addresses { wire, .. }) = found else { continue };
            let options = ConnectOptions {
                name: "reader".into(),
                timeout: READ_TIMEOUT,
                ..ConnectOptions::default()
            };
            let Ok(client) = Client::connect([wire.to_string()], options).await else {
                sleep(RECONNECT_PAUSE).await;
                continue;
            };
            let connection = shared.recorder.new_client();
            let mut end = 1;
            loop {
                let read = read(&shared, &client, node, connection, &mut rng, end);
                match timeout(READ_TIMEOUT, read).await {
                    Ok(Ok(read)) => {
                        end = read.items.last().map_or(end, |item| end.max(item.seq));
                        shared.recorder.read(read);
                    }
                    _ => break,
                }
                sleep(Duration::from_millis(rng.within(20, 120))).await;
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// The connection was lost, or the node said what it must not, which is noted.
struct Gone;

async fn read(
    shared: &Shared,
    client: &Client,
    node: usize,
    connection: u64,
    rng: &mut Rng,
    end: u64,
) -> Result<Read, Gone> {
    let nodes = shared.nodes.len() as u16;
    let level = match rng.below(6) {
        0 | 1 => Level::Local,
        2 | 3 => Level::Committed,
        4 => Level::All,
        _ => Level::Nodes(rng.within(1, u64::from(nodes)) as u16),
    };
    // Mostly the end, which is where things happen.
    let (from, limit) = if rng.percent(95) {
        (end.saturating_sub(rng.below(40)).max(1), None)
    } else {
        (rng.within(1, end), Some(200))
    };
    let mut read = Read {
        client: connection,
        node,
        level,
        from,
        items: Vec::new(),
        commit: None,
        whole: true,
        invoked: shared.recorder.now(),
        completed: 0,
    };
    if rng.percent(70) {
        read_wire(shared, client, limit, &mut read).await?;
    } else {
        read_text(shared, client, limit, &mut read).await?;
    }
    read.completed = shared.recorder.now();
    read.whole = limit.is_none_or(|limit| (read.items.len() as u64) < limit);
    Ok(read)
}

async fn read_wire(
    shared: &Shared,
    client: &Client,
    limit: Option<u64>,
    read: &mut Read,
) -> Result<(), Gone> {
    let level = match read.level {
        Level::Local => WireLevel::Local,
        Level::Committed => WireLevel::Committed,
        Level::All => WireLevel::All,
        Level::Nodes(count) => NonZeroU16::new(count).map_or(WireLevel::All, WireLevel::Nodes),
    };
    let stream = client.read(Seq::new(read.from), limit, level).await;
    let mut stream = stream.map_err(|_| Gone)?;
    while let Some(batch) = stream.next_batch().await.map_err(|_| Gone)? {
        read.commit = Some(batch.commit().number());
        for record in batch.records() {
            match record {
                Ok(record) => {
                    let (seq, payload) = (record.seq.number(), PayloadId::of(&record.payload));
                    read.items.push(Item { seq, payload });
                }
                Err(error) => {
                    shared.strange(format!("{}: {error}", shared.nodes[read.node]));
                    return Err(Gone);
                }
            }
        }
    }
    Ok(())
}

async fn read_text(
    shared: &Shared,
    client: &Client,
    limit: Option<u64>,
    read: &mut Read,
) -> Result<(), Gone> {
    let level = match read.level {
        Level::Local => "local".to_owned(),
        Level::Committed => "committed".to_owned(),
        Level::All => "all".to_owned(),
        Level::Nodes(count) => count.to_string(),
    };
    let limit = limit.map_or(String::new(), |limit| format!(" limit={limit}"));
    let line = format!("LIST from={} level={level}{limit}", read.from);
    let reply = client.command(&line).await.map_err(|_| Gone)?;
    let reply = String::from_utf8_lossy(&reply);
    let parse = |line: &str| {
        let (seq, payload) = line.split_once(' ')?;
        Some(Item { seq: seq.parse().ok()?, payload: PayloadId::of(payload.as_bytes()) })
    };
    for text in reply.lines() {
        if let Some(rest) = text.strip_prefix("END ") {
            let value = |word: &str| word.strip_prefix("commit=")?.parse().ok();
            read.commit = rest.split(' ').find_map(value);
        } else if let Some(item) = parse(text) {
            read.items.push(item);
        } else {
            // A secondary that no master has spoken to since it started knows no roster.
            if !text.starts_with("ERR bad-value level=") || !text.contains(" nodes=0 ") {
                let node = &shared.nodes[read.node];
                shared.strange(format!("{node}: {line} was answered {text:?}"));
            }
            return Err(Gone);
        }
    }
    if read.commit.is_none() {
        shared.strange(format!("{}: {line} was answered without END", shared.nodes[read.node]));
        return Err(Gone);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<Answer> {
        parse_reply(line, &["master", "s1", "s2"].map(str::to_owned))
    }

    #[test]
    fn replies_of_the_gateway_are_understood() {
        let placed = Placed { seq: 7, epoch: 2, by: 0b101 };
        assert_eq!(
            parsed("OK seq=7 epoch=2 have=2/3 need=2 by=master,s2"),
            Some(Answer::Ok(placed))
        );
        assert_eq!(
            parsed("PENDING seq=7 epoch=2 have=2/3 need=3 by=master,s2 missing=s1"),
            Some(Answer::Pending(placed))
        );
        assert_eq!(
            parsed("REJECTED read-only present=1 need=2 - 1 of 3 nodes present, the quorum is 2"),
            Some(Answer::Rejected("read-only".to_owned()))
        );
    }

    #[test]
    fn what_is_no_answer_to_an_append_is_not_taken_for_one() {
        for line in [
            "",
            "OK",
            "OK seq=7 epoch=2",
            "OK seq=x epoch=2 have=1/3 need=1 by=master",
            "OK seq=7 epoch=2 have=1/3 need=1 by=stranger",
            "ERR bad-option option=x - HELP",
            "PONG",
        ] {
            assert_eq!(parsed(line), None, "{line}");
        }
    }
}
