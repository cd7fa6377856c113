//! A small cluster inside the process, for the examples of the documentation: they run as they
//! stand there. Not for anything else; it is left out of the documentation.

use std::error::Error;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, ConnectOptions};
use crate::config::{DevConfig, Invocation};
use crate::runtime::run_dev;

/// How long an example may take before it is one that fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks whether the cluster accepts appends.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Runs `example` with the wire addresses of a running master and two secondaries.
///
/// # Panics
/// The cluster cannot be started, or the example fails or takes too long.
pub fn example<F>(example: impl FnOnce(Vec<String>) -> F)
where
    F: Future<Output = Result<(), Box<dyn Error>>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let (config, addrs) = cluster();
    let running = run_dev(config, CancellationToken::new());
    let trying = async {
        wait_until_normal(&addrs[0]).await;
        example(addrs).await
    };
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = timeout(PATIENCE, trying) => ended,
            stopped = running => panic!("the cluster stopped: {stopped:?}"),
        }
    });
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("the example failed: {error}"),
        Err(_) => panic!("the example took longer than {PATIENCE:?}"),
    }
}

/// The configuration of `replog dev` on ports of its own, without text gateways.
fn cluster() -> (DevConfig, Vec<String>) {
    let args = ["dev", "--wire-port", "0", "--gateway-port", "0", "--heartbeat", "100ms"];
    let invocation = Invocation::read(args.map(Into::into), []);
    let Ok(Invocation::Dev(mut config)) = invocation else {
        panic!("these arguments were refused: {args:?}")
    };
    let ip = loopback();
    // All at once, so that they differ.
    let taken: Vec<_> = config.nodes.iter().map(|_| TcpListener::bind((ip, 0))).collect();
    let addrs: Vec<_> = taken
        .iter()
        .map(|listener| {
            let listener = listener.as_ref().expect("a free port");
            listener.local_addr().expect("a bound socket has an address").to_string()
        })
        .collect();
    for (node, addr) in config.nodes.iter_mut().zip(&addrs) {
        node.node.listen.clone_from(addr);
        node.node.gateway = None;
    }
    (config, addrs)
}

/// An address of this machine that connections of others do not come from, so that a port that was
/// free stays free. Not every system has all of 127.0.0.0/8.
fn loopback() -> IpAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, high, low, 1);
    IpAddr::V4(TcpListener::bind((ip, 0)).map_or(Ipv4Addr::LOCALHOST, |_| ip))
}

async fn wait_until_normal(addr: &str) {
    loop {
        if let Ok(client) = Client::connect([addr], ConnectOptions::default()).await
            && let Ok(health) = client.command("HEALTH").await
            && health.starts_with(b"OK mode=normal present=3")
        {
            return;
        }
        sleep(LOOK_AGAIN).await;
    }
}
