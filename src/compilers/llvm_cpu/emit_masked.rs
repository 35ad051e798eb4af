//! Reading and writing some lanes of a vector, for the edges of what lies in memory.
//!
//! Lanes that a mask leaves out are not touched, so that they may lie outside of any buffer.

use inkwell::IntPredicate;
use inkwell::types::BasicTypeEnum;
use inkwell::values::{BasicMetadataValueEnum, BasicValueEnum, IntValue, PointerValue};

use super::emit::{BUILT, Emit};
use crate::dtype::DType;

/// Whether vectors of `lanes` elements can be read under a mask at the cost of a load: those of two bytes only by the
/// widest ones.
pub fn has_masks(lanes: u32, dtype: DType) -> bool {
    lanes == 16 || lanes == 8 && dtype == DType::F32
}

impl<'c> Emit<'_, 'c> {
    /// Loads the vector of elements at `addresses` where `valid`, zeros elsewhere.
    pub fn masked_gather(
        &self,
        kind: BasicTypeEnum<'c>,
        addresses: BasicValueEnum<'c>,
        valid: BasicValueEnum<'c>,
    ) -> BasicValueEnum<'c> {
        let arguments = &[addresses.into(), valid.into(), kind.const_zero().into()];
        self.masked(
            "llvm.masked.gather",
            &[kind, addresses.get_type()],
            1,
            arguments,
        )
        .expect("a gather has a result")
    }

    /// Loads the lanes of a vector where `valid`, zeros elsewhere; other lanes are not touched.
    pub fn masked_load(
        &self,
        kind: BasicTypeEnum<'c>,
        from: PointerValue<'c>,
        valid: BasicValueEnum<'c>,
    ) -> BasicValueEnum<'c> {
        let arguments = &[from.into(), valid.into(), kind.const_zero().into()];
        self.masked("llvm.masked.load", &[kind, self.ptr().into()], 1, arguments)
            .expect("a load has a result")
    }

    /// Loads `lanes` elements as f32 where `valid`, zeros elsewhere; other elements are not touched.
    ///
    /// # Panics
    /// For formats other than F32, F16 and BF16, and for a single lane.
    pub fn masked_read_f32(
        &self,
        dtype: DType,
        from: PointerValue<'c>,
        lanes: u32,
        valid: BasicValueEnum<'c>,
    ) -> BasicValueEnum<'c> {
        let bits = || self.masked_load(self.context.i16_type().vec_type(lanes).into(), from, valid);
        match dtype {
            DType::F32 => self.masked_load(self.vector(lanes), from, valid),
            DType::BF16 => self.widen_bf16(bits(), lanes),
            DType::F16 => {
                let half = self.context.f16_type().vec_type(lanes);
                let half = self.builder.build_bit_cast(bits(), half, "").expect(BUILT);
                let (half, kind) = (half.into_vector_value(), self.vector(lanes));
                let wide = self
                    .builder
                    .build_float_ext(half, kind.into_vector_type(), "");
                wide.expect(BUILT).into()
            }
            other => panic!("no f32 is read from {}", other.name()),
        }
    }

    /// Stores the lanes of a vector where `valid`; other lanes of the memory are not touched.
    pub fn masked_store(
        &self,
        value: BasicValueEnum<'c>,
        to: PointerValue<'c>,
        valid: BasicValueEnum<'c>,
    ) {
        let arguments = &[value.into(), to.into(), valid.into()];
        self.masked(
            "llvm.masked.store",
            &[value.get_type(), self.ptr().into()],
            2,
            arguments,
        );
    }

    /// Calls an intrinsic with a mask. Before LLVM 22 it has one more argument, the alignment, at `position`.
    fn masked(
        &self,
        name: &str,
        types: &[BasicTypeEnum<'c>],
        position: usize,
        arguments: &[BasicMetadataValueEnum<'c>],
    ) -> Option<BasicValueEnum<'c>> {
        let function = self.declared(name, types);
        let mut arguments = arguments.to_vec();
        if function.count_params() as usize > arguments.len() {
            let size = match types[0].into_vector_type().get_element_type() {
                BasicTypeEnum::IntType(kind) => u64::from(kind.get_bit_width() / 8),
                _ => 4,
            };
            let align = self.context.i32_type().const_int(size, false);
            arguments.insert(position, align.into());
        }
        self.call(function, &arguments)
    }

    /// The lanes below `end`, which may be any number, as a mask; a plain `i1` for one lane.
    pub fn lanes_below(&self, lanes: u32, end: IntValue<'c>) -> BasicValueEnum<'c> {
        if lanes == 1 {
            return self.compare(IntPredicate::SLT, self.int(0), end).into();
        }
        let lane = |lane: u32| self.int(lane.into());
        let numbers: Vec<_> = (0..lanes).map(lane).collect();
        let numbers = inkwell::types::VectorType::const_vector(&numbers);
        let end = self.splat(end.into(), lanes).into_vector_value();
        self.builder
            .build_int_compare(IntPredicate::SLT, numbers, end, "")
            .expect(BUILT)
            .into()
    }
}
