//! Many calls of compiled functions in one run of the emulator.
//!
//! The objects are linked together with a driver, written here in assembly, that makes the calls one after the other:
//! `driver(inputs, outputs)`. Everything that is read lies in the buffer `inputs`, everything that is written in
//! `outputs`, each at a multiple of 64 bytes; what lies between two outputs must not change.

use std::fmt::Write as _;
use std::process::Command;

use crate::avx512::{Arg as EmulatorArg, CpuModel, Emulator, assemble};

/// Alignment of every piece of memory.
const ALIGN: usize = 64;
/// What the memory of outputs holds before the run.
const FILLING: u8 = 0xa5;
/// Integers that the calling convention passes in registers.
const REGISTERS: [&str; 6] = ["rdi", "rsi", "rdx", "rcx", "r8", "r9"];

/// A piece of the guest's memory.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    output: bool,
    offset: usize,
    len: usize,
}

impl Place {
    /// Equal parts of it.
    pub fn parts(self, each: usize) -> impl Iterator<Item = Place> {
        assert!(self.len.is_multiple_of(each), "{self:?} in parts of {each}");
        (0..self.len / each).map(move |part| Place {
            offset: self.offset + part * each,
            len: each,
            ..self
        })
    }
}

/// An argument of a call.
#[derive(Clone)]
pub enum Arg {
    Int(i64),
    Pointer(Place),
    /// A pointer to an array of pointers, of which all tables of a call have 32.
    Table(Vec<Place>),
}

/// Calls under collection.
#[derive(Default)]
pub struct Batch {
    objects: Vec<(String, Vec<u8>)>,
    inputs: Vec<u8>,
    outputs: Vec<u8>,
    /// Which bytes of `outputs` belong to a place.
    used: Vec<bool>,
    calls: String,
    /// What the outputs from an offset on belong to, for messages.
    labels: Vec<(usize, String)>,
}

impl Batch {
    /// Adds an object file; a second one of the same name is left out.
    pub fn object(&mut self, name: &str, object: &[u8]) {
        if !self.objects.iter().any(|(known, _)| known == name) {
            self.objects.push((name.into(), object.to_vec()));
        }
    }

    /// Says what the outputs added next belong to.
    pub fn label(&mut self, label: impl Into<String>) {
        self.labels.push((self.outputs.len(), label.into()));
    }

    /// Memory that holds these bytes and is only read.
    pub fn input(&mut self, bytes: &[u8]) -> Place {
        let offset = self.inputs.len();
        self.inputs.extend_from_slice(bytes);
        // At least one byte, so that no two places are the same.
        self.inputs
            .resize((self.inputs.len() + 1).next_multiple_of(ALIGN), 0);
        Place {
            output: false,
            offset,
            len: bytes.len(),
        }
    }

    /// Memory that holds these bytes and may be written.
    pub fn state(&mut self, bytes: &[u8]) -> Place {
        let offset = self.outputs.len();
        self.outputs.extend_from_slice(bytes);
        self.used.resize(self.outputs.len(), true);
        let end = (self.outputs.len() + ALIGN).next_multiple_of(ALIGN);
        self.outputs.resize(end, FILLING);
        self.used.resize(end, false);
        Place {
            output: true,
            offset,
            len: bytes.len(),
        }
    }

    /// Memory for a result of this length.
    pub fn output(&mut self, len: usize) -> Place {
        self.state(&vec![FILLING; len])
    }

    fn address(place: Place) -> String {
        let base = if place.output { "r12" } else { "rbx" };
        format!("{}(%{base})", place.offset)
    }

