# What a compiled kernel may call on a machine without an operating system, and the entry point that
# the ROM jumps to. Everything is weak: an object that brings its own definition keeps it.

.section .text.entry, "ax"
  jmp kernel_entry                  # the linker sets kernel_entry to the symbol under test

.text
.weak memcpy, memmove, memset, memcmp, bzero, fma, fmaf, fmod, fmodf

# void *memcpy(void *to, const void *from, size_t n), overlap allowed in both names
memcpy:
memmove:
  movq %rdi, %rax
  movq %rdx, %rcx
  movq %rdi, %r8
  subq %rsi, %r8
  cmpq %rdx, %r8                    # to - from < n (unsigned): copy from the end
  jb 1f
  rep movsb
  ret
1:
  leaq -1(%rdi, %rdx), %rdi
  leaq -1(%rsi, %rdx), %rsi
  std
  rep movsb
  cld
  ret

# void *memset(void *to, int byte, size_t n)
memset:
  movq %rdi, %r8
  movl %esi, %eax
  movq %rdx, %rcx
  rep stosb
  movq %r8, %rax
  ret

# void bzero(void *to, size_t n)
bzero:
  movq %rsi, %rcx
  xorl %eax, %eax
  rep stosb
  ret

# int memcmp(const void *a, const void *b, size_t n)
memcmp:
  xorl %eax, %eax
  movq %rdx, %rcx
  testq %rcx, %rcx
  jz 1f
  repe cmpsb
  je 1f
  movzbl -1(%rdi), %eax
  movzbl -1(%rsi), %ecx
  subl %ecx, %eax
1:
  ret

# fma(a, b, c) = a * b + c, rounded once
fma:
  vfmadd213sd %xmm2, %xmm1, %xmm0
  ret
fmaf:
  vfmadd213ss %xmm2, %xmm1, %xmm0
  ret

# fmod(a, b): the x87 remainder is exact, so no rounding happens on the way back
fmod:
  movsd %xmm0, -8(%rsp)
  movsd %xmm1, -16(%rsp)
  fldl -16(%rsp)
  fldl -8(%rsp)
1:
  fprem
  fnstsw %ax
  testb $4, %ah                     # C2: the reduction is not complete
  jnz 1b
  fstpl -8(%rsp)
  fstp %st(0)
  movsd -8(%rsp), %xmm0
  ret
fmodf:
  movss %xmm0, -4(%rsp)
  movss %xmm1, -8(%rsp)
  flds -8(%rsp)
  flds -4(%rsp)
1:
  fprem
  fnstsw %ax
  testb $4, %ah
  jnz 1b
  fstps -4(%rsp)
  fstp %st(0)
  movss -4(%rsp), %xmm0
  ret

.section .note.GNU-stack, "", @progbits
