import { MillraceError } from '../../errors.ts';

/** A weight of a TensorFlow.js graph model. */
export interface TfjsWeight {
  shape: number[];
  data: Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>;
}

/** One operation of the graph. */
export interface TfjsNode {
  name: string;
  op: string;
  input?: string[];
  attr: Record<string, TfjsAttribute>;
}

/** An attribute as protobuf's JSON has it; strings come as bytes or base64. */
export interface TfjsAttribute {
  s?: number[] | string;
  f?: number;
  i?: string;
  list?: { i?: (string | number)[] };
}

/** The `model.json` of a graph model, with its weights. */
export interface TfjsModel {
  nodes: Map<string, TfjsNode>;
  weights: Map<string, TfjsWeight>;
}

interface ModelJson {
  modelTopology: { node: TfjsNode[] };
  weightsManifest: { paths: string[]; weights: { name: string; shape: number[]; dtype: string }[] }[];
}

/**
 * Reads a TensorFlow.js graph model: the topology, and float32 and int32 weights out of the shards. `fileOf` gives the bytes of a shard.
 * @throws bad-model for anything else
 */
export function readTfjsModel(json: Uint8Array, fileOf: (path: string) => Uint8Array): TfjsModel {
  const model = JSON.parse(Buffer.from(json).toString('utf8')) as ModelJson;
  const weights = new Map<string, TfjsWeight>();
  for (const group of model.weightsManifest) {
    const bytes = new Uint8Array(Buffer.concat(group.paths.map(fileOf)));
    let at = 0;
    for (const { name, shape, dtype } of group.weights) {
      if (dtype !== 'float32' && dtype !== 'int32') throw badModel(`weight ${name} is ${dtype}`);
      const end = at + 4 * shape.reduce((product, length) => product * length, 1);
      if (end > bytes.length) throw badModel(`weight ${name} ends at ${end} of ${bytes.length} bytes`);
      const { buffer } = bytes.slice(at, end);
      weights.set(name, { shape, data: dtype === 'float32' ? new Float32Array(buffer) : new Int32Array(buffer) });
      at = end;
    }
  }
  return { nodes: new Map(model.modelTopology.node.map((node) => [node.name, node])), weights };
}

/** @throws bad-model when there is no float weight of that name */
export function floatWeight(model: TfjsModel, name: string): { shape: number[]; data: Float32Array<ArrayBuffer> } {
  const weight = model.weights.get(name);
  if (!(weight?.data instanceof Float32Array)) throw badModel(`there is no weight ${name}`);
  return { shape: weight.shape, data: weight.data };
}

/** A graph that the converter does not understand. */
export function badModel(reason: string): MillraceError {
  return new MillraceError('bad-model', {
    actor: 'peer',
    message: `The model's files cannot be converted: ${reason}`,
    values: { reason },
    hint: 'Use the version of the package that the list of models names.',
  });
}
