import { badImage } from './executor.ts';
import { BULK, checkValueType, type FloatShape, type Instruction, OPCODE, readInstruction, VALUE_TYPES } from './strict-instructions.ts';
import { encodeNumber, ModuleReader } from './wasm-module.ts';

/** What a function's code is written again with. */
export interface CodeContext {
  /** Number of parameters of the function. */
  parameters: number;
  /** Its result type; undefined for none. */
  result: number | undefined;
  /** Globals of the module itself. */
  globals: number;
  /** Global (i64) that holds how much may still be done, and global (i32) that holds how deep calls may still go. */
  fuelGlobal: number;
  depthGlobal: number;
  /** Types of mutable float globals by index: what is put into them is made canonical. */
  floatGlobals: ReadonlyMap<number, FloatShape>;
}

const LOCALS_MAX = 10_000;
const EMPTY_BLOCK = 0x40;
/** Depth that a call costs beside its locals and what it may have on the stack: what the machine itself keeps of a call. */
const FRAME_UNITS = 16;
/** Bytes that bulk instructions move for one unit of fuel, as a shift. */
const BULK_SHIFT = 4;

const GET_LOCAL = 0x20;
const TEE_LOCAL = 0x22;
const GET_GLOBAL = 0x23;
const SET_GLOBAL = 0x24;
const SELECT = 0x1b;
const I32_CONST = 0x41;
const I64_CONST = 0x42;
const END_IF_TRAP = [0x04, EMPTY_BLOCK, 0x00, 0x0b];

/** How a value that is no number is replaced by the one canonical NaN: its constant, its comparison with itself, its choice. */
const CANONICAL: Record<FloatShape, { type: number; nan: readonly number[]; equal: readonly number[]; choose: readonly number[] }> = {
  f32: { type: VALUE_TYPES.f32, nan: [0x43, 0, 0, 0xc0, 0x7f], equal: [0x5b], choose: [SELECT] },
  f64: { type: VALUE_TYPES.f64, nan: [0x44, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f], equal: [0x61], choose: [SELECT] },
  f32x4: vectorRule([0, 0, 0xc0, 0x7f], 0x41),
  f64x2: vectorRule([0, 0, 0, 0, 0, 0, 0xf8, 0x7f], 0x47),
};

function vectorRule(lane: number[], equal: number) {
  const lanes = Array.from({ length: 16 / lane.length }, () => lane).flat();
  return { type: VALUE_TYPES.v128, nan: [0xfd, 12, ...lanes], equal: [0xfd, equal], choose: [0xfd, 82] };
}

/**
 * The code of a function written again so that every machine does the same with it:
 * - what arithmetic gives that is no number becomes the canonical NaN, so that its bits are the same everywhere (the deterministic profile of
 *   the core specification 3.0); not where the next instruction shows nothing of them;
 * - each entry of the function and each turn of a loop takes as much fuel as instructions can run until the next such place, and copying and
 *   filling as much as they move: without fuel it traps;
 * - each call takes from the depth as much as its frame may need: without depth it traps, long before the machine's own stack ends.
 * @throws bad-image
 */
export function rewriteFunction(body: Uint8Array, context: CodeContext): Uint8Array {
  const reader = new ModuleReader(body, 0);
  const locals = readLocals(reader, context.parameters);
  const rewriting = new Rewriting(context, locals);
  while (!reader.isAtEnd()) rewriting.add(readInstruction(reader));
  return rewriting.finish();
}

interface Locals {
  /** The declarations as they stand. */
  groups: Uint8Array[];
  /** Index of the next local. */
  next: number;
}

function readLocals(reader: ModuleReader, parameters: number): Locals {
  const groups: Uint8Array[] = [];
  let next = parameters;
  for (let left = reader.number(); left > 0; left -= 1) {
    const start = reader.position;
    next += reader.number();
    checkValueType(reader.byte());
    if (next > LOCALS_MAX) throw badImage(`a function has more than ${LOCALS_MAX} locals`);
    groups.push(reader.since(start));
  }
  return { groups, next };
}

/** A place in the code where fuel is taken: how much is known when what it stands for has been read. */
interface Charge {
  at: number;
  instructions: number;
}

class Rewriting {
  readonly #context: CodeContext;
  readonly #locals: Locals;
  readonly #added = new Map<number, number>();
  readonly #pieces: Uint8Array[] = [];
  /** Open blocks; a charge for those that are loops. */
  readonly #blocks: (Charge | undefined)[] = [];
  readonly #entry: Charge = { at: 0, instructions: 1 };
  readonly #charges: Charge[] = [];
  #instructions = 0;
  #pending: FloatShape | undefined;
  #isClosed = false;

  constructor(context: CodeContext, locals: Locals) {
    this.#context = context;
    this.#locals = locals;
    this.#place(this.#entry);
    this.#put([OPCODE.block, context.result ?? EMPTY_BLOCK]);
  }

