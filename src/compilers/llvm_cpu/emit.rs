//! Small steps of writing LLVM IR that all code generators share.
//!
//! An [`Emit`] is one function being written. Its methods return values, not results: the builder
//! fails only when it is not in a block or when types do not fit, which is a bug in the generator,
//! and the module verifier has the last word anyway.

use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::basic_block::BasicBlock;
use inkwell::builder::Builder;
use inkwell::context::Context;
use inkwell::intrinsics::Intrinsic;
use inkwell::module::Module;
use inkwell::types::{
    BasicMetadataTypeEnum, BasicType, BasicTypeEnum, FloatType, IntType, PointerType, VectorType,
};
use inkwell::values::{
    BasicMetadataValueEnum, BasicValue, BasicValueEnum, FunctionValue, IntValue, PointerValue,
    VectorValue,
};
use inkwell::{AddressSpace, IntPredicate};

/// Why building an instruction cannot fail.
pub const BUILT: &str = "the builder is in a block and the operand types fit";

/// One function of a module, being written.
pub struct Emit<'m, 'c> {
    /// Where types come from.
    pub context: &'c Context,
    /// Where declarations go.
    pub module: &'m Module<'c>,
    /// Where the next instruction goes.
    pub builder: Builder<'c>,
    /// The function.
    pub function: FunctionValue<'c>,
}

impl<'m, 'c> Emit<'m, 'c> {
    /// A new function without a result, positioned in its entry block.
    pub fn function(
        context: &'c Context,
        module: &'m Module<'c>,
        name: &str,
        arguments: &[BasicMetadataTypeEnum<'c>],
    ) -> Emit<'m, 'c> {
        let kind = context.void_type().fn_type(arguments, false);
        let function = module.add_function(name, kind, None);
        let nounwind = Attribute::get_named_enum_kind_id("nounwind");
        function.add_attribute(
            AttributeLoc::Function,
            context.create_enum_attribute(nounwind, 0),
        );
        let builder = context.create_builder();
        builder.position_at_end(context.append_basic_block(function, "entry"));
        Emit {
            context,
            module,
            builder,
            function,
        }
    }

    /// Promises that nothing else the function uses overlaps what argument `index` points to.
    pub fn noalias(&self, index: u32) {
        let kind = Attribute::get_named_enum_kind_id("noalias");
        let attribute = self.context.create_enum_attribute(kind, 0);
        self.function
            .add_attribute(AttributeLoc::Param(index), attribute);
    }

    /// Integer argument `index`.
    pub fn int_argument(&self, index: u32) -> IntValue<'c> {
        self.argument(index).into_int_value()
    }

