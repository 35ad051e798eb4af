//! The state of emitting one kernel: function, parameters, loops.
//!
//! The entry block holds what is loaded once: pointers, symbolic parameters (on first
//! use) and the stack slots. The kernel's own code starts in the block after it.

use std::collections::HashMap;

use inkwell::builder::Builder;
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::types::BasicMetadataTypeEnum;
use inkwell::values::{BasicValue, FunctionValue, IntValue, PointerValue};
use inkwell::{AddressSpace, IntPredicate};

use super::plan::Plan;
use super::vector::{Ops, V, address, built};
use crate::compilers::llvm_cpu::target::Target;
use crate::shape::Expr;

/// Emits one kernel.
pub struct Emitter<'a, 'c> {
    /// Instructions.
    pub ops: Ops<'a, 'c>,
    /// What to emit.
    pub plan: &'a Plan<'a>,
    /// Lanes of the target's vectors.
    pub lanes: u32,
    /// Whether the target converts half precision itself.
    pub has_f16: bool,
    /// Expressions that the host evaluates, in the order of the `params` argument.
    pub params: Vec<Expr>,
    /// The inputs, then the output.
    pub pointers: Vec<PointerValue<'c>>,
    /// The error slot.
    pub errors: PointerValue<'c>,
    /// 16 zero bytes: where padding is read.
    pub zeros: PointerValue<'c>,
    /// Whether the result is stored past the caches where that is possible.
    pub past_caches: bool,
    /// Where values of a row are kept for later walks; in the output row if there is no such place.
    pub kept_row: Option<PointerValue<'c>>,
    function: FunctionValue<'c>,
    entry: Builder<'c>,
    loaded: HashMap<Expr, IntValue<'c>>,
}

/// The parameters of a kernel, by position.
mod argument {
    pub const POINTERS: u32 = 0;
    pub const PARAMS: u32 = 1;
    pub const BEGIN: u32 = 2;
    pub const END: u32 = 3;
    pub const ERRORS: u32 = 4;
    /// The first of those that only some kernels have.
    pub const MORE: u32 = 5;
}

/// Adds a function of the kernel's type, with some more integers.
fn declare<'c>(
    context: &'c Context,
    module: &Module<'c>,
    symbol: &str,
    n_more: usize,
) -> FunctionValue<'c> {
    let pointer = context.ptr_type(AddressSpace::default());
    let int = context.i64_type();
    let mut arguments = vec![
        pointer.into(),
        pointer.into(),
        int.into(),
        int.into(),
        pointer.into(),
    ];
    arguments.extend((0..n_more).map(|_| BasicMetadataTypeEnum::from(int)));
    module.add_function(symbol, context.void_type().fn_type(&arguments, false), None)
}

impl<'a, 'c> Emitter<'a, 'c> {
    /// Starts the function `symbol`; instructions go after its entry block. It has `n_more` integers for arguments,
    /// beyond those of all kernels.
    pub fn new(
        context: &'c Context,
        module: &'a Module<'c>,
        plan: &'a Plan<'a>,
        target: &Target,
        (symbol, n_more): (&str, usize),
    ) -> Self {
        let function = declare(context, module, symbol, n_more);
        let entry = context.create_builder();
        entry.position_at_end(context.append_basic_block(function, "entry"));
        let ops = Ops {
            context,
            module,
            builder: context.create_builder(),
            has_scale: target.lanes() == 16,
            has_permute: target.lanes() == 8,
        };
        ops.builder
            .position_at_end(context.append_basic_block(function, "start"));

        let pointers = buffers(context, &entry, function, plan.nest.n_inputs + 1);
        let words = context.i64_type().vec_type(2);
        let zeros = built(entry.build_alloca(words, "zeros"));
        built(entry.build_store(zeros, words.const_zero()));
        let errors = function
            .get_nth_param(argument::ERRORS)
            .expect("a kernel has five parameters");
        Emitter {
            ops,
            plan,
            lanes: target.lanes(),
            has_f16: target.lanes() >= 8 || target.features().split(',').any(|f| f == "+f16c"),
            params: vec![],
            pointers,
            errors: errors.into_pointer_value(),
            zeros,
            past_caches: false,
            kept_row: None,
            function,
            entry,
            loaded: HashMap::new(),
        }
    }

    /// Ends the function; gives the expressions its `params` are the values of.
    pub fn finish(self) -> Vec<Expr> {
        built(self.ops.builder.build_return(None));
        let start = self
            .entry
            .get_insert_block()
            .and_then(|b| b.get_next_basic_block());
        built(
            self.entry
                .build_unconditional_branch(start.expect("`start` follows `entry`")),
        );
        self.params
    }

    /// The first unit to do and the one after the last.
    pub fn units(&self) -> (IntValue<'c>, IntValue<'c>) {
        let argument = |n| {
            self.function
                .get_nth_param(n)
                .expect("a kernel has five parameters")
                .into_int_value()
        };
        (argument(argument::BEGIN), argument(argument::END))
    }

