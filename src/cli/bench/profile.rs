//! `bench --profile`: where the time of a prompt and of generating goes, kernel by kernel.
//!
//! A table goes to standard output. A file gets one page without links to anywhere: bars for every kernel, its IR and
//! assembly on a click; and beside it `FILE.trace.json`, every step as an event for a trace viewer (the *Trace Event
//! Format* that Chrome's and Perfetto's read).

use std::io::Write;
use std::path::{Path, PathBuf};

use brain_blitz::atomic;
use brain_blitz::exec::profile::{Limits, Line, Profile};
use brain_blitz::generation::session::Session;
use serde_json::{Value, json};

use super::speed::{Lengths, tokens};
use crate::cli::failure::Outcome;
use crate::cli::output;

/// What was profiled, under its name.
pub struct Profiles {
    parts: Vec<(&'static str, Profile)>,
    limits: Option<Limits>,
    cpu: String,
}

impl Profiles {
    /// Profiles a session that was measured before, so that nothing happens for the first time.
    ///
    /// # Errors
    /// If an execution fails.
    pub fn of(
        session: &mut Session,
        lengths: &Lengths,
        limits: Option<Limits>,
        cpu: String,
    ) -> Outcome<Profiles> {
        let ids = tokens(lengths.prompt + lengths.generate, session.config());
        let (prompt, rest) = ids.split_at(lengths.prompt);
        session.reset();
        session.set_profiling(true);
        session.feed(prompt)?;
        let prefill = session.profile();
        for &id in rest {
            session.feed(&[id])?;
        }
        let decode = session.profile();
        session.set_profiling(false);
        let parts = [("prefill", prefill), ("decode", decode)];
        let there = parts.into_iter();
        Ok(Profiles {
            parts: there.filter_map(|(name, p)| Some((name, p?))).collect(),
            limits,
            cpu,
        })
    }

    /// The tables for a reader.
    pub fn table(&self) -> String {
        let table = |(name, profile): &(&str, Profile)| {
            let total = 1e3 * profile.seconds();
            let lines = profile.table(self.limits.as_ref());
            format!("\n{name}: {total:.3} ms in kernels\n{lines}")
        };
        self.parts.iter().map(table).collect()
    }

    /// Writes the page and the trace.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, session: &Session, page: &Path) -> Outcome {
        output::check_file(page)?;
        let html = self.page(session);
        atomic::write(page, |file| file.write_all(html.as_bytes()))?;
        let trace = self.trace(session).to_string();
        atomic::write(&trace_path(page), |file| file.write_all(trace.as_bytes()))?;
        Ok(())
    }

    fn page(&self, session: &Session) -> String {
        let parts = self.parts.iter().map(|(name, profile)| {
            let lines = profile.lines.iter().map(|line| self.line(session, line));
            json!({
                "name": name,
                "seconds": profile.seconds(),
                "lines": lines.collect::<Vec<Value>>(),
            })
        });
        let data = json!({ "cpu": self.cpu, "parts": parts.collect::<Vec<Value>>() });
        // Nothing in the data can end the element that it is in.
        let data = data.to_string().replace('<', "\\u003c");
        include_str!("profile.html").replace("/*DATA*/", &data)
    }

    fn line(&self, session: &Session, line: &Line) -> Value {
        let seconds = line.seconds.max(1e-12);
        let (ir, assembly) = code(session, line, &self.cpu).unwrap_or_default();
        json!({
            "name": line.name,
            "calls": line.calls,
            "seconds": line.seconds,
            "bytes": line.work.bytes,
            "flop": line.work.flop,
            "bandwidth": line.work.bytes / seconds,
            "rate": line.work.flop / seconds,
            "limit": self.limits.as_ref().map(|limits| line.part_of(limits)),
            "ir": ir,
            "assembly": assembly,
        })
    }

    fn trace(&self, session: &Session) -> Value {
        let mut events = Vec::new();
        for (part, profile) in &self.parts {
            for event in &profile.events {
                let name = session.graph().inspect(|dag| dag.describe(event.node));
                events.push(json!({
                    "name": name.split(" (recorded").next(),
                    "cat": part,
                    "ph": "X",
                    "ts": 1e6 * event.start.as_secs_f64(),
                    "dur": 1e6 * event.time.as_secs_f64(),
                    "pid": 1,
                    "tid": 1,
                    "args": { "bytes": event.work.bytes, "flop": event.work.flop, "op": name },
                }));
            }
        }
        json!({ "traceEvents": events, "displayTimeUnit": "ms" })
    }
}

/// `page.html` becomes `page.trace.json`.
fn trace_path(page: &Path) -> PathBuf {
    page.with_extension("trace.json")
}

/// LLVM IR and assembly of a kernel.
#[cfg(feature = "llvm-backend")]
fn code(session: &Session, line: &Line, cpu: &str) -> Option<(String, String)> {
    use brain_blitz::compilers::llvm_cpu::{Target, codegen};
    use brain_blitz::op::Op;
    let target = Target::for_cpu(cpu).ok()?;
    session
        .graph()
        .inspect(|dag| match &dag.node(line.node).op {
            Op::Kernel(kernel) => {
                Some([false, true].map(|asm| codegen::text(kernel, &target, asm)))
            }
            _ => None,
        })
        .map(|[ir, assembly]| (ir, assembly))
}

/// There is no code without LLVM.
#[cfg(not(feature = "llvm-backend"))]
fn code(_: &Session, _: &Line, _: &str) -> Option<(String, String)> {
    None
}
