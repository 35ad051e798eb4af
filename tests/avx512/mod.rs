//! Runs AVX-512 object code on any x86-64 Linux host, under the `bochs` emulator.
//!
//! [`Emulator::run`] links one relocatable object to a flat image, lays buffers behind it, calls a
//! symbol with up to six integer or pointer arguments and returns the bytes of a buffer afterwards:
//!
//! ```text
//! object + runtime.S --ld image.ld--> code at 0x110000
//! [descriptor 0x100000][code][buffer][pointer table][buffer] ... --bochs + rom.S--> output bytes
//! ```
//!
//! There is no operating system in the guest: `rom.S` switches the CPU to 64-bit mode, calls the
//! function and powers off. `runtime.S` has the few C functions that compiled kernels may call.
//!
//! Invariants: buffers start at multiples of 4096, in the order given; what lies between two
//! buffers is zero. An instruction that the CPU model lacks is an `Err` with the emulator's log
//! line, never a wrong result.
//!
//! What it does not do: threads, floating-point arguments, BF16, FP16 and AMX instructions (no CPU
//! model of the emulator has them), and timing: an emulated kernel shows that lowering is right,
//! not that it is fast.
//!
//! Needs `bochs` (Debian: `bochs bochs-term`), `as`, `ld` and `objcopy`. [`Emulator::for_test`] is what a test
//! calls: it prints why it skips, or panics when `BB_REQUIRE_EMULATOR=1`.

// Each test program includes this module and uses a part of it.
#![allow(dead_code)]

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Guest address of the descriptor that `rom.S` reads; the image starts here.
const IMAGE_BASE: u64 = 0x10_0000;
/// Guest address of the linked code, as in `image.ld`.
const CODE_BASE: u64 = 0x11_0000;
/// Alignment of buffers in the guest.
const BUFFER_ALIGN: usize = 4096;
/// The calling convention passes this many integers in registers.
const MAX_ARGS: usize = 6;
/// One run takes about 0.15 s plus a second per 50 million operations.
const TIME_LIMIT: Duration = Duration::from_secs(300);
/// What the emulator's log says when its display found no port.
const PORT_LOST: &str = "could not bind any port";
/// How often a guest whose display found no port is booted.
const BOOTS: usize = 10;

/// Which AVX-512 features the guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuModel {
    /// F, BW, DQ, VL and CD: what `x86-64-v4` asks for.
    SkylakeX,
    /// Adds IFMA, VBMI, VBMI2, VNNI, BITALG and VPOPCNTDQ.
    TigerLake,
}

impl CpuModel {
    /// Both models, for tests that run on each.
    pub const ALL: [CpuModel; 2] = [CpuModel::SkylakeX, CpuModel::TigerLake];

    fn bochs_name(self) -> &'static str {
        match self {
            CpuModel::SkylakeX => "corei7_skylake_x",
            CpuModel::TigerLake => "tigerlake",
        }
    }
}

/// One argument of the called function.
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a> {
    /// The value itself.
    Int(i64),
    /// The guest address of the buffer of this name.
    Buffer(&'a str),
    /// The guest address of an array that holds the guest addresses of these buffers.
    PointerTable(&'a [&'a str]),
}

/// A ready emulator: the ROM and the runtime object are built once and used by every run.
pub struct Emulator {
    dir: tempfile::TempDir,
}

