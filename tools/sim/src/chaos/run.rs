//! One run: start, trouble, healing, judgement.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use replog::client::{Client, ConnectOptions};
use replog::types::{Level, Seq};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::clients::{Shared, reader, text_producer, wire_producer};
use super::cluster::{Addresses, Cluster};
use super::recorder::Recorder;
use super::schedule::{Act, Link, Step, Trouble, node_name, schedule};
use crate::history::{
    Answer, Dump, DumpEntry, History, HistoryWriter, PayloadId, Report, What, check,
};
use crate::proxy::Weather;

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The `replog` binary.
    pub binary: PathBuf,
    /// What the schedule is to be like.
    pub trouble: Trouble,
    /// What the schedule and the clients' choices are drawn from.
    pub seed: u64,
    /// Where the logs of the nodes and the history go.
    pub directory: PathBuf,
    /// The logs must be equal so soon after the trouble.
    pub equal_within: Duration,
}

/// What came out.
#[derive(Debug)]
pub struct Outcome {
    /// The judgement of the history.
    pub report: Report,
    /// What else must not be.
    pub strange: Vec<String>,
    /// The history.
    pub history: PathBuf,
    /// From the end of the trouble until all nodes were equal; none if they never were.
    pub converged: Option<Duration>,
    /// The longest time without an OK.
    pub longest_outage: Duration,
}

impl Outcome {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.report.is_clean() && self.strange.is_empty() && self.converged.is_some()
    }
}

/// For everything that ends by itself once the trouble is over; a failure bound, never a measure.
const HEALING_TIMEOUT: Duration = Duration::from_secs(60);

/// Answers may be so much later than their timeout, in microseconds: the machine may be busy.
const SLACK_US: u64 = 5_000_000;

/// After a stall of the master or of its clients' links the backlog takes so long at most.
const BACKLOG_US: u64 = 2_000_000;

/// Clients of each kind.
const PRODUCERS: usize = 3;

