//! Looking at graphs: in the terminal, as DOT, SVG, or one HTML page.
//!
//! Everything here reads a [`Dag`] and makes text. A node's number is the one that it has in the text form
//! ([`super::text`]), so that a listing, a picture and a dump can be read together. Names and paths come from users
//! and are escaped for wherever they end up. Output depends on the graph only, not on hash order or time; the one
//! exception is [`to_svg`], which prefers the layout of an installed Graphviz for small graphs.

mod dot;
mod facts;
mod fold;
mod html;
mod layout;
mod listing;
mod svg;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, Write};
use std::path::Path;

use super::dag::Dag;
use super::registry::Graph;
use crate::error::Result;
use crate::knobs;

pub use dot::to_dot;
pub use html::to_html;
pub use listing::listing;
pub use svg::{layered_svg, to_svg};

/// A graph as it was at some point of a compilation.
#[derive(Clone)]
pub struct Stage {
    /// `recorded`, the last pass of a group, or `final`.
    pub name: String,
    /// The graph.
    pub dag: Dag,
}

impl Graph {
    /// Prints the graph as it is now to the standard output: one node a line, repeated layers folded, and a summary.
    /// In colour on a terminal, unless the environment has `NO_COLOR`.
    pub fn display(&self) {
        let mut out = std::io::stdout();
        let color = out.is_terminal() && knobs::color();
        // Nobody is left to tell when the standard output is closed.
        let _ = out.write_all(self.display_string(color).as_bytes());
    }

    /// What [`Graph::display`] prints.
    ///
    /// ```
    /// # use brain_blitz::graph::Graph;
    /// let cx = Graph::from_text("%0 = input<0> : f32[2] \"x\"\n%1 = mul(%0, %0) : f32[2]\nout %1\n").unwrap();
    /// let text = cx.display_string(false);
    /// assert!(text.contains("mul(%0, %0)  f32[2]  8 B"), "{text}");
    /// assert!(text.contains("2 nodes, 1 input of 8 B, no kernels"), "{text}");
    /// ```
    pub fn display_string(&self, color: bool) -> String {
        listing(&self.lock().dag, color)
    }

    /// The graph at each stage: as recorded, after each group of passes, and as it is now. Stages at which nothing
    /// changed are there too.
    pub fn stages(&self) -> Vec<Stage> {
        let inner = self.lock();
        let mut stages: Vec<Stage> = inner
            .stages
            .iter()
            .map(|(name, dag)| Stage {
                name: name.clone(),
                dag: dag.clone(),
            })
            .collect();
        let name = if stages.is_empty() {
            "recorded"
        } else {
            "final"
        };
        stages.push(Stage {
            name: name.into(),
            dag: inner.dag.clone(),
        });
        stages
    }

    /// The graph as it is now in Graphviz' language.
    pub fn to_dot(&self) -> String {
        to_dot(&self.lock().dag)
    }

    /// The graph as it is now as a picture; see [`to_svg`].
    pub fn to_svg(&self) -> String {
        to_svg(&self.lock().dag)
    }

    /// All stages as one HTML page without any link: pan, zoom, search, click on a node for all about it.
    pub fn to_html(&self) -> String {
        to_html(&self.stages())
    }

    /// Writes the graph to a file in the form that its extension names: `.html` (all stages), `.svg`, `.dot` or
    /// `.txt` (the listing). The file is replaced as a whole, or not at all.
    ///
    /// # Errors
    /// Another extension, or the operating system's refusal.
    pub fn save_display(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let content = match extension {
            Some("html") => self.to_html(),
            Some("svg") => self.to_svg(),
            Some("dot") => self.to_dot(),
            Some("txt") => self.display_string(false),
            _ => {
                return Err(crate::Error::msg(format!(
                    "{}: a graph can be written as .html, .svg, .dot or .txt",
                    path.display()
                )));
            }
        };
        crate::atomic::write_bytes(path, content.as_bytes())
    }
}
