//! How far a student is from its teacher: in what it answers, and in what it holds on the way there.

use crate::graph::GraphTensor;

/// The Kullback-Leibler divergence of a student's distribution from its teacher's, both softened by a temperature, times
/// its square (Hinton et al. 2015, section 2.1): `[.., classes]` logits to one number, the mean over rows. Soft-caps of
/// logits come before.
///
/// ```
/// use brain_blitz::prelude::*;
/// use brain_blitz::train::distill::distillation_loss;
/// let mut cx = Graph::new();
/// let student = cx.input((1, 2), DType::F32).set([[0.0, 0.0]]);
/// let teacher = cx.input((1, 2), DType::F32).set([[3f32.ln(), 0.0]]); // 3/4 and 1/4
/// let loss = distillation_loss(student, teacher, 1.0).retrieve();
/// cx.execute();
/// let expected = 0.75 * 1.5f32.ln() + 0.25 * 0.5f32.ln();
/// assert!((loss.data()[0] - expected).abs() < 1e-6);
/// ```
///
/// # Panics
/// If shapes differ.
#[track_caller]
pub fn distillation_loss(
    student: GraphTensor,
    teacher: GraphTensor,
    temperature: f64,
) -> GraphTensor {
    let log = |logits: GraphTensor| (logits * temperature.recip()).log_softmax(-1);
    let (student, teacher) = (log(student), log(teacher.detach()));
    let rows = (teacher.exp() * (teacher - student)).sum(-1);
    rows.mean(..) * (temperature * temperature)
}

/// The mean squared distance of rows `[.., width]`, each scaled to length 1 (Xu et al. 2024, "OneBit", section 3.4).
///
/// # Panics
/// If shapes differ.
#[track_caller]
pub fn hidden_loss(student: GraphTensor, teacher: GraphTensor) -> GraphTensor {
    let unit = |x: GraphTensor| {
        let size = (x.square().sum(-1) + 1e-12).rsqrt();
        x * size.unsqueeze(-1)
    };
    let apart = unit(student) - unit(teacher.detach());
    apart.square().sum(-1).mean(..)
}
