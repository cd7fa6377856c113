//! What `HELP` says.

struct Topic {
    verb: &'static str,
    usage: &'static str,
    text: &'static str,
}

const TOPICS: &[Topic] = &[
    Topic {
        verb: "APPEND",
        usage: "APPEND [w=W] [ack=stored|received] [timeout=D] [--] payload",
        text: "Appends an entry. W nodes must hold it before OK: 1 to n, majority, all.\n\
               ack=stored counts nodes that have it in their log, ack=received in memory.\n\
               After the timeout the answer is PENDING: it is in the log and will replicate.\n\
               timeout=0 answers as soon as the master has it, timeout=none waits.",
    },
    Topic {
        verb: "LIST",
        usage: "LIST [from=1] [limit=N] [level=local|committed|all|K]",
        text: "Lists entries, a line `<seq> <payload>` each. Level: all that this node holds,\n\
               what a majority holds, what every node holds, or what at least K nodes hold.",
    },
    Topic { verb: "GET", usage: "GET <seq>", text: "Shows one entry." },
    Topic {
        verb: "TAIL",
        usage: "TAIL [from=SEQ | last=N] [level=committed]",
        text: "Shows entries as they come. A blank line ends it, another line is then carried out.",
    },
    Topic {
        verb: "WAIT",
        usage: "WAIT <seq> [w=W] [ack=A] [timeout=D]",
        text: "Waits until W nodes hold an entry that is in the log. Master only.",
    },
    Topic { verb: "STATUS", usage: "STATUS", text: "Shows this node and what it knows of others." },
    Topic { verb: "HEALTH", usage: "HEALTH", text: "One line: mode, who is present, who is not." },
    Topic { verb: "WAITERS", usage: "WAITERS", text: "Appends that still wait. Master only." },
    Topic {
        verb: "METRICS",
        usage: "METRICS",
        text: "Everything this node measures, in the text format of OpenMetrics, up to `# EOF`.",
    },
    Topic {
        verb: "DIGEST",
        usage: "DIGEST [seq]",
        text: "The chain digest at an entry: equal on two nodes if their logs up to there are.",
    },
    Topic { verb: "PING", usage: "PING [text]", text: "Answers PONG [text]." },
    Topic { verb: "HELP", usage: "HELP [verb]", text: "This." },
    Topic { verb: "QUIT", usage: "QUIT", text: "Answers OK and closes." },
    Topic {
        verb: "DELAY",
        usage: "DELAY <duration> | DELAY every=<duration> | DELAY off",
        text: "Fault, secondary with --faults: the next (or every) APPEND frame is handled later.",
    },
    Topic {
        verb: "FAIL",
        usage: "FAIL after|before [count=1 | p=0.5] | FAIL off",
        text: "Fault: APPEND frames are answered with an error, after or before storing.",
    },
    Topic {
        verb: "MUTE",
        usage: "MUTE <duration> | MUTE off",
        text: "Fault: goes on storing but answers the master nothing.",
    },
    Topic {
        verb: "STORE",
        usage: "STORE <seq> <payload>",
        text: "Fault: hands this secondary an entry by hand; it gives way to the master's.",
    },
];

/// The reply to `HELP`, or to `HELP verb`; `None` if there is no such verb.
pub fn help(verb: Option<&str>) -> Option<String> {
    let mut reply = String::new();
    match verb {
        None => TOPICS.iter().for_each(|topic| {
            reply.push_str(topic.usage);
            reply.push('\n');
        }),
        Some(verb) => {
            let topic = TOPICS.iter().find(|topic| topic.verb == verb)?;
            reply.push_str(topic.usage);
            topic.text.lines().for_each(|line| {
                reply.push_str("\n  ");
                reply.push_str(line);
            });
            reply.push('\n');
        }
    }
    reply.push_str("END\n");
    Some(reply)
}