    /// An argument beyond those of all kernels.
    pub fn more(&self, number: u32) -> IntValue<'c> {
        let argument = self.function.get_nth_param(argument::MORE + number);
        argument
            .expect("the function was declared with as many")
            .into_int_value()
    }

    /// Says what an expression's value is, instead of asking the host.
    pub fn bind(&mut self, expr: Expr, value: IntValue<'c>) {
        self.loaded.insert(expr, value);
    }

    /// An `i64` constant.
    pub fn int(&self, value: i64) -> IntValue<'c> {
        self.ops.context.i64_type().const_int(value as u64, true)
    }

    /// The value of an expression: an immediate or a parameter.
    pub fn expr(&mut self, expr: Expr) -> IntValue<'c> {
        if let Some(value) = expr.as_const() {
            return self.int(value);
        }
        if let Some(&value) = self.loaded.get(&expr) {
            return value;
        }
        let int = self.ops.context.i64_type();
        let params = self
            .function
            .get_nth_param(argument::PARAMS)
            .expect("a kernel has five parameters");
        let index = self.int(self.params.len() as i64);
        let at = address(&self.entry, int, params.into_pointer_value(), index);
        let value = built(self.entry.build_load(int, at, "param")).into_int_value();
        self.params.push(expr);
        self.loaded.insert(expr, value);
        value
    }

    /// A stack slot of 16 elements like those of `like`.
    pub fn slot(&self, like: V<'c>, name: &str) -> PointerValue<'c> {
        let element = like.get_type().get_element_type();
        let kind = match element {
            inkwell::types::BasicTypeEnum::FloatType(t) => t.vec_type(16),
            inkwell::types::BasicTypeEnum::IntType(t) => t.vec_type(16),
            other => unreachable!("{other} is no element of a vector"),
        };
        built(self.entry.build_alloca(kind, name))
    }

    /// A stack slot of so many bytes.
    pub fn room(&self, bytes: u32, name: &str) -> PointerValue<'c> {
        let kind = self.ops.context.i64_type().vec_type(8);
        let count = self
            .ops
            .context
            .i64_type()
            .const_int(u64::from(bytes.div_ceil(64)), false);
        built(self.entry.build_array_alloca(kind, count, name))
    }

    /// `a + b`.
    pub fn iadd(&self, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        built(self.ops.builder.build_int_add(a, b, ""))
    }

    /// `a - b`.
    pub fn isub(&self, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        built(self.ops.builder.build_int_sub(a, b, ""))
    }

    /// `a * b`.
    pub fn imul(&self, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        built(self.ops.builder.build_int_mul(a, b, ""))
    }

    /// `a & b`.
    pub fn iand(&self, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        built(self.ops.builder.build_and(a, b, ""))
    }

    /// Signed comparison.
    pub fn icmp(&self, predicate: IntPredicate, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        built(self.ops.builder.build_int_compare(predicate, a, b, ""))
    }

    /// The smaller of two.
    pub fn imin(&self, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        let less = self.icmp(IntPredicate::SLT, a, b);
        self.choose(less, a, b)
    }

    /// `if condition { a } else { b }`.
    pub fn choose(
        &self,
        condition: IntValue<'c>,
        a: IntValue<'c>,
        b: IntValue<'c>,
    ) -> IntValue<'c> {
        built(self.ops.builder.build_select(condition, a, b, "")).into_int_value()
    }

    /// Quotient and remainder of what is not negative, by what is positive.
    pub fn divide(&self, a: IntValue<'c>, b: IntValue<'c>) -> (IntValue<'c>, IntValue<'c>) {
        let quotient = built(self.ops.builder.build_int_unsigned_div(a, b, ""));
        let remainder = built(self.ops.builder.build_int_unsigned_rem(a, b, ""));
        (quotient, remainder)
    }

    /// The coordinates of row-major element `index` over `sizes`.
    pub fn unravel(&mut self, index: IntValue<'c>, sizes: &[Expr]) -> Vec<IntValue<'c>> {
        let mut coords = vec![index; sizes.len()];
        let mut rest = index;
        for dim in (1..sizes.len()).rev() {
            let size = self.expr(sizes[dim]);
            (rest, coords[dim]) = self.divide(rest, size);
        }
        if let Some(first) = coords.first_mut() {
            *first = rest;
        }
        coords
    }

    /// The row-major number of the element at `coords` over `sizes`.
    pub fn ravel(&mut self, coords: &[IntValue<'c>], sizes: &[Expr]) -> IntValue<'c> {
        let zero = self.int(0);
        coords
            .iter()
            .zip(sizes)
            .fold(zero, |number, (&coord, &size)| {
                let size = self.expr(size);
                self.iadd(self.imul(number, size), coord)
            })
    }

    /// The coordinates after `coords` in row-major order over `sizes`.
    pub fn advance(&mut self, coords: &[IntValue<'c>], sizes: &[Expr]) -> Vec<IntValue<'c>> {
        let mut next = coords.to_vec();
        let mut carry = self.int(1);
        for dim in (0..sizes.len()).rev() {
            let moved = self.iadd(coords[dim], carry);
            let size = self.expr(sizes[dim]);
            let wraps = self.icmp(IntPredicate::EQ, moved, size);
            let zero = self.int(0);
            let builder = &self.ops.builder;
            next[dim] = built(builder.build_select(wraps, zero, moved, "")).into_int_value();
            carry = built(builder.build_int_z_extend(wraps, zero.get_type(), ""));
        }
        next
    }

    /// The units of this call, with their coordinates over `sizes`, whose product is
    /// the number of units. Only the first unit's are computed by division.
    pub fn for_each_unit(
        &mut self,
        sizes: &[Expr],
        body: impl FnOnce(&mut Self, IntValue<'c>, Vec<IntValue<'c>>),
    ) {
        let (begin, end) = self.units();
        // Without units a size may be zero.
        let some = self.icmp(IntPredicate::SLT, begin, end);
        self.when(some, |e| {
            let first = e.unravel(begin, sizes);
            let first = first.iter().map(|&c| e.ops.one(c.into())).collect();
            e.repeat((begin, end, 1), first, |e, unit, carried| {
                let each = carried.iter();
                let coords: Vec<_> = each
                    .map(|&c| e.ops.extract(c, 0).into_int_value())
                    .collect();
                body(e, unit, coords.clone());
                let next = e.advance(&coords, sizes);
                next.iter().map(|&c| e.ops.one(c.into())).collect()
            });
        });
    }

    /// `for i in (start..end).step_by(step)`, with values carried from one turn to the
    /// next; gives their final values.
    pub fn repeat(
        &mut self,
        (start, end, step): (IntValue<'c>, IntValue<'c>, i64),
        carried: Vec<V<'c>>,
        body: impl FnOnce(&mut Self, IntValue<'c>, Vec<V<'c>>) -> Vec<V<'c>>,
    ) -> Vec<V<'c>> {
        let before = self.here();
        let turn = self.ops.context.append_basic_block(self.function, "loop");
        let after = self.ops.context.append_basic_block(self.function, "after");
        let any = self.icmp(IntPredicate::SLT, start, end);
        built(self.ops.builder.build_conditional_branch(any, turn, after));

        self.ops.builder.position_at_end(turn);
        let i = built(self.ops.builder.build_phi(self.ops.context.i64_type(), "i"));
        let phis: Vec<_> = carried
            .iter()
            .map(|v| built(self.ops.builder.build_phi(v.get_type(), "")))
            .collect();
        let values = phis
            .iter()
            .map(|phi| phi.as_basic_value().into_vector_value())
            .collect();
        let results = body(self, i.as_basic_value().into_int_value(), values);
        let next = self.iadd(i.as_basic_value().into_int_value(), self.int(step));
        let more = self.icmp(IntPredicate::SLT, next, end);
        let latch = self.here();
        built(self.ops.builder.build_conditional_branch(more, turn, after));
        i.add_incoming(&[(&start as &dyn BasicValue, before), (&next, latch)]);
        for ((phi, first), result) in phis.iter().zip(&carried).zip(&results) {
            phi.add_incoming(&[(first as &dyn BasicValue, before), (result, latch)]);
        }

        self.ops.builder.position_at_end(after);
        carried
            .iter()
            .zip(&results)
            .map(|(first, result)| {
                let phi = built(self.ops.builder.build_phi(first.get_type(), ""));
                phi.add_incoming(&[(first as &dyn BasicValue, before), (result, latch)]);
                phi.as_basic_value().into_vector_value()
            })
            .collect()
    }

    /// [`Emitter::repeat`] without carried values.
    pub fn for_each(
        &mut self,
        range: (IntValue<'c>, IntValue<'c>, i64),
        body: impl FnOnce(&mut Self, IntValue<'c>),
    ) {
        self.repeat(range, vec![], |e, i, _| {
            body(e, i);
            vec![]
        });
    }

    /// `if condition { body }`.
    pub fn when(&mut self, condition: IntValue<'c>, body: impl FnOnce(&mut Self)) {
        let then = self.ops.context.append_basic_block(self.function, "then");
        let after = self.ops.context.append_basic_block(self.function, "after");
        built(
            self.ops
                .builder
                .build_conditional_branch(condition, then, after),
        );
        self.ops.builder.position_at_end(then);
        body(self);
        built(self.ops.builder.build_unconditional_branch(after));
        self.ops.builder.position_at_end(after);
    }

    fn here(&self) -> inkwell::basic_block::BasicBlock<'c> {
        self.ops
            .builder
            .get_insert_block()
            .expect("the builder has a position")
    }
}

/// Loads the first `count` entries of the pointer table.
fn buffers<'c>(
    context: &'c Context,
    entry: &Builder<'c>,
    function: FunctionValue<'c>,
    count: usize,
) -> Vec<PointerValue<'c>> {
    let (pointer, int) = (
        context.ptr_type(AddressSpace::default()),
        context.i64_type(),
    );
    let table = function
        .get_nth_param(argument::POINTERS)
        .expect("a kernel has five parameters")
        .into_pointer_value();
    let load = |i| {
        let index = int.const_int(i as u64, false);
        let at = address(entry, pointer, table, index);
        built(entry.build_load(pointer, at, "buffer")).into_pointer_value()
    };
    (0..count).map(load).collect()
}
