//! Every environment switch, in one place: nothing else in the crate reads the environment.
//!
//! Each switch is one row of [`KNOBS`], from which the documentation is tested.

/// A switch: its name and what it does.
pub struct Knob {
    /// The variable.
    pub name: &'static str,
    /// What it does, one line.
    pub help: &'static str,
}

/// All switches.
pub const KNOBS: [Knob; 15] = [
    Knob {
        name: "BB_DEBUG",
        help: "1: passes with times and counts; 2: also reports, and the kernels of every execution with their times; 3: also the graph after the last pass; 4: after every pass that changed it; 5: also LLVM IR; 6: also assembly",
    },
    Knob {
        name: "BB_DUMP_DIR",
        help: "a folder that gets the graph's text after every pass, and with BB_DEBUG=5 or 6 the generated code",
    },
    Knob {
        name: "BB_STOP_AT",
        help: "name or number of the last pass to run: bisects the pipeline",
    },
    Knob {
        name: "BB_CHECK",
        help: "1: after every pass that changed something, compare the reference executor's results before and after it; what is not set yet gets sample data",
    },
    Knob {
        name: "BB_THREADS",
        help: "how many threads an execution uses; default: the machine's cores",
    },
    Knob {
        name: "BB_CACHE",
        help: "off: do not keep compiled objects on disk",
    },
    Knob {
        name: "BB_CACHE_DIR",
        help: "where compiled objects are kept; default: brain-blitz/objects in the user's cache folder",
    },
    Knob {
        name: "BB_DATA",
        help: "a folder that data sets are read from; without it, they are fetched into brain-blitz/data in the user's cache folder",
    },
    Knob {
        name: "BB_CPU",
        help: "the target that LlvmCpu compiles for by default: native, scalar, x86-64-v3, ...",
    },
    Knob {
        name: "BB_PACK",
        help: "1: LlvmCpu packs constant operands of matrix products once and keeps them, in memory of their own",
    },
    Knob {
        name: "BB_PACK_DIR",
        help: "a folder for files with packed operands, of weights in blocks too; default: none are written",
    },
    Knob {
        name: "BB_TUNE",
        help: "1: LlvmCpu measures how to cut matrix products of which it has no record, and keeps a record",
    },
    Knob {
        name: "BB_SIGNS",
        help: "popcount or table: how kernels count bits that differ, instead of the target's best way; for measuring",
    },
    Knob {
        name: "BB_LONG",
        help: "1: tests run their long versions",
    },
    Knob {
        name: "NO_COLOR",
        help: "anything: `Graph::display` writes without colours (see no-color.org)",
    },
];

fn read(name: &str) -> Option<String> {
    debug_assert!(
        KNOBS.iter().any(|knob| knob.name == name),
        "{name} is not in the table"
    );
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `BB_DEBUG` as a number; 0 when unset or not a number.
pub fn debug_level() -> u32 {
    read("BB_DEBUG")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// `BB_DUMP_DIR`.
pub fn dump_dir() -> Option<std::path::PathBuf> {
    read("BB_DUMP_DIR").map(Into::into)
}

/// `BB_STOP_AT`.
pub fn stop_at() -> Option<String> {
    read("BB_STOP_AT")
}

/// Whether `BB_CHECK` is on.
pub fn check() -> bool {
    read("BB_CHECK").is_some_and(|value| value != "0")
}

/// `BB_THREADS`, when it is a positive number.
pub fn threads() -> Option<usize> {
    read("BB_THREADS")
        .and_then(|text| text.parse().ok())
        .filter(|&n| n > 0)
}

/// Where compiled objects are kept: `BB_CACHE_DIR`, else the user's cache folder; `None` when there is none, or
/// `BB_CACHE` is off.
pub fn cache_folder() -> Option<std::path::PathBuf> {
    if read("BB_CACHE").is_some_and(|value| value == "off" || value == "0") {
        return None;
    }
    if let Some(dir) = read("BB_CACHE_DIR") {
        return Some(dir.into());
    }
    Some(user_cache()?.join("objects"))
}

/// `BB_SIGNS`.
pub fn signs() -> Option<String> {
    read("BB_SIGNS")
}

/// `BB_DATA`.
pub fn data_dir() -> Option<std::path::PathBuf> {
    read("BB_DATA").map(Into::into)
}

/// Where fetched data sets are kept; `None` when the user has no cache folder.
pub fn data_cache_dir() -> Option<std::path::PathBuf> {
    Some(user_cache()?.join("data"))
}

/// Where real models for long tests are kept; `None` when the user has no cache folder.
pub fn models_cache_dir() -> Option<std::path::PathBuf> {
    Some(user_cache()?.join("models"))
}

/// The crate's part of the user's cache folder (XDG Base Directory Specification).
fn user_cache() -> Option<std::path::PathBuf> {
    let from = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(std::path::PathBuf::from)
    };
    let base = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("brain-blitz"))
}

/// `BB_CPU`.
pub fn cpu() -> Option<String> {
    read("BB_CPU")
}

/// Whether constant operands of matrix products are packed once.
pub fn pack() -> bool {
    read("BB_PACK").is_some_and(|value| value != "0")
}

/// Where packed operands are kept in files: `BB_PACK_DIR`.
pub fn pack_dir() -> Option<std::path::PathBuf> {
    read("BB_PACK_DIR").map(Into::into)
}

/// Whether matrix products without record are measured.
pub fn tune() -> bool {
    read("BB_TUNE").is_some_and(|value| value != "0")
}

/// Whether tests run their long versions.
pub fn long_tests() -> bool {
    read("BB_LONG").is_some_and(|value| value != "0")
}

/// Whether colours are welcome on a terminal: no `NO_COLOR`.
pub fn color() -> bool {
    read("NO_COLOR").is_none()
}
