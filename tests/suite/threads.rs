//! Kernels large enough that their work is split over threads: the bits must not depend on the split.

use brain_blitz::op::random::uniform;
use brain_blitz::prelude::*;

use crate::pipelines::Pipeline;

/// Rows and columns: a million points, more than any kernel keeps on one thread.
const N: usize = 1100;

#[test]
fn large_maps_and_reductions_have_the_same_bits_on_any_number_of_threads() {
    for pipeline in Pipeline::all().into_iter().filter(|p| p.is_native()) {
        let mut cx = Graph::new();
        let x = cx.input((N, N), DType::F32).set(uniform(3, 0, N * N));
        let outputs = [
            (x.exp() * 2.0 + x.tanh()).retrieve(),
            (x * x + 1.0).sum(1).retrieve(),
            (x * x + 1.0).sum(0).retrieve(),
            x.softmax(1).retrieve(),
        ];
        pipeline.compile(&mut cx);
        let mut runs = Vec::new();
        for n_threads in [1, 2, 3] {
            cx.set_threads(n_threads);
            cx.execute();
            runs.push(outputs.map(|output| output.array()));
        }
        for (i, one) in runs[0].iter().enumerate() {
            assert!(one.to_f64().iter().all(|x| x.is_finite() && *x > 0.0));
            for run in &runs[1..] {
                assert!(one.same_bits(&run[i]), "output {i} on {pipeline:?}");
            }
        }
    }
}
