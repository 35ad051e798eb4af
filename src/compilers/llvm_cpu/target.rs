//! What machine code is made for: a CPU, its features and the vector width the kernels use.
//!
//! A [`Target`] is a plain value; an LLVM `TargetMachine` is made from it once in each thread, so
//! targets are free to cross threads. `lanes` is the number of `f32` in the vectors that the
//! kernels are written with: a choice of the code generators, not a limit of the CPU.
//!
//! LLVM ignores unknown CPU names with a warning on stderr and compiles for the baseline. So the
//! names accepted here are a table, and anything else is an error.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::{Once, OnceLock};

use inkwell::OptimizationLevel;
use inkwell::targets::{
    CodeModel, InitializationConfig, RelocMode, Target as LlvmTarget, TargetMachine, TargetTriple,
};

use crate::error::{Error, Result};

/// A CPU to compile for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    name: String,
    cpu: String,
    features: String,
    lanes: u32,
    /// Features the host must have to run the code, by LLVM's names.
    required: Vec<&'static str>,
    x86: bool,
}

/// One known x86 CPU: its name, `f32` lanes, and what it has beyond the baseline.
struct Known {
    name: &'static str,
    lanes: u32,
    required: &'static [&'static [&'static str]],
}

const V2: &[&str] = &["sse4.2", "ssse3", "popcnt", "cx16"];
const V3: &[&str] = &["avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe"];
const V4: &[&str] = &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"];
const AMD: &[&str] = &["sse4a", "sha", "aes", "pclmul"];
const VNNI: &[&str] = &["avx512vnni"];
const ICE: &[&str] = &[
    "avx512vbmi",
    "avx512vbmi2",
    "avx512ifma",
    "avx512bitalg",
    "avx512vpopcntdq",
    "gfni",
    "vaes",
];
const BF16: &[&str] = &["avx512bf16"];
const FP16: &[&str] = &["avx512fp16", "avxvnni"];
const INTERSECT: &[&str] = &["avx512vp2intersect"];

const fn known(
    name: &'static str,
    lanes: u32,
    required: &'static [&'static [&'static str]],
) -> Known {
    Known {
        name,
        lanes,
        required,
    }
}

const KNOWN: &[Known] = &[
    known("x86-64", 4, &[]),
    known("x86-64-v2", 4, &[V2]),
    known("x86-64-v3", 8, &[V2, V3]),
    known("x86-64-v4", 16, &[V2, V3, V4]),
    known("haswell", 8, &[V2, V3]),
    known("broadwell", 8, &[V2, V3]),
    known("skylake", 8, &[V2, V3, &["aes", "pclmul"]]),
    known(
        "alderlake",
        8,
        &[V2, V3, &["avxvnni", "gfni", "vaes", "vpclmulqdq", "sha"]],
    ),
    known("znver1", 8, &[V2, V3, AMD]),
    known("znver2", 8, &[V2, V3, AMD]),
    known("znver3", 8, &[V2, V3, AMD, &["vaes", "vpclmulqdq"]]),
    known("znver4", 16, &[V2, V3, V4, AMD, VNNI, ICE, BF16]),
    known(
        "znver5",
        16,
        &[V2, V3, V4, AMD, VNNI, ICE, BF16, INTERSECT, &["avxvnni"]],
    ),
    known("skylake-avx512", 16, &[V2, V3, V4]),
    known("cascadelake", 16, &[V2, V3, V4, VNNI]),
    known("cooperlake", 16, &[V2, V3, V4, VNNI, BF16]),
    known("icelake-client", 16, &[V2, V3, V4, VNNI, ICE]),
    known("icelake-server", 16, &[V2, V3, V4, VNNI, ICE]),
    known("tigerlake", 16, &[V2, V3, V4, VNNI, ICE, INTERSECT]),
    known("sapphirerapids", 16, &[V2, V3, V4, VNNI, ICE, BF16, FP16]),
    known("emeraldrapids", 16, &[V2, V3, V4, VNNI, ICE, BF16, FP16]),
    known("graniterapids", 16, &[V2, V3, V4, VNNI, ICE, BF16, FP16]),
];

/// Intel's server models ask for 256-bit vectors; the kernels choose their own width.
const WIDE: &str = "-prefer-256-bit";

impl Target {
    /// The CPU this process runs on, with the widest vectors it has.
    pub fn native() -> Target {
        let host = host();
        let x86 = cfg!(target_arch = "x86_64");
        let lanes = match () {
            () if !x86 => 4,
            () if V4.iter().chain(V3).all(|f| host.has(f)) => 16,
            () if V3.iter().all(|f| host.has(f)) => 8,
            () => 4,
        };
        let features = match lanes {
            16 => format!("{},{WIDE}", host.features),
            _ => host.features.clone(),
        };
        let cpu = host.cpu.clone();
        Target {
            name: "native".into(),
            cpu,
            features,
            lanes,
            required: vec![],
            x86,
        }
    }

    /// One lane: no vectors at all. Baseline x86-64, plus fused multiply-add and half-precision
    /// conversion where the host has them, since both are library calls otherwise.
    pub fn scalar() -> Target {
        if !cfg!(target_arch = "x86_64") {
            return Target {
                name: "scalar".into(),
                lanes: 1,
                ..Target::native()
            };
        }
        let required: Vec<_> = ["fma", "f16c"]
            .into_iter()
            .filter(|f| host().has(f))
            .collect();
        let features = required
            .iter()
            .map(|f| format!("+{f}"))
            .collect::<Vec<_>>()
            .join(",");
        Target {
            name: "scalar".into(),
            cpu: "x86-64".into(),
            features,
            lanes: 1,
            required,
            x86: true,
        }
    }

    /// A target by name: `native`, `scalar`, or one of [`Target::known_names`].
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn for_cpu(name: &str) -> Result<Target> {
        match name {
            "native" => return Ok(Target::native()),
            "scalar" => return Ok(Target::scalar()),
            _ => {}
        }
        let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
            let names = Target::known_names().collect::<Vec<_>>().join(", ");
            return Err(Error::Message(format!(
                "unknown CPU `{name}`; known: {names}"
            )));
        };
        Ok(Target {
            name: name.into(),
            cpu: name.into(),
            features: if known.lanes == 16 {
                WIDE.into()
            } else {
                String::new()
            },
            lanes: known.lanes,
            required: known.required.concat(),
            x86: true,
        })
    }

    /// All names that [`Target::for_cpu`] accepts.
    pub fn known_names() -> impl Iterator<Item = &'static str> {
        ["native", "scalar"]
            .into_iter()
            .chain(KNOWN.iter().map(|known| known.name))
    }

