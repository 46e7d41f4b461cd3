import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type Abi, encodeDeployData, type Hex, keccak256 } from 'viem';
import { MillraceError } from '../errors.ts';
import type { ChainClient } from './client.ts';
import { abis, type ModuleName } from './contracts.generated.ts';
import { chainError } from './errors.ts';

interface CompiledContract {
  contract: string;
  codeHash: Hex;
  /** [start, length] in bytes of each immutable in the runtime code. */
  immutables: [number, number][];
  bytecode: Hex;
}

const BYTECODE_FILE = new URL('./bytecode.generated.json', import.meta.url);

let compiled: Record<string, CompiledContract> | undefined;

/** Creation code of a module's contract with its constructor's arguments. @throws contract-not-built */
export function creationData(name: ModuleName, args: readonly unknown[]): Hex {
  return encodeDeployData({ abi: abis[name] as unknown as Abi, bytecode: compiledContract(name).bytecode, args } as never);
}

/** Whether runtime code is the code of our build, whatever its immutables are. @throws contract-not-built */
export function isOurCode(name: ModuleName, code: Hex): boolean {
  const { codeHash, immutables } = compiledContract(name);
  const bytes = Buffer.from(code.slice(2), 'hex');
  for (const [start, length] of immutables) bytes.fill(0, start, start + length);
  return keccak256(bytes) === codeHash;
}

/**
 * The modules of a network whose code is not that of this version of Millrace: other versions, or contracts of somebody else. The
 * manifest's own code hashes only say that the chain carries what its deployer put there.
 */
export async function listForeignModules(client: ChainClient): Promise<string[]> {
  const names = Object.keys(client.manifest.modules);
  const foreign = await Promise.all(
    names.map(async (name) => {
      if (!Object.hasOwn(compiledContracts(), name)) return true;
      const code = await client.public
        .getCode({ address: client.address(name as ModuleName) })
        .catch((error) => Promise.reject(chainError(error, `Reading the code of ${name}`)));
      return code === undefined || !isOurCode(name as ModuleName, code);
    }),
  );
  return names.filter((_, index) => foreign[index]);
}

/** SHA-256 over all contracts' compiled code, as hex: another one is another build. */
export function buildHash(): string {
  return createHash('sha256').update(readFileSync(BYTECODE_FILE)).digest('hex');
}

function compiledContract(name: ModuleName): CompiledContract {
  const contract = compiledContracts()[name];
  if (contract !== undefined) return contract;
  throw new MillraceError('contract-not-built', {
    actor: 'bug',
    message: `There is no bytecode for ${name}`,
    values: { name },
    hint: 'Run: npm run contracts -- generate',
  });
}

/** Read on first use: most processes never deploy. */
function compiledContracts(): Record<string, CompiledContract> {
  compiled ??= JSON.parse(readFileSync(BYTECODE_FILE, 'utf8')) as Record<string, CompiledContract>;
  return compiled;
}
