//! Any text as the text form of a graph: a graph that prints as a text of the same graph, or an error.

#![no_main]

use brain_blitz::graph::{parse::parse, text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    if let Ok(graph) = parse(source) {
        let printed = text::print(&graph);
        let again = parse(&printed).expect("what is printed can be read");
        assert_eq!(printed, text::print(&again));
    }
});
