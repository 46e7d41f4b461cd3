;; Counts the words of all input files, in segments: each segment reads its share of the bytes. A strict job: all that it knows between two
;; segments is in its memory and its globals, and nothing is imported. Words are runs of letters, digits and bytes of 0x80 and above; ASCII
;; letters count as lower case. Output: four totals, then the 20 most frequent words, the earlier first of equally frequent ones.
(module
  (memory 4)
  ;; Labels of the output.
  (data (i32.const 16) "lines words bytes distinct ")

  (global $output i32 (i32.const 1024)) ;; where the output is written
  (global $free (mut i32) (i32.const 65536)) ;; the first byte that nobody has
  (global $segments (mut i32) (i32.const 1))
  (global $total (mut i32) (i32.const 0)) ;; bytes of all files
  (global $next (mut i32) (i32.const 0)) ;; head of the next file
  (global $at (mut i32) (i32.const 0)) ;; the next byte of the file that is read
  (global $left (mut i32) (i32.const 0)) ;; bytes of that file that are left
  (global $word (mut i32) (i32.const 0)) ;; where the word began that is read; 0: none
  (global $hash (mut i32) (i32.const 0)) ;; of that word (FNV-1a)
  ;; Words that were seen: open addressing, 16 bytes each: where the word lies, its length, how often it came, its hash.
  (global $table (mut i32) (i32.const 0))
  (global $mask (mut i32) (i32.const 0))
  (global $lines (mut i32) (i32.const 0))
  (global $words (mut i32) (i32.const 0))
  (global $bytes (mut i32) (i32.const 0))
  (global $distinct (mut i32) (i32.const 0))
  (global $end (mut i32) (i32.const 0)) ;; end of the output

  ;; Room for what the host brings.
  (func $allocate (export "allocate") (param $bytes i32) (result i32)
    (local $pointer i32)
    (local.set $pointer (global.get $free))
    (global.set $free (i32.and (i32.add (i32.add (local.get $pointer) (local.get $bytes)) (i32.const 15)) (i32.const -16)))
    (local.get $pointer))

  ;; Behind a string that has its length in front.
  (func $skip (param $at i32) (result i32)
    (i32.add (i32.add (local.get $at) (i32.const 4)) (i32.load (local.get $at))))

  ;; The input: arguments, seed, files, each with its length in front; lists with their count.
  (func (export "begin") (param $at i32) (param $bytes i32) (param $segments i32)
    (local $count i32)
    (global.set $segments (local.get $segments))
    (local.set $count (i32.load (local.get $at)))
    (local.set $at (i32.add (local.get $at) (i32.const 4)))
    (block $done
      (loop $arguments
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $at (call $skip (local.get $at)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $arguments)))
    (local.set $at (call $skip (local.get $at)))
    (local.set $count (i32.load (local.get $at)))
    (local.set $at (i32.add (local.get $at) (i32.const 4)))
    (global.set $next (local.get $at))
    (block $done
      (loop $files
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $at (call $skip (local.get $at)))
        (global.set $total (i32.add (global.get $total) (i32.load (local.get $at))))
        (local.set $at (call $skip (local.get $at)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $files)))
    (call $newTable (i32.const 1024)))

  (func (export "segment") (param $index i32)
    (local $until i32)
    (local.set $until
      (i32.wrap_i64
        (i64.div_u
          (i64.mul (i64.extend_i32_u (global.get $total)) (i64.extend_i32_u (i32.add (local.get $index) (i32.const 1))))
          (i64.extend_i32_u (global.get $segments)))))
    (block $done
      (loop $read
        (br_if $done (i32.ge_u (global.get $bytes) (local.get $until)))
        (if (i32.eqz (global.get $left))
          (then
            (call $open)
            (br $read)))
        (call $take (i32.load8_u (global.get $at)))
        (global.set $at (i32.add (global.get $at) (i32.const 1)))
        (global.set $left (i32.sub (global.get $left) (i32.const 1)))
        (global.set $bytes (i32.add (global.get $bytes) (i32.const 1)))
        (br $read)))
    (if (i32.eq (global.get $bytes) (global.get $total))
      (then (call $endWord))))

  ;; The next file; no word goes on from one file to another.
  (func $open
    (local $content i32)
    (call $endWord)
    (local.set $content (call $skip (global.get $next)))
    (global.set $left (i32.load (local.get $content)))
    (global.set $at (i32.add (local.get $content) (i32.const 4)))
    (global.set $next (call $skip (local.get $content))))

  (func $lower (param $byte i32) (result i32)
    (i32.add
      (local.get $byte)
      (i32.shl (i32.lt_u (i32.sub (local.get $byte) (i32.const 65)) (i32.const 26)) (i32.const 5))))

  (func $isOfWord (param $byte i32) (result i32)
    (i32.or
      (i32.or
        (i32.lt_u (i32.sub (call $lower (local.get $byte)) (i32.const 97)) (i32.const 26))
        (i32.lt_u (i32.sub (local.get $byte) (i32.const 48)) (i32.const 10)))
      (i32.ge_u (local.get $byte) (i32.const 128))))

  (func $take (param $byte i32)
    (global.set $lines (i32.add (global.get $lines) (i32.eq (local.get $byte) (i32.const 10))))
    (if (call $isOfWord (local.get $byte))
      (then
        (if (i32.eqz (global.get $word))
          (then
            (global.set $word (global.get $at))
            (global.set $hash (i32.const 0x811c9dc5))))
        (global.set $hash (i32.mul (i32.xor (global.get $hash) (call $lower (local.get $byte))) (i32.const 16777619))))
      (else (call $endWord))))

  (func $endWord
    (if (global.get $word)
      (then
        (call $count (global.get $word) (i32.sub (global.get $at) (global.get $word)))
        (global.set $words (i32.add (global.get $words) (i32.const 1)))
        (global.set $word (i32.const 0)))))

  (func $count (param $word i32) (param $length i32)
    (local $entry i32)
    (local.set $entry (call $find (local.get $word) (local.get $length) (global.get $hash)))
    (if (i32.eqz (i32.load (local.get $entry)))
      (then
        (i32.store (local.get $entry) (local.get $word))
        (i32.store offset=4 (local.get $entry) (local.get $length))
        (i32.store offset=12 (local.get $entry) (global.get $hash))
        (global.set $distinct (i32.add (global.get $distinct) (i32.const 1)))))
    (i32.store offset=8 (local.get $entry) (i32.add (i32.load offset=8 (local.get $entry)) (i32.const 1)))
    (if (i32.gt_u (i32.mul (global.get $distinct) (i32.const 2)) (global.get $mask))
      (then (call $growTable))))

  ;; The entry of a word, or the free one where it belongs.
  (func $find (param $word i32) (param $length i32) (param $hash i32) (result i32)
    (local $slot i32)
    (local $entry i32)
    (local.set $slot (i32.and (local.get $hash) (global.get $mask)))
    (loop $probe
      (local.set $entry (i32.add (global.get $table) (i32.shl (local.get $slot) (i32.const 4))))
      (if (i32.eqz (i32.load (local.get $entry))) (then (return (local.get $entry))))
      (if (call $isSame (local.get $entry) (local.get $word) (local.get $length) (local.get $hash)) (then (return (local.get $entry))))
      (local.set $slot (i32.and (i32.add (local.get $slot) (i32.const 1)) (global.get $mask)))
      (br $probe))
    (unreachable))

  (func $newTable (param $slots i32)
    (global.set $table (call $allocate (i32.shl (local.get $slots) (i32.const 4))))
    (global.set $mask (i32.sub (local.get $slots) (i32.const 1))))

  ;; Twice as many slots, elsewhere: memory is zero until somebody had it.
  (func $growTable
    (local $old i32)
    (local $end i32)
    (local.set $old (global.get $table))
    (local.set $end (i32.add (local.get $old) (i32.shl (i32.add (global.get $mask) (i32.const 1)) (i32.const 4))))
    (call $newTable (i32.mul (i32.add (global.get $mask) (i32.const 1)) (i32.const 2)))
    (loop $move
      (if (i32.load (local.get $old))
        (then
          (memory.copy
            (call $find (i32.load (local.get $old)) (i32.load offset=4 (local.get $old)) (i32.load offset=12 (local.get $old)))
            (local.get $old)
            (i32.const 16))))
      (local.set $old (i32.add (local.get $old) (i32.const 16)))
      (br_if $move (i32.lt_u (local.get $old) (local.get $end)))))

  (func $isSame (param $entry i32) (param $word i32) (param $length i32) (param $hash i32) (result i32)
    (local $seen i32)
    (local $at i32)
    (if (i32.ne (i32.load offset=4 (local.get $entry)) (local.get $length)) (then (return (i32.const 0))))
    (if (i32.ne (i32.load offset=12 (local.get $entry)) (local.get $hash)) (then (return (i32.const 0))))
    (local.set $seen (i32.load (local.get $entry)))
    (loop $compare
      (if (i32.ne
            (call $lower (i32.load8_u (i32.add (local.get $seen) (local.get $at))))
            (call $lower (i32.load8_u (i32.add (local.get $word) (local.get $at)))))
        (then (return (i32.const 0))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $compare (i32.lt_u (local.get $at) (local.get $length))))
    (i32.const 1))

  (func (export "output") (result i64)
    (global.set $end (global.get $output))
    (call $putTotal (i32.const 16) (i32.const 6) (global.get $lines))
    (call $putTotal (i32.const 22) (i32.const 6) (global.get $words))
    (call $putTotal (i32.const 28) (i32.const 6) (global.get $bytes))
    (call $putTotal (i32.const 34) (i32.const 9) (global.get $distinct))
    (call $putFrequent (i32.const 20))
    (i64.or
      (i64.shl (i64.extend_i32_u (global.get $output)) (i64.const 32))
      (i64.extend_i32_u (i32.sub (global.get $end) (global.get $output)))))

  ;; The most frequent words: each time the best one that comes after the one before it.
  (func $putFrequent (param $places i32)
    (local $slot i32)
    (local $entry i32)
    (local $best i32)
    (local $last i32)
    (block $done
      (loop $place
        (br_if $done (i32.eqz (local.get $places)))
        (local.set $best (i32.const 0))
        (local.set $slot (i32.const 0))
        (loop $look
          (local.set $entry (i32.add (global.get $table) (i32.shl (local.get $slot) (i32.const 4))))
          (if (i32.and
                (call $isBefore (local.get $last) (local.get $entry))
                (call $isBefore (local.get $entry) (local.get $best)))
            (then (local.set $best (local.get $entry))))
          (local.set $slot (i32.add (local.get $slot) (i32.const 1)))
          (br_if $look (i32.le_u (local.get $slot) (global.get $mask))))
        (br_if $done (i32.eqz (local.get $best)))
        (call $putNumber (i32.load offset=8 (local.get $best)))
        (call $putByte (i32.const 32))
        (call $putWord (i32.load (local.get $best)) (i32.load offset=4 (local.get $best)))
        (call $putByte (i32.const 10))
        (local.set $last (local.get $best))
        (local.set $places (i32.sub (local.get $places) (i32.const 1)))
        (br $place))))

  ;; Whether one entry stands before another: it came more often, or as often and earlier. Before nothing stands every word, and nothing before all.
  (func $isBefore (param $one i32) (param $other i32) (result i32)
    (local $ones i32)
    (local $others i32)
    (if (i32.eqz (local.get $one)) (then (return (i32.const 1))))
    (if (i32.eqz (i32.load (local.get $one))) (then (return (i32.const 0))))
    (if (i32.eqz (local.get $other)) (then (return (i32.const 1))))
    (if (i32.eqz (i32.load (local.get $other))) (then (return (i32.const 0))))
    (local.set $ones (i32.load offset=8 (local.get $one)))
    (local.set $others (i32.load offset=8 (local.get $other)))
    (if (result i32) (i32.eq (local.get $ones) (local.get $others))
      (then (i32.lt_u (i32.load (local.get $one)) (i32.load (local.get $other))))
      (else (i32.gt_u (local.get $ones) (local.get $others)))))

  (func $putTotal (param $label i32) (param $length i32) (param $number i32)
    (call $putWord (local.get $label) (local.get $length))
    (call $putNumber (local.get $number))
    (call $putByte (i32.const 10)))

  ;; In lower case.
  (func $putWord (param $from i32) (param $length i32)
    (loop $copy
      (call $putByte (call $lower (i32.load8_u (local.get $from))))
      (local.set $from (i32.add (local.get $from) (i32.const 1)))
      (local.set $length (i32.sub (local.get $length) (i32.const 1)))
      (br_if $copy (local.get $length))))

  (func $putNumber (param $number i32)
    (if (i32.ge_u (local.get $number) (i32.const 10))
      (then (call $putNumber (i32.div_u (local.get $number) (i32.const 10)))))
    (call $putByte (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10)))))

  ;; The output has room for 64,512 bytes: longer words are cut off.
  (func $putByte (param $byte i32)
    (if (i32.lt_u (global.get $end) (i32.const 65536))
      (then
        (i32.store8 (global.get $end) (local.get $byte))
        (global.set $end (i32.add (global.get $end) (i32.const 1)))))))