impl Emulator {
    /// Whether this machine can run the emulator; `Err` says what is missing.
    pub fn available() -> Result<(), String> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err("the AVX-512 emulator needs an x86-64 Linux host".into());
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
        for tool in ["bochs", "as", "ld", "objcopy"] {
            if !dirs.iter().any(|dir| dir.join(tool).is_file()) {
                return Err(format!(
                    "`{tool}` is not on PATH (Debian: apt-get install bochs bochs-term binutils)"
                ));
            }
        }
        Ok(())
    }

    /// Assembles the ROM and the runtime object.
    pub fn new() -> Result<Emulator, String> {
        Emulator::available()?;
        let dir = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        let emulator = Emulator { dir };
        let rom = assemble(include_str!("rom.S"))?;
        emulator.write("rom.o", &rom)?;
        emulator.write("runtime.o", &assemble(include_str!("runtime.S"))?)?;
        emulator.write("image.ld", include_bytes!("image.ld"))?;
        let mut ld = Command::new("ld");
        ld.args(["-Ttext=0", "--oformat", "binary", "-e", "0"]);
        ld.arg(emulator.path("rom.o"))
            .arg("-o")
            .arg(emulator.path("rom.bin"));
        call(&mut ld)?;
        Ok(emulator)
    }

    /// The emulator for a test, or `None` after printing why `test` is skipped.
    ///
    /// # Panics
    /// When the emulator is missing and `BB_REQUIRE_EMULATOR=1`.
    pub fn for_test(test: &str) -> Option<Emulator> {
        match Emulator::new() {
            Ok(emulator) => Some(emulator),
            Err(reason) => {
                let required = std::env::var("BB_REQUIRE_EMULATOR").is_ok_and(|v| v == "1");
                assert!(
                    !required,
                    "BB_REQUIRE_EMULATOR=1, but {test} cannot run: {reason}"
                );
                // Written past the test runner's capture, so that a passing run shows it.
                let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
                None
            }
        }
    }

    /// Calls `symbol` of `object` with `args` and returns the bytes of the buffer `output` after it.
    ///
    /// `buffers` are name and initial content. Errors: an undefined symbol, an unknown buffer name,
    /// more than six arguments, a guest that faulted or ran past the time limit.
    pub fn run(
        &self,
        object: &[u8],
        symbol: &str,
        args: &[Arg],
        buffers: &[(&str, Vec<u8>)],
        output: &str,
        cpu: CpuModel,
    ) -> Result<Vec<u8>, String> {
        let mut all = self.run_outputs(object, symbol, args, buffers, &[output], cpu)?;
        Ok(all.remove(0))
    }

    /// [`Emulator::run`] for several outputs of one call, in the order of `outputs`.
    pub fn run_outputs(
        &self,
        object: &[u8],
        symbol: &str,
        args: &[Arg],
        buffers: &[(&str, Vec<u8>)],
        outputs: &[&str],
        cpu: CpuModel,
    ) -> Result<Vec<Vec<u8>>, String> {
        let run = tempfile::tempdir_in(self.dir.path())
            .map_err(|e| format!("no temporary folder: {e}"))?;
        let code = self.link(run.path(), object, symbol)?;
        let mut image = Image::new(&code);
        for (name, bytes) in buffers {
            image.add(name, bytes);
        }
        let args = args
            .iter()
            .map(|arg| image.argument(arg))
            .collect::<Result<Vec<u64>, String>>()?;
        let spans = outputs
            .iter()
            .map(|name| image.span(name))
            .collect::<Result<Vec<_>, String>>()?;
        let begin = spans
            .iter()
            .map(|span| span.0)
            .min()
            .ok_or("no output is named")?;
        let end = spans
            .iter()
            .map(|&(at, len)| at + len)
            .max()
            .ok_or("no output is named")?;
        let bytes = image.finish(&args, (begin, end - begin))?;
        let printed = self.boot(run.path(), &bytes, cpu)?;
        let region = printed_region(&printed, (end - begin) as usize)?;
        let cut =
            |&(at, len): &(u64, u64)| region[(at - begin) as usize..][..len as usize].to_vec();
        Ok(spans.iter().map(cut).collect())
    }

    /// Links the object and the runtime to the flat code that goes to [`CODE_BASE`].
    fn link(&self, run: &Path, object: &[u8], symbol: &str) -> Result<Vec<u8>, String> {
        let kernel = run.join("kernel.o");
        let (elf, flat) = (run.join("kernel.elf"), run.join("kernel.bin"));
        fs::write(&kernel, object).map_err(|e| e.to_string())?;
        let mut ld = Command::new("ld");
        ld.args(["-static", "-nostdlib", "--no-warn-rwx-segments", "-e", "0"]);
        ld.arg(format!("--defsym=kernel_entry={symbol}"));
        ld.arg("-T").arg(self.path("image.ld")).arg("-o").arg(&elf);
        ld.arg(self.path("runtime.o")).arg(&kernel);
        call(&mut ld)?;
        // Two steps, since `ld --oformat binary` leaves the global offset table empty.
        call(
            Command::new("objcopy")
                .args(["-O", "binary"])
                .arg(&elf)
                .arg(&flat),
        )?;
        fs::read(&flat).map_err(|e| e.to_string())
    }

    /// Boots the image and returns what the guest printed.
    ///
    /// The display takes a port of its own. Two guests that start in the same instant can choose
    /// the same one, on which both die, so that one is booted again after a pause that differs.
    fn boot(&self, run: &Path, image: &[u8], cpu: CpuModel) -> Result<Vec<u8>, String> {
        for _ in 1..BOOTS {
            match self.boot_once(run, image, cpu) {
                Err(e) if e.contains(PORT_LOST) => {
                    // The keys of a new `RandomState` differ.
                    let random = RandomState::new().build_hasher().finish();
                    sleep(Duration::from_millis(20 + random % 200));
                }
                other => return other,
            }
        }
        self.boot_once(run, image, cpu)
    }

    fn boot_once(&self, run: &Path, image: &[u8], cpu: CpuModel) -> Result<Vec<u8>, String> {
        let text = |e: std::io::Error| e.to_string();
        fs::write(run.join("image.bin"), image).map_err(text)?;
        fs::write(run.join("rc"), "continue\nquit\n").map_err(text)?;
        fs::write(
            run.join("bochsrc"),
            self.configuration(run, image.len(), cpu),
        )
        .map_err(text)?;
        let stdout = File::create(run.join("stdout")).map_err(text)?;
        let mut child = Command::new("bochs")
            .args(["-q", "-f"])
            .arg(run.join("bochsrc"))
            .arg("-rc")
            .arg(run.join("rc"))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("bochs does not start: {e}"))?;
        let start = Instant::now();
        // The exit status says nothing: it is 1 after a clean power-off too.
        while child.try_wait().map_err(text)?.is_none() {
            if start.elapsed() > TIME_LIMIT {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("the guest did not finish in {TIME_LIMIT:?}"));
            }
            sleep(Duration::from_millis(5));
        }
        let printed = fs::read(run.join("stdout")).map_err(text)?;
        if find(&printed, BEGIN_MARK).is_none() {
            return Err(format!("the guest died: {}", log_excerpt(&run.join("log"))));
        }
        Ok(printed)
    }

    fn configuration(&self, run: &Path, image_len: usize, cpu: CpuModel) -> String {
        let megabytes = (image_len.div_ceil(1 << 20) + 16).max(32);
        let (rom, run) = (self.path("rom.bin"), run.display());
        // Debian's build has neither a `nogui` display nor a way round its debugger: the display
        // that waits for no viewer, and a command file that says `continue`, take their place.
        format!(
            "cpu: model={}, count=1, ips=100000000, reset_on_triple_fault=0\n\
             memory: guest={megabytes}, host={megabytes}\n\
             romimage: file={}, address=0xffff0000\n\
             optramimage1: file={run}/image.bin, address={IMAGE_BASE:#x}\n\
             display_library: rfb, options=\"timeout=0\"\n\
             sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy\n\
             port_e9_hack: enabled=1\n\
             log: {run}/log\n\
             panic: action=fatal\n",
            cpu.bochs_name(),
            rom.display(),
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        fs::write(self.path(name), bytes).map_err(|e| format!("{name}: {e}"))
    }
}

