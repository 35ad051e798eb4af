//! Ctrl-C, and readers of the output that go away. Unix only: elsewhere the means to test them differ.

#![cfg(unix)]

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, Stdio};

use crate::support::{Copy, chat_model, program, succeed, text, tiny};

/// A model that nothing ends but its context, which is long.
fn endless() -> Copy {
    Copy::new()
        .set("eos_token_id", serde_json::Value::Null)
        .set("max_position_embeddings", 65_536)
}

const GENERATE: &str = "generate --model MODEL --tokens 3,4 --max-tokens 60000";

fn start(mut command: Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn interrupt(child: &Child) {
    let mut kill = Command::new("kill");
    kill.args(["-INT", &child.id().to_string()]);
    succeed(kill);
}

#[test]
fn ctrl_c_ends_the_text_where_it_is() {
    let model = endless();
    let mut child = start(program(model.path(), GENERATE));
    let mut first = [0; 8];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first[..4], b"3,4,", "the prompt comes first");
    interrupt(&child);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    assert!(rest.ends_with('\n'), "{rest}");
    assert!(rest.split(',').count() < 59_000, "it was not ended");
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_with_json_still_prints_the_object() {
    let model = endless();
    let child = start(program(model.path(), &format!("{GENERATE} --json")));
    // Nothing is printed before the end; the system tells when the program has taken over the signal.
    let catches = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let mask = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
        let mask = mask.expect("the program still runs").trim();
        u64::from_str_radix(mask, 16).unwrap() & 2 != 0
    };
    while !catches() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    let found: serde_json::Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert_eq!(found["stop"], "interrupt");
    let n_tokens = found["tokens"].as_array().unwrap().len();
    assert_eq!(found["generated"], n_tokens - 2);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let model = endless();
    let mut child = start(program(model.path(), GENERATE));
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 6]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let mut command = program(&tiny(), "generate --model MODEL --tokens 3 --max-tokens 2");
    command.stdout(File::options().write(true).open("/dev/full").unwrap());
    let output = command.stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.starts_with("error: standard output: "), "{message}");
}

#[test]
fn ctrl_c_ends_an_answer_and_keeps_the_conversation() {
    use std::io::Write;
    let model = chat_model("{% for m in messages %}{{ m.content }}\n{% endfor %}");
    let model = model.set("max_position_embeddings", 65_536);
    let args = "chat --model MODEL --max-tokens 60000 --context 60000 --quiet";
    let mut command = program(model.path(), args);
    command.stdin(Stdio::piped());
    let mut child = start(command);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"Speak.\n").unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 8]).unwrap();
    interrupt(&child);
    stdin.write_all(b"Again.\n").unwrap();
    stdout.read_exact(&mut [0; 300]).unwrap();
    interrupt(&child);
    stdin.write_all(b"/stats\n/quit\n").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    assert!(rest.contains("answers  2"), "{rest}");
    assert!(rest.len() < 100_000, "it was not ended");
}

#[test]
fn at_a_terminal_ctrl_c_ends_an_answer_too() {
    use std::io::Write;
    let model = chat_model("{% for m in messages %}{{ m.content }}\n{% endfor %}");
    let model = model.set("max_position_embeddings", 65_536);
    let args = "chat --model MODEL --max-tokens 60000 --context 60000";
    let terminal = nix::pty::openpty(None, None).unwrap();
    let slave = || Stdio::from(terminal.slave.try_clone().unwrap());
    let mut command = program(model.path(), args);
    command.env("TERM", "xterm");
    command.stdin(slave()).stdout(slave()).stderr(slave());
    let mut child = command.spawn().unwrap();
    drop((command, terminal.slave));
    let mut keys = File::from(terminal.master.try_clone().unwrap());
    let mut screen = File::from(terminal.master);
    let (mut seen, mut at) = (String::new(), 0);
    // Reads until this comes, after so many bytes more; gives what came before it.
    let mut wait_for = |what: &str, more: usize| {
        let (start, mut bytes) = (at, [0; 4096]);
        loop {
            let rest = seen.get(start + more..);
            if let Some(found) = rest.and_then(|rest| rest.find(what)) {
                at = start + more + found + what.len();
                return seen[start..at].to_owned();
            }
            let n = screen.read(&mut bytes).unwrap();
            assert!(n > 0 && seen.len() < 1_000_000, "no {what:?}");
            // The model writes some letters of more than a byte; they do not matter here.
            seen.extend(
                bytes[..n]
                    .iter()
                    .map(|&b| if b.is_ascii() { b as char } else { '?' }),
            );
        }
    };
    // The prompt; a line that Ctrl-C throws away; an answer that it ends.
    wait_for("> ", 0);
    keys.write_all(b"half a line").unwrap();
    wait_for("line", 0);
    keys.write_all(b"\x03").unwrap();
    wait_for("> ", 0);
    keys.write_all(b"Speak.\r").unwrap();
    wait_for("", 300);
    interrupt(&child);
    wait_for("> ", 0);
    keys.write_all(b"/stats\r").unwrap();
    let stats = wait_for("tokens/s\r\nwritten", 0);
    assert!(stats.contains("answers  1"), "{stats}");
    wait_for("> ", 0);
    keys.write_all(b"\x04").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
