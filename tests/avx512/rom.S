# The 64 KiB ROM that the emulator starts from in place of a BIOS.
#
#   reset vector -> 32-bit mode -> 64-bit mode with AVX-512 state on
#   -> one call described by the words at DESCRIPTOR -> the output bytes on port 0xe9 -> power off
#
# DESCRIPTOR (the first bytes of the image, see mod.rs):
#   9 x u64: entry point, six integer arguments, output address, output length
#   u32 at byte 128: number of bytes in the image
#
# There is no interrupt table on purpose: an instruction that the CPU model does not have ends in a
# triple fault, which stops the emulator with a log line instead of a wrong result.

.set DESCRIPTOR, 0x100000
.set STACK_TOP,  0x80000
.set ROM_BASE,   0xf0000
.set PAGE_MAPS,  0x1000             # PML4, then the PDPT, then four page directories

.code16
.globl _start
.section .text
.org 0
reset:
  cli
  cld
  lgdtl %cs:gdt_pointer
  movl %cr0, %eax
  orl $1, %eax                      # PE
  movl %eax, %cr0
  ljmpl $0x08, $(ROM_BASE + protected)

.code32
protected:
  movw $0x10, %ax
  movw %ax, %ds
  movw %ax, %es
  movw %ax, %ss
  movl $0x9000, %esp
  inb $0x92, %al                    # A20 on
  orb $2, %al
  outb %al, $0x92

  # The emulator hands out RAM in 128 KiB blocks on first touch, but it reads the image into host
  # memory in one piece: the image's blocks must be touched first, in ascending order.
  movl $DESCRIPTOR, %esi
  movl DESCRIPTOR + 128, %ecx
touch:
  movl (%esi), %eax
  addl $0x10000, %esi
  subl $0x10000, %ecx
  ja touch

  # Identity map of the first 4 GiB in pages of 2 MiB.
  movl $PAGE_MAPS, %edi
  xorl %eax, %eax
  movl $0x1800, %ecx
  rep stosl
  movl $0x2003, PAGE_MAPS
  movl $0x3003, PAGE_MAPS + 0x1000
  movl $0x4003, PAGE_MAPS + 0x1008
  movl $0x5003, PAGE_MAPS + 0x1010
  movl $0x6003, PAGE_MAPS + 0x1018
  movl $PAGE_MAPS + 0x2000, %edi
  movl $0x83, %eax                  # present, writable, 2 MiB
  movl $2048, %ecx
map:
  movl %eax, (%edi)
  movl $0, 4(%edi)
  addl $0x200000, %eax
  addl $8, %edi
  loop map

  movl %cr4, %eax
  orl $0x40620, %eax                # PAE, OSFXSR, OSXMMEXCPT, OSXSAVE
  movl %eax, %cr4
  movl $PAGE_MAPS, %eax
  movl %eax, %cr3
  movl $0xc0000080, %ecx            # EFER
  rdmsr
  orl $0x100, %eax                  # LME
  wrmsr
  movl %cr0, %eax
  andl $0xfffffff3, %eax            # EM and TS off
  orl $0x80000003, %eax             # PG, MP, PE
  movl %eax, %cr0
  ljmp $0x18, $(ROM_BASE + long_mode)

.code64
long_mode:
  fninit                            # after reset the x87 unit rounds to single and traps
  xorl %ecx, %ecx
  xorl %edx, %edx
  movl $0xe7, %eax                  # x87, SSE, AVX, opmask, ZMM_Hi256, Hi16_ZMM
  xsetbv
  movl $DESCRIPTOR, %ebx
  movl $STACK_TOP, %esp
  movq 8(%rbx), %rdi
  movq 16(%rbx), %rsi
  movq 24(%rbx), %rdx
  movq 32(%rbx), %rcx
  movq 40(%rbx), %r8
  movq 48(%rbx), %r9
  call *(%rbx)

  movl $DESCRIPTOR, %ebx
  movq 56(%rbx), %rsi
  movq 64(%rbx), %rcx
  leaq begin_mark(%rip), %rdi
  call print
  movw $0xe9, %dx
byte:
  testq %rcx, %rcx
  jz done
  movb (%rsi), %al
  outb %al, %dx
  incq %rsi
  decq %rcx
  jmp byte
done:
  leaq end_mark(%rip), %rdi
  call print
  leaq power_off(%rip), %rsi
  movw $0x8900, %dx
  movl $8, %ecx
off:
  movb (%rsi), %al
  outb %al, %dx
  incq %rsi
  loop off
halt:
  hlt
  jmp halt

# Writes the zero-terminated string at rdi to the debug port.
print:
  movw $0xe9, %dx
1:
  movb (%rdi), %al
  testb %al, %al
  jz 2f
  outb %al, %dx
  incq %rdi
  jmp 1b
2:
  ret

begin_mark: .asciz "\n@@BEGIN@@"
end_mark:   .asciz "@@END@@\n"
power_off:  .ascii "Shutdown"

.balign 16
gdt:
  .quad 0
  .quad 0x00cf9a000000ffff          # 0x08: 32-bit code
  .quad 0x00cf92000000ffff          # 0x10: data
  .quad 0x00af9a000000ffff          # 0x18: 64-bit code
gdt_pointer:
  .word 31
  .long ROM_BASE + gdt

.org 0xfff0
.code16
  ljmp $0xf000, $reset
.org 0xffff
  .byte 0
