//! Gradients: against finite differences in `f64`, for every op and view; what was built, pruned and fused.

mod check;
mod functions;
mod graph;
mod known;
mod views;