    /// Pointer argument `index`.
    pub fn pointer_argument(&self, index: u32) -> PointerValue<'c> {
        self.argument(index).into_pointer_value()
    }

    fn argument(&self, index: u32) -> BasicValueEnum<'c> {
        self.function
            .get_nth_param(index)
            .expect("the function has this argument")
    }

    /// `i64`.
    pub fn i64(&self) -> IntType<'c> {
        self.context.i64_type()
    }

    /// `float`.
    pub fn f32(&self) -> FloatType<'c> {
        self.context.f32_type()
    }

    /// `ptr`.
    pub fn ptr(&self) -> PointerType<'c> {
        self.context.ptr_type(AddressSpace::default())
    }

    /// `lanes` `float`s: a vector, or a plain `float` if one.
    pub fn vector(&self, lanes: u32) -> BasicTypeEnum<'c> {
        match lanes {
            1 => self.f32().into(),
            lanes => self.f32().vec_type(lanes).into(),
        }
    }

    /// An `i64` constant.
    pub fn int(&self, value: i64) -> IntValue<'c> {
        self.i64().const_int(value as u64, true)
    }

    /// `a + b`, without overflow.
    pub fn add(&self, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        match (
            a.get_sign_extended_constant(),
            b.get_sign_extended_constant(),
        ) {
            (Some(0), _) => b,
            (_, Some(0)) => a,
            _ => self.builder.build_int_nsw_add(a, b, "").expect(BUILT),
        }
    }

    /// `a - b`, without overflow.
    pub fn sub(&self, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        self.builder.build_int_nsw_sub(a, b, "").expect(BUILT)
    }

    /// `a * b`, without overflow.
    pub fn mul(&self, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        match (
            a.get_sign_extended_constant(),
            b.get_sign_extended_constant(),
        ) {
            (Some(1), _) => b,
            (_, Some(1)) => a,
            (Some(0), _) | (_, Some(0)) => self.int(0),
            _ => self.builder.build_int_nsw_mul(a, b, "").expect(BUILT),
        }
    }

    /// The smaller of two signed integers.
    pub fn min(&self, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        let less = self.compare(IntPredicate::SLT, a, b);
        self.builder
            .build_select(less, a, b, "")
            .expect(BUILT)
            .into_int_value()
    }

    /// An integer comparison.
    pub fn compare(&self, how: IntPredicate, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        self.builder.build_int_compare(how, a, b, "").expect(BUILT)
    }

    /// The address of element `index` of an array of `element`s at `base`.
    pub fn at(
        &self,
        element: impl BasicType<'c>,
        base: PointerValue<'c>,
        index: IntValue<'c>,
    ) -> PointerValue<'c> {
        // SAFETY: inkwell marks this unsafe because an out-of-bounds index is poison when the code
        // runs; building the instruction is not. Generators only address elements that exist.
        unsafe {
            self.builder
                .build_in_bounds_gep(element, base, &[index], "")
                .expect(BUILT)
        }
    }

    /// Loads a value, of which only `align` bytes of alignment are known.
    pub fn load(
        &self,
        kind: impl BasicType<'c>,
        from: PointerValue<'c>,
        align: u32,
    ) -> BasicValueEnum<'c> {
        let value = self.builder.build_load(kind, from, "").expect(BUILT);
        let instruction = value
            .as_instruction_value()
            .expect("a load is an instruction");
        instruction.set_alignment(align).expect("a power of two");
        value
    }

    /// Stores a value, with only `align` bytes of alignment known.
    pub fn store(&self, value: impl BasicValue<'c>, to: PointerValue<'c>, align: u32) {
        let instruction = self.builder.build_store(to, value).expect(BUILT);
        instruction.set_alignment(align).expect("a power of two");
    }

    /// Asks for the cache line `bytes` behind `base`, which may lie outside of what can be read. `level` is 3 for all
    /// caches, 2 for those from the second one on.
    pub fn prefetch(&self, base: PointerValue<'c>, bytes: i64, level: u64) {
        // SAFETY: not marked `inbounds`, so any index gives a defined address, and a prefetch of any address is
        // harmless.
        let address = unsafe {
            self.builder
                .build_gep(self.context.i8_type(), base, &[self.int(bytes)], "")
        };
        let flag = |value: u64| self.context.i32_type().const_int(value, false).into();
        // Read, data.
        self.intrinsic(
            "llvm.prefetch",
            &[self.ptr().into()],
            &[address.expect(BUILT).into(), flag(0), flag(level), flag(1)],
        );
    }

    /// Calls an LLVM intrinsic that has a result, such as `llvm.fma`, overloaded on `types`.
    pub fn intrinsic(
        &self,
        name: &str,
        types: &[BasicTypeEnum<'c>],
        arguments: &[BasicMetadataValueEnum<'c>],
    ) -> Option<BasicValueEnum<'c>> {
        self.call(self.declared(name, types), arguments)
    }

    /// An LLVM intrinsic, overloaded on `types`.
    pub fn declared(&self, name: &str, types: &[BasicTypeEnum<'c>]) -> FunctionValue<'c> {
        let found = Intrinsic::find(name).expect("an intrinsic of this LLVM");
        found
            .get_declaration(self.module, types)
            .expect("overloaded on its types")
    }

    /// Calls a function; its result, if it has one.
    pub fn call(
        &self,
        function: FunctionValue<'c>,
        arguments: &[BasicMetadataValueEnum<'c>],
    ) -> Option<BasicValueEnum<'c>> {
        let call = self.builder.build_call(function, arguments, "");
        call.expect(BUILT).try_as_basic_value().basic()
    }

    /// `a * b + c` with one rounding, on floats or vectors of them.
    pub fn fma(
        &self,
        a: BasicValueEnum<'c>,
        b: BasicValueEnum<'c>,
        c: BasicValueEnum<'c>,
    ) -> BasicValueEnum<'c> {
        self.intrinsic("llvm.fma", &[c.get_type()], &[a.into(), b.into(), c.into()])
            .expect("llvm.fma has a result")
    }

    /// `a + b`, on floats or vectors of them.
    pub fn fadd(&self, a: BasicValueEnum<'c>, b: BasicValueEnum<'c>) -> BasicValueEnum<'c> {
        match (a, b) {
            (BasicValueEnum::FloatValue(a), BasicValueEnum::FloatValue(b)) => {
                self.builder.build_float_add(a, b, "").expect(BUILT).into()
            }
            (a, b) => {
                let (a, b) = (a.into_vector_value(), b.into_vector_value());
                self.builder.build_float_add(a, b, "").expect(BUILT).into()
            }
        }
    }

    /// `yes` where `condition` holds and `no` elsewhere, lane by lane.
    pub fn select(
        &self,
        condition: BasicValueEnum<'c>,
        yes: BasicValueEnum<'c>,
        no: BasicValueEnum<'c>,
    ) -> BasicValueEnum<'c> {
        match condition {
            BasicValueEnum::VectorValue(lanes) => self.builder.build_select(lanes, yes, no, ""),
            one => self.builder.build_select(one.into_int_value(), yes, no, ""),
        }
        .expect(BUILT)
    }

    /// A whole number of so many bits (8, 16, 32 or 64) in every lane.
    pub fn constants(&self, bits: u32, value: i64, lanes: u32) -> VectorValue<'c> {
        let kind = match bits {
            8 => self.context.i8_type(),
            16 => self.context.i16_type(),
            32 => self.context.i32_type(),
            _ => self.i64(),
        };
        let value = kind.const_int(value as u64, true);
        VectorType::const_vector(&vec![value; lanes as usize])
    }

    /// `value` in every lane; itself for one lane.
    pub fn splat(&self, value: BasicValueEnum<'c>, lanes: u32) -> BasicValueEnum<'c> {
        if lanes == 1 {
            return value;
        }
        let kind = match value {
            BasicValueEnum::FloatValue(v) => v.get_type().vec_type(lanes),
            BasicValueEnum::IntValue(v) => v.get_type().vec_type(lanes),
            other => unreachable!("only numbers are splatted, not {other:?}"),
        };
        let i32 = self.context.i32_type();
        let poison = kind.get_poison();
        let first = self
            .builder
            .build_insert_element(poison, value, i32.const_zero(), "")
            .expect(BUILT);
        let zeros = i32.vec_type(lanes).const_zero();
        self.builder
            .build_shuffle_vector(first, poison, zeros, "")
            .expect(BUILT)
            .into()
    }

    /// Lane `index` of a vector.
    pub fn extract(&self, vector: BasicValueEnum<'c>, index: u32) -> BasicValueEnum<'c> {
        let index = self.context.i32_type().const_int(index.into(), false);
        let vector = vector.into_vector_value();
        self.builder
            .build_extract_element(vector, index, "")
            .expect(BUILT)
    }

    /// A vector with another value in lane `index`.
    pub fn insert(
        &self,
        vector: BasicValueEnum<'c>,
        value: BasicValueEnum<'c>,
        index: u32,
    ) -> BasicValueEnum<'c> {
        let index = self.context.i32_type().const_int(index.into(), false);
        let vector = vector.into_vector_value();
        let vector = self.builder.build_insert_element(vector, value, index, "");
        vector.expect(BUILT).into()
    }

    /// The chosen lanes of `a` followed by `b`.
    pub fn shuffle(
        &self,
        a: BasicValueEnum<'c>,
        b: BasicValueEnum<'c>,
        lanes: &[u32],
    ) -> BasicValueEnum<'c> {
        let i32 = self.context.i32_type();
        let lanes: Vec<_> = lanes
            .iter()
            .map(|&lane| i32.const_int(lane.into(), false))
            .collect();
        let mask = inkwell::types::VectorType::const_vector(&lanes);
        let (a, b) = (a.into_vector_value(), b.into_vector_value());
        self.builder
            .build_shuffle_vector(a, b, mask, "")
            .expect(BUILT)
            .into()
    }

    /// Writes `for index in (begin..end).step_by(step) { body }`. The values that `body` makes are
    /// not visible after the loop; afterwards the builder is in the block behind it.
    pub fn each(
        &self,
        begin: IntValue<'c>,
        end: IntValue<'c>,
        step: i64,
        body: impl FnOnce(IntValue<'c>),
    ) {
        let before = self.builder.get_insert_block().expect("positioned");
        let [head, inside, after] = ["head", "body", "after"]
            .map(|name| self.context.append_basic_block(self.function, name));
        self.builder.build_unconditional_branch(head).expect(BUILT);
        self.builder.position_at_end(head);
        let index = self.builder.build_phi(self.i64(), "index").expect(BUILT);
        let value = index.as_basic_value().into_int_value();
        let more = self.compare(IntPredicate::SLT, value, end);
        self.builder
            .build_conditional_branch(more, inside, after)
            .expect(BUILT);
        self.builder.position_at_end(inside);
        body(value);
        let last = self.builder.get_insert_block().expect("positioned");
        let next = self.add(value, self.int(step));
        self.builder.build_unconditional_branch(head).expect(BUILT);
        index.add_incoming(&[(&begin, before), (&next, last)]);
        self.builder.position_at_end(after);
    }

    /// Writes a loop over `(begin..end).step_by(step)` that carries `values` from round to round; returns what they are
    /// in the end.
    pub fn carry(
        &self,
        (begin, end, step): (IntValue<'c>, IntValue<'c>, i64),
        values: Vec<BasicValueEnum<'c>>,
        body: impl FnOnce(IntValue<'c>, &[BasicValueEnum<'c>]) -> Vec<BasicValueEnum<'c>>,
    ) -> Vec<BasicValueEnum<'c>> {
        let here = || self.builder.get_insert_block().expect("positioned");
        let jump = |index, inside, after| {
            let more = self.compare(IntPredicate::SLT, index, end);
            self.builder
                .build_conditional_branch(more, inside, after)
                .expect(BUILT)
        };
        let phi = |incoming: &[(&BasicValueEnum<'c>, BasicBlock<'c>)]| {
            let kind = incoming[0].0.get_type();
            let phi = self.builder.build_phi(kind, "").expect(BUILT);
            let incoming = incoming
                .iter()
                .map(|(v, block)| (*v as &dyn BasicValue<'c>, *block));
            phi.add_incoming(&incoming.collect::<Vec<_>>());
            phi
        };
        let before = here();
        let [inside, after] =
            ["round", "done"].map(|name| self.context.append_basic_block(self.function, name));
        jump(begin, inside, after);
        self.builder.position_at_end(inside);
        let index = phi(&[(&begin.into(), before)]);
        let phis: Vec<_> = values.iter().map(|value| phi(&[(value, before)])).collect();
        let current: Vec<_> = phis.iter().map(|phi| phi.as_basic_value()).collect();
        let at = index.as_basic_value().into_int_value();
        let next = body(at, &current);
        let at = self.add(at, self.int(step));
        let last = here();
        jump(at, inside, after);
        index.add_incoming(&[(&at, last)]);
        for (phi, value) in phis.iter().zip(&next) {
            phi.add_incoming(&[(value, last)]);
        }
        self.builder.position_at_end(after);
        let both = values.iter().zip(&next);
        both.map(|(old, new)| phi(&[(old, before), (new, last)]).as_basic_value())
            .collect()
    }

    /// Writes `if condition { yes } else { no }`.
    pub fn branch(&self, condition: IntValue<'c>, yes: impl FnOnce(), no: impl FnOnce()) {
        let [then, otherwise, after] = ["then", "else", "after"]
            .map(|name| self.context.append_basic_block(self.function, name));
        self.builder
            .build_conditional_branch(condition, then, otherwise)
            .expect(BUILT);
        self.builder.position_at_end(then);
        yes();
        self.builder.build_unconditional_branch(after).expect(BUILT);
        self.builder.position_at_end(otherwise);
        no();
        self.builder.build_unconditional_branch(after).expect(BUILT);
        self.builder.position_at_end(after);
    }

    /// Ends the function.
    pub fn finish(self) {
        self.builder.build_return(None).expect(BUILT);
    }
}