  add(instruction: Instruction): void {
    if (this.#isClosed) throw badImage('a function goes on after its end');
    const { opcode, sub, bytes, makes, absorbs } = instruction;
    this.#checkIndices(opcode, bytes);
    if (this.#pending !== undefined && this.#pending !== absorbs) this.#canonicalise(this.#pending);
    this.#pending = makes;
    this.#instructions += 1;
    const charge = this.#blocks.findLast((block) => block !== undefined) ?? this.#entry;
    charge.instructions += 1;
    if (opcode === OPCODE.end && this.#blocks.length === 0) {
      this.#isClosed = true;
      return;
    }
    if (opcode === OPCODE.end) this.#blocks.pop();
    if (opcode === OPCODE.bulk && (sub === BULK.copy || sub === BULK.fill)) this.#chargeBytes();
    if (opcode === OPCODE.globalSet) this.#canonicaliseGlobal(bytes);
    this.#pieces.push(opcode === OPCODE.return ? Uint8Array.from([OPCODE.br, ...encodeNumber(this.#blocks.length)]) : bytes);
    if (opcode === OPCODE.loop) {
      const turn = { at: 0, instructions: 1 };
      this.#place(turn);
      this.#blocks.push(turn);
    } else if (opcode === OPCODE.block || opcode === OPCODE.if) this.#blocks.push(undefined);
  }

  /** What the module names must be its own: it must reach neither what is added here nor the place behind it. */
  #checkIndices(opcode: number, bytes: Uint8Array): void {
    const reader = new ModuleReader(bytes, 1);
    const limit = opcode >= GET_LOCAL && opcode <= TEE_LOCAL ? this.#locals.next : this.#context.globals;
    const isBranch = opcode === OPCODE.br || opcode === OPCODE.brIf || opcode === OPCODE.brTable;
    if (opcode >= GET_LOCAL && opcode <= SET_GLOBAL && reader.number() >= limit)
      throw badImage('a function names a local or global that is not there');
    if (opcode === OPCODE.brTable) reader.number();
    while (isBranch && !reader.isAtEnd()) if (reader.number() > this.#blocks.length) throw badImage('a branch leads out of its function');
  }

  finish(): Uint8Array {
    if (!this.#isClosed) throw badImage('a function has no end');
    const { fuelGlobal, depthGlobal } = this.#context;
    for (const { at, instructions } of this.#charges) {
      this.#pieces[at] = Uint8Array.from([
        ...[GET_GLOBAL, ...encodeNumber(fuelGlobal), I64_CONST, ...signed(instructions), 0x7d, SET_GLOBAL, ...encodeNumber(fuelGlobal)],
        ...this.#trapUnlessFuel(),
      ]);
    }
    const frame = FRAME_UNITS + this.#locals.next + this.#added.size + this.#instructions;
    const depth = (operation: number) => [
      ...[GET_GLOBAL, ...encodeNumber(depthGlobal), I32_CONST, ...signed(frame), operation, SET_GLOBAL, ...encodeNumber(depthGlobal)],
    ];
    const enter = [...depth(0x6b), GET_GLOBAL, ...encodeNumber(depthGlobal), I32_CONST, 0, 0x48, ...END_IF_TRAP];
    const added = [...this.#added.keys()].map((type) => Uint8Array.of(1, type));
    return Buffer.concat([
      encodeNumber(this.#locals.groups.length + added.length),
      ...this.#locals.groups,
      ...added,
      Uint8Array.from(enter),
      ...this.#pieces,
      Uint8Array.from([OPCODE.end, ...depth(0x6a), OPCODE.end]),
    ]);
  }

  #place(charge: Charge): void {
    charge.at = this.#pieces.length;
    this.#charges.push(charge);
    this.#pieces.push(new Uint8Array());
  }

  #put(bytes: readonly number[]): void {
    this.#pieces.push(Uint8Array.from(bytes));
  }

  /** A local of our own of that type; one for the whole function. */
  #local(type: number): Uint8Array {
    const index = this.#added.get(type) ?? this.#locals.next + this.#added.size;
    this.#added.set(type, index);
    return encodeNumber(index);
  }

  #canonicalise(shape: FloatShape): void {
    const { type, nan, equal, choose } = CANONICAL[shape];
    const local = this.#local(type);
    this.#put([TEE_LOCAL, ...local, ...nan, GET_LOCAL, ...local, GET_LOCAL, ...local, ...equal, ...choose]);
  }

  #canonicaliseGlobal(bytes: Uint8Array): void {
    const shape = this.#context.floatGlobals.get(new ModuleReader(bytes, 1).number());
    if (shape !== undefined) this.#canonicalise(shape);
  }

  /** The number of bytes is on top of the stack. */
  #chargeBytes(): void {
    const local = this.#local(VALUE_TYPES.i32);
    const fuel = encodeNumber(this.#context.fuelGlobal);
    this.#put([
      ...[TEE_LOCAL, ...local, GET_GLOBAL, ...fuel, GET_LOCAL, ...local, 0xad, I64_CONST, BULK_SHIFT, 0x88, 0x7d, SET_GLOBAL, ...fuel],
      ...this.#trapUnlessFuel(),
    ]);
  }

  #trapUnlessFuel(): number[] {
    return [GET_GLOBAL, ...encodeNumber(this.#context.fuelGlobal), I64_CONST, 0, 0x53, ...END_IF_TRAP];
  }
}

/** A number that is not negative as signed LEB128. */
function signed(value: number): number[] {
  return value < 64 ? [value] : [(value % 128) | 0x80, ...signed(Math.floor(value / 128))];
}
