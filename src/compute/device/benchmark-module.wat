;; What a processor is measured with, as plain WebAssembly and as a strict job: xorshift64* (Vigna 2014) over a table of 32 KiB, eight million
;; steps a segment; every step loads, mixes and stores, so that neither arithmetic nor memory alone decides.
(module
  (memory 2)
  (global $state (mut i64) (i64.const 88172645463325252))

  (func (export "allocate") (param i32) (result i32) (i32.const 65536))
  (func (export "begin") (param i32 i32 i32))
  (func (export "output") (result i64) (i64.const 8))

  (func (export "segment") (param i32)
    (local $x i64)
    (local $at i32)
    (local $left i32)
    (local.set $x (global.get $state))
    (local.set $left (i32.const 8000000))
    (loop $step
      (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 12))))
      (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 25))))
      (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 27))))
      (local.set $at (i32.and (i32.wrap_i64 (local.get $x)) (i32.const 32760)))
      (i64.store (local.get $at)
        (i64.add (i64.load (local.get $at)) (i64.mul (local.get $x) (i64.const 2685821657736338717))))
      (br_if $step (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (global.set $state (local.get $x))))
