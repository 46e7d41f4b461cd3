// Builds, checks and tests the contracts. Usage: npm run contracts -- [command]
//   generate            compile and write src/chain/{contracts.generated.ts,bytecode.generated.json,genesis-code.generated.json}
//                       (`generate PATH…` compiles only those; the rest is taken from the last build)
//   --check             fail when a generated file differs from what the sources give
//   test                (default) forge test, then the gas snapshot; `test --update` writes the snapshot anew
//   coverage            line coverage of contracts/src; fails below 98 %
//   --deep              the long fuzz and invariant campaigns with a printed seed (`--seed 0x… --runs N` replay one)
// What follows the command is passed to forge (for example `test --match-path 'contracts/test/chain/*'`).
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, delimiter, dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Hex, keccak256 } from 'viem';
import { exitCodeOf, MillraceError, toMillraceError } from '../src/errors.ts';
import { findForge } from '../test/forge.ts';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');
const ABI_FILE = join(ROOT, 'src/chain/contracts.generated.ts');
const BYTECODE_FILE = join(ROOT, 'src/chain/bytecode.generated.json');
const GENESIS_FILE = join(ROOT, 'src/chain/genesis-code.generated.json');
const GAS_FILE = join(ROOT, 'contracts/.gas-snapshot');
const GAS_LIMIT_PER_TRANSACTION = 16_777_216; // EIP-7825
const GAS_TOLERANCE_PERCENT = 2;
const LINE_COVERAGE_MIN_PERCENT = 98;
const CODE_SIZE_MAX_BYTES = 24_576; // EIP-170

/** Module name in the manifest and the registry -> Solidity contract; `interface` stands in until the contract exists. */
const MODULES: Record<string, { contract: string; interface?: string }> = {
  operators: { contract: 'Operators' },
  registry: { contract: 'Registry' },
  parameters: { contract: 'Parameters' },
  randomness: { contract: 'Randomness' },
  networkToken: { contract: 'NetworkToken' },
  stableToken: { contract: 'DevStable' },
  emission: { contract: 'FilecoinEmission' },
  stakeVault: { contract: 'StakeVault', interface: 'IStakeVault' },
  rails: { contract: 'Rails', interface: 'IRails' },
  possession: { contract: 'Possession', interface: 'IPossession' },
  storageMarket: { contract: 'StorageMarket', interface: 'IStorageMarket' },
  dealDesk: { contract: 'DealDesk' },
  checkers: { contract: 'Checkers', interface: 'ICheckers' },
  orderBatches: { contract: 'OrderBatches' },
  orderBook: { contract: 'OrderBook', interface: 'IOrderBook' },
  storageFile: { contract: 'StorageFile', interface: 'IStorageFile' },
  rewards: { contract: 'StorageRewards', interface: 'IStorageRewards' },
  subnetEmission: { contract: 'SubnetEmission' },
  inferenceToken: { contract: 'NetworkToken' },
  emissionShares: { contract: 'BurntShares' },
  subnets: { contract: 'Subnets' },
  weightsBoard: { contract: 'WeightsBoard' },
  backerIncome: { contract: 'BackerIncome' },
  yumaCore: { contract: 'YumaCore' },
  subnetEpochs: { contract: 'SubnetEpochs' },
  computeEmission: { contract: 'ComputeEmission' },
  computeToken: { contract: 'NetworkToken' },
  buybackAuction: { contract: 'BuybackAuction', interface: 'IBuybackAuction' },
  computeMarket: { contract: 'ComputeMarket', interface: 'IComputeMarket' },
  leaseProbers: { contract: 'LeaseProbers', interface: 'ILeaseProbers' },
  leaseFees: { contract: 'LeaseFees' },
  computeHealth: { contract: 'ComputeHealth', interface: 'IComputeHealth' },
  computeRewards: { contract: 'ComputeRewards', interface: 'IComputeRewards' },
  auditors: { contract: 'Auditors', interface: 'IAuditors' },
  jobRules: { contract: 'JobRules' },
  computeJobs: { contract: 'ComputeJobs', interface: 'IComputeJobs' },
  jobDisputes: { contract: 'JobDisputes', interface: 'IJobDisputes' },
  stateDemands: { contract: 'StateDemands', interface: 'IStateDemands' },
  jobFees: { contract: 'JobFees' },
  jury: { contract: 'Jury', interface: 'IJury' },
  receiptCourt: { contract: 'ReceiptCourt', interface: 'IReceiptCourt' },
  channels: { contract: 'X402BatchSettlement', interface: 'IX402BatchSettlement' },
  timelock: { contract: 'Timelock' },
  governor: { contract: 'StakeGovernor' },
};

