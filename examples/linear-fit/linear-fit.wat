;; Fits a line (a plane, in more dimensions) by gradient descent, one pass over the data a segment: training whose every pass can be run again by
;; anybody, to the last bit. A strict job: nothing is imported. Input: one file of rows, each of float32 (little end first): the features, then the
;; value; the number of features is the first byte of the second argument ("3": three). Output: the weights, then the offset, as float32.
(module
  (memory 1)
  (global $free (mut i32) (i32.const 65536))
  (global $features (mut i32) (i32.const 1))
  (global $rows (mut i32) (i32.const 0)) ;; where the rows begin
  (global $end (mut i32) (i32.const 0)) ;; where they end
  (global $rate f32 (f32.const 0.05))
  ;; Weights and offset lie at 1024.
  (global $weights i32 (i32.const 1024))

  (func (export "allocate") (param $bytes i32) (result i32)
    (local $pointer i32)
    (local.set $pointer (global.get $free))
    (global.set $free (i32.add (local.get $pointer) (local.get $bytes)))
    (local.get $pointer))

  ;; Behind a string that has its length in front.
  (func $skip (param $at i32) (result i32)
    (i32.add (i32.add (local.get $at) (i32.const 4)) (i32.load (local.get $at))))

  ;; Arguments, seed, files; lists with their count, strings with their length in front.
  (func (export "begin") (param $at i32) (param $bytes i32) (param $segments i32)
    (local $second i32)
    (if (i32.ne (i32.load (local.get $at)) (i32.const 2)) (then (unreachable)))
    (local.set $second (call $skip (i32.add (local.get $at) (i32.const 4))))
    (global.set $features (i32.sub (i32.load8_u offset=4 (local.get $second)) (i32.const 48)))
    (if (i32.gt_u (i32.sub (global.get $features) (i32.const 1)) (i32.const 8)) (then (unreachable)))
    ;; The seed, the count of files, the path.
    (local.set $at (i32.add (call $skip (call $skip (local.get $second))) (i32.const 4)))
    (local.set $at (call $skip (local.get $at)))
    (global.set $rows (i32.add (local.get $at) (i32.const 4)))
    (global.set $end (i32.add (global.get $rows) (i32.load (local.get $at)))))

  (func (export "segment") (param $index i32)
    (local $row i32)
    (local $bytes i32)
    (local.set $row (global.get $rows))
    (local.set $bytes (i32.shl (i32.add (global.get $features) (i32.const 1)) (i32.const 2)))
    (block $done
      (loop $next
        (br_if $done (i32.gt_u (i32.add (local.get $row) (local.get $bytes)) (global.get $end)))
        (call $learn (local.get $row))
        (local.set $row (i32.add (local.get $row) (local.get $bytes)))
        (br $next))))

  ;; One step down the gradient of the squared error of a row.
  (func $learn (param $row i32)
    (local $at i32)
    (local $last i32)
    (local $step f32)
    (local.set $last (i32.shl (global.get $features) (i32.const 2)))
    (local.set $step (f32.load (i32.add (global.get $weights) (local.get $last))))
    (loop $sum
      (local.set $step
        (f32.add
          (local.get $step)
          (f32.mul
            (f32.load (i32.add (local.get $row) (local.get $at)))
            (f32.load (i32.add (global.get $weights) (local.get $at))))))
      (local.set $at (i32.add (local.get $at) (i32.const 4)))
      (br_if $sum (i32.lt_u (local.get $at) (local.get $last))))
    (local.set $step
      (f32.mul (global.get $rate) (f32.sub (local.get $step) (f32.load (i32.add (local.get $row) (local.get $last))))))
    (local.set $at (i32.const 0))
    (loop $move
      (call $add (local.get $at) (f32.mul (f32.neg (local.get $step)) (f32.load (i32.add (local.get $row) (local.get $at)))))
      (local.set $at (i32.add (local.get $at) (i32.const 4)))
      (br_if $move (i32.lt_u (local.get $at) (local.get $last))))
    (call $add (local.get $last) (f32.neg (local.get $step))))

  (func $add (param $at i32) (param $change f32)
    (local.set $at (i32.add (global.get $weights) (local.get $at)))
    (f32.store (local.get $at) (f32.add (f32.load (local.get $at)) (local.get $change))))

  (func (export "output") (result i64)
    (i64.or
      (i64.shl (i64.extend_i32_u (global.get $weights)) (i64.const 32))
      (i64.extend_i32_u (i32.shl (i32.add (global.get $features) (i32.const 1)) (i32.const 2))))))