    /// Adds a call.
    pub fn call(&mut self, symbol: &str, args: &[Arg]) {
        let out = &mut self.calls;
        let pushed = args.len().saturating_sub(REGISTERS.len());
        let _ = writeln!(out, "  subq ${}, %rsp", (8 * pushed).next_multiple_of(16));
        let mut in_tables = 0;
        for (number, arg) in args.iter().enumerate() {
            match arg {
                Arg::Int(value) => {
                    let _ = writeln!(out, "  movabsq ${value}, %rax");
                }
                Arg::Pointer(place) => {
                    let _ = writeln!(out, "  leaq {}, %rax", Batch::address(*place));
                }
                Arg::Table(places) => {
                    let first = 8 * in_tables;
                    for (at, place) in places.iter().enumerate() {
                        let address = Batch::address(*place);
                        let _ = writeln!(out, "  leaq {address}, %rax");
                        let _ = writeln!(out, "  movq %rax, table+{}(%rip)", first + 8 * at);
                    }
                    in_tables += places.len();
                    assert!(in_tables <= 32, "too many pointers in a call");
                    let _ = writeln!(out, "  leaq table+{first}(%rip), %rax");
                }
            }
            let _ = match REGISTERS.get(number) {
                Some(register) => writeln!(out, "  movq %rax, %{register}"),
                None => writeln!(out, "  movq %rax, {}(%rsp)", 8 * (number - REGISTERS.len())),
            };
        }
        let _ = writeln!(out, "  call {symbol}@PLT\n  movq %r13, %rsp");
    }

    fn driver(&self) -> String {
        let save = ["rbx", "r12", "r13", "rbp"];
        let push: String = save.map(|name| format!("  pushq %{name}\n")).concat();
        let pop: String = save
            .iter()
            .rev()
            .map(|name| format!("  popq %{name}\n"))
            .collect();
        format!(
            ".globl driver\ndriver:\n{push}  movq %rsp, %rbp\n  andq $-64, %rsp\n  movq %rsp, %r13\n  movq %rdi, %rbx\n  \
             movq %rsi, %r12\n{}  movq %rbp, %rsp\n{pop}  ret\n.bss\n.balign 64\ntable: .zero 256\n",
            self.calls
        )
    }

    /// All objects and the driver as one object.
    fn link(&self) -> Result<Vec<u8>, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let driver = assemble(&self.driver())?;
        let mut ld = Command::new("ld");
        ld.arg("-r").arg("-o").arg(dir.path().join("all.o"));
        let objects = self.objects.iter().map(|(_, object)| object);
        for (number, object) in objects.chain([&driver]).enumerate() {
            let path = dir.path().join(format!("{number}.o"));
            std::fs::write(&path, object).map_err(|e| e.to_string())?;
            ld.arg(path);
        }
        let done = ld.output().map_err(|e| e.to_string())?;
        if !done.status.success() {
            return Err(String::from_utf8_lossy(&done.stderr).into_owned());
        }
        std::fs::read(dir.path().join("all.o")).map_err(|e| e.to_string())
    }

    /// Makes the calls.
    pub fn run(&self, emulator: &Emulator, cpu: CpuModel) -> Result<Outputs, String> {
        let object = self.link()?;
        let buffers = [
            ("inputs", self.inputs.clone()),
            ("outputs", self.outputs.clone()),
        ];
        let args = [
            EmulatorArg::Buffer("inputs"),
            EmulatorArg::Buffer("outputs"),
        ];
        let bytes = emulator.run(&object, "driver", &args, &buffers, "outputs", cpu)?;
        let kept = self.used.iter().zip(&bytes);
        let stray = kept
            .enumerate()
            .find(|(_, (used, byte))| !**used && **byte != FILLING);
        match stray {
            Some((at, _)) => {
                let label = self.labels.iter().rev().find(|(start, _)| *start <= at);
                Err(format!(
                    "a call wrote outside of its output: {label:?}, byte {at}"
                ))
            }
            None => Ok(Outputs(bytes)),
        }
    }
}

/// The memory after all calls.
pub struct Outputs(Vec<u8>);

impl Outputs {
    pub fn bytes(&self, place: Place) -> &[u8] {
        assert!(place.output, "inputs are not read back");
        &self.0[place.offset..][..place.len]
    }

    pub fn floats(&self, place: Place) -> Vec<f32> {
        let four = self.bytes(place).chunks_exact(4);
        four.map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")))
            .collect()
    }
}