/// Runs a cluster through its schedule, telling `say` what happens.
///
/// # Errors
/// The cluster cannot be started, or the history cannot be written.
pub async fn run(settings: &Settings, mut say: impl FnMut(String)) -> Result<Outcome> {
    let Settings { binary, directory, trouble: plan, seed, equal_within } = settings;
    let Trouble { nodes, disk, .. } = *plan;
    let steps = schedule(*seed, *plan);
    let mut cluster = Cluster::start(binary, directory, nodes, disk, *seed).await?;
    wait_normal(&cluster).await?;

    let names: Vec<String> = (0..nodes).map(node_name).collect();
    let (stop_producers, producers_stop) = watch::channel(false);
    let (stop_readers, readers_stop) = watch::channel(false);
    let producing = Arc::new(Shared {
        recorder: Recorder::new(names.clone()),
        nodes: names,
        stop: producers_stop,
        strange: Mutex::default(),
    });
    let mut producers = JoinSet::new();
    let mut readers = JoinSet::new();
    let addr = |link| cluster.proxy(link).map(|proxy| proxy.addr).context("every link has a proxy");
    let (wire, text) = (addr(Link::Wire)?, addr(Link::Text)?);
    for number in 0..PRODUCERS as u64 {
        let (shared, seed) = (producing.clone(), seed ^ (number << 32));
        producers.spawn(wire_producer(shared.clone(), wire, format!("w{number}"), seed));
        producers.spawn(text_producer(shared, text, format!("t{number}"), !seed));
    }
    for node in 0..nodes {
        let seed = seed ^ (node as u64) << 48;
        let (shared, stop) = (producing.clone(), readers_stop.clone());
        let addresses = cluster.addresses(node);
        readers.spawn(async move {
            let mut stop = stop;
            tokio::select! {
                () = reader(shared, node, addresses, seed) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        });
    }

    let mut strange = Vec::new();
    let recorder = &producing.recorder;
    trouble(&mut cluster, &steps, *plan, recorder, &mut say, &mut strange).await?;
    heal(&mut cluster).await?;
    say("healed".to_owned());
    let healed = Instant::now();
    // The receivers live in the clients.
    let _ = stop_producers.send(true);
    // What a dead node owes will not come.
    let patience = if strange.is_empty() { HEALING_TIMEOUT } else { Duration::from_secs(2) };
    let answered = timeout(patience, async {
        while let Some(ended) = producers.join_next().await {
            ended?;
        }
        Ok::<_, tokio::task::JoinError>(())
    });
    match answered.await {
        Ok(ended) => ended.context("a producer failed")?,
        Err(_) => strange.push(format!("answers are missing after {patience:?}")),
    }
    producers.shutdown().await;
    let converged = timeout(patience, wait_equal(&cluster)).await;
    let converged = converged.is_ok().then(|| healed.elapsed());
    if let Some(after) = converged.filter(|after| after > equal_within) {
        strange.push(format!("the logs are equal only after {after:?}"));
    }
    let _ = stop_readers.send(true);
    readers.shutdown().await;
    if let Some((node, status)) = cluster.ended() {
        strange.push(format!("{} ended by itself: {status}", node_name(node)));
    }
    for node in 0..nodes {
        match dump(&cluster, node).await {
            Ok(dump) => producing.recorder.dump(dump),
            Err(error) => strange.push(format!("{} cannot be read: {error:#}", node_name(node))),
        }
    }
    let shared = Arc::into_inner(producing).context("BUG: a client is still at work")?;
    strange.extend(shared.strange.into_inner().unwrap_or_else(PoisonError::into_inner));
    let (history, texts) = shared.recorder.finish(SLACK_US);
    let path = directory.join("history.jsonl");
    write(&path, &history, &texts)?;
    let report = check(&history);
    let longest_outage = longest_outage(&history);
    Ok(Outcome { report, strange, history: path, converged, longest_outage })
}

async fn trouble(
    cluster: &mut Cluster,
    steps: &[Step],
    plan: Trouble,
    recorder: &Recorder,
    say: &mut impl FnMut(String),
    strange: &mut Vec<String>,
) -> Result<()> {
    let start = Instant::now();
    // Since when answers may be late: of the master itself, and of each link of clients.
    let mut stalled = std::collections::BTreeMap::new();
    for Step { at, act } in steps {
        sleep_until(start + *at).await;
        if let Some((node, status)) = cluster.ended() {
            strange.push(format!("{} ended by itself: {status}", node_name(node)));
            return Ok(());
        }
        say(format!("{:7.3} s  {act}", at.as_secs_f64()));
        match *act {
            Act::Kill(node) => {
                cluster.kill(node).await?;
                // What a process wrote outlives it.
                let what = if plan.disk { What::Restarted } else { What::Lost { kept: 0 } };
                recorder.event(node, recorder.now(), what);
            }
            Act::Start(node) => cluster.start_node(node).await?,
            Act::Pause(node) => {
                stalled.entry((node, None)).or_insert_with(|| recorder.now());
                cluster.signal(node, "STOP").await?;
            }
            Act::Resume(node) => {
                cluster.signal(node, "CONT").await?;
                end_stall(recorder, stalled.remove(&(node, None)), node);
            }
            Act::Weather(link, weather) => {
                if let Some(proxy) = cluster.proxy(link) {
                    proxy.set_weather(weather);
                }
                if matches!(link, Link::Secondary(_)) {
                    continue;
                }
                if weather == Weather::default() {
                    end_stall(recorder, stalled.remove(&(0, Some(link))), 0);
                } else {
                    stalled.insert((0, Some(link)), recorder.now());
                }
            }
            Act::Reset(link) => {
                if let Some(proxy) = cluster.proxy(link) {
                    proxy.reset();
                }
            }
        }
    }
    sleep_until(start + plan.length).await;
    Ok(())
}

fn end_stall(recorder: &Recorder, since: Option<u64>, node: usize) {
    if let Some(since) = since {
        let until = recorder.now() + BACKLOG_US;
        recorder.event(node, since, What::Stalled { until });
    }
}

/// Every schedule ends calm; this is for one that was broken off.
async fn heal(cluster: &mut Cluster) -> Result<()> {
    for link in cluster.links() {
        if let Some(proxy) = cluster.proxy(link) {
            proxy.set_weather(Weather::default());
        }
    }
    for node in 0..cluster.len() {
        if cluster.addresses(node).borrow().is_none() {
            cluster.start_node(node).await?;
        }
        if cluster.ended().is_none() {
            cluster.signal(node, "CONT").await?;
        }
    }
    Ok(())
}

fn addresses(cluster: &Cluster, node: usize) -> Result<Addresses> {
    let addresses = *cluster.addresses(node).borrow();
    addresses.ok_or_else(|| anyhow!("{} does not run", node_name(node)))
}

async fn connect(cluster: &Cluster, node: usize) -> Result<Client> {
    let addr = addresses(cluster, node)?.wire.to_string();
    let options = ConnectOptions {
        name: "judge".into(),
        timeout: HEALING_TIMEOUT,
        ..ConnectOptions::default()
    };
    Ok(Client::connect([addr], options).await?)
}

async fn ask(client: &Client, line: &str) -> Result<String> {
    let reply = client.command(line).await?;
    Ok(String::from_utf8_lossy(&reply).trim_end().to_owned())
}

async fn wait_normal(cluster: &Cluster) -> Result<()> {
    let master = connect(cluster, 0).await?;
    let healthy = async {
        loop {
            let health = ask(&master, "HEALTH").await?;
            let ill = ["unhealthy", "suspected"].iter().any(|word| health.contains(word));
            if health.starts_with("OK mode=normal") && !ill {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(HEALING_TIMEOUT, healthy).await.context("the cluster does not become normal")?
}

/// Until every node's log has the digest of the master's.
async fn wait_equal(cluster: &Cluster) {
    for node in 1..cluster.len() {
        while !is_equal(cluster, node).await.unwrap_or(false) {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn is_equal(cluster: &Cluster, node: usize) -> Result<bool> {
    let (master, node) = (connect(cluster, 0).await?, connect(cluster, node).await?);
    Ok(ask(&master, "DIGEST").await? == ask(&node, "DIGEST").await?)
}

async fn dump(cluster: &Cluster, node: usize) -> Result<Dump> {
    let client = connect(cluster, node).await?;
    let read = async {
        let mut stream = client.read(Seq::FIRST, None, Level::Local).await?;
        let mut entries = Vec::new();
        while let Some(batch) = stream.next_batch().await? {
            for record in batch.records() {
                let record = record?;
                let payload = PayloadId::of(&record.payload);
                let (seq, epoch) = (record.seq.number(), record.epoch.number());
                entries.push(DumpEntry { seq, epoch, payload });
            }
        }
        Ok::<_, anyhow::Error>(Dump { node, entries })
    };
    match timeout(HEALING_TIMEOUT, read).await {
        Ok(dump) => dump,
        Err(_) => bail!("no answer within {HEALING_TIMEOUT:?}"),
    }
}

fn write(path: &Path, history: &History, texts: &[String]) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut writer = HistoryWriter::new(BufWriter::new(file));
    texts.iter().for_each(|text| writer.remember(text));
    writer.write(history).with_context(|| format!("cannot write {}", path.display()))
}

fn longest_outage(history: &History) -> Duration {
    let is_ok = |answer: &Answer| matches!(answer, Answer::Ok(_));
    let ops = history.ops.iter().filter(|op| is_ok(&op.answer));
    let mut times: Vec<u64> = ops.filter_map(|op| op.completed).collect();
    times.sort_unstable();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
    Duration::from_micros(longest.unwrap_or(history.cluster.end))
}