/// Assembles GNU `as` text to a relocatable object.
pub fn assemble(source: &str) -> Result<Vec<u8>, String> {
    let dir = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let (input, output) = (dir.path().join("in.s"), dir.path().join("out.o"));
    fs::write(&input, source).map_err(|e| e.to_string())?;
    call(
        Command::new("as")
            .arg("--64")
            .arg(&input)
            .arg("-o")
            .arg(&output),
    )?;
    fs::read(&output).map_err(|e| e.to_string())
}

/// The guest's memory from [`IMAGE_BASE`] on, while it is put together.
struct Image {
    bytes: Vec<u8>,
    /// Name, guest address and length of each buffer.
    buffers: Vec<(String, u64, u64)>,
}

impl Image {
    fn new(code: &[u8]) -> Image {
        let mut bytes = vec![0; (CODE_BASE - IMAGE_BASE) as usize];
        bytes.extend_from_slice(code);
        Image {
            bytes,
            buffers: Vec::new(),
        }
    }

    fn add(&mut self, name: &str, content: &[u8]) -> u64 {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(BUFFER_ALIGN), 0);
        let address = IMAGE_BASE + self.bytes.len() as u64;
        self.bytes.extend_from_slice(content);
        self.buffers
            .push((name.to_string(), address, content.len() as u64));
        address
    }

    fn span(&self, name: &str) -> Result<(u64, u64), String> {
        let found = self.buffers.iter().find(|buffer| buffer.0 == name);
        found
            .map(|buffer| (buffer.1, buffer.2))
            .ok_or_else(|| format!("no buffer is named `{name}`"))
    }

    /// The register value for `arg`; a pointer table is laid behind the buffers.
    fn argument(&mut self, arg: &Arg) -> Result<u64, String> {
        match arg {
            Arg::Int(value) => Ok(*value as u64),
            Arg::Buffer(name) => Ok(self.span(name)?.0),
            Arg::PointerTable(names) => {
                let mut table = Vec::new();
                for name in *names {
                    table.extend_from_slice(&self.span(name)?.0.to_le_bytes());
                }
                Ok(self.add("", &table))
            }
        }
    }

    /// Fills in the descriptor that `rom.S` reads.
    fn finish(mut self, args: &[u64], output: (u64, u64)) -> Result<Vec<u8>, String> {
        if args.len() > MAX_ARGS {
            return Err(format!(
                "{} arguments, at most {MAX_ARGS} are passed in registers",
                args.len()
            ));
        }
        let mut words = [0u64; MAX_ARGS + 3];
        words[0] = CODE_BASE;
        words[1..=args.len()].copy_from_slice(args);
        (words[MAX_ARGS + 1], words[MAX_ARGS + 2]) = output;
        for (slot, word) in self.bytes.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        let len =
            u32::try_from(self.bytes.len()).map_err(|_| "the image passes 4 GiB".to_string())?;
        self.bytes[128..132].copy_from_slice(&len.to_le_bytes());
        Ok(self.bytes)
    }
}

const BEGIN_MARK: &[u8] = b"@@BEGIN@@";
const END_MARK: &[u8] = b"@@END@@";

/// The `len` bytes between the marks that `rom.S` prints.
fn printed_region(printed: &[u8], len: usize) -> Result<Vec<u8>, String> {
    let begin =
        find(printed, BEGIN_MARK).ok_or("the guest printed no begin mark")? + BEGIN_MARK.len();
    let rest = &printed[begin..];
    if rest.len() < len || !rest[len..].starts_with(END_MARK) {
        return Err(format!(
            "the guest printed {} bytes, {len} were expected",
            rest.len()
        ));
    }
    Ok(rest[..len].to_vec())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// The lines of the emulator's log that say why the guest stopped.
fn log_excerpt(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let telling = |line: &&str| {
        ["PANIC", "exception", "e[CPU", "#UD", ">>"]
            .iter()
            .any(|mark| line.contains(mark))
    };
    text.lines()
        .filter(telling)
        .take(8)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Runs a tool to its end; `Err` holds its messages.
fn call(command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}
