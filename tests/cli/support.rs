//! Running the program, and copies of a checkpoint to damage.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use brain_blitz::formats::npy;
use serde_json::{Map, Value};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_brain-blitz");

/// The small random checkpoint.
pub fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gemma2/tiny")
}

/// The trained checkpoint, which has a tokenizer.
pub fn shakespeare() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/gemma2-shakespeare")
}

/// The program with these arguments; `MODEL` stands for the model's folder. Compiled kernels are kept with the build.
pub fn program(model: &Path, args: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    configure(&mut command);
    command.args(words(model, args));
    command
}

/// The program in a shell that limits its address space, so that a huge allocation fails.
fn limited_program(model: &Path, args: &str) -> Command {
    const KIB: u32 = 3 << 19;
    let mut command = Command::new("sh");
    configure(&mut command);
    command
        .arg("-c")
        .arg(format!("ulimit -v {KIB}; exec \"$@\""))
        .args(["sh", PROGRAM])
        .args(words(model, args));
    command
}

fn configure(command: &mut Command) {
    command
        .env("BB_CACHE_DIR", env!("CARGO_TARGET_TMPDIR"))
        .env_remove("BB_CPU")
        .env_remove("BB_THREADS")
        .env_remove("BB_DEBUG")
        .env_remove("BB_DUMP_DIR")
        .env_remove("BB_STOP_AT")
        .env_remove("BB_CHECK");
}

fn words<'a>(model: &'a Path, args: &'a str) -> impl Iterator<Item = &'a str> {
    let model = model.to_str().expect("test paths are UTF-8");
    args.split_whitespace()
        .map(move |word| if word == "MODEL" { model } else { word })
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the program writes UTF-8")
}

/// Runs a command that must succeed without a word on standard error; gives its standard output.
pub fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap();
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    assert_eq!(stderr, "", "{command:?}");
    text(&output.stdout)
}

/// What `--json` printed: one line, the last thing on standard output and the only one.
pub fn succeed_json(command: Command) -> Value {
    let stdout = succeed(command);
    assert_eq!(stdout.matches('\n').count(), 1, "{stdout}");
    assert!(stdout.ends_with('\n'), "{stdout}");
    serde_json::from_str(&stdout).unwrap()
}

/// Runs the program, in little memory, on what must make it fail with this exit code; gives its standard error.
pub fn fail(code: i32, model: &Path, args: &str) -> String {
    let output: Output = limited_program(model, args).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args}: {stderr}");
    assert!(stderr.starts_with("error: "), "{args}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args}: {stderr}");
    assert_eq!(text(&output.stdout), "", "{args}: {stderr}");
    stderr
}

/// As [`fail`] with exit code 1; the message must contain all of `fragments`, and be a line or two.
pub fn fail_with(model: &Path, args: &str, fragments: &[&str]) {
    let stderr = fail(1, model, args);
    for fragment in fragments {
        assert!(stderr.contains(fragment), "no {fragment:?} in: {stderr}");
    }
    assert!(stderr.lines().count() <= 2, "{stderr}");
}

/// An i64 array of a checkpoint's folder.
pub fn ids(folder: &Path, name: &str) -> Vec<u32> {
    let tensor = npy::read(folder.join(name)).unwrap();
    let ids: Vec<i64> = bytemuck::pod_collect_to_vec(&tensor.bytes);
    ids.into_iter()
        .map(|id| u32::try_from(id).unwrap())
        .collect()
}

/// Ids as `--tokens` takes them.
pub fn list(ids: &[u32]) -> String {
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    ids.join(",")
}

/// Runs a command that must succeed, with this text on its standard input; gives its standard output and error.
pub fn talk(mut command: Command, said: &str) -> (String, String) {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(said.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {stderr}");
    (stdout, stderr)
}

/// The trained checkpoint with this chat template, to be changed.
pub fn chat_model(template: &str) -> Copy {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ] {
        fs::copy(shakespeare().join(name), folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    Copy { folder }
}

/// A copy of the tiny checkpoint to be changed.
pub struct Copy {
    folder: TempDir,
}

impl Copy {
    pub fn new() -> Copy {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config.json", "generation_config.json", "model.safetensors"] {
            fs::copy(tiny().join(name), folder.path().join(name)).unwrap();
        }
        Copy { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Changes the configuration's fields.
    pub fn config(self, change: impl FnOnce(&mut Map<String, Value>)) -> Copy {
        let file = self.file("config.json");
        let mut config: Map<String, Value> =
            serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        change(&mut config);
        fs::write(&file, serde_json::to_vec(&config).unwrap()).unwrap();
        self
    }

    /// Sets one of the configuration's fields.
    pub fn set(self, field: &str, value: impl Into<Value>) -> Copy {
        self.config(|config| {
            config.insert(field.to_owned(), value.into());
        })
    }

    /// Changes the bytes of the weights' file.
    pub fn weights(self, change: impl FnOnce(&mut Vec<u8>)) -> Copy {
        let file = self.file("model.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        change(&mut bytes);
        fs::write(&file, bytes).unwrap();
        self
    }

    /// Changes the header of the weights' file, and leaves the data as it is.
    pub fn header(self, change: impl FnOnce(&mut Map<String, Value>)) -> Copy {
        self.weights(|bytes| {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let mut header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
            change(&mut header);
            let mut text = serde_json::to_vec(&header).unwrap();
            text.resize(text.len().next_multiple_of(8), b' ');
            let mut changed = (text.len() as u64).to_le_bytes().to_vec();
            changed.extend(text);
            changed.extend(&bytes[8 + length..]);
            *bytes = changed;
        })
    }
}
