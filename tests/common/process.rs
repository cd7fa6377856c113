//! The two programs as child processes: their output is kept, their end is certain.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::fields::Fields;
use super::wait::{DEADLINE, wait_until};

/// `replog` with `args`, untouched by the environment of whoever runs the tests.
///
/// A node that is not told where its log lives keeps it below a working directory of its own.
pub fn replog(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    static NODES: AtomicU32 = AtomicU32::new(0);
    let mut args = args.into_iter().map(|arg| arg.as_ref().to_owned()).peekable();
    let is_node = args.peek().is_some_and(|role| role == "master" || role == "secondary");
    let mut command = quiet_command(env!("CARGO_BIN_EXE_replog"), args);
    if is_node {
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        let name = format!("node-{}-{number}", std::process::id());
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&dir).expect("a directory can be made");
        command.current_dir(dir);
    }
    command
}

/// `replog-cli` with `args`.
pub fn replog_cli(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    quiet_command(env!("CARGO_BIN_EXE_replog-cli"), args)
}

fn quiet_command(program: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = unheedful(program);
    command.args(args).current_dir(env!("CARGO_TARGET_TMPDIR"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("REPLOG_") {
            command.env_remove(name);
        }
    }
    command
}

/// `program`, which does what it does by itself when signals come, although this test may be run where
/// some are ignored: in the background of a shell, under nohup. Programs inherit that, and obey it.
fn unheedful(program: &str) -> Command {
    const HUP_INT_QUIT: [i32; 3] = [1, 2, 3];
    let ignored = replog::signals::Ignored::now();
    if !HUP_INT_QUIT.iter().any(|&number| ignored.contains(number)) {
        return Command::new(program);
    }
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,INT,QUIT", program]);
    command
}

/// `command`, but its process may have no more than so many files and sockets open.
pub fn with_files_max(files: u32, command: &Command) -> Command {
    let mut limited = Command::new("sh");
    let order = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
    limited.args(["-c", &order]).arg(command.get_program()).args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        limited.current_dir(dir);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

/// The same program, started by a shell that runs `line` before it becomes the program.
pub fn under_shell(command: &Command, line: &str) -> Command {
    let mut shell = quiet_command("sh", ["-c", &format!("{line}; exec \"$0\" \"$@\"")]);
    // What stands before the program where signals are ignored would undo what the line says of them.
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    shell.args(words.skip(if command.get_program() == "env" { 2 } else { 0 }));
    if let Some(dir) = command.get_current_dir() {
        shell.current_dir(dir);
    }
    shell
}

/// What a program that ran to its end left behind.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Finished {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output, line by line.
    pub fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }

    /// Fails the test, showing all output, unless the exit code is `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Finished {
        let Finished { stderr, .. } = &self;
        assert_eq!(self.code, Some(code), "\nstdout: {}\nstderr: {stderr}", self.text());
        self
    }
}

