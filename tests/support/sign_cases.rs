//! Products of rows with a matrix of signs, of every kind that has kernels of its own.

use brain_blitz::blocks::{SignFit, SignMatrix};
use brain_blitz::op::{ActivationScheme, PlanePart, Planes, SignPart};
use brain_blitz::prelude::*;

use crate::support::{kernels, noise};

/// What rows of a matrix of signs are multiplied by.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Factor {
    Signs,
    /// With a size for each row.
    SizedSigns,
    Bytes,
    /// Levels of a few bits, with the scales of their rows.
    Planes(Planes),
    /// Levels of a few bits, with sizes that are none of theirs.
    SizedLevels(Planes),
}

/// All of them.
pub const FACTORS: [Factor; 7] = [
    Factor::Signs,
    Factor::SizedSigns,
    Factor::Bytes,
    Factor::Planes(Planes::Two),
    Factor::Planes(Planes::Four),
    Factor::SizedLevels(Planes::Two),
    Factor::SizedLevels(Planes::Four),
];

/// A product `[m, k] x [n, k]`.
#[derive(Debug)]
pub struct Case {
    pub factor: Factor,
    /// Without bases one of them, without scales.
    pub bases: usize,
    pub sizes: (usize, usize, usize),
    pub x: Vec<f32>,
    pub w: Vec<f32>,
}

impl Case {
    pub fn new(factor: Factor, bases: usize, sizes: (usize, usize, usize)) -> Case {
        let (m, n, k) = sizes;
        let mut x = noise(m * k, 1);
        if factor == Factor::Bytes {
            // Scales are powers of two: then every order of additions gives the same bits.
            x.iter_mut().for_each(|x| *x = (*x * 127.0).round());
            x.chunks_mut(k.max(1)).enumerate().for_each(|(row, x)| {
                x[k / 2] = -127.0;
                x.iter_mut()
                    .for_each(|x| *x *= ((row % 8) as f32 - 3.0).exp2());
            });
        }
        Case {
            factor,
            bases,
            sizes,
            x,
            w: noise(n * k, 2),
        }
    }

    /// Records what the matrix is multiplied by, and what products with it are multiplied by.
    fn rows(&self, cx: &mut Graph) -> (GraphTensor, Option<GraphTensor>) {
        let (m, _, k) = self.sizes;
        let x = cx.input(('s', k), DType::F32).set(self.x.clone());
        let sizes = |cx: &mut Graph| cx.input('s', DType::F32).set(noise(m, 5));
        let levels = |planes| {
            let rows = x.pack_planes(planes);
            let part = |part| rows.unpack_planes(k, planes, part);
            (part(PlanePart::Levels), part(PlanePart::Scales))
        };
        match self.factor {
            Factor::Bytes => (x.fake_quantize(ActivationScheme::A8Tok), None),
            Factor::Signs => (x.pack_signs().unpack_signs(k), None),
            Factor::SizedSigns => (x.pack_signs().unpack_signs(k), Some(sizes(cx))),
            Factor::Planes(planes) => {
                let (levels, scales) = levels(planes);
                (levels, Some(scales))
            }
            Factor::SizedLevels(planes) => (levels(planes).0, Some(sizes(cx))),
        }
    }

    /// The result, and the names of the kernels.
    pub fn run(&self, target: Option<&str>, threads: usize) -> (Vec<f32>, Vec<String>) {
        let (m, n, k) = self.sizes;
        let mut cx = Graph::new();
        let (factor, sizes) = self.rows(&mut cx);
        let matrix = SignMatrix::new(n, k, self.bases.max(1)).unwrap();
        let mut bytes = vec![0; matrix.bytes()];
        matrix
            .encode(SignFit::default(), &self.w, &mut bytes)
            .unwrap();
        let w = cx.input((matrix.panels(), matrix.panel_bytes()), DType::U8);
        w.set(bytes);
        let product = |base| {
            let signs = w.sign_matrix(matrix, SignPart::Signs(base));
            factor.matmul(signs.transpose(0, 1))
        };
        let term = |base| product(base) * w.sign_matrix(matrix, SignPart::Scales(base));
        let mut y = match self.bases {
            0 => product(0),
            bases => (1..bases).fold(term(0), |sum, base| sum + term(base)),
        };
        if let Some(sizes) = sizes {
            y *= sizes.unsqueeze(-1);
        }
        let y = y.retrieve();
        cx.set_dim('s', m);
        cx.set_threads(threads);
        if let Some(target) = target {
            cx.compile((Generic, LlvmCpu::for_cpu(target)), ());
        }
        cx.execute();
        (y.data(), kernels(&cx))
    }
}

/// How many kernels multiply by signs.
pub fn n_products(names: &[String]) -> usize {
    names
        .iter()
        .filter(|name| name.starts_with("signs_"))
        .count()
}
