import type { Artefact } from '../../host/index.ts';
import type { JobSpec } from '../spec/job-spec.ts';
import { type JobEnd, readOutputs } from './canonical-output.ts';
import { badSegments } from './commitment.ts';

/** What the last state of a whole job holds. */
export interface WholeState {
  end: JobEnd;
  /** As the specification's canonicaliser leaves them; undefined where they are too large for a state. */
  outputs: { path: string; bytes: Uint8Array }[] | undefined;
}

const HEAD_BYTES = 4;

/**
 * The last state of a job of the class `exact-output`: what is compared of its run, and behind it the outputs themselves where they have at most
 * 16 MiB, so that who must hand the state over hands the outputs over. Length of the description (uint32, big end first), the description
 * (`describeRun`), the outputs in its order.
 */
export async function packWholeState(
  spec: Pick<JobSpec, 'canonicaliser' | 'outputs'>,
  run: { end: JobEnd; artefacts: readonly Artefact[]; folder: string },
): Promise<Uint8Array> {
  const { description, contents } = await readOutputs(spec, run);
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32BE(description.length);
  return Buffer.concat([head, description, ...(contents ?? [])]);
}

/**
 * What {@link packWholeState} has made; its hash is the caller's to check.
 * @throws bad-segments for bytes that are no such state
 */
export function unpackWholeState(state: Uint8Array): WholeState {
  const view = Buffer.from(state.buffer, state.byteOffset, state.byteLength);
  const length = view.length < HEAD_BYTES ? Number.NaN : view.readUInt32BE(0);
  if (!(length <= view.length - HEAD_BYTES)) throw badSegments('its last state is cut off');
  const listed = readListing(view.subarray(HEAD_BYTES, HEAD_BYTES + length));
  const contents = view.subarray(HEAD_BYTES + length);
  const total = listed.outputs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  if (contents.length === 0 && total > 0) return { end: listed.end, outputs: undefined };
  if (contents.length !== total) throw badSegments(`its last state has ${contents.length} bytes of outputs, ${total} are listed`);
  let at = 0;
  const outputs = listed.outputs.map(({ path, sizeBytes }) => {
    at += sizeBytes;
    return { path, bytes: contents.subarray(at - sizeBytes, at) };
  });
  return { end: listed.end, outputs };
}

function readListing(description: Buffer): { end: JobEnd; outputs: { path: string; sizeBytes: number }[] } {
  try {
    const { end, outputs } = JSON.parse(description.toString('utf8')) as { end: JobEnd; outputs: { path: string; sizeBytes: number }[] };
    const isListing = outputs.every(({ path, sizeBytes }) => typeof path === 'string' && Number.isSafeInteger(sizeBytes) && sizeBytes >= 0);
    if (isListing && typeof end === 'string') return { end, outputs };
  } catch {
    // reported below
  }
  throw badSegments('its last state lists no outputs');
}
