//! `bench --machine`: what the machine can do at best.

#[cfg(feature = "llvm-backend")]
use brain_blitz::compilers::llvm_cpu::{limits::read_bandwidth, machine::Machine};

use brain_blitz::exec::profile::Limits;

use crate::cli::failure::Outcome;

/// The limits of this machine, if they were measured before; reading is measured again. How fast memory is changes from hour to
/// hour where others share it, so a rate is only told from its limit beside one of the same minute.
#[cfg(feature = "llvm-backend")]
pub fn now(n_threads: usize) -> Option<Limits> {
    let machine = Machine::known()?;
    Some(Limits {
        flops: machine.flops_of(n_threads),
        read_bytes: read_bandwidth(n_threads).ok()?,
    })
}

/// Nothing is measured without LLVM.
#[cfg(not(feature = "llvm-backend"))]
pub fn now(_: usize) -> Option<Limits> {
    None
}

/// Measures or recalls the limits, and prints them.
///
/// # Errors
/// Failure of LLVM, or too little memory.
#[cfg(feature = "llvm-backend")]
pub fn run(refresh: bool, json: bool) -> Outcome {
    use crate::cli::output;
    let machine = match refresh {
        true => Machine::measure()?,
        false => Machine::known_or_measure()?,
    };
    if json {
        return output::write_json(&machine);
    }
    let giga = |[one, all]: [f64; 2], unit: &str| {
        let (one, all, n) = (one / 1e9, all / 1e9, machine.threads);
        format!("{one:.1} {unit} with 1 thread, {all:.1} with {n}")
    };
    output::write(&format!(
        "{:<15} {} ({})\n{:<15} {}\n{:<15} {}\n",
        "cpu",
        machine.cpu,
        machine.target,
        "multiply-adds",
        giga(machine.flops, "GFLOP/s"),
        "reading",
        giga(machine.read_bytes, "GB/s"),
    ))
}

/// Cannot be done without LLVM.
///
/// # Errors
/// Always.
#[cfg(not(feature = "llvm-backend"))]
pub fn run(_: bool, _: bool) -> Outcome {
    Err(crate::cli::failure::Failure::new(
        "the machine's limits are measured with compiled code, and this program was built without LLVM",
    ))
}