    /// The name it was asked for by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name as symbols have it.
    pub fn symbol_part(&self) -> String {
        self.name.replace('-', "_")
    }

    /// LLVM's name of the CPU.
    pub fn cpu(&self) -> &str {
        &self.cpu
    }

    /// LLVM's feature string, on top of what the CPU's name implies.
    pub fn features(&self) -> &str {
        &self.features
    }

    /// The number of `f32` in a vector: 16, 8, 4, or 1 for no vectors.
    pub fn lanes(&self) -> u32 {
        self.lanes
    }

    /// Whether it has a feature, by LLVM's name.
    pub fn has(&self, feature: &str) -> bool {
        let mut extra = self.features.split(',').filter_map(|f| f.strip_prefix('+'));
        self.required.contains(&feature) || extra.any(|f| f == feature)
    }

    /// Whether code for this target runs on this machine.
    pub fn can_run_here(&self) -> bool {
        self.x86 == cfg!(target_arch = "x86_64") && self.required.iter().all(|f| host().has(f))
    }

    /// What `f` does with an LLVM target machine for it, which each thread makes once: most of the time that it takes is
    /// spent on tables of features.
    ///
    /// # Errors
    /// Those of [`Target::machine`] and of `f`.
    pub fn with_machine<T>(&self, f: impl FnOnce(&TargetMachine) -> Result<T>) -> Result<T> {
        thread_local! {
            static MADE: RefCell<Vec<(Target, Rc<TargetMachine>)>> = const { RefCell::new(vec![]) };
        }
        let known = MADE.with_borrow(|made| {
            let mut made = made.iter();
            made.find(|(target, _)| target == self)
                .map(|(_, machine)| machine.clone())
        });
        let machine = match known {
            Some(machine) => machine,
            None => {
                let machine = Rc::new(self.machine()?);
                MADE.with_borrow_mut(|made| made.push((self.clone(), machine.clone())));
                machine
            }
        };
        f(&machine)
    }

    /// An LLVM target machine for it. Not shared between threads.
    ///
    /// # Errors
    /// When LLVM was built without this architecture.
    pub fn machine(&self) -> Result<TargetMachine> {
        initialize();
        let triple = self.triple();
        let failed = |why: String| Error::Message(format!("target {self}: {why}"));
        LlvmTarget::from_triple(&triple)
            .map_err(|why| failed(why.to_string()))?
            .create_target_machine(
                &triple,
                &self.cpu,
                &self.features,
                OptimizationLevel::Default,
                RelocMode::PIC,
                CodeModel::Default,
            )
            .ok_or_else(|| failed("LLVM cannot make a target machine".into()))
    }

    fn triple(&self) -> TargetTriple {
        if self.x86 == cfg!(target_arch = "x86_64") {
            TargetMachine::get_default_triple()
        } else {
            TargetTriple::create("x86_64-unknown-linux-gnu")
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name == self.cpu {
            f.write_str(&self.name)
        } else {
            write!(f, "{} ({})", self.name, self.cpu)
        }
    }
}

/// Registers LLVM's targets, once per process.
pub(super) fn initialize() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let config = InitializationConfig::default();
        LlvmTarget::initialize_x86(&config);
        #[cfg(target_arch = "aarch64")]
        LlvmTarget::initialize_aarch64(&config);
    });
}

struct Host {
    cpu: String,
    features: String,
}

impl Host {
    fn has(&self, feature: &str) -> bool {
        self.features
            .split(',')
            .any(|item| item.strip_prefix('+') == Some(feature))
    }
}

fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| Host {
        cpu: TargetMachine::get_host_cpu_name().to_string(),
        features: TargetMachine::get_host_cpu_features().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_makes_a_machine() {
        for name in Target::known_names() {
            let target = Target::for_cpu(name).unwrap();
            assert_eq!(target.name(), name);
            assert!(matches!(target.lanes(), 1 | 4 | 8 | 16));
            assert_eq!(
                target.machine().unwrap().get_cpu().to_str().unwrap(),
                target.cpu()
            );
        }
    }

    #[test]
    fn unknown_name_is_an_error_that_lists_the_known_ones() {
        let message = Target::for_cpu("pentium-9000").unwrap_err().to_string();
        assert!(
            message.contains("pentium-9000") && message.contains("sapphirerapids"),
            "{message}"
        );
    }

    #[test]
    fn native_and_scalar_run_here() {
        assert!(Target::native().can_run_here());
        assert!(Target::scalar().can_run_here());
        assert_eq!(Target::scalar().lanes(), 1);
    }

    #[test]
    fn a_target_with_a_missing_feature_does_not_run_here() {
        let mut target = Target::scalar();
        target.required.push("no-such-feature");
        assert!(!target.can_run_here());
    }
}
