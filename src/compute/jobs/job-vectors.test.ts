import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Address, encodeAbiParameters, type Hex, keccak256 } from 'viem';
import { canaryStateHash } from '../audit/finding.ts';
import { jobIdOf, termsFromJson } from './job-terms.ts';

/** What `contracts/test/compute/jobs-vectors.t.sol` asks the contracts. */
const VECTORS = JSON.parse(readFileSync(join(import.meta.dirname, '../../../contracts/test/compute/jobs-vectors.json'), 'utf8')) as {
  chainId: number;
  computeJobs: Address;
  auditors: Address;
  terms: Record<string, unknown>;
  jobId: Hex;
  salt: Hex;
  canaryStateHash: Hex;
  auditor: string;
  wrong: { segment: number; leaf: number; stateHash: Hex };
  sealOfWrong: Hex;
};

test('the id of a job is what the contract calls it', () => {
  const domain = { chainId: VECTORS.chainId, jobs: VECTORS.computeJobs };
  const terms = termsFromJson(VECTORS.terms);
  assert.equal(jobIdOf(domain, terms), VECTORS.jobId);
  assert.notEqual(jobIdOf(domain, { ...terms, samples: terms.samples + 1 }), VECTORS.jobId);
});

test('the wrong word of a canary is what the contract opens', () => {
  assert.equal(canaryStateHash(VECTORS.salt, VECTORS.wrong.leaf), VECTORS.canaryStateHash);
});

test('a seal is the first 18 bytes of what IAuditors says', () => {
  const { chainId, auditors, computeJobs, jobId, auditor, wrong, salt } = VECTORS;
  const types = ['uint256', 'address', 'address', 'bytes32', 'uint64', 'uint8', 'uint32', 'bytes32', 'bytes32'].map((type) => ({ type }));
  const values = [BigInt(chainId), auditors, computeJobs, jobId, BigInt(auditor), 2, wrong.segment, wrong.stateHash, salt];
  assert.equal(keccak256(encodeAbiParameters(types, values)).slice(0, 2 + 36), VECTORS.sealOfWrong);
});
