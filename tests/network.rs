//! Networks that swallow packets and machines that vanish without a word, played in network
//! namespaces. Where the system allows none the tests say so and do nothing; the same rules are held
//! without privileges by the tests in `src/connect.rs`, `src/runtime/dial.rs` and
//! `src/client/silence/tests.rs`.

mod common;

use std::process::Command;

use common::{Finished, run_to_end};

/// What each script begins with: a network of our own, in which `$H` is the process that holds the
/// namespace of another machine, 10.9.9.2. `$NODE` and `$CLI` are the programs, `$DIR` is ours.
const TWO_MACHINES: &str = r#"
set -eu
wait_for() { for i in $(seq 300); do grep -q "$1" "$2" && return 0; sleep 0.1; done; echo "no $1 in $2:"; cat "$2"; exit 1; }
ip link set lo up
unshare -n sleep 600 & H=$!
for i in $(seq 100); do
  [ "$(readlink /proc/$H/ns/net)" != "$(readlink /proc/self/ns/net)" ] && break; sleep 0.05
done
ip link add v0 type veth peer name v1
ip link set v1 netns $H
ip addr add 10.9.9.1/24 dev v0
ip link set v0 up
there() { nsenter -t $H -n "$@"; }
there ip link set lo up
there ip addr add 10.9.9.2/24 dev v1
there ip link set v1 up
"#;

/// Runs `script` with bash, as root of namespaces of its own. `None`: not on this system, and why was
/// printed.
fn in_a_private_network(script: &str) -> Option<Finished> {
    let allowed = "unshare -n -m -p -f --mount-proc true && command -v ip nsenter bash mount";
    let probe = Command::new("sh").args(["-c", allowed]).output().expect("sh runs");
    if !probe.status.success() {
        let why = String::from_utf8_lossy(&probe.stderr);
        eprintln!("skipped: no network namespace can be made here: {}", why.trim());
        return None;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new("unshare");
    // All of it ends with the script, which is the first process of its own kind of machine.
    command.args(["-n", "-m", "-p", "-f", "--mount-proc", "--kill-child"]);
    command.args(["bash", "-c", &format!("{TWO_MACHINES}{script}")]);
    command.env("NODE", env!("CARGO_BIN_EXE_replog")).env("CLI", env!("CARGO_BIN_EXE_replog-cli"));
    command.env("DIR", dir.path());
    Some(run_to_end(command, b""))
}

/// A name with two addresses: nobody is at the first, and nothing says so.
#[test]
fn an_address_that_swallows_packets_does_not_hide_the_next_one_from_clients_and_nodes() {
    let script = r#"
ip neigh add 10.9.9.3 lladdr 02:00:00:00:00:01 dev v0 nud permanent
printf '127.0.0.1 localhost\n10.9.9.3 node-a\n10.9.9.2 node-a\n10.9.9.3 nowhere\n' > "$DIR/hosts"
mount --bind "$DIR/hosts" /etc/hosts
nsenter -t $H -n "$NODE" secondary --memory --insecure --listen 10.9.9.2:22051 --gateway none 2> "$DIR/s1" &
wait_for 'ready id=s1' "$DIR/s1"
"$CLI" --server node-a:22051 ping
"$NODE" master --memory --listen 127.0.0.1:22050 --gateway none --secondary s1=node-a:22051 2> "$DIR/m" &
wait_for 'mode=\|to=normal' "$DIR/m"
"$CLI" --server 127.0.0.1:22050 append -w all x
"$CLI" --server nowhere:22051 ping || echo "code $?"
"#;
    let Some(finished) = in_a_private_network(script) else { return };
    let finished = finished.expect_code(0);
    let lines = finished.lines();
    assert_eq!(lines[0], "PONG");
    assert!(lines[1].starts_with("OK seq=1 epoch=1 have=2/2 "), "{finished:?}");
    assert_eq!(lines[2], "code 5");
    let nowhere = "nowhere:22051 (10.9.9.3): cannot connect: no answer within";
    assert!(finished.stderr.contains(nowhere), "{finished:?}");
}

/// A name that is out of date: another node is at its first address.
#[test]
fn a_node_finds_the_right_one_behind_the_second_address_of_a_name() {
    let script = r#"
printf '127.0.0.1 localhost\n127.0.0.5 node-a\n127.0.0.6 node-a\n' > "$DIR/hosts"
mount --bind "$DIR/hosts" /etc/hosts
for id in s1 s2; do
  case $id in s1) at=127.0.0.6;; s2) at=127.0.0.5;; esac
  "$NODE" secondary --id $id --memory --listen $at:22051 --gateway none 2> "$DIR/$id" &
  wait_for "ready id=$id" "$DIR/$id"
done
roster="--secondary s1=node-a:22051 --secondary s2=127.0.0.5:22051"
"$NODE" master --memory --listen 127.0.0.1:22050 --gateway none $roster 2> "$DIR/m" &
wait_for 'to=normal' "$DIR/m"
"$CLI" --server 127.0.0.1:22050 append -w all --timeout 30 x
"#;
    let Some(finished) = in_a_private_network(script) else { return };
    let finished = finished.expect_code(0);
    assert!(finished.text().starts_with("OK seq=1 epoch=1 have=3/3 "), "{finished:?}");
}

/// No FIN, no RST: the network is cut, the machine starts again, and the network is mended.
#[test]
fn tail_comes_back_to_a_machine_that_vanished_without_a_word() {
    let script = r#"
node() {
  nsenter -t $H -n "$NODE" master --insecure --listen 10.9.9.2:22050 --gateway none --data-dir "$DIR/data" 2> "$DIR/log$1" & N=$!
  wait_for 'to=normal' "$DIR/log$1"
}
node 1
"$CLI" --server 10.9.9.2:22050 append one
"$CLI" --server 10.9.9.2:22050 tail -f > "$DIR/tail" 2> "$DIR/said" & T=$!
wait_for '1 one' "$DIR/tail"
there ip link set v1 down
kill -9 $N; wait $N || true
wait_for 'silent for' "$DIR/said"
node 2
there ip link set v1 up
# Nothing was sent while there is no route yet.
for i in $(seq 100); do "$CLI" --server 10.9.9.2:22050 append two && break || [ $? = 5 ]; sleep 0.2; done
wait_for '2 two' "$DIR/tail"
# Not INT, which bash has its children in the background ignore.
kill -TERM $T; wait $T
cat "$DIR/tail"
"#;
    let Some(finished) = in_a_private_network(script) else { return };
    let finished = finished.expect_code(0);
    let lines = finished.lines();
    assert_eq!(lines[lines.len() - 2..], ["1 one", "2 two"], "{finished:?}");
}
