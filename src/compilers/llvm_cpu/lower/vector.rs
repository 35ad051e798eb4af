//! A thin layer over the LLVM builder in which every value is a vector.
//!
//! A scalar is a vector of one lane, so each operation exists once; LLVM turns
//! one-lane vectors into plain scalars. Operations take operands of equal lane
//! counts and give a vector of the same count. No operation carries fast-math
//! flags: what is written is what is computed.

use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::builder::{Builder, BuilderError};
use inkwell::context::Context;
use inkwell::intrinsics::Intrinsic;
use inkwell::module::Module;
use inkwell::types::{BasicType, BasicTypeEnum, IntType, VectorType};
use inkwell::values::{
    BasicMetadataValueEnum, BasicValue, BasicValueEnum, IntValue, PointerValue, VectorValue,
};
use inkwell::{AddressSpace, AtomicOrdering, FloatPredicate, IntPredicate};

/// A vector value; scalars have one lane.
pub type V<'c> = VectorValue<'c>;

/// Builds vector instructions at the builder's position.
pub struct Ops<'a, 'c> {
    /// Owner of all types and constants.
    pub context: &'c Context,
    /// Where intrinsics are declared.
    pub module: &'a Module<'c>,
    /// Where instructions go.
    pub builder: Builder<'c>,
    /// Whether the target scales 16 floats by powers of two in one instruction.
    pub has_scale: bool,
    /// Whether the target permutes 8 floats by the lanes of another vector.
    pub has_permute: bool,
}

/// The builder's errors are misuse of its interface (no position, operands of
/// unequal types), which the code generator rules out.
pub fn built<T>(result: Result<T, BuilderError>) -> T {
    result.expect("the builder has a position and the operands have equal types")
}

macro_rules! binary {
    ($($name:ident = $build:ident;)*) => {$(
        #[doc = concat!("The instruction of `", stringify!($build), "`, lane by lane.")]
        pub fn $name(&self, a: V<'c>, b: V<'c>) -> V<'c> {
            built(self.builder.$build(a, b, ""))
        }
    )*};
}