/** Contracts whose runtime code an embedded chain may have in its genesis block (src/chain/genesis-contracts.ts); no modules but `channels`. */
const GENESIS_CONTRACTS: Record<string, string> = { channels: 'X402BatchSettlement', depositCollector: 'ERC3009DepositCollector' };

interface AbiItem {
  type: string;
  name?: string;
  inputs?: { name: string; type: string }[];
}
interface Code {
  object: string;
  linkReferences?: Record<string, unknown>;
  immutableReferences?: Record<string, { start: number; length: number }[]>;
}
interface Artifact {
  contract: string;
  abi: AbiItem[];
  bytecode: Code;
  deployedBytecode: Code;
}

function fail(code: string, message: string, hint?: string, values = {}): never {
  throw new MillraceError(code, { actor: 'caller', message, hint, values });
}

function forge(args: string[], env: Record<string, string> = {}): void {
  const binary = findForge();
  if (binary === undefined) fail('forge-missing', 'There is no forge here', 'Run npm ci on Linux x64, or put forge 1.7.1 on PATH.');
  // tools/solc.cjs looks for `node` on PATH: the one that runs this.
  const path = [dirname(process.execPath), process.env.PATH].join(delimiter);
  const run = spawnSync(binary, args, { cwd: ROOT, stdio: ['ignore', 2, 2], env: { ...process.env, PATH: path, ...env } });
  if (run.error !== undefined) fail('forge-missing', `Could not run ${binary}: ${run.error.message}`, 'Run npm ci again.');
  if (run.status !== 0) fail('forge-failed', `forge ${args.join(' ')} ended with ${run.status ?? run.signal}`, 'Its output is above.');
}

/** Compiles contracts/src into `out` and returns the artifacts of our own contracts, by contract name. */
function build(out: string, cache: string, paths = ['contracts/src']): Map<string, Artifact> {
  forge(['build', ...paths], { FOUNDRY_OUT: out, FOUNDRY_CACHE_PATH: cache });
  const artifacts = new Map<string, Artifact>();
  for (const source of readdirSync(join(ROOT, 'contracts/src'), { recursive: true, encoding: 'utf8' }).sort()) {
    const folder = resolve(ROOT, out, basename(source));
    if (!source.endsWith('.sol') || !existsSync(folder)) continue;
    for (const file of readdirSync(folder).filter((name) => name.endsWith('.json'))) {
      const contract = basename(file, '.json');
      artifacts.set(contract, { contract, ...JSON.parse(readFileSync(join(folder, file), 'utf8')) });
    }
  }
  return artifacts;
}

/** JSON of an ABI item without `internalType`, which viem does not read. */
function abiLine(item: AbiItem): string {
  return JSON.stringify(item, (key, value) => (key === 'internalType' ? undefined : value));
}

function moduleArtifacts(artifacts: Map<string, Artifact>): [string, Artifact][] {
  return Object.entries(MODULES).flatMap(([name, module]): [string, Artifact][] => {
    const artifact = artifacts.get(module.contract) ?? artifacts.get(module.interface ?? '');
    return artifact === undefined ? [] : [[name, artifact]];
  });
}

/** Every custom error of every contract and library under contracts/src, once per signature. */
function errorItems(artifacts: Map<string, Artifact>): AbiItem[] {
  const errors = new Map<string, AbiItem>();
  for (const item of [...artifacts.values()].flatMap(({ abi }) => abi.filter(({ type }) => type === 'error'))) {
    errors.set(`${item.name}(${(item.inputs ?? []).map((input) => input.type).join(',')})`, item);
  }
  return [...errors].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, item]) => item);
}

function abiFile(artifacts: Map<string, Artifact>): string {
  const list = (items: AbiItem[], indent: string): string => items.map((item) => `${indent}${abiLine(item)},\n`).join('');
  const modules = moduleArtifacts(artifacts).map(([name, artifact]) => `  ${name}: [\n${list(artifact.abi, '    ')}  ],\n`);
  const errors = list(errorItems(artifacts), '  ');
  return [
    '// Generated by `npm run contracts -- generate`. Do not edit.\n',
    '/** Typed ABIs of the deployed contracts by module name. */',
    `export const abis = {\n${modules.join('')}} as const;\n`,
    '/** Name of a deployed contract, as in the manifest and in the registry. */',
    'export type ModuleName = keyof typeof abis;\n',
    '/** Every custom error that our contracts and the libraries they use can revert with. */',
    `export const errorsAbi = [\n${errors}] as const;\n`,
  ].join('\n');
}

