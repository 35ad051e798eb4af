//! Tests of the AVX-512 emulator harness itself, with kernels written in assembly.
//!
//! Each kernel is small enough that its result is known without another implementation, so these
//! tests fail when the harness (not a code generator) is wrong.

mod avx512;

use avx512::{Arg, CpuModel, Emulator, assemble};

/// `out[i] = a[i] * b[i] + out[i]` for 16 floats: `fn(out, a, b)`.
const FMA: &str = "
.globl fma16
fma16:
  vmovups (%rdi), %zmm0
  vmovups (%rsi), %zmm1
  vfmadd231ps (%rdx), %zmm1, %zmm0
  vmovups %zmm0, (%rdi)
  vzeroupper
  ret
";

/// A kernel with the crate's native ABI, `fn(ptrs, params, begin, end, errors)`:
/// `ptrs[0][i] = ptrs[1][i] * ptrs[2][i]` for `i` in `begin..end` under a mask of up to 16 lanes,
/// then `errors[0] = params[1]`.
const NATIVE: &str = "
.globl product
product:
  movq (%rdi), %r9
  movq 8(%rdi), %r10
  movq 16(%rdi), %r11
  subq %rdx, %rcx
  movl $1, %eax
  shll %cl, %eax
  decl %eax
  kmovw %eax, %k1
  vmovups (%r10,%rdx,4), %zmm0{%k1}{z}
  vmulps (%r11,%rdx,4), %zmm0, %zmm0{%k1}{z}
  vmovups %zmm0, (%r9,%rdx,4){%k1}
  movq 8(%rsi), %rax
  movq %rax, (%r8)
  vzeroupper
  ret
";

fn bytes<T: bytemuck::NoUninit>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

fn values<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Vec<T> {
    bytes
        .chunks_exact(size_of::<T>())
        .map(bytemuck::pod_read_unaligned)
        .collect()
}

fn ramp(n: usize, start: f32) -> Vec<f32> {
    (0..n).map(|i| start + i as f32).collect()
}

#[test]
fn zmm_fma_on_both_models() {
    let Some(emulator) = Emulator::for_test("zmm_fma_on_both_models") else {
        return;
    };
    let object = assemble(FMA).unwrap();
    let (a, b, out) = (ramp(16, 1.0), ramp(16, -7.5), ramp(16, 100.0));
    let expected: Vec<f32> = (0..16).map(|i| a[i].mul_add(b[i], out[i])).collect();
    let buffers = [("a", bytes(&a)), ("b", bytes(&b)), ("out", bytes(&out))];
    let args = [Arg::Buffer("out"), Arg::Buffer("a"), Arg::Buffer("b")];
    for cpu in CpuModel::ALL {
        let got = emulator
            .run(&object, "fma16", &args, &buffers, "out", cpu)
            .unwrap();
        assert_eq!(values::<f32>(&got), expected, "{cpu:?}");
    }
}

#[test]
fn native_abi_with_a_pointer_table_and_two_outputs() {
    let Some(emulator) = Emulator::for_test("native_abi_with_a_pointer_table_and_two_outputs")
    else {
        return;
    };
    let object = assemble(NATIVE).unwrap();
    let (a, b) = (ramp(32, 1.0), ramp(32, 2.0));
    let (begin, end) = (5, 14);
    let expected: Vec<f32> = (0..32)
        .map(|i| {
            if (begin..end).contains(&i) {
                a[i] * b[i]
            } else {
                -1.0
            }
        })
        .collect();
    let buffers = [
        ("out", bytes(&[-1.0f32; 32])),
        ("a", bytes(&a)),
        ("b", bytes(&b)),
        ("params", bytes(&[7i64, 1234])),
        ("errors", bytes(&[0i64])),
    ];
    let args = [
        Arg::PointerTable(&["out", "a", "b"]),
        Arg::Buffer("params"),
        Arg::Int(begin as i64),
        Arg::Int(end as i64),
        Arg::Buffer("errors"),
    ];
    for cpu in CpuModel::ALL {
        let got = emulator
            .run_outputs(&object, "product", &args, &buffers, &["errors", "out"], cpu)
            .unwrap();
        assert_eq!(values::<i64>(&got[0]), [1234], "{cpu:?}");
        assert_eq!(values::<f32>(&got[1]), expected, "{cpu:?}");
    }
}

#[test]
fn runtime_functions_do_what_c_says() {
    let Some(emulator) = Emulator::for_test("runtime_functions_do_what_c_says") else {
        return;
    };
    // fn(p): memset(p, 9, 4); memmove(p + 10, p + 8, 6); p[16..20] = fmodf(p[16..20], p[20..24])
    let object = assemble(
        "
.globl calls
calls:
  pushq %rbx
  movq %rdi, %rbx
  movl $9, %esi
  movl $4, %edx
  call memset@PLT
  leaq 10(%rbx), %rdi
  leaq 8(%rbx), %rsi
  movl $6, %edx
  call *memmove@GOTPCREL(%rip)
  movss 16(%rbx), %xmm0
  movss 20(%rbx), %xmm1
  call fmodf@PLT
  movss %xmm0, 16(%rbx)
  popq %rbx
  ret
",
    )
    .unwrap();
    let mut memory: Vec<u8> = (0..16).collect();
    memory.extend(bytes(&[-1e9f32, 0.7]));
    let got = emulator
        .run(
            &object,
            "calls",
            &[Arg::Buffer("p")],
            &[("p", memory)],
            "p",
            CpuModel::SkylakeX,
        )
        .unwrap();
    assert_eq!(
        got[..16],
        [9, 9, 9, 9, 4, 5, 6, 7, 8, 9, 8, 9, 10, 11, 12, 13]
    );
    assert_eq!(values::<f32>(&got[16..20]), [-1e9f32 % 0.7]);
}

#[test]
fn a_missing_instruction_set_is_an_error() {
    let Some(emulator) = Emulator::for_test("a_missing_instruction_set_is_an_error") else {
        return;
    };
    let object = assemble(
        ".globl count\ncount:\n  vpopcntq (%rdi), %zmm0\n  vmovups %zmm0, (%rdi)\n  ret\n",
    )
    .unwrap();
    let buffers = [("p", bytes(&[u64::MAX, 1, 0, 3, 7, 15, 31, 63]))];
    let run = |cpu| emulator.run(&object, "count", &[Arg::Buffer("p")], &buffers, "p", cpu);
    assert_eq!(
        values::<u64>(&run(CpuModel::TigerLake).unwrap()),
        [64, 1, 0, 2, 3, 4, 5, 6]
    );
    let message = run(CpuModel::SkylakeX).unwrap_err();
    assert!(message.starts_with("the guest died"), "{message}");
}

#[test]
fn wrong_requests_are_errors_that_name_the_part() {
    let Some(emulator) = Emulator::for_test("wrong_requests_are_errors_that_name_the_part") else {
        return;
    };
    let object = assemble(".globl nothing\nnothing:\n  ret\n").unwrap();
    let buffers = [("p", vec![0u8; 8])];
    let run = |symbol, args: &[Arg], output| {
        emulator
            .run(&object, symbol, args, &buffers, output, CpuModel::SkylakeX)
            .unwrap_err()
    };
    assert!(run("absent", &[], "p").contains("absent"));
    assert!(run("nothing", &[Arg::Buffer("q")], "p").contains("`q`"));
    assert!(run("nothing", &[], "r").contains("`r`"));
    assert!(run("nothing", &[Arg::Int(0); 7], "p").contains("7 arguments"));
}