impl<'c> Ops<'_, 'c> {
    binary! {
        fadd = build_float_add;
        fsub = build_float_sub;
        fmul = build_float_mul;
        fdiv = build_float_div;
        frem = build_float_rem;
        add = build_int_add;
        sub = build_int_sub;
        mul = build_int_mul;
        udiv = build_int_unsigned_div;
        urem = build_int_unsigned_rem;
        srem = build_int_signed_rem;
        and = build_and;
        or = build_or;
        xor = build_xor;
        shl = build_left_shift;
    }

    /// Logical shift to the right.
    pub fn lshr(&self, a: V<'c>, b: V<'c>) -> V<'c> {
        built(self.builder.build_right_shift(a, b, false, ""))
    }

    /// Arithmetic shift to the right.
    pub fn ashr(&self, a: V<'c>, b: V<'c>) -> V<'c> {
        built(self.builder.build_right_shift(a, b, true, ""))
    }

    /// Comparison of integers, to lanes of `i1`.
    pub fn icmp(&self, predicate: IntPredicate, a: V<'c>, b: V<'c>) -> V<'c> {
        built(self.builder.build_int_compare(predicate, a, b, ""))
    }

    /// Comparison of floats, to lanes of `i1`.
    pub fn fcmp(&self, predicate: FloatPredicate, a: V<'c>, b: V<'c>) -> V<'c> {
        built(self.builder.build_float_compare(predicate, a, b, ""))
    }

    /// `then` where `condition` holds, `otherwise` elsewhere.
    pub fn select(&self, condition: V<'c>, then: V<'c>, otherwise: V<'c>) -> V<'c> {
        built(self.builder.build_select(condition, then, otherwise, "")).into_vector_value()
    }

    /// Negation of `i1` lanes.
    pub fn not(&self, a: V<'c>) -> V<'c> {
        built(self.builder.build_not(a, ""))
    }

    /// `a * b + c`, rounded once.
    pub fn fma(&self, a: V<'c>, b: V<'c>, c: V<'c>) -> V<'c> {
        self.intrinsic("llvm.fma", &[a.get_type().into()], &[a, b, c])
    }

    /// The correctly rounded square root.
    pub fn sqrt(&self, a: V<'c>) -> V<'c> {
        self.intrinsic("llvm.sqrt", &[a.get_type().into()], &[a])
    }

    /// The magnitude.
    pub fn fabs(&self, a: V<'c>) -> V<'c> {
        self.intrinsic("llvm.fabs", &[a.get_type().into()], &[a])
    }

    /// The magnitude of `a` with the sign of `b`.
    pub fn copysign(&self, a: V<'c>, b: V<'c>) -> V<'c> {
        self.intrinsic("llvm.copysign", &[a.get_type().into()], &[a, b])
    }

    /// Rounding towards zero, to an integral float.
    pub fn ftrunc(&self, a: V<'c>) -> V<'c> {
        self.intrinsic("llvm.trunc", &[a.get_type().into()], &[a])
    }

    /// Float to `i32`: towards zero, saturating, zero for NaN.
    pub fn to_i32(&self, a: V<'c>) -> V<'c> {
        let to = self.i32s(lanes(a));
        self.intrinsic("llvm.fptosi.sat", &[to.into(), a.get_type().into()], &[a])
    }

    /// Signed integer to float, rounded to nearest even.
    pub fn to_float(&self, a: V<'c>, to: VectorType<'c>) -> V<'c> {
        built(self.builder.build_signed_int_to_float(a, to, ""))
    }

    /// The same bits as another type of equal size.
    pub fn bits(&self, a: V<'c>, to: VectorType<'c>) -> V<'c> {
        built(self.builder.build_bit_cast(a, to, "")).into_vector_value()
    }

    /// To a wider integer, with the sign.
    pub fn sext(&self, a: V<'c>, to: VectorType<'c>) -> V<'c> {
        built(self.builder.build_int_s_extend(a, to, ""))
    }

    /// To a wider integer, with zeros.
    pub fn zext(&self, a: V<'c>, to: VectorType<'c>) -> V<'c> {
        built(self.builder.build_int_z_extend(a, to, ""))
    }

    /// To a narrower integer.
    pub fn trunc(&self, a: V<'c>, to: VectorType<'c>) -> V<'c> {
        built(self.builder.build_int_truncate(a, to, ""))
    }

    /// To a narrower float, rounded to nearest even.
    pub fn fptrunc(&self, a: V<'c>, to: VectorType<'c>) -> V<'c> {
        built(self.builder.build_float_trunc(a, to, ""))
    }

    /// To a wider float, exactly.
    pub fn fpext(&self, a: V<'c>, to: VectorType<'c>) -> V<'c> {
        built(self.builder.build_float_ext(a, to, ""))
    }

    /// Vectors of `f32`.
    pub fn f32s(&self, lanes: u32) -> VectorType<'c> {
        self.context.f32_type().vec_type(lanes)
    }

    /// Vectors of `f64`.
    pub fn f64s(&self, lanes: u32) -> VectorType<'c> {
        self.context.f64_type().vec_type(lanes)
    }

    /// Vectors of `i1`.
    pub fn i1s(&self, lanes: u32) -> VectorType<'c> {
        self.context.bool_type().vec_type(lanes)
    }

    /// Vectors of `i8`.
    pub fn i8s(&self, lanes: u32) -> VectorType<'c> {
        self.context.i8_type().vec_type(lanes)
    }

    /// Vectors of `i16`.
    pub fn i16s(&self, lanes: u32) -> VectorType<'c> {
        self.context.i16_type().vec_type(lanes)
    }

    /// Vectors of `i32`.
    pub fn i32s(&self, lanes: u32) -> VectorType<'c> {
        self.context.i32_type().vec_type(lanes)
    }

    /// Vectors of `i64`.
    pub fn i64s(&self, lanes: u32) -> VectorType<'c> {
        self.context.i64_type().vec_type(lanes)
    }

    /// `value` in every lane, as `f32`.
    pub fn f32(&self, lanes: u32, value: f32) -> V<'c> {
        let bits = self.i32(lanes, value.to_bits() as i32);
        self.bits(bits, self.f32s(lanes))
    }

    /// `value` in every lane, as `f64`.
    pub fn f64(&self, lanes: u32, value: f64) -> V<'c> {
        let bits = self.i64(lanes, value.to_bits() as i64);
        self.bits(bits, self.f64s(lanes))
    }

    /// `value` in every lane, as `i32`.
    pub fn i32(&self, lanes: u32, value: i32) -> V<'c> {
        self.int(self.context.i32_type(), lanes, i64::from(value))
    }

    /// `value` in every lane, as `i64`.
    pub fn i64(&self, lanes: u32, value: i64) -> V<'c> {
        self.int(self.context.i64_type(), lanes, value)
    }

    /// `value` in every lane, as `i1`.
    pub fn i1(&self, lanes: u32, value: bool) -> V<'c> {
        self.int(self.context.bool_type(), lanes, i64::from(value))
    }

    fn int(&self, kind: IntType<'c>, lanes: u32, value: i64) -> V<'c> {
        let value = kind.const_int(value as u64, true);
        VectorType::const_vector(&vec![value; lanes as usize])
    }

    /// `0, 1, 2, ...` as `i64`.
    pub fn iota(&self, lanes: u32) -> V<'c> {
        let kind = self.context.i64_type();
        let values: Vec<_> = (0..lanes)
            .map(|i| kind.const_int(u64::from(i), false))
            .collect();
        VectorType::const_vector(&values)
    }

    /// A scalar as a vector of one lane.
    pub fn one(&self, value: BasicValueEnum<'c>) -> V<'c> {
        let kind = match value {
            BasicValueEnum::IntValue(v) => v.get_type().vec_type(1),
            BasicValueEnum::FloatValue(v) => v.get_type().vec_type(1),
            other => unreachable!("{other} is no element of a vector"),
        };
        self.insert(kind.get_poison(), value, 0)
    }

    /// `vector` with lane `lane` replaced.
    pub fn insert(&self, vector: V<'c>, value: BasicValueEnum<'c>, lane: u32) -> V<'c> {
        let lane = self.context.i32_type().const_int(u64::from(lane), false);
        built(self.builder.build_insert_element(vector, value, lane, ""))
    }

    /// One lane as a scalar.
    pub fn extract(&self, vector: V<'c>, lane: u32) -> BasicValueEnum<'c> {
        let lane = self.context.i32_type().const_int(u64::from(lane), false);
        built(self.builder.build_extract_element(vector, lane, ""))
    }

    /// A one-lane vector in every one of `lanes` lanes.
    pub fn splat(&self, one: V<'c>, lanes: u32) -> V<'c> {
        if lanes == 1 {
            one
        } else {
            self.shuffle(one, one, &vec![0; lanes as usize])
        }
    }

    /// An integer scalar in every lane.
    pub fn splat_int(&self, value: IntValue<'c>, lanes: u32) -> V<'c> {
        self.splat(self.one(value.into()), lanes)
    }

    /// Lanes of `a` followed by `b`, chosen by number.
    pub fn shuffle(&self, a: V<'c>, b: V<'c>, order: &[u32]) -> V<'c> {
        let kind = self.context.i32_type();
        let order: Vec<_> = order
            .iter()
            .map(|&i| kind.const_int(u64::from(i), false))
            .collect();
        built(
            self.builder
                .build_shuffle_vector(a, b, VectorType::const_vector(&order), ""),
        )
    }

    /// Calls an overloaded intrinsic that returns a vector.
    pub fn intrinsic(&self, name: &str, overload: &[BasicTypeEnum<'c>], args: &[V<'c>]) -> V<'c> {
        let args: Vec<_> = args.iter().map(|&v| v.into()).collect();
        self.call(name, overload, &args, None)
            .expect("the intrinsic returns a value")
            .into_vector_value()
    }

    /// `a * 2^floor(b)` of 16 `f32` lanes, rounded once; only where [`Ops::has_scale`] holds.
    pub fn scale(&self, a: V<'c>, b: V<'c>) -> V<'c> {
        let all = self.context.i16_type().const_all_ones();
        // Rounding as the environment says: to nearest even.
        let current = self.context.i32_type().const_int(4, false);
        let args = [a.into(), b.into(), a.into(), all.into(), current.into()];
        self.call("llvm.x86.avx512.mask.scalef.ps.512", &[], &args, None)
            .expect("the intrinsic returns a value")
            .into_vector_value()
    }

    /// Asks for the cache line at `at` to be brought into the second cache; any address is allowed.
    pub fn prefetch(&self, at: PointerValue<'c>) {
        let int = |value| self.context.i32_type().const_int(value, false);
        let (read, second, data) = (int(0), int(2), int(1));
        let overload = [at.get_type().into()];
        let args = [at.into(), read.into(), second.into(), data.into()];
        self.call("llvm.prefetch", &overload, &args, None);
    }

    /// Whether any of some `i1` lanes holds.
    pub fn any(&self, mask: V<'c>) -> IntValue<'c> {
        if lanes(mask) == 1 {
            return self.extract(mask, 0).into_int_value();
        }
        self.call(
            "llvm.vector.reduce.or",
            &[mask.get_type().into()],
            &[mask.into()],
            None,
        )
        .expect("the intrinsic returns a value")
        .into_int_value()
    }

    /// Loads the lanes of `mask` from consecutive elements; the others are zero and
    /// their memory is not touched.
    pub fn load_masked(
        &self,
        kind: VectorType<'c>,
        at: PointerValue<'c>,
        mask: V<'c>,
        align: u32,
    ) -> V<'c> {
        let ptr = self.context.ptr_type(AddressSpace::default());
        let zero = kind.const_zero();
        self.call(
            "llvm.masked.load",
            &[kind.into(), ptr.into()],
            &[at.into(), mask.into(), zero.into()],
            Some((0, align)),
        )
        .expect("the intrinsic returns a value")
        .into_vector_value()
    }

    /// Stores the lanes of `mask` to consecutive elements.
    pub fn store_masked(&self, value: V<'c>, at: PointerValue<'c>, mask: V<'c>, align: u32) {
        let ptr = self.context.ptr_type(AddressSpace::default());
        let overload = [value.get_type().into(), ptr.into()];
        let args = [value.into(), at.into(), mask.into()];
        self.call("llvm.masked.store", &overload, &args, Some((1, align)));
    }

    /// Loads the lanes of `mask` from the addresses `at` (`i64` lanes); the others are
    /// zero and their memory is not touched.
    pub fn gather(&self, kind: VectorType<'c>, at: V<'c>, mask: V<'c>, align: u32) -> V<'c> {
        let pointers = self
            .context
            .ptr_type(AddressSpace::default())
            .vec_type(lanes(at));
        let at = built(self.builder.build_int_to_ptr(at, pointers, ""));
        let zero = kind.const_zero();
        self.call(
            "llvm.masked.gather",
            &[kind.into(), pointers.into()],
            &[at.into(), mask.into(), zero.into()],
            Some((0, align)),
        )
        .expect("the intrinsic returns a value")
        .into_vector_value()
    }

    /// Calls an intrinsic. `align` is the position of a pointer among `args` and its
    /// alignment: newer versions of LLVM take it as an attribute, older ones as the
    /// argument after the pointer.
    fn call(
        &self,
        name: &str,
        overload: &[BasicTypeEnum<'c>],
        args: &[BasicMetadataValueEnum<'c>],
        align: Option<(u32, u32)>,
    ) -> Option<BasicValueEnum<'c>> {
        let function = Intrinsic::find(name)
            .and_then(|intrinsic| intrinsic.get_declaration(self.module, overload))
            .unwrap_or_else(|| panic!("LLVM has no intrinsic {name}"));
        let mut args = args.to_vec();
        let as_argument = function.count_params() as usize > args.len();
        if let Some((position, align)) = align
            && as_argument
        {
            let align = self.context.i32_type().const_int(u64::from(align), false);
            args.insert(position as usize + 1, align.into());
        }
        let call = built(self.builder.build_call(function, &args, ""));
        if let Some((position, align)) = align
            && !as_argument
        {
            let kind = Attribute::get_named_enum_kind_id("align");
            let align = self.context.create_enum_attribute(kind, u64::from(align));
            call.add_attribute(AttributeLoc::Param(position), align);
        }
        call.try_as_basic_value().basic()
    }

    /// The address of element `index` of an array of `kind`.
    pub fn element<T: BasicType<'c>>(
        &self,
        kind: T,
        base: PointerValue<'c>,
        index: IntValue<'c>,
    ) -> PointerValue<'c> {
        address(&self.builder, kind, base, index)
    }

    /// An unaligned load: `align` bytes are promised, fewer than the vector's size.
    pub fn load<T: BasicType<'c>>(
        &self,
        kind: T,
        at: PointerValue<'c>,
        align: u32,
    ) -> BasicValueEnum<'c> {
        let value = built(self.builder.build_load(kind, at, ""));
        value
            .as_instruction_value()
            .expect("a load is an instruction")
            .set_alignment(align)
            .expect("element sizes are powers of two");
        value
    }

    /// An unaligned store.
    pub fn store(&self, value: BasicValueEnum<'c>, at: PointerValue<'c>, align: u32) {
        built(self.builder.build_store(at, value))
            .set_alignment(align)
            .expect("element sizes are powers of two");
    }

    /// Stores a whole word that other threads may store to at the same time.
    pub fn store_atomic(&self, value: IntValue<'c>, at: PointerValue<'c>) {
        let store = built(self.builder.build_store(at, value));
        store.set_alignment(8).expect("8 is a power of two");
        store
            .set_atomic_ordering(AtomicOrdering::Monotonic)
            .expect("a store can be monotonic");
    }
}

