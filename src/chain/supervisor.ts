import { createHash } from 'node:crypto';
import { existsSync, lstatSync, mkdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { systemClock } from '../clock.ts';
import { writeFileDurably } from '../durable-file.ts';
import { MillraceError } from '../errors.ts';
import { lockFolder } from '../lock.ts';
import { type Logger, silentLogger } from '../log.ts';
import { ANVIL_VERSION } from './anvil.ts';
import { type BlockMaker, startBlockMaker } from './block-maker.ts';
import { createChainRpc } from './chain-rpc.ts';
import { type GenesisChannels, genesisContracts } from './genesis-contracts.ts';
import { type Head, type Ledger, openLedger } from './ledger.ts';
import { createRpcServer, type RpcServer } from './rpc-server.ts';
import { type ChainStatus, type ControlCommand, serveControl } from './supervisor-control.ts';

/** Chain id of an embedded chain when none is chosen. */
export const EMBEDDED_CHAIN_ID = 31_337;
/** Gas of a block; a transaction is bounded by EIP-7825. */
export const EMBEDDED_BLOCK_GAS = 60_000_000n;
/** An empty block is mined after this long without one, seconds. */
export const EMBEDDED_IDLE_SECONDS = 12;

const SNAPSHOT_BLOCKS = 250;
const SNAPSHOT_BYTES = 32 << 20;
const WARP_SECONDS_MAX = 10 * 365 * 86_400;
/** The shorter of the platforms' limits for the path of a Unix-domain socket (macOS 103, Linux 107 bytes). */
const SOCKET_PATH_BYTES_MAX = 103;

/** An account that has a balance in the genesis block. */
export interface GenesisAccount {
  address: Hex;
  /** Wei. */
  balance: bigint;
}

/** How an embedded chain is run. */
export interface ChainSupervisorOptions {
  /** The chain's own folder; made if absent. */
  folder: string;
  host?: string;
  /** 0 (the default) takes any free port. */
  rpcPort?: number;
  /** Fixed by the first start. */
  chainId?: number;
  /** Funded by the first start; ignored later. */
  accounts?: readonly GenesisAccount[];
  /**
   * Puts payment channels into the genesis block, at the addresses that stock x402 clients know: for the network that the first
   * transactions of `deployer` will make. Ignored later.
   */
  channels?: GenesisChannels;
  idleSeconds?: number;
  /** A snapshot is written after so many blocks (or 1 % of the chain's blocks, if that is more) … */
  snapshotBlocks?: number;
  /** … or after so many bytes of log. */
  snapshotBytes?: number;
  allowedHosts?: readonly string[];
  /** Web origins that a browser may call from; none by default. */
  allowedOrigins?: readonly string[];
  /** Protocol time goes on from the newest block after a time without the chain, instead of jumping to the wall clock. */
  pausesWhileDown?: boolean;
  /** False keeps anvil out of a network namespace of its own even where that is possible. */
  isolatesAnvil?: boolean;
  log?: Logger;
}

/** A running embedded chain. */
export interface ChainSupervisor {
  rpcUrl: string;
  chainId: number;
  /** Unix-domain socket for `controlChain`. */
  controlPath: string;
  /** The newest complete block. */
  head(): Head;
  status(): ChainStatus;
  /** Moves protocol time forward, mined as one block. @throws bad-warp */
  warp(seconds: number): Promise<Head>;
  snapshot(): Promise<Head>;
  pids(): { supervisor: number; anvil: number };
  stop(): Promise<void>;
  /** Resolves when the chain has ended: with nothing after `stop`, else with the error that it could not go on from. */
  ended: Promise<MillraceError | undefined>;
}

/**
 * Starts the embedded chain of `folder`, or takes it up where it was, and serves JSON-RPC. A transaction whose receipt
 * was seen is never lost, whichever process is killed; see `docs/decisions/0005-embedded-chain.md`.
 * @throws folder-busy, chain-id-mismatch, bad-genesis, port-in-use, anvil-missing, anvil-start-failed, wal-corrupt, replay-mismatch,
 * no-usable-snapshot, runtime-folder-unsafe
 */
export async function startChainSupervisor(options: ChainSupervisorOptions): Promise<ChainSupervisor> {
  const log = options.log ?? silentLogger;
  mkdirSync(options.folder, { recursive: true, mode: 0o700 });
  const folder = realpathSync(options.folder);
  const lock = lockFolder(folder);
  const undo: (() => Promise<void> | void)[] = [() => lock.release()];
  const unwind = async () => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    const genesis = prepareGenesis(folder, options);
    const runtimeFolder = prepareRuntimeFolder(folder);
    const ledger = await openLedger({
      folder,
      runtimeFolder,
      ...genesis,
      snapshotBlocks: options.snapshotBlocks ?? SNAPSHOT_BLOCKS,
      snapshotBytes: options.snapshotBytes ?? SNAPSHOT_BYTES,
      isolate: options.isolatesAnvil,
      log,
    });
    undo.push(() => ledger.close());
    const maker = startBlockMaker({
      ledger,
      clock: systemClock,
      log,
      gasLimit: genesis.gasLimit,
      idleSeconds: options.idleSeconds ?? EMBEDDED_IDLE_SECONDS,
      warpOffsetSeconds: startingOffset(ledger, options),
    });
    undo.push(() => maker.stop());
    const server = await listen(options, maker, genesis, log);
    undo.push(() => server.close());
    return await assemble({ options, genesis, ledger, maker, server, runtimeFolder, undo, unwind, log });
  } catch (error) {
    await unwind();
    throw error;
  }
}