/// Runs `command` to its end with `input` on its standard input. One that does not end in time is
/// killed and fails the test.
#[track_caller]
pub fn run_to_end(mut command: Command, input: &[u8]) -> Finished {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut child = KilledOnDrop(child);
    let mut stdin = child.0.stdin.take().expect("stdin is piped");
    let mut stdout = child.0.stdout.take().expect("stdout is piped");
    let mut stderr = child.0.stderr.take().expect("stderr is piped");
    thread::scope(|scope| {
        // A program that ends early closes its input: that is for the exit code to tell.
        scope.spawn(move || stdin.write_all(input));
        let stdout = scope.spawn(move || read_all(&mut stdout));
        let stderr = scope.spawn(move || read_all(&mut stderr));
        let status = wait_for_exit(&mut child.0, &format!("the end of {command:?}"));
        Finished {
            code: status.code(),
            stdout: stdout.join().expect("the reader does not panic"),
            stderr: String::from_utf8_lossy(&stderr.join().expect("the reader does not panic"))
                .into_owned(),
        }
    })
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process too; both calls fail only for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_all(from: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What came before an error is what the test looks at.
    let _ = from.read_to_end(&mut bytes);
    bytes
}

/// Waits for the exit; kills a child that takes too long, so that its pipes end too.
#[track_caller]
fn wait_for_exit(child: &mut Child, what: &str) -> ExitStatus {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("waited in vain for {what}");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The line a node prints on stderr when it accepts connections.
#[derive(Debug, Clone)]
pub struct Ready {
    pub id: String,
    pub role: String,
    pub wire: SocketAddr,
    pub gateway: SocketAddr,
    pub store: String,
}

impl Ready {
    /// The ready line in a line of the log, if it is one.
    pub fn of(log_line: &str) -> Option<Ready> {
        let at = log_line.find("ready id=")?;
        let fields = Fields::of(&log_line[at..]);
        let addr = |key| {
            let value = fields.get(key);
            value.parse().unwrap_or_else(|_| panic!("{key} is no address in: {log_line}"))
        };
        Some(Ready {
            id: fields.get("id").to_owned(),
            role: fields.get("role").to_owned(),
            wire: addr("wire"),
            gateway: addr("gateway"),
            store: fields.get("store").to_owned(),
        })
    }
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

/// Lines of output as a thread of ours collects them.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Lines>>);

impl Output {
    fn of(from: impl Read + Send + 'static) -> Output {
        let output = Output::default();
        let filled = output.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n') {
                let Ok(line) = line else { break };
                filled.lock().lines.push(String::from_utf8_lossy(&line).into_owned());
            }
            filled.lock().ended = true;
        });
        output
    }

    // A test that failed while it held the lock still wants the lines shown.
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running program: killed when it goes out of scope, its log shown when the test fails.
pub struct Process {
    name: String,
    child: KilledOnDrop,
    stdout: Output,
    stderr: Output,
}

impl Process {
    /// Starts `command` with nothing on its standard input.
    #[track_caller]
    pub fn spawn(name: &str, mut command: Command) -> Process {
        command.stdin(Stdio::null());
        Process::spawn_as_is(name, command)
    }

    /// Starts `command` and hands out its standard input.
    #[track_caller]
    pub fn spawn_with_input(name: &str, mut command: Command) -> (Process, ChildStdin) {
        command.stdin(Stdio::piped());
        let mut process = Process::spawn_as_is(name, command);
        let stdin = process.child.0.stdin.take().expect("stdin is piped");
        (process, stdin)
    }

    #[track_caller]
    fn spawn_as_is(name: &str, mut command: Command) -> Process {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Output::of(child.stdout.take().expect("stdout is piped"));
        let stderr = Output::of(child.stderr.take().expect("stderr is piped"));
        Process { name: name.to_owned(), child: KilledOnDrop(child), stdout, stderr }
    }

    /// Waits for a line on stderr in which `find` finds something.
    #[track_caller]
    pub fn wait_for_log<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let name = &self.name;
        wait_until(&format!("{what} in the log of {name}"), || {
            let log = self.stderr.lock();
            let found = log.lines.iter().find_map(|line| find(line));
            assert!(found.is_some() || !log.ended, "{name} ended without {what}");
            found
        })
    }

    /// Waits for a line on stderr that holds every one of `parts`.
    #[track_caller]
    pub fn wait_for_log_line(&self, parts: &[&str]) -> String {
        self.wait_for_log(&format!("a line with {parts:?}"), |line| {
            parts.iter().all(|part| line.contains(part)).then(|| line.to_owned())
        })
    }

    /// The first ready line.
    #[track_caller]
    pub fn wait_ready(&self) -> Ready {
        self.wait_for_log("the ready line", Ready::of)
    }

    /// What came on stderr up to now.
    pub fn log(&self) -> Vec<String> {
        self.stderr.lock().lines.clone()
    }

    /// What came on stdout up to now.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().lines.clone()
    }

    /// Sends a signal by its name: `TERM`, `INT`, `STOP`, `CONT`.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        // The shell's own `kill`: it is there even where no program of that name is.
        let order = format!("kill -{name} {}", self.child.0.id());
        let status = Command::new("sh").args(["-c", &order]).status().expect("sh runs");
        assert!(status.success(), "{order}: {status}");
    }

    /// From now on the process may make no file longer than so many bytes; `None`: any.
    #[track_caller]
    pub fn limit_files(&self, bytes: Option<u64>) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(pid, Resource::Fsize, limit).expect("the limits of a process of ours can be set");
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// Stops the process as Ctrl-Z would, and waits until it is stopped.
    #[track_caller]
    pub fn pause(&self) {
        self.signal("STOP");
        wait_until("the process to be stopped", || (self.stat()[0] == "T").then_some(()));
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Kills the process at once, as a crash would.
    pub fn kill(&mut self) {
        // Fails only for a process that has ended already.
        let _ = self.child.0.kill();
        let _ = self.child.0.wait();
    }

    /// Waits for the process to end by itself, and for the end of its output: what it said last is
    /// there then. Tells its exit code.
    #[track_caller]
    pub fn wait_exit(&mut self) -> Option<i32> {
        let what = format!("{} to end", self.name);
        let code = wait_for_exit(&mut self.child.0, &what).code();
        wait_until(&format!("the end of the output of {}", self.name), || {
            (self.stdout.lock().ended && self.stderr.lock().ended).then_some(())
        });
        code
    }

    /// The exit code, if the process has ended; `Some(None)` if a signal ended it.
    #[track_caller]
    pub fn try_exit(&mut self) -> Option<Option<i32>> {
        let status = self.child.0.try_wait().expect("a child can be waited for");
        status.map(|status| status.code())
    }

    /// Whether the process catches the signal with this number.
    #[track_caller]
    pub fn catches(&self, signal: u32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.0.id()))
            .expect("the process runs");
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
    }

    /// Memory of the process that is in RAM, in bytes.
    #[track_caller]
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.0.id()))
            .expect("the process runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS is there");
        let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        kib.unwrap_or_else(|| panic!("not understood: {line}")) * 1024
    }

    /// Processor time used up to now, in ticks of 10 ms.
    #[track_caller]
    pub fn cpu_ticks(&self) -> u64 {
        let stat = self.stat();
        let ticks = |at: usize| stat[at].parse::<u64>().expect("a number of ticks");
        ticks(11) + ticks(12)
    }

    /// The fields of /proc/PID/stat from the state on (the name before it may hold spaces).
    fn stat(&self) -> Vec<String> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.0.id()))
            .expect("the process runs");
        let (_, rest) = stat.rsplit_once(") ").expect("a name in parentheses");
        rest.split(' ').map(str::to_owned).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.stderr.lock();
            let shown = log.lines.len().saturating_sub(200);
            eprintln!("--- stderr of {} (last {} lines)", self.name, log.lines.len() - shown);
            for line in &log.lines[shown..] {
                eprintln!("{line}");
            }
        }
    }
}