impl<'c> Ops<'_, 'c> {
    /// A store past the caches, of a vector to where it is aligned to its size or to 64 bytes.
    pub fn store_past_caches(&self, value: V<'c>, at: PointerValue<'c>, align: u32) {
        let store = built(self.builder.build_store(at, value));
        store
            .set_alignment(align)
            .expect("vector sizes are powers of two");
        let one = self.context.i32_type().const_int(1, false);
        let node = self.context.metadata_node(&[one.into()]);
        store
            .set_metadata(node, self.context.get_kind_id("nontemporal"))
            .expect("the node has one operand");
    }

    /// Makes stores past the caches visible to other threads before what follows.
    pub fn store_fence(&self) {
        self.call("llvm.x86.sse.sfence", &[], &[], None);
    }
}

/// The number of lanes of a vector.
pub fn lanes(v: V<'_>) -> u32 {
    v.get_type().get_size()
}

/// The address of element `index` of an array of `kind`.
pub fn address<'c, T: BasicType<'c>>(
    builder: &Builder<'c>,
    kind: T,
    base: PointerValue<'c>,
    index: IntValue<'c>,
) -> PointerValue<'c> {
    // SAFETY: building an address computation touches no memory; there is one index,
    // as a pointer to elements needs. That only valid addresses are read in the end is
    // the business of the bounds, masks and selects around them.
    built(unsafe { builder.build_gep(kind, base, &[index], "") })
}