interface Genesis {
  chainId: number;
  gasLimit: bigint;
}

interface Parts {
  options: ChainSupervisorOptions;
  genesis: Genesis;
  ledger: Ledger;
  maker: BlockMaker;
  server: RpcServer;
  runtimeFolder: string;
  undo: (() => Promise<void> | void)[];
  unwind(): Promise<void>;
  log: Logger;
}

async function assemble({ options, genesis, ledger, maker, server, runtimeFolder, undo, unwind, log }: Parts): Promise<ChainSupervisor> {
  const host = options.host ?? '127.0.0.1';
  const controlPath = join(runtimeFolder, 'control.sock');
  const status = (): ChainStatus => {
    const { number, hash, timestamp } = maker.head();
    return {
      chainId: genesis.chainId,
      rpcUrl: supervisor.rpcUrl,
      height: number,
      hash,
      timestamp,
      warpOffsetSeconds: maker.warpOffsetSeconds(),
      pid: process.pid,
      anvilPid: ledger.anvil().pid,
      isolated: ledger.anvil().isolated,
    };
  };
  let stopped: Promise<void> | undefined;
  const supervisor: ChainSupervisor = {
    rpcUrl: `http://${host.includes(':') ? `[${host}]` : host}:${server.port}`,
    chainId: genesis.chainId,
    controlPath,
    head: maker.head,
    status,
    warp: (seconds) => warp(maker, seconds, log),
    snapshot: maker.snapshot,
    pids: () => ({ supervisor: process.pid, anvil: ledger.anvil().pid }),
    stop() {
      stopped ??= unwind();
      return stopped;
    },
    ended: maker.ended,
  };
  const control = await serveControl(controlPath, async (command) => {
    await carryOut(command, supervisor);
    return status();
  });
  undo.push(() => {
    control.close();
    rmSync(runtimeFolder, { recursive: true, force: true });
  });
  log.info('chain-ready', {
    rpcUrl: supervisor.rpcUrl,
    chainId: genesis.chainId,
    height: maker.head().number,
    isolated: ledger.anvil().isolated,
  });
  return supervisor;
}

async function carryOut(command: ControlCommand, supervisor: ChainSupervisor): Promise<void> {
  if (command.command === 'warp') await supervisor.warp(command.seconds);
  if (command.command === 'snapshot') await supervisor.snapshot();
  // The answer goes out first.
  if (command.command === 'stop') setImmediate(() => void supervisor.stop());
}

async function warp(maker: BlockMaker, seconds: number, log: Logger): Promise<Head> {
  if (!Number.isInteger(seconds) || seconds < 1 || seconds > WARP_SECONDS_MAX) {
    throw new MillraceError('bad-warp', {
      actor: 'caller',
      message: `Got ${seconds} seconds, expected a whole number from 1 to ${WARP_SECONDS_MAX}`,
      values: { seconds, max: WARP_SECONDS_MAX },
      hint: 'Chain time only moves forward.',
    });
  }
  const head = await maker.warp(seconds);
  log.warn('time-warped', { seconds, height: head.number, timestamp: head.timestamp });
  return head;
}