/** Runtime code with zeros for immutables, and for each immutable, in the order of declaration, where it stands (bytes). */
function genesisFile(artifacts: Map<string, Artifact>): string {
  const entries = Object.entries(GENESIS_CONTRACTS).flatMap(([name, contract]) => {
    const code = artifacts.get(contract)?.deployedBytecode;
    if (code === undefined) return [];
    const byDeclaration = Object.entries(code.immutableReferences ?? {}).sort(([a], [b]) => Number(a) - Number(b));
    const immutables = byDeclaration.map(([, places]) => places.map(({ start }) => start));
    return [`  ${JSON.stringify(name)}: ${JSON.stringify({ contract, immutables, runtime: code.object })}`];
  });
  return `{\n${entries.join(',\n')}\n}\n`;
}

/** `codeHash` is keccak256 of the runtime code with every immutable (`immutables`: [start, length] in bytes) set to zero. */
function bytecodeFile(artifacts: Map<string, Artifact>): string {
  const entries = moduleArtifacts(artifacts).flatMap(([name, { contract, bytecode, deployedBytecode }]) => {
    if (bytecode.object === '0x') return [];
    if (Object.keys(bytecode.linkReferences ?? {}).length > 0) {
      fail('unlinked-library', `${contract} needs an external library`, 'Make its functions internal.');
    }
    const sizeBytes = deployedBytecode.object.length / 2 - 1;
    if (sizeBytes > CODE_SIZE_MAX_BYTES) {
      fail('code-too-large', `${contract} has ${sizeBytes} bytes of code, the limit is ${CODE_SIZE_MAX_BYTES}`, 'Split the contract.');
    }
    const immutables = Object.values(deployedBytecode.immutableReferences ?? {})
      .flat()
      .map(({ start, length }) => [start, length] as const)
      .sort(([a], [b]) => a - b);
    const codeHash = keccak256(deployedBytecode.object as Hex);
    return [`  ${JSON.stringify(name)}: ${JSON.stringify({ contract, codeHash, immutables, bytecode: bytecode.object })}`];
  });
  return `{\n${entries.join(',\n')}\n}\n`;
}

function generatedFiles(artifacts: Map<string, Artifact>): [string, string][] {
  return [
    [ABI_FILE, abiFile(artifacts)],
    [BYTECODE_FILE, bytecodeFile(artifacts)],
    [GENESIS_FILE, genesisFile(artifacts)],
  ];
}

function generate(args: string[]): void {
  for (const [path, content] of generatedFiles(build('out', 'cache', args.length > 0 ? args : undefined))) {
    writeFileSync(path, content);
    console.log(`wrote ${relative(ROOT, path)} (${content.length} bytes)`);
  }
}

/** Compiles what changed since the last build (forge knows sources by their hash), on a clean checkout all that the tests did not. */
function check(): void {
  for (const [path, content] of generatedFiles(build('out', 'cache'))) {
    if (!existsSync(path) || readFileSync(path, 'utf8') !== content) {
      fail('generated-file-differs', `${relative(ROOT, path)} differs from a build of the sources`, 'Run npm run contracts -- generate.');
    }
    console.log(`${relative(ROOT, path)} is what the sources give`);
  }
}

/** Lines `Group.name gas` of what the gas tests measured (each call alone in its transaction, intrinsic gas included). */
function measuredGas(args: string[]): Map<string, number> {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-gas-'));
  try {
    forge(['test', '--isolate', '--match-test', '^testGas', ...args], { FOUNDRY_SNAPSHOTS: folder });
    const files = readdirSync(folder).map((file): [string, Record<string, string>] => [
      basename(file, '.json'),
      JSON.parse(readFileSync(join(folder, file), 'utf8')),
    ]);
    return new Map(files.flatMap(([group, gas]) => Object.entries(gas).map(([name, value]) => [`${group}.${name}`, Number(value)])));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function readGasSnapshot(): Map<string, number> {
  const lines = existsSync(GAS_FILE) ? readFileSync(GAS_FILE, 'utf8').split('\n').filter(Boolean) : [];
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]));
}

