//! The machine's limits, measured once and kept on disk.
//!
//! [`limits`](super::limits) takes about a second, which is too long for every run and short enough to do again when
//! asked; the best of all measurements counts. The file `machine.json` lies with the compiled objects, has an entry for each CPU model and number of threads, and is
//! only a cache: what cannot be read is measured again, what cannot be written is not kept.
//!
//! Deliberately absent: anything that decides how code is generated, and any guess where nothing was measured.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::target::Target;
use crate::error::Result;
use crate::exec::pool;
use crate::{atomic, knobs};

/// What a machine reaches with one thread and with all.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The model, as the system calls it.
    pub cpu: String,
    /// What `native` compiles for.
    pub target: String,
    /// How many threads "all" are.
    pub threads: usize,
    /// Floating-point operations a second, in `f32`: one thread, all threads.
    pub flops: [f64; 2],
    /// Bytes read from memory a second: one thread, all threads.
    pub read_bytes: [f64; 2],
}

impl Machine {
    /// Measures this machine, which takes about a second, and keeps the result.
    ///
    /// # Errors
    /// Failure of LLVM, or too little memory.
    pub fn measure() -> Result<Machine> {
        let target = Target::native();
        let mut limits = Limits::new(&target)?;
        let threads = pool::default_threads();
        let machine = Machine {
            cpu: cpu_model(&target),
            target: target.name().to_string(),
            threads,
            flops: [limits.fma(1), limits.fma(threads)],
            read_bytes: [limits.read(1)?, limits.read(threads)?],
        };
        let machine = match Machine::known() {
            Some(before) => machine.or_better(&before),
            None => machine,
        };
        machine.keep();
        Ok(machine)
    }

    /// The larger of both figures each: a limit is what is possible, and whoever else used the machine meanwhile only
    /// took away from it.
    fn or_better(self, other: &Machine) -> Machine {
        let larger = |a: [f64; 2], b: [f64; 2]| [a[0].max(b[0]), a[1].max(b[1])];
        Machine {
            flops: larger(self.flops, other.flops),
            read_bytes: larger(self.read_bytes, other.read_bytes),
            ..self
        }
    }

    /// What was measured before on a machine like this one, if it was.
    pub fn known() -> Option<Machine> {
        let target = Target::native();
        let key = key(&cpu_model(&target), pool::default_threads());
        load().remove(&key)
    }

    /// What was measured before, or else now.
    ///
    /// # Errors
    /// As [`Machine::measure`].
    pub fn known_or_measure() -> Result<Machine> {
        match Machine::known() {
            Some(machine) => Ok(machine),
            None => Machine::measure(),
        }
    }

    /// Floating-point operations a second of `n_threads` threads: as measured for one and for all, in proportion in
    /// between.
    pub fn flops_of(&self, n_threads: usize) -> f64 {
        self.between(self.flops, n_threads)
    }

    /// Bytes read a second by `n_threads` threads, as [`Machine::flops_of`].
    pub fn read_bytes_of(&self, n_threads: usize) -> f64 {
        self.between(self.read_bytes, n_threads)
    }

    fn between(&self, [one, all]: [f64; 2], n_threads: usize) -> f64 {
        if self.threads <= 1 {
            return one;
        }
        let part = (n_threads.clamp(1, self.threads) - 1) as f64 / (self.threads - 1) as f64;
        one + (all - one) * part
    }

    fn keep(&self) {
        let Some(path) = path() else { return };
        let mut all = load();
        all.insert(key(&self.cpu, self.threads), self.clone());
        let (Some(folder), Ok(text)) = (path.parent(), serde_json::to_string_pretty(&all)) else {
            return;
        };
        // The next run measures again if this fails.
        let _ = std::fs::create_dir_all(folder);
        let _ = atomic::write(&path, |file| writeln!(file, "{text}"));
    }
}

fn key(cpu: &str, threads: usize) -> String {
    format!("{cpu} x{threads}")
}

fn path() -> Option<PathBuf> {
    let folder = knobs::cache_folder()?;
    Some(folder.join("machine.json"))
}

fn load() -> BTreeMap<String, Machine> {
    let text = path().and_then(|path| std::fs::read(path).ok());
    let all = text.and_then(|text| serde_json::from_slice(&text).ok());
    all.unwrap_or_default()
}

/// The model as the system calls it, else LLVM's name for it.
pub(super) fn cpu_model(target: &Target) -> String {
    static MODEL: OnceLock<Option<String>> = OnceLock::new();
    let model = MODEL.get_or_init(|| {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        info.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            (field.trim() == "model name").then(|| value.trim().to_string())
        })
    });
    model.clone().unwrap_or_else(|| target.cpu().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(threads: usize) -> Machine {
        Machine {
            cpu: "one of a kind".into(),
            target: "native".into(),
            threads,
            flops: [10.0, 40.0],
            read_bytes: [5.0, 8.0],
        }
    }

    #[test]
    fn limits_of_some_threads_lie_between_those_of_one_and_all() {
        let four = machine(4);
        let flops: Vec<f64> = (0..6).map(|n| four.flops_of(n)).collect();
        assert_eq!(flops, [10.0, 10.0, 20.0, 30.0, 40.0, 40.0]);
        assert_eq!(four.read_bytes_of(3), 7.0);
        assert_eq!(machine(1).flops_of(1), 10.0);
    }

    #[test]
    fn the_best_of_several_measurements_counts() {
        let mut other = machine(3);
        (other.flops, other.read_bytes) = ([11.0, 30.0], [4.0, 9.0]);
        let best = machine(3).or_better(&other);
        assert_eq!((best.flops, best.read_bytes), ([11.0, 40.0], [5.0, 9.0]));
    }

    #[test]
    fn the_text_form_is_read_back() {
        let text = serde_json::to_string(&machine(3)).unwrap();
        assert_eq!(serde_json::from_str::<Machine>(&text).unwrap(), machine(3));
    }
}