function listen(options: ChainSupervisorOptions, maker: BlockMaker, genesis: Genesis, log: Logger): Promise<RpcServer> {
  return createRpcServer({
    host: options.host ?? '127.0.0.1',
    port: options.rpcPort ?? 0,
    allowedHosts: options.allowedHosts,
    allowedOrigins: options.allowedOrigins,
    handle: createChainRpc({ maker, ...genesis, clientVersion: `millrace/embedded anvil/${ANVIL_VERSION}` }),
    log,
  });
}

function startingOffset(ledger: Ledger, options: ChainSupervisorOptions): number {
  const offset = ledger.warpOffsetSeconds();
  const jumpSeconds = Math.floor(Date.now() / 1000) + offset - ledger.head().timestamp;
  const wasDown = jumpSeconds > (options.idleSeconds ?? EMBEDDED_IDLE_SECONDS) && ledger.head().number > 0;
  return options.pausesWhileDown && wasDown ? offset - jumpSeconds + 1 : offset;
}

/** Writes the genesis block's description at the first start; later starts take what is there. */
function prepareGenesis(folder: string, options: ChainSupervisorOptions): Genesis {
  const path = join(folder, 'genesis.json');
  if (!existsSync(path)) {
    const accounts = (options.accounts ?? []).map(({ address, balance }) => [address, { balance: `0x${balance.toString(16)}` }]);
    const contracts = options.channels === undefined ? [] : genesisContracts(options.channels);
    const alloc = Object.fromEntries([
      ...accounts,
      ...contracts.map(({ address, code }) => [address, { balance: '0x0', nonce: '0x1', code }]),
    ]);
    const genesis = {
      config: { chainId: options.chainId ?? EMBEDDED_CHAIN_ID },
      timestamp: `0x${Math.floor(Date.now() / 1000).toString(16)}`,
      gasLimit: `0x${EMBEDDED_BLOCK_GAS.toString(16)}`,
      difficulty: '0x0',
      alloc,
    };
    writeFileDurably(path, `${JSON.stringify(genesis, undefined, 2)}\n`);
  }
  const { chainId, gasLimit } = readGenesis(path);
  if (options.chainId !== undefined && options.chainId !== chainId) {
    throw new MillraceError('chain-id-mismatch', {
      actor: 'caller',
      message: `The chain in ${folder} has the id ${chainId}, asked for was ${options.chainId}`,
      values: { folder, got: options.chainId, expected: chainId },
      hint: 'Choose another data folder, or the id that it was made with.',
    });
  }
  return { chainId, gasLimit };
}

function readGenesis(path: string): Genesis {
  try {
    const genesis = JSON.parse(readFileSync(path, 'utf8')) as { config: { chainId: number }; gasLimit: Hex };
    if (!Number.isSafeInteger(genesis.config.chainId)) throw new TypeError('no chain id');
    return { chainId: genesis.config.chainId, gasLimit: BigInt(genesis.gasLimit) };
  } catch (cause) {
    throw new MillraceError('bad-genesis', {
      actor: 'host',
      message: `${path} is damaged`,
      values: { path },
      hint: 'Restore it from a copy, or start a new chain with "millrace reset --yes".',
      cause,
    });
  }
}

/**
 * The folder of this chain's sockets: short enough for them, and closed to other users. It is derived from the data
 * folder, so that the next start and the CLI find it again.
 */
function prepareRuntimeFolder(folder: string): string {
  const uid = process.getuid?.() ?? 0;
  const name = createHash('sha256').update(folder).digest('hex').slice(0, 12);
  const base = uid === 0 && existsSync('/run') ? '/run/millrace' : join(process.env.XDG_RUNTIME_DIR || tmpdir(), `millrace-${uid}`);
  const fits = Buffer.byteLength(join(base, name, 'control.sock')) <= SOCKET_PATH_BYTES_MAX;
  const parent = fits ? base : `/tmp/millrace-${uid}`;
  for (const path of [parent, join(parent, name)]) {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const stat = lstatSync(path);
    if (stat.isDirectory() && stat.uid === uid && (stat.mode & 0o077) === 0) continue;
    throw new MillraceError('runtime-folder-unsafe', {
      actor: 'host',
      message: `${path} does not belong to this user alone`,
      values: { path, ownerUid: stat.uid, mode: (stat.mode & 0o777).toString(8) },
      hint: `Remove it, or set XDG_RUNTIME_DIR to a folder of your own.`,
    });
  }
  return join(parent, name);
}