function checkGas(args: string[], update: boolean): void {
  const measured = measuredGas(args);
  const over = [...measured].filter(([, gas]) => gas > GAS_LIMIT_PER_TRANSACTION).map(([name, gas]) => `${name}: ${gas}`);
  if (over.length > 0) fail('gas-over-limit', `Above ${GAS_LIMIT_PER_TRANSACTION} gas in one transaction: ${over.join('; ')}`);
  const partial = args.length > 0;
  const known = readGasSnapshot();
  if (update) {
    const merged = partial ? new Map([...known, ...measured]) : measured;
    writeFileSync(
      GAS_FILE,
      [...merged]
        .sort()
        .map(([name, gas]) => `${name} ${gas}\n`)
        .join(''),
    );
    console.log(`wrote ${relative(ROOT, GAS_FILE)} (${merged.size} measurements)`);
    return;
  }
  const differences = [...new Set([...measured.keys(), ...(partial ? [] : known.keys())])].flatMap((name) => {
    const [now, before] = [measured.get(name), known.get(name)];
    if (now === undefined) return [`${name}: no longer measured`];
    if (before === undefined) return [`${name}: ${now}, not in the snapshot`];
    return Math.abs(now - before) * 100 > before * GAS_TOLERANCE_PERCENT ? [`${name}: ${before} -> ${now}`] : [];
  });
  if (differences.length > 0) {
    fail(
      'gas-differs',
      `Gas differs from contracts/.gas-snapshot: ${differences.join('; ')}`,
      'If it is meant: npm run contracts -- test --update.',
    );
  }
  console.log(`gas of ${measured.size} transactions is as in contracts/.gas-snapshot (within ${GAS_TOLERANCE_PERCENT} %)`);
}

function test(args: string[]): void {
  const update = args.includes('--update');
  const passed = args.filter((arg) => arg !== '--update');
  if (passed.length === 0) forge(['build']); // everything at once: a test run compiles only the files that it wants
  forge(['test', '--no-match-test', '^testGas', ...passed]);
  checkGas(passed, update);
}

function coverage(args: string[]): void {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-coverage-'));
  const report = join(folder, 'lcov.info');
  // Code that is not optimised, and counted, uses more gas than a test usually gets.
  const env = { FOUNDRY_OUT: join(folder, 'out'), FOUNDRY_CACHE_PATH: join(folder, 'cache'), FOUNDRY_GAS_LIMIT: '100000000000' };
  forge(['coverage', '--report', 'lcov', '--report-file', report, '--no-match-test', '^testGas', ...args], env);
  let [found, hit] = [0, 0];
  for (const record of readFileSync(report, 'utf8').split('end_of_record')) {
    const file = /^SF:(.*)$/m.exec(record)?.[1];
    const lines = [...record.matchAll(/^DA:(\d+),(\d+)/gm)];
    if (file === undefined || !file.startsWith('contracts/src/') || lines.length === 0) continue;
    const missed = lines.filter((line) => line[2] === '0').map((line) => line[1]);
    found += lines.length;
    hit += lines.length - missed.length;
    const percent = (((lines.length - missed.length) * 100) / lines.length).toFixed(1);
    console.log(`${percent.padStart(5)} %  ${file}${missed.length > 0 ? `  not run: ${missed.join(', ')}` : ''}`);
  }
  rmSync(folder, { recursive: true, force: true });
  const percent = (hit * 100) / Math.max(1, found);
  console.log(`${percent.toFixed(2)} % of ${found} lines`);
  if (args.length === 0 && percent < LINE_COVERAGE_MIN_PERCENT) {
    fail('coverage-too-low', `Line coverage is ${percent.toFixed(2)} %, expected at least ${LINE_COVERAGE_MIN_PERCENT} %`);
  }
}

function deep(args: string[]): void {
  const option = (name: string): string | undefined => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined);
  const seed = option('--seed') ?? `0x${randomBytes(8).toString('hex')}`;
  const runs = option('--runs');
  const rest = args.filter((arg, index) => !['--seed', '--runs'].includes(arg) && !['--seed', '--runs'].includes(args[index - 1] ?? ''));
  console.log(`seed ${seed}: replay with npm run contracts -- --deep --seed ${seed}${runs === undefined ? '' : ` --runs ${runs}`}`);
  const env: Record<string, string> = { FOUNDRY_PROFILE: 'deep' };
  if (runs !== undefined) Object.assign(env, { FOUNDRY_FUZZ_RUNS: runs, FOUNDRY_INVARIANT_RUNS: runs });
  forge(['test', '--fuzz-seed', seed, ...rest], env);
}

const COMMANDS: Record<string, (args: string[]) => void> = {
  generate,
  '--check': check,
  test,
  coverage,
  '--deep': deep,
};

try {
  const [command = 'test', ...args] = process.argv.slice(2);
  const run = COMMANDS[command];
  if (run === undefined) fail('unknown-command', `Got "${command}", expected ${Object.keys(COMMANDS).join(', ')}`);
  run(args);
} catch (error) {
  const known = toMillraceError(error);
  console.error(JSON.stringify(known.toJSON()));
  process.exitCode = exitCodeOf(known);
}
